package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wxidp/wxidp/wechat/simulator"
)

// reloadBound is what the manual promises for a saved change, and a second for
// a machine that does much else.
const reloadBound = 3 * time.Second

const noLimits = "\nrate_limits: { disabled: true }\n"

func withoutLimits() serverOption {
	return withConfig(func(yaml string) string { return noLimits + yaml })
}

// reloads is how often a changed configuration was applied and refused.
func (s *testServer) reloads() (applied, refused float64) {
	samples := s.metrics()
	return samples[`wxidp_config_reloads_total{result="applied"}`], samples[`wxidp_config_reloads_total{result="refused"}`]
}

// awaitReload edits the configuration and waits until it was applied.
func (s *testServer) awaitReload(oldnew ...string) {
	s.t.Helper()
	before, _ := s.reloads()
	s.editConfig(oldnew...)
	within(s.t, reloadBound, "the edit is applied", func() bool { now, _ := s.reloads(); return now > before })
}

const secondMini = `  - client_id: late-mini
    type: public
    wechat_appid: ` + testAppID + `
    grant_types: [wechat_jscode, refresh_token]
    scopes: [openid]
    default_scopes: [openid]
`

func TestReloadAddsAndRemovesAClient(t *testing.T) {
	t.Parallel()
	s := startServer(t, withoutLimits())
	kept := s.SignIn("kept")
	first := s.Config()
	s.WriteConfig(first + secondMini)
	within(t, reloadBound, "the added client signs in", func() bool {
		out, err := s.signIn("late-mini", testAppID, "late")
		return err == nil && out.Status == http.StatusOK
	})
	late, err := s.signIn("late-mini", testAppID, "late")
	if err != nil || late.Status != http.StatusOK {
		t.Fatalf("sign-in: %v, %v", late, err)
	}

	// UserInfo, because introspection is for the backend's own audience.
	alive := func() bool { return s.UserInfo(late.str("access_token")).Status == http.StatusOK }
	if !alive() {
		t.Fatal("the added client's token is dead")
	}
	s.WriteConfig(first)
	within(t, reloadBound, "Threat 87: the removed client's token is dead", func() bool { return !alive() })
	if out, err := s.refresh("late-mini", late.str("refresh_token")); err != nil || out.Status != http.StatusUnauthorized || out.str("error") != "invalid_client" {
		t.Errorf("refresh by a removed client: %v, %v", out, err)
	}
	s.WriteConfig(first + secondMini)
	within(t, reloadBound, "the client's tokens are back with it", alive)
	if out, err := s.refresh("late-mini", late.str("refresh_token")); err != nil || out.Status != http.StatusOK {
		t.Errorf("refresh by a client that is back: %v, %v", out, err)
	}
	if !s.Active(kept.str("access_token")) {
		t.Error("another client's token is dead")
	}
}

