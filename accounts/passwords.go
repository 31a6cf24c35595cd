package accounts

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"github.com/wxidp/wxidp/internal/secret"
)

// MaxPassword is the longest password, in bytes. A longer one is refused
// before any work is done for it.
const MaxPassword = 128

// What a password hash made here costs, and its sizes in bytes.
var ownParams = argon2Params{memory: 19 << 10, passes: 2, lanes: 1}

const (
	saltSize = 16
	keySize  = 32
)

// A hash that costs more than this has a slot and a queue of its own kind:
// imported hashes may need 256 MiB or a quarter of a second each, so that one
// at a time is computed, and who waits for that keeps nobody else waiting.
const (
	heavyWeight     = 2 // times the work of our own
	heavyBcryptCost = 10
	heavyQueue      = 8
)

const (
	queuePerSlot = 8
	retryBusy    = time.Second
)

// PasswordOptions configures [Passwords]. The zero value of a field means its
// default. Imported hashes of more than twice the work of our own, and bcrypt
// above cost 10, stand beside both: one is computed at a time, and eight more
// may wait.
type PasswordOptions struct {
	// Slots is how many passwords are hashed at once. Default: GOMAXPROCS less
	// one, but at least one, so that what needs no password stays quick.
	Slots int
	// Queue is how many more may wait for a slot; one beyond fails at once.
	// Default: eight per slot, a third of a second's worth.
	Queue int
}

// Passwords hashes and checks passwords with argon2id (RFC 9106; 19 MiB, two
// passes, one lane), a bounded number at once. It is safe for concurrent use.
type Passwords struct {
	params argon2Params
	light  *workers
	heavy  *workers
	dummy  hash // whose work is done where there is no hash

	hashes atomic.Uint64

	// work computes one hash: a test that counts or blocks replaces it.
	work func(h hash, password []byte) (key []byte, ok bool)
}

// NewPasswords returns Passwords with the given bounds.
func NewPasswords(o PasswordOptions) *Passwords {
	if o.Slots <= 0 {
		o.Slots = max(1, runtime.GOMAXPROCS(0)-1)
	}
	if o.Queue <= 0 {
		o.Queue = queuePerSlot * o.Slots
	}
	p := &Passwords{
		light: newWorkers(o.Slots, o.Queue),
		heavy: newWorkers(1, heavyQueue),
		work:  work,
	}
	p.setParams(ownParams)
	return p
}

func (p *Passwords) setParams(params argon2Params) {
	p.params = params
	p.dummy = hash{algorithm: algArgon2id, argon2Params: params, salt: random(saltSize), key: random(keySize)}
}

// PasswordStats are counters since the start, and the present load.
type PasswordStats struct {
	Hashes  uint64 // computed
	Refused uint64 // as Busy
	Pending int    // being computed, or waiting for a slot
}

// Stats returns the counters.
func (p *Passwords) Stats() PasswordStats {
	return PasswordStats{
		Hashes:  p.hashes.Load(),
		Refused: p.light.refused.Load() + p.heavy.refused.Load(),
		Pending: int(p.light.pending.Load() + p.heavy.pending.Load()),
	}
}

// CheckPassword refuses a password that is empty or longer than MaxPassword
// with an [*Error] of kind InvalidInput.
func CheckPassword(password secret.String) error {
	switch n := len(password.Reveal()); {
	case n == 0:
		return invalid("password", reasonTooShort)
	case n > MaxPassword:
		return invalid("password", reasonTooLong)
	}
	return nil
}

// Hash returns the PHC string of a new password. The error is an [*Error] of
// kind InvalidInput or Busy, or ctx's while it waited for a slot.
func (p *Passwords) Hash(ctx context.Context, password secret.String) (string, error) {
	if err := CheckPassword(password); err != nil {
		return "", err
	}
	h := hash{algorithm: algArgon2id, argon2Params: p.params, salt: random(saltSize), key: make([]byte, keySize)}
	key, _, err := p.compute(ctx, h, password)
	if err != nil {
		return "", err
	}
	return encodePHC(h.argon2Params, h.salt, key), nil
}

