package accounts

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// SignatureHeader carries the signature of a request to a verifier:
// t=<Unix seconds>,v1=<hex of HMAC-SHA-256 over "<t>.<body>">.
const SignatureHeader = "Wxidp-Signature"

// Defaults and limits of [VerifierOptions].
const (
	DefaultVerifierTimeout     = 3 * time.Second
	DefaultVerifierMaxInFlight = 100

	minVerifierSecret = 32 // bytes
)

// VerifierOptions configures a [Verifier]. The zero value of a field means its
// default; URL and Secret have none.
type VerifierOptions struct {
	// URL is the product's endpoint: https, or http for a loopback host.
	URL string
	// Secret signs the requests: at least 32 bytes.
	Secret secret.String
	// Timeout is the deadline of one call, everything included. Default
	// DefaultVerifierTimeout.
	Timeout time.Duration
	// MaxInFlight is how many calls may run at once; one more fails at once as
	// Unavailable. Default DefaultVerifierMaxInFlight.
	MaxInFlight int
	// RootCAs verify the endpoint's certificate. Default: the system's.
	RootCAs *x509.CertPool
	// Transport sends the requests. Default: an HTTP/1.1 keep-alive transport
	// of the verifier's own, which uses no proxy and TLS 1.2 or newer.
	Transport http.RoundTripper
	// Observe, if not nil, is called once per call. outcome is "ok",
	// "refused" or the reason of the Error. It must not block.
	Observe func(outcome string, elapsed time.Duration)
	// Log receives what an operator must know. Default: none.
	Log *slog.Logger
}

// Verifier asks a product's own account system whether a username and password
// are right, and whose they are. A request is sent at most once. It is safe
// for concurrent use.
type Verifier struct {
	url         *url.URL
	secret      secret.String
	timeout     time.Duration
	maxInFlight int64
	transport   http.RoundTripper
	breaker     *circuit
	observe     func(outcome string, elapsed time.Duration)
	log         *slog.Logger

	inFlight atomic.Int64
}

// Verified is whose a username and password are.
type Verified struct {
	ExternalID string             // the account's id in the product
	Profile    storage.Profile    // what the product shows of the account; may be empty
	Attributes storage.Attributes // roles, and claims by name as JSON values
}

// Question is what a verifier is asked.
type Question struct {
	Username  string
	Password  secret.String
	ClientID  string
	RequestID string // the product may log it, to be found from here
}

// NewVerifier returns a verifier. Its errors repeat neither URL nor secret.
func NewVerifier(o VerifierOptions) (*Verifier, error) {
	u, err := parseVerifierURL(o.URL)
	if err != nil {
		return nil, err
	}
	if len(o.Secret.Reveal()) < minVerifierSecret {
		return nil, errors.New("accounts: the verifier's secret has less than 32 bytes")
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultVerifierTimeout
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = DefaultVerifierMaxInFlight
	}
	if o.Transport == nil {
		o.Transport = verifierTransport(o)
	}
	if o.Observe == nil {
		o.Observe = func(string, time.Duration) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Verifier{
		url: u, secret: o.Secret, timeout: o.Timeout, maxInFlight: int64(o.MaxInFlight),
		transport: o.Transport, breaker: newBreaker(o.Log), observe: o.Observe, log: o.Log,
	}, nil
}

func parseVerifierURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("accounts: the verifier's URL is not an absolute URL")
	case u.User != nil || u.Fragment != "":
		return nil, errors.New("accounts: the verifier's URL may hold no user and no fragment")
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return u, nil
	}
	return nil, errors.New("accounts: the verifier's URL must be https (http is for a loopback host only)")
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func verifierTransport(o VerifierOptions) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dialer := &net.Dialer{Timeout: o.Timeout, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Protocols:           protocols,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		DisableCompression:  true,
		MaxIdleConnsPerHost: o.MaxInFlight,
		// Short, so that it is rarely the server that closes a connection, at
		// the moment of the next request.
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: maxVerifierAnswer,
	}
}

