package wechat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

// What must never be seen outside of the requests themselves.
const (
	canarySecret  = "canarysecret0123456789abcdef0123"
	canaryCode    = "0acanaryjscode0123456789abcdefgh"
	canaryKey     = "canarysessionkey01234w=="
	canaryToken   = "90_canaryaccesstoken0123456789"
	canaryErrmsg  = "canary words of WeChat"
	testAppID     = "wx0123456789abcdef"
	testOpenID    = "oQZIv5aaaaaaaaaaaaaaaaaaaaaa"
	goodAnswer    = `{"session_key":"` + canaryKey + `","openid":"` + testOpenID + `"}`
	testRID       = "623ea70a-74b9b592-3e3d489a"
	testTokenBody = `{"access_token":"` + canaryToken + `","expires_in":7200}`
)

func testApps() []App {
	return []App{{AppID: testAppID, Secret: secret.New(canarySecret), OpenPlatform: "main"}}
}

// syncBuffer takes log lines of several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// testClient is a client with what it logged and observed.
type testClient struct {
	*Client
	logged   *syncBuffer
	mu       sync.Mutex
	observed []string
}

func (c *testClient) outcomes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.observed...)
}

func newClient(t testing.TB, o Options) *testClient {
	t.Helper()
	c := &testClient{logged: &syncBuffer{}}
	if o.Apps == nil {
		o.Apps = testApps()
	}
	if o.Transport == nil && o.Timeout == 0 {
		o.Timeout = 20 * time.Second // real sockets on a busy machine
	}
	o.Logger = slog.New(slog.NewJSONHandler(c.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.Observe = func(api, outcome string, _ time.Duration) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.observed = append(c.observed, api+" "+outcome)
	}
	var err error
	if c.Client, err = New(o); err != nil {
		t.Fatal(err)
	}
	if own, ok := c.sender.transport.(*http.Transport); ok {
		t.Cleanup(own.CloseIdleConnections)
	}
	return c
}

// serve starts a server for one test.
func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func answer200(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, body)
	}
}

// roundTripper fakes the network: no sockets, so it works in a synctest bubble.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func response(status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, ContentLength: int64(len(body)),
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)),
	}
}

// asError checks that err is an *Error in which, like in the log, no canary shows.
func asError(t testing.TB, c *testClient, err error) *Error {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is a %T, not an *Error", err)
	}
	noCanary(t, c, err)
	return e
}

func noCanary(t testing.TB, c *testClient, err error) {
	t.Helper()
	shown := c.logged.String()
	for e := err; e != nil; e = errors.Unwrap(e) {
		shown += fmt.Sprintf("\n%v\n%+v\n%#v\n%s\n%q", e, e, e, e, e)
		if e, ok := e.(*Error); ok {
			shown += fmt.Sprintf("\n%+v\n%#v", *e, *e)
		}
	}
	for _, canary := range []string{canarySecret, canaryCode, canaryKey, canaryToken, "canary words", "js_code=", "secret=", "http://", "https://"} {
		if strings.Contains(shown, canary) {
			t.Errorf("%q shows in an error or log line:\n%s", canary, shown)
		}
	}
}

func exchange(c *testClient) (CodeResult, error) {
	return c.Code2Session(context.Background(), testAppID, canaryCode)
}
