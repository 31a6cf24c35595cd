package limit

import (
	"sync"
	"time"
)

// Recent remembers keys for a while.
type Recent struct {
	mu      sync.Mutex
	keep    time.Duration
	maxKeys int
	turned  time.Time
	// Keys live in the current or the previous generation, so that forgetting
	// is one assignment. With each stands when other nodes heard of it last.
	current, previous map[string]time.Time

	told bool     // somebody asks what other nodes are to be told
	news []string // what they are to be told
}

// NewRecent returns a set that remembers a key for at least keep and at most
// twice as long, and at most 2×maxKeys keys.
func NewRecent(keep time.Duration, maxKeys int) *Recent {
	return &Recent{
		keep: keep, maxKeys: maxKeys, turned: time.Now(),
		current: make(map[string]time.Time), previous: make(map[string]time.Time),
	}
}

// Add remembers key.
func (r *Recent) Add(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.turn()
	heard, known := r.current[key]
	if r.told && (!known || now.Sub(heard) > r.keep/2) && len(r.news) < maxNews {
		r.news = append(r.news, key)
		heard = now
	}
	r.current[key] = heard
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

func (r *Recent) turn() (now time.Time) {
	now = time.Now()
	age := now.Sub(r.turned)
	if age < r.keep && len(r.current) < r.maxKeys {
		return now
	}
	if age >= 2*r.keep {
		r.current = make(map[string]time.Time)
	}
	r.previous, r.current = r.current, make(map[string]time.Time)
	r.turned = now
	return now
}

// Tell hands out the keys that were added: those that other nodes know for
// half as long as they are kept, or not at all.
func (r *Recent) Tell(take func(key string, n int64) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = true
	done := 0
	for done < len(r.news) && take(r.news[done], 1) {
		done++
	}
	if r.news = r.news[done:]; len(r.news) == 0 {
		r.news = nil
	}
}

// Hear remembers a key that another node has added.
func (r *Recent) Hear(key string, _ int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current[key] = r.turn()
}
