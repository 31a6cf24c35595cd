package main

import (
	"context"
	"net/http"
	"testing"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// testPassword is a canary like the other secrets.
const testPassword = "canary-correct-horse-81"

// addAccount makes an account with a username and testPassword and returns its
// user's id.
func addAccount(s *testServer, username string) string {
	s.t.Helper()
	hash, err := s.parts.passwords.Passwords.Hash(context.Background(), secret.New(testPassword))
	if err != nil {
		s.t.Fatal(err)
	}
	name, err := accounts.CanonicalUsername(username)
	if err != nil {
		s.t.Fatal(err)
	}
	res, err := s.parts.store.CreateAccount(context.Background(), storage.NewAccount{
		Username: name, PasswordHash: hash, Profile: storage.Profile{Nickname: "account " + username}})
	if err != nil || res.Verdict != storage.AccountCreated {
		s.t.Fatalf("CreateAccount: %+v, %v", res, err)
	}
	return res.UserID
}

// tryBind signs a WeChat user in with a username and password.
func tryBind(s *testServer, weChatUser, username, password string, more ...string) answer {
	s.t.Helper()
	return s.Token(signInForm(s.Code(testAppID, weChatUser), append([]string{"username", username, "password", password}, more...)...), phone())
}

// sub is the user of an answer of the token endpoint.
func sub(t testing.TB, out answer) string {
	t.Helper()
	if out.Status != http.StatusOK {
		t.Fatalf("no tokens: %v", out)
	}
	return claims(t, out.str("access_token"))["sub"].(string)
}

// phoneCode is what the phone button of the mini-program gives a user.
func phoneCode(s *testServer, appid, weChatUser string) string {
	s.t.Helper()
	code, err := s.Sim.PhoneCode(appid, weChatUser)
	if err != nil {
		s.t.Fatal(err)
	}
	return code
}

// phoneSignIn uses the grant wechat_phone at the default client.
func phoneSignIn(s *testServer, weChatUser, phoneCode string, more ...string) answer {
	s.t.Helper()
	form := pairs(append([]string{"grant_type", "wechat_phone", "client_id", testClient,
		"js_code", s.Code(testAppID, weChatUser), "phone_code", phoneCode}, more...)...)
	return s.Token(form, phone())
}

// number is a user's phone number in the simulator, as E.164.
func number(s *testServer, weChatUser string) string {
	country, digits := s.Sim.PhoneNumber(weChatUser)
	return "+" + country + digits
}

// user reads a user from the store.
func user(s *testServer, id string) storage.User {
	s.t.Helper()
	u, err := s.parts.store.User(context.Background(), id)
	if err != nil {
		s.t.Fatalf("user %s: %v", id, err)
	}
	return u
}

// weChatCalls counts the calls of one API that reached WeChat.
func weChatCalls(s *testServer, path string) (n int) {
	for _, request := range s.Sim.Requests() {
		if request.Path == path {
			n++
		}
	}
	return n
}
