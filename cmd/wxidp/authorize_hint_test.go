package main

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// TestThreat13ReflectedMarkup puts markup into everything that pages may show.
func TestThreat13ReflectedMarkup(t *testing.T) {
	t.Parallel()
	const markup = `"'><script>canary13</script><img src=x onerror=canary13>{{.}}` + "`${canary13}"
	s := startWeb(t, replacing("name: Shop on the web", `name: 'Shop ">''<script>canary13</script>'`))
	id := addAccount(s, "marked")
	nickname := "<b>canary13</b>"
	if _, err := s.parts.store.UpdateProfile(context.Background(), id, storage.ProfileChange{Nickname: &nickname}); err != nil {
		t.Fatal(err)
	}
	check := func(what string, v visit) {
		t.Helper()
		body := string(v.Body)
		for node := range v.nodes() {
			for _, attr := range node.Attr {
				if strings.HasPrefix(attr.Key, "on") || strings.HasPrefix(strings.ToLower(attr.Val), "javascript:") {
					t.Errorf("%s: <%s %s=%q>", what, node.Data, attr.Key, attr.Val)
				}
			}
			if node.Data == "script" && (attribute(node, "src") == "" || node.FirstChild != nil) || node.Data == "b" || node.Data == "base" {
				t.Errorf("%s: element %s of foreign text", what, node.Data)
			}
		}
		if strings.Contains(body, "<script>canary13") || strings.Contains(body, "<b>canary13") || strings.Contains(body, "onerror=canary13>") && strings.Contains(body, "<img src=x") {
			t.Errorf("%s: foreign markup in %.2000s", what, body)
		}
		if v.page() != "" && !strings.HasPrefix(v.Header.Get("Content-Security-Policy"), "default-src 'none'; ") {
			t.Errorf("%s: Content-Security-Policy %q", what, v.Header.Get("Content-Security-Policy"))
		}
		if csp := v.Header.Get("Content-Security-Policy"); strings.Contains(csp, "unsafe") {
			t.Errorf("%s: Content-Security-Policy %q", what, csp)
		}
		for name, values := range v.Header {
			if strings.ContainsAny(strings.Join(values, ""), "\r\n") || name == "Canary13" {
				t.Errorf("%s: header %s: %q", what, name, values)
			}
		}
	}
	b := newBrowser(s, header("Accept-Language", markup))
	for _, name := range []string{
		"client_id", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce", "code_challenge", "code_challenge_method", "prompt", "max_age",
		"ui_locales", "login_hint", "id_token_hint", "acr_values", "claims", "request", "request_uri", "resource", "audience", "error", "error_hint",
		"error_description", "display", "lang", "iss", "dpop_jkt", "claims_locales", markup,
	} {
		for _, mode := range []string{"query", "form_post"} {
			check(name+" "+mode, b.authorize(shopWeb.request("response_mode", mode, name, markup)))
		}
		check(name+" at the account page", newBrowser(s).open("/account?"+pairs(name, markup).Encode()))
		check(name+" at the device page", b.open("/device?"+pairs(name, markup, "user_code", markup).Encode()))
		check(name+" at logout", b.open("/oauth2/end_session?"+pairs(name, markup, "state", markup, "client_id", markup).Encode()))
	}
	sneaky := shopWeb.request("login_hint", markup, "ui_locales", markup)
	v := b.authorize(sneaky)
	asksFor(t, "markup as login_hint", v, "signin")
	if v.input("username") != markup {
		t.Errorf("login_hint is shown as %q", v.input("username"))
	}
	check("sign-in", v)
	check("wrong password", b.password(v, markup, markup))
	check("another interaction", b.open("/signin/"+markup))
	check("no such page", b.open("/"+markup))
	v = b.password(v, "marked", testPassword)
	asksFor(t, "consent", v, "consent")
	check("consent", v)
	check("select", b.authorize(shopWeb.request("prompt", "select_account", "state", markup)))
	done := b.authorize(shopWeb.request("prompt", "consent", "state", markup, "response_mode", "form_post"))
	done = b.submit(done, "/allow")
	check("form_post", done)
	if done.callback().Get("state") != markup {
		t.Errorf("state came back as %q", done.callback().Get("state"))
	}
	done = b.authorize(shopWeb.request("state", markup+"\r\nSet-Cookie: canary13=1"))
	check("redirect", done)
	if done.callback().Get("state") != markup+"\r\nSet-Cookie: canary13=1" {
		t.Errorf("state came back as %q", done.callback().Get("state"))
	}
	check("account", b.open("/account"))
	check("logout", b.open("/oauth2/end_session?"+pairs("client_id", "shop-web", "state", markup).Encode()))
	checkLogLines(t, s.Logs.String())
}

