package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

// roundTripper fakes the network: no sockets, so it works in a synctest bubble.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func response(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

type testVerifier struct {
	*Verifier
	logged *syncBuffer

	mu       sync.Mutex
	observed []string
}

func (v *testVerifier) outcomes() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]string(nil), v.observed...)
}

func newVerifier(t testing.TB, o VerifierOptions) *testVerifier {
	t.Helper()
	v := &testVerifier{}
	if o.URL == "" {
		o.URL = "https://accounts.shop.example/verify"
	}
	if o.Transport == nil && o.Timeout == 0 {
		o.Timeout = 20 * time.Second // real sockets on a busy machine
	}
	o.Secret = secret.New(canarySecret)
	o.Log, v.logged = newLog()
	o.Observe = func(outcome string, _ time.Duration) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.observed = append(v.observed, outcome)
	}
	var err error
	if v.Verifier, err = NewVerifier(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	t.Cleanup(func() { noCanary(t, v.logged.String()) })
	return v
}

func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func ask(v *testVerifier) (Verified, error) {
	return v.Verify(context.Background(), Question{
		Username: canaryUsername, Password: secret.New(canaryPassword), ClientID: "shop-mini", RequestID: "r1",
	})
}

func TestVerifierRequest(t *testing.T) {
	var got *http.Request
	var body []byte
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, `{"ok":true,"external_id":"42"}`)
	})
	v := newVerifier(t, VerifierOptions{URL: s.URL + "/verify?tenant=1"})
	answer, err := ask(v)
	if err != nil || answer.ExternalID != "42" {
		t.Fatalf("%+v, %v", answer, err)
	}
	if got.Method != "POST" || got.URL.RequestURI() != "/verify?tenant=1" || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %s, %v", got.Method, got.URL, got.Header)
	}
	var sent map[string]any
	if err := json.Unmarshal(body, &sent); err != nil {
		t.Fatal(err)
	}
	at := int64(sent["time"].(float64))
	if age := time.Since(time.Unix(at, 0)); age < 0 || age > time.Minute {
		t.Errorf("the time is off by %v", age)
	}
	delete(sent, "time")
	want := map[string]any{"username": canaryUsername, "password": canaryPassword, "client_id": "shop-mini", "request_id": "r1"}
	if fmt.Sprint(sent) != fmt.Sprint(want) {
		t.Errorf("sent %v", sent)
	}
	mac := hmac.New(sha256.New, []byte(canarySecret))
	fmt.Fprintf(mac, "%d.%s", at, body)
	if sig := got.Header.Get(SignatureHeader); sig != fmt.Sprintf("t=%d,v1=%s", at, hex.EncodeToString(mac.Sum(nil))) {
		t.Errorf("signature %q", sig)
	}
	if o := v.outcomes(); len(o) != 1 || o[0] != "ok" {
		t.Errorf("observed %v", o)
	}
	if v.logged.String() != "" {
		t.Errorf("logged %s", v.logged)
	}
}

// A fixed vector: products have written their own check of it.
func TestSignatureVector(t *testing.T) {
	got := sign(secret.New("0123456789abcdef0123456789abcdef"), time.Unix(1700000000, 0), []byte(`{"username":"ann"}`))
	mac := hmac.New(sha256.New, []byte("0123456789abcdef0123456789abcdef"))
	mac.Write([]byte(`1700000000.{"username":"ann"}`))
	if got != "t=1700000000,v1="+hex.EncodeToString(mac.Sum(nil)) {
		t.Errorf("got %s", got)
	}
}

