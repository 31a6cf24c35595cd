// Package breaker stops calls to a party that keeps failing: a breaker opens
// when at least half of at least 20 calls of the last 10 s failed, then lets
// one call through per second until one succeeds.
package breaker

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// When a breaker opens and how often it then lets one call through.
const (
	Window   = 10 * time.Second
	MinCalls = 20
	Probe    = time.Second
)

// Options say what the outcomes of calls mean and who is told.
type Options struct {
	// Failed reports whether an error is the other party's failure. An answer
	// that it gives on purpose is none.
	Failed func(error) bool
	// Excluded reports whether an error says nothing about the other party,
	// such as a caller who gave up.
	Excluded func(error) bool
	// Changed is told the new state (closed, half-open or open), with
	// slog.LevelError where the breaker leaves the closed state.
	Changed func(level slog.Level, state string)
}

// Breaker is safe for concurrent use.
type Breaker struct {
	cb     *gobreaker.CircuitBreaker[struct{}]
	opened atomic.Pointer[time.Time] // when it last opened
}

// New returns a closed breaker. All options are required.
func New(o Options) *Breaker {
	b := &Breaker{}
	b.cb = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  1,
		Interval:     Window,
		BucketPeriod: Window / 10,
		Timeout:      Probe,
		ReadyToTrip: func(n gobreaker.Counts) bool {
			// Calls in flight say nothing yet, so Requests is not the base.
			finished := n.TotalSuccesses + n.TotalFailures
			return finished >= MinCalls && 2*n.TotalFailures >= finished
		},
		IsSuccessful: func(err error) bool { return err == nil || !o.Failed(err) },
		IsExcluded:   func(err error) bool { return err != nil && o.Excluded(err) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				now := time.Now()
				b.opened.Store(&now)
			}
			level := slog.LevelInfo
			if from == gobreaker.StateClosed {
				level = slog.LevelError
			}
			o.Changed(level, to.String())
		},
	})
	return b
}

// Run runs call unless the breaker is open, in which case refused is true and
// wait says when the next call will be let through; 0 where that depends on a
// call under way.
func (b *Breaker) Run(call func() error) (refused bool, wait time.Duration) {
	ran := false
	_, err := b.cb.Execute(func() (struct{}, error) {
		ran = true
		return struct{}{}, call()
	})
	if ran {
		return false, 0
	}
	if opened := b.opened.Load(); errors.Is(err, gobreaker.ErrOpenState) && opened != nil {
		wait = max(Probe-time.Since(*opened), time.Millisecond)
	}
	return true, wait
}

// Do is Run for calls with an error type of their own. open makes the error of
// a call that is refused; wait is as Run says.
func Do[E any, P interface {
	*E
	error
}](b *Breaker, call func() P, open func(wait time.Duration) P) P {
	var result P
	refused, wait := b.Run(func() error {
		if result = call(); result != nil {
			return result
		}
		return nil
	})
	if refused {
		return open(wait)
	}
	return result
}
