package main

import (
	"net/http"
	"slices"
	"testing"

	"github.com/wxidp/wxidp/provider"
)

// TestAllowIsForWhatWasShown: a consent page that the configuration has
// overtaken is shown anew, and what was not on it is not agreed to.
func TestAllowIsForWhatWasShown(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	set := func(change func(*provider.Client)) {
		t.Helper()
		settings := providerSettings(s.parts.config.Load())
		i := slices.IndexFunc(settings.Clients, func(c provider.Client) bool { return c.ID == shopWeb.id })
		change(&settings.Clients[i])
		if err := s.parts.provider.Reload(settings); err != nil {
			t.Fatal(err)
		}
	}
	set(func(c *provider.Client) { c.DefaultScopes = []string{"openid"} })
	b := newBrowser(s)
	v := b.password(b.authorize(shopWeb.request("scope", "")), "alice", testPassword)
	asksFor(t, "the page", v, "consent")
	set(func(c *provider.Client) { c.DefaultScopes = []string{"openid", "profile", "offline_access"} })
	again := b.submit(v, "/allow")
	asksFor(t, "after a reload", again, "consent")
	if got := b.submit(again, "/allow").callback(); !got.Has("code") {
		t.Errorf("what is shown now: %v", got)
	}
}

// TestFormsThatDecideNothing go on working when the person has signed in with
// another page meanwhile.
func TestFormsThatDecideNothing(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	device := b.open("/device")
	signIn := b.authorize(shopWeb.request())
	b.tokens(shopWeb, "alice")
	if out := b.submit(device, "/device", "user_code", "BBBB-BBBB"); out.Status == http.StatusForbidden {
		t.Errorf("the code of a device: %v", out)
	}
	if out := b.password(signIn, "alice", testPassword); !out.callback().Has("code") {
		t.Errorf("an earlier sign-in page: %v", out)
	}
}
