package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
)

// restoredTo restores a backup as the data of s in another folder, and serves
// it from there.
func restoredTo(s *testServer, folder, backup string, choice storage.RestoreChoice) {
	s.t.Helper()
	s.stop()
	yaml := s.Config()
	at := strings.Index(yaml, "/wxidp.db")
	old := yaml[strings.LastIndex(yaml[:at], " ")+1 : at]
	s.editConfig(old+"/wxidp.db", folder+"/wxidp.db")
	if out := restoreCLI(s, backup); !strings.Contains(out, "--after-restore=") {
		s.t.Errorf("%s", out)
	}
	s.afterRestore = choice
	s.start()
	s.afterRestore = ""
}

func restoreCLI(s *testServer, args ...string) string {
	s.t.Helper()
	code, out, errs := runCLI(s.t, append([]string{"restore", "--config", s.ConfigPath()}, args...)...)
	if code != 0 || errs != "" {
		s.t.Fatalf("restore %v: code %d: %s%s", args, code, out, errs)
	}
	return out
}

func backupOf(s *testServer) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "backup.db")
	ctl(s, "backup", path)
	return path
}

// TestG13BackupUnderLoad restores what was backed up in the middle of sign-ins
// and refreshes: whatever was acknowledged before is there, and lives or not as
// is chosen.
func TestG13BackupUnderLoad(t *testing.T) {
	aboutDataFile(t)
	s := startServer(t, withoutLimits())
	var before []answer
	for i := range 40 {
		tokens := signIn(s, fmt.Sprint("before", i))
		if i%3 == 0 {
			tokens = refresh(s, tokens.str("refresh_token"))
		}
		before = append(before, tokens)
	}
	load, end := newFleet(s), make(chan struct{})
	wait := load.run(6, 13, end)
	eventually(t, "the load is on", func() bool {
		load.mu.Lock()
		defer load.mu.Unlock()
		return len(load.devices) > 30
	})
	load.mu.Lock()
	acknowledged := len(load.devices) // of what was added so far nobody touches anything
	load.mu.Unlock()
	backup := backupOf(s)
	load.mu.Lock()
	during := len(load.devices) - acknowledged
	load.mu.Unlock()

	// What is done since the backup is undone by restoring it.
	ended, ahead, disabled := before[0], before[1], before[2]
	if out := revoke(s, ended.str("refresh_token")); out.Status != http.StatusOK {
		t.Fatal(out)
	}
	next := refresh(s, refresh(s, ahead.str("refresh_token")).str("refresh_token"))
	ctl(s, "users", "disable", sub(t, disabled))
	late := signIn(s, "late")
	eventually(t, "the load goes on", func() bool {
		load.mu.Lock()
		defer load.mu.Unlock()
		return len(load.devices) > acknowledged+during+10
	})
	close(end)
	wait()
	load.failed.report(t, "under load")
	load.mu.Lock()
	devices := load.devices[:acknowledged]
	load.mu.Unlock()

	restoredTo(s, "accepted", backup, storage.RestoreAccept)
	for i, tokens := range before {
		signedIn(s, fmt.Sprint("sign-in ", i), tokens)
	}
	for _, d := range devices {
		if d.fate == alive && !userInfoOK(s, d.access) {
			t.Errorf("%s was signed in before the backup", d.user)
		}
	}
	dead(s, "a sign-in since the backup", late)
	// The device that is generations ahead has to sign in again; nobody is
	// revoked for that.
	refused(t, refresh(s, next.str("refresh_token")), http.StatusBadRequest, "invalid_grant")
	signedIn(s, "the family that was left behind", ahead)
	for _, tokens := range before[3:] {
		if out := refresh(s, tokens.str("refresh_token")); out.Status != http.StatusOK {
			t.Errorf("refresh: %v", out)
		}
	}
	if n := len(s.Logs.Events("token.reuse_detected")); n != 0 {
		t.Errorf("%d reuses were detected", n)
	}
	settled := s.Logs.Events("restore.settled")
	if len(settled) != 1 || settled[0]["choice"] != "accept" || settled[0]["families"] != 0.0 || settled[0]["backup_of"] == "unknown" {
		t.Errorf("events %v", settled)
	}

	restoredTo(s, "revoked", backup, storage.RestoreRevokeAll)
	for i, tokens := range before {
		if userInfoOK(s, tokens.str("access_token")) {
			t.Errorf("sign-in %d lives on", i)
		}
	}
	dead(s, "a sign-in before the backup", before[5])
	settled = s.Logs.Events("restore.settled")
	if len(settled) != 2 || settled[1]["choice"] != "revoke-all" || settled[1]["families"].(float64) < 40 {
		t.Errorf("events %v", settled)
	}
	again := signIn(s, "before5")
	if sub(t, again) != sub(t, before[5]) {
		t.Error("the user is another one")
	}

	// It is done once, whatever is said at later starts.
	for _, choice := range []storage.RestoreChoice{"", storage.RestoreRevokeAll} {
		s.stop()
		s.afterRestore = choice
		s.start()
		signedIn(s, "since the restore", again)
	}
	if n := len(s.Logs.Events("restore.settled")); n != 2 {
		t.Errorf("settled %d times", n)
	}
	if n := len(s.Logs.Events("restore.nothing")); n != 1 {
		t.Errorf("%d lines about a choice that nobody asked for", n)
	}
}

