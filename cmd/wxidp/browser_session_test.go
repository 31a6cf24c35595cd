package main

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wxidp/wxidp/storage"
)

// TestThreat51SessionFixation: the cookie of a login session is new after every
// sign-in, and one that was there before is nobody's.
func TestThreat51SessionFixation(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	const cookie = "wxidp-login"
	planted := storage.NewToken()
	victim := newBrowser(s)
	victim.plant(cookie, planted)
	victim.tokens(shopWeb, "alice")
	first := victim.cookies()[cookie]
	with := func(value string) bool { // whether a login session has this cookie
		b := newBrowser(s)
		b.plant(cookie, value)
		return b.authorize(shopWeb.request("prompt", "none")).callback().Has("code")
	}
	if first == planted || with(planted) || !with(first) {
		t.Fatalf("the planted cookie is a login session: %v", first == planted)
	}
	// Authenticating again, by the same browser.
	for _, prompt := range []string{"login", "select_account consent login"} {
		before := victim.cookies()[cookie]
		if v := victim.through(victim.authorize(shopWeb.request("prompt", prompt)), "alice"); !v.callback().Has("code") {
			t.Fatal(v)
		}
		after := victim.cookies()[cookie]
		if after == before || with(before) || !with(after) {
			t.Errorf("prompt=%s: the cookie is new: %v; the old one is dead: %v", prompt, after != before, !with(before))
		}
	}
	// Another user in the same browser.
	before := victim.cookies()[cookie]
	addAccount(s, "bob")
	v := victim.submit(victim.authorize(shopWeb.request("prompt", "select_account")), "/switch")
	if v = victim.through(victim.password(v, "bob", testPassword), "bob"); !v.callback().Has("code") {
		t.Fatal(v)
	}
	if victim.cookies()[cookie] == before || with(before) {
		t.Error("after another user signed in the cookie of the first is good")
	}
	// Signing out.
	before = victim.cookies()[cookie]
	victim.submit(victim.open("/account"), "/sign-out")
	if victim.cookies()[cookie] != "" || with(before) {
		t.Errorf("after signing out the cookie is %q, and good: %v", victim.cookies()[cookie], with(before))
	}
	for _, value := range []string{"x", "", strings.Repeat("A", 43), strings.Repeat("A", 4096), first + "=", first[:42]} {
		if with(value) {
			t.Errorf("cookie %.50q is a login session", value)
		}
	}

	// A planted browser cookie is what interactions belong to, and no more: the
	// attacker who knows it sees nothing of who signed in.
	attacker := newBrowser(s)
	begun := attacker.authorize(shopWeb.request("prompt", "consent"))
	shared := attacker.cookies()["wxidp-browser"]
	victim = newBrowser(s)
	victim.plant("wxidp-browser", shared)
	v = victim.password(victim.open(begun.URL.Path), "alice", testPassword)
	asksFor(t, "the victim", v, "consent")
	for path, v := range map[string]visit{"the interaction": attacker.open(begun.URL.Path), "the account": attacker.open("/account")} {
		if v.page() != "signin" || strings.Contains(string(v.Body), "alice") {
			t.Errorf("the attacker's view of %s: %v", path, v)
		}
	}
	if v := attacker.authorize(shopWeb.request("prompt", "none")); v.callback().Get("error") != "login_required" {
		t.Errorf("the attacker is signed in: %v", v)
	}
	// What is no token of ours is replaced.
	odd := newBrowser(s)
	odd.plant("wxidp-browser", "planted")
	asksFor(t, "an odd browser cookie", odd.authorize(shopWeb.request()), "signin")
	if odd.cookies()["wxidp-browser"] == "planted" {
		t.Error("a browser cookie that is none stays")
	}
}

// whatDiffers are parts of an answer that differ from one to the next anyway.
var whatDiffers = regexp.MustCompile(`[A-Za-z0-9_-]{43}|[0-9a-f]{16}`)