// TestThreat87BadReloadsChangeNothing breaks the file in every way that an
// operator may.
func TestThreat87BadReloadsChangeNothing(t *testing.T) {
	t.Parallel()
	const canary = "canary-in-a-bad-file"
	s := startServer(t, withoutLimits())
	good := s.Config()
	tests := []struct {
		name, yaml string
		want       string // in the log line
	}{
		{"not YAML", good + "\n\t: [" + canary, "config.yaml:"},
		{"half-written", good[:len(good)-len(good)/3] + "    client_secret: '" + canary, "config.yaml:"},
		{"empty", "", "issuer"},
		{"duplicate client_id", good + strings.Replace(secondMini, "late-mini", testClient, 1), "client_id"},
		{"wildcard redirect", good + secondMini + "    redirect_uris: [https://*." + canary + ".example/cb]\n", "redirect_uris"},
		{"http redirect", good + secondMini + "    redirect_uris: [http://" + canary + ".example/cb]\n", "redirect_uris"},
		{"unknown key", good + secondMini + "    secrte: " + canary + "\n", "secrte"},
		{"value of a wrong type", strings.Replace(good, "rate_limits: { disabled: true }", "rate_limits: { disabled: "+canary+" }", 1), "rate_limits.disabled"},
		{"restart needed", strings.Replace(good, storageConfig(t, s.Dir), "storage: { driver: bolt, bolt: { path: data/"+canary+".db } }", 1), "storage.bolt.path"},
		{"issuer changed", strings.Replace(good, s.Issuer, "https://"+canary+".example", 1), "issuer"},
	}
	for i, test := range tests {
		if test.yaml == good {
			t.Fatalf("%s: the edit does nothing", test.name)
		}
		s.WriteConfig(test.yaml)
		within(t, reloadBound, test.name+" is counted as refused", func() bool { _, refused := s.reloads(); return refused > float64(i) })
		events := s.Logs.Events("config.rejected")
		if len(events) != i+1 {
			t.Fatalf("%s: %d config.rejected lines, want %d", test.name, len(events), i+1)
		}
		if detail, _ := events[i]["detail"].(string); !strings.Contains(detail, test.want) {
			t.Errorf("%s: detail %q does not name %s", test.name, detail, test.want)
		}
		if out := s.SignIn(fmt.Sprintf("user-%d", i)); !s.Active(out.str("access_token")) {
			t.Errorf("%s: the last good configuration does not go on", test.name)
		}
	}
	// A file that others can read must not hold secrets.
	if err := os.Chmod(s.ConfigPath(), 0o644); err != nil {
		t.Fatal(err)
	}
	s.WriteConfig(good + "# changed\n")
	within(t, reloadBound, "a world-readable file with secrets is refused", func() bool { _, refused := s.reloads(); return refused > float64(len(tests)) })
	if err := os.Chmod(s.ConfigPath(), 0o600); err != nil {
		t.Fatal(err)
	}

	within(t, reloadBound, "the good file is taken again", func() bool { applied, _ := s.reloads(); return applied == 1 })
	if strings.Contains(s.Logs.String(), canary) {
		t.Error("a value of a bad file is in the log")
	}
	if _, refused := s.reloads(); refused != float64(len(tests)+1) || len(s.Logs.Events("config.rejected")) != len(tests)+1 {
		t.Errorf("%d bad files: counted %v times, logged %d times", len(tests)+1, refused, len(s.Logs.Events("config.rejected")))
	}
	if len(s.Logs.Events("config.applied")) != 1 {
		t.Errorf("config.applied logged %d times", len(s.Logs.Events("config.applied")))
	}
}

func TestReloadedSettingsTakeEffect(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	before := s.SignIn("alice")
	if before.JSON["expires_in"] != 900.0 {
		t.Fatalf("expires_in %v", before.JSON["expires_in"])
	}

	s.awaitReload("clients:\n", "tokens: { access_token_lifetime: 5m, refresh_grace: 0s }\nclients:\n")
	after := s.SignIn("alice")
	if after.JSON["expires_in"] != 300.0 {
		t.Errorf("expires_in %v after the lifetime was changed", after.JSON["expires_in"])
	}
	if out := s.Refresh(after.str("refresh_token")); out.Status != http.StatusOK {
		t.Fatalf("refresh: %v", out)
	}
	if out := s.Refresh(after.str("refresh_token")); out.str("error") != "invalid_grant" {
		t.Errorf("no grace is left, and the token before still gives %v", out)
	}
	if !s.Active(before.str("access_token")) {
		t.Error("a token from before the reload is dead")
	}

	// Limits: one at once, then none for a good while.
	s.awaitReload("clients:\n", "rate_limits: { sign_ins_per_ip_per_minute: 1 }\nclients:\n")
	limited := false
	for range 3 {
		out, err := s.signIn(testClient, testAppID, "bob")
		if err != nil {
			t.Fatal(err)
		}
		limited = limited || out.Status == http.StatusTooManyRequests
	}
	if !limited {
		t.Error("the new limit is not in force")
	}
	s.awaitReload("sign_ins_per_ip_per_minute: 1 ", "sign_ins_per_ip_per_minute: 100000 ")
	s.SignIn("bob")

	// The AppSecret: changed at WeChat first, then here.
	const changed = "canary-app-secret-changed-01"
	if err := s.Sim.AddApp(simulator.App{AppID: testAppID, Secret: changed, OpenPlatform: "main"}); err != nil {
		t.Fatal(err)
	}
	if out, err := s.signIn(testClient, testAppID, "carol"); err != nil || out.Status != http.StatusInternalServerError || out.str("error") != "server_error" {
		t.Fatalf("sign-in with an AppSecret that WeChat does not know: %v, %v", out, err)
	}
	s.awaitReload(testAppSecret, changed)
	s.SignIn("carol")

	// The log level: from here on only errors.
	s.awaitReload("clients:\n", "log: { level: error }\nclients:\n")
	issued := len(s.Logs.Events("token.issued"))
	s.SignIn("dave")
	if now := len(s.Logs.Events("token.issued")); now != issued {
		t.Error("token.issued is still logged at level error")
	}
	if leaked := strings.Contains(s.Logs.String(), changed); leaked {
		t.Error("the AppSecret is in the log")
	}
}

