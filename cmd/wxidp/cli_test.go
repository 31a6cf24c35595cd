package main

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wxidp/wxidp/config"
)

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "place")
	code, out, errs := runCLI(t, "init", "--dir", dir, "--issuer", "https://id.example.com", "--appid", "wx1111222233334444", "--client-id", "mini", "--audience", "https://api.example.com")
	if code != 0 || !strings.Contains(out, "config.yaml") || !strings.Contains(out, "WECHAT_SECRET") || !strings.Contains(out, "wxidp check") {
		t.Fatalf("init: code %d, %q, %q", code, out, errs)
	}
	configPath, keyPath := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "data", "master.key")
	for path, want := range map[string]os.FileMode{configPath: 0o600, keyPath: 0o600, filepath.Dir(keyPath): 0o700} {
		if got := fileMode(t, path); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
	key, err := os.ReadFile(keyPath)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, strings.TrimSpace(string(key))) {
		t.Error("init prints the master key")
	}

	// The result is what serve takes.
	env := []string{"WECHAT_SECRET=" + testAppSecret}
	loaded, err := config.Load(configPath, env)
	if err != nil {
		t.Fatalf("the new configuration: %v", err)
	}
	if c := loaded.Config; c.Issuer != "https://id.example.com" || c.WeChat.Apps[0].AppID != "wx1111222233334444" || c.Clients[0].ClientID != "mini" || c.Clients[0].Audience[0] != "https://api.example.com" {
		t.Errorf("init wrote %+v", c)
	}

	// Nothing is ever overwritten, and nothing is written beside what is there.
	if code, out, errs = runCLI(t, "init", "--dir", dir); code != 1 || out != "" || !strings.Contains(errs, "is there already; nothing was written") {
		t.Errorf("init again: code %d, %q, %q", code, out, errs)
	}
	if err := os.Remove(configPath); err != nil {
		t.Fatal(err)
	}
	if code, _, errs = runCLI(t, "init", "--dir", dir); code != 1 || !strings.Contains(errs, "master.key") {
		t.Errorf("init with a master key in place: code %d, %q", code, errs)
	}
	if _, err := os.Stat(configPath); err == nil {
		t.Error("a refused init wrote config.yaml")
	}
	if again, err := os.ReadFile(keyPath); err != nil || string(again) != string(key) {
		t.Error("the master key changed")
	}
}

func TestInitMakesAnotherKeyEachTime(t *testing.T) {
	seen := map[string]bool{}
	for range 3 {
		dir := t.TempDir()
		if code, _, errs := runCLI(t, "init", "--dir", dir); code != 0 {
			t.Fatal(errs)
		}
		key, err := os.ReadFile(filepath.Join(dir, "data", "master.key"))
		if err != nil || seen[string(key)] {
			t.Fatalf("%v, or a key twice", err)
		}
		seen[string(key)] = true
	}
}

func TestCheck(t *testing.T) {
	s := prepareServer(t)
	code, out, errs := runCLI(t, "check", "--config", s.ConfigPath())
	if code != 0 || errs != "" || !strings.Contains(out, "is valid") || !strings.Contains(out, "2 app(s), 3 client(s)") {
		t.Errorf("a valid file: code %d, %q, %q", code, out, errs)
	}
	if _, err := os.Stat(filepath.Join(s.Dir, "data", "wxidp.db")); err == nil {
		t.Error("check made a data file")
	}

	// Every fault at once, each with its line, and no value.
	const canary = "canary-value-of-a-fault"
	s.editConfig(
		"grant_types: [client_credentials]", "grant_types: ["+canary+"]",
		storageConfig(t, s.Dir), "storage: { driver: "+canary+" }",
		"wechat_appid: "+testApp2, "wechat_appid: "+canary,
		"introspection: true", "introspection: true\n    "+"unknown_key: "+canary)
	code, out, errs = runCLI(t, "check", "--config", s.ConfigPath())
	if code != 1 || out != "" {
		t.Errorf("a faulty file: code %d, %q", code, out)
	}
	for _, want := range []string{"clients[2].grant_types", "storage.driver", "clients[1].wechat_appid", "unknown_key"} {
		if !regexp.MustCompile(`(?m)^\S*config\.yaml:\d+: .*` + regexp.QuoteMeta(want)).MatchString(errs) {
			t.Errorf("no fault with a line names %s:\n%s", want, errs)
		}
	}
	for _, secret := range []string{canary, testAppSecret, testBackendKey, testAdminToken} {
		if strings.Contains(errs, secret) {
			t.Errorf("%s is in the output", secret)
		}
	}

	other := prepareServer(t)
	other.writeFile("data/master.key", "not a key\n")
	if code, _, errs = runCLI(t, "check", "--config", other.ConfigPath()); code != 1 || !strings.Contains(errs, "master key") || strings.Contains(errs, "not a key") {
		t.Errorf("a bad master key: code %d, %q", code, errs)
	}
	if code, _, errs = runCLI(t, "check", "--config", filepath.Join(t.TempDir(), "none.yaml")); code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("no file: code %d, %q", code, errs)
	}
}

