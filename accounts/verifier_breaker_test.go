package accounts

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/breaker"
)

func TestVerifierBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls int
		status, answer := 502, `<html>`
		v := newVerifier(t, VerifierOptions{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			calls++
			return response(status, answer), nil
		})})
		for range 100 {
			_, err := ask(v)
			asError(t, err, Unavailable)
		}
		if calls != breaker.MinCalls {
			t.Errorf("%d calls before the breaker opened", calls)
		}
		_, err := ask(v)
		if e := asError(t, err, Unavailable); e.Reason != "breaker_open" || e.RetryAfter != breaker.Probe {
			t.Errorf("%+v", e)
		}
		time.Sleep(breaker.Probe + time.Millisecond)
		status, answer = 200, `{"ok":false}`
		for range 50 { // a refused password is an answer
			_, err = ask(v)
			asError(t, err, WrongCredentials)
		}
		if n := strings.Count(v.logged.String(), `"level":"ERROR"`); n != 1 {
			t.Errorf("%d alerts were logged, want the opening", n)
		}
	})
}

// A status that may be the product's way to refuse a password does not open
// the breaker, whereas one that says "not now" does.
func TestThreat53VerifierStatusAndBreaker(t *testing.T) {
	for status, open := range map[int]bool{
		400: false, 401: false, 403: false, 404: false, 422: false, 499: false, 200: false, 201: false, 302: false,
		408: true, 425: true, 429: true, 500: true, 503: true,
	} {
		synctest.Test(t, func(t *testing.T) {
			var calls int
			v := newVerifier(t, VerifierOptions{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
				calls++
				return response(status, ""), nil
			})})
			for range 100 {
				_, err := ask(v)
				asError(t, err, Unavailable)
			}
			if want := map[bool]int{true: breaker.MinCalls, false: 100}[open]; calls != want {
				t.Errorf("%d: %d calls, want %d", status, calls, want)
			}
		})
	}
}

// Callers who hang up do not open the breaker.
func TestVerifierCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(t, VerifierOptions{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			select {
			case <-r.Context().Done():
				return nil, r.Context().Err()
			case <-time.After(time.Second):
				return response(200, `{"ok":true,"external_id":"42"}`), nil
			}
		})})
		for range 50 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			_, err := v.Verify(ctx, Question{})
			cancel()
			if e := asError(t, err, Unavailable); e.Reason != "canceled" {
				t.Fatalf("%+v", e)
			}
		}
		if _, err := ask(v); err != nil {
			t.Error(err)
		}
	})
}

func TestVerifierInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(t, VerifierOptions{MaxInFlight: 5, Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return response(200, `{"ok":true,"external_id":"42"}`), nil
		})})
		var done, busy atomic.Int64
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				if _, err := ask(v); err == nil {
					done.Add(1)
				} else if asError(t, err, Unavailable).Reason == "busy" {
					busy.Add(1)
				}
			})
		}
		wg.Wait()
		if done.Load() != 5 || busy.Load() != 59 {
			t.Errorf("%d answered, %d refused", done.Load(), busy.Load())
		}
	})
}
