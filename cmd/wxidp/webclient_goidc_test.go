package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	webClientKey = "canary-web-Hs83kQmZ0vNf5tYbL7wXc2RpD9uJ"
	webReturn    = "http://127.0.0.1:3000/callback" // nobody listens there
)

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
	return startServer(t, manyPhones(),
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
func signInByGoOIDC(ctx context.Context, t testing.TB, b *browser, username string, config *oauth2.Config, verifier *oidc.IDTokenVerifier) (*oauth2.Token, *oidc.IDToken) {
	t.Helper()
	state, nonce, secret := oauth2.GenerateVerifier(), oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	page := b.send(http.MethodGet, config.AuthCodeURL(state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(secret)), nil)
	answer := b.through(page, username).callback()
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
		b, username := newBrowser(s), "alice-of-"+clientID
		addAccount(s, username)
		config, verifier := webConfig(provider, clientID), provider.Verifier(&oidc.Config{ClientID: clientID})
		token, idToken := signInByGoOIDC(ctx, t, b, username, config, verifier)
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

		b.submit(b.open("/account"), "/sign-out")
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
	b := newBrowser(s)
	addAccount(s, "alice")
	verifier := oauth2.GenerateVerifier()
	for _, row := range []struct{ asked, granted string }{
		{"openid email", "openid"}, {"address openid profile email", "openid profile"},
		{"email", ""}, {"address email", ""}, {"openid phone", ""}, {"openid email wechat.data", ""}, {"openid Email", ""},
	} {
		answer := b.through(b.authorize(pairs("client_id", "shop-web", "response_type", "code", "redirect_uri", webReturn,
			"scope", row.asked, "code_challenge", oauth2.S256ChallengeFromVerifier(verifier), "code_challenge_method", "S256")), "alice").callback()
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