func TestVersion(t *testing.T) {
	code, out, _ := runCLI(t, "version")
	if code != 0 || !regexp.MustCompile(`^wxidp \S+ \(commit \S+, go\S+ \w+/\w+\)\n$`).MatchString(out) {
		t.Errorf("version: code %d, %q", code, out)
	}
}

func TestHelp(t *testing.T) {
	for command, wants := range map[string][]string{
		"":            {"init", "serve", "dev", "simulator", "check", "keys", "version", "First steps"},
		"init":        {"--dir", "--issuer", "--appid", "ever overwritten", "copy of the master key"},
		"serve":       {"--config", "--drain", "--after-restore", "SIGHUP", "SIGTERM", "JSON", "WXIDP_CONFIG"},
		"dev":         {"--dir", "--listen", "--simulator-listen", "config.yaml"},
		"simulator":   {"--app", "--listen", "/control/", "loopback"},
		"check":       {"--config", "exit code is 1"},
		"keys":        {"list", "rotate", "revoke", "rewrap", "--socket", "--json"},
		"keys list":   {"--json"},
		"keys rotate": {"--alg", "published"},
		"keys revoke": {"KEY-ID", "compromised"},
		"keys rewrap": {"master key", "restart"},
		"health":      {"--admin", "--live", "--socket", "exit code", "WXIDP_ADMIN_LISTEN"},
		"version":     {"version"},
		"restore":     {"--verify", "--force", "--mark", "--after-restore=revoke-all", "--after-restore=accept", "pg_restore", "kept beside"},
		"backup":      {"wxidp restore", "pg_dump", "master key"},
	} {
		code, out, errs := runCLI(t, append(strings.Fields(command), "--help")...)
		if code != 0 || errs != "" {
			t.Errorf("%s --help: code %d, %q", command, code, errs)
		}
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("%s --help does not mention %q", command, want)
			}
		}
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{"nonsense"}, {"keys", "nonsense"}, {"serve", "extra"}, {"serve", "--nonsense"}, {"init", "x"}, {"keys", "revoke"}, {"simulator", "--app", "x"}} {
		code, out, errs := runCLI(t, args...)
		if code != 1 || out != "" || !strings.HasPrefix(errs, "wxidp: ") || strings.Count(errs, "\n") > 2 {
			t.Errorf("%v: code %d, %q, %q", args, code, out, errs)
		}
	}
}

// needShell skips a test that runs what dev prints where that is impossible;
// in CI it must be possible.
func needShell(t *testing.T) (sh string) {
	t.Helper()
	for _, tool := range []string{"curl", "sh", "sed", "awk", "base64"} {
		path, err := exec.LookPath(tool)
		switch {
		case err == nil && tool == "sh":
			sh = path
		case err == nil:
		case os.Getenv("CI") == "true":
			t.Fatalf("%s is missing", tool)
		default:
			t.Skipf("SKIPPED: %s is missing, the commands that dev prints were not run", tool)
		}
	}
	return sh
}

// TestDev does what a newcomer does: starts dev in an empty folder and pastes
// what it prints into a shell.
func TestDev(t *testing.T) {
	sh := needShell(t)
	dir := t.TempDir()
	address, admin, weChat := freeAddress(t), freeAddress(t), freeAddress(t)
	start := func() (*child, string) {
		t.Helper()
		c := startChild(t, dir, "dev", "--listen", address, "--admin-listen", admin, "--simulator-listen", weChat)
		eventually(t, "dev prints its commands", func() bool {
			if c.Gone() {
				t.Fatalf("dev ended: %s%s", c.Stdout, c.Stderr)
			}
			return strings.Contains(c.Stdout.String(), "Ctrl-C")
		})
		out := c.Stdout.String()
		begin, end := strings.Index(out, "# 1."), strings.Index(out, "# 6.")
		if begin < 0 || end < begin {
			t.Fatalf("dev prints no commands:\n%s", out)
		}
		return c, out[begin:end]
	}
	c, commands := start()
	sub := paste(t, sh, dir, commands)

	// The metrics and discovery URLs that it names are right.
	for _, url := range []string{"http://" + address + "/.well-known/openid-configuration", "http://" + admin + "/metrics"} {
		if !strings.Contains(c.Stdout.String(), url) {
			t.Errorf("dev does not print %s", url)
		}
		resp, err := testHTTP.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", url, resp.StatusCode)
		}
	}
	// A second dev beside it says which port is in the way.
	busy := startChild(t, t.TempDir(), "dev", "--listen", address, "--admin-listen", freeAddress(t), "--simulator-listen", freeAddress(t))
	if code := busy.ExitCode(); code != 1 || !strings.Contains(busy.Stderr.String(), address+" is in use") {
		t.Errorf("dev on a busy port: code %d, %q", code, busy.Stderr)
	}
	sameSimulator := startChild(t, t.TempDir(), "dev", "--listen", freeAddress(t), "--admin-listen", freeAddress(t), "--simulator-listen", weChat)
	if code := sameSimulator.ExitCode(); code != 1 || !strings.Contains(sameSimulator.Stderr.String(), weChat+" is in use") {
		t.Errorf("dev with a busy simulator port: code %d, %q", code, sameSimulator.Stderr)
	}

	// While it runs, the configuration can be edited.
	path := filepath.Join(dir, "wxidp-dev", "config.yaml")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, path, strings.Replace(string(before), "default_scopes: [openid]", "default_scopes: [openid, profile]", 1))
	within(t, reloadBound, "dev takes the edit", func() bool { return strings.Contains(c.Stderr.String(), "config.applied") })
	c.Signal(syscall.SIGINT)
	if code := c.ExitCode(); code != 0 {
		t.Errorf("dev ended by Ctrl-C: code %d, %s", code, c.Stderr)
	}

	// Started again in the same folder it goes on with what is there.
	edited, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, commands = start()
	if again := paste(t, sh, dir, commands); again != sub {
		t.Errorf("user alice is %q after a restart and was %q", again, sub)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(edited) {
		t.Error("dev wrote the configuration again")
	}
	c.Signal(syscall.SIGTERM)
	if code := c.ExitCode(); code != 0 {
		t.Errorf("dev ended by SIGTERM: code %d", code)
	}
	for _, file := range []string{"config.yaml", "data/master.key", "data/wxidp.db", "secrets/wechat", "secrets/orders-api"} {
		if got := fileMode(t, filepath.Join(dir, "wxidp-dev", file)); got != 0o600 {
			t.Errorf("%s has mode %o", file, got)
		}
	}
}

