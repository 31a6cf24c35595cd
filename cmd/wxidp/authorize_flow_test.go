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