// TestReloadTakesSecretFiles changes files that the configuration names, not
// the configuration.
func TestReloadTakesSecretFiles(t *testing.T) {
	t.Parallel()
	s := prepareServer(t, withoutLimits(), replacing("secret: "+testAppSecret, "secret_file: secrets/app"))
	s.writeFile("secrets/app", "canary-not-yet-right\n")
	s.start()
	if out, err := s.signIn(testClient, testAppID, "alice"); err != nil || out.Status != http.StatusInternalServerError {
		t.Fatalf("sign-in with a wrong AppSecret: %v, %v", out, err)
	}
	s.writeFile("secrets/app", testAppSecret+"\n")
	within(t, reloadBound, "the corrected secret file is taken", func() bool {
		out, err := s.signIn(testClient, testAppID, "alice")
		return err == nil && out.Status == http.StatusOK
	})
	// A file that went away is refused; the last good secret stays.
	if err := os.Remove(filepath.Join(s.Dir, "secrets", "app")); err != nil {
		t.Fatal(err)
	}
	within(t, reloadBound, "the missing secret file is refused", func() bool { _, refused := s.reloads(); return refused == 1 })
	s.SignIn("alice")
}

// TestHundredReloadsUnderLoad reloads by SIGHUP, every fifth time with a bad
// file, while clients sign in, refresh and introspect. No request may fail and
// every change must be in force when the counter says so.
func TestHundredReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	s := prepareServer(t, withoutLimits())
	c := serveChild(t, s)
	good := s.Config()

	var failed failures
	var requests sync.WaitGroup
	stop := make(chan struct{})
	for worker := range 4 {
		requests.Go(func() {
			for round := 0; ; round++ {
				if err := s.userJourney(fmt.Sprintf("w%d-%d", worker, round%50)); err != nil {
					failed.add(err.Error())
				}
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(rand.IntN(10)) * time.Millisecond):
				}
			}
		})
	}

	rounds := 100
	if testing.Short() {
		rounds = 25
	}
	deadline := time.Now().Add(30 * time.Second)
	slowest := time.Duration(0)
	for round := range rounds {
		applied, refused := s.reloads()
		bad := round%5 == 4
		yaml := strings.Replace(good, "clients:\n", fmt.Sprintf("users: { default_nickname: round-%d }\nclients:\n", round), 1)
		if bad {
			yaml += "    nonsense: true\n"
		}
		replaceFile(t, s.ConfigPath(), yaml)
		c.Signal(syscall.SIGHUP)
		slowest = max(slowest, within(t, reloadBound, "the reload is counted", func() bool {
			nowApplied, nowRefused := s.reloads()
			return bad && nowRefused > refused || !bad && nowApplied > applied
		}))
		want := fmt.Sprintf("round-%d", round)
		if bad {
			want = fmt.Sprintf("round-%d", round-1)
		}
		if got := s.nicknameOfNewUser(t, fmt.Sprintf("new-%d", round)); got != want {
			t.Fatalf("round %d: a new user is called %q, want %q", round, got, want)
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %d reloads within 30 s", round)
		}
	}
	close(stop)
	requests.Wait()
	failed.report(t, "requests during reloads")
	served := s.metrics()[`wxidp_token_request_seconds_count{grant="refresh_token",result="ok"}`]
	if served < 50 {
		t.Errorf("only %v refreshes were made meanwhile: no load", served)
	}
	checkLogLines(t, c.Stdout.String())
	t.Logf("%d reloads, slowest %v, %v refreshes meanwhile", rounds, slowest, served)
}

