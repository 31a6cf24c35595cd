package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat/simulator"
)

// TestThreat67PeopleCanaries runs all that knows a person (binding, phone,
// WeChat data, events, unbinding, the operator's commands), well and badly, and
// then looks for session_keys, numbers, passwords and secrets in everything
// that leaves the server or stays on its disk.
func TestThreat67PeopleCanaries(t *testing.T) {
	t.Parallel()
	product := startProductAccounts(t)
	s := startServer(t, manyPhones(), withDataClients(), withDataLimit(1000),
		withConfig(func(yaml string) string { return "log: { level: debug }\n" + yaml }))
	const user = "canary-person"
	if err := s.Sim.SetPhone(user, "86", "19912345670"); err != nil {
		t.Fatal(err)
	}
	const username, nickname, externalID = "canary-username-4Tz", "canary-nickname-8Wq", "canary-external-5Kp"
	var answers, refusals bytes.Buffer
	send := func(method, target string, form url.Values, edits ...func(*http.Request)) answer {
		t.Helper()
		out := s.Do(method, target, form, append(edits, phone())...)
		fmt.Fprintf(&answers, "%d %v\n%s\n", out.Status, out.Header, out.Body)
		if out.Status >= 400 {
			fmt.Fprintf(&refusals, "%d %v\n%s\n", out.Status, out.Header, out.Body)
		}
		return out
	}
	phoneCodes := canaries{}
	token := func(more ...string) answer {
		t.Helper()
		out := send(http.MethodPost, s.Issuer+"/oauth2/token", signInForm(s.Code(testAppID, user), more...))
		return out
	}
	phoneOf := func(who string) string {
		code := phoneCode(s, testAppID, who)
		phoneCodes[fmt.Sprintf("phone_code %d", len(phoneCodes))] = code
		return code
	}
	cli := func(want int, args ...string) string {
		t.Helper()
		code, stdout, stderr := runCLI(t, append(args, "--socket", s.Socket())...)
		if code != want {
			t.Errorf("%v: exit %d\n%s%s", args, code, stdout, stderr)
		}
		return stdout + stderr
	}
	// The session_keys that WeChat gave, as the store has them in custody.
	keys := canaries{}
	collect := func() {
		t.Helper()
		kept, _ := custody(s, user)
		for _, key := range kept {
			keys["session_key "+key[:4]] = key
		}
	}

	id := addAccount(s, username)
	bound := token("username", username, "password", testPassword, "phone_code", phoneOf(user), "scope", "openid profile phone roles")
	if sub(t, bound) != id {
		t.Fatal(bound)
	}
	collect()
	token("username", username, "password", "canary-wrong-pass-77")
	token("username", "canary-unknown-user", "password", testPassword)
	token("username", username, "password", strings.Repeat("canary-long", 20))
	token("phone_code", phoneOf("somebody-else"), "phone_change", "true")
	token("phone_code", "canary-phone-code-junk", "phone_change", "canary-change")
	send(http.MethodPost, s.Issuer+"/oauth2/token", pairs("grant_type", "wechat_phone", "client_id", testClient,
		"js_code", s.Code(testAppID, user), "phone_code", phoneOf(user)))
	access := bound.str("access_token")
	if send(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(access)).str("phone_number") != "+8619912345670" {
		t.Error("UserInfo has no phone number for its own user")
	}
	collect()

	data := openData(s, user, simulator.OpenDataUserInfo, 0)
	use := func(operation string, more ...string) answer {
		return send(http.MethodPost, s.Issuer+"/wechat/"+operation, pairs(append([]string{"access_token", access}, more...)...), basic("data-api", dataClientKey))
	}
	if out := use("decrypt", "encryptedData", data.EncryptedData, "iv", data.IV); out.Status != http.StatusOK {
		t.Errorf("decrypt: %v", out)
	}
	use("decrypt", "encryptedData", data.EncryptedData[:24], "iv", data.IV)
	use("verify-signature", "rawData", data.RawData, "signature", "0123")
	use("check-session")
	if out := use("reset-session"); out.Status != http.StatusOK {
		t.Errorf("reset-session: %v", out)
	}
	collect()
	if _, err := s.Sim.RotateSessionKey(testAppID, user); err != nil {
		t.Fatal(err)
	}
	use("decrypt", "encryptedData", data.EncryptedData[:24], "iv", data.IV)
	token()
	collect()
	send(http.MethodPost, s.Issuer+"/wechat/events/"+testAppID, pairs("canary", "event"))

	if _, err := s.parts.store.ImportUsers(context.Background(), []storage.ImportRow{
		{AppID: testAppID, WeChatOpenID: "oCANARYimportedQ7x", ExternalID: externalID, Profile: storage.Profile{Nickname: nickname}}}, false); err != nil {
		t.Fatal(err)
	}

	// The operator's side, masked unless asked for.
	masked := cli(0, "users", "list") + cli(0, "users", "list", "--json") + cli(0, "users", "show", id) + cli(0, "users", "show", id, "--json") +
		cli(0, "sessions", "list", "--user", id) + cli(0, "sessions", "list", "--json") + cli(0, "keys", "list")
	export := cli(0, "users", "export", id)
	if !strings.Contains(export, username) || !strings.Contains(export, "19912345670") || !strings.Contains(export, s.Sim.OpenID(testAppID, user)) {
		t.Errorf("the export lacks something:\n%s", export)
	}
	backup := filepath.Join(t.TempDir(), "backup.db")
	if !testsOnPostgres() {
		cli(0, "backup", backup)
	}
	metrics := s.Do(http.MethodGet, s.Admin+"/metrics", nil).Body
	goroutines := s.overSocket(http.MethodGet, "/debug/pprof/goroutine?debug=2", "").Body

	// And the same with the product's own account system.
	s.WriteConfig("accounts: {verifier: {url: \"" + product.URL + "/verify\", secret: " + testVerifierSecret + ", timeout: 500ms}}\n" + s.Config())
	eventually(t, "reload", func() bool { return len(s.Logs.Events("config.applied")) > 0 })
	for _, status := range []int32{0, 500, -1} {
		product.status.Store(status)
		send(http.MethodPost, s.Issuer+"/oauth2/token", signInForm(s.Code(testAppID, "ann"), "username", "ann", "password", testPassword))
	}
	time.Sleep(50 * time.Millisecond) // lets late log lines come
	s.stop()

	if len(keys) < 3 {
		t.Errorf("only %d session_keys were seen", len(keys))
	}
	// Nobody may ever see these, the user's own export included.
	secrets := keys.with(phoneCodes).with(canaries{
		"AppSecret": testAppSecret, "password": testPassword, "wrong password": "canary-wrong-pass-77", "verifier secret": testVerifierSecret,
		"client secret": dataClientKey, "junk phone_code": "canary-phone-code-junk",
	})
	// These are the user's and the operator's.
	person := canaries{
		"number": "19912345670", "username": username, "unknown username": "canary-unknown-user", "openid": s.Sim.OpenID(testAppID, user),
		"unionid": s.Sim.UnionID("main", user), "external id": externalID, "imported openid": "oCANARYimportedQ7x", "verifier URL": product.URL + "/verify",
	}
	logs := []byte(s.Logs.String())
	checkLogLines(t, string(logs))
	secrets.with(person).with(canaries{"nickname": nickname}).absent(t, "the log", logs)
	secrets.with(person).absent(t, "the metrics", metrics)
	secrets.with(person).absent(t, "the goroutine dump", goroutines)
	secrets.absent(t, "the answers", answers.Bytes())
	secrets.with(person).absent(t, "the refusals", refusals.Bytes())
	secrets.absent(t, "the export", []byte(export))
	secrets.with(canaries{"number": "19912345670", "openid": person["openid"], "unionid": person["unionid"], "imported openid": person["imported openid"], "external id": externalID}).absent(t, "the operator's tables", []byte(masked))
	places := map[string][]byte{"the data": s.storedBytes()}
	if !testsOnPostgres() {
		places["the backup"] = readBytes(t, backup)
	}
	for name, raw := range places {
		if !bytes.Contains(raw, []byte("signing-keys")) {
			t.Errorf("%s is not what was to be searched", name)
		}
		secrets.with(person).with(canaries{"nickname": nickname}).absent(t, name, bytes.TrimRight(raw, "\x00"))
	}
}