// TestThreat88RestoreAsks: data from a backup are not served without a choice,
// and the refusal says what to do.
func TestThreat88RestoreAsks(t *testing.T) {
	aboutDataFile(t)
	s := startServer(t, manyPhones())
	alice := signIn(s, "alice")
	backup := backupOf(s)
	s.stop()
	data := filepath.Join(s.Dir, "data", "wxidp.db")
	raw, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(data, raw, 0o600); err != nil { // by hand, as cp does
		t.Fatal(err)
	}
	for range 2 { // asking changes nothing
		code, out, errs := runCLI(t, "serve", "--config", s.ConfigPath())
		if code != 1 || errs != "" || !strings.Contains(out, `"event":"restore.undecided"`) || checkLogLines(t, out) != 1 {
			t.Fatalf("code %d: %s%s", code, out, errs)
		}
		for _, want := range []string{"signed out", "disabled or erased", "passwords", "--after-restore=revoke-all", "--after-restore=accept", "docs/backup.md"} {
			if !strings.Contains(out, want) {
				t.Errorf("the refusal does not say %q: %s", want, out)
			}
		}
		if now, err := os.ReadFile(data); err != nil || !bytes.Equal(now, raw) {
			t.Errorf("the refused data were changed: %v", err)
		}
	}
	if code, out, errs := runCLI(t, "serve", "--config", s.ConfigPath(), "--after-restore=yes"); code != 1 || out != "" || !strings.Contains(errs, "revoke-all or accept") {
		t.Errorf("another choice: %d, %s%s", code, out, errs)
	}
	child := serveChild(t, s, "--after-restore=revoke-all")
	dead(s, "alice", alice)
	child.Kill()
	child = serveChild(t, s)
	dead(s, "alice, later", alice)
	child.Kill()
}

// TestThreat88SingleUse: what was good for one use when the backup was made,
// and was used since, is not good again.
func TestThreat88SingleUse(t *testing.T) {
	aboutDataFile(t)
	s := startWeb(t)
	b := newBrowser(s)
	code := b.code(shopWeb, "alice")
	tokens := b.tokens(shopWeb, "alice", "scope", "openid offline_access", "prompt", "consent")
	backup := backupOf(s)
	if out := shopWeb.redeem(s, code); out.Status != http.StatusOK {
		t.Fatal(out)
	}

	restoredTo(s, "accepted", backup, storage.RestoreAccept)
	refused(t, shopWeb.redeem(s, code), http.StatusBadRequest, "invalid_grant")
	signedIn(s, "a sign-in from the browser", tokens)
	if v := b.authorize(shopWeb.request("prompt", "none")); v.callback().Get("code") == "" {
		t.Errorf("the browser is signed in no more: %v", v)
	}

	restoredTo(s, "revoked", backup, storage.RestoreRevokeAll)
	refused(t, shopWeb.redeem(s, code), http.StatusBadRequest, "invalid_grant")
	refused(t, shopWeb.refresh(s, tokens.str("refresh_token")), http.StatusBadRequest, "invalid_grant")
	if v := b.authorize(shopWeb.request("prompt", "none")); v.callback().Get("error") != "login_required" {
		t.Errorf("the browser is still signed in: %v", v)
	}
	b.tokens(shopWeb, "alice")
}

