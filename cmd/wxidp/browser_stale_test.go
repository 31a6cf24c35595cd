package main

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestThreat23StalePrincipalAtTheBrowser: when a user is disabled or gets
// another password, browsers, codes and tokens end.
func TestThreat23StalePrincipalAtTheBrowser(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	for name, end := range map[string]func(id string){
		"disabled": func(id string) {
			if err := s.parts.store.SetUserDisabled(context.Background(), id, true); err != nil {
				t.Fatal(err)
			}
		},
		"password": func(string) {
			if code, out, errs := runCLIWith(t, "another-password-99\n", "users", "set-password", "username:password", "--socket", s.Socket()); code != 0 {
				t.Fatal(out, errs)
			}
		},
		"erased": func(id string) { ctl(s, "users", "erase", id, "--yes") },
		"signed out everywhere": func(string) {
			b := newBrowser(s)
			b.tokens(shopSPA, "signed out everywhere")
			b.submit(b.open("/account"), "/sign-out-everywhere")
		},
	} {
		id := addAccount(s, name)
		b := newBrowser(s)
		tokens := b.tokens(shopSPA, name, "scope", "openid offline_access")
		code := b.code(shopSPA, name)
		selecting := b.authorize(shopSPA.request("prompt", "select_account"))
		consenting := b.authorize(shopWeb.request())
		asksFor(t, name, consenting, "consent")
		end(id)
		out := shopSPA.redeem(s, code)
		refused(t, out, http.StatusBadRequest, "invalid_grant")
		refused(t, shopSPA.refresh(s, tokens.str("refresh_token")), http.StatusBadRequest, "invalid_grant")
		if userInfoOK(s, tokens.str("access_token")) {
			t.Errorf("%s: the access token is alive", name)
		}
		params := shopSPA.request("prompt", "none")
		toldClient(t, name, b.authorize(params), shopSPA, params, "login_required")
		asksFor(t, name+": allowing", b.submit(consenting, "/allow"), "signin")
		asksFor(t, name+": going on", b.submit(selecting, "/continue"), "signin")
		asksFor(t, name+": the account page", b.open("/account"), "signin")
	}
}

// TestReloadDuringInteraction: what a client may not any more, it does not get
// because somebody was already at a page.
func TestReloadDuringInteraction(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	b.tokens(shopSPA, "alice")
	atRedirect := b.authorize(shopWeb.request())
	params := shopWeb.request("scope", "openid phone")
	atScope := b.authorize(params)
	atClient := b.authorize(otherWeb.request())
	code := b.code(shopSPA, "alice")
	silent := b.tokens(shopSPA, "alice")
	start := s.Config()
	reload(s, "scopes: [openid, profile, phone, offline_access, orders.read]", "scopes: [openid, profile, offline_access, orders.read]")
	toldClient(t, "a scope that is gone", b.submit(atScope, "/allow"), shopWeb, params, "invalid_scope")
	reload(s, "redirect_uris: [https://shop.example/callback, ", "redirect_uris: [https://shop.example/new, ",
		"  - client_id: other-web\n", "  - client_id: renamed-web\n", "  - client_id: shop-spa\n", "  - client_id: renamed-spa\n")
	errorPage(t, "a redirect_uri that is gone", b.submit(atRedirect, "/allow"), http.StatusBadRequest)
	errorPage(t, "a client that is gone", b.submit(atClient, "/allow"), http.StatusBadRequest)
	errorPage(t, "the page of a client that is gone", b.open(atClient.URL.Path), http.StatusBadRequest)
	refused(t, shopSPA.redeem(s, code), http.StatusUnauthorized, "invalid_client")
	if userInfoOK(s, silent.str("access_token")) {
		t.Error("a token of a client that is gone is good")
	}
	before := len(s.Logs.Events("config.applied"))
	s.WriteConfig(start)
	eventually(t, "reload", func() bool { return len(s.Logs.Events("config.applied")) > before })
	if v := b.submit(atClient, "/allow"); !v.callback().Has("code") {
		t.Errorf("the client is back: %v", v)
	}
}

// TestThreat52EnumerationByTime: on a clock that stands still while the server
// works, wrong credentials of every kind take the same time.
func TestThreat52EnumerationByTime(t *testing.T) {
	bubbled(t, func(s *testServer, newBrowser func() *browser) {
		disabled := addAccount(s, "disabled")
		if err := s.parts.store.SetUserDisabled(context.Background(), disabled, true); err != nil {
			s.t.Fatal(err)
		}
		b := newBrowser()
		v := b.authorize(shopWeb.request())
		took := map[time.Duration][]string{}
		for _, test := range [][2]string{{"nobody", "wrong"}, {"alice", "wrong"}, {"disabled", testPassword}, {"disabled", "wrong"}, {"nobody", testPassword}} {
			start := time.Now()
			if out := b.password(v, test[0], test[1]); out.Status != http.StatusBadRequest {
				s.t.Fatal(out)
			}
			elapsed := time.Since(start)
			took[elapsed] = append(took[elapsed], strings.Join(test[:], "/"))
		}
		if len(took) != 1 {
			s.t.Errorf("by time: %v", took)
		}
	})
}
