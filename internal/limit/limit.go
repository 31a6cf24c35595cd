// Package limit holds bounded, concurrency-safe rate limiters. Every table
// has a size that it never exceeds; what is forgotten under pressure is what
// has been idle longest among a few candidates.
package limit

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

const shards = 64

// Rate is how much a key may do: PerMinute in the long run and up to Burst at
// once. PerMinute 0 or less means no limit.
type Rate struct {
	PerMinute int
	Burst     int // at least 1 is assumed
}

// Limiter limits events by key with the generic cell rate algorithm, which
// keeps one timestamp per key.
type Limiter struct {
	rate    atomic.Pointer[Rate]
	start   time.Time // times are counted from here, by the monotonic clock
	seed    maphash.Seed
	perSize int
	shards  [shards]shard
}

type shard struct {
	mu sync.Mutex
	// tat is the theoretical arrival time in nanoseconds since the start: the moment at
	// which the key will have its whole burst again.
	tat map[string]int64
}

// New returns a limiter that remembers at most maxKeys keys.
func New(rate Rate, maxKeys int) *Limiter {
	l := &Limiter{start: time.Now(), seed: maphash.MakeSeed(), perSize: max(1, maxKeys/shards)}
	l.SetRate(rate)
	for i := range l.shards {
		l.shards[i].tat = make(map[string]int64)
	}
	return l
}

// SetRate changes the rate for all keys from now on. What a key has used up at
// another rate is forgotten, or a limit that was raised would not count for up
// to a minute.
func (l *Limiter) SetRate(rate Rate) {
	rate.Burst = max(1, rate.Burst)
	if old := l.rate.Swap(&rate); old == nil || *old == rate {
		return
	}
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		clear(s.tat)
		s.mu.Unlock()
	}
}

// Allow counts one event for key and reports whether it is within the rate.
// Where it is not, wait says when one would be again; a refused event does
// not count.
func (l *Limiter) Allow(key string) (ok bool, wait time.Duration) { return l.take(key, true) }

// Peek reports what Allow would, and counts nothing.
func (l *Limiter) Peek(key string) (ok bool, wait time.Duration) { return l.take(key, false) }

func (l *Limiter) take(key string, count bool) (bool, time.Duration) {
	rate := l.rate.Load()
	if rate.PerMinute <= 0 {
		return true, 0
	}
	interval := int64(time.Minute) / int64(rate.PerMinute)
	tolerance := interval * int64(rate.Burst-1)
	now := int64(time.Since(l.start))

	s := &l.shards[maphash.String(l.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	tat, known := s.tat[key]
	tat = max(tat, now)
	if over := tat - tolerance - now; over > 0 {
		return false, time.Duration(over)
	}
	if !count {
		return true, 0
	}
	if !known && len(s.tat) >= l.perSize {
		s.evict(now)
	}
	s.tat[key] = tat + interval
	return true, 0
}

// evict makes room for one key: it drops whatever is idle among a sample, or
// the least recently busy one of the sample.
func (s *shard) evict(now int64) {
	const sample = 16
	var oldest string
	oldestTAT, seen, dropped := int64(0), 0, false
	for key, tat := range s.tat {
		if tat <= now {
			delete(s.tat, key)
			dropped = true
		} else if seen == 0 || tat < oldestTAT {
			oldest, oldestTAT = key, tat
		}
		if seen++; seen == sample {
			break
		}
	}
	if !dropped {
		delete(s.tat, oldest)
	}
}

// Recent remembers keys for a while.
type Recent struct {
	mu      sync.Mutex
	keep    time.Duration
	maxKeys int
	turned  time.Time
	// Keys live in the current or the previous generation, so that forgetting
	// is one assignment.
	current, previous map[string]struct{}
}

// NewRecent returns a set that remembers a key for at least keep and at most
// twice as long, and at most 2×maxKeys keys.
func NewRecent(keep time.Duration, maxKeys int) *Recent {
	return &Recent{
		keep: keep, maxKeys: maxKeys, turned: time.Now(),
		current: make(map[string]struct{}), previous: make(map[string]struct{}),
	}
}

// Add remembers key.
func (r *Recent) Add(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	r.current[key] = struct{}{}
}

// Has reports whether key is remembered.
func (r *Recent) Has(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	if _, ok := r.current[key]; ok {
		return true
	}
	_, ok := r.previous[key]
	return ok
}

func (r *Recent) turn() {
	now := time.Now()
	age := now.Sub(r.turned)
	if age < r.keep && len(r.current) < r.maxKeys {
		return
	}
	if age >= 2*r.keep {
		r.current = make(map[string]struct{})
	}
	r.previous, r.current = r.current, make(map[string]struct{})
	r.turned = now
}
