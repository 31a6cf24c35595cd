package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/web"
)

// boundApps returns the appids of a user's WeChat accounts as `users show`
// has them without --reveal.
func boundApps(s *testServer, who string) string {
	s.t.Helper()
	var person struct {
		Identities []struct {
			AppID string `json:"appid"`
		} `json:"identities"`
	}
	decode(s.t, ctl(s, "users", "show", who, "--json"), &person)
	var apps []string
	for _, identity := range person.Identities {
		apps = append(apps, identity.AppID)
	}
	return strings.Join(apps, " ")
}

// secondBind is tryBind in the second app.
func secondBind(s *testServer, weChatUser, username, password string) answer {
	s.t.Helper()
	return s.Token(pairs("grant_type", "wechat_jscode", "client_id", "shop-mini-2", "js_code", s.Code(testApp2, weChatUser),
		"username", username, "password", password, "scope", "openid profile"), phone())
}

// setPasswordTo runs `users set-password` and returns what it printed.
func setPasswordTo(s *testServer, password string, args ...string) string {
	s.t.Helper()
	code, out, errs := runCLIWith(s.t, password, append(append([]string{"users", "set-password"}, args...), "--socket", s.Socket())...)
	if code != 0 {
		s.t.Fatalf("set-password %v: code %d, %s%s", args, code, out, errs)
	}
	return out
}

// withoutUnionIDs has no open platform, so that each app has users of its own.
var withoutUnionIDs = replacing("open_platform: main", "open_platform: ''")

// TestThreat23StrangerPutOut: who bound a WeChat account while knowing the
// password is still in after another password, which the operator is told, and
// is out after --unbind; the owner can bind then.
func TestThreat23StrangerPutOut(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	account := addAccount(s, "ming")
	foreign := tryBind(s, "mallory", "ming", testPassword)
	if sub(t, foreign) != account {
		t.Fatal("not bound")
	}
	const next, last = "canary-another-horse-82", "canary-third-horse-83"
	out := setPasswordTo(s, next, "username:ming")
	if !strings.Contains(out, "1 WeChat account(s) stay bound") || !strings.Contains(out, "wxidp users unbind "+account+" --all") {
		t.Errorf("the operator is not told: %s", out)
	}
	dead(s, "the password was changed", foreign)
	again := signIn(s, "mallory")
	if sub(t, again) != account {
		t.Fatal("the WeChat account is gone without --unbind")
	}
	refused(t, tryBind(s, "owner", "ming", next), http.StatusConflict, "already_bound")

	out = setPasswordTo(s, last, "username:ming", "--unbind")
	if !strings.Contains(out, "is changed") || !strings.Contains(out, "Removed 1 WeChat account(s) from "+account+", in "+testAppID) {
		t.Errorf("%s", out)
	}
	dead(s, "the stranger", again)
	if sub(t, signIn(s, "mallory")) == account {
		t.Error("the stranger is back")
	}
	for _, old := range []string{testPassword, next} {
		if got := tryBind(s, "mallory", "ming", old); got.Status == http.StatusOK {
			t.Errorf("an old password opens: %v", got)
		}
	}
	if sub(t, tryBind(s, "owner", "ming", last)) != account || sub(t, signIn(s, "owner")) != account {
		t.Error("the owner is out")
	}
	if events := s.Logs.Events("admin.users.unbind"); len(events) != 1 || events[0]["sub"] != account || events[0]["appid"] != testAppID || events[0]["from"] != "socket" {
		t.Errorf("audit: %v", events)
	}

	var set web.SetPasswordResponse
	decode(t, setPasswordTo(s, next, account, "--json"), &set)
	var unbound web.UnbindUserResponse
	decode(t, setPasswordTo(s, last, account, "--unbind", "--json"), &unbound)
	if set != (web.SetPasswordResponse{ID: account, Identities: 1}) || unbound.ID != account || strings.Join(unbound.AppIDs, " ") != testAppID || unbound.Identities != 0 {
		t.Errorf("%+v, %+v", set, unbound)
	}
	// Nothing is bound: nothing to tell, and nothing to remove.
	if out := setPasswordTo(s, next, account); strings.Contains(out, "WeChat") {
		t.Errorf("%s", out)
	}
	if out := setPasswordTo(s, last, account, "--unbind"); !strings.Contains(out, account+" has no WeChat account.") {
		t.Errorf("%s", out)
	}
	noneOf(t, "the log", s.Logs.String(), next, last, testPassword)
	checkLogLines(t, s.Logs.String())
}

