package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestThreat1RedirectURITricks sends redirect URIs that look like a registered
// one. Each gets a page, and none a redirect.
func TestThreat1RedirectURITricks(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	b.tokens(shopWeb, "alice") // signed in and agreed: only the redirect URI can stop a code now
	const ok = "https://shop.example/callback"
	for _, uri := range []string{
		"", " ", ok + "/", ok + "/x", ok + "?x=1", ok + "?", ok + "#", ok + "#f", ok + "?tenant=2", ok + "?tenant=1&x=1", ok + "?tenant=1#",
		"https://SHOP.example/callback", "HTTPS://shop.example/callback", "https://shop.example/Callback", "https://shop.example:443/callback",
		"https://shop.example:8443/callback", "https://shop.example:/callback", "http://shop.example/callback", "//shop.example/callback", "/callback",
		"https://shop.example/x/../callback", "https://shop.example/./callback", "https://shop.example//callback", "https://shop.example/..;/callback",
		"https://shop.example/callback/..;/", "https://shop.example/callback/../evil", "https://shop.example%2fcallback", "https://shop.example/callback%2f",
		"https://shop.example/%63allback", "https://shop.example/callback%00", "https://shop.example/callback%0d%0aLocation:%20https://evil.example",
		"https://shop.example@evil.example/callback", "https://evil.example@shop.example/callback", "https://user:pw@shop.example/callback",
		"https://a@b@shop.example/callback", "https://shop.example\\@evil.example/callback", "https://evil.example\\.shop.example/callback",
		"https:\\\\shop.example\\callback", "https:/shop.example/callback", "https:shop.example/callback", "https://evil.example/https://shop.example/callback",
		"https://shop.example.evil.example/callback", "https://evilshop.example/callback", "https://shop.example./callback", "https://www.shop.example/callback",
		"https://ѕhop.example/callback", "https://shop。example/callback", "https://xn--hop-7ad.example/callback", "https://shop.example/callback\t", "\nhttps://shop.example/callback",
		"https://shop.\texample/callback", "https://shop.example/callback\r\nX: y", "https://shop.example/callback ", " https://shop.example/callback",
		"javascript:alert(1)//https://shop.example/callback", "data:text/html,x", "https://other.example/cb", "https://[::ffff:127.0.0.1]/callback",
		ok + "," + ok, ok + " " + ok, strings.Repeat("https://shop.example/", 200),
	} {
		params := shopWeb.request("redirect_uri", uri)
		before := len(s.Logs.Events("authorization.granted"))
		v := b.authorize(params)
		errorPage(t, uri, v, http.StatusBadRequest)
		if len(s.Logs.Events("authorization.granted")) != before {
			t.Errorf("%q: a code was issued", uri)
		}
		if strings.Contains(string(v.Body), "evil") {
			t.Errorf("%q is repeated on the page", uri)
		}
		if event := eventOf(s, v.answer, "authorization.denied"); event["reason"] != "redirect_mismatch" || event["client_id"] != shopWeb.id {
			t.Errorf("%q: logged as %v", uri, event)
		}
	}
	// What is too long for a URL, or no URL at all, comes no further.
	for query, status := range map[string]int{
		"redirect_uri=" + strings.Repeat("x", 14<<10):                           http.StatusRequestURITooLong,
		"client_id=shop-web&redirect_uri=https://shop.example/callback%00":      http.StatusBadRequest,
		"client_id=shop-web&redirect_uri=https://shop.example/callback%ff":      http.StatusBadRequest,
		"client_id=shop-web&redirect_uri=%zz":                                   http.StatusBadRequest,
		"client_id=shop-web;redirect_uri=https://shop.example/callback":         http.StatusBadRequest,
		"response_type=code&redirect_uri=https%3A%2F%2Fshop.example%2Fcallback": http.StatusBadRequest,
	} {
		errorPage(t, query[:min(len(query), 80)], b.open("/oauth2/authorize?"+query), status)
	}
	// A URL of 64 KiB is refused before it is read, which may reset the connection.
	huge, err := b.tryTrip(http.MethodGet, s.Issuer+"/oauth2/authorize?redirect_uri="+strings.Repeat("x", 64<<10), nil)
	if err == nil && (huge.Status != http.StatusRequestHeaderFieldsTooLarge || huge.Header.Get("Location") != "") {
		t.Errorf("64 KiB: %d", huge.Status)
	}
	for _, id := range []string{"", "nobody", "SHOP-WEB", "shop-web ", testBackend, testClient} {
		errorPage(t, "client "+id, b.authorize(shopWeb.request("client_id", id)), http.StatusBadRequest)
	}
	noneOf(t, "the log", s.Logs.String(), "evil.example", "tenant=2")
	// Every registered URI is one, and a query of its own stays.
	for _, uri := range []string{ok, ok + "?tenant=1"} {
		v := b.authorize(shopWeb.request("redirect_uri", uri))
		if !strings.HasPrefix(v.Header.Get("Location"), uri) || v.callback().Get("code") == "" {
			t.Errorf("%s: %v", uri, v)
		}
		if strings.Contains(uri, "?") && v.callback().Get("tenant") != "1" {
			t.Errorf("%s: %v", uri, v)
		}
	}
}

