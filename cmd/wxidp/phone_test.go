package main

import (
	"net/http"
	"strings"
	"testing"

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
	// After unbinding, the account has nothing but the number, and opens to
	// another WeChat user who has it.
	bob := phoneSignIn(s, "bob", phoneCode(s, testAppID, "bob"), "scope", "openid profile")
	if out := unbind(s, bob.str("access_token"), "js_code", s.Code(testAppID, "bob"), "everywhere", "true"); out.Status != http.StatusOK {
		t.Fatalf("%v", out)
	}
	country, digits := s.Sim.PhoneNumber("bob")
	if err := s.Sim.SetPhone("bob's new WeChat", country, digits); err != nil {
		t.Fatal(err)
	}
	if got := sub(t, phoneSignIn(s, "bob's new WeChat", phoneCode(s, testAppID, "bob's new WeChat"))); got != sub(t, bob) {
		t.Errorf("bob by his number: %s, want %s", got, sub(t, bob))
	}
}

// TestPhoneOfTheAccount: binding records a number where the account has none,
// and leaves a known one as it is, unasked.
func TestPhoneOfTheAccount(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	account := addAccount(s, "ming")
	sub(t, tryBind(s, "ming", "ming", testPassword, "phone_code", phoneCode(s, testAppID, "ming")))
	first := number(s, "ming")
	if err := s.Sim.SetPhone("ming", "86", "13900000001"); err != nil {
		t.Fatal(err)
	}
	calls := weChatCalls(s, phonePath)
	sub(t, tryBind(s, "ming", "ming", testPassword, "phone_code", phoneCode(s, testAppID, "ming")))
	if got := user(s, account).Phone; got != first || weChatCalls(s, phonePath) != calls {
		t.Errorf("the number is %s, want %s; %d calls", got, first, weChatCalls(s, phonePath)-calls)
	}
	sub(t, tryBind(s, "ming", "ming", testPassword, "phone_code", phoneCode(s, testAppID, "ming"), "phone_change", "true"))
	if got := user(s, account).Phone; got != "+8613900000001" {
		t.Errorf("after the change: %s", got)
	}
}

// TestPhoneNotAskedFor: a client without use for numbers cannot have any
// recorded.
func TestPhoneNotAskedFor(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), replacing("grant_types: [wechat_jscode, wechat_phone, refresh_token]", "grant_types: [wechat_jscode, refresh_token]",
		"scopes: [openid, profile, phone, wechat]", "scopes: [openid, profile, wechat]"))
	out := s.Token(pairs("grant_type", "wechat_jscode", "client_id", "shop-mini-2", "js_code", s.Code(testApp2, "alice"),
		"phone_code", phoneCode(s, testApp2, "alice")), phone())
	refused(t, out, http.StatusBadRequest, "invalid_request")
	if s.Sim.RequestCount() != 0 {
		t.Error("a code was spent")
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
	// Whoever had the number before keeps no way into the account of who has it
	// now, in no app, and the other way round.
	other := func(user, phoneCode string) answer {
		return s.Token(pairs("grant_type", "wechat_phone", "client_id", "shop-mini-2", "js_code", s.Code(testApp2, user), "phone_code", phoneCode), phone())
	}
	former := other("former", phoneCode(s, testApp2, "former"))
	formersID := sub(t, former)
	if out := revoke(s, former.str("refresh_token")); out.Status != http.StatusOK {
		t.Fatal(out)
	}
	s.Do(http.MethodPost, s.Issuer+"/oauth2/revoke", pairs("client_id", "shop-mini-2", "token", former.str("refresh_token")), phone())
	country, digits := s.Sim.PhoneNumber("former")
	if err := s.Sim.SetPhone("now", country, digits); err != nil {
		t.Fatal(err)
	}
	refused(t, phoneSignIn(s, "now", phoneCode(s, testAppID, "now")), http.StatusConflict, "account_exists")
	if sub(t, signIn(s, "now")) == formersID {
		t.Error("the new holder of the number is in the account of the former one")
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