// TestThreat88Assertions: client assertions that were used since the backup
// are not good again, nor any that may have been.
func TestThreat88Assertions(t *testing.T) {
	aboutDataFile(t)
	s, keys := startWithClients(t)
	backup := backupOf(s)
	token := assertion(t, jose.ES256, keys.es, "es-1", s, "es-client", nil)
	if out := machineToken(s, withAssertion(token)); out.Status != http.StatusOK {
		t.Fatal(out)
	}
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // iat has no fractions
	restoredTo(s, "accepted", backup, storage.RestoreAccept)
	for name, token := range map[string]string{
		"used before":      token,
		"of unknown age":   assertion(t, jose.ES256, keys.es, "es-1", s, "es-client", map[string]any{"iat": nil}),
		"made before":      assertion(t, jose.ES256, keys.es, "es-1", s, "es-client", map[string]any{"iat": time.Now().Unix() - 50}),
		"long before that": assertion(t, jose.ES256, keys.es, "es-1", s, "es-client", map[string]any{"iat": 5}),
	} {
		out := machineToken(s, withAssertion(token))
		if refused(t, out, http.StatusUnauthorized, "invalid_client"); eventOf(s, out, "token.denied")["reason"] != "assertion_restored" {
			t.Errorf("%s: %v", name, out)
		}
	}
	fresh := assertion(t, jose.ES256, keys.es, "es-1", s, "es-client", nil)
	if out := machineToken(s, withAssertion(fresh)); out.Status != http.StatusOK {
		t.Errorf("a new one: %v", out)
	}
	refused(t, machineToken(s, withAssertion(fresh)), http.StatusUnauthorized, "invalid_client")
}

// TestRestoreLosesKeys: keys that were made since the backup are gone with what
// they signed, those that were revoked are back, and the ring goes on by itself.
func TestRestoreLosesKeys(t *testing.T) {
	aboutDataFile(t)
	s := startServer(t, manyPhones())
	before := signIn(s, "alice")
	kid := func(tokens answer) string { return jwtPart(t, tokens.str("access_token"), 0)["kid"].(string) }
	backup := backupOf(s)
	since := before
	for i := range 2 { // the first successor is in the backup
		ctl(s, "keys", "revoke", kid(since))
		since = signIn(s, fmt.Sprint("bob", i))
	}
	if userInfoOK(s, before.str("access_token")) {
		t.Fatal("a revoked key's token is accepted")
	}

	restoredTo(s, "accepted", backup, storage.RestoreAccept)
	signedIn(s, "before the backup", before)
	dead(s, "since the backup", since)
	if out := refresh(s, before.str("refresh_token")); out.Status != http.StatusOK || kid(out) != kid(before) {
		t.Errorf("the restored key does not sign: %v", out)
	}
	published := string(s.Do(http.MethodGet, s.Issuer+"/.well-known/jwks.json", nil).Body)
	if !strings.Contains(published, kid(before)) || strings.Contains(published, kid(since)) {
		t.Errorf("published: %s", published)
	}
	ctl(s, "keys", "revoke", kid(before)) // as the manual says, once more
	if out := signIn(s, "carol"); kid(out) == kid(before) || kid(out) == kid(since) || !s.Active(out.str("access_token")) {
		t.Errorf("the ring does not go on: %v", out)
	}
	if userInfoOK(s, before.str("access_token")) {
		t.Error("the key that was revoked once more is accepted")
	}
	if events := s.Logs.Events("keys.maintenance_failed"); len(events) != 0 {
		t.Errorf("%v", events)
	}
}

