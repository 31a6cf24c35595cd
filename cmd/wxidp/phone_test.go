package main

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat/simulator"
)

const phonePath = "/wxa/business/getuserphonenumber"

// TestPhoneStepUp: a phone_code in the sign-in records the number, once, and
// the scope phone releases it.
func TestPhoneStepUp(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	out := signIn(s, "alice", "phone_code", phoneCode(s, testAppID, "alice"), "scope", "openid phone")
	if amr := list(claims(t, out.str("id_token"))["amr"]); len(amr) != 2 || amr[1] != "wechat_phone" {
		t.Errorf("amr %v", amr)
	}
	info := s.UserInfo(out.str("access_token"))
	if info.str("phone_number") != number(s, "alice") || info.JSON["phone_number_verified"] != true {
		t.Errorf("UserInfo: %v", info)
	}
	if narrow := s.UserInfo(signIn(s, "alice", "scope", "openid profile").str("access_token")); narrow.JSON["phone_number"] != nil || narrow.JSON["phone_number_verified"] != nil {
		t.Errorf("without the scope: %v", narrow)
	}
	if none := s.UserInfo(signIn(s, "bob", "scope", "openid phone").str("access_token")); none.JSON["phone_number"] != nil || none.JSON["phone_number_verified"] != nil {
		t.Errorf("without a number: %v", none)
	}
	// What is known is not asked for again, in the second app neither.
	signIn(s, "alice", "phone_code", phoneCode(s, testAppID, "alice"))
	second := s.Token(pairs("grant_type", "wechat_phone", "client_id", "shop-mini-2", "js_code", s.Code(testApp2, "alice"),
		"phone_code", phoneCode(s, testApp2, "alice")), phone())
	if sub(t, second) != sub(t, out) {
		t.Errorf("the second app: %v", second)
	}
	if n := weChatCalls(s, phonePath); n != 1 {
		t.Errorf("%d calls for one number", n)
	}
	// Unless it is to be changed.
	if err := s.Sim.SetPhone("alice", "852", "91234567"); err != nil {
		t.Fatal(err)
	}
	refused(t, s.Token(signInForm(s.Code(testAppID, "alice"), "phone_code", phoneCode(s, testAppID, "alice"), "phone_change", "yes"), phone()), http.StatusBadRequest, "invalid_request")
	changed := signIn(s, "alice", "phone_code", phoneCode(s, testAppID, "alice"), "phone_change", "true", "scope", "openid phone")
	if got := s.UserInfo(changed.str("access_token")).str("phone_number"); got != "+85291234567" {
		t.Errorf("after the change: %s", got)
	}
	if strings.Contains(s.Logs.String(), "91234567") || strings.Contains(s.Logs.String(), strings.TrimPrefix(number(s, "alice"), "+86")) {
		t.Error("a number is in the log")
	}
}

// TestPhoneSignIn: where accounts are phone numbers, the number finds the
// account again after the WeChat user has changed.
func TestPhoneSignIn(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	first := phoneSignIn(s, "alice", phoneCode(s, testAppID, "alice"))
	id := sub(t, first)
	if sub(t, signIn(s, "alice")) != id || user(s, id).Phone != number(s, "alice") {
		t.Error("the number and the WeChat user are not one")
	}
	refused(t, s.Token(pairs("grant_type", "wechat_phone", "client_id", testClient, "js_code", s.Code(testAppID, "alice")), phone()), http.StatusBadRequest, "invalid_request")
	refused(t, s.Token(pairs("grant_type", "wechat_phone", "client_id", testClient, "phone_code", phoneCode(s, testAppID, "alice")), phone()), http.StatusBadRequest, "invalid_request")
	// An account that has nothing but the number: imported, or left by unbinding.
	res, err := s.parts.store.SignIn(context.Background(), storage.SignIn{
		AppID: "wx-former-app", WeChatOpenID: "o", Phone: &storage.PhoneProof{E164: number(s, "bob")},
		Family: storage.Family{ClientID: "former"}, Absolute: 1,
	})
	if err != nil || res.Verdict != storage.SignInOK {
		t.Fatal(res, err)
	}
	if got := sub(t, phoneSignIn(s, "bob", phoneCode(s, testAppID, "bob"))); got != res.UserID {
		t.Errorf("bob by his number: %s, want %s", got, res.UserID)
	}
}