func TestNewVerifier(t *testing.T) {
	good := secret.New(strings.Repeat("k", 32))
	for _, raw := range []string{"https://shop.example/v", "https://shop.example:8443/v?x=1", "http://127.0.0.1:1/v", "http://[::1]:1/v",
		"http://localhost:1/v"} {
		if _, err := NewVerifier(VerifierOptions{URL: raw, Secret: good}); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
	for _, raw := range []string{"", "x", "/v", "http://shop.example/v", "http://10.0.0.1/v", "http://127.0.0.1.shop.example/v",
		"ftp://shop.example/", "https://", "https:shop.example", "https://user:canarypassword-7Q@shop.example/", "https://shop.example/#x",
		"https://shop.example/\x00", "https://%zz/"} {
		_, err := NewVerifier(VerifierOptions{URL: raw, Secret: good})
		if err == nil {
			t.Errorf("%q is accepted", raw)
		} else if len(raw) > 3 && strings.Contains(err.Error(), raw) || strings.Contains(err.Error(), canaryPassword) {
			t.Errorf("the error repeats the URL: %v", err)
		}
	}
	if _, err := NewVerifier(VerifierOptions{URL: "https://shop.example/", Secret: secret.New("short")}); err == nil || strings.Contains(err.Error(), "short") {
		t.Errorf("a short secret: %v", err)
	}
	v, err := NewVerifier(VerifierOptions{URL: "https://shop.example/", Secret: good})
	if err != nil {
		t.Fatal(err)
	}
	if v.transport.(*http.Transport).Proxy != nil {
		t.Error("the transport uses a proxy")
	}
}

func TestVerifierAnswers(t *testing.T) {
	elsewhere := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		t.Error("the redirect was followed")
		_, _ = io.WriteString(w, `{"ok":true,"external_id":"42"}`)
	})
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		kind    Kind
		reason  string
	}{
		{"refused", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"ok":false}`) }, WrongCredentials, "refused"},
		{"500", status(500, `{"ok":false}`), Unavailable, "http_5xx"},
		{"503", status(503, canaryAnswer), Unavailable, "http_5xx"},
		{"401", status(401, `{"ok":false}`), Unavailable, "http_status"},
		{"404", status(404, `{"ok":false}`), Unavailable, "http_status"},
		{"429", status(429, ""), Unavailable, "http_status"},
		{"201", status(201, `{"ok":true,"external_id":"42"}`), Unavailable, "http_status"},
		{"204", status(204, ""), Unavailable, "http_status"},
		{"301", redirect(elsewhere.URL, 301), Unavailable, "redirect"},
		{"307", redirect(elsewhere.URL, 307), Unavailable, "redirect"},
		{"308", redirect(elsewhere.URL, 308), Unavailable, "redirect"},
		{"empty", status(200, ""), Unavailable, "not_json"},
		{"HTML", status(200, "<html>"+canaryAnswer), Unavailable, "not_json"},
		{"no id", status(200, `{"ok":true}`), Unavailable, "no_external_id"},
		{"too large", status(200, `{"ok":true,"external_id":"42","x":"`+strings.Repeat("x", 64<<10)+`"}`), Unavailable, "too_large"},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			for range 1000 {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, Unavailable, "too_large"},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"ok":false}`)
		}, Unavailable, "reset"},
		{"hung up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, Unavailable, "reset"},
		{"huge header", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 128<<10))
			_, _ = io.WriteString(w, `{"ok":false}`)
		}, Unavailable, "reset"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var calls atomic.Int64
			s := serve(t, func(w http.ResponseWriter, r *http.Request) { calls.Add(1); c.handler(w, r) })
			v := newVerifier(t, VerifierOptions{URL: s.URL})
			_, err := ask(v)
			e := asError(t, err, c.kind)
			if e.Reason != c.reason || (e.RetryAfter > 0) != (c.kind == Unavailable) {
				t.Errorf("%+v, want reason %s", e, c.reason)
			}
			if calls.Load() != 1 {
				t.Errorf("%d calls", calls.Load())
			}
			if o := v.outcomes(); len(o) != 1 || o[0] != c.reason {
				t.Errorf("observed %v", o)
			}
			if logged := v.logged.String(); (c.kind == Unavailable) != strings.Contains(logged, `"reason":"`+c.reason+`"`) {
				t.Errorf("logged %q", logged)
			}
		})
	}
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

func redirect(to string, code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, code) }
}

func TestVerifierTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(status(200, `{"ok":true,"external_id":"42"}`))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	_, err := ask(newVerifier(t, VerifierOptions{URL: s.URL}))
	if e := asError(t, err, Unavailable); e.Reason != "tls" {
		t.Errorf("with an unknown authority: %+v", e)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	if got, err := ask(newVerifier(t, VerifierOptions{URL: s.URL, RootCAs: roots})); err != nil || got.ExternalID != "42" {
		t.Errorf("%+v, %v", got, err)
	}
	plain := serve(t, status(200, "{}"))
	_, err = ask(newVerifier(t, VerifierOptions{URL: strings.Replace(plain.URL, "http:", "https:", 1)}))
	if e := asError(t, err, Unavailable); e.Reason != "tls" {
		t.Errorf("without TLS on the other side: %+v", e)
	}
}

func TestVerifierDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	_ = l.Close()
	_, err = ask(newVerifier(t, VerifierOptions{URL: "http://" + at}))
	if e := asError(t, err, Unavailable); e.Reason != "dial" {
		t.Errorf("%+v", e)
	}
}

