package main

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
)

// deviceClient may sign in from a device without a browser.
const deviceClient = `
  - client_id: shop-tv
    type: public
    grant_types: ["urn:ietf:params:oauth:grant-type:device_code", refresh_token]
    scopes: [openid, profile]
    default_scopes: [openid]
    audience: [` + testAudience + `]
`

// deviceCode begins at a device and returns the user code.
func deviceCode(s *testServer) (userCode, deviceCode string) {
	s.t.Helper()
	out := s.Do(http.MethodPost, s.Issuer+"/oauth2/device_authorization", pairs("client_id", "shop-tv"), phone())
	if out.Status != http.StatusOK {
		s.t.Fatal(out)
	}
	return out.str("user_code"), out.str("device_code")
}

// formsOf are a browser's forms, of every kind there is, with all that they
// need to have an effect.
func formsOf(s *testServer, b *browser) map[string]url.Values {
	s.t.Helper()
	forms := map[string]url.Values{}
	take := func(v visit, more ...string) {
		s.t.Helper()
		if len(v.forms()) == 0 {
			s.t.Fatalf("no forms on %v", v)
		}
		for _, form := range v.forms() {
			for i := 0; i < len(more); i += 2 {
				form.fields.Set(more[i], more[i+1])
			}
			if form.fields.Has("csrf") { // a form that leaves the issuer has none
				forms[form.action] = form.fields
			}
		}
	}
	take(b.open("/account"))
	take(b.authorize(shopWeb.request("prompt", "login")), "username", "alice", "password", testPassword)
	take(b.authorize(shopWeb.request("prompt", "select_account")))
	take(b.authorize(shopWeb.request("prompt", "consent")))
	userCode, _ := deviceCode(s)
	take(b.open("/device"), "user_code", userCode)
	take(b.submit(b.open("/device"), "/device", "user_code", userCode))
	take(b.open("/oauth2/end_session?client_id=shop-web"))
	return forms
}

// route is the pattern of a form's action.
func route(action string) string {
	parts := strings.Split(action, "/")
	if len(parts) > 2 && parts[1] == "signin" {
		parts[2] = "{id}"
	}
	return strings.Join(parts, "/")
}

// startScanning is startWeb with devices and codes for scanning.
func startScanning(t testing.TB) *testServer {
	t.Helper()
	return startWeb(t, appending(deviceClient),
		replacing("clients:\n", "scan: { appid: "+testAppID+" }\nclients:\n", "roles, external_id, orders.read]", "roles, external_id, orders.read, device.approve]"))
}