// Close releases idle connections. Calls under way go on.
func (v *Verifier) Close() {
	if t, ok := v.transport.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

// Verify asks the product. Every error is an [*Error]: WrongCredentials where
// the product says so, otherwise Unavailable with one of the reasons canceled,
// busy, breaker_open, timeout, dial, tls, reset, http_5xx, redirect,
// http_status, too_large, not_json, bad_answer, no_external_id and bad_claims.
// An answer that came but is none of ours (statuses other than 5xx, 408, 425
// and 429 among them) may be the product's word on the password: it leaves the
// breaker closed, and guesses are counted by it.
func (v *Verifier) Verify(ctx context.Context, q Question) (Verified, error) {
	start := time.Now()
	answer, status, e := v.verify(ctx, q)
	elapsed := time.Since(start)
	switch {
	case e == nil:
		v.observe("ok", elapsed)
		return answer, nil
	case e.Kind == Unavailable:
		v.logError(q, e, status, elapsed)
	}
	v.observe(e.Reason, elapsed)
	return Verified{}, e
}

func (v *Verifier) verify(ctx context.Context, q Question) (answer Verified, status int, _ *Error) {
	if v.inFlight.Add(1) > v.maxInFlight {
		v.inFlight.Add(-1)
		return Verified{}, 0, unavailable(reasonBusy)
	}
	defer v.inFlight.Add(-1)
	e := v.breaker.run(func() *Error {
		limited, cancel := context.WithTimeout(ctx, v.timeout)
		defer cancel()
		var e *Error
		answer, status, e = v.exchange(limited, q)
		if e != nil && e.Kind == Unavailable && ctx.Err() != nil {
			e.Reason, e.cause = reasonCanceled, ctx.Err()
		}
		return e
	})
	return answer, status, e
}

// exchange calls RoundTrip itself: http.Client would follow redirects, with
// the password, and puts the URL into its errors.
func (v *Verifier) exchange(ctx context.Context, q Question) (Verified, int, *Error) {
	res, err := v.transport.RoundTrip(v.request(q, time.Now()).WithContext(ctx))
	if err != nil {
		return Verified{}, 0, unavailable(reasonOf(ctx, err))
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode >= 500:
		return Verified{}, res.StatusCode, unavailable(reasonHTTP5xx)
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return Verified{}, res.StatusCode, perhapsNo(unavailable(reasonRedirect))
	case momentary(res.StatusCode):
		return Verified{}, res.StatusCode, unavailable(reasonHTTPStatus)
	case res.StatusCode != http.StatusOK:
		return Verified{}, res.StatusCode, perhapsNo(unavailable(reasonHTTPStatus))
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxVerifierAnswer+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return Verified{}, res.StatusCode, unavailable(reasonTimeout)
	case err != nil:
		return Verified{}, res.StatusCode, unavailable(reasonReset)
	case len(body) > maxVerifierAnswer:
		return Verified{}, res.StatusCode, perhapsNo(unavailable(reasonTooLarge))
	}
	answer, e := parseVerified(body)
	return answer, res.StatusCode, perhapsNo(e)
}

// momentary reports whether a status says no to the moment and not to what was
// sent.
func momentary(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return false
}

// perhapsNo marks what may be a product's own way to say that a password is
// wrong, such as a redirect to its login page. It would let passwords be
// guessed without limit, were that taken for a failure.
func perhapsNo(e *Error) *Error {
	if e != nil {
		e.guess = e.Kind == Unavailable
	}
	return e
}

func (v *Verifier) request(q Question, now time.Time) *http.Request {
	// Strings and an integer always marshal.
	body, _ := json.Marshal(struct {
		Username  string `json:"username"`
		Password  string `json:"password"`
		ClientID  string `json:"client_id"`
		RequestID string `json:"request_id"`
		Time      int64  `json:"time"`
	}{q.Username, q.Password.Reveal(), q.ClientID, q.RequestID, now.Unix()})
	u := *v.url
	req := &http.Request{
		Method: http.MethodPost, URL: &u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Content-Type": {"application/json"},
			"Accept":       {"application/json"},
			"User-Agent":   {"wxidp"},
		},
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		// Lets the transport take a new connection where nothing was written
		// on a broken one. A POST that was written is not sent again.
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	}
	req.Header.Set(SignatureHeader, sign(v.secret, now, body))
	return req
}

func sign(key secret.String, now time.Time, body []byte) string {
	t := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(key.Reveal()))
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

func reasonOf(ctx context.Context, err error) string {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var op *net.OpError
	switch {
	case ctx.Err() != nil:
		return reasonTimeout
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert):
		return reasonTLS
	case errors.As(err, &op) && op.Op == "dial":
		return reasonDial
	}
	return reasonReset
}

func (v *Verifier) logError(q Question, e *Error, status int, elapsed time.Duration) {
	level := slog.LevelWarn
	switch e.Reason {
	case reasonBreakerOpen, reasonBusy, reasonCanceled:
		level = slog.LevelDebug // one line per refused request would bury the cause
	}
	v.log.LogAttrs(context.Background(), level, "The product's account system failed",
		slog.String("event", "verifier.error"), slog.String("request_id", q.RequestID),
		slog.String("client_id", q.ClientID), slog.String("reason", e.Reason),
		slog.Int("status", status), slog.Duration("elapsed", elapsed))
}
