package main

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Each of these was once wrong.

// TestRepeatNeverWidens: a sign-in that is repeated with its Idempotency-Key is
// granted what it was granted the first time, though the client's defaults
// have grown since.
func TestRepeatNeverWidens(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	reload(s, "default_scopes: [openid, profile, orders.read]", "default_scopes: [openid]")
	form := signInForm(s.Code(testAppID, "alice"))
	key := header("Idempotency-Key", "k-1")
	first := s.Token(form, key, phone())
	if first.Status != http.StatusOK || first.str("scope") != "openid" {
		t.Fatalf("%v", first)
	}
	reload(s, "default_scopes: [openid]\n    audience: ["+testAudience+"]\n  - client_id: shop-mini-2",
		"default_scopes: [openid, wechat]\n    audience: ["+testAudience+", https://more.example]\n  - client_id: shop-mini-2")
	again := s.Token(form, key, phone())
	if again.Status != http.StatusOK || again.str("refresh_token") != first.str("refresh_token") {
		t.Fatalf("%v", again)
	}
	got := claims(t, again.str("access_token"))
	if again.str("scope") != "openid" || got["scope"] != "openid" || got["aud"] != testAudience {
		t.Errorf("the repetition got scope %q and claims %v", again.str("scope"), got)
	}
}

// TestAudienceWithdrawn: a refresh that asked for no audience is told to sign
// in again, and not that its request was wrong.
func TestAudienceWithdrawn(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	token := signIn(s, "alice").str("refresh_token")
	reload(s, "audience: ["+testAudience+"]\n  - client_id: shop-mini-2", "audience: [https://new.example]\n  - client_id: shop-mini-2")
	refused(t, refresh(s, token), 400, "invalid_grant")
}

// TestAssertionClock: a client's clock may be off by some seconds either way.
func TestAssertionClock(t *testing.T) {
	t.Parallel()
	s, keys := startWithClients(t)
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, row := range map[string]struct {
		claims map[string]any
		ok     bool
	}{
		"ahead":         {map[string]any{"iat": at(30 * time.Second), "nbf": at(30 * time.Second), "exp": at(90 * time.Second)}, true},
		"behind":        {map[string]any{"iat": at(-90 * time.Second), "exp": at(-30 * time.Second)}, true},
		"fractions":     {map[string]any{"iat": float64(at(0)) + .5, "exp": float64(at(time.Minute)) + .25}, true},
		"far ahead":     {map[string]any{"iat": at(90 * time.Second), "exp": at(150 * time.Second)}, false},
		"not yet":       {map[string]any{"nbf": at(90 * time.Second), "exp": at(150 * time.Second)}, false},
		"an hour":       {map[string]any{"exp": at(59 * time.Minute)}, true},
		"over an hour":  {map[string]any{"exp": at(62 * time.Minute)}, false},
		"end of time":   {map[string]any{"exp": 1e300}, false},
		"before time":   {map[string]any{"exp": -1e300}, false},
		"at the token":  {map[string]any{"aud": s.Issuer + "/oauth2/token"}, true},
		"at the other":  {map[string]any{"aud": s.Issuer + "/oauth2/revoke"}, false},
		"among several": {map[string]any{"aud": []string{"https://elsewhere.example", s.Issuer}}, true},
	} {
		out := machineToken(s, withAssertion(assertion(t, jose.ES256, keys.es, "es-1", s, "es-client", row.claims)))
		if ok := out.Status == http.StatusOK; ok != row.ok || !ok && out.str("error") != "invalid_client" {
			t.Errorf("%s: %v", name, out)
		}
	}
}

// TestJunkAssertionsShutOutNobody: failures without a client_id count against
// nobody else's assertions from the same address.
func TestJunkAssertionsShutOutNobody(t *testing.T) {
	t.Parallel()
	s, keys := startWithClients(t)
	here := from(netip.MustParseAddr("203.0.113.9"))
	limited := false
	for range 15 {
		out := s.Token(withAssertion("eyJhbGciOiJFUzI1NiJ9.e30.AAAA", "grant_type", "client_credentials"), here)
		if out.Status != http.StatusUnauthorized && out.Status != http.StatusTooManyRequests {
			t.Fatalf("junk: %v", out)
		}
		limited = limited || out.Status == http.StatusTooManyRequests
	}
	if !limited {
		t.Error("junk was never limited")
	}
	good := assertion(t, jose.ES256, keys.es, "es-1", s, "es-client", nil)
	if out := s.Token(withAssertion(good, "grant_type", "client_credentials"), here); out.Status != http.StatusOK {
		t.Errorf("an honest assertion from the same address: %v", out)
	}
}

// TestChallengeAfterBasic: every failed Basic authentication is challenged
// (RFC 6749 §5.2), also one that names nobody.
func TestChallengeAfterBasic(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	for name, edit := range map[string]func(*http.Request){
		"empty":         basic("", ""),
		"unknown":       basic("nobody", "x"),
		"wrong":         basic(testBackend, "x"),
		"public client": basic(testClient, ""),
		"other scheme":  header("Authorization", "Digest x"),
	} {
		out := introspect(s, "x", edit)
		if out.Status != http.StatusUnauthorized || !strings.HasPrefix(out.Header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s: %v, WWW-Authenticate %q", name, out, out.Header.Get("WWW-Authenticate"))
		}
	}
}

// TestSignInsPerUser: each sign-in leaves a record that lives for weeks, so
// one user cannot make them without end.
func TestSignInsPerUser(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withConfig(func(yaml string) string {
		return "rate_limits: { sign_ins_per_user_per_minute: 1 }\n" + yaml
	}))
	good := 0
	for range 70 {
		out := s.Token(signInForm(s.Code(testAppID, "alice")), phone())
		if out.Status == http.StatusOK {
			good++
			continue
		}
		refused(t, out, 429, "temporarily_unavailable")
	}
	if good < 60 || good > 63 {
		t.Errorf("%d sign-ins of one user, want the burst of 60", good)
	}
	if out := s.Token(signInForm(s.Code(testAppID, "bob")), phone()); out.Status != http.StatusOK {
		t.Errorf("another user: %v", out)
	}
}

// TestDiscoveryETag: validators revalidate the discovery document for free.
func TestDiscoveryETag(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	url := s.Issuer + "/.well-known/openid-configuration"
	etag := s.Do(http.MethodGet, url, nil).Header.Get("ETag")
	if out := s.Do(http.MethodGet, url, nil, header("If-None-Match", etag)); etag == "" || out.Status != http.StatusNotModified || len(out.Body) != 0 {
		t.Errorf("ETag %q, then %v", etag, out)
	}
}

// TestDeniedClientIsNamed: a failed authentication is logged with the client
// it was about, if that one exists.
func TestDeniedClientIsNamed(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	machineToken(s, pairs(), basic(testBackend, "wrong"))
	machineToken(s, pairs(), basic("made-up", "wrong"))
	var named []any
	for _, event := range s.Logs.Events("token.denied") {
		named = append(named, event["client_id"])
	}
	if len(named) != 2 || named[0] != testBackend || named[1] != "" {
		t.Errorf("the log names %v", named)
	}
}