// TestThreat14ForcedLogin: what prompt, max_age and id_token_hint demand is
// what happens, whoever is signed in.
func TestThreat14ForcedLogin(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	addAccount(s, "bob")
	params := shopWeb.request("prompt", "none")
	toldClient(t, "prompt=none of a stranger", newBrowser(s).authorize(params), shopWeb, params, "login_required")

	alice := newBrowser(s)
	first := alice.tokens(shopWeb, "alice")
	before := alice.cookies()["wxidp-login"]
	for name, change := range map[string][]string{
		"prompt=login": {"prompt", "login"}, "max_age=0": {"max_age", "0"}, "prompt=login consent": {"prompt", "login consent"},
	} {
		v := alice.authorize(shopWeb.request(change...))
		asksFor(t, name, v, "signin")
		// Going around the page leads nowhere but to it.
		if again := alice.open(v.URL.Path); again.page() != "signin" {
			t.Errorf("%s: %v", name, again)
		}
		for _, button := range []string{"/allow", "/continue"} {
			form, _ := v.form("/password")
			around := alice.send(http.MethodPost, s.Issuer+v.URL.Path+button, form.fields)
			errorPage(t, name+button+" without signing in", around, http.StatusForbidden)
		}
		wrong := alice.password(v, "alice", "wrong")
		if wrong.page() != "signin" || wrong.Status != http.StatusBadRequest {
			t.Errorf("%s: a wrong password: %v", name, wrong)
		}
	}
	if alice.cookies()["wxidp-login"] != before {
		t.Error("the login session changed although nobody signed in")
	}
	for name, change := range map[string][]string{
		"none login": {"prompt", "none login"}, "unknown": {"prompt", "create"}, "case": {"prompt", "NONE"}, "max_age": {"max_age", "-1"},
		"max_age as text": {"max_age", "soon"}, "max_age as float": {"max_age", "1.5"}, "max_age too large": {"max_age", "99999999999999999999"},
	} {
		params := shopWeb.request(change...)
		toldClient(t, name, alice.authorize(params), shopWeb, params, "invalid_request")
	}
	both := shopWeb.request("prompt", "none", "max_age", "0")
	toldClient(t, "prompt=none max_age=0", alice.authorize(both), shopWeb, both, "login_required")

	forged := func(edit func(header, payload, signature string) string) string {
		part := strings.Split(first.str("id_token"), ".")
		return edit(part[0], part[1], part[2])
	}
	encode := base64.RawURLEncoding.EncodeToString
	for name, hint := range map[string]string{
		"garbage":           "garbage",
		"dots":              "..",
		"huge":              strings.Repeat("a", 5<<10),
		"an access token":   first.str("access_token"),
		"a refresh token":   first.str("refresh_token"),
		"alg none":          forged(func(_, p, _ string) string { return encode([]byte(`{"alg":"none"}`)) + "." + p + "." }),
		"another signature": forged(func(h, p, s string) string { return h + "." + p + "." + strings.Repeat("A", len(s)) }),
		"another payload": forged(func(h, _, s string) string {
			return h + "." + encode([]byte(`{"iss":"x","sub":"y","aud":"shop-web"}`)) + "." + s
		}),
		"another client's": newBrowser(s).tokens(otherWeb, "alice").str("id_token"),
		"a mini-program's": signIn(s, "carol").str("id_token"),
	} {
		for _, prompt := range []string{"none", ""} {
			params := shopWeb.request("id_token_hint", hint, "prompt", prompt)
			toldClient(t, name, alice.authorize(params), shopWeb, params, "invalid_request")
		}
	}
	// The hint names somebody else than who is signed in.
	bobs := newBrowser(s).tokens(shopWeb, "bob").str("id_token")
	params = shopWeb.request("id_token_hint", bobs, "prompt", "none")
	toldClient(t, "bob's hint", alice.authorize(params), shopWeb, params, "login_required")
	params = shopWeb.request("id_token_hint", bobs)
	v := alice.authorize(params)
	asksFor(t, "bob's hint with a page", v, "signin")
	toldClient(t, "alice where bob was asked for", alice.password(v, "alice", testPassword), shopWeb, params, "login_required")
	v = alice.authorize(params)
	v = alice.through(alice.password(v, "bob", testPassword), "bob")
	out := shopWeb.redeem(s, v.callback().Get("code"))
	if out.Status != http.StatusOK || verified(s, shopWeb, out.str("id_token"))["sub"] != claims(t, bobs)["sub"] {
		t.Errorf("bob's hint, and bob came: %v", v)
	}
	// claims={"id_token":{"sub":{"value":…}}} is no weaker.
	params = shopWeb.request("prompt", "none", "claims", `{"id_token":{"sub":{"value":"`+sub(t, first)+`"}}}`)
	toldClient(t, "claims.sub of alice while bob is there", alice.authorize(params), shopWeb, params, "login_required")
	params = shopWeb.request("prompt", "none", "claims", `{"userinfo":{"sub":{"value":"`+claims(t, bobs)["sub"].(string)+`"}}}`)
	if v := alice.authorize(params); !v.callback().Has("code") {
		t.Errorf("claims.sub of who is there: %v", v)
	}
}

