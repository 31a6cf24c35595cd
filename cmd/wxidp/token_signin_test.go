package main

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wxidp/wxidp/wechat/simulator"
)

// TestFirstSignInsTogether: a new user who signs in 64 times at once is created
// once.
func TestFirstSignInsTogether(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	const n = 64
	codes, answers := make([]string, n), make([]answer, n)
	for i := range codes {
		codes[i] = s.Code(testAppID, "alice")
	}
	parallel(n, func(i int) {
		answers[i], _ = s.try(http.MethodPost, s.Issuer+"/oauth2/token", signInForm(codes[i]), phone())
	})
	subs, tokens := make([]string, n), make([]string, n)
	for i, out := range answers {
		if out.Status != 200 {
			t.Fatalf("sign-in %d: %v", i, out)
		}
		subs[i], _ = claims(t, out.str("access_token"))["sub"].(string)
		tokens[i] = out.str("refresh_token")
	}
	if distinct(subs) != 1 || distinct(tokens) != n {
		t.Errorf("%d subjects and %d refresh tokens, want 1 and %d", distinct(subs), distinct(tokens), n)
	}
	if got := countUsers(s); got != 1 {
		t.Errorf("%d users", got)
	}
	if got := len(families(s)); got != n {
		t.Errorf("%d families, want %d", got, n)
	}
	created := 0
	for _, line := range s.Logs.Events("token.issued") {
		if line["new_user"] == true {
			created++
		}
	}
	if created != 1 {
		t.Errorf("%d sign-ins say that they created the user", created)
	}
}

func signInSecondApp(s *testServer, user string) answer {
	s.t.Helper()
	out := s.Token(pairs("grant_type", "wechat_jscode", "client_id", "shop-mini-2", "js_code", s.Code(testApp2, user), "scope", "openid wechat"), phone())
	if out.Status != 200 {
		s.t.Fatalf("sign-in of %s in the second app: %v", user, out)
	}
	return out
}

func subject(t testing.TB, out answer) string {
	t.Helper()
	sub, _ := claims(t, out.str("access_token"))["sub"].(string)
	if sub == "" {
		t.Fatalf("no sub: %v", out)
	}
	return sub
}

// TestThreat66UnionIDLinks: one open platform means one user, two mean two.
func TestThreat66UnionIDLinks(t *testing.T) {
	t.Parallel()
	t.Run("one open platform", func(t *testing.T) {
		t.Parallel()
		s := startServer(t, manyPhones())
		first, second := signIn(s, "alice"), signInSecondApp(s, "alice")
		if subject(t, first) != subject(t, second) {
			t.Error("one person in two apps of one open platform has two subjects")
		}
		if subject(t, first) == subject(t, signIn(s, "bob")) {
			t.Error("two people have one subject")
		}
	})
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		s := startServer(t, manyPhones(), replacing(", open_platform: main", ""))
		if subject(t, signIn(s, "alice")) == subject(t, signInSecondApp(s, "alice")) {
			t.Error("apps without an open platform share a user")
		}
	})
	t.Run("two", func(t *testing.T) {
		t.Parallel()
		// WeChat says the same unionid, but the operator says that it is none.
		s := startServer(t, manyPhones(), replacing(testApp2Secret+", open_platform: main", testApp2Secret+", open_platform: other"))
		if subject(t, signIn(s, "alice")) == subject(t, signInSecondApp(s, "alice")) {
			t.Error("apps of two open platforms share a user")
		}
	})
}

// setOpenPlatform binds the first app to an open platform account at WeChat,
// or to none.
func setOpenPlatform(t testing.TB, s *testServer, name string) {
	t.Helper()
	if err := s.Sim.AddApp(simulator.App{AppID: testAppID, Secret: testAppSecret, OpenPlatform: name}); err != nil {
		t.Fatal(err)
	}
}

