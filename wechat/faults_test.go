package wechat

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// hijack answers with raw bytes, then ends the connection.
func hijack(t *testing.T, raw string, linger bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if !linger {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		_, _ = io.WriteString(conn, raw)
		conn.Close()
	}
}

func gzipBomb(t *testing.T) http.HandlerFunc {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(make([]byte, 10<<20)); err != nil {
		t.Fatal(err)
	}
	z.Close()
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(b.Bytes())
	}
}

func endless(w http.ResponseWriter, _ *http.Request) {
	chunk := bytes.Repeat([]byte(" "), 32<<10)
	for range 100 << 20 / len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func drip(w http.ResponseWriter, r *http.Request) {
	for i := range goodAnswer {
		if _, err := io.WriteString(w, goodAnswer[i:i+1]); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// TestThreat73And75Faults meets every fault of the other side. asError finds
// that no secret shows in any of them.
func TestThreat73And75Faults(t *testing.T) {
	rows := []struct {
		name    string
		handler http.HandlerFunc
		reason  string
	}{
		{"hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "timeout"},
		{"drip", drip, "timeout"},
		{"reset", hijack(t, "", false), "reset"},
		{"close", hijack(t, "", true), "reset"},
		{"reset in the body", hijack(t, "HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{\"session_key\"", false), "reset"},
		{"truncated", hijack(t, "HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{\"session_key\"", true), "reset"},
		{"not HTTP", hijack(t, "SSH-2.0-OpenSSH_9.6\r\n", true), "reset"},
		{"huge header", hijack(t, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n", true), "reset"},
		{"huge body", endless, "too_large"},
		{"65 KiB announced", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "66560")
			_, _ = w.Write(make([]byte, 66560))
		}, "too_large"},
		{"gzip bomb", gzipBomb(t), "not_json"},
		{"html", answer200("<!DOCTYPE html><html>" + canaryErrmsg + "</html>"), "not_json"},
		{"bom", answer200("\xef\xbb\xbf" + goodAnswer), "not_json"},
		{"empty", answer200(""), "not_json"},
		{"no content", status(204, ""), "http_status"},
		{"401", status(401, goodAnswer), "http_status"},
		{"500", status(500, goodAnswer), "http_5xx"},
		{"502 html", status(502, "<html>"), "http_5xx"},
		{"503 with errcode", status(503, `{"errcode":40029}`), "http_5xx"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			s := serve(t, func(w http.ResponseWriter, r *http.Request) { calls.Add(1); row.handler(w, r) })
			// Only what is to time out gets a short deadline: a busy machine must
			// not turn the others into timeouts.
			timeout := 20 * time.Second
			if row.reason == reasonTimeout {
				timeout = 300 * time.Millisecond
			}
			c := newClient(t, Options{BaseURL: s.URL, Timeout: timeout})
			start := time.Now()
			_, err := exchange(c)
			if d := time.Since(start); row.reason == reasonTimeout && d > 10*time.Second {
				t.Errorf("it took %v with a deadline of 300 ms", d)
			}
			e := asError(t, c, err)
			if e.Kind != Unavailable || e.Reason != row.reason || !e.Sent || e.Code != 0 || e.RetryAfter != time.Second {
				t.Errorf("error %+v, want reason %s", e, row.reason)
			}
			if calls.Load() != 1 {
				t.Errorf("%d requests, want 1", calls.Load())
			}
			if o := c.outcomes(); len(o) != 1 || o[0] != "code2session "+row.reason {
				t.Errorf("observed %q", o)
			}
		})
	}
}

func TestAnswerOfExactly64KiB(t *testing.T) {
	body := goodAnswer + strings.Repeat(" ", maxAnswer-len(goodAnswer))
	for extra, reason := range map[string]string{"": "", " ": "too_large"} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush() // no Content-Length
			_, _ = io.WriteString(w, body+extra)
		})
		c := newClient(t, Options{BaseURL: s.URL})
		_, err := exchange(c)
		if reason == "" && err != nil {
			t.Error(err)
		}
		if reason != "" && asError(t, c, err).Reason != reason {
			t.Error(err)
		}
	}
}