// TestThreat2LoopbackRedirects: a native client may use any port of the loopback
// address it registered, and nothing else differs.
func TestThreat2LoopbackRedirects(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	b.tokens(shopNative, "alice")
	for _, uri := range []string{
		"http://127.0.0.1/cb", "http://127.0.0.1:80/cb", "http://127.0.0.1:1/cb", "http://127.0.0.1:51234/cb", "http://127.0.0.1:65535/cb",
		"http://[::1]:7000/cb", "http://[::1]/cb", "http://[::1]:4/cb", "com.example.shop:/cb",
	} {
		v := b.authorize(shopNative.request("redirect_uri", uri))
		// Any program here can claim to be this client: people are asked each time.
		asksFor(t, uri, v, "consent")
		v = b.submit(v, "/allow")
		location, err := url.Parse(v.Header.Get("Location"))
		if err != nil || v.Status != http.StatusSeeOther || !strings.HasPrefix(location.String(), uri+"?") || location.Query().Get("code") == "" {
			t.Errorf("%s: %v", uri, v)
			continue
		}
		if out := shopNative.redeem(s, location.Query().Get("code"), "redirect_uri", uri); out.Status != http.StatusOK {
			t.Errorf("%s: %v", uri, out)
		}
	}
	for _, uri := range []string{
		"http://localhost/cb", "http://localhost:80/cb", "https://127.0.0.1/cb", "https://127.0.0.1:51234/cb", "http://127.0.0.1:51234/other",
		"http://127.0.0.1:51234/%63b", "http://127.0.0.1:51234/cb?x=1", "http://127.0.0.1:51234/cb/", "http://127.0.0.1:51234/cb#f", "http://127.0.0.1:51234",
		"http://user@127.0.0.1:51234/cb", "http://127.0.0.1:51234@evil.example/cb", "http://127.0.0.1@evil.example/cb", "http://127.0.0.1:x/cb",
		"http://127.0.0.1:/cb", "http://127.0.0.1:123456/cb", "http://127.0.0.1:-1/cb", "http://127.0.0.1:+80/cb", "http://127.0.0.1.evil.example/cb", "http://127.0.0.1:8080.evil.example/cb",
		"http://127.0.0.2/cb", "http://127.1/cb", "http://2130706433/cb", "http://0x7f.0.0.1/cb", "http://[::ffff:127.0.0.1]/cb", "http://[0:0:0:0:0:0:0:1]/cb",
		"http://[::1%25lo]/cb", "HTTP://127.0.0.1/cb", "http:127.0.0.1/cb", "http://0.0.0.0/cb", "com.example.shop://cb", "com.example.shop:/CB", "COM.example.shop:/cb",
	} {
		errorPage(t, uri, b.authorize(shopNative.request("redirect_uri", uri)), http.StatusBadRequest)
	}
	// Only native clients get this: a port counts for those on servers.
	errorPage(t, "a confidential client", b.authorize(shopWeb.request("redirect_uri", "http://127.0.0.1:51234/cb")), http.StatusBadRequest)
	// The very URI of the request is what redeems the code, its port included.
	code := b.code(shopNative, "alice", "redirect_uri", "http://127.0.0.1:51234/cb")
	refused(t, shopNative.redeem(s, code, "redirect_uri", "http://127.0.0.1:51235/cb"), http.StatusBadRequest, "invalid_grant")
}

