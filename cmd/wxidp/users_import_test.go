package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// writeRows writes a file to import.
func writeRows(t testing.TB, name string, lines ...string) string {
	t.Helper()
	return writeFile(t, name, strings.Join(lines, "\n")+"\n")
}

func writeFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// imported runs an import and returns its summary.
func imported(s *testServer, wantCode int, args ...string) (summary importSummary, stderr string) {
	s.t.Helper()
	code, out, errs := runCLIWith(s.t, "", append(append([]string{"users", "import"}, args...), "--json", "--socket", s.Socket())...)
	if code != wantCode {
		s.t.Fatalf("import %v: code %d, want %d: %s%s", args, code, wantCode, out, errs)
	}
	decode(s.t, out, &summary)
	return summary, errs
}

// counts are the counts of a summary: created, linked, unchanged, faults.
func (s importSummary) counts() [4]int { return [4]int{s.Created, s.Linked, s.Unchanged, s.Faults} }

// TestUsersImport moves WeChat users in: they sign in as themselves, and the
// product finds its own ids.
func TestUsersImport(t *testing.T) {
	s := startServer(t, manyPhones())
	bob := sub(t, signIn(s, "bob")) // before the import
	openID := func(appid, user string) string { return s.Sim.OpenID(appid, user) }
	union := s.Sim.UnionID("main", "alice")
	csvFile := writeRows(t, "users.csv",
		"external_id,appid,openid,unionid,nickname",
		"42,"+testAppID+","+openID(testAppID, "alice")+","+union+",=HYPERLINK(\"\"x\"\")",
		"42,"+testApp2+","+openID(testApp2, "alice")+","+union+",",
		"43,"+testAppID+","+openID(testAppID, "bob")+",,小波",
	)
	if got, _ := imported(s, 1, csvFile); got.counts() != [4]int{1, 1, 0, 1} { // a quote inside an unquoted value
		t.Errorf("%+v", got)
	}
	raw := strings.Replace(string(readBytes(t, csvFile)), `=HYPERLINK(""x"")`, `"=HYPERLINK(""x"")"`, 1)
	if err := os.WriteFile(csvFile, []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, errs := imported(s, 0, csvFile); got.counts() != [4]int{0, 1, 2, 0} || got.Rows != 3 || got.NextLine != 0 || errs != "" {
		t.Errorf("%+v, %s", got, errs)
	}
	if got, _ := imported(s, 0, csvFile); got.counts() != [4]int{0, 0, 3, 0} {
		t.Errorf("again: %+v", got)
	}
	users := countUsers(s)

	alice := signIn(s, "alice", "scope", "openid profile external_id")
	info := s.UserInfo(alice.str("access_token"))
	if info.str("external_id") != "42" || info.str("sub") != shown(s, "external:42").ID || countUsers(s) != users {
		t.Errorf("UserInfo says %v", info)
	}
	if person := shown(s, "external:43"); person.ID != bob || sub(t, signIn(s, "bob")) != bob || person.Profile.Nickname == "小波" {
		t.Errorf("who signed in before the import is %+v", person)
	}
	second, err := s.signIn("shop-mini-2", testApp2, "alice", phone())
	if err != nil || sub(t, second) != sub(t, alice) {
		t.Errorf("in the other mini-program alice is another user: %v, %v", second, err)
	}
	if len(s.Logs.Events("identity.conflict")) != 0 {
		t.Error("a sign-in after the import is a conflict")
	}
	noneOf(t, "the log", s.Logs.String(), openID(testAppID, "alice"), openID(testAppID, "bob"), union, "小波", "HYPERLINK")
	if events := s.Logs.Events("admin.users.import"); len(events) != 3 || events[1]["rows"] != 3.0 || events[1]["linked"] != 1.0 {
		t.Errorf("audit: %v", events)
	}
}

// TestUsersImportPasswords: hashes of other systems open accounts, and are
// replaced at the first sign-in.
func TestUsersImportPasswords(t *testing.T) {
	s := startServer(t, manyPhones())
	bcryptHash, err := bcrypt.GenerateFromPassword([]byte(testPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	salt := []byte("canary-salt-0123")
	argonHash := fmt.Sprintf("$argon2i$v=19$m=64,t=1,p=1$%s$%s", base64.RawStdEncoding.EncodeToString(salt),
		base64.RawStdEncoding.EncodeToString(argon2.Key([]byte(testPassword), salt, 1, 64, 1, 32)))
	file := writeRows(t, "accounts.ndjson",
		fmt.Sprintf(`{"username":"Ming","password_hash":%q,"external_id":42}`, bcryptHash),
		fmt.Sprintf(`{"username":"li","password_hash":%q}`, argonHash),
	)
	if got, _ := imported(s, 0, file); got.counts() != [4]int{2, 0, 0, 0} {
		t.Fatalf("%+v", got)
	}
	for username, old := range map[string]string{"ming": string(bcryptHash), "li": argonHash} {
		if account, err := s.parts.store.AccountByUsername(t.Context(), username); err != nil || account.PasswordHash != old {
			t.Fatal(account, err)
		}
		if out := tryBind(s, "wechat of "+username, username, testPassword); sub(t, out) != shown(s, "username:"+username).ID {
			t.Errorf("%s: %v", username, out)
		}
		account, err := s.parts.store.AccountByUsername(t.Context(), username)
		if err != nil || !strings.HasPrefix(account.PasswordHash, "$argon2id$") {
			t.Errorf("%s: the hash was not upgraded (%v)", username, err)
		}
		if out := tryBind(s, "wechat of "+username, username, testPassword); sub(t, out) != account.UserID {
			t.Errorf("%s with the upgraded hash: %v", username, out)
		}
	}
	// Importing again does not bring an old password back.
	got, errs := imported(s, 0, file)
	if got.counts() != [4]int{0, 0, 2, 0} || errs != "" {
		t.Errorf("%+v, %s", got, errs)
	}
	// An external id on one side only does not say that it is the same account.
	sides := writeRows(t, "sides.csv", "external_id,username,password_hash", "43,li,"+string(bcryptHash), ",ming,"+string(bcryptHash))
	got, errs = imported(s, 1, sides)
	if got.counts() != [4]int{0, 0, 0, 2} || strings.Count(errs, "this username belongs to another account already, whose external_id is another or missing") != 2 {
		t.Errorf("%+v, %s", got, errs)
	}
	for _, username := range []string{"ming", "li"} {
		if account, err := s.parts.store.AccountByUsername(t.Context(), username); err != nil || !strings.HasPrefix(account.PasswordHash, "$argon2id$") {
			t.Errorf("%s: the second import changed the password (%v)", username, err)
		}
	}
	noneOf(t, "the error", errs, argonHash, "li\"")
	noneOf(t, "the log", s.Logs.String(), argonHash, string(bcryptHash), testPassword)
}

func TestUsersImportFaults(t *testing.T) {
	s := startServer(t, manyPhones())
	disabled := writeRows(t, "first.csv", "external_id,appid,openid", "77,"+testAppID+",oCANARY77")
	imported(s, 0, disabled)
	ctl(s, "users", "disable", "external:77")
	file := writeRows(t, "users.csv",
		"\xef\xbb\xbfexternal_id,appid,wechat_openid,unionid,nickname,username,password_hash\r",
		"1,"+testAppID+",oCANARY1,,ok,,\r",
		"2,wxCANARY,oCANARY2,,,,\r",
		"3,"+testAppID+",oCANARY77,,,,\r",
		"1,"+testAppID+",oCANARY4,,,,\r",
		"5,"+testAppID+",oCANARY5,,\x1b[2JCANARY,,\r",
		"6,"+testAppID+",oCANARY\x00,,,,\r",
		"7,"+testAppID+",oCANARY7\r",
		"8,"+testAppID+","+strings.Repeat("CANARY", 1<<18)+",,,,\r",
		"\r",
		"9,,,,,CANARYname,CANARYhash\r",
		"77,"+testApp2+",oCANARY10,,,,\r",
		"11,"+testAppID+",\"oCANARY,,,,\r",
		"12,"+testAppID+",oCANARY12,,=1+1,,\r",
	)
	got, errs := imported(s, 1, file)
	if got.counts() != [4]int{2, 0, 0, 10} || got.Rows != 12 {
		t.Errorf("%+v", got)
	}
	var lines []string
	for line, want := range map[int]string{
		3: "not one of wechat.apps", 4: "user with another external_id", 5: "another openid of the same appid", 6: "nickname is not", 7: "wechat_openid is not",
		8: "3 values and 7 columns", 9: "longer than 65536 bytes", 11: "password_hash is not a password hash that can be checked", 12: "user is disabled", 13: "a quote is not",
	} {
		lines = append(lines, fmt.Sprintf("%s:%d: ", file, line))
		if got := lineWith(errs, fmt.Sprintf("%s:%d: ", file, line)); !strings.Contains(got, want) {
			t.Errorf("line %d: %q, want %q", line, got, want)
		}
	}
	if n := strings.Count(errs, file); n != len(lines) || !strings.Contains(errs, "10 row(s) were not taken") {
		t.Errorf("%d faults: %s", n, errs)
	}
	noneOf(t, "standard error", errs, "CANARY", "\x1b", "\x00")
	faults := filepath.Join(t.TempDir(), "faults.txt")
	if _, rest := imported(s, 1, file, "--faults", faults); strings.Contains(rest, ":3:") {
		t.Errorf("standard error %s", rest)
	}
	if raw := readBytes(t, faults); strings.Count(string(raw), "\n") != 10 || strings.Index(string(raw), ":3:") > strings.Index(string(raw), ":13:") {
		t.Errorf("%s", raw)
	}
	if person := shown(s, "external:12"); person.Profile.Nickname != "=1+1" {
		t.Errorf("%+v", person)
	}
	noneOf(t, "the log", s.Logs.String(), "CANARY")
	checkLogLines(t, s.Logs.String())

	for want, args := range map[string][]string{
		"no such file":              {filepath.Join(t.TempDir(), "none.csv")},
		"--format is csv or ndjson": {file, "--format", "xml"},
		"counted from 1":            {file, "--from-line", "0"},
		"there is no --faults":      {file, "--force"},
		"the header is there twice": {writeRows(t, "twice.csv", "openid,external_id,openid", "a,b,c")},
	} {
		ctlFails(s, want, append([]string{"users", "import"}, args...)...)
	}
}

func TestUsersImportDryRun(t *testing.T) {
	s := startServer(t, manyPhones())
	file := writeRows(t, "users.csv", "external_id,appid,openid,unionid", "1,"+testAppID+",o1,u1", "2,"+testAppID+",o1,", "3,wx,o3,")
	users := countUsers(s)
	if got, _ := imported(s, 1, file, "--dry-run"); got.counts() != [4]int{1, 0, 0, 2} || !got.DryRun {
		t.Errorf("%+v", got)
	}
	if countUsers(s) != users || len(s.Logs.Events("admin.users.import")) != 0 {
		t.Error("a dry run did something")
	}
	s2 := startServer(t, replacing("secret: "+testAppSecret+", open_platform: main", "secret: "+testAppSecret))
	got, errs := imported(s2, 0, writeRows(t, "users.csv", "external_id,appid,openid,unionid", "1,"+testAppID+",o1,u1"))
	if got.UnionIDsNotKept != 1 || !strings.Contains(errs, "open_platform") {
		t.Errorf("%+v, %s", got, errs)
	}
}

// manyRows writes a file of n users and returns it.
func manyRows(t testing.TB, n int) string {
	t.Helper()
	lines := make([]string, 0, n+1)
	lines = append(lines, "external_id,appid,openid")
	for i := range n {
		lines = append(lines, fmt.Sprintf("cust-%d,%s,oMany%d", i, testAppID, i))
	}
	return writeRows(t, "many.csv", lines...)
}

// TestUsersImportResumes kills the server in the middle of an import, and goes
// on where the command says.
func TestUsersImportResumes(t *testing.T) {
	s := prepareServer(t)
	server := serveChild(t, s)
	const n = 60_000
	file := manyRows(t, n)
	cli := startChild(t, "", "users", "import", file, "--json", "--socket", s.Socket())
	rows := func() int { return strings.Count(server.Stdout.String(), `"admin.users.import"`) }
	eventually(t, "the import is on its way", func() bool { return rows() >= 3 })
	server.Kill()
	if code := cli.ExitCode(); code != 1 {
		t.Fatalf("code %d: %s", code, cli.Stderr)
	}
	var first importSummary
	decode(t, cli.Stdout.String(), &first)
	done := first.Created
	if first.NextLine != done+2 || done < 3000 || done >= n || !strings.Contains(cli.Stderr.String(), fmt.Sprintf("go on with --from-line %d", first.NextLine)) {
		t.Fatalf("%+v: %s", first, cli.Stderr)
	}
	_ = serveChild(t, s)
	got, _ := imported(s, 0, file, "--from-line", fmt.Sprint(first.NextLine))
	// What was committed and not answered is there already.
	if got.Rows != n-done || got.Faults != 0 || got.Unchanged > 1000 || got.Created+got.Unchanged != got.Rows {
		t.Errorf("%+v after %+v", got, first)
	}
	if again, _ := imported(s, 0, file); again.counts() != [4]int{0, 0, n, 0} {
		t.Errorf("the whole file again: %+v", again)
	}
}

func TestUsersImportInterrupted(t *testing.T) {
	s := prepareServer(t)
	server := serveChild(t, s)
	cli := startChild(t, "", "users", "import", manyRows(t, 60_000), "--socket", s.Socket())
	eventually(t, "the import is on its way", func() bool { return strings.Contains(server.Stdout.String(), `"admin.users.import"`) })
	cli.Signal(syscall.SIGINT)
	if code := cli.ExitCode(); code != 1 || !strings.Contains(cli.Stderr.String(), "wxidp: interrupted; go on with --from-line") || !strings.Contains(cli.Stdout.String(), " rows (") {
		t.Errorf("code %d: %s%s", code, cli.Stdout, cli.Stderr)
	}
}

// TestUsersImportKeepsFaults: the list of faults is neither lost nor put in the
// place of something else.
func TestUsersImportKeepsFaults(t *testing.T) {
	s := startServer(t, manyPhones())
	file := writeRows(t, "users.csv", "external_id,appid,openid", "1,wx,o1", "2,"+testAppID+",o2", "3,wx,o3")
	before := string(readBytes(t, file))
	faults := filepath.Join(t.TempDir(), "faults.txt")
	lines := func(want ...string) {
		t.Helper()
		text := ""
		for _, line := range want {
			text += file + ":" + line + ": this appid is not one of wechat.apps in the configuration; add it there first\n"
		}
		if got := string(readBytes(t, faults)); got != text {
			t.Errorf("%q, want lines %v", got, want)
		}
	}
	imported(s, 1, file, "--faults", faults)
	lines("2", "4")
	imported(s, 1, file, "--faults", faults, "--from-line", "3")
	lines("2", "4", "4")
	ctlFails(s, "is there already and not empty", "users", "import", file, "--faults", faults)
	headless := writeRows(t, "bad.csv", "external_id,no_column")
	ctlFails(s, "column 2 of the header", "users", "import", headless, "--faults", faults, "--force")
	ctlFails(s, "past the end", "users", "import", file, "--faults", faults, "--from-line", "9")
	lines("2", "4", "4")
	imported(s, 1, file, "--faults", faults, "--force")
	lines("2", "4")
	if err := os.Truncate(faults, 0); err != nil {
		t.Fatal(err)
	}
	imported(s, 1, file, "--faults", faults)
	lines("2", "4")

	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{file}, {link}, {link, "--force"}, {file, "--force"}, {link, "--from-line", "3"}} {
		ctlFails(s, "is the file with the users", append([]string{"users", "import", file, "--faults"}, args...)...)
	}
	if after := string(readBytes(t, file)); after != before {
		t.Errorf("the file with the users is %q", after)
	}
}

// TestUsersImportNothing: what has no rows is said to have none.
func TestUsersImportNothing(t *testing.T) {
	s := startServer(t, manyPhones())
	const header = "external_id,appid,openid"
	rows := writeRows(t, "rows.csv", header, "1,"+testAppID+",o1", "2,"+testAppID+",o2")
	for _, test := range []struct {
		code int
		want string
		args []string
	}{
		{0, "head.csv has no rows: nothing was imported", []string{writeRows(t, "head.csv", header)}},
		{0, "blank.csv has no rows: nothing was imported", []string{writeRows(t, "blank.csv", header, "", "")}},
		{0, "blank.ndjson has no rows: nothing was imported", []string{writeRows(t, "blank.ndjson", ""), "--format", "ndjson"}},
		{0, "rows.csv has no rows from line 4 on: nothing was imported", []string{rows, "--from-line", "4"}}, // after the last
		{1, "rows.csv: --from-line 5 is past the end: the last line is 3", []string{rows, "--from-line", "5"}},
		{1, "rows.csv: --from-line 90 is past the end: the last line is 3", []string{rows, "--from-line", "90", "--dry-run"}},
		{1, "empty.csv: the file is empty", []string{writeFile(t, "empty.csv", "")}},
	} {
		code, out, errs := runCLIWith(t, "", append(append([]string{"users", "import"}, test.args...), "--socket", s.Socket())...)
		if code != test.code || !strings.Contains(errs, test.want) || strings.Count(errs, "\n") != 1 || (out == "") != (code == 1) {
			t.Errorf("%v: code %d, %s%s", test.args, code, out, errs)
		}
	}
	if users := countUsers(s); users != 0 {
		t.Errorf("%d users", users)
	}
	if got, errs := imported(s, 0, rows, "--from-line", "3"); got.counts() != [4]int{1, 0, 0, 0} || errs != "" {
		t.Errorf("the last line: %+v, %s", got, errs)
	}
}

// TestUsersImportWaits: an import that waits for input ends when it is told to.
func TestUsersImportWaits(t *testing.T) {
	s := startServer(t, manyPhones())
	for input, next := range map[string]int{
		"external_id,appid,openid\n1," + testAppID + ",o1\n2,": 2,
		"": 1,
	} {
		in, keyboard := io.Pipe()
		ctx, cancel := context.WithCancel(context.Background())
		var out, errs bytes.Buffer
		root := rootCommand()
		root.SetArgs([]string{"users", "import", "-", "--json", "--socket", s.Socket()})
		root.SetIn(in)
		root.SetOut(&out)
		root.SetErr(&errs)
		ended := make(chan error, 1)
		go func() { ended <- root.ExecuteContext(ctx) }()
		for line := range strings.Lines(input) { // once one was read, those before it were taken in
			if _, err := io.WriteString(keyboard, line); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		select {
		case err := <-ended:
			if want := fmt.Sprintf("interrupted; go on with --from-line %d,", next); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%q: %v, want %s", input, err, want)
			}
			var summary importSummary
			if decode(t, out.String(), &summary); summary.NextLine != next || summary.Rows != 0 {
				t.Errorf("%q: %+v", input, summary)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the import goes on waiting")
		}
		_ = keyboard.Close() // lets the reader go
	}
}