func TestThreat73RedirectsAreNotFollowed(t *testing.T) {
	var second atomic.Int32
	target := serve(t, func(http.ResponseWriter, *http.Request) { second.Add(1) })
	for _, code := range []int{301, 302, 303, 307, 308} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target.URL, code) })
		c := newClient(t, Options{BaseURL: s.URL})
		_, err := exchange(c)
		if e := asError(t, c, err); e.Reason != "redirect" || e.Kind != Unavailable || !e.Sent {
			t.Errorf("%d: %+v", code, e)
		}
		_, err = c.AccessToken(context.Background(), testAppID)
		if e := asError(t, c, err); e.Reason != "redirect" {
			t.Errorf("%d: %+v", code, e)
		}
	}
	if second.Load() != 0 {
		t.Errorf("the target of the redirect saw %d requests", second.Load())
	}
}

func TestThreat89TLS(t *testing.T) {
	var calls atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		answer200(goodAnswer)(w, r)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	defer s.Close()

	c := newClient(t, Options{BaseURL: s.URL})
	_, err := exchange(c)
	if e := asError(t, c, err); e.Reason != "tls" || e.Sent || e.Kind != Unavailable {
		t.Errorf("a certificate of nobody: %+v", e)
	}
	if calls.Load() != 0 {
		t.Error("the request was sent to a server that nobody vouches for")
	}

	// The same transport, with the certificate trusted.
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	trusting := newTransport(&net.Dialer{Timeout: 20 * time.Second}, &tls.Config{RootCAs: pool, ServerName: "example.com"})
	defer trusting.CloseIdleConnections()
	c = newClient(t, Options{BaseURL: s.URL, Transport: trusting})
	for range 3 {
		if _, err := exchange(c); err != nil {
			t.Fatal(err)
		}
	}
	s.Config.SetKeepAlivesEnabled(false)
	if got := calls.Load(); got != 3 {
		t.Errorf("%d requests, want 3", got)
	}

	old := httptest.NewUnstartedServer(answer200(goodAnswer))
	old.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.StartTLS()
	defer old.Close()
	c = newClient(t, Options{BaseURL: old.URL})
	_, err = exchange(c)
	if e := asError(t, c, err); e.Sent || e.Kind != Unavailable {
		t.Errorf("TLS 1.1: %+v", e)
	}
}

func TestThreat75Bulkhead(t *testing.T) {
	const limit = 5
	var arrived sync.WaitGroup
	arrived.Add(limit)
	release := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		arrived.Done()
		<-release
		answer200(goodAnswer)(w, r)
	})
	c := newClient(t, Options{BaseURL: s.URL, MaxInFlight: limit, Timeout: 10 * time.Second})
	var calls sync.WaitGroup
	for range limit {
		calls.Go(func() {
			if _, err := exchange(c); err != nil {
				t.Error(err)
			}
		})
	}
	arrived.Wait()
	for range 100 {
		_, err := exchange(c)
		if e := asError(t, c, err); e.Reason != "busy" || e.Sent || e.Kind != Unavailable || e.RetryAfter <= 0 {
			t.Fatalf("error %+v", e)
		}
	}
	close(release)
	calls.Wait()
	if got := c.inFlight.Load(); got != 0 {
		t.Errorf("%d exchanges are still counted", got)
	}
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here")
	}
	return len(entries)
}

func TestThreat75NothingIsLeftAfterHangs(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	half := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "{")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.RawQuery)%2 == 0 {
			hang(w, r)
		} else {
			half(w, r)
		}
	})
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	c := newClient(t, Options{BaseURL: s.URL, Timeout: 100 * time.Millisecond})
	var calls sync.WaitGroup
	for i := range 100 {
		calls.Go(func() {
			_, err := c.Code2Session(context.Background(), testAppID, strings.Repeat("c", 1+i%7))
			if e := asError(t, c, err); e.Kind != Unavailable {
				t.Errorf("error %+v", e)
			}
		})
	}
	calls.Wait()
	// A connection made just after its request gave up is not lost but idle.
	idle := c.sender.transport.(*http.Transport)
	idle.CloseIdleConnections()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > goroutines || openFiles(t) > files {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines and %d files, before %d and %d", runtime.NumGoroutine(), openFiles(t), goroutines, files)
		}
		time.Sleep(10 * time.Millisecond)
		idle.CloseIdleConnections()
	}
}
