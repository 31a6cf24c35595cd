package main

import (
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestServiceManagerIsTold runs the server as systemd does with Type=notify.
func TestServiceManagerIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	for _, name := range []string{path, "@wxidp-test-" + filepath.Base(filepath.Dir(path)) + "-" + filepath.Base(t.TempDir())} {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		t.Setenv("NOTIFY_SOCKET", name)
		next := func() string {
			t.Helper()
			buffer := make([]byte, 4096)
			if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := conn.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			return string(buffer[:n])
		}
		s := prepareServer(t)
		c := startChild(t, "", "serve", "--config", s.ConfigPath(), "--drain", "0s")
		if got := next(); got != "READY=1\nSTATUS=serving "+s.Issuer {
			t.Fatalf("first told: %q", got)
		}
		// Ready means that a request sent now is answered.
		if out, err := s.try(http.MethodGet, s.Issuer+"/readyz", nil); err != nil || out.Status != http.StatusOK {
			t.Errorf("told to be ready, but %v %v", out, err)
		}

		c.Signal(syscall.SIGHUP)
		if got := next(); !regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9]\d+$`).MatchString(got) {
			t.Errorf("at a reload: %q", got)
		}
		if got := next(); got != "READY=1\nSTATUS=serving "+s.Issuer {
			t.Errorf("after a reload: %q", got)
		}
		s.WriteConfig("issuer: nonsense\n")
		c.Signal(syscall.SIGHUP)
		if got := next(); !strings.HasPrefix(got, "RELOADING=1\n") {
			t.Errorf("at a bad reload: %q", got)
		}
		if got := next(); !strings.HasPrefix(got, "READY=1\n") || !strings.Contains(got, "refused") || strings.Contains(got, "nonsense") {
			t.Errorf("after a bad reload: %q", got)
		}

		c.Signal(syscall.SIGTERM)
		if got := next(); !strings.HasPrefix(got, "STOPPING=1\n") {
			t.Errorf("at the end: %q", got)
		}
		if code := c.ExitCode(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}

// TestServesWithoutItsServiceManager: one that is gone is no reason to end.
func TestServesWithoutItsServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	s := prepareServer(t)
	c := serveChild(t, s)
	eventually(t, "the log says so", func() bool { return strings.Contains(c.Stdout.String(), `"event":"server.notify_failed"`) })
	c.Signal(syscall.SIGTERM)
	if code := c.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