// TestThreat52EnumerationAtThePage: the page says the same of an unknown user,
// a wrong password, a disabled account and one without a password.
func TestThreat52EnumerationAtThePage(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	disabled := addAccount(s, "disabled")
	if err := s.parts.store.SetUserDisabled(context.Background(), disabled, true); err != nil {
		t.Fatal(err)
	}
	weChat, err := s.parts.store.CreateAccount(context.Background(), storage.NewAccount{Username: "wechat-only"})
	if err != nil || weChat.Verdict != storage.AccountCreated {
		t.Fatal(weChat, err)
	}
	type seen struct {
		status int
		body   string
		header string
		trail  int
	}
	var first seen
	for i, test := range []struct{ name, username, password string }{
		{"unknown", "nobody-of-this-name", "wrong-password"},
		{"wrong password", "alice", "wrong-password"},
		{"disabled", "disabled", testPassword},
		{"disabled and wrong", "disabled", "wrong-password"},
		{"no password", "wechat-only", testPassword},
		{"malformed name", "no such\tname", testPassword},
		{"no name", "", testPassword},
		{"empty password", "alice", ""},
		{"long password", "alice", strings.Repeat("x", 200)},
	} {
		b := newBrowser(s)
		v := b.password(b.authorize(shopWeb.request()), test.username, test.password)
		headers := maps.Clone(v.Header)
		for _, name := range []string{"Date", "X-Request-Id", "Content-Length"} {
			headers.Del(name)
		}
		names := slices.Sorted(maps.Keys(headers))
		now := seen{v.Status, whatDiffers.ReplaceAllString(string(v.Body), "*"), strings.Join(names, " "), len(v.Trail)}
		if b.cookies()["wxidp-login"] != "" || v.text("notice") == "" {
			t.Errorf("%s: %v", test.name, v)
		}
		if test.username != "" && bytes.Contains(v.Body, []byte(test.username)) || bytes.Contains(v.Body, []byte(testPassword)) {
			t.Errorf("%s: what was typed is on the page", test.name)
		}
		if i == 0 {
			first = now
		} else if now != first {
			t.Errorf("%s: %+v\nunknown: %+v", test.name, now, first)
		}
	}
	noneOf(t, "the log", s.Logs.String(), testPassword, "wrong-password", "nobody-of-this-name")
}

// TestThreat53GuessingIsOneLimit: wrong passwords at the page and at the token
// endpoint count together, by account whatever its spelling.
func TestThreat53GuessingIsOneLimit(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	addAccount(s, "bob")
	address := from(netip.MustParseAddr("198.51.100.53"))
	attacker := newBrowser(s, address)
	v := attacker.authorize(shopWeb.request())
	bind := func(username, password string) answer {
		return s.Token(signInForm(s.Code(testAppID, "mallory"), "username", username, "password", password), address)
	}
	for i, username := range []string{"alice", "ALICE", " alice", "Alice ", "aLiCe", "ａlice", "alice", "alice", "alice", "alice"} {
		status := 0
		if i%2 == 0 {
			status = attacker.password(v, username, "wrong").Status
		} else {
			status = bind(username, "wrong").Status
		}
		if status != http.StatusBadRequest {
			t.Fatalf("guess %d: %d", i, status)
		}
	}
	blocked := attacker.password(v, "alice", "wrong")
	if blocked.Status != http.StatusTooManyRequests || blocked.page() != "signin" {
		t.Errorf("guess 11: %v", blocked)
	}
	retryAfter(t, blocked.answer)
	right := attacker.password(v, "alice", testPassword)
	if right.Status != http.StatusTooManyRequests || right.text("notice") != blocked.text("notice") || attacker.cookies()["wxidp-login"] != "" {
		t.Errorf("the right password: %v, a wrong one: %v", right, blocked)
	}
	if out := bind("alice", testPassword); out.Status != http.StatusTooManyRequests {
		t.Errorf("the right password at the token endpoint: %v", out)
	}
	if v := attacker.password(v, "bob", testPassword); v.page() != "consent" {
		t.Errorf("another account from there: %v", v)
	}
	owner := newBrowser(s)
	if out := owner.tokens(shopWeb, "alice"); out.Status != http.StatusOK {
		t.Errorf("the owner from elsewhere: %v", out)
	}
	if n := s.metrics()[`wxidp_limited_requests_total{limit="password_account_ip"}`]; n != 3 {
		t.Errorf("%v refusals are counted", n)
	}
	if !slices.ContainsFunc(s.Logs.Events("login.denied"), func(e map[string]any) bool { return e["reason"] == "limit_password_account_ip" }) {
		t.Errorf("logged as %v", s.Logs.Events("login.denied"))
	}
}

