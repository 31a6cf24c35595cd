package main

import (
	"context"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	webClientKey = "canary-web-Hs83kQmZ0vNf5tYbL7wXc2RpD9uJ"
	webPassword  = "correct horse battery staple"
	webReturn    = "http://127.0.0.1:3000/callback" // nobody listens there
)

// webPerson is a person with a browser, who does what wxidp's pages ask for.
type webPerson struct {
	t        testing.TB
	browser  *http.Client
	username string
}

// newWebPerson makes an account and a person who has it.
func newWebPerson(s *testServer, username string) *webPerson {
	s.t.Helper()
	if code, _, stderr := runCLIWith(s.t, webPassword+"\n", "users", "add", "--username", username, "--socket", s.Socket()); code != 0 {
		s.t.Fatal(stderr)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &webPerson{t: s.t, username: username, browser: &http.Client{
		Timeout: 20 * time.Second, Jar: jar,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 10 || strings.HasPrefix(r.URL.String(), webReturn) {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}}
}

// page reads an answer; left is the way to the client, nil while there is none.
func (p *webPerson) page(resp *http.Response, err error) (at *url.URL, text string, left *url.URL) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if left, err := resp.Location(); err == nil {
		return nil, "", left
	}
	return resp.Request.URL, string(raw), nil
}

// open goes to a page and returns its fields, to be posted from there.
func (p *webPerson) open(target string) (fields url.Values) {
	p.t.Helper()
	_, text, _ := p.page(p.browser.Get(target))
	return pairs("csrf", csrfOf(p.t, text))
}

func csrfOf(t testing.TB, text string) string {
	t.Helper()
	found := regexp.MustCompile(`name="csrf" value="([^"]*)"`).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("no form in %.3000s", text)
	}
	return html.UnescapeString(found[1])
}

// authorize follows an authorization request, signing in and allowing where
// that is asked, and returns the parameters of the answer.
func (p *webPerson) authorize(target string) url.Values {
	p.t.Helper()
	at, text, left := p.page(p.browser.Get(target))
	for range 3 {
		if left != nil {
			break
		}
		form, button := pairs("csrf", csrfOf(p.t, text)), "/allow"
		if strings.Contains(text, `id="password"`) {
			form.Set("username", p.username)
			form.Set("password", webPassword)
			button = "/password"
		}
		at, text, left = p.page(p.browser.PostForm(at.String()+button, form))
	}
	if left == nil || !strings.HasPrefix(left.String(), webReturn) {
		p.t.Fatalf("the answer does not come to the client: %v, %v: %.3000s", left, at, text)
	}
	return left.Query()
}

// startWebClients starts a server with clients that sign people in by
// browsers; logoutURI is shop-web's.
func startWebClients(t testing.TB, logoutURI string) *testServer {
	t.Helper()
	client := func(id, method string) string {
		return "  - client_id: " + id + "\n    type: confidential\n    client_secret: " + webClientKey +
			"\n    token_endpoint_auth_method: " + method + `
    grant_types: [authorization_code, refresh_token]
    redirect_uris: ["` + webReturn + `"]
    backchannel_logout_uri: ` + logoutURI + `
    scopes: [openid, profile]
`
	}
	return startServer(t,
		replacing("\nclients:\n", "\nbackchannel_logout: { allowed_networks: [127.0.0.1/32] }\nclients:\n",
			"external_id, orders.read]", "external_id, orders.read, device.approve]"),
		appending(client("shop-web", "client_secret_basic")+client("shop-post", "client_secret_post")+`
  - client_id: shop-tv
    type: public
    grant_types: ["urn:ietf:params:oauth:grant-type:device_code", refresh_token]
    scopes: [openid, profile]
`))
}

// webConfig is what an application that knows the issuer, its client id and
// its secret makes of them.
func webConfig(provider *oidc.Provider, clientID string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: clientID, ClientSecret: webClientKey, Endpoint: provider.Endpoint(), RedirectURL: webReturn,
		Scopes: []string{oidc.ScopeOpenID, "profile", "email"},
	}
}

// signInByGoOIDC is the way of go-oidc's own example, with PKCE.
func signInByGoOIDC(ctx context.Context, t testing.TB, person *webPerson, config *oauth2.Config, verifier *oidc.IDTokenVerifier) (*oauth2.Token, *oidc.IDToken) {
	t.Helper()
	state, nonce, secret := oauth2.GenerateVerifier(), oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	answer := person.authorize(config.AuthCodeURL(state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(secret)))
	if answer.Get("state") != state || answer.Get("error") != "" {
		t.Fatalf("answer %v", answer)
	}
	token, err := config.Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(secret))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := token.Extra("id_token").(string)
	idToken, err := verifier.Verify(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	if idToken.Nonce != nonce {
		t.Errorf("nonce %q", idToken.Nonce)
	}
	if err := idToken.VerifyAccessToken(token.AccessToken); err != nil {
		t.Error(err)
	}
	return token, idToken
}

