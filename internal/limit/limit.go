// Package limit holds bounded, concurrency-safe rate limiters. Every table
// has a size that it never exceeds; what is forgotten under pressure is what
// has been idle longest among a few candidates.
//
// Each node counts by itself, so that no request waits for another node. An
// [Exchange] tells the counts to the others a moment later.
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
	told    atomic.Bool  // somebody asks what other nodes are to be told
	news    atomic.Int64 // keys in the shards' news
	shards  [shards]shard
}

type shard struct {
	mu   sync.Mutex
	keys map[string]usage
	news []string // keys that other nodes are to be told of
}

// usage is what one key has used up. Times are nanoseconds since the start.
type usage struct {
	// tat is the theoretical arrival time: the moment at which the key will
	// have its whole burst again.
	tat int64
	// crowd is the tat that the key would have if as many nodes as manyNodes
	// had each let through what this one has.
	crowd  int64
	untold uint32 // events that other nodes were not told of
	queued bool   // in the shard's news
}

// New returns a limiter that remembers at most maxKeys keys.
func New(rate Rate, maxKeys int) *Limiter {
	l := &Limiter{start: time.Now(), seed: maphash.MakeSeed(), perSize: max(1, maxKeys/shards)}
	l.SetRate(rate)
	for i := range l.shards {
		l.shards[i].keys = make(map[string]usage)
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
		clear(s.keys)
		l.news.Add(-int64(len(s.news)))
		s.news = nil
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
	interval, tolerance := rate.interval(), rate.tolerance()
	now := int64(time.Since(l.start))

	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	u, known := s.keys[key]
	if u.tat <= now {
		u.tat, u.untold = now, 0
	}
	if over := u.tat - tolerance - now; over > 0 {
		return false, time.Duration(over)
	}
	if !count {
		return true, 0
	}
	if !known && len(s.keys) >= l.perSize {
		s.evict(now)
	}
	u.tat += interval
	if l.told.Load() {
		l.note(s, key, &u, now, interval, tolerance)
	}
	s.keys[key] = u
	return true, 0
}

func (l *Limiter) shard(key string) *shard { return &l.shards[maphash.String(l.seed, key)%shards] }

// interval is the time in nanoseconds in which a key gets one event back.
func (r *Rate) interval() int64 { return int64(time.Minute) / int64(r.PerMinute) }

// tolerance is how far a key's tat may be ahead for one more event, in nanoseconds.
func (r *Rate) tolerance() int64 { return r.interval() * int64(r.Burst-1) }

// evict makes room for one key: it drops whatever is idle among a sample, or
// the least recently busy one of the sample.
func (s *shard) evict(now int64) {
	const sample = 16
	var oldest string
	oldestTAT, seen, dropped := int64(0), 0, false
	for key, u := range s.keys {
		if u.tat <= now {
			delete(s.keys, key)
			dropped = true
		} else if seen == 0 || u.tat < oldestTAT {
			oldest, oldestTAT = key, u.tat
		}
		if seen++; seen == sample {
			break
		}
	}
	if !dropped {
		delete(s.keys, oldest)
	}
}
