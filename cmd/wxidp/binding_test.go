package main

import (
	"context"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/wxidp/wxidp/storage"
)

// TestBinding: username and password bind a WeChat user to the account in one
// request; from then on sign-ins are silent.
func TestBinding(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	account := addAccount(s, "Ming")
	bare := signIn(s, "ming")
	bareID := sub(t, bare)

	out := tryBind(s, "ming", " MING ", testPassword, "scope", "openid profile")
	if got := sub(t, out); got != account {
		t.Fatalf("bound to %s, want %s", got, account)
	}
	if amr := claims(t, out.str("id_token"))["amr"]; len(list(amr)) != 2 || list(amr)[1] != "pwd" {
		t.Errorf("amr %v", amr)
	}
	if got := sub(t, signIn(s, "ming")); got != account {
		t.Errorf("the silent sign-in after it: %s", got)
	}
	// The bare user of the first sign-in is no more.
	refused(t, refresh(s, bare.str("refresh_token")), http.StatusBadRequest, "invalid_grant")
	if userInfoOK(s, bare.str("access_token")) || s.Active(bare.str("access_token")) {
		t.Error("the bare user's access token is alive")
	}
	if !user(s, bareID).Retired {
		t.Error("the bare user is not retired")
	}
	if events := s.Logs.Events("identity.bound"); len(events) != 1 || events[0]["sub"] != account {
		t.Errorf("events %v", events)
	}
	// Binding again to the same account is no conflict.
	if got := sub(t, tryBind(s, "ming", "ming", testPassword)); got != account {
		t.Errorf("binding again: %s", got)
	}
}

// TestThreat72BindingProofs: js_code first, then the password; both in one
// request; none of it is usable twice or by halves.
func TestThreat72BindingProofs(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	addAccount(s, "ming")
	for name, row := range map[string]struct{ username, password string }{
		"no password": {"ming", ""}, "no username": {"", testPassword},
		"too long": {"ming", strings.Repeat("p", 129)}, "control character": {"mi\x00ng", testPassword},
	} {
		code := s.Code(testAppID, "mallory")
		before := weChatCalls(s, "/sns/jscode2session")
		form := signInForm(code)
		if row.username != "" {
			form.Set("username", row.username)
		}
		if row.password != "" {
			form.Set("password", row.password)
		}
		refused(t, s.Token(form, phone()), http.StatusBadRequest, "invalid_request")
		if weChatCalls(s, "/sns/jscode2session") != before {
			t.Errorf("%s: the js_code was spent", name)
		}
	}
	// A bad js_code never leads to the password, so that guessing costs codes.
	hashes := s.parts.passwords.Passwords.Stats().Hashes
	refused(t, s.Token(signInForm("no-such-code", "username", "ming", "password", testPassword), phone()), http.StatusBadRequest, "invalid_grant")
	if s.parts.passwords.Passwords.Stats().Hashes != hashes {
		t.Error("the password was looked at")
	}
	// A wrong password spends the code and binds nothing.
	code := s.Code(testAppID, "ming")
	refused(t, s.Token(signInForm(code, "username", "ming", "password", "wrong"), phone()), http.StatusBadRequest, "invalid_grant")
	refused(t, s.Token(signInForm(code, "username", "ming", "password", testPassword), phone()), http.StatusBadRequest, "invalid_grant")
	if n := countUsers(s); n != 1 {
		t.Errorf("%d users", n)
	}
	refused(t, s.Token(pairs("grant_type", "wechat_phone", "client_id", testClient, "js_code", s.Code(testAppID, "ming"),
		"phone_code", phoneCode(s, testAppID, "ming"), "username", "ming", "password", testPassword), phone()), http.StatusBadRequest, "invalid_request")
}

// TestThreat72AlreadyBound: nobody is told to whom.
func TestThreat72AlreadyBound(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	ming, hong := addAccount(s, "ming"), addAccount(s, "hong")
	sub(t, tryBind(s, "ming", "ming", testPassword))
	sub(t, tryBind(s, "hong", "hong", testPassword))

	taken := tryBind(s, "eve", "ming", testPassword) // a second WeChat user of the same app
	refused(t, taken, http.StatusConflict, "already_bound")
	foreign := tryBind(s, "hong", "ming", testPassword)
	refused(t, foreign, http.StatusConflict, "already_bound")
	if taken.str("reason") != "account_bound" || foreign.str("reason") != "identity_bound" {
		t.Errorf("%v, %v", taken, foreign)
	}
	for _, out := range []answer{taken, foreign} {
		for _, told := range []string{ming, hong, "hong", s.Sim.OpenID(testAppID, "ming"), s.Sim.OpenID(testAppID, "hong")} {
			if strings.Contains(string(out.Body), told) {
				t.Errorf("%v tells %s", out, told)
			}
		}
	}
	if sub(t, signIn(s, "hong")) != hong || sub(t, signIn(s, "ming")) != ming || sub(t, signIn(s, "eve")) == ming {
		t.Error("a refused binding changed something")
	}
}