// TestThreat14ExpiredHint: an ID Token that has expired still says whom it was
// for, and no more than that.
func TestThreat14ExpiredHint(t *testing.T) {
	t.Parallel()
	s := startWeb(t, withConfig(func(yaml string) string { return "tokens: { id_token_lifetime: 1s }\n" + yaml }))
	b := newBrowser(s)
	hint := b.tokens(shopWeb, "alice").str("id_token")
	expired := time.Unix(int64(claims(t, hint)["exp"].(float64)), 0)
	eventually(t, "the ID Token expires", func() bool { return time.Now().After(expired) })
	v := b.authorize(shopWeb.request("id_token_hint", hint, "prompt", "none"))
	out := shopWeb.redeem(s, v.callback().Get("code"))
	if out.Status != http.StatusOK || claims(t, out.str("id_token"))["sub"] != claims(t, hint)["sub"] {
		t.Errorf("an expired hint: %v, %v", v, out)
	}
	params := shopWeb.request("id_token_hint", hint, "prompt", "none")
	toldClient(t, "an expired hint elsewhere", newBrowser(s).authorize(params), shopWeb, params, "login_required")
}

// TestThreat15TransactionTheft: an interaction belongs to the browser in which
// it began.
func TestThreat15TransactionTheft(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	attacker := newBrowser(s)
	v := attacker.authorize(shopWeb.request())
	asksFor(t, "the attacker", v, "signin")
	form, _ := v.form("/password")

	victim := newBrowser(s)
	victim.tokens(shopWeb, "alice")
	cookies := victim.cookies()
	page := victim.open("/account")
	own, _ := page.form("/sign-out")
	errorPage(t, "the attacker's page in the victim's browser", victim.open(v.URL.Path), http.StatusBadRequest)
	for _, button := range []string{"/password", "/allow", "/deny", "/cancel", "/continue", "/switch", "/scan", "/finish"} {
		// With the attacker's token the form is foreign; with the victim's own the interaction is.
		with := func(token string) visit {
			fields := pairs("csrf", token, "username", "alice", "password", testPassword)
			return victim.send(http.MethodPost, s.Issuer+v.URL.Path+button, fields)
		}
		errorPage(t, button+" with the attacker's token", with(form.fields.Get("csrf")), http.StatusForbidden)
		status := http.StatusBadRequest
		if button == "/finish" {
			status = http.StatusNotFound // a scan that is not the browser's is none (threat 59)
		}
		errorPage(t, button+" with the victim's token", with(own.fields.Get("csrf")), status)
	}
	for _, path := range []string{"/state", "/events"} {
		if out := victim.trip(http.MethodGet, s.Issuer+v.URL.Path+path, nil); out.Status != http.StatusNotFound {
			t.Errorf("%s: %v", path, out)
		}
	}
	noCookies := newBrowser(s)
	errorPage(t, "a browser without cookies", noCookies.open(v.URL.Path), http.StatusBadRequest)
	if got := victim.cookies(); got["wxidp-login"] != cookies["wxidp-login"] {
		t.Error("the victim's login session changed")
	}
	if again := attacker.open(v.URL.Path); again.page() != "signin" {
		t.Errorf("the attacker's own page: %v", again)
	}
	for _, id := range []string{"x", strings.Repeat("A", 43), strings.Repeat("A", 44), "..%2f..%2fadmin"} {
		errorPage(t, id, victim.open("/signin/"+id), http.StatusBadRequest)
	}
}
