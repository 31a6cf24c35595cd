package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat/simulator"
)

const (
	pushToken   = "canaryPushToken7Jq0Vx"
	pushKey     = "canaryPushKey123456789ABCDEFGHIJKLMNopqrstu"
	pushToken2  = "otherPushToken"
	pushKey2    = "otherPushKey1234567890ABCDEFGHIJKLMNopqrstu"
	nickname    = "小明"
	picture     = "https://example.com/ming.png"
	defaultNick = "用户{n}"
)

// withPush lets both apps push their events.
func withPush() serverOption {
	app := func(secret, token, key string) (string, string) {
		return secret + ", open_platform: main }", secret + ", open_platform: main, message_push: { token: " + token + ", encoding_aes_key: " + key + " } }"
	}
	a, withA := app(testAppSecret, pushToken, pushKey)
	b, withB := app(testApp2Secret, pushToken2, pushKey2)
	return withConfig(func(yaml string) string {
		return "users: { default_nickname: '" + defaultNick + "', default_picture: https://example.com/default.png }\n" + strings.NewReplacer(a, withA, b, withB).Replace(yaml)
	})
}

func eventsURL(s *testServer, appid string) string { return s.Issuer + "/wechat/events/" + appid }

// event has the simulator push one event about a user.
func event(s *testServer, user, kind, revoked string, edits ...func(*simulator.Event)) simulator.Receipt {
	s.t.Helper()
	e := simulator.Event{
		URL: eventsURL(s, testAppID), AppID: testAppID, User: user, Type: kind, RevokeInfo: revoked, Token: pushToken, EncodingAESKey: pushKey,
	}
	for _, edit := range edits {
		edit(&e)
	}
	got, err := s.Sim.SendEvent(context.Background(), e)
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

// wantEvent pushes an event that is taken, and checks its one log line.
func wantEvent(s *testServer, user, kind, revoked, action string) map[string]any {
	s.t.Helper()
	before := len(s.Logs.Events("wechat.event"))
	if got := event(s, user, kind, revoked); got != (simulator.Receipt{Status: 200, Body: "success"}) {
		s.t.Fatalf("%s %s: %+v", kind, revoked, got)
	}
	lines := s.Logs.Events("wechat.event")
	if len(lines) != before+1 {
		s.t.Fatalf("%s left %d log lines", kind, len(lines)-before)
	}
	line := lines[before]
	if line["type"] != kind || line["appid"] != testAppID || line["action"] != action || line["revoke_info"] != revoked {
		s.t.Errorf("log line %v, want action %s", line, action)
	}
	return line
}

func userOf(s *testServer, sub string) storage.User {
	s.t.Helper()
	user, err := s.parts.store.User(context.Background(), sub)
	if err != nil {
		s.t.Fatal(err)
	}
	return user
}

func edited(s *testServer, token string) {
	s.t.Helper()
	out := s.Do(http.MethodPatch, s.Issuer+"/account", nil, bearer(token), jsonBody(`{"nickname":"`+nickname+`","picture":"`+picture+`"}`))
	if out.Status != 200 {
		s.t.Fatalf("PATCH /account: %v", out)
	}
}

func TestEventAccountCancelled(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withPush(), withDataClients())
	out := signIn(s, "alice")
	sub := claims(t, out.str("access_token"))["sub"].(string)
	bob := signIn(s, "bob")
	if line := wantEvent(s, "alice", "user_authorization_cancellation", "", "user_erased"); line["sub"] != sub {
		t.Errorf("log line %v", line)
	}
	if s.Active(out.str("access_token")) {
		t.Error("the access token of an erased user is active")
	}
	refused(t, refresh(s, out.str("refresh_token")), 400, "invalid_grant")
	if user := userOf(s, sub); !user.Retired || user.Profile != (storage.Profile{}) {
		t.Errorf("user %+v", user)
	}
	if !s.Active(bob.str("access_token")) {
		t.Error("another user's token is inactive")
	}
	wantEvent(s, "alice", "user_authorization_cancellation", "", "unknown_user")
	if again := claims(t, signIn(s, "alice").str("access_token"))["sub"]; again == sub {
		t.Error("the id of an erased user is used again")
	}

	// A user with another way in goes on without this identity.
	one := signIn(s, "carol")
	two, err := s.signIn("shop-mini-2", testApp2, "carol", phone())
	if err != nil || two.Status != 200 || claims(t, two.str("access_token"))["sub"] != claims(t, one.str("access_token"))["sub"] {
		t.Fatal(two, err)
	}
	wantEvent(s, "carol", "user_authorization_cancellation", "", "identity_removed")
	if s.Active(one.str("access_token")) || s.Active(two.str("access_token")) {
		t.Error("a sign-in of the user goes on")
	}
	if again, err := s.signIn("shop-mini-2", testApp2, "carol", phone()); err != nil || claims(t, again.str("access_token"))["sub"] != claims(t, one.str("access_token"))["sub"] {
		t.Errorf("the other app: %v, %v", again, err)
	}
}

