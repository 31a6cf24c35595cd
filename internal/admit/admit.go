// Package admit keeps a server useful while more is asked of it than it can
// do: it bounds how many requests are worked on at once and how long others
// wait for their turn, and turns the rest away while that is still cheap.
package admit

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// ErrOverloaded says that a request was turned away.
var ErrOverloaded = errors.New("more requests than can be worked on are waiting")

// How long a request waits for its turn. A burst is worked off; a queue that
// never gets empty is not a burst, and would only make every request late.
const (
	patience   = 500 * time.Millisecond
	standing   = 100 * time.Millisecond // a queue that old is no burst
	impatience = 10 * time.Millisecond  // then
)

// Gate lets a number of requests in at once. It is safe for concurrent use.
type Gate struct {
	slots int

	mu      sync.Mutex // guards the fields below
	busy    int
	waiting list.List // of chan struct{}, oldest first; closed by whoever gives up a slot
	since   time.Time // when the first of those waiting found nobody waiting
}

// New returns a gate for so many requests at once.
func New(slots int) *Gate { return &Gate{slots: slots} }

// Enter waits for a slot. It returns ErrOverloaded when that would take too
// long, and the error of ctx when that ends first. After nil Leave must be
// called.
func (g *Gate) Enter(ctx context.Context) error {
	g.mu.Lock()
	if g.busy < g.slots {
		g.busy++
		g.mu.Unlock()
		return nil
	}
	now := time.Now()
	if g.waiting.Len() == 0 {
		g.since = now
	}
	limit := patience
	if now.Sub(g.since) > standing {
		limit = impatience
	}
	turn := make(chan struct{})
	place := g.waiting.PushBack(turn)
	g.mu.Unlock()

	timer := time.NewTimer(limit)
	defer timer.Stop()
	err := ErrOverloaded
	select {
	case <-turn:
		return nil
	case <-timer.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-turn: // at the last moment
		return nil
	default:
		g.waiting.Remove(place)
		return err
	}
}

// Leave gives the slot of one Enter to who has waited longest.
func (g *Gate) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if first := g.waiting.Front(); first != nil {
		close(g.waiting.Remove(first).(chan struct{}))
		return
	}
	g.busy--
}
