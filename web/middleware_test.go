package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"

	"github.com/wxidp/wxidp/internal/limit"
	"github.com/wxidp/wxidp/provider"
)

// bareServer has what the middleware needs and nothing else.
func bareServer(logs *bytes.Buffer) *Server {
	return &Server{
		Options: Options{Logger: slog.New(slog.NewJSONHandler(logs, nil)), Metrics: NewMetrics(nil)},
		perIP:   limit.New(limit.Rate{}, 1024),
	}
}

// router puts the middleware of the public listener around handler.
func (s *Server) router(handler http.HandlerFunc) http.Handler {
	r := chi.NewRouter()
	s.middleware(r)
	r.HandleFunc("/x", handler)
	return r
}

func metricsText(s *Server) string {
	w := httptest.NewRecorder()
	s.Metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

func TestThreat84Panic(t *testing.T) {
	const canary = "canary-from-the-request"
	for name, blow := range map[string]func(){
		"a string":        func() { panic("bad value " + canary) },
		"an error":        func() { panic(errors.New(canary)) },
		"runtime's error": func() { _ = make([]int, 0)[len(canary)] },
	} {
		t.Run(name, func(t *testing.T) {
			var logs bytes.Buffer
			s := bareServer(&logs)
			handler := s.router(func(http.ResponseWriter, *http.Request) { blow() })
			r := httptest.NewRequest(http.MethodPost, "/x?"+canary, strings.NewReader(canary))
			r.Header.Set("Authorization", canary)
			r.RemoteAddr = "192.0.2.7:1234"
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)

			if w.Code != http.StatusInternalServerError || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%d %v", w.Code, w.Header())
			}
			var body errorBody
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Error != provider.ServerError {
				t.Errorf("%s: %v", w.Body, err)
			}
			if strings.Contains(logs.String(), canary) || strings.Contains(w.Body.String(), canary) {
				t.Errorf("what the request said got out:\n%s%s", &logs, w.Body)
			}
			var event map[string]any
			first, _, _ := strings.Cut(logs.String(), "\n")
			if err := json.Unmarshal([]byte(first), &event); err != nil {
				t.Fatal(err)
			}
			stack, _ := event["stack"].(string)
			if event["event"] != "panic" || event["request_id"] != w.Header().Get(requestIDHeader) || !strings.Contains(stack, "middleware_test.go") {
				t.Errorf("logged %v", event)
			}
			if !strings.Contains(logs.String(), `"ip":"192.0.2.7"`) {
				t.Errorf("the caller's address is not logged:\n%s", &logs)
			}
			if text := metricsText(s); !strings.Contains(text, `wxidp_http_request_seconds_count{route="/x",status="500"} 1`) {
				t.Error("the panic is not counted as status 500")
			}
		})
	}
}

