package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// logoutServer is a server with a web client that is told of logouts.
func logoutServer(t *testing.T) (s *testServer, told chan url.Values) {
	t.Helper()
	told = make(chan url.Values, 8)
	rp := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		told <- r.PostForm
	}))
	t.Cleanup(rp.Close)
	return startServer(t, appending(`
  - client_id: logout-web
    name: Logout & Co
    type: public
    grant_types: [authorization_code]
    redirect_uris: [https://shop.example/cb]
    post_logout_redirect_uris: [https://shop.example/]
    backchannel_logout_uri: `+rp.URL+`/backchannel
    id_token_signed_response_alg: ES256
    scopes: [openid]
    default_scopes: [openid]
    audience: [`+testAudience+`]
`)), told
}

// signedInBrowser is a browser with a login session and one sign-in from it.
type signedInBrowser struct {
	*testServer
	cookies string
	login   storage.LoginSession
	family  storage.Family
	hint    string // the ID Token
}

func newSignedInBrowser(s *testServer, username string) *signedInBrowser {
	s.t.Helper()
	ctx, store := s.t.Context(), s.parts.store
	userID, cookie := addAccount(s, username), storage.NewToken()
	b := &signedInBrowser{testServer: s, cookies: "wxidp-login=" + cookie + "; wxidp-browser=" + storage.NewToken()}
	login, err := store.StartLogin(ctx, storage.LoginStart{
		Account: storage.Binding{UserID: userID}, Idle: time.Hour, Absolute: time.Hour,
		Session: storage.LoginSession{Token: sha256.Sum256([]byte(cookie)), AMR: []string{"pwd"}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	b.login = login.Session
	code := storage.Digest(sha256.Sum256([]byte(storage.NewToken())))
	if _, err = store.IssueCode(ctx, storage.CodeIssue{Code: code, Lifetime: time.Minute, Grant: storage.Grant{
		UserID: userID, UserEpoch: b.login.UserEpoch, ClientID: "logout-web", LoginID: b.login.ID, Scope: []string{"openid"}}}); err != nil {
		s.t.Fatal(err)
	}
	redeemed, err := store.Redeem(ctx, storage.Redemption{Code: code, ClientID: "logout-web", Idle: time.Hour, Absolute: time.Hour, Remember: time.Hour})
	if err != nil || redeemed.Verdict != storage.RedeemOK {
		s.t.Fatalf("%+v, %v", redeemed, err)
	}
	b.family = redeemed.Family
	idToken, err := json.Marshal(map[string]any{
		"iss": s.Issuer, "sub": userID, "aud": "logout-web", "sid": b.family.ID.String(), "iat": time.Now().Unix(), "exp": time.Now().Unix() - 1})
	if err != nil {
		s.t.Fatal(err)
	}
	if b.hint, err = s.parts.keys.Sign("ES256", "JWT", idToken); err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (b *signedInBrowser) send(method, path string, form url.Values, edits ...func(*http.Request)) answer {
	b.t.Helper()
	return b.Do(method, b.Issuer+path, form, append([]func(*http.Request){header("Cookie", b.cookies)}, edits...)...)
}

func (b *signedInBrowser) get(params ...string) answer {
	b.t.Helper()
	return b.send(http.MethodGet, "/oauth2/end_session?"+pairs(params...).Encode(), nil)
}

func (b *signedInBrowser) alive() bool {
	b.t.Helper()
	logins, _, err := b.parts.store.PageLogins(context.Background(), b.login.UserID, "", 0)
	if err != nil {
		b.t.Fatal(err)
	}
	return len(logins) > 0
}

// removesLogin reports whether an answer takes the login session's cookie away.
func removesLogin(out answer) bool {
	for _, cookie := range (&http.Response{Header: out.Header}).Cookies() {
		if cookie.Name == "wxidp-login" {
			return cookie.Value == "" && cookie.MaxAge < 0 && cookie.HttpOnly && cookie.SameSite == http.SameSiteLaxMode && cookie.Path == "/"
		}
	}
	return false
}

func TestLogoutByClient(t *testing.T) {
	t.Parallel()
	s, told := logoutServer(t)
	alice, bob := newSignedInBrowser(s, "alice"), newSignedInBrowser(s, "bob")
	state := `x&<>"'%\;=中`
	out := alice.get("id_token_hint", alice.hint, "post_logout_redirect_uri", "https://shop.example/", "state", state)
	target, err := url.Parse(out.Header.Get("Location"))
	if err != nil || out.Status != http.StatusSeeOther || !removesLogin(out) || out.Header.Get("Cache-Control") != "no-store" ||
		!strings.HasPrefix(target.String(), "https://shop.example/?state=") || target.Query().Get("state") != state || len(target.Query()) != 1 {
		t.Errorf("%v %v %v", out, out.Header, err)
	}
	if alice.alive() || !bob.alive() {
		t.Error("the wrong login session has ended")
	}
	select {
	case form := <-told:
		token := form.Get("logout_token")
		if got := claims(t, token); len(form) != 1 || got["sid"] != alice.family.ID.String() || got["sub"] != alice.login.UserID || got["aud"] != "logout-web" {
			t.Errorf("told %v", got)
		}
		if strings.Contains(s.Logs.String(), token) {
			t.Error("the log holds the logout token")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the client was not told")
	}
	eventually(t, "the metric counts it", func() bool {
		return s.metrics()[`wxidp_backchannel_logout_seconds_count{outcome="ok"}`] == 1
	})
	ended := s.Logs.Events("login.ended")
	if len(ended) != 1 || ended[0]["reason"] != "client" || ended[0]["sub"] != alice.login.UserID {
		t.Errorf("%v", ended)
	}
	if strings.Contains(s.Logs.String(), alice.hint) {
		t.Error("the log holds the ID Token")
	}
	select {
	case form := <-told:
		t.Errorf("told twice: %v", form)
	default:
	}
}

// TestThreat48LogoutForm: the question is answered by our own form in the same
// browser, and by nothing else.
func TestThreat48LogoutForm(t *testing.T) {
	t.Parallel()
	s, _ := logoutServer(t)
	alice := newSignedInBrowser(s, "alice")
	page := alice.get("client_id", "logout-web", "post_logout_redirect_uri", "https://shop.example/", "state", `"><script>`)
	if page.Status != http.StatusOK || !strings.Contains(string(page.Body), `id="sign-out"`) || removesLogin(page) ||
		!strings.Contains(string(page.Body), "Logout &amp; Co") || strings.Contains(string(page.Body), `"><script>`) {
		t.Fatalf("%v", page)
	}
	if policy := page.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "frame-ancestors 'none'") {
		t.Errorf("policy %q", policy)
	}
	form := url.Values{}
	for _, field := range regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`).FindAllStringSubmatch(string(page.Body), -1) {
		form.Set(html.UnescapeString(field[1]), html.UnescapeString(field[2]))
	}
	without := func(name string) url.Values {
		out := url.Values{}
		for field := range form {
			if field != name {
				out.Set(field, form.Get(field))
			}
		}
		return out
	}
	const confirm = "/oauth2/end_session/confirm"
	stranger := without("csrf")
	stranger.Set("csrf", strings.Repeat("A", 43))
	for name, out := range map[string]answer{
		"no token":         alice.send(http.MethodPost, confirm, without("csrf")),
		"foreign token":    alice.send(http.MethodPost, confirm, stranger),
		"foreign origin":   alice.send(http.MethodPost, confirm, form, header("Origin", "https://evil.example")),
		"foreign site":     alice.send(http.MethodPost, confirm, form, header("Sec-Fetch-Site", "cross-site")),
		"sibling site":     alice.send(http.MethodPost, confirm, form, header("Sec-Fetch-Site", "same-site")),
		"no cookies":       s.Do(http.MethodPost, s.Issuer+confirm, form),
		"another browser":  s.Do(http.MethodPost, s.Issuer+confirm, form, header("Cookie", "wxidp-browser="+storage.NewToken())),
		"the form by POST": alice.send(http.MethodPost, confirm+"?"+form.Encode(), url.Values{}),
	} {
		if out.Status != http.StatusForbidden || !alice.alive() {
			t.Fatalf("%s: %v", name, out)
		}
	}
	if out := alice.send(http.MethodGet, confirm+"?"+form.Encode(), nil); out.Status != http.StatusMethodNotAllowed || !alice.alive() {
		t.Errorf("the form by GET: %v", out)
	}
	out := alice.send(http.MethodPost, confirm, form, header("Origin", s.Issuer), header("Sec-Fetch-Site", "same-origin"))
	if out.Status != http.StatusSeeOther || out.Header.Get("Location") != "https://shop.example/?state=%22%3E%3Cscript%3E" || !removesLogin(out) || alice.alive() {
		t.Errorf("%v %v", out, out.Header)
	}
	if out := alice.get(); out.Status != http.StatusOK || !strings.Contains(string(out.Body), `id="signed-out"`) || !removesLogin(out) {
		t.Errorf("where nobody is signed in: %v", out)
	}
}

// TestLogoutMethods: a form that another site posts comes back by GET, where
// browsers send cookies along; HEAD ends nothing.
func TestLogoutMethods(t *testing.T) {
	t.Parallel()
	s, _ := logoutServer(t)
	alice := newSignedInBrowser(s, "alice")
	form := pairs("id_token_hint", alice.hint, "post_logout_redirect_uri", "https://shop.example/", "state", "a b&c")
	if out := alice.send(http.MethodHead, "/oauth2/end_session?"+form.Encode(), nil); out.Status != http.StatusMethodNotAllowed || !alice.alive() {
		t.Errorf("HEAD: %v", out)
	}
	posted := s.Do(http.MethodPost, s.Issuer+"/oauth2/end_session", form, header("Origin", "https://shop.example"), header("Sec-Fetch-Site", "cross-site"))
	location := posted.Header.Get("Location")
	if posted.Status != http.StatusSeeOther || !strings.HasPrefix(location, "/oauth2/end_session?") || !alice.alive() {
		t.Fatalf("POST: %v %v", posted, posted.Header)
	}
	for name, out := range map[string]answer{
		"a query, too":    s.Do(http.MethodPost, s.Issuer+"/oauth2/end_session?state=x", form),
		"too long":        s.Do(http.MethodPost, s.Issuer+"/oauth2/end_session", pairs("state", strings.Repeat("x", 13<<10))),
		"twice":           alice.send(http.MethodGet, location+"&state=x", nil),
		"another client":  alice.send(http.MethodGet, location+"&client_id="+testClient, nil),
		"not UTF-8":       alice.send(http.MethodGet, location+"&x=%ff", nil),
		"a broken escape": alice.send(http.MethodGet, location+"&x=%zz", nil),
	} {
		if out.Status != http.StatusBadRequest || !strings.Contains(string(out.Body), `id="error"`) || !alice.alive() {
			t.Errorf("%s: %v", name, out)
		}
	}
	out := alice.send(http.MethodGet, location, nil)
	if out.Status != http.StatusSeeOther || out.Header.Get("Location") != "https://shop.example/?state=a%20b%26c" || alice.alive() {
		t.Errorf("%v %v", out, out.Header)
	}
}
