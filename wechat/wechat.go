// Package wechat is the client of WeChat's server API: it exchanges js_codes
// (code2Session) and phone codes, checks and replaces session_keys, has
// mini-program codes drawn, and keeps the server access token (stable_token)
// of each mini-program. It also opens
// what WeChat gives by other ways: open data of the mini-program, and events.
//
// A request that may have reached WeChat is never sent a second time, because
// a js_code is single-use (see [Error.Sent]), except once more where WeChat
// answers errcode -1, by which it says that it was busy. No error, log line or
// observation made here holds the AppSecret, a code, a session_key, an access
// token, a phone number, a URL or WeChat's own error text.
package wechat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxidp/wxidp/internal/ascii"
	"github.com/wxidp/wxidp/internal/secret"
)

// Defaults of [Options].
const (
	DefaultBaseURL     = "https://api.weixin.qq.com"
	DefaultTimeout     = 3 * time.Second
	DefaultMaxInFlight = 200
)

// The names of WeChat's APIs in [Error.API] and Options.Observe.
const (
	apiCode2Session = "code2session"
	apiStableToken  = "stable_token"
	apiPhoneNumber  = "getuserphonenumber"
	apiCheckSession = "checksession"
	apiResetSession = "resetusersessionkey"
	apiQRCode       = "getwxacodeunlimit"
)

// App is one mini-program.
type App struct {
	AppID  string
	Secret secret.String // the AppSecret
	// OpenPlatform names the Open Platform account the app is bound to. Apps
	// with the same name share unionids; empty means none.
	OpenPlatform string
}

// Options configures a [Client]. The zero value of a field means its default.
type Options struct {
	// BaseURL is where WeChat's API is; https, or http for a loopback host.
	// Default DefaultBaseURL.
	BaseURL string
	// Timeout is the total deadline of one exchange: dialling, a second
	// attempt and reading the answer included. Default DefaultTimeout.
	Timeout time.Duration
	// Apps are the mini-programs to begin with; see SetApps.
	Apps []App
	// Transport sends the requests. Default: an HTTP/1.1 keep-alive transport
	// of the client's own, which uses no proxy and TLS 1.2 or newer. With a
	// foreign one Error.Sent is true unless it is certain that nothing was
	// written.
	Transport http.RoundTripper
	// MaxInFlight is how many code2Session exchanges may run at once, and how
	// many of the other APIs together; one more fails at once as Unavailable,
	// not sent. Default DefaultMaxInFlight.
	MaxInFlight int
	// Observe, if not nil, is called once per exchange. api is as Error.API;
	// outcome is "ok", a known errcode as text, "errcode_other", the reason of
	// the Error, or "access_token" where none was to be had: a bounded set. It
	// must not block.
	Observe func(api, outcome string, elapsed time.Duration)
	// Logger receives what an operator must know. Default: none.
	Logger *slog.Logger
}

// CodeResult is the answer of code2Session.
type CodeResult struct {
	WeChatOpenID string // the user's id within the app
	UnionID      string // the user's id within the Open Platform account; may be empty
	// SessionKey is WeChat's session_key: the key between WeChat and this
	// server for the user's data. It must not leave the server.
	SessionKey secret.String
}

// Client calls WeChat's API. It is safe for concurrent use.
type Client struct {
	base        url.URL
	timeout     time.Duration
	maxInFlight int64
	observe     func(api, outcome string, elapsed time.Duration)
	log         *slog.Logger
	sender      sender

	inFlight atomic.Int64 // code2Session
	beside   atomic.Int64 // exchanges that are not on the sign-in path
	apps     atomic.Pointer[map[string]*app]
	setApps  sync.Mutex // held by SetApps: reads apps, then replaces it
}

// app is an App and what outlives a reload of it.
type app struct {
	App
	codeQuery string // the query of code2Session up to the js_code
	breakers
	tokens *tokenSource
}

// breakers has one for each API of an app but stable_token.
type breakers struct{ codes, phones, checks, resets, drawings *circuit }

// New returns a client. It fails when the base URL is not https (http is
// allowed for a loopback host only) or when an app is incomplete or named
// twice.
func New(o Options) (*Client, error) {
	if o.BaseURL == "" {
		o.BaseURL = DefaultBaseURL
	}
	base, err := parseBaseURL(o.BaseURL)
	if err != nil {
		return nil, err
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = DefaultMaxInFlight
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(string, string, time.Duration) {}
	}
	seen := make(map[string]bool, len(o.Apps))
	for _, a := range o.Apps {
		switch {
		case !ascii.Visible(a.AppID, 128):
			return nil, errors.New("wechat: an appid is empty or not visible ASCII")
		case seen[a.AppID]:
			return nil, fmt.Errorf("wechat: app %s is configured twice", a.AppID)
		case a.Secret.IsZero():
			return nil, fmt.Errorf("wechat: app %s has no secret", a.AppID)
		}
		seen[a.AppID] = true
	}
	c := &Client{
		base:        *base,
		timeout:     o.Timeout,
		maxInFlight: int64(o.MaxInFlight),
		observe:     o.Observe,
		log:         o.Logger,
		sender:      newSender(o.Transport, o.Timeout, o.MaxInFlight),
	}
	c.SetApps(o.Apps)
	return c, nil
}

