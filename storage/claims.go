package storage

import (
	"sync"
	"time"
)

// MaxClaims is how many claims one generation of Claims holds.
const MaxClaims = 500_000

// Claims is a bounded table of volatile claims for an engine that serves one
// node. Entries live in two generations: when the newer one is full, or the
// older one holds nothing unexpired any more, the older one is dropped whole
// and the newer one takes its place. It is safe for concurrent use.
type Claims struct {
	mu           sync.Mutex
	limit        int
	newer, older map[claimKey]time.Time // until when
	newerUntil   time.Time              // no entry of newer lives longer
	olderUntil   time.Time
}

// claimKey is the start of a Digest, which is enough to tell claims apart.
type claimKey [16]byte

// NewClaims returns a table of at most 2*limit claims; limit of 0 or less
// means MaxClaims.
func NewClaims(limit int) *Claims {
	if limit <= 0 {
		limit = MaxClaims
	}
	return &Claims{limit: limit, newer: map[claimKey]time.Time{}}
}

// Take takes key for lifetime and reports whether it was free.
func (c *Claims) Take(key Digest, lifetime time.Duration) bool {
	k := claimKey(key[:16])
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held(c.newer, k, now) || c.held(c.older, k, now) {
		return false
	}
	if lifetime <= 0 {
		return true
	}
	delete(c.older, k)
	c.turn(now)
	until := now.Add(lifetime)
	c.newer[k] = until
	if until.After(c.newerUntil) {
		c.newerUntil = until
	}
	return true
}

func (c *Claims) held(table map[claimKey]time.Time, k claimKey, now time.Time) bool {
	until, ok := table[k]
	return ok && now.Before(until)
}

func (c *Claims) turn(now time.Time) {
	spent := !now.Before(c.olderUntil)
	if len(c.newer) < c.limit && (!spent || len(c.newer) == 0) {
		return
	}
	c.older, c.olderUntil = c.newer, c.newerUntil
	c.newer, c.newerUntil = make(map[claimKey]time.Time), time.Time{}
}

// Release gives a claim back.
func (c *Claims) Release(key Digest) {
	k := claimKey(key[:16])
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.newer, k)
	delete(c.older, k)
}
