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

// A hash that takes more memory than this, in KiB, waits for a slot of its
// own, of which there is one: imported hashes may need 256 MiB each.
const heavyMemory = 64 << 10

const (
	queuePerSlot = 8
	retryBusy    = time.Second
)

// PasswordOptions configures [Passwords]. The zero value of a field means its
// default.
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
	slots  chan struct{}
	heavy  chan struct{}
	limit  int64 // of pending
	dummy  hash  // whose work is done where there is no hash

	pending atomic.Int64 // hashing or waiting to
	hashes  atomic.Uint64
	refused atomic.Uint64

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
		slots: make(chan struct{}, o.Slots),
		heavy: make(chan struct{}, 1),
		limit: int64(o.Slots + o.Queue),
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
	return PasswordStats{Hashes: p.hashes.Load(), Refused: p.refused.Load(), Pending: int(p.pending.Load())}
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

// compute waits for a slot and does the work of h.
func (p *Passwords) compute(ctx context.Context, h hash, password secret.String) (key []byte, ok bool, err error) {
	if p.pending.Add(1) > p.limit {
		p.pending.Add(-1)
		p.refused.Add(1)
		return nil, false, &Error{Kind: Busy, RetryAfter: retryBusy}
	}
	defer p.pending.Add(-1)
	if h.memory > heavyMemory {
		if err := acquire(ctx, p.heavy); err != nil {
			return nil, false, err
		}
		defer release(p.heavy)
	}
	if err := acquire(ctx, p.slots); err != nil {
		return nil, false, err
	}
	defer release(p.slots)
	p.hashes.Add(1)
	key, ok = p.work(h, []byte(password.Reveal()))
	return key, ok, nil
}

func acquire(ctx context.Context, slots chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func release(slots chan struct{}) { <-slots }

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
