package main

import (
	"net/http"
	"testing"
)

// TestBrowserSignIn signs somebody in by the browser of a confidential client,
// from the request to UserInfo and refresh.
func TestBrowserSignIn(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	id := user(s, addAccount(s, "bob")).ID
	b := newBrowser(s)
	params := shopWeb.request("scope", "openid profile offline_access", "prompt", "consent")
	v := b.authorize(params)
	asksFor(t, "a stranger", v, "signin")
	v = b.password(v, "bob", testPassword)
	asksFor(t, "the first time", v, "consent")
	v = b.submit(v, "/allow")
	got := v.callback()
	if v.Status != http.StatusSeeOther || got.Get("state") != params.Get("state") || got.Get("iss") != s.Issuer || len(got.Get("code")) < 22 || len(got) != 3 {
		t.Fatalf("response: %v", v)
	}
	out := shopWeb.redeem(s, got.Get("code"))
	if out.Status != http.StatusOK || out.str("token_type") != "Bearer" || out.Header.Get("Cache-Control") != "no-store" {
		t.Fatal(out)
	}
	token := verified(s, shopWeb, out.str("id_token"))
	if token["nonce"] != params.Get("nonce") || token["sub"] != id || token["acr"] != "urn:wxidp:acr:password" || token["sid"] == nil {
		t.Errorf("ID Token %v of %s", token, id)
	}
	info := s.UserInfo(out.str("access_token"))
	if info.Status != http.StatusOK || info.JSON["sub"] != id || info.str("nickname") != "account bob" {
		t.Errorf("UserInfo: %v", info)
	}
	again := shopWeb.refresh(s, out.str("refresh_token"))
	if again.Status != http.StatusOK {
		t.Fatalf("refresh: %v", again)
	}
	fresh := verified(s, shopWeb, again.str("id_token"))
	if fresh["auth_time"] != token["auth_time"] || fresh["sub"] != id || fresh["nonce"] != nil || fresh["sid"] != token["sid"] {
		t.Errorf("refreshed ID Token %v, first %v", fresh, token)
	}
}

// TestInteractionLeadsToOneAnswer: whoever goes back to the pages of a finished
// sign-in, or sends a form of them twice at once, gets no second code, least of
// all for declining.
func TestInteractionLeadsToOneAnswer(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	consent := func() visit {
		t.Helper()
		v := b.authorize(pairs("client_id", shopWeb.id, "request_uri", shopWeb.push(s, "prompt", "login consent").str("request_uri")))
		v = b.password(v, "alice", testPassword)
		asksFor(t, "prompt=consent", v, "consent")
		return v
	}
	v := consent()
	if got := b.submit(v, "/allow").callback(); !got.Has("code") {
		t.Fatal(got)
	}
	for _, button := range []string{"/allow", "/deny", "/switch"} {
		errorPage(t, button+" after a code", b.submit(v, button), http.StatusBadRequest)
	}
	errorPage(t, "the page after a code", b.open(v.URL.Path), http.StatusBadRequest)

	v = consent()
	if got := b.submit(v, "/deny").callback(); got.Get("error") != "access_denied" {
		t.Fatal(got)
	}
	errorPage(t, "/allow after declining", b.submit(v, "/allow"), http.StatusBadRequest)

	// Agreed in another window: to decline here is to decline.
	b.submit(b.open("/account"), "/revoke-consent", "id", shopWeb.id)
	declining := b.authorize(shopWeb.request())
	asksFor(t, "the first window", declining, "consent")
	b.tokens(shopWeb, "alice")
	if got := b.submit(declining, "/deny").callback(); got.Get("error") != "access_denied" || got.Has("code") {
		t.Errorf("declined where the other window had agreed: %v", got)
	}

	v = consent()
	form, _ := v.form("/allow")
	oneCode(t, "pressing a button", 10, func() (answer, error) {
		return b.tryTrip(http.MethodPost, s.Issuer+form.action, form.fields)
	})
}

// TestHEADUsesNothingUp: looking at an address issues no code.
func TestHEADUsesNothingUp(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	b.tokens(shopWeb, "alice")
	params := pairs("client_id", shopWeb.id, "request_uri", shopWeb.push(s).str("request_uri"))
	if out := b.trip(http.MethodHead, s.Issuer+"/oauth2/authorize?"+params.Encode(), nil); out.Status != http.StatusMethodNotAllowed {
		t.Errorf("HEAD: %d", out.Status)
	}
	if v := b.authorize(params); !v.callback().Has("code") {
		t.Errorf("after HEAD: %v", v)
	}
}