// TestThreat72OperatorUnbinds: what the user is signed in to is over with the
// next request; what stays bound signs in anew.
func TestThreat72OperatorUnbinds(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withoutUnionIDs)
	account := addAccount(s, "ming")
	first, second := tryBind(s, "ming", "ming", testPassword), secondBind(s, "ming", "ming", testPassword)
	if sub(t, first) != account || sub(t, second) != account || boundApps(s, account) != testAppID+" "+testApp2 {
		t.Fatalf("bound in %q", boundApps(s, account))
	}
	for _, appID := range []string{testAppID, testApp2} {
		if table := ctl(s, "users", "show", account); !strings.Contains(table, appID) {
			t.Errorf("users show lacks %s: %s", appID, table)
		}
	}
	ctlFails(s, "in "+testAppID+", "+testApp2+": name one by its appid", "users", "unbind", account)
	ctlFails(s, "no WeChat account in that mini-program; those of the user are in "+testAppID, "users", "unbind", account, "--appid", "wx9999999999999999")
	signedIn(s, "refused", first)

	out := ctl(s, "users", "unbind", "wechat:"+testApp2+"/"+s.Sim.OpenID(testApp2, "ming"), "--appid", testAppID)
	if !strings.Contains(out, "Removed 1 WeChat account(s) from "+account+", in "+testAppID) || !strings.Contains(out, "1 left") || strings.Contains(out, "again") {
		t.Errorf("%s", out)
	}
	dead(s, "unbound", first)
	dead(s, "the other app", second)
	second = s.Token(pairs("grant_type", "wechat_jscode", "client_id", "shop-mini-2", "js_code", s.Code(testApp2, "ming"), "scope", "openid profile"), phone())
	if sub(t, second) != account {
		t.Errorf("the other app: %v", second)
	}
	if sub(t, signIn(s, "ming")) == account {
		t.Error("the WeChat account still leads to the user")
	}
	// The last identity goes, since the password is left; then there is none.
	var gone web.UnbindUserResponse
	decode(t, ctl(s, "users", "unbind", "username:ming", "--json"), &gone)
	if gone.ID != account || strings.Join(gone.AppIDs, " ") != testApp2 || gone.Identities != 0 || gone.LeadBack != nil {
		t.Errorf("%+v", gone)
	}
	dead(s, "unbound", second)
	for _, args := range [][]string{nil, {"--all"}, {"--appid", testApp2}} {
		ctlFails(s, "this user has no WeChat account", append([]string{"users", "unbind", account}, args...)...)
	}
	if got := tryBind(s, "carol", "ming", testPassword); sub(t, got) != account {
		t.Errorf("the user is lost: %v", got)
	}
	if events := s.Logs.Events("admin.users.unbind"); len(events) != 2 || events[0]["appid"] != testAppID || events[1]["appid"] != testApp2 || events[1]["sub"] != account {
		t.Errorf("audit: %v", events)
	}
	noneOf(t, "the log", s.Logs.String(), s.Sim.OpenID(testAppID, "ming"))
	checkLogLines(t, s.Logs.String())
}

// TestThreat72OperatorUnbindsByUnionID: a unionid that stays leads back, which
// the operator is told; --all leaves none.
func TestThreat72OperatorUnbindsByUnionID(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	account := addAccount(s, "ming")
	tryBind(s, "mallory", "ming", testPassword)
	inSecond := func() answer {
		return s.Token(pairs("grant_type", "wechat_jscode", "client_id", "shop-mini-2", "js_code", s.Code(testApp2, "mallory")), phone())
	}
	if sub(t, inSecond()) != account {
		t.Fatal("the unionid does not lead to the user")
	}
	var gone web.UnbindUserResponse
	decode(t, ctl(s, "users", "unbind", account, "--appid", testAppID, "--json"), &gone)
	if gone.Identities != 1 || strings.Join(gone.LeadBack, " ") != testAppID {
		t.Errorf("%+v", gone)
	}
	if sub(t, signIn(s, "mallory")) != account {
		t.Error("the unionid does not lead back")
	}
	if out := ctl(s, "users", "unbind", account, "--appid", testApp2); !strings.Contains(out, "the next sign-in in "+testApp2+" is this user again") {
		t.Errorf("%s", out)
	}
	inSecond()
	first, second := signIn(s, "mallory"), inSecond()
	out := ctl(s, "users", "unbind", account, "--all")
	if !strings.Contains(out, "Removed 2 WeChat account(s)") || !strings.Contains(out, "0 left") || strings.Contains(out, "again") {
		t.Errorf("%s", out)
	}
	dead(s, "first app", first)
	dead(s, "second app", second)
	if sub(t, signIn(s, "mallory")) == account || sub(t, inSecond()) == account {
		t.Error("a WeChat account still leads to the user")
	}
}

