package main

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/storage"
)

// unbind posts to the unbind endpoint.
func unbind(s *testServer, token string, nameValue ...string) answer {
	s.t.Helper()
	return s.Do(http.MethodPost, s.Issuer+"/account/unbind", pairs(nameValue...), bearer(token), phone())
}

// TestUnbind: a fresh js_code removes the WeChat user from the account and
// ends all that the account is signed in to; the other app signs in anew.
func TestUnbind(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), replacing("open_platform: main", "open_platform: ''")) // no unionids
	account := addAccount(s, "ming")
	first := tryBind(s, "ming", "ming", testPassword)
	second := secondBind(s, "ming", "ming", testPassword)
	if sub(t, first) != account || sub(t, second) != account {
		t.Fatal("not bound")
	}
	out := unbind(s, first.str("access_token"), "js_code", s.Code(testAppID, "ming"))
	if out.Status != http.StatusOK || out.JSON["unbound"] != true || strings.Join(list(out.JSON["wechat_appids"]), " ") != testAppID || out.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%v", out)
	}
	refused(t, refresh(s, first.str("refresh_token")), http.StatusBadRequest, "invalid_grant")
	if userInfoOK(s, first.str("access_token")) || s.Active(first.str("access_token")) {
		t.Error("an access token of the identity is alive")
	}
	if userInfoOK(s, second.str("access_token")) {
		t.Error("the sign-in of the other app is alive")
	}
	second = s.Token(pairs("grant_type", "wechat_jscode", "client_id", "shop-mini-2", "js_code", s.Code(testApp2, "ming"), "scope", "openid profile"), phone())
	if sub(t, second) != account {
		t.Errorf("the other app: %v", second)
	}
	if got := sub(t, signIn(s, "ming")); got == account {
		t.Error("the WeChat user still leads to the account")
	}
	if events := s.Logs.Events("identity.unbound"); len(events) != 1 || events[0]["sub"] != account {
		t.Errorf("events %v", events)
	}
	// By password, and for another app than the client's own. shop-mini-2 has
	// the last WeChat user of the account; the password is still a way in.
	out = unbind(s, second.str("access_token"), "username", "ming", "password", testPassword, "wechat_appid", testApp2)
	if out.Status != http.StatusOK || userInfoOK(s, second.str("access_token")) {
		t.Errorf("by password: %v", out)
	}
	identities, err := s.parts.store.Identities(context.Background(), account)
	if err != nil || len(identities) != 0 {
		t.Errorf("%d identities, %v", len(identities), err)
	}
}

// TestUnbindEverywhere: while one app of an open platform is bound, the unionid
// leads the others back; everywhere=true leaves none.
func TestUnbindEverywhere(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	account := addAccount(s, "ming")
	bound := tryBind(s, "ming", "ming", testPassword)
	secondApp := func() answer {
		return s.Token(pairs("grant_type", "wechat_jscode", "client_id", "shop-mini-2", "js_code", s.Code(testApp2, "ming")), phone())
	}
	second := secondApp()
	if sub(t, bound) != account || sub(t, second) != account {
		t.Fatal("not one account")
	}
	// Of a lone user, not even one app stays behind.
	lone := signIn(s, "alice")
	s.Token(pairs("grant_type", "wechat_jscode", "client_id", "shop-mini-2", "js_code", s.Code(testApp2, "alice")), phone())
	refused(t, unbind(s, lone.str("access_token"), "js_code", s.Code(testAppID, "alice"), "everywhere", "true"), http.StatusConflict, "last_way_in")
	if !userInfoOK(s, lone.str("access_token")) {
		t.Error("a refused unbinding ended a sign-in")
	}

	out := unbind(s, bound.str("access_token"), "js_code", s.Code(testAppID, "ming"), "everywhere", "true")
	if out.Status != http.StatusOK || len(list(out.JSON["wechat_appids"])) != 2 {
		t.Fatalf("%v", out)
	}
	if userInfoOK(s, bound.str("access_token")) || userInfoOK(s, second.str("access_token")) {
		t.Error("a sign-in is alive")
	}
	if sub(t, signIn(s, "ming")) == account || sub(t, secondApp()) == account {
		t.Error("a WeChat user still leads to the account")
	}
}

// TestThreat72ParallelUnbinding: two requests at once do not remove the last
// way in between them, however the account could have been opened once.
func TestThreat72ParallelUnbinding(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), replacing("grant_types: [wechat_jscode, wechat_phone, refresh_token]", "grant_types: [wechat_jscode, refresh_token]"))
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		tokens := []string{
			signIn(s, name, "phone_code", phoneCode(s, testAppID, name)).str("access_token"),
			s.Token(pairs("grant_type", "wechat_jscode", "client_id", "shop-mini-2", "scope", "profile",
				"js_code", s.Code(testApp2, name)), phone()).str("access_token"),
		}
		forms := []url.Values{pairs("js_code", s.Code(testAppID, name)), pairs("js_code", s.Code(testApp2, name))}
		where := []func(*http.Request){phone(), phone()}
		status := make([]int, 2)
		parallel(2, func(i int) {
			out, err := s.try(http.MethodPost, s.Issuer+"/account/unbind", forms[i], bearer(tokens[i]), where[i])
			if err != nil {
				t.Error(err)
			}
			status[i] = out.Status
		})
		slices.Sort(status)
		if status[0] != http.StatusOK || status[1] != http.StatusConflict {
			t.Errorf("%s: %v", name, status)
		}
	}
}

