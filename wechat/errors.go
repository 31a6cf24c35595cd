package wechat

import (
	"context"
	"log/slog"
	"strconv"
	"time"
)

// Kind says what a failed call means to its caller.
type Kind int

// The kinds of failure.
const (
	// Unknown is an errcode that has no meaning here. Treat it as Misconfigured.
	Unknown Kind = iota
	// InvalidCode is a js_code or phone code that is unknown, used, expired, of
	// another app or of another user. Only a new one helps.
	InvalidCode
	// Denied is a user whom WeChat refuses.
	Denied
	// Quota is a spent quota of the app.
	Quota
	// Unavailable is WeChat out of reach, busy or answering nonsense.
	Unavailable
	// Misconfigured is an appid, AppSecret or IP allow list that only the
	// operator can put right.
	Misconfigured
	// SessionExpired is a session_key that WeChat no longer takes. Only a new
	// wx.login gives another.
	SessionExpired
)

var kindNames = [...]string{
	Unknown: "unknown", InvalidCode: "invalid_code", Denied: "denied", Quota: "quota",
	Unavailable: "unavailable", Misconfigured: "misconfigured", SessionExpired: "session_expired",
}

// String returns the kind as a word for logs.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return "kind(" + strconv.Itoa(int(k)) + ")"
	}
	return kindNames[k]
}

// The values of [Error.Reason].
const (
	reasonErrcode      = "errcode"        // WeChat answered an errcode
	reasonCodeFormat   = "js_code_format" // refused before sending
	reasonPhoneFormat  = "phone_code_format"
	reasonOpenIDFormat = "openid_format"
	reasonKeyFormat    = "session_key_format"
	reasonQRCodeFormat = "qr_code_format"
	reasonUnknownApp   = "unknown_app"    // no such app is configured
	reasonBusy         = "busy"           // too many exchanges in flight
	reasonBreakerOpen  = "breaker_open"   // WeChat failed too often just now
	reasonCanceled     = "canceled"       // the caller gave up
	reasonTimeout      = "timeout"        // the deadline of the exchange went by
	reasonDial         = "dial"           // no connection
	reasonTLS          = "tls"            // the certificate did not verify
	reasonReset        = "reset"          // the connection broke
	reasonHTTP5xx      = "http_5xx"       // 500 to 599
	reasonRedirect     = "redirect"       // 300 to 399; never followed
	reasonHTTPStatus   = "http_status"    // any other status but 200
	reasonTooLarge     = "too_large"      // more than 64 KiB
	reasonNotJSON      = "not_json"       // not one JSON object in UTF-8
	reasonBadAnswer    = "bad_answer"     // a member twice, or of a wrong type or length
	reasonNoOpenID     = "no_openid"      // success without openid
	reasonNoSessionKey = "no_session_key" // success without session_key
	reasonNoToken      = "no_token"       // success without access_token
	reasonNoPhone      = "no_phone"       // success without phone_info

	// A phone number that WeChat gave for another app, more than 5 minutes
	// ago, or in the future by more than a minute: then this server's clock is off.
	reasonWatermarkAppID  = "watermark_appid"
	reasonWatermarkStale  = "watermark_stale"
	reasonWatermarkFuture = "watermark_future"

	// outcomeAccessToken is observed, besides the failure of stable_token
	// itself, for the call that would have needed the token.
	outcomeAccessToken = "access_token"
)

// How long a caller should wait; see [Error.RetryAfter].
const (
	retryQuota       = 60 * time.Second
	retryUnavailable = time.Second
)

// Error is the one error type of [Client]. It holds no secret and none of
// WeChat's text, so it may be logged as it is.
type Error struct {
	Kind Kind
	// Code is WeChat's errcode, 0 where WeChat gave none.
	Code int
	// RID is WeChat's id of the request, which its support can look up for
	// 7 days; may be empty.
	RID string
	// API is the API that failed: code2session, stable_token,
	// getuserphonenumber, checksession, resetusersessionkey or
	// getwxacodeunlimit. It is stable_token also where a call failed for want
	// of an access token.
	API string
	// Reason is a stable word: errcode, js_code_format, phone_code_format,
	// openid_format, session_key_format, qr_code_format, unknown_app, busy,
	// breaker_open, canceled, timeout, dial, tls, reset, http_5xx, redirect, http_status,
	// too_large, not_json, bad_answer, no_openid, no_session_key, no_token,
	// no_phone, watermark_appid, watermark_stale or watermark_future.
	Reason string
	// Sent says that a byte of a request may have reached WeChat: the code may
	// be spent, the session_key replaced. Where it is false, the same call may
	// be made again. A request for an access token does not count.
	Sent bool
	// RetryAfter is how long to wait before the next try; 0 where waiting
	// does not help.
	RetryAfter time.Duration

	cause error // context.Canceled, context.DeadlineExceeded or nil
}

// Error names the API, the reason or errcode, and the rid.
func (e *Error) Error() string {
	s := "wechat: " + e.API + ": "
	if e.Code == 0 {
		return s + e.Reason
	}
	s += "errcode " + strconv.Itoa(e.Code)
	if e.RID != "" {
		s += " (rid " + e.RID + ")"
	}
	return s
}

// Unwrap returns context.Canceled or context.DeadlineExceeded where the
// caller's context ended the call, else nil.
func (e *Error) Unwrap() error { return e.cause }