// TestThreat54HashExhaustion: a flood of passwords at the page waits in a short
// line, and what needs no password goes on.
func TestThreat54HashExhaustion(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	v := b.authorize(shopWeb.request())
	form, ok := v.form("/password")
	if !ok {
		t.Fatal(v)
	}
	hashes := s.parts.passwords.Passwords.Stats().Hashes
	if out := b.password(v, "alice", strings.Repeat("p", 129)); out.Status != http.StatusBadRequest {
		t.Errorf("129 bytes: %v", out)
	}
	if now := s.parts.passwords.Passwords.Stats().Hashes; now != hashes {
		t.Error("a password that is too long was hashed")
	}
	var failed failures
	counts := make(chan int, 300)
	parallel(300, func(i int) {
		fields := url.Values{"csrf": form.fields["csrf"], "username": {"user-" + strings.Repeat("x", i%50) + string(rune('a'+i%26))}, "password": {"wrong"}}
		out, err := b.tryTrip(http.MethodPost, s.Issuer+form.action, fields, phone())
		if err != nil {
			failed.add(err.Error())
			return
		}
		if out.Status == http.StatusServiceUnavailable && out.Header.Get("Retry-After") == "" || len(out.Body) == 0 {
			failed.add("503 without Retry-After or a page")
		}
		counts <- out.Status
	})
	close(counts)
	got := map[int]int{}
	for status := range counts {
		got[status]++
	}
	failed.report(t, "flood")
	if got[http.StatusBadRequest]+got[http.StatusServiceUnavailable] != 300 || got[http.StatusServiceUnavailable] == 0 || got[http.StatusBadRequest] == 0 {
		t.Errorf("answers by status: %v", got)
	}
	if out := signIn(s, "honest"); out.Status != http.StatusOK {
		t.Error(out)
	}
	if out := newBrowser(s).tokens(shopWeb, "alice"); out.Status != http.StatusOK {
		t.Error(out)
	}
}

// TestThreat55HostHeaderAtThePages: no header of a request decides where anything leads.
func TestThreat55HostHeaderAtThePages(t *testing.T) {
	t.Parallel()
	s := startWeb(t, appending(deviceClient),
		withConfig(func(yaml string) string { return strings.Replace(yaml, "trusted_proxies: [127.0.0.1/32]\n", "", 1) }),
		replacing("clients:\n", "scan: { appid: "+testAppID+" }\nclients:\n", "roles, external_id, orders.read]", "roles, external_id, orders.read, device.approve]"))
	evil := []func(*http.Request){
		func(r *http.Request) { r.Host = "evil.example" },
		header("X-Forwarded-Host", "evil.example"),
		header("X-Forwarded-Proto", "https"),
		header("X-Forwarded-Port", "4444"),
		header("X-Forwarded-Prefix", "/evil.example"),
		header("X-Original-URL", "/evil.example"),
		header("X-Rewrite-Url", "/evil.example"),
		header("Forwarded", "host=evil.example;proto=https"),
		header("X-Host", "evil.example"),
	}
	b := newBrowser(s, evil...)
	params := shopWeb.request()
	v := b.authorize(params)
	asksFor(t, "another Host", v, "signin")
	all := append(slices.Clone(v.Trail), v.answer)
	v = b.password(v, "alice", testPassword)
	all = append(append(all, v.Trail...), v.answer)
	v = b.submit(v, "/allow")
	all = append(append(all, v.Trail...), v.answer)
	if v.callback().Get("iss") != s.Issuer {
		t.Errorf("iss is %q", v.callback().Get("iss"))
	}
	tokens := shopWeb.redeem(s, v.callback().Get("code"))
	if tokens.Status != http.StatusOK || claims(t, tokens.str("access_token"))["iss"] != s.Issuer {
		t.Errorf("tokens: %v", tokens)
	}
	for _, path := range []string{"/.well-known/openid-configuration", "/account", "/device", "/oauth2/end_session", "/nothing"} {
		all = append(all, b.open(path).answer)
	}
	device := s.Do(http.MethodPost, s.Issuer+"/oauth2/device_authorization", pairs("client_id", "shop-tv"), func(r *http.Request) {
		for _, edit := range evil {
			edit(r)
		}
	})
	all = append(all, device)
	if !strings.HasPrefix(device.str("verification_uri"), s.Issuer+"/") {
		t.Errorf("verification_uri is %q", device.str("verification_uri"))
	}
	for _, out := range all {
		noneOf(t, "an answer", string(out.Body), "evil.example", ":4444", "https://127.0.0.1")
		for name, values := range out.Header {
			noneOf(t, name, strings.Join(values, " "), "evil.example", ":4444", "Domain=")
		}
	}
	// Nor does the Host vouch for an Origin.
	form, _ := b.open("/account").form("/sign-out")
	errorPage(t, "the Origin of that Host", b.send(http.MethodPost, s.Issuer+"/account/sign-out", form.fields, header("Origin", "http://evil.example")), http.StatusForbidden)
}

