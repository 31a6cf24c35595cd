package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/storage"
)

// runCLIWith runs the command line in this process with something on standard
// input.
func runCLIWith(t testing.TB, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	if err := root.ExecuteContext(ctx); err != nil {
		printError(&errs, err)
		code = 1
	}
	return code, out.String(), errs.String()
}

// ctl runs a command against a server that must succeed, and returns what it
// printed.
func ctl(s *testServer, args ...string) string {
	s.t.Helper()
	code, out, errs := runCLIWith(s.t, "", append(args, "--socket", s.Socket())...)
	if code != 0 {
		s.t.Fatalf("wxidp %v: code %d: %s%s", args, code, out, errs)
	}
	return out
}

// ctlFails runs a command against a server that must fail, saying want.
func ctlFails(s *testServer, want string, args ...string) (stdout, stderr string) {
	s.t.Helper()
	code, out, errs := runCLIWith(s.t, "", append(args, "--socket", s.Socket())...)
	if code != 1 || !strings.Contains(errs, want) {
		s.t.Errorf("wxidp %v: code %d, want 1 and %q: %s%s", args, code, want, out, errs)
	}
	return out, errs
}

// shown returns what `users show` says of a user, with values in full.
func shown(s *testServer, who string) (p accounts.Person) {
	s.t.Helper()
	decode(s.t, ctl(s, "users", "show", who, "--reveal", "--json"), &p)
	return p
}

func decode(t testing.TB, text string, to any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), to); err != nil {
		t.Fatalf("%v in %.500s", err, text)
	}
}

// dead fails unless a sign-in has ended at each place where that shows.
func dead(s *testServer, what string, tokens answer) {
	s.t.Helper()
	refused(s.t, refresh(s, tokens.str("refresh_token")), http.StatusBadRequest, "invalid_grant")
	if out := introspect(s, tokens.str("access_token"), basic(testBackend, testBackendKey)); out.Status != http.StatusOK || out.JSON["active"] != false {
		s.t.Errorf("%s: introspection says %v", what, out)
	}
	if userInfoOK(s, tokens.str("access_token")) {
		s.t.Errorf("%s: UserInfo accepts the access token", what)
	}
}

// signedIn fails unless an access token is good.
func signedIn(s *testServer, what string, tokens answer) {
	s.t.Helper()
	if !userInfoOK(s, tokens.str("access_token")) {
		s.t.Errorf("%s: UserInfo refuses the access token", what)
	}
}

// noneOf fails where a text holds one of the values.
func noneOf(t testing.TB, where, text string, values ...string) {
	t.Helper()
	for _, value := range values {
		if value != "" && strings.Contains(text, value) {
			t.Errorf("%s holds %q", where, value)
		}
	}
}

// fullUser makes a user who has everything that a user can have, and returns
// the tokens of two sign-ins and all personal values.
func fullUser(s *testServer) (id string, tokens [2]answer, personal []string) {
	s.t.Helper()
	store, ctx := s.parts.store, context.Background()
	tokens[0] = phoneSignIn(s, "canary-alice", phoneCode(s, testAppID, "canary-alice"), "scope", "openid profile phone wechat")
	id = sub(s.t, tokens[0])
	account, err := store.CreateAccount(ctx, storage.NewAccount{Username: "canary-username-55", PasswordHash: canaryHash, ExternalID: "canary-external-66"})
	if err != nil {
		s.t.Fatal(err)
	}
	if merged, err := store.Merge(ctx, account.UserID, id, false); err != nil || merged.Verdict != storage.MergeOK {
		s.t.Fatal(merged, err)
	}
	nickname, picture := "canary-nickname-77", "https://example.com/canary-88.png"
	if _, err := store.UpdateProfile(ctx, id, storage.ProfileChange{Nickname: &nickname, Picture: &picture}); err != nil {
		s.t.Fatal(err)
	}
	tokens[1] = signIn(s, "canary-alice")
	return id, tokens, []string{
		"canary-username-55", "canary-external-66", nickname, picture, number(s, "canary-alice"),
		s.Sim.OpenID(testAppID, "canary-alice"), s.Sim.UnionID("main", "canary-alice"),
	}
}

// canaryHash is bcrypt's of some password.
const canaryHash = "$2a$04$CANARYCANARYCANARYCANAuVUNBC0nVZWmw0X9gH3T5i9FZmpTIHe"