// TestWebSignInByGoOIDC: a Go application signs people in with go-oidc and
// x/oauth2, which learn everything by discovery, and is told of the logout.
func TestWebSignInByGoOIDC(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tokens := make(chan string, 8)
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { tokens <- r.PostFormValue("logout_token") }))
	defer app.Close()
	s := startWebClients(t, app.URL+"/logout")
	provider, err := oidc.NewProvider(ctx, s.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	for _, clientID := range []string{"shop-web", "shop-post"} {
		person := newWebPerson(s, "alice-of-"+clientID)
		config, verifier := webConfig(provider, clientID), provider.Verifier(&oidc.Config{ClientID: clientID})
		token, idToken := signInByGoOIDC(ctx, t, person, config, verifier)
		if scope, _ := token.Extra("scope").(string); scope != "openid profile" {
			t.Errorf("%s: scope %q", clientID, scope)
		}

		info, err := provider.UserInfo(ctx, config.TokenSource(ctx, token))
		if err != nil || info.Subject != idToken.Subject {
			t.Errorf("%s: UserInfo %v, %v", clientID, info, err)
		}
		expired := *token
		expired.Expiry = time.Now().Add(-time.Minute)
		refreshed, err := config.TokenSource(ctx, &expired).Token()
		if err != nil {
			t.Fatal(err)
		}
		if refreshed.RefreshToken == token.RefreshToken || refreshed.AccessToken == token.AccessToken {
			t.Errorf("%s: the refresh has changed nothing", clientID)
		}
		raw, _ := refreshed.Extra("id_token").(string)
		if again, err := verifier.Verify(ctx, raw); err != nil || again.Subject != idToken.Subject {
			t.Errorf("%s: ID Token of the refresh: %v, %v", clientID, again, err)
		}

		person.page(person.browser.PostForm(s.Issuer+"/account/sign-out", person.open(s.Issuer+"/account")))
		select {
		case raw = <-tokens:
		case <-ctx.Done():
			t.Fatalf("%s: no logout token; log: %s", clientID, s.Logs)
		}
		logout, err := verifier.VerifyLogout(ctx, raw)
		if err != nil {
			t.Fatal(err)
		}
		var session struct {
			ID string `json:"sid"`
		}
		if err := idToken.Claims(&session); err != nil {
			t.Fatal(err)
		}
		if logout.Subject != idToken.Subject || logout.SessionID != session.ID || session.ID == "" {
			t.Errorf("%s: logout token %+v", clientID, logout)
		}
		if _, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: refreshed.RefreshToken}).Token(); err == nil {
			t.Errorf("%s: a refresh works after the logout", clientID)
		}
	}
}

// TestThreat22ScopesThatAreIgnored: email and address, which libraries ask for
// by themselves, are ignored next to others and grant nothing; all else that a
// client may not have is refused.
func TestThreat22ScopesThatAreIgnored(t *testing.T) {
	t.Parallel()
	s := startWebClients(t, "http://127.0.0.1:1/logout")
	person := newWebPerson(s, "alice")
	verifier := oauth2.GenerateVerifier()
	for _, row := range []struct{ asked, granted string }{
		{"openid email", "openid"}, {"address openid profile email", "openid profile"},
		{"email", ""}, {"address email", ""}, {"openid phone", ""}, {"openid email wechat.data", ""}, {"openid Email", ""},
	} {
		answer := person.authorize(s.Issuer + "/oauth2/authorize?" + pairs("client_id", "shop-web", "response_type", "code",
			"redirect_uri", webReturn, "scope", row.asked, "code_challenge", oauth2.S256ChallengeFromVerifier(verifier),
			"code_challenge_method", "S256").Encode())
		if row.granted == "" {
			if answer.Get("error") != "invalid_scope" || answer.Get("code") != "" {
				t.Errorf("%q: %v", row.asked, answer)
			}
			continue
		}
		out := s.Token(pairs("grant_type", "authorization_code", "code", answer.Get("code"), "redirect_uri", webReturn,
			"code_verifier", verifier), basic("shop-web", webClientKey))
		if out.Status != http.StatusOK || out.str("scope") != row.granted || claims(t, out.str("access_token"))["scope"] != row.granted {
			t.Errorf("%q: %v", row.asked, out)
		}
	}
}

// TestDeviceSignInByXOAuth2: a device gets its tokens with x/oauth2 after a
// mini-program's user has approved it.
func TestDeviceSignInByXOAuth2(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := startWebClients(t, "http://127.0.0.1:1/logout")
	provider, err := oidc.NewProvider(ctx, s.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	config := &oauth2.Config{ClientID: "shop-tv", Endpoint: provider.Endpoint(), Scopes: []string{oidc.ScopeOpenID, "profile"}}
	device, err := config.DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	phone := s.Token(signInForm(s.Code(testAppID, "alice"), "scope", "openid device.approve"))
	ask := func(path string, more ...string) answer {
		return s.Do(http.MethodPost, s.Issuer+path, pairs(append([]string{"ticket", device.VerificationURIComplete}, more...)...),
			bearer(phone.str("access_token")))
	}
	choices, _ := ask("/device/context").JSON["choices"].([]any)
	number := ""
	for _, choice := range choices {
		if choice, _ := choice.(string); strings.HasSuffix(device.UserCode, choice) {
			number = choice
		}
	}
	if out := ask("/device/approve", "number", number); out.Status != http.StatusOK {
		t.Fatalf("approving by %q of %v: %v", number, choices, out)
	}
	token, err := config.DeviceAccessToken(ctx, device)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := token.Extra("id_token").(string)
	idToken, err := provider.Verifier(&oidc.Config{ClientID: "shop-tv"}).Verify(ctx, raw)
	if err != nil || idToken.Subject != sub(t, phone) {
		t.Errorf("ID Token %v, %v", idToken, err)
	}
	if refreshed, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: token.RefreshToken}).Token(); err != nil || refreshed.RefreshToken == "" {
		t.Errorf("refresh: %v", err)
	}
}
