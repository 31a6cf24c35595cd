package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/wxidp/wxidp/storage"
)

// slots is how many statements of one kind may be under way before others of
// the kind wait and become one, and maxTogether how many of them do.
const (
	slots       = 4
	maxTogether = 64
)

// A statement for many takes its first array from a subquery: the planner then
// cannot see how long it is, so that a plan fits any length and is made once.

// together turns operations of one kind that come while others are under way
// into one statement: a busy database then answers many with one round trip
// and one commit. An operation that finds a slot free runs at once and alone;
// no timer makes anybody wait for others.
type together[A, R any] struct {
	// run settles of a batch what it can with one statement. It is nobody's
	// context: those who wait have their own.
	run   func(ctx context.Context, batch []*call[A, R]) error
	wait  time.Duration // for a slot
	reads bool          // a caller may leave at any time

	mu      sync.Mutex
	running int
	waiting []*call[A, R]
}

// call is one operation that waits to become part of a statement.
type call[A, R any] struct {
	in      A
	out     R
	err     error         // the outcome, where it is not nil
	settled bool          // out is the outcome; otherwise the operation must run alone
	done    chan struct{} // closed when the rest is set
}

func (c *call[A, R]) settle(out R, err error) { c.out, c.err, c.settled = out, err, true }

// do returns the outcome of an operation, from a statement for many or from
// alone. A context that ends, or too long a wait, ends what is not yet part of
// a statement.
func (t *together[A, R]) do(ctx context.Context, in A, alone func() (R, error)) (out R, err error) {
	t.mu.Lock()
	if t.running < slots {
		t.running++
		t.mu.Unlock()
		defer t.finish()
		return alone()
	}
	c := &call[A, R]{in: in, done: make(chan struct{})}
	t.waiting = append(t.waiting, c)
	t.mu.Unlock()
	if err := t.await(ctx, c); err != nil {
		return out, err
	}
	switch {
	case c.err != nil:
		return out, c.err
	case c.settled:
		return c.out, nil
	}
	return alone()
}

func (t *together[A, R]) await(ctx context.Context, c *call[A, R]) error {
	timer := time.NewTimer(t.wait)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		if t.leave(c) || t.reads {
			return ctx.Err()
		}
	case <-timer.C:
		if t.leave(c) {
			return fmt.Errorf("%w: no connection to the database became free", storage.ErrUnavailable)
		}
	}
	<-c.done // the statement has bounds of its own
	return nil
}

// leave takes back a call that is not yet part of a statement.
func (t *together[A, R]) leave(c *call[A, R]) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := len(t.waiting)
	t.waiting = slices.DeleteFunc(t.waiting, func(waiting *call[A, R]) bool { return waiting == c })
	return len(t.waiting) < before
}

// finish gives a slot to those who wait, or back.
func (t *together[A, R]) finish() {
	if batch := t.next(); batch != nil {
		go t.lead(batch)
	}
}

func (t *together[A, R]) lead(batch []*call[A, R]) {
	for ; batch != nil; batch = t.next() {
		err := t.run(context.Background(), batch)
		for _, c := range batch {
			if err != nil {
				c.err = err
			}
			close(c.done)
		}
	}
}

// next returns who waits, or nil: the slot is free again then.
func (t *together[A, R]) next() []*call[A, R] {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(t.waiting), maxTogether)
	if n == 0 {
		t.running--
		return nil
	}
	batch := slices.Clone(t.waiting[:n])
	t.waiting = slices.Delete(t.waiting, 0, n)
	return batch
}

// writeTogether runs a statement that writes for many. What met another
// operation had no effect: all of them run alone then.
func writeTogether[A, R any](ctx context.Context, s *Store, batch []*call[A, R], fn func(ctx context.Context, c *pgx.Conn) (operations int, err error)) error {
	err := s.attempt(ctx, true, func(ctx context.Context, c *pgx.Conn) error {
		operations, err := fn(ctx, c)
		if err == nil && operations > 0 {
			s.wrote(ctx, operations)
		}
		return err
	})
	if conflict(err) || pgconn.SafeToRetry(err) {
		for _, c := range batch {
			c.settled, c.err = false, nil
		}
		return nil
	}
	return s.explain(ctx, err)
}
