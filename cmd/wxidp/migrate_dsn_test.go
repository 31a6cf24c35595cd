package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMigrateByDSNFile: the schema can belong to a user whose DSN no server
// knows, and who needs none of the server's secrets.
func TestMigrateByDSNFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "owner-dsn")
	write := func(dsn string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(file, []byte(dsn+"\n"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	code, _, errs := runCLI(t, "migrate", "status", "--dsn-file", file)
	if code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("no file: code %d, %q", code, errs)
	}
	write("postgres://secret-canary@127.0.0.1:1/x", 0o604)
	code, _, errs = runCLI(t, "migrate", "up", "--dsn-file", file)
	if code != 1 || !strings.Contains(errs, "chmod 600") || strings.Contains(errs, "canary") {
		t.Errorf("an open file: code %d, %q", code, errs)
	}
	write(newDatabase(t), 0o600)
	if code, out, errs := runCLI(t, "migrate", "up", "--dsn-file", file, "--config", "/nonexistent"); code != 0 || !strings.Contains(out, "up to date") {
		t.Errorf("up: code %d, %q, %q", code, out, errs)
	}
	if code, out, errs := runCLI(t, "migrate", "status", "--dsn-file", file); code != 0 || !strings.Contains(out, "schema version") {
		t.Errorf("status: code %d, %q, %q", code, out, errs)
	}
}
