package wechat

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/wxidp/wxidp/internal/breaker"
)

// circuit stops calls of one API of one app while WeChat fails. Any answer that
// WeChat gives on purpose, an errcode for a bad code included, is a success.
type circuit struct{ *breaker.Breaker }

func (c *Client) newBreaker(appid, api string) *circuit {
	return &circuit{breaker.New(breaker.Options{
		Failed: func(err error) bool {
			e, ok := errors.AsType[*Error](err)
			return ok && e.Kind == Unavailable
		},
		Excluded: func(err error) bool {
			e, ok := errors.AsType[*Error](err)
			return ok && e.Reason == reasonCanceled
		},
		Changed: func(level slog.Level, state string) {
			c.log.LogAttrs(context.Background(), level, "WeChat circuit breaker",
				slog.String("event", "wechat.breaker"), slog.String("api", api), slog.String("appid", appid),
				slog.String("state", state))
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
