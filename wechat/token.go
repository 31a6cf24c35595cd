package wechat

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/wxidp/wxidp/internal/secret"
)

const (
	// tokenMargin is how long before its end an access token is renewed. From
	// then on WeChat hands out the next one, and both are valid for 5 minutes.
	tokenMargin = 5 * time.Minute
	// tokenMinAge is the least time between two calls for a token that is
	// still valid, so that an odd expires_in makes no storm of calls.
	tokenMinAge = 10 * time.Second
)

// tokenSource keeps the server access token of one app.
type tokenSource struct {
	app     App
	body    []byte // of the request; holds the AppSecret
	flight  singleflight.Group
	breaker *circuit

	mu      sync.Mutex // guards the fields below
	token   secret.String
	renewAt time.Time
	expires time.Time
	failure *Error // of the last call, kept until retryAt
	retryAt time.Time
}

func (c *Client) newTokenSource(a App) *tokenSource {
	body, err := json.Marshal(map[string]string{
		"grant_type": "client_credential", "appid": a.AppID, "secret": a.Secret.Reveal(),
	})
	if err != nil {
		panic("wechat: a map of strings did not marshal") // it always does
	}
	return &tokenSource{app: a, body: body, breaker: c.newBreaker(a.AppID, apiStableToken)}
}

// AccessToken returns the app's server access token, from the cache while it
// has more than 5 minutes left. However many callers wait, one request is
// under way per app; it goes on when ctx ends. A failure is remembered for its
// RetryAfter, at least 1 s; while it lasts, a token that is still valid is
// returned instead. Every error is an [*Error].
func (c *Client) AccessToken(ctx context.Context, appid string) (secret.String, error) {
	a, ok := (*c.apps.Load())[appid]
	if !ok {
		return secret.String{}, c.finish(apiStableToken, appid, time.Now(), &Error{Kind: Misconfigured, Reason: reasonUnknownApp})
	}
	if token, failure, done := a.tokens.cached(); done {
		if failure != nil {
			return secret.String{}, failure
		}
		return token, nil
	}
	// The request outlives the caller that happened to start it: others wait too.
	result := a.tokens.flight.DoChan("", func() (any, error) {
		return c.renewToken(context.WithoutCancel(ctx), a.tokens)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return secret.String{}, r.Err
		}
		return r.Val.(secret.String), nil
	case <-ctx.Done():
		e := unavailable(reasonCanceled)
		e.API, e.Sent, e.cause = apiStableToken, true, ctx.Err()
		return secret.String{}, e
	}
}

// InvalidateAccessToken forgets failed, which WeChat has refused, unless it
// was already replaced by another token.
func (c *Client) InvalidateAccessToken(appid string, failed secret.String) {
	a, ok := (*c.apps.Load())[appid]
	if !ok {
		return
	}
	t := a.tokens
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token.Equal(failed) {
		t.token = secret.String{}
	}
}

// cached returns the token or the failure that answers without a call; done is
// false where a call is due.
func (t *tokenSource) cached() (token secret.String, failure *Error, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	valid := !t.token.IsZero() && now.Before(t.expires)
	failed := t.failure != nil && now.Before(t.retryAt)
	switch {
	case valid && (now.Before(t.renewAt) || failed):
		return t.token, nil, true
	case failed:
		e := *t.failure
		e.RetryAfter = t.retryAt.Sub(now)
		return secret.String{}, &e, true
	}
	return secret.String{}, nil, false
}

// renewToken runs as the app's only flight.
func (c *Client) renewToken(ctx context.Context, t *tokenSource) (secret.String, error) {
	// Another flight may have ended between this caller's look and its start.
	if token, failure, done := t.cached(); done {
		if failure != nil {
			return secret.String{}, failure
		}
		return token, nil
	}
	start := time.Now()
	var token secret.String
	var life time.Duration
	e := t.breaker.run(func() *Error {
		return c.exchange(ctx, func(ctx context.Context, fresh bool) *Error {
			u := c.base
			u.Path += "/cgi-bin/stable_token"
			return c.sender.send(ctx, postJSON(&u, t.body), fresh, func(body []byte) *Error {
				var e *Error
				token, life, e = parseToken(body)
				return e
			})
		})
	})
	err := c.finish(apiStableToken, t.app.AppID, start, e)

	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if e == nil {
		t.token, t.failure = token, nil
		t.expires = start.Add(life)
		t.renewAt = t.expires.Add(-tokenMargin)
		if least := now.Add(tokenMinAge); t.renewAt.Before(least) {
			t.renewAt = least
		}
		return token, nil
	}
	t.failure, t.retryAt = e, now.Add(max(e.RetryAfter, time.Second))
	if !t.token.IsZero() && now.Before(t.expires) {
		c.log.LogAttrs(ctx, slog.LevelWarn, "WeChat access token not renewed; the present one goes on",
			slog.String("event", "wechat.token_kept"), slog.String("appid", t.app.AppID),
			slog.Duration("left", t.expires.Sub(now)))
		return t.token, nil
	}
	return secret.String{}, err
}