// TestThreat72ConcurrentBindings: 64 WeChat users bind one account at once;
// exactly one gets it.
func TestThreat72ConcurrentBindings(t *testing.T) {
	t.Parallel()
	// With the limit on guessing out of the way, which counts before it looks.
	s := startServer(t, manyPhones(), withConfig(func(yaml string) string {
		return "rate_limits: {wrong_passwords_per_account: 1000}\n" + yaml
	}))
	account := addAccount(s, "ming")
	const n = 64
	forms := make([]func() (answer, error), n)
	for i := range forms {
		form := signInForm(s.Code(testAppID, "user-"+strconv.Itoa(i)), "username", "ming", "password", testPassword)
		where := phone()
		forms[i] = func() (answer, error) { return s.try(http.MethodPost, s.Issuer+"/oauth2/token", form, where) }
	}
	var mu sync.Mutex
	won := 0
	parallel(n, func(i int) {
		out, err := forms[i]()
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			t.Error(err)
		case out.Status == http.StatusOK:
			won++
			if got := claims(t, out.str("access_token"))["sub"]; got != account {
				t.Errorf("the winner is %v", got)
			}
		case out.Status == http.StatusConflict && out.str("error") == "already_bound":
		case out.Status == http.StatusServiceUnavailable && out.Header.Get("Retry-After") != "": // hashing is bounded
		default:
			t.Errorf("%v", out)
		}
	})
	identities, err := s.parts.store.Identities(context.Background(), account)
	if won != 1 || err != nil || len(identities) != 1 {
		t.Errorf("%d winners, %d identities, %v", won, len(identities), err)
	}
}

// TestThreat52BindingEnumeration: an unknown user, a wrong password, a disabled
// account and one without a password are answered alike.
func TestThreat52BindingEnumeration(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	addAccount(s, "ming")
	disabled := addAccount(s, "gone")
	if err := s.parts.store.SetUserDisabled(context.Background(), disabled, true); err != nil {
		t.Fatal(err)
	}
	res, err := s.parts.store.CreateAccount(context.Background(), storage.NewAccount{Username: "imported", ExternalID: "42"})
	if err != nil || res.Verdict != storage.AccountCreated {
		t.Fatal(res, err)
	}
	var first answer
	for i, username := range []string{"nobody", "ming", "gone", "imported"} {
		password := "wrong"
		if username == "gone" {
			password = testPassword
		}
		out := tryBind(s, "eve", username, password)
		refused(t, out, http.StatusBadRequest, "invalid_grant")
		if i == 0 {
			first = out
		}
		for _, name := range []string{"Date", "X-Request-Id"} {
			out.Header.Del(name)
			first.Header.Del(name)
		}
		if string(out.Body) != string(first.Body) || !reflect.DeepEqual(out.Header, first.Header) {
			t.Errorf("%s: %v, %v", username, out, out.Header)
		}
	}
}

// TestThreat53BindingGuesses: ten wrong passwords from an address, then even
// the right one is refused there, and with the same answer; the owner gets in
// from elsewhere, and silent sign-ins never notice.
func TestThreat53BindingGuesses(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	account := addAccount(s, "ming")
	attacker := phone()
	try := func(username, password string, where func(*http.Request)) answer {
		return s.Token(signInForm(s.Code(testAppID, "eve"), "username", username, "password", password), where)
	}
	spellings := []string{"ming", "MING", " Ming", "ｍｉｎｇ"}
	for i := range 10 {
		refused(t, try(spellings[i%len(spellings)], "wrong", attacker), http.StatusBadRequest, "invalid_grant")
	}
	wrong, right := try("ming", "wrong", attacker), try("MiNG", testPassword, attacker)
	refused(t, wrong, http.StatusTooManyRequests, "temporarily_unavailable")
	refused(t, right, http.StatusTooManyRequests, "temporarily_unavailable")
	if string(wrong.Body) != string(right.Body) || wrong.Header.Get("Retry-After") == "" {
		t.Errorf("%v, %v", wrong, right)
	}
	if got := sub(t, tryBind(s, "ming", "ming", testPassword)); got != account {
		t.Errorf("the owner: %s", got)
	}
	if out := s.Token(signInForm(s.Code(testAppID, "neighbour")), attacker); out.Status != http.StatusOK {
		t.Errorf("a silent sign-in from the attacker's address: %v", out)
	}
}

// TestAutoCreateOff: a client that makes no users wants an account to be bound,
// and takes it in the next request.
func TestAutoCreateOff(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), replacing("    wechat_appid: "+testAppID+"\n", "    wechat_appid: "+testAppID+"\n    auto_create: false\n"))
	account := addAccount(s, "ming")
	refused(t, s.Token(signInForm(s.Code(testAppID, "ming")), phone()), http.StatusBadRequest, "account_required")
	refused(t, phoneSignIn(s, "ming", phoneCode(s, testAppID, "ming")), http.StatusBadRequest, "account_required")
	if n := countUsers(s); n != 1 {
		t.Errorf("%d users", n)
	}
	if got := sub(t, tryBind(s, "ming", "ming", testPassword)); got != account {
		t.Errorf("bound to %s", got)
	}
	if got := sub(t, signIn(s, "ming")); got != account {
		t.Errorf("silent: %s", got)
	}
	// The other client of the same open platform makes users; here the unionid
	// leads to the account, so it has nothing to make.
	out := s.Token(pairs("grant_type", "wechat_jscode", "client_id", "shop-mini-2", "js_code", s.Code(testApp2, "ming")), phone())
	if got := sub(t, out); got != account {
		t.Errorf("the second app: %s", got)
	}
}

// TestBindingIdempotencyKey: a lost answer to a binding costs nothing.
func TestBindingIdempotencyKey(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	account := addAccount(s, "ming")
	form := signInForm(s.Code(testAppID, "ming"), "username", "ming", "password", testPassword)
	where := phone()
	first := s.Token(form, where, header("Idempotency-Key", "k1"))
	again := s.Token(form, where, header("Idempotency-Key", "k1"))
	if sub(t, first) != account || sub(t, again) != account || first.str("refresh_token") != again.str("refresh_token") {
		t.Errorf("%v, %v", first, again)
	}
	form.Set("password", "another")
	refused(t, s.Token(form, where, header("Idempotency-Key", "k1")), http.StatusBadRequest, "invalid_request")
}
