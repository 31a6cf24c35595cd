package main

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// TestThreat5PKCE: no code without a challenge, but for the confidential client
// that opted out, and none with a plain one.
func TestThreat5PKCE(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	for _, p := range []party{shopWeb, shopSPA, shopNative, otherWeb} {
		params := p.request("code_challenge", "", "code_challenge_method", "")
		toldClient(t, p.id+" without", newBrowser(s).authorize(params), p, params, "invalid_request")
	}
	for _, p := range []party{shopWeb, shopSPA, shopOld} {
		for name, change := range map[string][]string{
			"plain":            {"code_challenge_method", "plain", "code_challenge", testVerifier},
			"S256 as plain":    {"code_challenge_method", "plain"},
			"no method":        {"code_challenge_method", ""},
			"no challenge":     {"code_challenge", ""},
			"lower case":       {"code_challenge_method", "s256"},
			"unknown method":   {"code_challenge_method", "S512"},
			"short challenge":  {"code_challenge", "abc"},
			"long challenge":   {"code_challenge", strings.Repeat("a", 128)},
			"padded challenge": {"code_challenge", challengeFor(testVerifier) + "="},
			"other characters": {"code_challenge", strings.Repeat("+", 43)},
		} {
			params := p.request(change...)
			toldClient(t, p.id+": "+name, newBrowser(s).authorize(params), p, params, "invalid_request")
		}
	}
	b := newBrowser(s)
	if out := b.tokens(shopOld, "alice", "code_challenge", "", "code_challenge_method", ""); out.str("id_token") == "" {
		t.Errorf("the client that opted out: %v", out)
	}
}

// TestThreat6PKCEDowngrade: the verifier must be the challenge's, and the first
// wrong one burns the code.
func TestThreat6PKCEDowngrade(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	b.tokens(shopWeb, "alice")
	b.tokens(shopOld, "alice")

	// A verifier where no challenge was: somebody has taken the challenge away.
	code := b.code(shopOld, "alice", "code_challenge", "", "code_challenge_method", "")
	refused(t, shopOld.redeem(s, code), http.StatusBadRequest, "invalid_grant")
	refused(t, shopOld.redeem(s, code, "code_verifier", ""), http.StatusBadRequest, "invalid_grant")

	for _, p := range []party{shopWeb, shopOld, shopSPA} {
		for name, first := range map[string]string{"wrong": strings.Repeat("w", 43), "none": "", "the challenge itself": challengeFor(testVerifier), "short": "x", "huge": strings.Repeat("v", 4096)} {
			code := b.code(p, "alice")
			for i, verifier := range []string{first, "", testVerifier} {
				out := p.redeem(s, code, "code_verifier", verifier)
				refused(t, out, http.StatusBadRequest, "invalid_grant")
				if t.Failed() {
					t.Fatalf("%s: %s verifier first, try %d", p.id, name, i+1)
				}
			}
		}
	}
	if n := len(s.Logs.Events("code.misuse")); n < 10 {
		t.Errorf("%d misuses are in the log", n)
	}
	for _, event := range s.Logs.Events("code.misuse") {
		if event["reason"] != "wrong_verifier" || event["client_id"] == "" || event["sub"] == "" {
			t.Errorf("logged as %v", event)
		}
	}
}

