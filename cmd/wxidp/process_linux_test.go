package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

// TestThreat84Hardened looks at a running server as its system sees it.
func TestThreat84Hardened(t *testing.T) {
	s := prepareServer(t)
	c := serveChild(t, s)
	for file, want := range map[string]string{
		"limits": `(?m)^Max core file size +0 +0 `,
		"status": `(?m)^Umask:\s+0077$`,
	} {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", c.cmd.Process.Pid, file))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(want).Match(raw) {
			t.Errorf("%s does not say %s:\n%s", file, want, raw)
		}
	}
	for _, file := range []string{"wxidp.db", "admin.sock"} {
		if file == "wxidp.db" && testsOnPostgres() {
			continue
		}
		if mode := fileMode(t, filepath.Join(s.Dir, "data", file)); mode != 0o600 {
			t.Errorf("%s has mode %o", file, mode)
		}
	}
}

// TestHangupWhileStarting: a reload that comes early must not end the process.
func TestHangupWhileStarting(t *testing.T) {
	aboutDataFile(t) // which shows how far the start has come
	s := prepareServer(t)
	c := startChild(t, "", "serve", "--config", s.ConfigPath(), "--drain", "0s")
	eventually(t, "the data file is made", func() bool {
		_, err := os.Stat(filepath.Join(s.Dir, "data", "wxidp.db"))
		return err == nil
	})
	c.Signal(syscall.SIGHUP)
	c.awaitReady(s)
	eventually(t, "the reload is made up for", func() bool { return len(c.Stdout.Events("config.applied")) == 1 })
	c.Signal(syscall.SIGTERM)
	if code := c.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