// TestThreat48CSRF sends every form of every page from somewhere else. None has
// any effect, and no form is forgotten.
func TestThreat48CSRF(t *testing.T) {
	t.Parallel()
	s := startScanning(t)
	b := newBrowser(s)
	tokens := b.tokens(shopWeb, "alice", "scope", "openid offline_access", "prompt", "consent")
	forms := formsOf(s, b)
	stranger := newBrowser(s)
	stranger.tokens(shopWeb, "alice")
	foreign := formsOf(s, stranger)["/account/sign-out"].Get("csrf")

	covered := map[string]bool{}
	for action := range forms {
		covered[route(action)] = true
	}
	// What posts without a form of ours has a credential of its own, or no effect.
	for _, path := range []string{
		"/oauth2/token", "/oauth2/revoke", "/oauth2/introspect", "/oauth2/userinfo", "/account", "/account/unbind", "/oauth2/par", "/oauth2/authorize", "/oauth2/end_session",
		"/wechat/decrypt", "/wechat/verify-signature", "/wechat/check-session", "/wechat/reset-session", "/wechat/events/{appid}",
		"/oauth2/device_authorization", "/device/context", "/device/approve", "/device/deny",
	} {
		covered[path] = true
	}
	err := chi.Walk(s.parts.web.Public().(chi.Router), func(method, path string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if method == http.MethodPost && !covered[path] {
			t.Errorf("POST %s is neither known nor reached by a form of this test", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	before := b.cookies()
	without := func(fields url.Values) url.Values {
		out := url.Values{}
		for name, values := range fields {
			if name != "csrf" {
				out[name] = values
			}
		}
		return out
	}
	with := func(fields url.Values, token string) url.Values {
		out := without(fields)
		out.Set("csrf", token)
		return out
	}
	none := func(*http.Request) {}
	for action, fields := range forms {
		for _, test := range []struct {
			name   string
			fields url.Values
			edit   func(*http.Request)
		}{
			{"no token", without(fields), none},
			{"an empty token", with(fields, ""), none},
			{"another browser's token", with(fields, foreign), none},
			{"the cookie as token", with(fields, before["wxidp-browser"]), none},
			{"the token twice, the first foreign", url.Values{"csrf": {foreign, fields.Get("csrf")}}, none},
			{"the token in the URL", without(fields), func(r *http.Request) { r.URL.RawQuery = "csrf=" + fields.Get("csrf") }},
			{"Origin of evil", fields, header("Origin", "https://evil.example")},
			{"Origin of a neighbour", fields, header("Origin", strings.Replace(s.Issuer, "127.0.0.1", "127.0.0.2", 1))},
			{"Origin by another scheme", fields, header("Origin", strings.Replace(s.Issuer, "http://", "https://", 1))},
			{"Origin that begins alike", fields, header("Origin", s.Issuer+".evil.example")},
			{"cross-site", fields, header("Sec-Fetch-Site", "cross-site")},
			{"same-site", fields, header("Sec-Fetch-Site", "same-site")},
			{"cross-site and Origin null", fields, func(r *http.Request) {
				r.Header.Set("Sec-Fetch-Site", "cross-site")
				r.Header.Set("Origin", "null")
			}},
			{"no cookies", fields, func(r *http.Request) { r.Header.Del("Cookie") }},
		} {
			who := b
			if test.name == "no cookies" {
				who = newBrowser(s)
			}
			out := visit{answer: who.trip(http.MethodPost, s.Issuer+action, test.fields, test.edit)}
			errorPage(t, route(action)+": "+test.name, out, http.StatusForbidden)
			for _, cookie := range out.Header["Set-Cookie"] {
				if strings.HasPrefix(cookie, "wxidp-login") {
					t.Errorf("%s: %s: sets %s", action, test.name, cookie)
				}
			}
		}
		for _, contentType := range []string{"text/plain", "application/json", "multipart/form-data; boundary=x", ""} {
			out := b.trip(http.MethodPost, s.Issuer+action, fields, header("Content-Type", contentType))
			if out.Status != http.StatusUnsupportedMediaType {
				t.Errorf("%s as %q: %d", action, contentType, out.Status)
			}
		}
		if out := b.trip(http.MethodGet, s.Issuer+action+"?"+fields.Encode(), nil); strings.HasPrefix(action, "/account/") && out.Status != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d", action, out.Status)
		}
	}
	// Nothing has changed.
	if after := b.cookies(); after["wxidp-login"] != before["wxidp-login"] || after["wxidp-browser"] != before["wxidp-browser"] {
		t.Errorf("cookies changed: %v", after)
	}
	signedIn(s, "after all the forms", tokens)
	if v := b.authorize(shopWeb.request("scope", "openid offline_access", "prompt", "none")); !v.callback().Has("code") {
		t.Errorf("login session or consent are gone: %v", v)
	}
	logins, _, err := s.parts.store.PageLogins(context.Background(), sub(t, tokens), "", 100)
	if err != nil || len(logins) != 2 {
		t.Errorf("%d login sessions, %v", len(logins), err)
	}
	// As they were served they are let through, the ones that end things last;
	// some then meet a sign-in that another of them has finished.
	actions := slices.SortedFunc(maps.Keys(forms), func(a, b string) int { return strings.Compare(last(a), last(b)) })
	for _, action := range actions {
		// Pages that decide for somebody are made for one login session.
		account := b.open("/account")
		current, _ := account.form("")
		if account.page() == "signin" && strings.HasPrefix(action, "/account/") {
			continue // one of them has signed out already
		}
		if out := b.trip(http.MethodPost, s.Issuer+action, with(forms[action], current.fields.Get("csrf")), header("Origin", s.Issuer), header("Sec-Fetch-Site", "same-origin")); out.Status == http.StatusForbidden {
			t.Errorf("%s as served: %d", action, out.Status)
		}
	}
	dead(s, "after everything was signed out", tokens)
}

// last orders the forms that end a login session behind the others.
func last(action string) string {
	if strings.Contains(action, "sign-out") || strings.Contains(action, "end_session") || strings.Contains(action, "end-") {
		return "2" + action
	}
	return "1" + action
}

// TestThreat49LoginCSRF: nobody is signed in as somebody else by a form that
// another site sends.
func TestThreat49LoginCSRF(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	attacker := newBrowser(s)
	v := attacker.authorize(shopWeb.request())
	form, ok := v.form("/password")
	if !ok {
		t.Fatal(v)
	}
	form.fields.Set("username", "alice")
	form.fields.Set("password", testPassword)
	for name, edit := range map[string]func(*http.Request){
		"an old browser":    func(*http.Request) {},
		"by Origin":         header("Origin", "https://evil.example"),
		"by Sec-Fetch-Site": header("Sec-Fetch-Site", "cross-site"),
	} {
		victim := newBrowser(s)
		victim.open("/account")
		v := victim.send(http.MethodPost, s.Issuer+form.action, form.fields, edit)
		errorPage(t, name, v, http.StatusForbidden)
		if victim.cookies()["wxidp-login"] != "" || victim.open("/account").page() != "signin" {
			t.Errorf("%s: the victim is signed in as the attacker", name)
		}
	}
	if n := len(s.Logs.Events("login.started")); n != 0 {
		t.Errorf("%d login sessions", n)
	}
	if at := attacker.submit(v, "/password", "username", "alice", "password", testPassword); at.page() != "consent" {
		t.Errorf("the form in its own browser: %v", at)
	}
}

// TestThreat50Clickjacking: no page of any kind can be framed, kept or sniffed.
func TestThreat50Clickjacking(t *testing.T) {
	t.Parallel()
	s := startScanning(t)
	b := newBrowser(s)
	visits := map[string]visit{
		"sign in":       b.authorize(shopWeb.request()),
		"error":         b.authorize(shopWeb.request("redirect_uri", "https://evil.example")),
		"foreign form":  b.send(http.MethodPost, s.Issuer+"/account/sign-out", url.Values{}),
		"lost":          b.open("/signin/nothing"),
		"device":        b.open("/device"),
		"scan":          b.open("/scan?t=nothing"),
		"wrong":         b.password(b.authorize(shopWeb.request()), "alice", "wrong"),
		"consent":       b.password(b.authorize(shopWeb.request()), "alice", testPassword),
		"select":        b.authorize(shopWeb.request("prompt", "select_account")),
		"account":       b.open("/account"),
		"sign out":      b.open("/oauth2/end_session?client_id=shop-web"),
		"code as form":  b.submit(b.authorize(shopWeb.request("prompt", "consent", "response_mode", "form_post")), "/allow"),
		"error as form": b.authorize(shopWeb.request("response_mode", "form_post", "response_type", "token")),
	}
	userCode, _ := deviceCode(s)
	visits["wrong device"] = b.submit(b.open("/device"), "/device", "user_code", "WRONG")
	visits["device consent"] = b.submit(b.open("/device"), "/device", "user_code", userCode)
	visits["device done"] = b.submit(visits["device consent"], "/deny")
	visits["signed out"] = b.submit(b.open("/account"), "/sign-out")
	kinds := map[string]bool{}
	for name, v := range visits {
		kinds[v.page()] = true
		if v.page() == "" {
			t.Errorf("%s: %v", name, v)
		}
		csp := v.Header.Get("Content-Security-Policy")
		for _, directive := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "script-src 'self'"} {
			if !slices.Contains(strings.Split(csp, "; "), directive) {
				t.Errorf("%s: Content-Security-Policy %q has no %s", name, csp, directive)
			}
		}
		for header, want := range map[string]string{
			"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin", "Content-Type": "text/html; charset=utf-8",
		} {
			if got := v.Header.Get(header); got != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got, want)
			}
		}
	}
	for _, kind := range []string{"signin", "select", "consent", "device", "devicedone", "signout", "signedout", "error", "formpost", "account", "scanlanding"} {
		if !kinds[kind] {
			t.Errorf("no page %s was looked at", kind)
		}
	}
}