// TestThreat3DuplicateParameters: a parameter that occurs twice is refused
// where a person can see it, and at the token endpoint.
func TestThreat3DuplicateParameters(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	b.tokens(shopWeb, "alice")
	for _, name := range []string{"client_id", "redirect_uri", "response_type", "scope", "state", "nonce", "code_challenge", "code_challenge_method", "prompt", "claims", "max_age", "request_uri", "unknown"} {
		params := shopWeb.request()
		for range 2 - len(params[name]) { // the same value or another makes no difference
			params.Add(name, "none")
		}
		errorPage(t, name, b.authorize(params), http.StatusBadRequest)
		out := b.send(http.MethodPost, s.Issuer+"/oauth2/authorize", params)
		errorPage(t, name+" by POST", out, http.StatusBadRequest)
	}
	// Spelled as arrays they are other parameters, and so not there.
	params := shopWeb.request("redirect_uri", "", "redirect_uri[]", shopWeb.redirect)
	errorPage(t, "an array", b.authorize(params), http.StatusBadRequest)
	// resource alone may repeat (RFC 8707 §2).
	params = shopWeb.request()
	params["resource"] = []string{testAudience, testAudience}
	if v := b.authorize(params); v.callback().Get("code") == "" {
		t.Errorf("resource twice: %v", v)
	}
	for _, name := range []string{"grant_type", "code", "redirect_uri", "code_verifier", "client_id"} {
		form := pairs("grant_type", "authorization_code", "code", b.code(shopWeb, "alice"), "redirect_uri", shopWeb.redirect,
			"code_verifier", testVerifier, "client_id", shopWeb.id)
		form.Add(name, form.Get(name))
		refused(t, s.Token(form, basic(shopWeb.id, shopWeb.secret), phone()), http.StatusBadRequest, "invalid_request")
	}
}

// TestThreat4FlowDowngrade asks for flows and modes that put tokens or codes
// where they leak.
func TestThreat4FlowDowngrade(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	b.tokens(shopWeb, "alice")
	for _, test := range []struct{ name, value, want string }{
		{"response_type", "token", "unsupported_response_type"},
		{"response_type", "id_token", "unsupported_response_type"},
		{"response_type", "id_token token", "unsupported_response_type"},
		{"response_type", "code token", "unsupported_response_type"},
		{"response_type", "code id_token", "unsupported_response_type"},
		{"response_type", "code id_token token", "unsupported_response_type"},
		{"response_type", "none", "unsupported_response_type"},
		{"response_type", "code code", "unsupported_response_type"},
		{"response_type", "CODE", "unsupported_response_type"},
		{"response_type", "", "invalid_request"},
		{"response_mode", "fragment", "invalid_request"},
		{"response_mode", "query.jwt", "invalid_request"},
		{"response_mode", "form_post.jwt", "invalid_request"},
		{"response_mode", "jwt", "invalid_request"},
		{"response_mode", "web_message", "invalid_request"},
		{"response_mode", "QUERY", "invalid_request"},
	} {
		params := shopWeb.request(test.name, test.value)
		v := b.authorize(params)
		toldClient(t, test.name+"="+test.value, v, shopWeb, params, test.want)
		if location := v.leaves(); location != nil && location.Fragment != "" {
			t.Errorf("%s=%s: answered in the fragment", test.name, test.value)
		}
	}
	meta := s.Do(http.MethodGet, s.Issuer+"/.well-known/openid-configuration", nil).JSON
	for name, want := range map[string]string{
		"response_types_supported": "[code]", "response_modes_supported": "[query form_post]", "code_challenge_methods_supported": "[S256]",
	} {
		if got := fmt.Sprint(meta[name]); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}
