package accounts

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/wxidp/wxidp/internal/breaker"
)

const retryUnavailable = time.Second

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

// circuit stops calls while the verifier fails. A refused password is a
// success, and so is whatever may be one: strangers' wrong passwords must not
// stop the calls of everybody.
type circuit struct{ *breaker.Breaker }

func newBreaker(log *slog.Logger) *circuit {
	return &circuit{breaker.New(breaker.Options{
		Failed: func(err error) bool {
			e, ok := errors.AsType[*Error](err)
			return ok && e.Kind == Unavailable && !e.guess
		},
		Excluded: func(err error) bool {
			e, ok := errors.AsType[*Error](err)
			return ok && e.Reason == reasonCanceled
		},
		Changed: func(level slog.Level, state string) {
			log.LogAttrs(context.Background(), level, "Circuit breaker of the product's account system",
				slog.String("event", "verifier.breaker"), slog.String("state", state))
		},
	})}
}

func (b *circuit) run(call func() *Error) *Error {
	return breaker.Do(b.Breaker, call, func(wait time.Duration) *Error {
		e := unavailable(reasonBreakerOpen)
		if wait > 0 {
			e.RetryAfter = wait
		}
		return e
	})
}
