package wechat

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

// script answers requests as its current mood has it; no sockets.
type script struct {
	mu     sync.Mutex
	answer func(*http.Request) (*http.Response, error)
	calls  int
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.calls++
	answer := s.answer
	s.mu.Unlock()
	return answer(r)
}

func (s *script) set(answer func(*http.Request) (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *script) taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.calls
	s.calls = 0
	return n
}

func says(status int, body string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) { return response(status, body), nil }
}

func TestThreat75BreakerOpensAndProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: says(502, "")}
		c := newClient(t, Options{Transport: s})
		for range 19 {
			_, err := exchange(c)
			if e := asError(t, c, err); e.Reason != "http_5xx" {
				t.Fatalf("error %+v", e)
			}
		}
		_, _ = exchange(c) // the twentieth
		if got := s.taken(); got != 20 {
			t.Fatalf("%d requests, want 20", got)
		}
		time.Sleep(300 * time.Millisecond)
		_, err := exchange(c)
		e := asError(t, c, err)
		if e.Reason != "breaker_open" || e.Sent || e.Kind != Unavailable || e.RetryAfter != 700*time.Millisecond {
			t.Errorf("error %+v", e)
		}
		if s.taken() != 0 {
			t.Error("a request passed the open breaker")
		}

		// One probe a second, however many ask.
		for range 5 {
			time.Sleep(time.Second + time.Millisecond)
			for range 10 {
				_, _ = exchange(c)
			}
			if got := s.taken(); got != 1 {
				t.Fatalf("%d probes within a second", got)
			}
		}

		// While a probe is under way, others are refused.
		release := make(chan struct{})
		s.set(func(*http.Request) (*http.Response, error) { <-release; return response(200, goodAnswer), nil })
		time.Sleep(time.Second + time.Millisecond)
		go func() { _, _ = exchange(c) }()
		synctest.Wait()
		_, err = exchange(c)
		if e := asError(t, c, err); e.Reason != "breaker_open" || e.Sent || e.RetryAfter <= 0 {
			t.Errorf("error %+v", e)
		}
		close(release)
		synctest.Wait()
		if _, err := exchange(c); err != nil {
			t.Errorf("the breaker did not close: %v", err)
		}
		for _, state := range []string{`"state":"open"`, `"state":"half-open"`, `"state":"closed"`} {
			if !strings.Contains(c.logged.String(), state) {
				t.Errorf("no log line has %s", state)
			}
		}
	})
}

func TestBreakerCountsOnlyFailuresOfWeChat(t *testing.T) {
	harmless := map[string]func(*http.Request) (*http.Response, error){
		"bad code":      says(200, `{"errcode":40029}`),
		"quota":         says(200, `{"errcode":45011}`),
		"misconfigured": says(200, `{"errcode":40125}`),
		"unknown":       says(200, `{"errcode":77777}`),
	}
	for name, answer := range harmless {
		synctest.Test(t, func(t *testing.T) {
			s := &script{answer: answer}
			c := newClient(t, Options{Transport: s})
			for range 100 {
				_, _ = exchange(c)
			}
			if got := s.taken(); got != 100 {
				t.Errorf("%s: %d of 100 requests were sent", name, got)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }}
		c := newClient(t, Options{Transport: s})
		for range 100 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, err := c.Code2Session(ctx, testAppID, canaryCode)
			cancel()
			if e := asError(t, c, err); e.Reason != "canceled" || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("error %+v", e)
			}
		}
		if got := s.taken(); got != 100 {
			t.Errorf("callers who gave up opened the breaker: %d of 100 requests were sent", got)
		}
	})
}

func TestBreakerWindowAndShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		c := newClient(t, Options{Transport: s})
		run := func(n int, answer func(*http.Request) (*http.Response, error)) {
			s.set(answer)
			for range n {
				_, _ = exchange(c)
			}
		}
		// 49 % of failures leave it closed.
		for range 20 {
			run(51, says(200, goodAnswer))
			run(49, says(502, ""))
		}
		if got := s.taken(); got != 2000 {
			t.Fatalf("%d of 2000 requests were sent", got)
		}
		// Failures of more than ten seconds ago are forgotten.
		time.Sleep(11 * time.Second)
		for range 10 {
			run(19, says(502, ""))
			time.Sleep(11 * time.Second)
		}
		if got := s.taken(); got != 190 {
			t.Fatalf("%d of 190 requests were sent", got)
		}
	})
}

func TestBreakersOfAppsAndAPIsAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(r *http.Request) (*http.Response, error) {
			switch {
			case r.Method == "POST":
				return response(200, testTokenBody), nil
			case r.URL.Query().Get("appid") == "wx2":
				return response(200, goodAnswer), nil
			}
			return response(500, ""), nil
		}}
		c := newClient(t, Options{Transport: s, Apps: append(testApps(), App{AppID: "wx2", Secret: secret.New("s")})})
		for range 30 {
			_, _ = exchange(c)
		}
		if _, err := c.Code2Session(t.Context(), "wx2", canaryCode); err != nil {
			t.Errorf("the other app: %v", err)
		}
		if _, err := c.AccessToken(t.Context(), testAppID); err != nil {
			t.Errorf("the other API: %v", err)
		}
	})
}

func TestDeadlineIsTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		s.set(func(r *http.Request) (*http.Response, error) {
			select { // busy after 2 s, then again
			case <-time.After(2 * time.Second):
				return response(200, `{"errcode":-1}`), nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})
		c := newClient(t, Options{Transport: s})
		start := time.Now()
		_, err := exchange(c)
		e := asError(t, c, err)
		if d := time.Since(start); d != DefaultTimeout {
			t.Errorf("it took %v, want %v", d, DefaultTimeout)
		}
		if e.Reason != "timeout" || !e.Sent {
			t.Errorf("error %+v", e)
		}
	})
}
