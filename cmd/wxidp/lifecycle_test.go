package main

import (
	"crypto/sha256"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/wechat/simulator"
)

// dataSum is the hash of the data file.
func (s *testServer) dataSum() [sha256.Size]byte {
	s.t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.Dir, "data", "wxidp.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	return sha256.Sum256(raw)
}

// TestRefusesToStart: whatever is wrong with master key or data file is said
// clearly, and the data file stays as it was.
func TestRefusesToStart(t *testing.T) {
	aboutDataFile(t)
	s := startServer(t)
	token := s.SignIn("alice").str("access_token")
	s.stop()
	data, file, key := filepath.Join(s.Dir, "data"), filepath.Join(s.Dir, "data", "wxidp.db"), filepath.Join(s.Dir, "data", "master.key")
	rightKey, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	moved := func(from, to string) func() {
		return func() {
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	chmod := func(path string, mode os.FileMode) func() {
		return func() {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	writeKey := func(text string) func() { return func() { s.writeFile("data/master.key", text) } }
	before := s.dataSum()
	for _, test := range []struct {
		name       string
		spoil, fix func()
		want       []string
	}{
		{"another master key", writeKey(seal.GenerateKey() + "\n"), writeKey(string(rightKey)), []string{"master key"}},
		{"no master key", moved(key, key+".away"), moved(key+".away", key), []string{"master_key_file", "no such file"}},
		{"an empty master key file", writeKey(""), writeKey(string(rightKey)), []string{"master_key_file", "empty"}},
		{"half a master key", writeKey("QUJD\n"), writeKey(string(rightKey)), []string{"master key"}},
		{"a readable master key", chmod(key, 0o644), chmod(key, 0o600), []string{"master_key_file", "chmod 600"}},
		{"a readable data file", chmod(file, 0o644), chmod(file, 0o600), []string{"wxidp.db", "0644", "chmod 600"}},
		{"an open folder", chmod(data, 0o755), chmod(data, 0o700), []string{data, "0755", "chmod 700"}},
	} {
		test.spoil()
		err := s.startErr()
		test.fix()
		if err == nil {
			t.Errorf("%s: the server starts", test.name)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", test.name, err, want)
			}
		}
		if strings.Contains(err.Error(), strings.TrimSpace(string(rightKey))) {
			t.Errorf("%s: the master key is in the error", test.name)
		}
		if s.dataSum() != before {
			t.Fatalf("%s: the data file changed", test.name)
		}
	}
	s.start()
	if !s.Active(token) {
		t.Error("the token is dead after all was put right")
	}
	if mode := fileMode(t, file); mode != 0o600 {
		t.Errorf("data file has mode %o", mode)
	}
}

func fileMode(t testing.TB, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestSecondServerIsRefused(t *testing.T) {
	aboutDataFile(t)
	s := startServer(t)
	token := s.SignIn("alice").str("access_token")

	second := prepareServer(t, withConfig(func(yaml string) string {
		return strings.NewReplacer("STORAGE", "storage: { driver: bolt, bolt: { path: "+s.Dir+"/data/wxidp.db } }", "data/master.key", s.Dir+"/data/master.key").Replace(yaml)
	}))
	c := startChild(t, "", "serve", "--config", second.ConfigPath())
	begin := time.Now()
	if code := c.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if waited := time.Since(begin); waited > 10*time.Second {
		t.Errorf("the second server gave up after %v", waited)
	}
	if out := c.Stdout.String() + c.Stderr.String(); !strings.Contains(out, "another process holds the file") {
		t.Errorf("it says %q", out)
	}
	checkLogLines(t, c.Stdout.String()+c.Stderr.String())

	// The same configuration twice: the ports are never reached.
	if err := s.startErr(); err == nil || !strings.Contains(err.Error(), "another process holds the file") {
		t.Errorf("a second server in the same folder: %v", err)
	}
	if !s.Active(token) {
		t.Error("the first server was disturbed")
	}
}

func TestBusyPort(t *testing.T) {
	first := startServer(t)
	for _, key := range []string{"listen", "admin.listen"} {
		second := prepareServer(t)
		busy := strings.TrimPrefix(first.Issuer, "http://")
		if key == "listen" {
			second.editConfig("listen: "+strings.TrimPrefix(second.Issuer, "http://"), "listen: "+busy)
		} else {
			second.editConfig(strings.TrimPrefix(second.Admin, "http://"), busy)
		}
		if err := second.startErr(); err == nil || !strings.HasPrefix(err.Error(), key+": "+busy+" is in use") {
			t.Errorf("%s in use: %v", key, err)
		}
		if _, err := os.Stat(second.Socket()); err == nil {
			t.Errorf("%s in use: the admin socket was left behind", key)
		}
	}
}

func TestHealthAndReadiness(t *testing.T) {
	s := startServer(t)
	for _, base := range []string{s.Issuer, s.Admin} {
		for _, path := range []string{"/healthz", "/readyz"} {
			out := s.Do(http.MethodGet, base+path, nil)
			if out.Status != http.StatusOK || out.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %v %v", path, out, out.Header)
			}
			if out := s.Do(http.MethodHead, base+path, nil); out.Status != http.StatusOK || len(out.Body) > 0 {
				t.Errorf("HEAD %s: %v", path, out)
			}
		}
	}
	// WeChat being down is no reason to take this node out.
	if err := s.Sim.Inject(simulator.Fault{Kind: simulator.FaultStatus}); err != nil {
		t.Fatal(err)
	}
	if out, err := s.signIn(testClient, testAppID, "alice"); err != nil || out.Status != http.StatusServiceUnavailable {
		t.Fatalf("sign-in: %v, %v", out, err)
	}
	if out := s.Do(http.MethodGet, s.Issuer+"/readyz", nil); out.Status != http.StatusOK {
		t.Errorf("readyz while WeChat is down: %v", out)
	}
}

// TestDrain ends a server while a sign-in waits for WeChat: load balancers are
// told first, and the sign-in gets its answer.
func TestDrain(t *testing.T) {
	s := prepareServer(t)
	c := serveChild(t, s, "--drain", "1s")
	if err := s.Sim.Inject(simulator.Fault{Kind: simulator.FaultDelay, Delay: 2500 * time.Millisecond, Count: 1}); err != nil {
		t.Fatal(err)
	}
	slow := make(chan answer, 1)
	go func() {
		out, err := s.signIn(testClient, testAppID, "alice")
		if err != nil {
			t.Errorf("the sign-in under way: %v", err)
		}
		slow <- out
	}()
	eventually(t, "the sign-in waits for WeChat", func() bool { return s.Sim.RequestCount() > 0 })
	c.Signal(syscall.SIGTERM)
	within(t, time.Second, "readyz says draining", func() bool {
		out, err := s.try(http.MethodGet, s.Admin+"/readyz", nil)
		return err == nil && out.Status == http.StatusServiceUnavailable && strings.Contains(string(out.Body), "draining")
	})
	// Meanwhile everything is served, and no connection is kept for another
	// request that could meet the end.
	if out, err := s.signIn(testClient, testAppID, "bob"); err != nil || out.Status != http.StatusOK {
		t.Errorf("a sign-in while draining: %v, %v", out, err)
	}
	if raw := untilClosed(t, strings.TrimPrefix(s.Issuer, "http://"), "GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\n\r\n"); !strings.HasPrefix(raw, "HTTP/1.1 200 ") || !strings.Contains(raw, "\r\nConnection: close\r\n") {
		t.Errorf("a connection while draining: %.300q", raw)
	}
	if out := <-slow; out.Status != http.StatusOK {
		t.Errorf("the sign-in under way: %v", out)
	}
	if code := c.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := net.DialTimeout("tcp", strings.TrimPrefix(s.Issuer, "http://"), time.Second); err == nil {
		t.Error("the listener is open after the end")
	}
	checkLogLines(t, c.Stdout.String()+c.Stderr.String())
	if _, err := os.Stat(s.Socket()); err == nil {
		t.Error("the admin socket was left behind")
	}
}

// untilClosed sends a request and returns what comes until the server closes
// the connection.
func untilClosed(t *testing.T, address, request string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("the connection stays open: %v", err)
	}
	return string(raw)
}

// TestSecondSignalEnds: who cannot wait for the end of the requests need not.
func TestSecondSignalEnds(t *testing.T) {
	s := prepareServer(t)
	c := serveChild(t, s, "--drain", "60s")
	c.Signal(syscall.SIGINT)
	eventually(t, "draining", func() bool {
		out, err := s.try(http.MethodGet, s.Admin+"/readyz", nil)
		return err == nil && out.Status == http.StatusServiceUnavailable
	})
	c.Signal(syscall.SIGTERM)
	if code := c.ExitCode(); code == 0 {
		t.Error("exit code 0 after a second signal")
	}
}

// TestStdoutIsJSON: in serve, standard output and error carry JSON lines only,
// also where the server does not come up.
func TestStdoutIsJSON(t *testing.T) {
	good, bad, badKey := prepareServer(t), prepareServer(t), prepareServer(t)
	bad.editConfig(storageConfig(t, bad.Dir), "storage: { driver: paper\n")
	badKey.writeFile("data/master.key", "nonsense\n")
	c := serveChild(t, good)
	good.SignIn("alice")
	good.Refresh("nonsense")
	c.Signal(syscall.SIGTERM)
	for name, c := range map[string]*child{
		"good":       c,
		"bad config": startChild(t, "", "serve", "--config", bad.ConfigPath()),
		"no config":  startChild(t, "", "serve", "--config", bad.ConfigPath()+".none"),
		"bad key":    startChild(t, "", "serve", "--config", badKey.ConfigPath()),
	} {
		code := c.ExitCode()
		if (code == 0) != (name == "good") {
			t.Errorf("%s: exit code %d", name, code)
		}
		if n := checkLogLines(t, c.Stdout.String()+c.Stderr.String()); n == 0 {
			t.Errorf("%s: nothing was written", name)
		}
	}
}
