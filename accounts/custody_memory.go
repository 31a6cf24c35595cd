package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"hash/maphash"
	"sync"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

const (
	verdictLife = 10 * time.Second
	maxVerdicts = 1 << 14
)

// verdicts remembers for a few seconds what WeChat said of session_keys.
type verdicts struct {
	salt [32]byte
	mu   *sync.Mutex // guards said
	said map[[sha256.Size]byte]verdict
}

type verdict struct {
	valid   bool
	expires time.Time
}

func newVerdicts() verdicts {
	v := verdicts{mu: new(sync.Mutex), said: make(map[[sha256.Size]byte]verdict)}
	rand.Read(v.salt[:])
	return v
}

// key names a session_key of an identity without holding it.
func (v *verdicts) key(holder Holder, key secret.String) [sha256.Size]byte {
	h := hmac.New(sha256.New, v.salt[:])
	h.Write(holder.Identity[:])
	h.Write([]byte(key.Reveal()))
	return [sha256.Size]byte(h.Sum(nil))
}

func (v *verdicts) of(holder Holder, key secret.String) (valid, known bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	said, ok := v.said[v.key(holder, key)]
	return said.valid, ok && time.Now().Before(said.expires)
}

func (v *verdicts) remember(holder Holder, key secret.String, valid bool) {
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.said) >= maxVerdicts {
		v.evict(now)
	}
	v.said[v.key(holder, key)] = verdict{valid, now.Add(verdictLife)}
}

// evict makes room: it drops what has expired of a sample, and one more where
// nothing has.
func (v *verdicts) evict(now time.Time) {
	const sample = 64
	seen, dropped := 0, false
	for key, said := range v.said {
		if !now.Before(said.expires) {
			delete(v.said, key)
			dropped = true
		}
		if seen++; seen == sample {
			if !dropped {
				delete(v.said, key)
			}
			return
		}
	}
}

// stripes are locks by identity, of which several share one.
type stripes struct {
	seed  maphash.Seed
	locks [256]chan struct{}
}

func newStripes() stripes {
	s := stripes{seed: maphash.MakeSeed()}
	for i := range s.locks {
		s.locks[i] = make(chan struct{}, 1)
	}
	return s
}

// lock waits for its turn until ctx ends.
func (s *stripes) lock(ctx context.Context, identity storage.Digest) (unlock func(), err error) {
	held := s.locks[maphash.Bytes(s.seed, identity[:])%uint64(len(s.locks))]
	select {
	case held <- struct{}{}:
		return func() { <-held }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
