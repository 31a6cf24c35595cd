// Package keys owns the signing keys: one ring per algorithm (ES256, RS256 and,
// where enabled, EdDSA) and one of the MAC keys that make refresh tokens. It
// rotates them by itself, once however many nodes share the store, keeps them
// sealed at rest, publishes the public halves as a JWK Set (RFC 7517), and
// signs and verifies compact JWS (RFC 7515) with them.
//
// What a key goes through, and why no validator meets an unknown kid, is told
// in plan.go.
package keys

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
)

// The algorithms a ring exists for: the `alg` values of RFC 7518 and RFC 8037,
// and MAC for the keys of refresh tokens, which are never published.
const (
	ES256 = "ES256"
	RS256 = "RS256"
	EdDSA = "EdDSA"
	MAC   = "MAC"
)

// DefaultPollEvery is how soon a node sees another's change unless Options say
// otherwise.
const DefaultPollEvery = 5 * time.Second

const (
	recordName  = "signing-keys"
	maxAttempts = 50               // lost swaps and keys to be made, in one change
	tickTimeout = 30 * time.Second // one round of maintenance, key generation included
	tellEvery   = 30 * time.Second // while maintenance fails
)

// Store keeps the ring as one versioned document, so that many nodes can share it.
type Store interface {
	// Record returns the value of name and its version; version 0 and no
	// error mean that there is none.
	Record(ctx context.Context, name string) (value []byte, version uint64, err error)
	// SwapRecord replaces the value of name if it still has version (0: if
	// there is none) and returns once that is durable. swapped is false, with
	// no error, if someone else was first.
	SwapRecord(ctx context.Context, name string, version uint64, value []byte) (swapped bool, err error)
}

// Settings are the lifetimes the ring works with. All durations must be
// positive.
type Settings struct {
	// RotateEvery is how long a key signs. A ring keeps at most about 256
	// retired keys, so a key signs at least 1/256 of the time it stays valid
	// afterwards, however short RotateEvery is.
	RotateEvery time.Duration
	// PublishAhead is how long a key is served in the JWK Set before it signs.
	PublishAhead time.Duration
	// TokenLifetime is the longest life of any JWT signed here: how long a
	// retired signing key stays published.
	TokenLifetime time.Duration
	// RefreshLifetime is the absolute life of refresh tokens: how long a
	// retired MAC key stays valid.
	RefreshLifetime time.Duration
	// EdDSA turns on a ring of Ed25519 keys. Turned on later than at first
	// start, its first key signs only after PublishAhead; turned off, its
	// last key retires when its rotation is due.
	EdDSA bool
}

func (s Settings) validate() error {
	for _, field := range []struct {
		name  string
		value time.Duration
	}{
		{"RotateEvery", s.RotateEvery},
		{"PublishAhead", s.PublishAhead},
		{"TokenLifetime", s.TokenLifetime},
		{"RefreshLifetime", s.RefreshLifetime},
	} {
		if field.value <= 0 {
			return fmt.Errorf("keys: %s must be positive, is %s", field.name, field.value)
		}
	}
	return nil
}

// maxAge is the longest a validator may cache the JWK Set under these settings.
func (s Settings) maxAge() time.Duration {
	return min(s.PublishAhead/2, time.Hour).Truncate(time.Second)
}

// Options are what a Ring needs.
type Options struct {
	Store    Store
	Keyring  *seal.Keyring
	Settings Settings
	Logger   *slog.Logger // nil: nothing is logged
	// PollEvery is how soon a change made by another node is seen, a
	// revocation too. All nodes must use about the same. 0 means
	// DefaultPollEvery.
	PollEvery time.Duration
}

