package main

import (
	"strings"
	"testing"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/provider"
)

// TestPairwiseSubjects: a client with a sector sees a sub of its own wherever
// it sees one, and all that is about the user works as ever.
func TestPairwiseSubjects(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	public := signIn(s, "alice")
	user := sub(t, public)
	resettle(s, func(settings *provider.Settings) {
		settings.PairwiseSalt = secret.New("canary-pairwise-salt-0123456789abcdef")
		clientOf(settings, testClient).Sector = "shop.example"
	})
	if userInfoOK(s, public.str("access_token")) || s.Active(public.str("access_token")) {
		t.Error("an access token with the public sub is active still")
	}
	out := refresh(s, public.str("refresh_token"))
	if out.Status != 200 {
		t.Fatalf("%v", out)
	}
	own := sub(t, out)
	if len(own) != 43 || own == user {
		t.Errorf("sub %q", own)
	}
	token := out.str("access_token")
	for what, got := range map[string]any{
		"access token":  claims(t, token)["sub"],
		"UserInfo":      s.UserInfo(token).str("sub"),
		"introspection": s.Introspect(token).str("sub"),
		"sign-in":       sub(t, signIn(s, "alice")),
	} {
		if got != own {
			t.Errorf("%s: sub %v, want %s", what, got, own)
		}
	}
	if other := sub(t, signIn(s, "bob")); other == own || len(other) != 43 {
		t.Errorf("bob is %q", other)
	}

	changed := s.Do("PATCH", s.Issuer+"/account", pairs(), jsonBody(`{"nickname":"小明"}`), bearer(token), phone())
	if changed.Status != 200 || changed.str("sub") != own || changed.str("nickname") != "小明" || s.UserInfo(token).str("name") != "小明" {
		t.Errorf("PATCH /account: %v", changed)
	}
	refused(t, unbind(s, token, "js_code", s.Code(testAppID, "bob")), 400, "invalid_grant") // another user's
	refused(t, unbind(s, token, "js_code", s.Code(testAppID, "alice")), 409, "last_way_in")
	if machine := s.Token(pairs("grant_type", "client_credentials"), basic(testBackend, testBackendKey), phone()); claims(t, machine.str("access_token"))["sub"] != testBackend {
		t.Errorf("a client's own token: %v", machine)
	}
	if out := revoke(s, token); out.Status != 200 || s.Active(token) {
		t.Errorf("revocation: %v", out)
	}

	// The log knows users by their ids alone.
	for _, event := range []string{"token.issued", "account.changed", "token.revoked"} {
		lines := s.Logs.Events(event)
		if len(lines) == 0 {
			t.Errorf("no %s", event)
		}
		for _, line := range lines {
			if id, _ := line["sub"].(string); len(id) == 43 {
				t.Errorf("%s names %s", event, id)
			}
		}
	}
	if revoked := s.Logs.Events("token.revoked"); revoked[0]["sub"] != user {
		t.Errorf("%v", revoked)
	}
	if log := s.Logs.String(); strings.Contains(log, own) || strings.Contains(log, "canary-pairwise") {
		t.Error("the log holds a pairwise sub or the salt")
	}
}