// parseBaseURL does not repeat the URL in its errors: one with userinfo would
// hold a password.
func parseBaseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return nil, errors.New("wechat: the base URL is not an absolute URL")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, errors.New("wechat: the base URL may hold no user, query or fragment")
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && isLoopback(u.Hostname()):
	default:
		return nil, errors.New("wechat: the base URL must be https (http is for a loopback host only)")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	return u, nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// SetApps replaces the apps, at once for every later call. An app that stays
// keeps its access token, unless its secret changed, and its circuit breakers.
func (c *Client) SetApps(apps []App) {
	c.setApps.Lock()
	defer c.setApps.Unlock()
	old := map[string]*app{}
	if p := c.apps.Load(); p != nil {
		old = *p
	}
	next := make(map[string]*app, len(apps))
	for _, a := range apps {
		n := &app{
			App: a,
			codeQuery: "appid=" + url.QueryEscape(a.AppID) +
				"&secret=" + url.QueryEscape(a.Secret.Reveal()) +
				"&grant_type=authorization_code&js_code=",
		}
		was := old[a.AppID]
		if was != nil {
			n.breakers = was.breakers
		} else {
			n.breakers = breakers{
				codes:    c.newBreaker(a.AppID, apiCode2Session),
				phones:   c.newBreaker(a.AppID, apiPhoneNumber),
				checks:   c.newBreaker(a.AppID, apiCheckSession),
				resets:   c.newBreaker(a.AppID, apiResetSession),
				drawings: c.newBreaker(a.AppID, apiQRCode),
			}
		}
		if was != nil && was.Secret.Equal(a.Secret) {
			n.tokens = was.tokens
		} else {
			n.tokens = c.newTokenSource(a)
		}
		next[a.AppID] = n
	}
	c.apps.Store(&next)
}

// App returns the app with this appid.
func (c *Client) App(appid string) (App, bool) {
	a, ok := (*c.apps.Load())[appid]
	if !ok {
		return App{}, false
	}
	return a.App, true
}

// Code2Session exchanges a js_code for the user's ids. The js_code is 1 to 256
// characters of visible ASCII; another is refused as InvalidCode without a
// call. Every error is an [*Error].
//
// When ctx ends, the exchange is given up and the js_code may be spent: a
// caller that wants the answer nevertheless passes context.WithoutCancel.
func (c *Client) Code2Session(ctx context.Context, appid, jsCode string) (CodeResult, error) {
	a, ok := (*c.apps.Load())[appid]
	if !ok {
		return CodeResult{}, c.finish(apiCode2Session, appid, time.Now(), &Error{Kind: Misconfigured, Reason: reasonUnknownApp})
	}
	start := time.Now()
	s, e := c.code2Session(ctx, a, jsCode)
	if err := c.finish(apiCode2Session, appid, start, e); err != nil {
		return CodeResult{}, err
	}
	return s, nil
}

func (c *Client) code2Session(ctx context.Context, a *app, jsCode string) (CodeResult, *Error) {
	if !ascii.Visible(jsCode, maxJSCode) {
		return CodeResult{}, &Error{Kind: InvalidCode, Reason: reasonCodeFormat}
	}
	if c.inFlight.Add(1) > c.maxInFlight {
		c.inFlight.Add(-1)
		return CodeResult{}, &Error{Kind: Unavailable, Reason: reasonBusy, RetryAfter: retryUnavailable}
	}
	defer c.inFlight.Add(-1)

	var s CodeResult
	e := a.codes.run(func() *Error {
		return c.exchange(ctx, func(ctx context.Context, fresh bool) *Error {
			u := c.base
			u.Path += "/sns/jscode2session"
			u.RawQuery = a.codeQuery + url.QueryEscape(jsCode)
			return c.sender.send(ctx, get(&u), fresh, func(body []byte) *Error {
				var e *Error
				s, e = parseSession(body)
				return e
			})
		})
	})
	if e != nil {
		return CodeResult{}, e
	}
	return s, nil
}

// maxJSCode is the longest js_code taken; WeChat's have 32 characters, those
// of pluginLogin 64.
const maxJSCode = 256

// errcodeBackoff is the pause before the one repetition after errcode -1.
const errcodeBackoff = 100 * time.Millisecond

// exchange runs one attempt, and a second one where that cannot spend a code
// twice: nothing of the first was written, or WeChat itself said that it was
// busy (errcode -1). Both share one deadline.
func (c *Client) exchange(ctx context.Context, attempt func(ctx context.Context, fresh bool) *Error) *Error {
	return c.exchangeUntil(ctx, time.Now().Add(c.timeout), attempt)
}

// exchangeUntil is exchange with a deadline that was set before.
func (c *Client) exchangeUntil(ctx context.Context, deadline time.Time, attempt func(ctx context.Context, fresh bool) *Error) *Error {
	limited, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	e := attempt(limited, false)
	switch {
	case e == nil || limited.Err() != nil:
	case e.Code == errcodeBusy:
		if !sleep(limited, errcodeBackoff) {
			break
		}
		if e = attempt(limited, false); e != nil {
			e.Sent = true
		}
	case !e.Sent && (e.Reason == reasonDial || e.Reason == reasonReset):
		e = attempt(limited, true)
	}
	if e != nil && e.Kind == Unavailable && ctx.Err() != nil {
		e.Reason, e.cause = reasonCanceled, ctx.Err()
	}
	return e
}

// sleep reports whether d went by before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
