package main

import (
	"net/http"
	"strings"
	"testing"
)

// push pushes an authorization request of the party (RFC 9126).
func (p party) push(s *testServer, more ...string) answer {
	s.t.Helper()
	params := p.request(more...)
	if p.secret != "" && !p.post {
		params.Del("client_id") // it is in the header
	}
	edit := p.credentials(params)
	return s.Do(http.MethodPost, s.Issuer+"/oauth2/par", params, edit, phone())
}

// TestPushedRequests is the life of a pushed authorization request (RFC 9126).
func TestPushedRequests(t *testing.T) {
	t.Parallel()
	s := startWeb(t, replacing("  - client_id: shop-spa\n", "  - client_id: shop-spa\n    require_pushed_authorization_requests: true\n"))
	for _, p := range []party{shopWeb, otherWeb, shopSPA} {
		b := newBrowser(s)
		out := p.push(s, "scope", "openid profile", "state", "pushed")
		seconds, _ := out.JSON["expires_in"].(float64)
		if out.Status != http.StatusCreated || out.Header.Get("Cache-Control") != "no-store" || seconds < 5 || seconds > 600 {
			t.Fatalf("%s: %v", p.id, out)
		}
		uri := out.str("request_uri")
		// What stands beside request_uri counts for nothing (RFC 9126 §4).
		v := b.authorize(pairs("client_id", p.id, "request_uri", uri, "scope", "openid offline_access", "state", "other",
			"redirect_uri", "https://evil.example", "response_type", "token", "response_mode", "form_post"))
		v = b.through(v, "alice")
		if v.callback().Get("state") != "pushed" || !strings.HasPrefix(v.Header.Get("Location"), p.redirect+"?") {
			t.Fatalf("%s: %v", p.id, v)
		}
		tokens := p.redeem(s, v.callback().Get("code"))
		if tokens.Status != http.StatusOK || tokens.str("scope") != "openid profile" {
			t.Errorf("%s: %v", p.id, tokens)
		}
		errorPage(t, p.id+": the request_uri again", b.authorize(pairs("client_id", p.id, "request_uri", uri)), http.StatusBadRequest)
	}

	// A request_uri is its client's, and an attempt of another spends it.
	b := newBrowser(s)
	b.tokens(shopWeb, "alice")
	uri := shopWeb.push(s).str("request_uri")
	errorPage(t, "another client", b.authorize(pairs("client_id", otherWeb.id, "request_uri", uri)), http.StatusBadRequest)
	errorPage(t, "no client", b.authorize(pairs("request_uri", shopWeb.push(s).str("request_uri"))), http.StatusBadRequest)
	for _, bad := range []string{"urn:ietf:params:oauth:request_uri:", "urn:ietf:params:oauth:request_uri:" + strings.Repeat("A", 43), uri + "x", strings.ToUpper(uri)} {
		v := b.authorize(pairs("client_id", shopWeb.id, "request_uri", bad))
		if v.Status != http.StatusBadRequest || v.page() != "error" {
			t.Errorf("%s: %v", bad, v)
		}
	}
	// Who must push, must.
	errorPage(t, "not pushed", b.authorize(shopSPA.request()), http.StatusBadRequest)
	errorPage(t, "not pushed, by POST", b.send(http.MethodPost, s.Issuer+"/oauth2/authorize", shopSPA.request()), http.StatusBadRequest)

	// A browser that opens it many times at once gets one code.
	uri = shopWeb.push(s).str("request_uri")
	oneCode(t, "opening a request_uri", 20, func() (answer, error) {
		return b.tryTrip(http.MethodGet, s.Issuer+"/oauth2/authorize?"+pairs("client_id", shopWeb.id, "request_uri", uri).Encode(), nil)
	})
}

// TestPushedRequestFaults: what is wrong with a request is said when it is
// pushed, to the client.
func TestPushedRequestFaults(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	for name, test := range map[string]struct {
		change []string
		want   string
	}{
		"redirect_uri":        {[]string{"redirect_uri", "https://evil.example/"}, "invalid_request"},
		"no redirect_uri":     {[]string{"redirect_uri", ""}, "invalid_request"},
		"no PKCE":             {[]string{"code_challenge", "", "code_challenge_method", ""}, "invalid_request"},
		"plain PKCE":          {[]string{"code_challenge_method", "plain"}, "invalid_request"},
		"response_type":       {[]string{"response_type", "token"}, "unsupported_response_type"},
		"no response_type":    {[]string{"response_type", ""}, "invalid_request"},
		"response_mode":       {[]string{"response_mode", "fragment"}, "invalid_request"},
		"scope":               {[]string{"scope", "openid admin"}, "invalid_scope"},
		"resource":            {[]string{"resource", "https://evil.example"}, "invalid_target"},
		"prompt":              {[]string{"prompt", "none login"}, "invalid_request"},
		"max_age":             {[]string{"max_age", "x"}, "invalid_request"},
		"claims":              {[]string{"claims", "{"}, "invalid_request"},
		"id_token_hint":       {[]string{"id_token_hint", "x"}, "invalid_request"},
		"request":             {[]string{"request", "x"}, "request_not_supported"},
		"request_uri":         {[]string{"request_uri", "urn:ietf:params:oauth:request_uri:x"}, "invalid_request"},
		"another's client_id": {[]string{"client_id", "other-web"}, "invalid_request"},
	} {
		params := shopWeb.request(test.change...)
		out := s.Do(http.MethodPost, s.Issuer+"/oauth2/par", params, basic(shopWeb.id, shopWeb.secret), phone())
		refused(t, out, http.StatusBadRequest, test.want)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	twice := shopWeb.request()
	twice.Add("scope", "openid")
	refused(t, s.Do(http.MethodPost, s.Issuer+"/oauth2/par", twice, basic(shopWeb.id, shopWeb.secret), phone()), http.StatusBadRequest, "invalid_request")
	refused(t, s.Do(http.MethodPost, s.Issuer+"/oauth2/par?scope=openid", shopWeb.request(), basic(shopWeb.id, shopWeb.secret), phone()), http.StatusBadRequest, "invalid_request")
	// The client must be who it says.
	for name, out := range map[string]answer{
		"no credentials": s.Do(http.MethodPost, s.Issuer+"/oauth2/par", shopWeb.request(), phone()),
		"a wrong secret": party{id: shopWeb.id, secret: "guessed-0123456789-0123456789-012345", redirect: shopWeb.redirect}.push(s),
		"nobody":         s.Do(http.MethodPost, s.Issuer+"/oauth2/par", shopWeb.request("client_id", "nobody"), phone()),
	} {
		if out.Status != http.StatusUnauthorized || out.str("error") != "invalid_client" {
			t.Errorf("%s: %v", name, out)
		}
	}
	// A client without the grant.
	refused(t, s.Do(http.MethodPost, s.Issuer+"/oauth2/par", shopWeb.request("client_id", ""), basic(testBackend, testBackendKey), phone()), http.StatusBadRequest, "invalid_request")
	if out := s.Do(http.MethodGet, s.Issuer+"/oauth2/par", nil); out.Status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v", out)
	}
	noneOf(t, "the log", s.Logs.String(), shopWeb.secret, "guessed-")
}