// TestThreat72Unbinding: a stolen access token is not enough, and the last way
// in stays.
func TestThreat72Unbinding(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	addAccount(s, "ming")
	addAccount(s, "hong")
	bound := tryBind(s, "ming", "ming", testPassword).str("access_token")
	lone := signIn(s, "alice")
	for name, row := range map[string]struct {
		form   []string
		status int
		code   string
	}{
		"no proof":               {nil, 400, "invalid_request"},
		"two proofs":             {[]string{"js_code", "x", "username", "ming", "password", testPassword}, 400, "invalid_request"},
		"another's js_code":      {[]string{"js_code", s.Code(testAppID, "mallory")}, 400, "invalid_grant"},
		"js_code of a known one": {[]string{"js_code", s.Code(testAppID, "alice")}, 400, "invalid_grant"},
		"js_code of another app": {[]string{"js_code", s.Code(testApp2, "ming")}, 400, "invalid_grant"},
		"junk js_code":           {[]string{"js_code", "junk"}, 400, "invalid_grant"},
		"wrong password":         {[]string{"username", "ming", "password", "wrong"}, 400, "invalid_grant"},
		"another's password":     {[]string{"username", "hong", "password", testPassword}, 400, "invalid_grant"},
		"no username":            {[]string{"password", testPassword}, 400, "invalid_request"},
		"app without identity":   {[]string{"username", "ming", "password", testPassword, "wechat_appid", testApp2}, 400, "invalid_request"},
		"app and everywhere":     {[]string{"username", "ming", "password", testPassword, "wechat_appid", testAppID, "everywhere", "true"}, 400, "invalid_request"},
		"everywhere is not yes":  {[]string{"username", "ming", "password", testPassword, "everywhere", "yes"}, 400, "invalid_request"},
		"app that nobody has":    {[]string{"username", "ming", "password", testPassword, "wechat_appid", "wx"}, 400, "invalid_request"},
	} {
		out := unbind(s, bound, row.form...)
		if out.Status != row.status || out.str("error") != row.code {
			t.Errorf("%s: %v", name, out)
		}
	}
	if !userInfoOK(s, bound) {
		t.Error("a refused unbinding ended the sign-in")
	}
	refused(t, unbind(s, lone.str("access_token"), "js_code", s.Code(testAppID, "alice")), http.StatusConflict, "last_way_in")
	if sub(t, signIn(s, "alice")) != sub(t, lone) {
		t.Error("alice lost her account")
	}
	// A phone number is a way in where a client signs in by it, an external id
	// only where the product's own account system is asked.
	imported, err := s.parts.store.ImportUsers(context.Background(), []storage.ImportRow{
		{AppID: testAppID, WeChatOpenID: s.Sim.OpenID(testAppID, "carol"), ExternalID: "42"}}, false)
	if err != nil || imported[0] != storage.ImportCreated {
		t.Fatal(imported, err)
	}
	carol := signIn(s, "carol").str("access_token")
	refused(t, unbind(s, carol, "js_code", s.Code(testAppID, "carol")), http.StatusConflict, "last_way_in")
	dave := phoneSignIn(s, "dave", phoneCode(s, testAppID, "dave"))
	if out := unbind(s, dave.str("access_token"), "js_code", s.Code(testAppID, "dave")); out.Status != http.StatusOK {
		t.Errorf("with a phone number: %v", out)
	}
	if again := phoneSignIn(s, "dave", phoneCode(s, testAppID, "dave")); sub(t, again) != sub(t, dave) {
		t.Errorf("back by the number: %v", again)
	}
	// Token, scope and replay.
	refused(t, unbind(s, "junk", "js_code", "x"), http.StatusUnauthorized, "invalid_token")
	narrow := signIn(s, "alice", "scope", "openid").str("access_token")
	refused(t, unbind(s, narrow, "js_code", "x"), http.StatusForbidden, "insufficient_scope")
	code := s.Code(testAppID, "ming")
	signedIn := s.Token(signInForm(code), phone())
	refused(t, unbind(s, signedIn.str("access_token"), "js_code", code), http.StatusBadRequest, "invalid_grant")
	if out := s.Do(http.MethodPost, s.Issuer+"/account/unbind?access_token="+bound, pairs("js_code", "x"), phone()); out.Status == http.StatusOK {
		t.Errorf("token in the URL: %v", out)
	}
	// The password of somebody else is no better than a wrong one, nor quicker,
	// and what is refused is in the log.
	start := time.Now()
	foreign := unbind(s, bound, "username", "hong", "password", testPassword)
	wrong := unbind(s, bound, "username", "hong", "password", "wrong")
	if string(foreign.Body) != string(wrong.Body) || time.Since(start) < 2*accounts.DefaultFailureTime {
		t.Errorf("%v, %v, %s", foreign, wrong, time.Since(start))
	}
	if line := eventOf(s, foreign, "unbind.denied"); line["reason"] != "password_other_account" {
		t.Errorf("log line %v", line)
	}
	// Guesses here count with those at the token endpoint.
	where := phone()
	for range 10 {
		s.Do(http.MethodPost, s.Issuer+"/account/unbind", pairs("username", "ming", "password", "wrong"), bearer(bound), where)
	}
	out := s.Token(signInForm(s.Code(testAppID, "eve"), "username", "ming", "password", testPassword), where)
	refused(t, out, http.StatusTooManyRequests, "temporarily_unavailable")
	if logs := s.Logs.String(); strings.Contains(logs, testPassword) || strings.Contains(logs, `"ming"`) {
		t.Error("the log holds a username or password")
	}
}