// Ring signs and verifies with the keys of one store. Reading it (Sign, Verify,
// JWKS, MACKey, MACKeyByID) takes no lock and touches no store; it is safe for
// concurrent use.
type Ring struct {
	store     Store
	keyring   *seal.Keyring
	logger    *slog.Logger
	pollEvery time.Duration
	newSigner func(alg string) (crypto.Signer, error)

	settings atomic.Pointer[Settings]
	snap     atomic.Pointer[snapshot]
	syncedAt atomic.Pointer[time.Time] // when the document was last read
	wake     chan struct{}             // asks Run for a round now
	looks    looks

	// mu keeps reading the document, swapping it and putting it in force one
	// step, so that an older document never displaces a newer one. No key is
	// generated and no request served under it.
	mu sync.Mutex
}

// Open loads the ring, or creates it where the store holds none: the first keys
// sign at once. It fails, and changes nothing, if a stored key was sealed by a
// master key the keyring does not hold, or if the document is damaged.
func Open(ctx context.Context, options Options) (*Ring, error) {
	return open(ctx, options, newSigner)
}

func open(ctx context.Context, o Options, newSigner func(string) (crypto.Signer, error)) (*Ring, error) {
	if o.Store == nil || o.Keyring == nil {
		return nil, errors.New("keys: a store and a keyring are needed")
	}
	if err := o.Settings.validate(); err != nil {
		return nil, err
	}
	if o.PollEvery < 0 {
		return nil, fmt.Errorf("keys: PollEvery must not be negative, is %s", o.PollEvery)
	}
	r := &Ring{
		store:     o.Store,
		keyring:   o.Keyring,
		logger:    o.Logger,
		pollEvery: o.PollEvery,
		newSigner: newSigner,
		wake:      make(chan struct{}, 1),
		looks:     looks{turn: make(chan struct{}, 1)},
	}
	if r.pollEvery == 0 {
		r.pollEvery = DefaultPollEvery
	}
	if r.logger == nil {
		r.logger = slog.New(slog.DiscardHandler)
	}
	r.settings.Store(&o.Settings)
	// Maintenance before the first signature: among other things it records
	// the token lifetime the current keys now sign for.
	if err := r.maintain(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Run keeps the ring until ctx ends, then returns nil: it takes over what other
// nodes changed, records which keys are being served, rotates what is due and
// drops what is dead. Start it once the JWK Set can be fetched: its first round
// counts every key loaded by Open as served. Failures are logged now and then,
// and the keys in force go on; the pace stays, so that a revocation on another
// node counts here as soon as the store is back.
func (r *Ring) Run(ctx context.Context) error {
	// PollEvery is a promise to the outside; a fifth of it is left for the
	// round itself.
	interval := max(r.pollEvery-r.pollEvery/5, time.Millisecond)
	delay := time.Duration(0)
	var told time.Time // when a failure was last logged; zero: all is well
	for {
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-r.wake:
			timer.Stop()
		}
		err := r.round(ctx)
		delay = interval
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			told = time.Time{}
		case time.Since(told) >= tellEvery:
			told = time.Now()
			r.logger.Error("key maintenance failed; the keys in force go on",
				"event", "keys.maintenance_failed", "detail", err.Error(), "retry_in", delay.String())
		}
	}
}

func (r *Ring) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tickTimeout)
	defer cancel()
	return r.maintain(ctx)
}

// Reload puts new lifetimes in force without interrupting anything. Settings
// that are not valid are logged and ignored.
func (r *Ring) Reload(settings Settings) {
	if err := settings.validate(); err != nil {
		r.logger.Error("key settings refused; the last good ones go on",
			"event", "keys.settings_refused", "detail", err.Error())
		return
	}
	r.settings.Store(&settings)
	for {
		old := r.snap.Load()
		if r.snap.CompareAndSwap(old, old.with(settings)) {
			break
		}
	}
	select {
	case r.wake <- struct{}{}:
	default: // a round is already asked for
	}
}

// Staleness is how long ago the shared document was last read: a few seconds
// while Run works. A node cut off for longer than half of PublishAhead serves a
// JWK Set that may lack a key other nodes sign with.
func (r *Ring) Staleness() time.Duration { return time.Since(*r.syncedAt.Load()) }

