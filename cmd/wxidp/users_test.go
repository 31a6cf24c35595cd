package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/web"
)

func TestUsersList(t *testing.T) {
	s := startServer(t, manyPhones())
	var ids []string
	for _, user := range []string{"alice", "bob", "carol"} {
		ids = append(ids, sub(t, signIn(s, user)))
	}
	account := addAccount(s, "ming")
	if _, err := s.parts.store.CreateAccount(t.Context(), storage.NewAccount{ExternalID: "42"}); err != nil {
		t.Fatal(err)
	}
	evil := "\x1b[2J\u202eevil"
	if _, err := s.parts.store.UpdateProfile(t.Context(), ids[0], storage.ProfileChange{Nickname: &evil}); err != nil {
		t.Fatal(err)
	}
	ctl(s, "users", "disable", ids[1])

	table := ctl(s, "users", "list")
	if head, _, _ := strings.Cut(table, "\n"); !slices.Equal(strings.Fields(head), []string{"ID", "CREATED", "STATE", "WAYS", "IN", "NICKNAME"}) {
		t.Errorf("the table begins with %q", head)
	}
	for id, want := range map[string]string{ids[0]: "wechat×1", ids[1]: "disabled", ids[2]: "active", account: "password"} {
		if row := lineWith(table, id); !strings.Contains(row, want) {
			t.Errorf("row %q lacks %q", row, want)
		}
	}
	if strings.Contains(table, "\x1b") || strings.Contains(table, "\u202e") || !strings.Contains(table, `\u{1b}[2J\u{202e}evil`) {
		t.Errorf("a nickname reaches the terminal as it is:\n%q", table)
	}
	lines := strings.Split(strings.TrimSpace(ctl(s, "users", "list", "--json")), "\n")
	if len(lines) != 5 {
		t.Fatalf("%d lines of JSON", len(lines))
	}
	var first web.UserLine
	decode(t, lines[0], &first)
	if first.ID == "" || first.State == "" || first.CreatedAt.IsZero() {
		t.Errorf("%+v", first)
	}
	for limit, want := range map[string]int{"1": 1, "4": 4, "5": 5, "100": 5, "0": 5} {
		if got := strings.Count(ctl(s, "users", "list", "--json", "--limit", limit), "\n"); got != want {
			t.Errorf("--limit %s: %d users, want %d", limit, got, want)
		}
	}
	// The pages of the API join to the same list.
	var paged []string
	for after := ""; ; {
		var page web.UsersResponse
		decode(t, string(s.overSocket(http.MethodGet, web.AdminUsers+"?limit=2&after="+after, "").Body), &page)
		for _, user := range page.Users {
			paged = append(paged, user.ID)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if len(paged) != 5 || !slices.IsSorted(paged) {
		t.Errorf("pages: %v", paged)
	}
}

func lineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

func TestUsersShow(t *testing.T) {
	s := startServer(t, manyPhones())
	id, tokens, personal := fullUser(s)
	openID, phone := s.Sim.OpenID(testAppID, "canary-alice"), number(s, "canary-alice")
	whos := []string{id, "username:CANARY-username-55", "phone:" + phone, "external:canary-external-66", "wechat:" + testAppID + "/" + openID}
	for _, who := range whos {
		out := ctl(s, "users", "show", who)
		if !strings.Contains(out, id) || !strings.Contains(out, "canary-nickname-77") {
			t.Errorf("%s: %s", who, out)
		}
		noneOf(t, "users show "+who, out, "canary-username-55", "canary-external-66", phone[3:], openID, personal[6])
		for _, sid := range []string{claims(t, tokens[0].str("access_token"))["sid"].(string), claims(t, tokens[1].str("access_token"))["sid"].(string)} {
			if !strings.Contains(out, sid) {
				t.Errorf("%s lacks the sign-in %s: %s", who, sid, out)
			}
		}
	}
	if events := s.Logs.Events("admin.users.reveal"); len(events) != 0 {
		t.Errorf("nobody looked, but %v", events)
	}
	out := ctl(s, "users", "show", id, "--reveal")
	for _, value := range personal {
		if !strings.Contains(out, value) {
			t.Errorf("--reveal lacks %q: %s", value, out)
		}
	}
	if events := s.Logs.Events("admin.users.reveal"); len(events) != 1 || events[0]["sub"] != id || events[0]["from"] != "socket" {
		t.Errorf("audit of looking: %v", events)
	}
	for who, want := range map[string]string{
		"external:nobody":                 "there is no such user",
		"AAAAAAAAAAAAAAAAAAAAAA":          "there is no such user",
		"wechat:" + testApp2 + "/nobody":  "there is no such user",
		"phone:+8613000000000":            "there is no such user",
		"alice":                           "name the user by id, or as username:NAME",
		"phone:13800138000":               "begins with +",
		"mail:canary@example.com":         "name the user by id",
		"external:canary\x1b[2J\r\nevent": "name the user by id",
	} {
		for _, command := range []string{"show", "disable", "enable", "export", "unbind"} {
			_, errs := ctlFails(s, want, "users", command, who)
			noneOf(t, "the error", errs, "canary@", "\x1b")
		}
		ctlFails(s, want, "users", "erase", who, "--yes")
		ctlFails(s, want, "sessions", "revoke", "--user", who)
		ctlFails(s, want, "users", "merge", who, id)
		ctlFails(s, want, "users", "merge", id, who)
	}
	noneOf(t, "the log", s.Logs.String(), append(personal, phone[3:])...)
	checkLogLines(t, s.Logs.String())
}

func TestUsersAdd(t *testing.T) {
	s := startServer(t, manyPhones())
	add := func(stdin string, args ...string) (int, string, string) {
		return runCLIWith(t, stdin, append([]string{"users", "add", "--socket", s.Socket()}, args...)...)
	}
	code, out, errs := add(testPassword+"\r\nmore", "--username", " Ming ", "--nickname", "小明", "--external-id", "42", "--json")
	var added web.UserResponse
	decode(t, out, &added)
	if person := shown(s, "username:ming"); code != 0 || person.ID != added.ID || person.ExternalID != "42" || person.Profile.Nickname != "小明" || !person.HasPassword {
		t.Errorf("code %d: %+v, %s", code, person, errs)
	}
	if got := tryBind(s, "alice", "MING", testPassword); sub(t, got) != added.ID {
		t.Errorf("the account does not open: %v", got)
	}
	if code, out, errs := add("", "--external-id", "43", "--no-password"); code != 0 || !strings.Contains(out, shown(s, "external:43").ID) {
		t.Errorf("without a password: code %d, %s%s", code, out, errs)
	}
	for _, test := range []struct {
		stdin, want string
		args        []string
	}{
		{testPassword, "exists already, and was left as it is: " + added.ID, []string{"--username", "ming", "--external-id", "42"}},
		{testPassword, "the username belongs to another user", []string{"--username", "ming"}},
		{testPassword, "the external id belongs to another user", []string{"--username", "li", "--external-id", "42"}},
		{testPassword, "a username has 1 to 128 bytes", []string{"--username", "a\x00b"}},
		{testPassword, "a nickname has", []string{"--username", "li", "--nickname", "\x1b[2J"}},
		{testPassword, "a picture is", []string{"--username", "li", "--picture", "http://x"}},
		{testPassword, "an external id has", []string{"--username", "li", "--external-id", " x"}},
		{strings.Repeat("x", 129), "a password has 1 to 128 bytes", []string{"--username", "li"}},
		{"\n" + testPassword, "no password in its first line", []string{"--username", "li"}},
		{"", "no password in its first line", []string{"--username", "li"}},
		{"", "name the user", nil},
		{"", "needs an --external-id", []string{"--username", "li", "--no-password"}},
		{testPassword, "needs a --username", []string{"--external-id", "44"}},
		{"", "unknown flag: --password", []string{"--username", "li", "--password", "x"}},
	} {
		code, out, errs := add(test.stdin, test.args...)
		if code != 1 || out != "" || !strings.Contains(errs, test.want) {
			t.Errorf("%q: code %d, %q, want %q: %s", test.args, code, out, test.want, errs)
		}
		noneOf(t, "the error", errs, testPassword)
	}
	noneOf(t, "the log", s.Logs.String(), testPassword, "小明")
	if events := s.Logs.Events("admin.users.add"); len(events) != 2 || events[0]["sub"] != added.ID {
		t.Errorf("audit: %v", events)
	}
}

func TestUsersSetPassword(t *testing.T) {
	s := startServer(t, manyPhones())
	id := addAccount(s, "ming")
	before := tryBind(s, "alice", "ming", testPassword)
	const next = "canary-another-horse-82"
	code, out, errs := runCLIWith(t, next, "users", "set-password", "username:ming", "--socket", s.Socket())
	if code != 0 || !strings.Contains(out, id) {
		t.Fatalf("code %d: %s%s", code, out, errs)
	}
	dead(s, "the password was changed", before)
	if got := tryBind(s, "bob", "ming", testPassword); got.Status == http.StatusOK {
		t.Errorf("the old password opens: %v", got)
	}
	if got := tryBind(s, "alice", "ming", next); sub(t, got) != id {
		t.Errorf("the new one does not: %v", got)
	}
	lone := sub(t, signIn(s, "carol"))
	if code, _, errs := runCLIWith(t, next, "users", "set-password", lone, "--socket", s.Socket()); code != 1 || !strings.Contains(errs, "no username") {
		t.Errorf("a user without a username: code %d, %s", code, errs)
	}
	noneOf(t, "the log", s.Logs.String(), next, testPassword)
}

// TestThreat23OperatorEnds: what an operator ends is over with the very next
// request, at each place.
func TestThreat23OperatorEnds(t *testing.T) {
	s := startServer(t, manyPhones())
	ended := func(user string, end func(tokens answer)) {
		t.Helper()
		tokens, other := signIn(s, user), signIn(s, "bystander")
		signedIn(s, user, tokens)
		end(tokens)
		dead(s, user, tokens)
		signedIn(s, "bystander of "+user, other)
	}
	ended("disabled", func(tokens answer) { ctl(s, "users", "disable", sub(t, tokens)) })
	if out := s.Token(signInForm(s.Code(testAppID, "disabled")), phone()); out.Status != http.StatusBadRequest {
		t.Errorf("sign-in of a disabled user: %v", out)
	}
	ctl(s, "users", "enable", "wechat:"+testAppID+"/"+s.Sim.OpenID(testAppID, "disabled"))
	signedIn(s, "enabled", signIn(s, "disabled"))
	ended("revoked", func(tokens answer) { ctl(s, "sessions", "revoke", "--user", sub(t, tokens)) })
	signedIn(s, "signed in anew", signIn(s, "revoked"))
	ended("erased", func(tokens answer) { ctl(s, "users", "erase", sub(t, tokens), "--yes", "--no-compact") })
	first, second := signIn(s, "two devices"), signIn(s, "two devices")
	ctl(s, "sessions", "revoke", claims(t, first.str("access_token"))["sid"].(string))
	dead(s, "one device", first)
	signedIn(s, "the other device", second)
	ctl(s, "sessions", "revoke", "--client", testClient)
	dead(s, "the client", second)
	signedIn(s, "the client, signed in anew", signIn(s, "two devices"))
	for event, want := range map[string]int{"admin.users.disable": 1, "admin.users.enable": 1, "admin.users.erase": 1, "admin.sessions.revoke": 3} {
		if got := s.Logs.Events(event); len(got) != want {
			t.Errorf("%d lines of %s, want %d", len(got), event, want)
		}
	}
}

func TestUsersExport(t *testing.T) {
	s := startServer(t, manyPhones())
	id, tokens, personal := fullUser(s)
	family := families(s)[0]
	file := filepath.Join(t.TempDir(), "alice.json")
	if out := ctl(s, "users", "export", "external:canary-external-66", "-o", file); out != "" {
		t.Errorf("printed %q", out)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	var person accounts.Person
	decode(t, string(raw), &person)
	if person.ID != id || len(person.Identities) != 1 || len(person.SignIns) != 2 || person.PhoneVerifiedAt.IsZero() || !person.HasPassword ||
		person.SignIns[0].ClientID != testClient || person.SignIns[0].CreatedAt.IsZero() {
		t.Errorf("%s", raw)
	}
	for _, value := range personal {
		if !strings.Contains(string(raw), value) {
			t.Errorf("the export lacks %q", value)
		}
	}
	noneOf(t, "the export", string(raw), canaryHash, "session_key", "secret", "***", tokens[0].str("refresh_token"), tokens[0].str("access_token"),
		string(family.Secret[:]))
	if printed := ctl(s, "users", "export", id); printed != string(raw) {
		t.Errorf("printed %s", printed)
	}
	ctlFails(s, "exists", "users", "export", id, "-o", file)
	if events := s.Logs.Events("admin.users.export"); len(events) != 3 || events[0]["sub"] != id {
		t.Errorf("audit: %v", events)
	}
	noneOf(t, "the log", s.Logs.String(), personal...)
}

// TestThreat66MergeSettlesConflict has WeChat's openid lead to one user and
// the unionid to another, and joins them.
func TestThreat66MergeSettlesConflict(t *testing.T) {
	platform := "secret: " + testAppSecret + ", open_platform: main"
	s := startServer(t, manyPhones(), replacing(platform, "secret: "+testAppSecret))
	second := func() answer {
		t.Helper()
		out, err := s.signIn("shop-mini-2", testApp2, "alice", phone())
		if err != nil || out.Status != http.StatusOK {
			t.Fatal(out, err)
		}
		return out
	}
	one, two := signIn(s, "alice"), second()
	u1, u2 := sub(t, one), sub(t, two)
	reload(s, "secret: "+testAppSecret, platform)
	again := signIn(s, "alice")
	if conflict := eventOf(s, again, "identity.conflict"); u1 == u2 || sub(t, again) != u1 || conflict["sub"] != u1 {
		t.Fatalf("%s, %s: %v", u1, u2, conflict)
	}

	out := ctl(s, "users", "merge", u2, u1, "--dry-run")
	if !strings.Contains(out, "Would merge "+u2+" into "+u1) || !strings.Contains(out, "1 WeChat account(s)") || !strings.Contains(out, "1 sign-in(s) would end") {
		t.Errorf("%s", out)
	}
	signedIn(s, "a dry run", two)
	if events := s.Logs.Events("admin.users.merge"); len(events) != 0 {
		t.Errorf("a dry run is in the audit: %v", events)
	}
	var merged web.MergeUsersResponse
	decode(t, ctl(s, "users", "merge", u2, u1, "--json"), &merged)
	if merged != (web.MergeUsersResponse{From: u2, Into: u1, Identities: 1, SignIns: 1}) {
		t.Errorf("%+v", merged)
	}
	dead(s, "the merged user", answer{JSON: map[string]any{"access_token": two.str("access_token"), "refresh_token": two.str("refresh_token")}})
	signedIn(s, "the user who stays", one)
	conflicts := len(s.Logs.Events("identity.conflict"))
	if a, b := sub(t, signIn(s, "alice")), sub(t, second()); a != u1 || b != u1 {
		t.Errorf("after the merge: %s and %s, want %s", a, b, u1)
	}
	if got := len(s.Logs.Events("identity.conflict")); got != conflicts {
		t.Error("the conflict goes on")
	}
	if person := shown(s, u1); len(person.Identities) != 2 {
		t.Errorf("%+v", person)
	}
	if row := lineWith(ctl(s, "users", "list"), u2); !strings.Contains(row, "retired") {
		t.Errorf("%q", row)
	}
	if person := shown(s, u2); person.State != accounts.StateRetired {
		t.Errorf("%+v", person)
	}
	ctlFails(s, "merged into another or erased", "users", "merge", u2, u1)
	ctlFails(s, "merged into another or erased", "users", "disable", u2)
	if events := s.Logs.Events("admin.users.merge"); len(events) != 1 || events[0]["sub"] != u2 || events[0]["into"] != u1 {
		t.Errorf("audit: %v", events)
	}
}

func TestUsersMergeRefusals(t *testing.T) {
	s := startServer(t, manyPhones())
	store := s.parts.store
	account := func(username, externalID string) string {
		t.Helper()
		res, err := store.CreateAccount(context.Background(), storage.NewAccount{Username: username, ExternalID: externalID})
		if err != nil {
			t.Fatal(err)
		}
		return res.UserID
	}
	alice, bob := sub(t, signIn(s, "alice")), sub(t, signIn(s, "bob"))
	carol := sub(t, phoneSignIn(s, "carol", phoneCode(s, testAppID, "carol")))
	dave, err := store.SignIn(t.Context(), storage.SignIn{AppID: testApp2, WeChatOpenID: "o-dave", Family: storage.Family{ClientID: "x"}, Absolute: 1 << 40,
		Phone: &storage.PhoneProof{E164: "+14155550123", SignIn: true}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ from, into, want string }{
		{alice, alice, "one user"},
		{alice, bob, "same mini-program"},
		{account("a", ""), account("b", ""), "both users have a username"},
		{account("", "1"), account("", "2"), "both users have an external id"},
		{carol, dave.UserID, "both users have a phone number"},
	} {
		for _, more := range [][]string{nil, {"--dry-run"}} {
			if out, _ := ctlFails(s, test.want, append([]string{"users", "merge", test.from, test.into}, more...)...); out != "" {
				t.Errorf("printed %q", out)
			}
		}
	}
	if out := ctl(s, "users", "merge", "username:a", alice); !strings.Contains(out, "the username with its password") {
		t.Errorf("%s", out)
	}
}

// TestUsersJSON: what programs read is stable.
func TestUsersJSON(t *testing.T) {
	s := startServer(t, manyPhones())
	id, _, _ := fullUser(s)
	var person, line, session map[string]json.RawMessage
	decode(t, ctl(s, "users", "show", id, "--json"), &person)
	decode(t, lineWith(ctl(s, "users", "list", "--json"), id), &line)
	decode(t, strings.SplitAfter(ctl(s, "sessions", "list", "--json"), "\n")[0], &session)
	for what, test := range map[string]struct {
		got  map[string]json.RawMessage
		want string
	}{
		"person":  {person, "id state created_at updated_at profile username has_password phone phone_verified_at external_id identities sign_ins"},
		"line":    {line, "id created_at state identities password phone external_id nickname"},
		"session": {session, "sid sub client_id appid scope audience amr auth_time created_at expires_at state"},
	} {
		for _, name := range strings.Fields(test.want) {
			if _, ok := test.got[name]; !ok {
				t.Errorf("%s lacks %s: %s", what, name, test.got)
			}
		}
	}
}