// Match is the outcome of [Passwords.Verify].
type Match struct {
	OK bool
	// Upgrade says that the hash is of another kind than those made here, or
	// costs less: a new one should take its place. Only set where OK is.
	Upgrade bool
	// Unusable says that encoded is no hash that can be checked, "" included.
	Unusable bool
}

// Verify checks a password against a hash that [CheckHash] accepts. Where
// encoded is no such hash, it does the work of one made here and answers that
// the password does not match. The error is as that of Hash.
func (p *Passwords) Verify(ctx context.Context, encoded string, password secret.String) (Match, error) {
	if err := CheckPassword(password); err != nil {
		return Match{}, err
	}
	h, parseErr := parseHash(encoded)
	if parseErr != nil {
		h = p.dummy
	}
	_, ok, err := p.compute(ctx, h, password)
	switch {
	case err != nil:
		return Match{}, err
	case parseErr != nil:
		return Match{Unusable: true}, nil
	}
	return Match{OK: ok, Upgrade: ok && p.outdated(h)}, nil
}

func (p *Passwords) outdated(h hash) bool {
	return h.algorithm != algArgon2id || len(h.salt) < saltSize || len(h.key) < keySize ||
		h.memory < p.params.memory || h.weight() < p.params.weight()
}

// isHeavy reports whether a hash costs so much more than our own that it must
// not stand in the way of those.
func (p *Passwords) isHeavy(h hash) bool {
	if h.algorithm == algBcrypt {
		cost, err := bcrypt.Cost([]byte(h.encoded))
		return err != nil || cost > heavyBcryptCost
	}
	return h.weight() > heavyWeight*p.params.weight()
}

// compute waits for a slot and does the work of h.
func (p *Passwords) compute(ctx context.Context, h hash, password secret.String) (key []byte, ok bool, err error) {
	w := p.light
	if p.isHeavy(h) {
		w = p.heavy
	}
	if err := w.enter(ctx); err != nil {
		return nil, false, err
	}
	defer w.leave()
	p.hashes.Add(1)
	key, ok = p.work(h, []byte(password.Reveal()))
	return key, ok, nil
}

// workers are a number of slots, and a bounded number of callers who wait for one.
type workers struct {
	slots   chan struct{}
	limit   int64        // of pending
	pending atomic.Int64 // in a slot or waiting for one
	refused atomic.Uint64
}

func newWorkers(slots, queue int) *workers {
	return &workers{slots: make(chan struct{}, slots), limit: int64(slots + queue)}
}

// enter waits for a slot. The error is an [*Error] of kind Busy, or ctx's.
// Without one, leave must be called.
func (w *workers) enter(ctx context.Context) error {
	if w.pending.Add(1) > w.limit {
		w.pending.Add(-1)
		w.refused.Add(1)
		return &Error{Kind: Busy, RetryAfter: retryBusy}
	}
	err := ctx.Err()
	if err == nil {
		select {
		case w.slots <- struct{}{}:
			return nil
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	w.pending.Add(-1)
	return err
}

func (w *workers) leave() {
	<-w.slots
	w.pending.Add(-1)
}

// work computes the key of argon2 and compares it with that of h in constant
// time; for bcrypt it only compares.
func work(h hash, password []byte) (key []byte, ok bool) {
	size := uint32(len(h.key))
	switch h.algorithm {
	case algBcrypt:
		// As everywhere, bcrypt sees the first 72 bytes of a password.
		return nil, bcrypt.CompareHashAndPassword([]byte(h.encoded), password) == nil
	case algArgon2i:
		key = argon2.Key(password, h.salt, h.passes, h.memory, h.lanes, size)
	default:
		key = argon2.IDKey(password, h.salt, h.passes, h.memory, h.lanes, size)
	}
	return key, subtle.ConstantTimeCompare(key, h.key) == 1
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: it ends the process where the system has no randomness
	return b
}