// TestThreat72OperatorKeepsLastWayIn: a user whom nothing would let in any more
// keeps all of the WeChat accounts.
func TestThreat72OperatorKeepsLastWayIn(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withoutUnionIDs)
	lone := signIn(s, "alice")
	imported, err := s.parts.store.ImportUsers(t.Context(), []storage.ImportRow{
		{AppID: testAppID, WeChatOpenID: s.Sim.OpenID(testAppID, "bob"), ExternalID: "42"},
		{AppID: testApp2, WeChatOpenID: "o-two", ExternalID: "42"},
	}, false)
	if err != nil || imported[0] != storage.ImportCreated || imported[1] != storage.ImportLinked {
		t.Fatal(imported, err)
	}
	for _, args := range [][]string{nil, {"--all"}, {"--appid", testAppID}} {
		out, errs := ctlFails(s, "nothing else would let this user in, so nothing was removed", append([]string{"users", "unbind", sub(t, lone)}, args...)...)
		for _, way := range []string{"set-password", "disable", "erase"} {
			if out != "" || !strings.Contains(errs, way) {
				t.Errorf("the refusal does not say what to do: %s%s", out, errs)
			}
		}
	}
	signedIn(s, "refused", lone)
	if len(s.Logs.Events("admin.users.unbind")) != 0 {
		t.Error("a refusal is in the audit")
	}
	// A phone number and an id of the product's own let in.
	dave := phoneSignIn(s, "dave", phoneCode(s, testAppID, "dave"))
	ctl(s, "users", "unbind", "phone:"+number(s, "dave"))
	dead(s, "unbound", dave)
	ctl(s, "users", "unbind", "external:42", "--all")
	if got := boundApps(s, "external:42"); got != "" {
		t.Errorf("bound in %q", got)
	}
	// A retired user has nothing.
	ctl(s, "users", "erase", sub(t, lone), "--yes", "--no-compact")
	ctlFails(s, "merged into another or erased", "users", "unbind", sub(t, lone), "--all")
	if out := s.overSocket(http.MethodPost, web.AdminUsersUnbind, `{"who":"external:42","appid":"`+testAppID+`","all":true}`); out.Status != http.StatusBadRequest {
		t.Errorf("one and all: %v", out)
	}
	if out := s.overSocket(http.MethodPost, web.AdminUsersUnbind, `{"who":"external:42","all":true}`); out.Status != http.StatusConflict {
		t.Errorf("nothing there: %v", out)
	}
}

// TestThreat23MergeOfDisabled: no merge lifts a ban or brings one.
func TestThreat23MergeOfDisabled(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	banned, other := sub(t, signIn(s, "banned")), addAccount(s, "ming")
	ctl(s, "users", "disable", banned)
	for _, pair := range [][]string{{banned, other}, {other, banned}} {
		for _, more := range [][]string{nil, {"--dry-run"}} {
			ctlFails(s, "one of the users is disabled; enable them first (wxidp users enable)", append(append([]string{"users", "merge"}, pair...), more...)...)
		}
	}
	if out := s.Token(signInForm(s.Code(testAppID, "banned")), phone()); out.Status != http.StatusBadRequest {
		t.Errorf("the banned user signs in: %v", out)
	}
	ctl(s, "users", "enable", banned)
	ctl(s, "users", "merge", banned, other)
	if sub(t, signIn(s, "banned")) != other {
		t.Error("not merged")
	}
}

// TestThreat23BanStays: unbinding does not let a banned person come back as
// somebody new.
func TestThreat23BanStays(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	addAccount(s, "ming")
	sub(t, tryBind(s, "ming", "ming", testPassword))
	ctl(s, "users", "disable", "username:ming")
	code, out, errs := runCLI(t, "users", "unbind", "username:ming", "--all", "--socket", s.Socket())
	if code != 1 || !strings.Contains(errs, "disabled") {
		t.Errorf("code %d, %s%s", code, out, errs)
	}
	refused(t, s.Token(signInForm(s.Code(testAppID, "ming")), phone()), http.StatusBadRequest, "access_denied")
	ctl(s, "users", "enable", "username:ming")
	ctl(s, "users", "unbind", "username:ming", "--all")
}