func TestEventAuthorizationRevoked(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withPush(), withDataClients())
	for _, c := range []struct {
		revoked                  string
		keepsNick, keepsPic, tel bool
	}{
		{"6", false, false, true}, {"19", false, true, true}, {"20", true, false, true}, {"8", true, true, false}, {"16", true, true, true}, {"999", true, true, true},
	} {
		name := "user-" + c.revoked
		out := signIn(s, name)
		sub := claims(t, out.str("access_token"))["sub"].(string)
		edited(s, out.str("access_token"))
		// A number, as a phone button gives it.
		in := storage.SignIn{AppID: testAppID, WeChatOpenID: s.Sim.OpenID(testAppID, name), Absolute: time.Hour,
			Family: storage.Family{ClientID: testClient}, Phone: &storage.PhoneProof{E164: "+861380013" + fmt.Sprintf("%04s", c.revoked)}}
		if res, err := s.parts.store.SignIn(context.Background(), in); err != nil || res.Verdict != storage.SignInOK {
			t.Fatal(res, err)
		}
		if line := wantEvent(s, name, "user_authorization_revoke", c.revoked, "sign_ins_ended"); line["sub"] != sub {
			t.Errorf("log line %v", line)
		}
		user := userOf(s, sub)
		if (user.Profile.Nickname == nickname) != c.keepsNick || (user.Profile.Picture == picture) != c.keepsPic || (user.Phone != "") != c.tel || user.Retired {
			t.Errorf("after %s was revoked: %+v", c.revoked, user)
		}
		if !c.keepsNick && !strings.HasPrefix(user.Profile.Nickname, "用户") || !c.keepsPic && user.Profile.Picture != "https://example.com/default.png" {
			t.Errorf("after %s was revoked: %+v", c.revoked, user.Profile)
		}
		if s.Active(out.str("access_token")) {
			t.Errorf("%s: the sign-in goes on", c.revoked)
		}
		if keys, _ := custody(s, name); len(keys) != 0 {
			t.Errorf("%s: %d session_keys are still in custody", c.revoked, len(keys))
		}
		// The user goes on, and the same event once more leaves the profile alone.
		fresh := signIn(s, name)
		if claims(t, fresh.str("access_token"))["sub"] != sub {
			t.Errorf("%s: another user", c.revoked)
		}
		wantEvent(s, name, "user_authorization_revoke", c.revoked, "sign_ins_ended")
		if again := userOf(s, sub); again.Profile != user.Profile {
			t.Errorf("%s again: %+v, was %+v", c.revoked, again.Profile, user.Profile)
		}
	}
	wantEvent(s, "nobody", "user_authorization_revoke", "6", "unknown_user")
	wantEvent(s, "nobody", "user_authorization_revoke", "8", "unknown_user")
}

func TestEventUserInfoModified(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withPush())
	out := signIn(s, "alice")
	edited(s, out.str("access_token"))
	wantEvent(s, "alice", "user_info_modified", "", "profile_reset")
	info := s.UserInfo(out.str("access_token"))
	if !strings.HasPrefix(info.str("nickname"), "用户") || info.str("picture") != "https://example.com/default.png" {
		t.Errorf("UserInfo: %v", info)
	}
	wantEvent(s, "nobody", "user_info_modified", "", "unknown_user")
	wantEvent(s, "alice", "something_new", "", "ignored")
	if !s.Active(out.str("access_token")) {
		t.Error("the sign-in ended")
	}
	if got := event(s, "alice", "user_info_modified", "", func(e *simulator.Event) { e.XML = true }); got.Status != 200 {
		t.Errorf("XML: %+v", got)
	}
}

// TestEventReload: what the console says may change while the server runs.
func TestEventReload(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withPush())
	reload(s, pushToken, "newToken")
	if got := event(s, "alice", "user_info_modified", ""); got.Status != 403 {
		t.Errorf("the old token: %+v", got)
	}
	if got := event(s, "alice", "user_info_modified", "", func(e *simulator.Event) { e.Token = "newToken" }); got.Status != 200 {
		t.Errorf("the new token: %+v", got)
	}
	reload(s, ", message_push: { token: newToken, encoding_aes_key: "+pushKey+" }", "")
	if got := event(s, "alice", "user_info_modified", "", func(e *simulator.Event) { e.Token = "newToken" }); got.Status != 404 {
		t.Errorf("no longer configured: %+v", got)
	}
}

// TestEventRacesSignIns: whatever comes first, no sign-in of an erased user
// lives on.
func TestEventRacesSignIns(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withPush(), withoutLimits())
	first := signIn(s, "alice")
	var mu sync.Mutex
	tokens := map[string]string{first.str("access_token"): claims(t, first.str("access_token"))["sub"].(string)}
	var failed failures
	parallel(16, func(i int) {
		if i%4 == 0 {
			got, err := s.Sim.SendEvent(context.Background(), simulator.Event{URL: eventsURL(s, testAppID), AppID: testAppID, User: "alice",
				Type: "user_authorization_cancellation", Token: pushToken, EncodingAESKey: pushKey})
			if err != nil || got.Status != 200 {
				failed.add(fmt.Sprint(got, err))
			}
			return
		}
		out, err := s.signIn(testClient, testAppID, "alice", phone())
		if err != nil || out.Status != 200 {
			failed.add(fmt.Sprint(out, err))
			return
		}
		payload, err := jwtPayload(out.str("access_token"))
		if err != nil {
			failed.add(err.Error())
			return
		}
		mu.Lock()
		defer mu.Unlock()
		tokens[out.str("access_token")], _ = payload["sub"].(string)
	})
	failed.report(t, "race")
	if !userOf(s, tokens[first.str("access_token")]).Retired {
		t.Error("the first user was not erased")
	}
	for token, sub := range tokens {
		if retired := userOf(s, sub).Retired; s.Active(token) == retired {
			t.Errorf("the token of a user is active: %v, the user is erased: %v", !retired, retired)
		}
	}
	if _, _, err := s.parts.store.IdentityUser(context.Background(), testAppID, s.Sim.OpenID(testAppID, "alice")); err != nil && !errors.Is(err, storage.ErrNotFound) {
		t.Error(err)
	}
}
