package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// scopesOn are the scopes that a consent page names.
func scopesOn(v visit) (scopes []string) {
	for node := range v.nodes() {
		if scope := attribute(node, "data-scope"); scope != "" {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// TestConsentIsRememberedPerScope: people are asked once for each scope, and
// again for what is new.
func TestConsentIsRememberedPerScope(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	v := b.password(b.authorize(shopWeb.request("scope", "openid profile")), "alice", testPassword)
	asksFor(t, "the first time", v, "consent")
	if scopes := scopesOn(v); !slices.Contains(scopes, "profile") || v.text("account") != "alice" {
		t.Errorf("the page names %v and %q", scopes, v.text("account"))
	}
	if v = b.submit(v, "/allow"); !v.callback().Has("code") {
		t.Fatal(v)
	}
	for _, scope := range []string{"openid profile", "openid", "profile openid"} {
		if v := b.authorize(shopWeb.request("scope", scope, "prompt", "none")); !v.callback().Has("code") {
			t.Errorf("%s was agreed to: %v", scope, v)
		}
	}
	params := shopWeb.request("scope", "openid profile phone", "prompt", "none")
	toldClient(t, "more scopes silently", b.authorize(params), shopWeb, params, "consent_required")
	v = b.authorize(shopWeb.request("scope", "openid phone"))
	asksFor(t, "more scopes", v, "consent")
	if v = b.submit(v, "/deny"); v.callback().Get("error") != "access_denied" {
		t.Fatal(v)
	}
	asksFor(t, "after a refusal", b.authorize(shopWeb.request("scope", "openid phone")), "consent")
	b.tokens(shopWeb, "alice", "scope", "openid phone")
	// What was agreed to adds up.
	if v := b.authorize(shopWeb.request("scope", "openid profile phone", "prompt", "none")); !v.callback().Has("code") {
		t.Errorf("both were agreed to: %v", v)
	}
	// It is the user's, in every browser; another client has none of it, nor has another user.
	other := newBrowser(s)
	if v := other.password(other.authorize(shopWeb.request("scope", "openid phone")), "alice", testPassword); !v.callback().Has("code") {
		t.Errorf("in another browser: %v", v)
	}
	asksFor(t, "another client", b.authorize(otherWeb.request()), "consent")
	addAccount(s, "bob")
	stranger := newBrowser(s)
	asksFor(t, "another user", stranger.password(stranger.authorize(shopWeb.request()), "bob", testPassword), "consent")
	asksFor(t, "prompt=consent", b.authorize(shopWeb.request("prompt", "consent")), "consent")
	// Withdrawn at the account page it is gone, and so are the tokens.
	tokens := b.tokens(shopWeb, "alice")
	b.submit(b.open("/account"), "/revoke-consent", "id", shopWeb.id)
	asksFor(t, "after it was withdrawn", b.authorize(shopWeb.request()), "consent")
	if userInfoOK(s, tokens.str("access_token")) {
		t.Error("the access token is alive")
	}
	// Nobody is asked where the operator says so.
	if v := other.authorize(shopSPA.request("scope", "openid profile offline_access")); !v.callback().Has("code") {
		t.Errorf("consent: skip: %v", v)
	}
	asksFor(t, "consent: skip with prompt=consent", other.authorize(shopSPA.request("prompt", "consent")), "consent")
}

// TestSelectAccount: people choose to go on as who they are, or as somebody
// else.
func TestSelectAccount(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	addAccount(s, "bob")
	b := newBrowser(s)
	alice := sub(t, b.tokens(shopSPA, "alice"))
	params := shopSPA.request("prompt", "select_account")
	v := b.authorize(params)
	asksFor(t, "prompt=select_account", v, "select")
	if v.text("account") != "alice" {
		t.Errorf("the page names %q", v.text("account"))
	}
	if out := shopSPA.redeem(s, b.submit(v, "/continue").callback().Get("code")); sub(t, out) != alice {
		t.Errorf("go on: %v", out)
	}
	v = b.authorize(shopSPA.request("prompt", "select_account"))
	asksFor(t, "once more", v, "select")
	v = b.submit(v, "/switch")
	asksFor(t, "somebody else", v, "signin")
	// Until somebody else is there, it is still alice.
	if v := b.authorize(shopSPA.request("prompt", "none")); !v.callback().Has("code") {
		t.Errorf("alice was signed out by the question: %v", v)
	}
	v = b.password(v, "bob", testPassword)
	if out := shopSPA.redeem(s, v.callback().Get("code")); sub(t, out) == alice {
		t.Error("bob signed in, and alice it is")
	}
	params = shopSPA.request("prompt", "select_account")
	toldClient(t, "cancelled", b.submit(b.authorize(params), "/cancel"), shopSPA, params, "access_denied")
	asksFor(t, "a stranger", newBrowser(s).authorize(shopSPA.request("prompt", "select_account")), "signin")
}

// TestOfflineAccess: a refresh token without offline_access ends with the login
// session, one with it does not.
func TestOfflineAccess(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	online := b.tokens(shopWeb, "alice", "scope", "openid")
	offline := b.tokens(shopWeb, "alice", "scope", "openid offline_access")
	for name, out := range map[string]answer{"online": online, "offline": offline} {
		if out.str("refresh_token") == "" {
			t.Fatalf("%s: no refresh token in %v", name, out)
		}
	}
	next := shopWeb.refresh(s, online.str("refresh_token"))
	if next.Status != http.StatusOK {
		t.Fatal(next)
	}
	pending := b.code(shopWeb, "alice")
	b.submit(b.open("/account"), "/sign-out")
	refused(t, shopWeb.refresh(s, next.str("refresh_token")), http.StatusBadRequest, "invalid_grant")
	if userInfoOK(s, next.str("access_token")) {
		t.Error("an access token of the login session outlives it")
	}
	refused(t, shopWeb.redeem(s, pending), http.StatusBadRequest, "invalid_grant")
	if out := shopWeb.refresh(s, offline.str("refresh_token")); out.Status != http.StatusOK || !userInfoOK(s, out.str("access_token")) {
		t.Errorf("offline_access: %v", out)
	}
	// Signing out everywhere ends both.
	again := newBrowser(s)
	offline = again.tokens(shopWeb, "alice", "scope", "openid offline_access")
	again.submit(again.open("/account"), "/sign-out-everywhere")
	refused(t, shopWeb.refresh(s, offline.str("refresh_token")), http.StatusBadRequest, "invalid_grant")
}

// TestClaimsParameter: claims asked for by name come where they were asked for
// (OIDC Core §5.5), after the person has agreed.
func TestClaimsParameter(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	b.tokens(shopWeb, "alice")
	const wish = `{"id_token":{"nickname":null,"auth_time":{"essential":true},"unknown":null},"userinfo":{"name":{"essential":true},"phone_number":null},"other":{"x":1}}`
	v := b.authorize(shopWeb.request("claims", wish))
	asksFor(t, "claims beyond the scope", v, "consent")
	out := shopWeb.redeem(s, b.submit(v, "/allow").callback().Get("code"))
	id, info := verified(s, shopWeb, out.str("id_token")), s.UserInfo(out.str("access_token"))
	if id["nickname"] != "account alice" || id["auth_time"] == nil || id["name"] != nil || id["unknown"] != nil {
		t.Errorf("ID Token %v", id)
	}
	if info.JSON["name"] != "account alice" || info.JSON["nickname"] != nil || len(info.JSON) != 2 {
		t.Errorf("UserInfo %v", info)
	}
	if v := b.authorize(shopWeb.request("claims", wish, "prompt", "none")); !v.callback().Has("code") {
		t.Errorf("the same claims again: %v", v)
	}
	params := shopWeb.request("claims", `{"id_token":{"phone_number":null,"picture":null}}`, "prompt", "none")
	toldClient(t, "other claims", b.authorize(params), shopWeb, params, "consent_required")
	// A client gets nothing by name that it may have no scope for.
	out = b.tokens(otherWeb, "alice", "claims", `{"userinfo":{"phone_number":{"essential":true},"roles":null,"external_id":null,"wechat_openid":null}}`)
	if info := s.UserInfo(out.str("access_token")); len(info.JSON) != 1 {
		t.Errorf("UserInfo %v", info)
	}
	for _, bad := range []string{"{", "[]", `"x"`, `{"id_token":[]}`, `{"id_token":{"a\u0000":null}}`, `{"userinfo":{"` + strings.Repeat("x", 200) + `":null}}`, strings.Repeat("[", 3000)} {
		params := shopWeb.request("claims", bad)
		toldClient(t, bad[:min(len(bad), 40)], b.authorize(params), shopWeb, params, "invalid_request")
	}
}

// TestACR: the class of an authentication is told, and an essential one that
// cannot be met is an error (OIDC Core §5.5.1.1).
func TestACR(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	out := b.tokens(shopWeb, "alice", "acr_values", "urn:wxidp:acr:scan")
	id := verified(s, shopWeb, out.str("id_token"))
	if id["acr"] != "urn:wxidp:acr:password" { // a wish that need not be met
		t.Errorf("acr is %v", id["acr"])
	}
	if amr, _ := id["amr"].([]any); len(amr) != 1 || amr[0] != "pwd" {
		t.Errorf("amr is %v", id["amr"])
	}
	met := `{"id_token":{"acr":{"essential":true,"values":["urn:wxidp:acr:scan","urn:wxidp:acr:password"]}}}`
	if v := b.authorize(shopWeb.request("claims", met, "prompt", "none")); !v.callback().Has("code") {
		t.Errorf("an essential class that is met: %v", v)
	}
	unmet := `{"id_token":{"acr":{"essential":true,"value":"urn:wxidp:acr:scan"}}}`
	params := shopWeb.request("claims", unmet, "prompt", "none")
	toldClient(t, "unmet silently", b.authorize(params), shopWeb, params, "login_required")
	params = shopWeb.request("claims", unmet)
	v := b.authorize(params)
	asksFor(t, "unmet", v, "signin")
	toldClient(t, "unmet after a password", b.password(v, "alice", testPassword), shopWeb, params, "unmet_authentication_requirements")
}

// TestDefaultMaxAge: a client's default_max_age holds where a request names no
// other, and its sign-ins are told from those of other clients.
func TestDefaultMaxAge(t *testing.T) {
	t.Parallel()
	s := startWeb(t, replacing("  - client_id: other-web\n", "  - client_id: other-web\n    default_max_age: 1s\n"))
	b := newBrowser(s)
	out := b.tokens(otherWeb, "alice")
	at := int64(verified(s, otherWeb, out.str("id_token"))["auth_time"].(float64))
	b.tokens(shopWeb, "alice")
	eventually(t, "the sign-in is older than a second", func() bool { return time.Now().Unix() > at+1 })
	asksFor(t, "default_max_age", b.authorize(otherWeb.request()), "signin")
	params := otherWeb.request("prompt", "none")
	toldClient(t, "default_max_age silently", b.authorize(params), otherWeb, params, "login_required")
	if v := b.authorize(otherWeb.request("max_age", "1000")); !v.callback().Has("code") {
		t.Errorf("max_age of the request: %v", v)
	}
	if v := b.authorize(shopWeb.request()); !v.callback().Has("code") {
		t.Errorf("another client: %v", v)
	}
}

// TestFormPostPage: the page that carries a response by form holds the
// parameters, sends itself by a script of ours and works without one.
func TestFormPostPage(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	b.tokens(shopWeb, "alice")
	const redirect = "https://shop.example/callback?tenant=1"
	params := shopWeb.request("response_mode", "form_post", "redirect_uri", redirect, "state", `a&b="c"<d>' +ü`)
	v := b.authorize(params)
	asksFor(t, "form_post", v, "formpost")
	form, _ := v.form("")
	got := form.fields
	if form.action != redirect || got.Get("state") != params.Get("state") || got.Get("iss") != s.Issuer || got.Get("code") == "" || len(got) != 3 || len(v.forms()) != 1 {
		t.Errorf("form %v to %s", got, form.action)
	}
	if v.Header.Get("Location") != "" || v.Header.Get("Cache-Control") != "no-store" || strings.Contains(v.Header.Get("Content-Security-Policy"), "form-action") {
		t.Errorf("headers %v", v.Header)
	}
	scripts, buttons := 0, 0
	for node := range v.nodes() {
		switch node.Data {
		case "script":
			scripts++
			if out := s.Do(http.MethodGet, s.Issuer+attribute(node, "src"), nil); out.Status != http.StatusOK || !strings.Contains(string(out.Body), "submit") {
				t.Errorf("script %s: %v", attribute(node, "src"), out)
			}
		case "noscript":
			for child := range node.Descendants() {
				if child.Type == html.TextNode && strings.Contains(child.Data, "<button") || child.Data == "button" {
					buttons++
				}
			}
		}
	}
	if scripts != 1 || buttons != 1 {
		t.Errorf("%d scripts, %d buttons for browsers without", scripts, buttons)
	}
	if out := shopWeb.redeem(s, got.Get("code"), "redirect_uri", redirect); out.Status != http.StatusOK {
		t.Error(out)
	}
	// A native app may be called by a form, too.
	native := newBrowser(s)
	v = native.through(native.authorize(shopNative.request("redirect_uri", "com.example.shop:/cb", "response_mode", "form_post")), "alice")
	if form, _ := v.form(""); form.action != "com.example.shop:/cb" {
		t.Errorf("form to a native app: %q", form.action)
	}
}
