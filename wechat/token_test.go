package wechat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

// tokenServer answers stable_token with token 1, 2, 3 …
type tokenServer struct {
	script
	n    int
	life int
}

func newTokenServer(life int) *tokenServer {
	s := &tokenServer{life: life}
	s.set(s.give)
	return s
}

func (s *tokenServer) give(*http.Request) (*http.Response, error) {
	time.Sleep(100 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	return response(200, fmt.Sprintf(`{"access_token":"%s-%d","expires_in":%d}`, canaryToken, s.n, s.life)), nil
}

func tokenNumber(t *testing.T, c *testClient) int {
	t.Helper()
	token, err := c.AccessToken(t.Context(), testAppID)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscanf(strings.TrimPrefix(token.Reveal(), canaryToken), "-%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestThreat76OneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenServer(7200)
		c := newClient(t, Options{Transport: s})
		var calls sync.WaitGroup
		for range 500 {
			calls.Go(func() {
				if n := tokenNumber(t, c); n != 1 {
					t.Errorf("token %d", n)
				}
			})
		}
		calls.Wait()
		if got := s.taken(); got != 1 {
			t.Errorf("%d requests, want 1", got)
		}
		noCanary(t, c, nil)
	})
}

func TestRequestOfStableToken(t *testing.T) {
	var method, path, query string
	var body map[string]any
	c := newClient(t, Options{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		method, path, query = r.Method, r.URL.Path, r.URL.RawQuery
		if r.GetBody != nil {
			t.Error("the request can be sent again")
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		return response(200, testTokenBody), nil
	})})
	if _, err := c.AccessToken(t.Context(), testAppID); err != nil {
		t.Fatal(err)
	}
	if method != "POST" || path != "/cgi-bin/stable_token" || query != "" {
		t.Errorf("%s %s?%s", method, path, query)
	}
	if len(body) != 3 || body["grant_type"] != "client_credential" || body["appid"] != testAppID || body["secret"] != canarySecret {
		t.Error("the body is not grant_type, appid and secret (and never force_refresh)")
	}
}

func TestTokenIsRenewedBeforeItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenServer(7200)
		c := newClient(t, Options{Transport: s})
		start := time.Now()
		for _, row := range []struct {
			at   time.Duration
			want int
		}{
			{0, 1}, {time.Hour, 1}, {2*time.Hour - 5*time.Minute - time.Second, 1}, {2*time.Hour - 5*time.Minute + time.Second, 2},
			{3 * time.Hour, 2}, {24 * time.Hour, 3},
		} {
			time.Sleep(time.Until(start.Add(row.at)))
			if got := tokenNumber(t, c); got != row.want {
				t.Errorf("after %v: token %d, want %d", row.at, got, row.want)
			}
		}
	})
}

func TestShortTokenMakesNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenServer(60) // less than the margin
		c := newClient(t, Options{Transport: s})
		for range 100 {
			tokenNumber(t, c)
			time.Sleep(100 * time.Millisecond)
		}
		if got := s.taken(); got > 2 {
			t.Errorf("%d requests in 10 s", got)
		}
	})
}

func TestInvalidateAccessToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenServer(7200)
		c := newClient(t, Options{Transport: s})
		first, err := c.AccessToken(t.Context(), testAppID)
		if err != nil {
			t.Fatal(err)
		}
		c.InvalidateAccessToken(testAppID, secret.New("another"))
		c.InvalidateAccessToken("wxnone", first)
		if got := tokenNumber(t, c); got != 1 {
			t.Errorf("token %d: another token's failure counted", got)
		}
		// Fifty calls that failed with the first one cost one renewal.
		var calls sync.WaitGroup
		for range 50 {
			calls.Go(func() {
				c.InvalidateAccessToken(testAppID, first)
				if got := tokenNumber(t, c); got != 2 {
					t.Errorf("token %d, want 2", got)
				}
			})
		}
		calls.Wait()
		c.InvalidateAccessToken(testAppID, first)
		if got := tokenNumber(t, c); got != 2 || s.n != 2 {
			t.Errorf("token %d after %d requests", got, s.n)
		}
	})
}

func TestTokenFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenServer(7200)
		c := newClient(t, Options{Transport: s})
		quota := says(200, `{"errcode":45009,"errmsg":"`+canaryErrmsg+` rid: `+testRID+`"}`)
		s.set(quota)
		_, err := c.AccessToken(t.Context(), testAppID)
		if e := asError(t, c, err); e.Kind != Quota || e.API != "stable_token" || e.RID != testRID || e.RetryAfter != time.Minute {
			t.Errorf("error %+v", e)
		}
		// A failure is remembered, so that a quota is not run into again and again.
		time.Sleep(20 * time.Second)
		_, err = c.AccessToken(t.Context(), testAppID)
		if e := asError(t, c, err); e.Kind != Quota || e.RetryAfter != 40*time.Second {
			t.Errorf("error %+v", e)
		}
		if got := s.taken(); got != 1 {
			t.Errorf("%d requests, want 1", got)
		}
		s.set(s.give)
		time.Sleep(time.Minute)
		if got := tokenNumber(t, c); got != 1 {
			t.Errorf("token %d", got)
		}

		// A token that is still valid outlasts a failed renewal, but not its own end.
		s.set(quota)
		time.Sleep(2*time.Hour - 4*time.Minute)
		if got := tokenNumber(t, c); got != 1 {
			t.Errorf("token %d", got)
		}
		if !strings.Contains(c.logged.String(), "wechat.token_kept") {
			t.Error("nothing logged")
		}
		time.Sleep(5 * time.Minute)
		if _, err := c.AccessToken(t.Context(), testAppID); err == nil {
			t.Error("an expired token is given out")
		}
		_, err = c.AccessToken(t.Context(), "wxnone")
		if e := asError(t, c, err); e.Kind != Misconfigured {
			t.Errorf("error %+v", e)
		}
	})
}

func TestTokenFlightOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenServer(7200)
		c := newClient(t, Options{Transport: s})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		go func() {
			time.Sleep(5 * time.Millisecond)
			if got := tokenNumber(t, c); got != 1 {
				t.Errorf("token %d", got)
			}
		}()
		_, err := c.AccessToken(ctx, testAppID)
		if e := asError(t, c, err); e.Reason != "canceled" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %+v", e)
		}
		time.Sleep(time.Second)
		if got := s.taken(); got != 1 {
			t.Errorf("%d requests, want 1", got)
		}
	})
}