// TestThreat66LateUnionID: a unionid that WeChat sends only later belongs to
// the user who is there already.
func TestThreat66LateUnionID(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	setOpenPlatform(t, s, "")
	before := signIn(s, "alice")
	setOpenPlatform(t, s, "main")
	after := signIn(s, "alice", "scope", "openid wechat")
	elsewhere := signInSecondApp(s, "alice")
	if subject(t, before) != subject(t, after) || subject(t, after) != subject(t, elsewhere) {
		t.Errorf("subjects %s, %s and %s", subject(t, before), subject(t, after), subject(t, elsewhere))
	}
	info := s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(after.str("access_token")), phone())
	if info.str("wechat_unionid") != s.Sim.UnionID("main", "alice") {
		t.Errorf("UserInfo: %v", info)
	}
	if countUsers(s) != 1 {
		t.Errorf("%d users", countUsers(s))
	}
}

// TestThreat66Conflict: an openid and a unionid of two users merge nobody.
func TestThreat66Conflict(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	setOpenPlatform(t, s, "")
	first := signIn(s, "alice")
	second := signInSecondApp(s, "alice")
	setOpenPlatform(t, s, "main")
	again := signIn(s, "alice")
	if subject(t, first) == subject(t, second) || subject(t, again) != subject(t, first) {
		t.Errorf("subjects %s, %s and %s", subject(t, first), subject(t, second), subject(t, again))
	}
	line := eventOf(s, again, "identity.conflict")
	if line["sub"] != subject(t, first) || line["other_sub"] != subject(t, second) {
		t.Errorf("log line %v", line)
	}
}

// TestDefaultProfile: a new user gets the operator's nickname and picture.
func TestDefaultProfile(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withConfig(func(yaml string) string {
		return "users: { default_nickname: \"顾客{n}\", default_picture: \"https://img.example/p.png\" }\n" + yaml
	}))
	out := signIn(s, "alice")
	info := s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(out.str("access_token")), phone())
	number, ok := strings.CutPrefix(info.str("nickname"), "顾客")
	if _, err := strconv.Atoi(number); !ok || err != nil || len(number) != 4 || info.str("name") != info.str("nickname") {
		t.Errorf("UserInfo: %v", info)
	}
	if info.str("picture") != "https://img.example/p.png" || info.JSON["updated_at"] == nil {
		t.Errorf("UserInfo: %v", info)
	}
	again := signIn(s, "alice")
	if next := s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(again.str("access_token")), phone()); next.str("nickname") != info.str("nickname") {
		t.Error("the nickname changed with the second sign-in")
	}
}

// TestThreat63JSCodeForm: what cannot be a js_code is refused without a call,
// and what looks like parameters reaches WeChat as one value.
func TestThreat63JSCodeForm(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	for _, code := range []string{"", strings.Repeat("a", 257), "a b", "a\tb", "a\nb", "a\x7f", "代码", "a\u00a0", " a", "a "} {
		refused(t, s.Token(signInForm(code), phone()), 400, "invalid_request")
	}
	missing := signInForm("x")
	missing.Del("js_code")
	refused(t, s.Token(missing, phone()), 400, "invalid_request")
	out := s.Token(signInForm("the code is a mock one"), phone())
	refused(t, out, 400, "invalid_grant")
	if !strings.Contains(out.str("error_description"), "mock") {
		t.Errorf("%v does not say that the code is the developer tool's", out)
	}
	if n := s.Sim.RequestCount(); n != 0 {
		t.Fatalf("%d calls to WeChat", n)
	}
	for _, code := range []string{
		"x&appid=evil", "x&appid=" + testApp2 + "&secret=1", "x%26secret=1", "x#y", "x?y=1", "x;js_code=2", "x+y", "../x",
		"x&grant_type=evil", strings.Repeat("~", 256),
	} {
		s.Sim.ClearRequests()
		form := signInForm(code, "appid", testApp2, "secret", "evil", "openid", "evil")
		refused(t, s.Token(form, phone()), 400, "invalid_grant")
		requests := s.Sim.Requests()
		if len(requests) != 1 || requests[0].JSCode != code || requests[0].AppID != testAppID || requests[0].Errcode != 40029 {
			t.Errorf("js_code %.40q: WeChat saw %+v", code, requests)
		}
	}
}

