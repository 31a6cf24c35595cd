package main

import (
	"net"
	"strings"
	"testing"
)

// TestHealth: the command asks a running server, and its exit code is the
// answer.
func TestHealth(t *testing.T) {
	s := startServer(t)
	admin := strings.TrimPrefix(s.Admin, "http://")
	_, port, err := net.SplitHostPort(admin)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--admin", admin}, {"--admin", ":" + port}, {"--admin", "0.0.0.0:" + port}, {"--socket", s.Socket()},
	} {
		if code, out, errs := runCLI(t, append([]string{"health"}, args...)...); code != 0 || !strings.Contains(out, `"ready"`) || errs != "" {
			t.Errorf("health %v: code %d, %q, %q", args, code, out, errs)
		}
	}
	t.Setenv("WXIDP_ADMIN_LISTEN", admin)
	if code, out, errs := runCLI(t, "health", "--live"); code != 0 || out == "" {
		t.Errorf("health --live: code %d, %q, %q", code, out, errs)
	}

	s.parts.web.Drain()
	if code, out, errs := runCLI(t, "health"); code != 1 || out != "" || !strings.Contains(errs, "draining") {
		t.Errorf("while it drains: code %d, %q, %q", code, out, errs)
	}
	if code, _, errs := runCLI(t, "health", "--live"); code != 0 {
		t.Errorf("while it drains, --live: code %d, %q", code, errs)
	}
	s.stop()
	for _, args := range [][]string{{"health"}, {"health", "--live"}, {"health", "--socket", s.Socket()}} {
		if code, out, errs := runCLI(t, args...); code != 1 || out != "" || !strings.HasPrefix(errs, "wxidp: no server answers: dial") {
			t.Errorf("%v without a server: code %d, %q, %q", args, code, out, errs)
		}
	}
}
