package main

import (
	"net/http"
	"testing"
)

// TestThreat44Revocation: a refresh token takes its whole family along, an
// access token only itself.
func TestThreat44Revocation(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	first := signIn(s, "alice")
	second := refresh(s, first.str("refresh_token"))
	other := signIn(s, "alice")

	out := revoke(s, first.str("access_token"))
	if out.Status != 200 || len(out.Body) != 0 || out.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("revocation: %v %v", out, out.Header)
	}
	if userInfoOK(s, first.str("access_token")) || s.Active(first.str("access_token")) {
		t.Error("a revoked access token is active")
	}
	if !userInfoOK(s, second.str("access_token")) || !s.Active(second.str("access_token")) {
		t.Error("revoking one access token took another along")
	}
	third := refresh(s, second.str("refresh_token"))
	if third.Status != 200 {
		t.Fatalf("revoking an access token ended the sign-in: %v", third)
	}

	// The hint is only a hint.
	out = s.Do(http.MethodPost, s.Issuer+"/oauth2/revoke", pairs("client_id", testClient, "token", third.str("refresh_token"), "token_type_hint", "access_token"), phone())
	if out.Status != 200 {
		t.Errorf("revocation: %v", out)
	}
	for _, token := range []string{first.str("access_token"), second.str("access_token"), third.str("access_token")} {
		if userInfoOK(s, token) || s.Active(token) {
			t.Error("an access token of a revoked family is active")
		}
	}
	for _, token := range []string{second.str("refresh_token"), third.str("refresh_token")} {
		refused(t, refresh(s, token), 400, "invalid_grant")
	}
	if !userInfoOK(s, other.str("access_token")) || refresh(s, other.str("refresh_token")).Status != 200 {
		t.Error("another sign-in of the user ended too")
	}
	if len(s.Logs.Events("token.reuse_detected")) != 0 {
		t.Error("a revoked token was taken for a stolen one")
	}
	lines := s.Logs.Events("token.revoked")
	if len(lines) != 2 || lines[0]["kind"] != "access_token" || lines[1]["kind"] != "refresh_token" || lines[1]["sub"] != subject(t, first) {
		t.Errorf("log: %v", lines)
	}

	// Twice is as good as once, and an old token of the family ends it too.
	if out := revoke(s, third.str("refresh_token")); out.Status != 200 {
		t.Errorf("a second revocation: %v", out)
	}
	old := signIn(s, "alice")
	next := refresh(s, refresh(s, old.str("refresh_token")).str("refresh_token"))
	if out := revoke(s, old.str("refresh_token")); out.Status != 200 || userInfoOK(s, next.str("access_token")) {
		t.Errorf("revoking by an old refresh token: %v", out)
	}
}

// TestThreat42ForeignToken: another client's token is left as it is.
func TestThreat42ForeignToken(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	mine := signIn(s, "alice")
	as := func(client string, token string, edits ...func(*http.Request)) answer {
		form := pairs("token", token)
		if client != "" {
			form.Set("client_id", client)
		}
		return s.Do(http.MethodPost, s.Issuer+"/oauth2/revoke", form, append(edits, phone())...)
	}
	for _, token := range []string{mine.str("access_token"), mine.str("refresh_token")} {
		for name, out := range map[string]answer{
			"public":       as("shop-mini-2", token),
			"confidential": as("", token, basic(testBackend, testBackendKey)),
		} {
			if out.Status != 200 || len(out.Body) != 0 {
				t.Errorf("%s: %v", name, out)
			}
			if line := eventOf(s, out, "revoke.denied"); line["owner"] != testClient {
				t.Errorf("log line %v", line)
			}
		}
	}
	if !userInfoOK(s, mine.str("access_token")) || refresh(s, mine.str("refresh_token")).Status != 200 {
		t.Error("another client revoked a token")
	}

	// Nobody, or a client without its secret, revokes nothing.
	machine := machineToken(s, pairs(), basic(testBackend, testBackendKey)).str("access_token")
	refused(t, as("", machine), 401, "invalid_client")
	refused(t, as(testBackend, machine), 401, "invalid_client")
	refused(t, as("", machine, basic(testBackend, "wrong")), 401, "invalid_client")
	refused(t, as("", machine, bearer(machine)), 401, "invalid_client")
	if !s.Active(machine) {
		t.Error("revoked without authentication")
	}
	if out := as("", machine, basic(testBackend, testBackendKey)); out.Status != 200 || s.Active(machine) {
		t.Errorf("a client's own token: %v", out)
	}

	for _, form := range []map[string][]string{{"client_id": {testClient}}, {"client_id": {testClient}, "token": {""}}} {
		refused(t, s.Do(http.MethodPost, s.Issuer+"/oauth2/revoke", form, phone()), 400, "invalid_request")
	}
	for _, token := range []string{"unknown", "wxrt_unknown", mine.str("id_token"), "a.b.c"} {
		if out := as(testClient, token); out.Status != 200 {
			t.Errorf("token %.20q: %v", token, out)
		}
	}
}
