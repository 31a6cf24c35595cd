package limit

import (
	"cmp"
	"slices"
	"time"
)

const (
	// manyNodes is how many nodes may each keep to themselves what a key has
	// used up without exceeding its limit together: they tell of a key once so
	// many, all doing the same, would have used it up. Small budgets are
	// therefore told from the first event on, and of large ones a share of one
	// in manyNodes is not.
	manyNodes = 32

	// maxDebt is how many bursts a key may be behind by what other nodes have
	// let through. What several nodes admit before they hear of each other is
	// owed; only that keeps to the rate in the long run.
	maxDebt = 16

	// maxNews is how many keys a Recent, and a Limiter per shard, keep to tell.
	// More than an exchange takes need no queue: who goes on is queued later.
	maxNews         = 4096
	maxNewsPerShard = maxNews / shards
)

// note counts an event as untold and queues its key once others have to know.
func (l *Limiter) note(s *shard, key string, u *usage, now, interval, tolerance int64) {
	u.untold++
	u.crowd = min(max(u.crowd, now), now+tolerance) + manyNodes*interval
	if u.crowd-now > tolerance {
		l.queue(s, key, u)
	}
}

func (l *Limiter) queue(s *shard, key string, u *usage) {
	if u.queued || len(s.news) >= maxNewsPerShard {
		return
	}
	u.queued = true
	s.news = append(s.news, key)
	l.news.Add(1)
}

// Tell hands out what this node has let through and others were not told,
// most events first, for as long as take returns true; what was taken counts
// as told. What a key has got back since need not be told.
func (l *Limiter) Tell(take func(key string, n int64) bool) {
	l.told.Store(true)
	rate := l.rate.Load()
	if l.news.Load() == 0 || rate.PerMinute <= 0 {
		return
	}
	var found []untold
	for i := range l.shards {
		found = l.gather(&l.shards[i], found, rate.interval())
	}
	slices.SortFunc(found, func(a, b untold) int { return cmp.Compare(b.n, a.n) })
	for i, f := range found {
		if !take(f.key, f.n) {
			l.putBack(found[i:])
			return
		}
	}
}

type untold struct {
	key string
	n   int64
}

// gather takes from a shard what it has to tell.
func (l *Limiter) gather(s *shard, found []untold, interval int64) []untold {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := int64(time.Since(l.start))
	for _, key := range s.news {
		u := s.keys[key]
		if !u.queued { // forgotten since, and perhaps queued again
			continue
		}
		used := (max(u.tat, now) - now + interval - 1) / interval
		if n := min(int64(u.untold), used); n > 0 {
			found = append(found, untold{key, n})
		}
		u.untold, u.queued = 0, false
		s.keys[key] = u
	}
	l.news.Add(-int64(len(s.news)))
	s.news = nil
	return found
}

// putBack returns what gather took and nobody was told.
func (l *Limiter) putBack(left []untold) {
	for _, f := range left {
		s := l.shard(f.key)
		s.mu.Lock()
		if u, known := s.keys[f.key]; known {
			u.untold += uint32(f.n)
			l.queue(s, f.key, &u)
			s.keys[f.key] = u
		}
		s.mu.Unlock()
	}
}

// Hear charges key with n events that another node has let through. It may
// then be in debt, but not without bound.
func (l *Limiter) Hear(key string, n int64) {
	rate := l.rate.Load()
	if n <= 0 || rate.PerMinute <= 0 {
		return
	}
	interval := rate.interval()
	most := maxDebt * int64(rate.Burst)
	now := int64(time.Since(l.start))
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	u, known := s.keys[key]
	if !known && len(s.keys) >= l.perSize {
		s.evict(now)
	}
	if u.tat <= now {
		u.tat, u.untold = now, 0
	}
	u.tat = max(u.tat, min(u.tat+min(n, most)*interval, now+most*interval))
	s.keys[key] = u
}
