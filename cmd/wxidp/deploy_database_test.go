package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mustHave skips the test where a program is missing, but not in CI.
func mustHave(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// TestUsersOfTheDatabase runs deploy/postgres/roles.sql. What it calls wxidp has
// another name here, because the tests' administrator is called so.
func TestUsersOfTheDatabase(t *testing.T) {
	mustHave(t, "psql")
	admin := newDatabase(t)
	host := regexp.MustCompile(`host=(\S+)`).FindStringSubmatch(admin)[1]
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	script := regexp.MustCompile(`\bwxidp\b`).ReplaceAllString(readDeploy(t, "deploy/postgres/roles.sql"), "served")
	psql := exec.Command("psql", "-h", host, "-U", "wxidp", "-d", "postgres", "-f", write("roles.sql", script))
	psql.Env = append(os.Environ(), "OWNER_PASSWORD_FILE="+write("owner", "owner-password\n"), "SERVE_PASSWORD_FILE="+write("serve", "serve'password\n"))
	if out, err := psql.CombinedOutput(); err != nil {
		t.Fatalf("roles.sql: %v\n%s", err, out)
	}
	dsn := func(user string) string { return "host=" + host + " user=" + user + " dbname=served sslmode=disable" }

	if code, _, errs := runCLI(t, "migrate", "up", "--dsn-file", write("serve-dsn", dsn("served"))); code == 0 || !strings.Contains(errs, "permission denied") {
		t.Errorf("who serves makes tables: code %d, %q", code, errs)
	}
	if code, out, errs := runCLI(t, "migrate", "up", "--dsn-file", write("owner-dsn", dsn("wxidp_owner"))); code != 0 {
		t.Fatalf("the owner cannot make tables: %q %q", out, errs)
	}
	if code, out, errs := runCLI(t, "migrate", "status", "--dsn-file", filepath.Join(dir, "serve-dsn")); code != 0 {
		t.Errorf("who serves cannot read the status: %q %q", out, errs)
	}
	s := startServer(t, withConfig(func(yaml string) string {
		return strings.Replace(yaml, "STORAGE", "storage: { driver: postgres, postgres: { dsn: "+dsn("served")+" } }", 1)
	}))
	user := s.SignIn("alice")
	if out := s.Token(pairs("grant_type", "refresh_token", "client_id", testClient, "refresh_token", user.str("refresh_token"))); out.Status != http.StatusOK {
		t.Errorf("refresh: %v", out)
	}
	sub := s.UserInfo(user.str("access_token")).str("sub")
	if code, out, errs := runCLI(t, "users", "erase", sub, "--yes", "--no-compact", "--socket", s.Socket()); code != 0 {
		t.Errorf("erase: %q %q", out, errs)
	}
	if out := s.Do(http.MethodGet, s.Admin+"/metrics", nil); !regexp.MustCompile(`(?m)^wxidp_storage_size_bytes [1-9]`).Match(out.Body) {
		t.Error("the size of the database is unknown")
	}
}

// TestComposeSetup: the script makes all secrets, each for its one user, and
// changes none of them when it runs again.
func TestComposeSetup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	mustHave(t, "openssl")
	dir := t.TempDir()
	run := func(input string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "setup.sh"), []byte(readDeploy(t, "deploy/compose/setup.sh")), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", filepath.Join(dir, "setup.sh"))
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("setup.sh: %v\n%s", err, out)
		}
		return string(out)
	}
	read := func() map[string]string {
		t.Helper()
		entries, err := os.ReadDir(filepath.Join(dir, "secrets"))
		if err != nil {
			t.Fatal(err)
		}
		files := map[string]string{}
		for _, entry := range entries {
			raw, err := os.ReadFile(filepath.Join(dir, "secrets", entry.Name()))
			if err != nil {
				t.Fatal(err)
			}
			info, err := entry.Info()
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o400 {
				t.Errorf("%s has mode %04o", entry.Name(), info.Mode().Perm())
			}
			files[entry.Name()] = string(raw)
		}
		return files
	}
	out := run("the-app-secret\n")
	first := read()
	if len(first) != 8 || first["wechat-secret"] != "the-app-secret\n" || !strings.Contains(first["tls.pem"], "PRIVATE KEY") {
		t.Errorf("secrets: %d files", len(first))
	}
	out += run("another\n")
	for name, text := range read() {
		if first[name] != text {
			t.Errorf("%s was changed", name)
		}
		if strings.Contains(out, strings.TrimSpace(text)) {
			t.Errorf("%s was printed", name)
		}
	}
	if password := strings.TrimSpace(first["serve-password"]); password == "" || !strings.Contains(first["serve-dsn"], ":"+password+"@") || strings.Contains(first["owner-dsn"], password) {
		t.Error("the DSNs have the wrong passwords")
	}
}