// maintain makes the changes that are due now.
func (r *Ring) maintain(ctx context.Context) error {
	// Only keys in force before this round have really been served.
	serving := r.snap.Load()
	return r.change(ctx, func(d *document, fresh *pool) error {
		return r.plan(serving).apply(d, fresh)
	})
}

func (r *Ring) plan(serving *snapshot) plan {
	return plan{
		now:      time.Now().UTC().Truncate(time.Millisecond),
		settings: *r.settings.Load(),
		lag:      2 * r.pollEvery,
		served:   func(id string) bool { return serving != nil && serving.records[id] != nil },
	}
}

var errLost = errors.New("keys: another node changed the keys first")

// change applies decide to the document in the store. Whoever loses the swap to
// another node decides again on what that node wrote, so decide must take
// nothing for granted but the document it is given.
func (r *Ring) change(ctx context.Context, decide func(*document, *pool) error) error {
	fresh := &pool{keyring: r.keyring}
	defer fresh.clear()
	for range maxAttempts {
		fresh.rewind()
		err := r.attempt(ctx, decide, fresh)
		var need needKey
		switch {
		case errors.As(err, &need):
			// Outside of mu: an RSA key takes long.
			if err := fresh.make(need.alg, r.newSigner); err != nil {
				return err
			}
		case !errors.Is(err, errLost):
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return errLost
}

func (r *Ring) attempt(ctx context.Context, decide func(*document, *pool) error, fresh *pool) error {
	r.mu.Lock()
	defer r.mu.Unlock()

	stored, version, err := r.load(ctx)
	if err != nil {
		return err
	}
	changed := stored.clone()
	if err := decide(changed, fresh); err != nil {
		return err
	}
	changed.first = false
	encoded, err := changed.encode()
	if err != nil {
		return err
	}
	if version != 0 && bytes.Equal(encoded, r.snap.Load().value) {
		return nil
	}
	snap, err := r.build(changed, encoded)
	if err != nil {
		return err
	}
	swapped, err := r.store.SwapRecord(ctx, recordName, version, encoded)
	if err != nil {
		return fmt.Errorf("keys: writing the key document: %w", err)
	}
	if !swapped {
		return errLost
	}
	r.install(snap)
	r.logChanges(stored, changed)
	return nil
}

// load reads the document, puts it in force, and returns it with its version; a
// first one, and version 0, where there is none. mu is held.
func (r *Ring) load(ctx context.Context) (stored *document, version uint64, err error) {
	value, version, err := r.store.Record(ctx, recordName)
	if err != nil {
		return nil, 0, fmt.Errorf("keys: reading the key document: %w", err)
	}
	inForce := r.snap.Load()
	switch {
	case version != 0 && inForce != nil && bytes.Equal(value, inForce.value):
		r.install(inForce.with(*r.settings.Load()))
		return inForce.doc, version, nil
	case version != 0:
		if stored, err = decodeDocument(value); err != nil {
			return nil, 0, err
		}
		// Every stored key must open before anything may be changed, so that
		// a wrong master key can never replace one.
		snap, err := r.build(stored, value)
		if err != nil {
			return nil, 0, err
		}
		r.install(snap)
		return stored, version, nil
	case inForce != nil:
		return nil, 0, errors.New("keys: the key document has vanished from the store")
	}
	return &document{Version: documentVersion, first: true}, 0, nil
}

func (r *Ring) install(snap *snapshot) {
	now := time.Now()
	r.syncedAt.Store(&now)
	r.snap.Store(snap)
}

func (r *Ring) logChanges(before, after *document) {
	log := func(rec *record, from, to string) {
		r.logger.Info("key changed", "event", "keys.changed",
			"kid", rec.ID, "alg", rec.Alg, "from", from, "to", to)
	}
	for _, rec := range after.Keys {
		old := before.byID(rec.ID)
		switch {
		case old == nil:
			log(rec, "", rec.State)
		case old.State != rec.State:
			log(rec, old.State, rec.State)
		}
	}
	for _, old := range before.Keys {
		if after.byID(old.ID) == nil {
			log(old, old.State, "removed")
		}
	}
}