// paste runs the commands as a shell does and returns the user's sub.
func paste(t *testing.T, sh, dir, commands string) string {
	t.Helper()
	cmd := exec.Command(sh, "-eu")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(commands)
	cmd.Env = append(os.Environ(), "no_proxy=*", "NO_PROXY=*")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var objects []map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for decoder.More() {
		var object map[string]any
		if err := decoder.Decode(&object); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		objects = append(objects, object)
	}
	if len(objects) != 3 {
		t.Fatalf("the commands print %d JSON objects, want tokens, claims and introspection:\n%s", len(objects), out)
	}
	tokens, claims, introspection := objects[0], objects[1], objects[2]
	if tokens["access_token"] == nil || tokens["refresh_token"] == nil || tokens["id_token"] == nil || tokens["token_type"] != "Bearer" {
		t.Errorf("tokens: %v", tokens)
	}
	if claims["sub"] == nil || claims["client_id"] != demoClient || claims["exp"] == nil {
		t.Errorf("claims: %v", claims)
	}
	if introspection["active"] != true || introspection["sub"] != claims["sub"] || introspection["jti"] != claims["jti"] {
		t.Errorf("introspection: %v", introspection)
	}
	sub, _ := claims["sub"].(string)
	return sub
}

func TestSimulatorCommand(t *testing.T) {
	address := freeAddress(t)
	c := startChild(t, "", "simulator", "--listen", address, "--app", "wxaaaabbbbccccdddd:canary-simulated-secret:main", "--seed", "s")
	eventually(t, "the simulator says where it is", func() bool {
		if c.Gone() {
			t.Fatalf("the simulator ended: %s", c.Stderr)
		}
		out := c.Stdout.String() // comes in pieces
		return strings.Contains(out, "http://"+address) && strings.Contains(out, "appid=wxaaaabbbbccccdddd")
	})
	if out := c.Stdout.String(); strings.Contains(out, "canary-simulated-secret") {
		t.Errorf("it prints %q", out)
	}
	s := &testServer{t: t}
	login := s.Do(http.MethodPost, "http://"+address+"/control/login?format=text", pairs("appid", "wxaaaabbbbccccdddd", "user", "alice"))
	if login.Status != http.StatusOK {
		t.Fatal(login)
	}
	exchange := s.Do(http.MethodGet, "http://"+address+"/sns/jscode2session?appid=wxaaaabbbbccccdddd&secret=canary-simulated-secret&grant_type=authorization_code&js_code="+strings.TrimSpace(string(login.Body)), nil)
	if exchange.str("openid") == "" || exchange.str("unionid") == "" || exchange.str("session_key") == "" {
		t.Errorf("code2Session: %v", exchange)
	}
	if code, _, errs := runCLI(t, "simulator", "--listen", address); code != 1 || !strings.Contains(errs, address+" is in use") {
		t.Errorf("a second simulator: code %d, %q", code, errs)
	}
	c.Signal(syscall.SIGTERM)
	begin := time.Now()
	if code := c.ExitCode(); code != 0 || time.Since(begin) > 10*time.Second {
		t.Errorf("ended with code %d after %v", code, time.Since(begin))
	}
}