// A password that was written to a warm connection which then breaks is not
// sent again.
func TestVerifierSendsOnce(t *testing.T) {
	var calls atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if calls.Add(1)%2 == 0 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, `{"ok":true,"external_id":"42"}`)
	})
	v := newVerifier(t, VerifierOptions{URL: s.URL})
	for i := range 10 {
		if _, err := ask(v); err != nil {
			t.Fatal(err)
		}
		_, err := ask(v)
		if e := asError(t, err, Unavailable); e.Reason != "reset" {
			t.Fatalf("%+v", e)
		}
		if n := calls.Load(); n != int64(2*i+2) {
			t.Fatalf("%d requests arrived, want %d", n, 2*i+2)
		}
	}
}

func TestVerifierDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, fmt.Errorf("Post %q: %w", r.URL, r.Context().Err())
		})
		v := newVerifier(t, VerifierOptions{Transport: hang})
		if took := elapsed(func() {
			_, err := ask(v)
			if e := asError(t, err, Unavailable); e.Reason != "timeout" || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%+v", e)
			}
		}); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := v.Verify(ctx, Question{})
		if e := asError(t, err, Unavailable); e.Reason != "canceled" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v", e)
		}

		// The deadline covers the body, too.
		slow := roundTripper(func(r *http.Request) (*http.Response, error) {
			res := response(200, "")
			res.Body = io.NopCloser(readerFunc(func([]byte) (int, error) {
				<-r.Context().Done()
				return 0, r.Context().Err()
			}))
			return res, nil
		})
		if took := elapsed(func() {
			_, err := ask(newVerifier(t, VerifierOptions{Transport: slow}))
			if e := asError(t, err, Unavailable); e.Reason != "timeout" {
				t.Errorf("%+v", e)
			}
		}); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// With a verifier, it alone answers; the same limits stand before it.
func TestAuthenticateByVerifier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := newAuthenticator(t)
		a.FailureTime = 0
		var calls int
		var usernames []string
		answer := `{"ok":false}`
		v := newVerifier(t, VerifierOptions{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			calls++
			var q struct{ Username string }
			body, _ := io.ReadAll(r.Body)
			_ = json.Unmarshal(body, &q)
			usernames = append(usernames, q.Username)
			return response(200, answer), nil
		})})
		a.SetVerifier(v.Verifier)
		for i := range 10 {
			took := elapsed(func() {
				_, err := a.Authenticate(context.Background(), credentials([]string{" CanaryUser ", "canaryuser"}[i%2], canaryPassword))
				asError(t, err, WrongCredentials)
			})
			if took != DefaultFailureTime {
				t.Errorf("took %v", took)
			}
		}
		if usernames[0] != "CanaryUser" {
			t.Errorf("the product was asked for %q", usernames[0])
		}
		answer = `{"ok":true,"external_id":"42","nickname":"Ann","roles":["buyer"],"claims":{"tier":"gold"}}`
		_, err := a.Authenticate(context.Background(), credentials(canaryUsername, canaryPassword))
		asError(t, err, Limited)
		if calls != 10 {
			t.Errorf("the product was asked %d times, want 10", calls)
		}
		time.Sleep(16 * time.Minute)
		answer = `{"ok":true}`
		for range 9 { // may be a judgement, so it is a guess
			_, err := a.Authenticate(context.Background(), credentials(canaryUsername, canaryPassword))
			asError(t, err, Unavailable)
		}
		answer = `{"ok":true,"external_id":"42","nickname":"Ann","roles":["buyer"],"claims":{"tier":"gold"}}`
		got, err := a.Authenticate(context.Background(), credentials(canaryUsername, canaryPassword))
		if err != nil || got.UserID != "" || got.ExternalID != "42" {
			t.Fatalf("%+v, %v", got, err)
		}
		b := got.Binding()
		if b.UserID != "" || b.ExternalID != "42" || b.Profile.Nickname != "Ann" || b.Attributes.Claims["tier"] != strconv.Quote("gold") {
			t.Errorf("%+v", b)
		}
		if store.lookups != 0 || a.Passwords.Stats().Hashes != 1 { // the one of the fixture
			t.Error("the accounts kept here were looked at")
		}
		a.SetVerifier(nil)
		if got, err := a.Authenticate(context.Background(), credentials(canaryUsername, canaryPassword)); err != nil || got.UserID != "u1" {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