// TestThreat56Cookies: on https cookies are bound to the very host, and no
// script or other site sees them. What they showed is not kept.
func TestThreat56Cookies(t *testing.T) {
	t.Parallel()
	s := startWeb(t, replacing("issuer: ISSUER", "issuer: https://id.example.com"))
	jar := map[string]string{}
	b := newBrowser(s, func(r *http.Request) {
		for name, value := range jar { // as a browser does through a TLS proxy
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
	})
	step := func(method, path string, form url.Values) visit {
		t.Helper()
		v := visit{answer: b.trip(method, s.Issuer+path, form), URL: b.url(path)}
		if v.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: Cache-Control %q", method, path, v.Header.Get("Cache-Control"))
		}
		for _, line := range v.Header["Set-Cookie"] {
			cookie, err := http.ParseSetCookie(line)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(cookie.Name, "__Host-wxidp-") || !cookie.Secure || !cookie.HttpOnly ||
				cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" {
				t.Errorf("cookie %s", line)
			}
			if jar[cookie.Name] = cookie.Value; cookie.MaxAge < 0 {
				delete(jar, cookie.Name)
			}
		}
		if v.Status == http.StatusSeeOther && v.leaves() == nil {
			return visit{answer: b.trip(http.MethodGet, s.Issuer+v.Header.Get("Location"), nil), URL: b.url(v.Header.Get("Location"))}
		}
		return v
	}
	press := func(v visit, action string, more ...string) visit {
		t.Helper()
		form, ok := v.form(action)
		if !ok {
			t.Fatalf("no form %s on %v", action, v)
		}
		for i := 0; i < len(more); i += 2 {
			form.fields.Set(more[i], more[i+1])
		}
		return step(http.MethodPost, form.action, form.fields)
	}
	v := step(http.MethodGet, "/oauth2/authorize?"+shopWeb.request().Encode(), nil)
	v = press(v, "/password", "username", "alice", "password", testPassword)
	if v = press(v, "/allow"); !v.callback().Has("code") || v.callback().Get("iss") != "https://id.example.com" {
		t.Fatal(v)
	}
	step(http.MethodGet, "/account?lang=en", nil)
	for _, name := range []string{"__Host-wxidp-login", "__Host-wxidp-browser", "__Host-wxidp-language"} {
		if jar[name] == "" {
			t.Errorf("no cookie %s in %v", name, jar)
		}
	}
	// Without the prefix a neighbouring host could have set it: it is nothing.
	stranger := newBrowser(s, header("Cookie", "wxidp-login="+jar["__Host-wxidp-login"]))
	if out := stranger.trip(http.MethodGet, s.Issuer+"/account", nil); out.Status != http.StatusSeeOther {
		t.Errorf("a cookie without the prefix: %d", out.Status)
	}
	account := step(http.MethodGet, "/account", nil)
	if account.page() != "account" || !strings.Contains(string(account.Body), "alice") {
		t.Fatal(account)
	}
	kept := maps.Clone(jar)
	press(account, "/sign-out")
	if jar["__Host-wxidp-login"] != "" {
		t.Error("the login session's cookie stays after signing out")
	}
	jar = kept // the back button, or a copy of the cookie
	if v := step(http.MethodGet, "/account", nil); v.page() != "signin" || strings.Contains(string(v.Body), "alice") {
		t.Errorf("after signing out: %v", v)
	}
	if v := step(http.MethodGet, "/oauth2/authorize?"+shopWeb.request("prompt", "none").Encode(), nil); v.callback().Get("error") != "login_required" {
		t.Errorf("after signing out: %v", v)
	}
}
