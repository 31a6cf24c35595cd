package accounts

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// When the breaker opens and how often it then lets one call through.
const (
	breakerWindow   = 10 * time.Second
	breakerMinCalls = 20
	breakerProbe    = time.Second

	retryUnavailable = time.Second
)

// The reasons of Unavailable; Verify names them all.
const (
	reasonCanceled     = "canceled"     // the caller gave up
	reasonBusy         = "busy"         // too many calls in flight
	reasonBreakerOpen  = "breaker_open" // too many failures just now
	reasonTimeout      = "timeout"
	reasonDial         = "dial" // no connection
	reasonTLS          = "tls"
	reasonReset        = "reset" // the connection broke
	reasonHTTP5xx      = "http_5xx"
	reasonRedirect     = "redirect" // never followed
	reasonHTTPStatus   = "http_status"
	reasonTooLarge     = "too_large" // more than 64 KiB
	reasonNotJSON      = "not_json"  // not one JSON object in UTF-8
	reasonBadAnswer    = "bad_answer"
	reasonNoExternalID = "no_external_id"
	reasonBadClaims    = "bad_claims"
)

func unavailable(reason string) *Error {
	return &Error{Kind: Unavailable, Reason: reason, RetryAfter: retryUnavailable}
}

// breaker stops calls while the verifier fails: it opens when at least half of
// at least 20 calls of the last 10 s ended as Unavailable, then lets one call
// through per second until one succeeds. A refused password is a success.
type breaker struct {
	cb     *gobreaker.CircuitBreaker[struct{}]
	opened atomic.Pointer[time.Time] // when it last opened
}

func newBreaker(log *slog.Logger) *breaker {
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
			e, ok := errors.AsType[*Error](err)
			return !ok || e.Kind != Unavailable
		},
		IsExcluded: func(err error) bool {
			e, ok := errors.AsType[*Error](err)
			return ok && e.Reason == reasonCanceled
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
			log.LogAttrs(context.Background(), level, "Circuit breaker of the product's account system",
				slog.String("event", "verifier.breaker"), slog.String("state", to.String()))
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
	if opened := b.opened.Load(); errors.Is(err, gobreaker.ErrOpenState) && opened != nil {
		e.RetryAfter = max(breakerProbe-time.Since(*opened), time.Millisecond)
	}
	return e
}