// TestThreat7MixUp: every response, be it a success or an error, by redirect or
// by form, says who the issuer is (RFC 9207).
func TestThreat7MixUp(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	if out := s.Do(http.MethodGet, s.Issuer+"/.well-known/openid-configuration", nil); out.JSON["authorization_response_iss_parameter_supported"] != true {
		t.Error("discovery does not say that iss is sent")
	}
	b := newBrowser(s)
	b.tokens(shopWeb, "alice")
	consent := b.authorize(shopWeb.request("prompt", "consent"))
	asksFor(t, "prompt=consent", consent, "consent")
	for name, v := range map[string]visit{
		"code":            b.authorize(shopWeb.request()),
		"code by form":    b.authorize(shopWeb.request("response_mode", "form_post")),
		"error":           b.authorize(shopWeb.request("response_type", "token")),
		"error by form":   b.authorize(shopWeb.request("scope", "admin", "response_mode", "form_post")),
		"denied":          b.submit(consent, "/deny"),
		"login required":  newBrowser(s).authorize(shopWeb.request("prompt", "none")),
		"request object":  b.authorize(shopWeb.request("request", "x")),
		"without a state": b.authorize(shopWeb.request("state", "")),
		"forged iss":      b.authorize(shopWeb.request("iss", "https://evil.example")),
	} {
		got := v.callback()
		if iss := got["iss"]; len(iss) != 1 || iss[0] != s.Issuer {
			t.Errorf("%s: iss is %v in %v", name, iss, v)
		}
		if got.Has("state") == (name == "without a state") || got.Has("code") == got.Has("error") {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestThreat8CodeInjection: a code is good for its own client and redirect_uri
// only; presented otherwise it is burnt.
func TestThreat8CodeInjection(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	for _, test := range []struct {
		name      string
		owner, by party
		more      []string
	}{
		{"another confidential client", shopWeb, otherWeb, []string{"redirect_uri", shopWeb.redirect}},
		{"another client with its own redirect_uri", shopWeb, otherWeb, nil},
		{"a public client", shopWeb, shopSPA, []string{"redirect_uri", shopWeb.redirect}},
		{"of a public client by another", shopSPA, shopNative, []string{"redirect_uri", shopSPA.redirect}},
		{"of a public client by a confidential one", shopSPA, shopWeb, []string{"redirect_uri", shopSPA.redirect}},
		{"another redirect_uri", shopWeb, shopWeb, []string{"redirect_uri", "https://shop.example/callback?tenant=1"}},
		{"a prefix of the redirect_uri", shopWeb, shopWeb, []string{"redirect_uri", "https://shop.example/"}},
		{"no redirect_uri", shopWeb, shopWeb, []string{"redirect_uri", ""}},
		{"no redirect_uri, public", shopSPA, shopSPA, []string{"redirect_uri", ""}},
	} {
		code := b.code(test.owner, "alice")
		out := test.by.redeem(s, code, test.more...)
		refused(t, out, http.StatusBadRequest, "invalid_grant")
		event := eventOf(s, out, "code.misuse")
		if event["client_id"] != test.by.id || event["issued_to"] != test.owner.id {
			t.Errorf("%s: logged as %v", test.name, event)
		}
		if again := test.owner.redeem(s, code); again.Status != http.StatusBadRequest || again.str("error") != "invalid_grant" {
			t.Errorf("%s: the code is not burnt: %v", test.name, again)
		}
	}
	// Who cannot authenticate as a client does not burn a code.
	code := b.code(shopWeb, "alice")
	refused(t, party{id: shopWeb.id, secret: "guessed-0123456789-0123456789-012345", redirect: shopWeb.redirect}.redeem(s, code), http.StatusUnauthorized, "invalid_client")
	if out := shopWeb.redeem(s, code); out.Status != http.StatusOK {
		t.Errorf("after somebody guessed the client's secret: %v", out)
	}
	// Codes that nobody issued.
	for _, code := range []string{"x", strings.Repeat("A", 43), strings.Repeat("A", 16<<10), "\r\n", "../../etc/passwd"} {
		refused(t, shopWeb.redeem(s, code), http.StatusBadRequest, "invalid_grant")
	}
	refused(t, shopWeb.redeem(s, ""), http.StatusBadRequest, "invalid_request")
}

// TestThreat9CodeReplay: the second use of a code ends what the first one got.
func TestThreat9CodeReplay(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	other := b.tokens(shopWeb, "alice")
	code := b.code(shopWeb, "alice")
	tokens := shopWeb.redeem(s, code)
	if tokens.Status != http.StatusOK || !s.Active(tokens.str("access_token")) {
		t.Fatal(tokens)
	}
	fresh := shopWeb.refresh(s, tokens.str("refresh_token"))
	if fresh.Status != http.StatusOK {
		t.Fatal(fresh)
	}
	replay := shopWeb.redeem(s, code)
	refused(t, replay, http.StatusBadRequest, "invalid_grant")
	event := eventOf(s, replay, "code.reuse_detected")
	if event["client_id"] != shopWeb.id || event["sid"] != claims(t, tokens.str("access_token"))["sid"] {
		t.Errorf("logged as %v", event)
	}
	for name, token := range map[string]string{"first": tokens.str("access_token"), "refreshed": fresh.str("access_token")} {
		if s.Active(token) || userInfoOK(s, token) {
			t.Errorf("the %s access token is alive after the replay", name)
		}
	}
	refused(t, shopWeb.refresh(s, fresh.str("refresh_token")), http.StatusBadRequest, "invalid_grant")
	if !s.Active(other.str("access_token")) {
		t.Error("another sign-in of the user ended, too")
	}
	if v := b.authorize(shopWeb.request("prompt", "none")); v.callback().Get("code") == "" {
		t.Errorf("the login session ended, too: %v", v)
	}
	// A stranger who presents the used code ends nothing: the client is judged first.
	code = b.code(shopWeb, "alice")
	tokens = shopWeb.redeem(s, code)
	refused(t, otherWeb.redeem(s, code, "redirect_uri", shopWeb.redirect), http.StatusBadRequest, "invalid_grant")
	refused(t, party{id: shopWeb.id, secret: "guessed-0123456789-0123456789-012345"}.redeem(s, code), http.StatusUnauthorized, "invalid_client")
	if !s.Active(tokens.str("access_token")) {
		t.Error("another client's replay ended the sign-in")
	}
}

// TestThreat10ParallelRedemption: of fifty who present a code at once, one gets
// tokens.
func TestThreat10ParallelRedemption(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		code := b.code(shopSPA, "alice")
		before := len(families(s))
		var won, lost atomic.Int64
		var failed failures
		parallel(50, func(int) {
			out, err := shopSPA.tryRedeem(s, code)
			switch {
			case err != nil:
				failed.add(err.Error())
			case out.Status == http.StatusOK:
				won.Add(1)
			case out.Status == http.StatusBadRequest && out.str("error") == "invalid_grant":
				lost.Add(1)
			default:
				failed.add(out.String())
			}
		})
		failed.report(t, fmt.Sprintf("round %d", round))
		if won.Load() != 1 || lost.Load() != 49 {
			t.Fatalf("round %d: %d got tokens, %d were refused", round, won.Load(), lost.Load())
		}
		if made := len(families(s)) - before; made != 1 {
			t.Fatalf("round %d: %d sign-ins were recorded", round, made)
		}
	}
}

// TestThreat11CodeLeakage: neither headers nor logs carry a code elsewhere, and
// whatever follows a form is fetched by GET.
func TestThreat11CodeLeakage(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	params := shopWeb.request()
	v := b.authorize(params)
	var pages []answer
	pages = append(pages, v.Trail...)
	pages = append(pages, v.answer)
	v = b.password(v, "alice", testPassword)
	pages = append(pages, v.Trail...)
	pages = append(pages, v.answer)
	v = b.submit(v, "/allow")
	pages = append(pages, v.Trail...)
	pages = append(pages, v.answer)
	for _, out := range pages {
		if out.Header.Get("Referrer-Policy") != "no-referrer" || out.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%d %s: headers %v", out.Status, out.Header.Get("Location"), out.Header)
		}
		if out.Status != http.StatusOK && out.Status != http.StatusSeeOther {
			t.Errorf("%d on the way, which may repeat the form elsewhere", out.Status)
		}
	}
	code := v.callback().Get("code")
	tokens := shopWeb.redeem(s, code)
	if tokens.Status != http.StatusOK {
		t.Fatal(tokens)
	}
	shopWeb.redeem(s, code)
	noneOf(t, "the log", s.Logs.String(), code, testVerifier, testPassword, params.Get("state"), params.Get("nonce"), b.cookies()["wxidp-login"], b.cookies()["wxidp-browser"])
	noneOf(t, "the metrics", string(s.Do(http.MethodGet, s.Admin+"/metrics", nil).Body), code, "alice", b.cookies()["wxidp-login"])
	// A code, state or session in a URL of ours never comes back in one.
	for _, out := range pages {
		noneOf(t, "a redirect", out.Header.Get("Location"), testPassword, b.cookies()["wxidp-login"], b.cookies()["wxidp-browser"])
	}
}

// TestThreat12NoFetches: whatever a request refers to, nobody calls it.
func TestThreat12NoFetches(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var calls atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			conn.Close()
		}
	}()
	trap := "http://" + listener.Addr().String() + "/x"
	b := newBrowser(s)
	b.tokens(shopWeb, "alice")
	object := func(header, claims string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	}
	inner := `{"client_id":"shop-web","response_type":"code","scope":"openid","redirect_uri":"https://shop.example/callback","logo_uri":"` + trap + `"}`
	for name, test := range map[string]struct {
		change []string
		want   string
	}{
		"request_uri":   {[]string{"request_uri", trap}, "request_uri_not_supported"},
		"file":          {[]string{"request_uri", "file:///etc/passwd"}, "request_uri_not_supported"},
		"unsigned":      {[]string{"request", object(`{"alg":"none"}`, inner)}, "request_not_supported"},
		"jku":           {[]string{"request", object(`{"alg":"RS256","jku":"`+trap+`"}`, inner)}, "request_not_supported"},
		"x5u":           {[]string{"request", object(`{"alg":"RS256","x5u":"`+trap+`"}`, inner)}, "request_not_supported"},
		"both":          {[]string{"request", object(`{"alg":"none"}`, inner), "request_uri", trap}, "request_not_supported"},
		"registration":  {[]string{"registration", `{"jwks_uri":"` + trap + `","logo_uri":"` + trap + `"}`}, "registration_not_supported"},
		"id_token_hint": {[]string{"id_token_hint", object(`{"alg":"RS256","jku":"`+trap+`","x5u":"`+trap+`","jwk":{}}`, `{"iss":"`+s.Issuer+`","sub":"x","aud":"shop-web"}`)}, "invalid_request"},
	} {
		params := shopWeb.request(test.change...)
		toldClient(t, name, b.authorize(params), shopWeb, params, test.want)
	}
	for _, change := range [][]string{
		{"logo_uri", trap, "jwks_uri", trap, "policy_uri", trap, "sector_identifier_uri", trap, "initiate_login_uri", trap},
		{"claims", `{"userinfo":{"picture":{"value":"` + trap + `"}}}`}, {"login_hint", trap}, {"ui_locales", trap},
	} {
		if v := b.authorize(shopWeb.request(change...)); v.Status >= http.StatusInternalServerError {
			t.Errorf("%v: %v", change, v)
		}
	}
	form := pairs("request_uri", trap)
	refused(t, s.Do(http.MethodPost, s.Issuer+"/oauth2/par", form, basic(shopWeb.id, shopWeb.secret), phone()), http.StatusBadRequest, "invalid_request")
	for _, path := range []string{"/oauth2/end_session?id_token_hint=" + url.QueryEscape(object(`{"alg":"RS256","jku":"`+trap+`"}`, `{}`))} {
		if v := b.open(path); v.Status >= http.StatusInternalServerError {
			t.Errorf("%s: %v", path, v)
		}
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}
