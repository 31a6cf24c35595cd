package wechat

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxAnswer bounds the body of an answer, in bytes. WeChat's have a few hundred.
	maxAnswer = 64 << 10
	// idleConnTimeout is how long an unused connection is kept. Short, so that
	// it is rarely the server that closes it, at the moment of the next request.
	idleConnTimeout = 30 * time.Second
)

// userAgent is the header of every GET. It is shared, and read only.
var userAgent = http.Header{"User-Agent": {"wxidp"}}

var userAgentJSON = http.Header{"User-Agent": {"wxidp"}, "Content-Type": {"application/json"}}

// sender sends one request and reads its answer. It calls RoundTrip itself:
// http.Client would follow redirects (and put the whole URL, AppSecret
// included, into Referer and into its errors).
type sender struct {
	transport http.RoundTripper
	// fresh opens a new connection for each request: for the second attempt,
	// which must not meet another dead connection. Same as transport where
	// that is foreign.
	fresh http.RoundTripper
	// traced says that the transport calls httptrace's GotConn.
	traced bool
}

func newSender(rt http.RoundTripper, timeout time.Duration, maxInFlight int) sender {
	if rt != nil {
		_, traced := rt.(*http.Transport)
		return sender{transport: rt, fresh: rt, traced: traced}
	}
	// Half of the deadline, so that a lost SYN leaves time for the second attempt.
	dialer := &net.Dialer{Timeout: timeout / 2, KeepAlive: 15 * time.Second}
	t := newTransport(dialer, &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(8),
	})
	t.MaxIdleConnsPerHost = maxInFlight + 8
	fresh := t.Clone()
	fresh.DisableKeepAlives = true
	return sender{transport: t, fresh: fresh, traced: true}
}

// newTransport returns a transport for HTTP/1.1 whose connections count their
// writes. It dials TLS itself to count above the encryption: what TLS writes on
// its own account (a close notification, say) is no part of a request.
func newTransport(dialer *net.Dialer, conf *tls.Config) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	t := &http.Transport{
		Protocols:              protocols,
		DisableCompression:     true,
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: maxAnswer,
	}
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &countingConn{Conn: conn}, nil
	}
	t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := tls.Dialer{NetDialer: dialer, Config: conf} // dialer.Timeout covers the handshake too
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &countingConn{Conn: conn}, nil
	}
	return t
}

// countingConn counts the writes begun on a connection.
type countingConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// unrepeatable is an empty request body. Its presence, without GetBody, is
// what keeps http.Transport from sending a GET again by itself when a reused
// connection breaks.
type unrepeatable struct{}

func (unrepeatable) Read([]byte) (int, error)         { return 0, io.EOF }
func (unrepeatable) WriteTo(io.Writer) (int64, error) { return 0, nil }
func (unrepeatable) Close() error                     { return nil }

func get(u *url.URL) *http.Request {
	return &http.Request{
		Method: http.MethodGet, URL: u, Host: u.Host, Header: userAgent,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: unrepeatable{},
		// Nothing of this goes out; it spares http.Transport the probe of
		// whether the body is empty.
		TransferEncoding: []string{"identity"},
	}
}

// postJSON has no GetBody, so that it is not repeatable either.
func postJSON(u *url.URL, body []byte) *http.Request {
	return &http.Request{
		Method: http.MethodPost, URL: u, Host: u.Host, Header: userAgentJSON,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// send sends req once and hands the body of its answer to parse, which must
// not keep it. It sets Sent of the error.
func (s *sender) send(ctx context.Context, req *http.Request, fresh bool, parse func(body []byte) *Error) *Error {
	return s.sendFor(ctx, req, fresh, maxAnswer, parse)
}

// sendFor is send for an answer of up to limit bytes.
func (s *sender) sendFor(ctx context.Context, req *http.Request, fresh bool, limit int, parse func(body []byte) *Error) *Error {
	w := watch{traced: s.traced}
	w.trace.GotConn = w.gotConn
	rt := s.transport
	if fresh {
		rt = s.fresh
	}
	res, err := rt.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, &w.trace)))
	if err != nil {
		e := unavailable(w.reason(ctx, err))
		e.Sent = w.sent(err)
		return e
	}
	defer res.Body.Close()
	e := readAnswer(ctx, res, limit, parse)
	if e != nil {
		e.Sent = true
	}
	return e
}

// watch finds out whether anything of one request was written.
type watch struct {
	trace     httptrace.ClientTrace
	traced    bool
	connected bool
	conn      *countingConn
	before    int64
}

func (w *watch) gotConn(info httptrace.GotConnInfo) {
	w.connected = true
	if c, ok := info.Conn.(*countingConn); ok {
		w.conn, w.before = c, c.writes.Load()
	}
}

// sent is called after RoundTrip failed; http.Transport's writing has ended by then.
func (w *watch) sent(err error) bool {
	switch {
	case w.conn != nil:
		return w.conn.writes.Load() != w.before
	case w.connected:
		return true
	case w.traced:
		return false
	}
	var op *net.OpError
	return !errors.As(err, &op) || op.Op != "dial"
}

func (w *watch) reason(ctx context.Context, err error) string {
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var op *net.OpError
	switch {
	case ctx.Err() != nil:
		return reasonTimeout
	case errors.As(err, &certificate) || errors.As(err, &authority):
		return reasonTLS
	case errors.As(err, &op) && op.Op == "dial":
		return reasonDial
	case w.connected || !w.traced:
		return reasonReset
	}
	return reasonDial
}

func readAnswer(ctx context.Context, res *http.Response, limit int, parse func(body []byte) *Error) *Error {
	switch {
	case res.StatusCode >= 500:
		return unavailable(reasonHTTP5xx)
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return unavailable(reasonRedirect)
	case res.StatusCode != http.StatusOK:
		return unavailable(reasonHTTPStatus)
	case res.ContentLength > int64(limit):
		return unavailable(reasonTooLarge)
	}
	buf := buffers.Get().(*[]byte)
	body, err := readUpTo(res.Body, (*buf)[:0], limit)
	defer func() {
		clear(body) // it held a session_key or an access token
		if cap(body) <= maxPooled {
			*buf = body
			buffers.Put(buf)
		}
	}()
	switch {
	case errors.Is(err, errTooLarge):
		return unavailable(reasonTooLarge)
	case err != nil && ctx.Err() != nil:
		return unavailable(reasonTimeout)
	case err != nil:
		return unavailable(reasonReset)
	}
	return parse(body)
}

var errTooLarge = errors.New("answer is too large")

const maxPooled = 4 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// readUpTo reads r to its end into buf, or fails with errTooLarge.
func readUpTo(r io.Reader, buf []byte, limit int) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) > limit:
			return buf, errTooLarge
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return buf, err
		}
	}
}