// TestThreat69VictimsPhoneCode: an attacker's own js_code with a victim's
// phone code gets nothing, and nothing of the victim is stored.
func TestThreat69VictimsPhoneCode(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	attacker := signIn(s, "mallory")
	id := sub(t, attacker)
	for name, try := range map[string]func(code string) answer{
		"step-up": func(code string) answer {
			return s.Token(signInForm(s.Code(testAppID, "mallory"), "phone_code", code), phone())
		},
		"phone sign-in": func(code string) answer { return phoneSignIn(s, "mallory", code) },
	} {
		stolen := phoneCode(s, testAppID, "victim")
		refused(t, try(stolen), http.StatusBadRequest, "invalid_grant")
		calls := weChatCalls(s, phonePath)
		refused(t, try(stolen), http.StatusBadRequest, "invalid_grant") // once is enough
		if weChatCalls(s, phonePath) != calls {
			t.Errorf("%s: the code was sent twice", name)
		}
		refused(t, try(phoneCode(s, testApp2, "mallory")), http.StatusBadRequest, "invalid_grant") // of another app
		refused(t, try(s.Code(testAppID, "mallory")), http.StatusBadRequest, "invalid_grant")      // a js_code is none
	}
	if u := user(s, id); u.Phone != "" || !u.PhoneVerifiedAt.IsZero() {
		t.Errorf("the attacker has a number: %+v", u)
	}
	if n := countUsers(s); n != 1 {
		t.Errorf("%d users", n)
	}
	// The victim is served as if nothing had been.
	victim := signIn(s, "victim", "phone_code", phoneCode(s, testAppID, "victim"))
	if got := user(s, sub(t, victim)).Phone; got != number(s, "victim") || sub(t, victim) == id {
		t.Errorf("the victim has %s", got)
	}
}

// TestThreat70PhoneIsWeakProof: a number that a carrier gave to somebody else
// opens no account with another way in or in use.
func TestThreat70PhoneIsWeakProof(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	owner := phoneSignIn(s, "alice", phoneCode(s, testAppID, "alice"))
	withPassword := addAccount(s, "ming")
	sub(t, tryBind(s, "ming", "ming", testPassword, "phone_code", phoneCode(s, testAppID, "ming")))
	if user(s, withPassword).Phone == "" {
		t.Fatal("the number was not recorded with the binding")
	}
	for _, victim := range []string{"alice", "ming"} {
		newOwner := "new-owner-of-" + victim
		country, digits := s.Sim.PhoneNumber(victim)
		if err := s.Sim.SetPhone(newOwner, country, digits); err != nil {
			t.Fatal(err)
		}
		out := phoneSignIn(s, newOwner, phoneCode(s, testAppID, newOwner))
		refused(t, out, http.StatusConflict, "account_exists")
		refused(t, s.Token(signInForm(s.Code(testAppID, newOwner), "phone_code", phoneCode(s, testAppID, newOwner)), phone()), http.StatusConflict, "account_exists")
		// By their WeChat user alone they sign in as somebody new.
		fresh := sub(t, signIn(s, newOwner))
		if fresh == sub(t, owner) || fresh == withPassword || user(s, fresh).Phone != "" {
			t.Errorf("the new owner of %s's number is %s", victim, fresh)
		}
	}
	if sub(t, signIn(s, "alice")) != sub(t, owner) || sub(t, signIn(s, "ming")) != withPassword {
		t.Error("an owner lost their account")
	}
	if out := refresh(s, owner.str("refresh_token")); out.Status != http.StatusOK {
		t.Errorf("an owner was signed out: %v", out)
	}
}

// TestThreat71PreHijacked: whoever registers a victim's number as a username
// does not get the victim's sign-ins.
func TestThreat71PreHijacked(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	victimsNumber := number(s, "victim")
	hijacker := addAccount(s, victimsNumber)
	if got := sub(t, phoneSignIn(s, "victim", phoneCode(s, testAppID, "victim"))); got == hijacker {
		t.Error("the victim signs in to the attacker's account")
	}
	if u := user(s, hijacker); u.Phone != "" {
		t.Errorf("the attacker's account has the number: %+v", u)
	}
	// A bare user of the attacker's own cannot claim the number either.
	refused(t, phoneSignIn(s, "mallory", phoneCode(s, testAppID, "victim")), http.StatusBadRequest, "invalid_grant")
}

// TestPhoneFaults: WeChat's phone API out of order is told as such, and the
// sign-in stores nothing.
func TestPhoneFaults(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		fault  simulator.Fault
		status int
		code   string
	}{
		"busy":       {simulator.Fault{Kind: simulator.FaultErrcode, Errcode: -1}, http.StatusServiceUnavailable, "temporarily_unavailable"},
		"quota":      {simulator.Fault{Kind: simulator.FaultErrcode, Errcode: 45011}, http.StatusServiceUnavailable, "temporarily_unavailable"},
		"5xx":        {simulator.Fault{Kind: simulator.FaultStatus, Status: 502}, http.StatusServiceUnavailable, "temporarily_unavailable"},
		"IP address": {simulator.Fault{Kind: simulator.FaultErrcode, Errcode: 40164}, http.StatusInternalServerError, "server_error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, manyPhones())
			code, phoneCode := s.Code(testAppID, "alice"), phoneCode(s, testAppID, "alice")
			row.fault.Endpoint = phonePath
			if err := s.Sim.Inject(row.fault); err != nil {
				t.Fatal(err)
			}
			refused(t, s.Token(signInForm(code, "phone_code", phoneCode), phone()), row.status, row.code)
			if n := countUsers(s); n != 0 {
				t.Errorf("%d users", n)
			}
		})
	}
}