func unavailable(reason string) *Error {
	return &Error{Kind: Unavailable, Reason: reason, RetryAfter: retryUnavailable}
}

// errcodeBusy is WeChat's "system error, try again".
const errcodeBusy = -1

// knownErrcodes gives the kind of each errcode that has a meaning here.
// Kind Unknown marks those that are documented for these APIs, so that they
// are counted by their number, but call for a human all the same.
var knownErrcodes = map[int]Kind{
	errcodeBusy: Unavailable,

	40029: InvalidCode, // invalid code
	40163: InvalidCode, // code been used
	41008: InvalidCode, // missing code
	42003: InvalidCode, // code expired

	40226: Denied, // code blocked: a user at risk
	50002: Denied, // user limited

	45009: Quota, // reach max api daily quota limit
	45011: Quota, // api minute-quota reach limit

	40013: Misconfigured, // invalid appid
	40125: Misconfigured, // invalid appsecret
	40164: Misconfigured, // invalid ip, not in whitelist
	40243: Misconfigured, // AppSecret frozen
	41002: Misconfigured, // appid missing
	41004: Misconfigured, // appsecret missing
	61004: Misconfigured, // access clientip is not registered
	89501: Misconfigured, // IP waits for the administrator
	89503: Misconfigured, // IP waits for the administrator
	89506: Misconfigured, // IP refused for 24 hours
	89507: Misconfigured, // IP refused for 1 hour

	87007: SessionExpired, // session_key is not existd or expired
	87009: SessionExpired, // invalid signature: made with another session_key

	40001: Unknown, 40002: Unknown, 40003: Unknown, 40014: Unknown, 40097: Unknown,
	41001: Unknown, 41009: Unknown, 42001: Unknown, 43001: Unknown, 43002: Unknown,
	44002: Unknown, 45035: Unknown, 47001: Unknown, 48001: Unknown, 50004: Unknown,
	50007: Unknown, 61024: Unknown, 87008: Unknown,
	40129: Unknown, 40169: Unknown, 41030: Unknown, 85096: Unknown,
}

// phoneErrcodes are those that mean something else to getuserphonenumber.
var phoneErrcodes = map[int]Kind{
	40003: InvalidCode, // invalid openid: not that of the code
	40013: InvalidCode, // invalid appid: the code is of another app than the access token
}

// qrCodeErrcodes are those that mean something to getwxacodeunlimit: how codes
// are asked for is the operator's to set.
var qrCodeErrcodes = map[int]Kind{
	40097: Misconfigured, // invalid args: env_version
	40129: Misconfigured, // invalid scene
	40169: Misconfigured, // invalid length for scene, or the data is not json string
	41030: Misconfigured, // invalid page: not in the version that env_version names
	85096: Misconfigured, // not allow include scancode_time field
}

// tokenRefused reports whether e says that WeChat does not take the access
// token, which it finds out before it looks at anything else.
func tokenRefused(e *Error) bool { return e.Code == 40001 || e.Code == 40014 || e.Code == 42001 }

func errcodeError(code int, rid string) *Error {
	kind := knownErrcodes[code]
	if code >= 89500 && code <= 89599 { // the family of IP confirmations
		kind = Misconfigured
	}
	e := &Error{Kind: kind, Code: code, RID: rid, Reason: reasonErrcode, Sent: true}
	switch kind {
	case Quota:
		e.RetryAfter = retryQuota
	case Unavailable:
		e.RetryAfter = retryUnavailable
	}
	return e
}

func (e *Error) outcome() string {
	if e.Reason != reasonErrcode {
		return e.Reason
	}
	if _, ok := knownErrcodes[e.Code]; ok {
		return strconv.Itoa(e.Code)
	}
	return "errcode_other"
}

// finish observes and logs the outcome of one exchange and completes its
// error. It returns a nil interface for a nil e.
func (c *Client) finish(api, appid string, start time.Time, e *Error) error {
	elapsed := time.Since(start)
	if e == nil {
		c.observe(api, "ok", elapsed)
		return nil
	}
	e.API = api
	c.observe(api, e.outcome(), elapsed)
	c.logError(appid, elapsed, e)
	return e
}

func (c *Client) logError(appid string, elapsed time.Duration, e *Error) {
	level, alert := slog.LevelDebug, ""
	switch e.Kind {
	case Quota, Misconfigured, Unknown:
		level, alert = slog.LevelError, e.Kind.String()
	case InvalidCode:
		switch e.Reason {
		case reasonWatermarkAppID, reasonWatermarkStale, reasonWatermarkFuture:
			level = slog.LevelWarn
		}
	case Unavailable:
		level = slog.LevelWarn
		if e.Reason == reasonBreakerOpen || e.Reason == reasonBusy || e.Reason == reasonCanceled {
			level = slog.LevelDebug // one line per refused request would bury the cause
		}
	}
	if !c.log.Enabled(context.Background(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("event", "wechat.error"), slog.String("api", e.API), slog.String("appid", appid),
		slog.String("kind", e.Kind.String()), slog.String("reason", e.Reason),
		slog.Int("errcode", e.Code), slog.String("rid", e.RID),
		slog.Bool("sent", e.Sent), slog.Duration("elapsed", elapsed),
	}
	if alert != "" {
		attrs = append(attrs, slog.String("alert", alert))
	}
	c.log.LogAttrs(context.Background(), level, "WeChat call failed", attrs...)
}
