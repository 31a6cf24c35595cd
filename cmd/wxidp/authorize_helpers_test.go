package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// Secrets of the clients that people come from with a browser.
const (
	testWebKey   = "canary-web-Rk2vN8tL4xQ6wP9zB1cF3gH5jK7"
	testOtherKey = "canary-two-Ym5dS1uJ8hE3nV6bX9aC2fG4kL7"
	testNoPKCEKy = "canary-old-Tq7wZ2eR5tY8uI1oP4aS6dF9gH3"
)

// webClients are clients with browsers. All but shop-old require PKCE.
const webClients = `
  - client_id: shop-web
    name: Shop on the web
    type: confidential
    client_secret: ` + testWebKey + `
    grant_types: [authorization_code, refresh_token]
    redirect_uris: [https://shop.example/callback, "https://shop.example/callback?tenant=1"]
    post_logout_redirect_uris: [https://shop.example/]
    id_token_signed_response_alg: RS256
    scopes: [openid, profile, phone, offline_access, orders.read]
    default_scopes: [openid]
    audience: [` + testAudience + `]
  - client_id: other-web
    type: confidential
    client_secret: ` + testOtherKey + `
    token_endpoint_auth_method: client_secret_post
    grant_types: [authorization_code, refresh_token]
    redirect_uris: [https://other.example/cb]
    scopes: [openid, profile, offline_access]
    default_scopes: [openid]
  - client_id: shop-old
    type: confidential
    client_secret: ` + testNoPKCEKy + `
    require_pkce: false
    grant_types: [authorization_code, refresh_token]
    redirect_uris: [https://old.example/cb]
    scopes: [openid, profile, offline_access]
    default_scopes: [openid]
    audience: [` + testAudience + `]
  - client_id: shop-spa
    type: public
    grant_types: [authorization_code, refresh_token]
    redirect_uris: [https://spa.example/cb]
    id_token_signed_response_alg: ES256
    consent: skip
    scopes: [openid, profile, offline_access]
    default_scopes: [openid]
    audience: [` + testAudience + `]
  - client_id: shop-native
    type: public
    grant_types: [authorization_code, refresh_token]
    redirect_uris: ["http://127.0.0.1/cb", "http://[::1]:7000/cb", "com.example.shop:/cb"]
    scopes: [openid, profile, offline_access]
    default_scopes: [openid]
    audience: [` + testAudience + `]
`

// party is a client of webClients, as the test plays it.
type party struct {
	id, secret, redirect string
	post                 bool // client_secret_post
}

var (
	shopWeb    = party{id: "shop-web", secret: testWebKey, redirect: "https://shop.example/callback"}
	otherWeb   = party{id: "other-web", secret: testOtherKey, redirect: "https://other.example/cb", post: true}
	shopOld    = party{id: "shop-old", secret: testNoPKCEKy, redirect: "https://old.example/cb"}
	shopSPA    = party{id: "shop-spa", redirect: "https://spa.example/cb"}
	shopNative = party{id: "shop-native", redirect: "http://127.0.0.1/cb"}
)

// testVerifier is a code_verifier (RFC 7636 §4.1), testChallenge its S256.
const testVerifier = "canary-verifier-0123456789-0123456789-0123456789"

func challengeFor(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// request is a proper authorization request, in which more sets parameters; an
// empty value takes one away.
func (p party) request(more ...string) url.Values {
	params := pairs("client_id", p.id, "redirect_uri", p.redirect, "response_type", "code", "scope", "openid",
		"state", "st-"+rand.Text(), "nonce", "n-"+rand.Text(),
		"code_challenge", challengeFor(testVerifier), "code_challenge_method", "S256")
	for i := 0; i < len(more); i += 2 {
		params.Set(more[i], more[i+1])
		if more[i+1] == "" {
			params.Del(more[i])
		}
	}
	return params
}

// credentials puts the client's into a form and request.
func (p party) credentials(form url.Values) func(*http.Request) {
	switch {
	case p.secret == "":
		form.Set("client_id", p.id)
	case p.post:
		form.Set("client_id", p.id)
		form.Set("client_secret", p.secret)
	default:
		return basic(p.id, p.secret)
	}
	return func(*http.Request) {}
}

// redeem exchanges a code; more is as in request.
func (p party) redeem(s *testServer, code string, more ...string) answer {
	s.t.Helper()
	out, err := p.tryRedeem(s, code, more...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (p party) tryRedeem(s *testServer, code string, more ...string) (answer, error) {
	form := pairs("grant_type", "authorization_code", "code", code, "redirect_uri", p.redirect, "code_verifier", testVerifier)
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
		if more[i+1] == "" {
			form.Del(more[i])
		}
	}
	return s.try(http.MethodPost, s.Issuer+"/oauth2/token", form, p.credentials(form), phone())
}

// refresh redeems a refresh token of the party.
func (p party) refresh(s *testServer, token string, more ...string) answer {
	s.t.Helper()
	form := pairs(append([]string{"grant_type", "refresh_token", "refresh_token", token}, more...)...)
	edit := p.credentials(form)
	return s.Token(form, edit, phone())
}

// asksFor fails unless the browser is at this page.
func asksFor(t testing.TB, what string, v visit, page string) {
	t.Helper()
	if v.page() != page || v.Status != http.StatusOK {
		t.Fatalf("%s: %v, want the page %s", what, v, page)
	}
}

// errorPage fails unless a person is shown an error and the browser stays.
func errorPage(t testing.TB, what string, v visit, status int) {
	t.Helper()
	if v.Status != status || v.page() != "error" || v.Header.Get("Location") != "" {
		t.Errorf("%s: %v, want an error page with %d", what, v, status)
	}
}

// toldClient fails unless the client is told of this error.
func toldClient(t testing.TB, what string, v visit, p party, params url.Values, code string) {
	t.Helper()
	location := v.leaves()
	if location == nil || v.Status != http.StatusSeeOther || !strings.HasPrefix(location.String(), p.redirect+"?") {
		t.Errorf("%s: %v, want a redirect to %s", what, v, p.redirect)
		return
	}
	got := location.Query()
	if got.Get("error") != code || got.Get("state") != params.Get("state") || got.Has("code") || got.Get("error_description") == "" {
		t.Errorf("%s: %v, want %s", what, got, code)
	}
}

// verified verifies an ID Token as a client's library does and returns its
// claims.
func verified(s *testServer, p party, idToken string) map[string]any {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	provider, err := oidc.NewProvider(ctx, s.Issuer)
	if err != nil {
		s.t.Fatal(err)
	}
	token, err := provider.Verifier(&oidc.Config{ClientID: p.id}).Verify(ctx, idToken)
	if err != nil {
		s.t.Fatalf("ID Token of %s: %v", p.id, err)
	}
	var out map[string]any
	if err := token.Claims(&out); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// oneCode sends the same request n times at once: one of them gets a code, and
// the others an error page.
func oneCode(t *testing.T, what string, n int, send func() (answer, error)) {
	t.Helper()
	var codes, refusals atomic.Int64
	var failed failures
	parallel(n, func(int) {
		out, err := send()
		switch {
		case err != nil:
			failed.add(err.Error())
		case out.Status == http.StatusSeeOther && strings.Contains(out.Header.Get("Location"), "code="):
			codes.Add(1)
		case out.Status == http.StatusBadRequest:
			refusals.Add(1)
		default:
			failed.add(out.String())
		}
	})
	failed.report(t, what)
	if codes.Load() != 1 || refusals.Load() != int64(n-1) {
		t.Errorf("%s %d times at once: %d codes, %d refusals", what, n, codes.Load(), refusals.Load())
	}
}