// TestAbortHandlerPasses: net/http's own way to give a connection up is not a
// fault.
func TestAbortHandlerPasses(t *testing.T) {
	var logs bytes.Buffer
	handler := bareServer(&logs).router(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	defer func() {
		if reason := recover(); reason != http.ErrAbortHandler || logs.Len() > 0 {
			t.Errorf("recovered %v, logged %q", reason, &logs)
		}
	}()
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/x", nil))
}

func TestRequestIDs(t *testing.T) {
	handler := bareServer(new(bytes.Buffer)).router(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	seen := map[string]bool{}
	for range 1000 {
		r := httptest.NewRequest(http.MethodGet, "/x", nil)
		r.Header.Set(requestIDHeader, "chosen-by-the-caller")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		id := w.Header().Get(requestIDHeader)
		if len(id) != 16 || seen[id] {
			t.Fatalf("request id %q", id)
		}
		seen[id] = true
	}
}

func TestClientIP(t *testing.T) {
	for _, test := range []struct {
		name    string
		trusted []string
		peer    string
		xff     []string
		want    string
	}{
		{"nobody is trusted", nil, "192.0.2.1:1", []string{"203.0.113.1"}, "192.0.2.1"},
		{"not the trusted one", []string{"10.0.0.0/8"}, "192.0.2.1:1", []string{"203.0.113.1"}, "192.0.2.1"},
		{"one proxy", []string{"10.0.0.0/8"}, "10.0.0.1:1", []string{"203.0.113.1"}, "203.0.113.1"},
		{"spoofed before", []string{"10.0.0.0/8"}, "10.0.0.1:1", []string{"10.9.9.9, 198.51.100.1, 203.0.113.1"}, "203.0.113.1"},
		{"two proxies", []string{"10.0.0.0/8"}, "10.0.0.1:1", []string{"198.51.100.1, 203.0.113.1, 10.0.0.2"}, "203.0.113.1"},
		{"two headers", []string{"10.0.0.0/8"}, "10.0.0.1:1", []string{"203.0.113.1", "203.0.113.2"}, "203.0.113.2"},
		{"none", []string{"10.0.0.0/8"}, "10.0.0.1:1", nil, "10.0.0.1"},
		{"garbage nearest", []string{"10.0.0.0/8"}, "10.0.0.1:1", []string{"203.0.113.1, unknown"}, "10.0.0.1"},
		{"IPv6 peer", nil, "[2001:db8::1]:1", nil, "2001:db8::1"},
		{"IPv4 in IPv6 peer", []string{"10.0.0.0/8"}, "[::ffff:10.0.0.1]:1", []string{"203.0.113.1"}, "203.0.113.1"},
	} {
		s := bareServer(new(bytes.Buffer))
		for _, prefix := range test.trusted {
			s.TrustedProxies = append(s.TrustedProxies, netip.MustParsePrefix(prefix))
		}
		var got netip.Addr
		handler := s.router(func(_ http.ResponseWriter, r *http.Request) { got = remoteIP(r.Context()) })
		r := httptest.NewRequest(http.MethodGet, "/x", nil)
		r.RemoteAddr, r.Header["X-Forwarded-For"] = test.peer, test.xff
		handler.ServeHTTP(httptest.NewRecorder(), r)
		if got.String() != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestMatchesETag(t *testing.T) {
	const etag = `"abc"`
	for header, want := range map[string]bool{
		`"abc"`: true, `W/"abc"`: true, `*`: true, `"x", "abc"`: true, `"x",W/"abc"`: true,
		`abc`: false, `"abcd"`: false, `"x"`: false, `"x", "y"`: false,
	} {
		if matches(header, etag) != want {
			t.Errorf("If-None-Match %s: want %v", header, want)
		}
	}
}

// FuzzParseForm: whatever is accepted has clean names and values, whatever is
// not is a 4xx.
func FuzzParseForm(f *testing.F) {
	f.Add("application/x-www-form-urlencoded", "grant_type=refresh_token&refresh_token=wxrt_x")
	f.Add("application/x-www-form-urlencoded; charset=utf-8", "a=%00")
	f.Add("application/x-www-form-urlencoded", "a=%ff&b=%zz")
	f.Add("multipart/form-data; boundary=x", "--x\r\n\r\n--x--")
	f.Add("application/json", "{}")
	f.Add("", "a=b;c=d")
	f.Add("text/plain; =", "\x00")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		err := parseForm(httptest.NewRecorder(), r)
		if err != nil {
			if e := provider.AsError(err); e.Status < 400 || e.Status > 499 || e.Code != provider.InvalidRequest {
				t.Fatalf("%v: status %d", err, e.Status)
			}
			return
		}
		for name, values := range r.PostForm {
			for _, value := range append(values, name) {
				if !utf8.ValidString(value) || strings.Contains(value, "\x00") {
					t.Fatalf("accepted %q", value)
				}
			}
		}
		if r.MultipartForm != nil {
			t.Fatal("a multipart form was parsed")
		}
	})
}
