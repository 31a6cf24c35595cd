package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrUnknownKey means that no key of the ring has the id given.
var ErrUnknownKey = errors.New("keys: no such key")

// KeyInfo describes a key to an operator. Times that are not yet known or do
// not apply are zero and left out of JSON.
type KeyInfo struct {
	ID           string    `json:"id"`
	Alg          string    `json:"alg"`   // ES256, RS256, EdDSA or MAC
	State        string    `json:"state"` // next, current or previous
	Created      time.Time `json:"created"`
	ServedSince  time.Time `json:"served_since,omitzero"`
	SigningSince time.Time `json:"signing_since,omitzero"`
	SignsFrom    time.Time `json:"signs_from,omitzero"` // next: when its turn comes
	RetiresAt    time.Time `json:"retires_at,omitzero"` // current: when it is followed; previous: when it was
	RemovedAt    time.Time `json:"removed_at,omitzero"` // previous: when it will be dropped
}

// List returns the keys, by algorithm and then current, next, previous.
func (r *Ring) List() []KeyInfo {
	s := r.snap.Load()
	p := r.plan(nil)
	out := make([]KeyInfo, 0, len(s.doc.Keys))
	for _, rec := range s.doc.sorted() {
		info := KeyInfo{
			ID: rec.ID, Alg: rec.Alg, State: rec.State,
			Created: rec.CreatedAt, ServedSince: rec.ServedAt, SigningSince: rec.SigningAt,
			RetiresAt: rec.RetiredAt,
		}
		switch rec.State {
		case StateNext:
			info.SignsFrom = p.earliest(s.doc, rec)
			if current := s.doc.only(rec.Alg, StateCurrent); current != nil {
				info.SignsFrom = p.rotation(s.doc, current)
			}
		case StateCurrent:
			info.RetiresAt = p.rotation(s.doc, rec)
		case StatePrevious:
			info.RemovedAt = p.removal(rec)
		}
		out = append(out, info)
	}
	return out
}

// Age is what metrics show of one ring.
type Age struct {
	Current      time.Duration // since the current key began to sign
	NextRotation time.Duration // until it is followed; 0 when overdue
}

// Ages returns the age of the current key of each algorithm, MAC included.
func (r *Ring) Ages() map[string]Age {
	s := r.snap.Load()
	p := r.plan(nil)
	out := make(map[string]Age)
	for _, rec := range s.doc.Keys {
		if rec.State == StateCurrent {
			out[rec.Alg] = Age{
				Current:      max(p.now.Sub(rec.SigningAt), 0),
				NextRotation: max(p.rotation(s.doc, rec).Sub(p.now), 0),
			}
		}
	}
	return out
}

// ScheduledError says that a rotation was accepted and will happen by itself,
// because the next key has not been published long enough to sign. Nothing is
// left to do.
type ScheduledError struct {
	Algs []string  // the algorithms that still wait
	At   time.Time // when the last of them rotates, about
}

func (e *ScheduledError) Error() string {
	return fmt.Sprintf("keys: rotation of %s is scheduled for %s, when the next key has been published long enough",
		strings.Join(e.Algs, ", "), e.At.Format(time.RFC3339))
}

// Rotate makes the next key of alg, or of every algorithm where alg is empty,
// current. A next key that has not been published for PublishAhead is scheduled
// instead: a *ScheduledError says for when.
func (r *Ring) Rotate(ctx context.Context, alg string) error {
	if alg != "" && !slices.Contains(algorithms[:], alg) {
		return fmt.Errorf("keys: unknown alg %.16q; known are %s", alg, strings.Join(algorithms[:], ", "))
	}
	var waiting *ScheduledError
	err := r.change(ctx, func(d *document, fresh *pool) error {
		p := r.plan(nil)
		requested := make(map[string]*record)
		for _, rec := range d.Keys {
			if rec.State == StateCurrent && p.enabled(rec.Alg) && (alg == "" || alg == rec.Alg) {
				rec.Requested = true
				requested[rec.Alg] = rec
			}
		}
		if len(requested) == 0 {
			return fmt.Errorf("%w: %s has no current key to rotate", ErrNoKey, alg)
		}
		if err := p.apply(d, fresh); err != nil {
			return err
		}
		waiting = nil // a lost attempt may have set it
		for _, alg := range algorithms {
			rec := requested[alg]
			if rec == nil || rec.State != StateCurrent {
				continue
			}
			if waiting == nil {
				waiting = &ScheduledError{}
			}
			waiting.Algs = append(waiting.Algs, alg)
			if at := p.rotation(d, rec); at.After(waiting.At) {
				waiting.At = at
			}
		}
		return nil
	})
	if err == nil && waiting != nil {
		return waiting
	}
	return err
}

// Revoke drops a compromised key: on this node at once, on others within
// PollEvery, it leaves the JWK Set and what it signed no longer verifies. A
// revoked current key is followed at once by the next, published long enough or
// not. It returns ErrUnknownKey for an id that no key has.
func (r *Ring) Revoke(ctx context.Context, keyID string) error {
	err := r.change(ctx, func(d *document, fresh *pool) error {
		rec := d.byID(keyID)
		if rec == nil {
			return fmt.Errorf("%w: %s", ErrUnknownKey, shown(keyID))
		}
		d.remove(rec)
		p := r.plan(nil)
		if rec.State != StateCurrent || !p.enabled(rec.Alg) {
			return nil
		}
		next := d.only(rec.Alg, StateNext)
		if next == nil {
			var err error
			if next, err = fresh.take(d, rec.Alg, p.now); err != nil {
				return err
			}
		}
		p.promote(next)
		return nil
	})
	if err != nil {
		return err
	}
	r.logger.Warn("key revoked", "event", "keys.revoked", "kid", keyID)
	// A new next key is a change of its own: making it must not hold up the
	// revocation, and if it fails, Run does it.
	if err := r.maintain(ctx); err != nil {
		r.logger.Error("key maintenance failed after a revocation; it will be retried",
			"event", "keys.maintenance_failed", "detail", err.Error())
	}
	return nil
}

// Rewrap seals under the keyring's first master key what is sealed under
// another, and returns how many keys that were. When all nodes have the first
// one and Rewrap has returned, the others are no longer needed here.
func (r *Ring) Rewrap(ctx context.Context) (n int, err error) {
	err = r.change(ctx, func(d *document, _ *pool) error {
		n = 0
		for _, rec := range d.Keys {
			if !r.keyring.NeedsRewrap(rec.Sealed) {
				continue
			}
			plain, err := rec.open(r.keyring)
			if err != nil {
				return err
			}
			rec.seal(r.keyring, plain)
			clear(plain)
			n++
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