func TestRestoreCommand(t *testing.T) {
	aboutDataFile(t)
	s := startServer(t, manyPhones())
	alice := signIn(s, "alice")
	backup := backupOf(s)
	fails := func(want string, args ...string) {
		t.Helper()
		code, out, errs := runCLI(t, append([]string{"restore", "--config", s.ConfigPath()}, args...)...)
		if code != 1 || out != "" || !strings.HasPrefix(errs, "wxidp: ") || !strings.Contains(errs, want) {
			t.Errorf("restore %v: code %d, want %q: %s%s", args, code, want, out, errs)
		}
	}
	var seen restoreResponse
	decode(t, restoreCLI(s, backup, "--verify", "--json"), &seen) // beside the server
	if seen.Users != 1 || seen.SignIns != 1 || !seen.Checksum || seen.Restored != "" || time.Since(seen.TakenAt) > time.Minute || seen.File != backup {
		t.Errorf("%+v", seen)
	}
	if out := restoreCLI(s, backup, "--verify"); !strings.Contains(out, "1 users, 1 live sign-ins") || strings.Contains(out, "serve") {
		t.Errorf("%s", out)
	}
	fails("name the FILE")
	fails("name the FILE", backup, "--mark")
	fails("goes with neither", "--mark", "--force")
	fails("no such file", backup+"x")
	fails("stop it first", backup)
	fails("stop it first", backup, "--force")
	fails("another process holds", "--mark")
	fails("wxidp backup", filepath.Join(s.Dir, "data", "wxidp.db"), "--verify")
	signedIn(s, "beside all that", alice)
	s.stop()

	fails("say --force", backup)
	key := filepath.Join(s.Dir, "data", "master.key")
	own, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	s.writeFile("data/master.key", seal.GenerateKey()+"\n")
	fails("another master key", backup, "--force")
	s.writeFile("data/master.key", string(own))

	var done restoreResponse
	decode(t, restoreCLI(s, backup, "--force", "--json"), &done)
	data := filepath.Join(s.Dir, "data", "wxidp.db")
	if done.Restored != data || !strings.HasPrefix(done.Kept, data+".before-restore-") {
		t.Errorf("%+v", done)
	}
	if _, err := os.Stat(done.Kept); err != nil {
		t.Error(err)
	}
	s.afterRestore = storage.RestoreAccept
	s.start()
	signedIn(s, "restored", alice)
	s.stop()

	// Restored by other means.
	if out := restoreCLI(s, "--mark"); !strings.Contains(out, "--after-restore=accept") {
		t.Errorf("%s", out)
	}
	s.afterRestore = ""
	if err := s.startErr(); err == nil || !strings.Contains(err.Error(), "--after-restore=revoke-all") {
		t.Errorf("marked: %v", err)
	}
	s.afterRestore = storage.RestoreRevokeAll
	s.start()
	dead(s, "marked", alice)
	s.stop()
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	fails("there is no data file", "--mark")
	if _, err := os.Stat(data); err == nil {
		t.Error("--mark has made data")
	}
}

// TestRestorePostgres: a database that was taken back is marked by hand.
func TestRestorePostgres(t *testing.T) {
	dsn := newDatabase(t)
	s := startServer(t, manyPhones(), withConfig(func(yaml string) string {
		return strings.Replace(yaml, "STORAGE", fmt.Sprintf("storage: { driver: postgres, postgres: { dsn: %q } }", dsn), 1)
	}))
	alice := signIn(s, "alice")
	if code, _, errs := runCLI(t, "restore", "--mark", "--config", s.ConfigPath()); code != 1 || !strings.Contains(errs, "in use") {
		t.Errorf("marked beside a server: %d, %s", code, errs)
	}
	s.stop()
	if code, _, errs := runCLI(t, "restore", "x.db", "--config", s.ConfigPath()); code != 1 || !strings.Contains(errs, "pg_restore") {
		t.Errorf("restore of a file: %d, %s", code, errs)
	}
	if out := restoreCLI(s, "--mark"); !strings.Contains(out, "wxidp serve --config "+s.ConfigPath()+" --after-restore=revoke-all") {
		t.Errorf("%s", out)
	}
	if err := s.startErr(); err == nil || !strings.Contains(err.Error(), "--after-restore=accept") {
		t.Fatalf("marked: %v", err)
	}
	s.afterRestore = storage.RestoreRevokeAll
	s.start()
	dead(s, "alice", alice)
	alice = signIn(s, "alice")
	s.stop()
	s.afterRestore = ""
	s.start()
	signedIn(s, "alice again", alice)
}