// TestThreat63OtherAppsCode: a code of another mini-program signs nobody in.
func TestThreat63OtherAppsCode(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	code := s.Code(testApp2, "alice")
	refused(t, s.Token(signInForm(code), phone()), 400, "invalid_grant")
	if countUsers(s) != 0 {
		t.Error("a user was created")
	}
}

// TestThreat62Replay: a js_code reaches WeChat once, whether it was good or not.
func TestThreat62Replay(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	good := s.Code(testAppID, "alice")
	if out := s.Token(signInForm(good), phone()); out.Status != 200 {
		t.Fatal(out)
	}
	refused(t, s.Token(signInForm("never-issued"), phone()), 400, "invalid_grant")
	s.Sim.ClearRequests()
	for range 3 {
		refused(t, s.Token(signInForm(good), phone()), 400, "invalid_grant")
		refused(t, s.Token(signInForm("never-issued"), phone()), 400, "invalid_grant")
	}
	if n := s.Sim.RequestCount(); n != 0 {
		t.Errorf("%d calls to WeChat for codes it has seen", n)
	}
}

// TestThreat62DoubleTap: of one code sent 20 times at once, one signs in.
func TestThreat62DoubleTap(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	for range 5 {
		s.Sim.ClearRequests()
		code := s.Code(testAppID, "alice")
		var ok, invalid atomic.Int32
		parallel(20, func(int) {
			out, err := s.try(http.MethodPost, s.Issuer+"/oauth2/token", signInForm(code), phone())
			switch {
			case err == nil && out.Status == 200:
				ok.Add(1)
			case err == nil && out.Status == 400 && out.str("error") == "invalid_grant":
				invalid.Add(1)
			default:
				t.Errorf("%v %v", out, err)
			}
		})
		if ok.Load() != 1 || invalid.Load() != 19 || s.Sim.RequestCount() != 1 {
			t.Fatalf("%d succeeded, %d were refused, %d calls to WeChat", ok.Load(), invalid.Load(), s.Sim.RequestCount())
		}
	}
}

// TestThreat23StalePrincipal: a disabled user is out at once, everywhere.
func TestThreat23StalePrincipal(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	out := signIn(s, "alice")
	if err := s.parts.store.SetUserDisabled(context.Background(), subject(t, out), true); err != nil {
		t.Fatal(err)
	}
	refused(t, refresh(s, out.str("refresh_token")), 400, "invalid_grant")
	if userInfoOK(s, out.str("access_token")) || introspect(s, out.str("access_token"), basic(testBackend, testBackendKey)).JSON["active"] != false {
		t.Error("the access token of a disabled user is active")
	}
	refused(t, s.Token(signInForm(s.Code(testAppID, "alice")), phone()), 400, "access_denied")
	if err := s.parts.store.SetUserDisabled(context.Background(), subject(t, out), false); err != nil {
		t.Fatal(err)
	}
	refused(t, refresh(s, out.str("refresh_token")), 400, "invalid_grant")
	signIn(s, "alice")
}

// TestThreat78RiskUser: a user whom WeChat blocks keeps what they have and gets
// nothing new.
func TestThreat78RiskUser(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	out := signIn(s, "alice")
	if err := s.Sim.SetRisk("alice", simulator.RiskBlocked); err != nil {
		t.Fatal(err)
	}
	denied := s.Token(signInForm(s.Code(testAppID, "alice")), phone())
	refused(t, denied, 400, "access_denied")
	if denied.str("reason") != "wechat_risk_user" {
		t.Errorf("%v", denied)
	}
	if again := refresh(s, out.str("refresh_token")); again.Status != 200 {
		t.Errorf("refresh of a blocked user: %v", again)
	}
}