// userJourney signs in, refreshes and introspects.
func (s *testServer) userJourney(user string) error {
	out, err := s.signIn(testClient, testAppID, user)
	if err != nil || out.Status != http.StatusOK {
		return fmt.Errorf("sign-in: %v, %v", out, err)
	}
	for range 2 {
		if out, err = s.refresh(testClient, out.str("refresh_token")); err != nil || out.Status != http.StatusOK {
			return fmt.Errorf("refresh: %v, %v", out, err)
		}
	}
	out, err = s.try(http.MethodPost, s.Issuer+"/oauth2/introspect", pairs("token", out.str("access_token")), basic(testBackend, testBackendKey))
	if err != nil || out.JSON["active"] != true {
		return fmt.Errorf("introspection: %v, %v", out, err)
	}
	return nil
}

func (s *testServer) nicknameOfNewUser(t testing.TB, user string) string {
	t.Helper()
	return s.UserInfo(s.SignIn(user).str("access_token")).str("nickname")
}

// replaceFile writes a file as editors and deployments do, in one step.
func replaceFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestReloadToAnAlgorithmWithoutKey turns EdDSA on and uses it in one edit. Its
// first key has to be published for a day, so nothing can be signed with it
// yet: the edit is refused, and no sign-in fails.
func TestReloadToAnAlgorithmWithoutKey(t *testing.T) {
	t.Parallel()
	s := startServer(t, withoutLimits())
	good := s.Config()
	for i, bad := range []string{
		"keys: { eddsa: true }\ntokens: { access_token_signing_alg: EdDSA }\n" + good,
		"keys: { eddsa: true }\n" + strings.Replace(good, "id_token_signed_response_alg: ES256", "id_token_signed_response_alg: EdDSA", 1),
	} {
		s.WriteConfig(bad)
		within(t, reloadBound, "the edit is refused", func() bool { _, refused := s.reloads(); return refused > float64(i) })
		if out := s.SignIn("alice"); !s.Active(out.str("access_token")) {
			t.Error("a token issued after the refusal is dead")
		}
	}
	events := s.Logs.Events("config.rejected")
	if detail, _ := events[len(events)-1]["detail"].(string); !strings.Contains(detail, "EdDSA") || !strings.Contains(detail, testClient) {
		t.Errorf("refused with %q", detail)
	}
	// Without using it, EdDSA can be turned on: its key is published and waits.
	s.WriteConfig("keys: { eddsa: true }\n" + good)
	within(t, reloadBound, "the edit is applied", func() bool { applied, _ := s.reloads(); return applied == 1 })
	eventually(t, "the EdDSA key is published", func() bool {
		return strings.Contains(string(s.Do(http.MethodGet, s.Issuer+"/.well-known/jwks.json", nil).Body), "EdDSA")
	})
	s.SignIn("alice")
	s.stop()
	// Nor may a restart come up unable to sign.
	s.WriteConfig("keys: { eddsa: true }\ntokens: { access_token_signing_alg: EdDSA }\n" + good)
	if err := s.startErr(); err == nil || !strings.Contains(err.Error(), "EdDSA") {
		t.Errorf("starting with an algorithm that has no key: %v", err)
	}
}

// TestEdDSAFromTheStart: nobody holds a JWK Set yet, so the first keys sign at
// once.
func TestEdDSAFromTheStart(t *testing.T) {
	t.Parallel()
	s := startServer(t, withConfig(func(yaml string) string {
		return "keys: { eddsa: true }\ntokens: { access_token_signing_alg: EdDSA }\n" + yaml
	}))
	out := s.SignIn("alice")
	if !s.Active(out.str("access_token")) || kid(t, out.str("access_token")) != s.currentKey("EdDSA") {
		t.Errorf("signed with %s", kid(t, out.str("access_token")))
	}
}
