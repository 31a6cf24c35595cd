package wechat

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// When a breaker opens and how often it then lets one call through.
const (
	breakerWindow   = 10 * time.Second
	breakerMinCalls = 20
	breakerProbe    = time.Second
)

// breaker stops calls of one API of one app while WeChat fails: it opens when
// at least half of at least 20 calls of the last 10 s ended as Unavailable,
// then lets one call through per second until one succeeds. Any answer that
// WeChat gives on purpose, an errcode for a bad code included, is a success.
type breaker struct {
	cb     *gobreaker.CircuitBreaker[struct{}]
	opened atomic.Pointer[time.Time] // when it last opened
}

func (c *Client) newBreaker(appid, api string) *breaker {
	b := &breaker{}
	b.cb = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  1,
		Interval:     breakerWindow,
		BucketPeriod: breakerWindow / 10,
		Timeout:      breakerProbe,
		ReadyToTrip: func(n gobreaker.Counts) bool {
			// Calls in flight say nothing yet, so Requests is not the base.
			finished := n.TotalSuccesses + n.TotalFailures
			return finished >= breakerMinCalls && 2*n.TotalFailures >= finished
		},
		IsSuccessful: func(err error) bool {
			var e *Error
			return !errors.As(err, &e) || e.Kind != Unavailable
		},
		IsExcluded: func(err error) bool {
			var e *Error
			return errors.As(err, &e) && e.Reason == reasonCanceled
		},
		OnStateChange: func(_ string, from, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				now := time.Now()
				b.opened.Store(&now)
			}
			level := slog.LevelInfo
			if from == gobreaker.StateClosed {
				level = slog.LevelError
			}
			c.log.Log(context.Background(), level, "WeChat circuit breaker",
				slog.String("event", "wechat.breaker"), slog.String("api", api), slog.String("appid", appid),
				slog.String("state", to.String()))
		},
	})
	return b
}

func (b *breaker) run(call func() *Error) *Error {
	var result *Error
	_, err := b.cb.Execute(func() (struct{}, error) {
		if result = call(); result != nil {
			return struct{}{}, result
		}
		return struct{}{}, nil
	})
	if err == nil || result != nil {
		return result
	}
	e := unavailable(reasonBreakerOpen)
	if errors.Is(err, gobreaker.ErrOpenState) {
		e.RetryAfter = max(breakerProbe-time.Since(*b.opened.Load()), time.Millisecond)
	}
	return e
}
