package wechat

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

// authorizedCall is a call that needs the app's access token.
type authorizedCall struct {
	api     string
	breaker *circuit
	path    string
	query   string // behind the access token, escaped, beginning with &; may be empty
	body    []byte // JSON of a POST; nil makes it a GET
	parse   func(body []byte) *Error

	timeout   time.Duration // of the exchange; 0: the client's
	maxAnswer int           // bytes; 0: maxAnswer
}

// authorized makes one exchange and finishes it: see finish. WeChat refuses a
// bad access token before it looks at the rest, so such a call is made a
// second time, with another token. Both share one deadline; a fetch of a token
// has its own.
func (c *Client) authorized(ctx context.Context, a *app, call authorizedCall) *Error {
	start := time.Now()
	e := c.withToken(ctx, a, call)
	if e != nil && e.API == apiStableToken {
		c.observe(call.api, outcomeAccessToken, time.Since(start)) // and logged where it happened
		return e
	}
	_ = c.finish(call.api, a.AppID, start, e)
	return e
}

func (c *Client) withToken(ctx context.Context, a *app, call authorizedCall) *Error {
	if c.beside.Add(1) > c.maxInFlight {
		c.beside.Add(-1)
		return &Error{Kind: Unavailable, Reason: reasonBusy, RetryAfter: retryUnavailable}
	}
	defer c.beside.Add(-1)

	var deadline time.Time
	for again := false; ; again = true {
		token, err := c.AccessToken(ctx, a.AppID)
		if err != nil {
			e := unavailable(reasonNoToken)
			if known, ok := errors.AsType[*Error](err); ok {
				*e = *known // a copy: others wait for the same fetch
			}
			e.API, e.Sent = apiStableToken, again
			return e
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(cmp.Or(call.timeout, c.timeout))
		}
		e := call.breaker.run(func() *Error {
			return c.exchangeUntil(ctx, deadline, func(ctx context.Context, fresh bool) *Error {
				return c.sender.sendFor(ctx, c.request(call, token), fresh, cmp.Or(call.maxAnswer, maxAnswer), call.parse)
			})
		})
		if e == nil {
			return nil
		}
		if again || !tokenRefused(e) {
			e.Sent = e.Sent || again
			return e
		}
		c.InvalidateAccessToken(a.AppID, token)
		c.log.LogAttrs(ctx, slog.LevelWarn, "WeChat refused the access token; fetching another",
			slog.String("event", "wechat.token_refused"), slog.String("api", call.api), slog.String("appid", a.AppID),
			slog.Int("errcode", e.Code), slog.String("rid", e.RID))
	}
}

func (c *Client) request(call authorizedCall, token secret.String) *http.Request {
	u := c.base
	u.Path += call.path
	u.RawQuery = "access_token=" + url.QueryEscape(token.Reveal()) + call.query
	if call.body == nil {
		return get(&u)
	}
	return postJSON(&u, call.body)
}

// refuse finishes a call that is not made.
func (c *Client) refuse(api, appid string, kind Kind, reason string) error {
	return c.finish(api, appid, time.Now(), &Error{Kind: kind, Reason: reason})
}
