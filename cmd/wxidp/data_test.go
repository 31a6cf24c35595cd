package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/web"
)

// TestBackupAndRestore restores a backup that was made beside writers.
func TestBackupAndRestore(t *testing.T) {
	aboutDataFile(t)
	s := startServer(t, manyPhones())
	before := signIn(s, "alice")
	path := filepath.Join(t.TempDir(), "wxidp.db")
	var written backupResponse
	decode(t, ctl(s, "backup", path, "--json"), &written)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != written.Size || written.Size == 0 {
		t.Fatalf("%v, %+v, %v", info, written, err)
	}
	after := signIn(s, "bob")
	ctlFails(s, "exists; say --force", "backup", path)
	ctlFails(s, "is a folder", "backup", filepath.Dir(path))
	ctlFails(s, "no such file", "backup", filepath.Join(path+".none", "x"))
	if out := ctl(s, "backup", path, "--force"); !strings.Contains(out, path) {
		t.Errorf("%s", out)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left beside the backup: %v, %v", entries, err)
	}
	if events := s.Logs.Events("admin.backup"); len(events) != 2 || events[0]["size"] != float64(written.Size) {
		t.Errorf("audit: %v", events)
	}
	for _, user := range []string{"carol", "dave"} {
		signIn(s, user)
	}
	s.stop()
	if err := os.Rename(path, filepath.Join(s.Dir, "data", "wxidp.db")); err != nil {
		t.Fatal(err)
	}
	if err := s.startErr(); err == nil || !strings.Contains(err.Error(), "--after-restore=revoke-all") {
		t.Fatalf("a backup that was moved into the place of the data: %v", err)
	}
	s.afterRestore = storage.RestoreAccept
	s.start()
	signedIn(s, "before the first backup", before)
	signedIn(s, "before the second backup", after)
	if n := countUsers(s); n != 2 {
		t.Errorf("%d users", n)
	}
}

// TestBackupThatBreaks: what is not complete is not kept.
func TestBackupThatBreaks(t *testing.T) {
	aboutDataFile(t)
	s := prepareServer(t)
	server := serveChild(t, s)
	if got, _ := imported(s, 0, manyRows(t, 20_000)); got.Created != 20_000 {
		t.Fatal(got)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "wxidp.db")
	cli := startChild(t, "", "backup", path, "--socket", s.Socket())
	eventually(t, "the backup is on its way, or done", func() bool {
		entries, _ := os.ReadDir(dir)
		return len(entries) > 0
	})
	server.Kill()
	code := cli.ExitCode()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	// It may have been quicker than the kill; a part of it is never left.
	if complete := len(entries) == 1 && entries[0].Name() == "wxidp.db"; code == 0 != complete || code != 0 && len(entries) != 0 {
		t.Errorf("code %d and %v: %s", code, entries, cli.Stderr)
	}
	if out, errs := ctlFails(s, "is it running", "backup", path+"2"); out+errs == "" {
		t.Error("silent")
	}
}

// TestBackupSignalled: a backup that is ended leaves nothing behind, however
// much of it has come.
func TestBackupSignalled(t *testing.T) {
	aboutDataFile(t)
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	stall := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 3<<20)) // more than is buffered
		<-stall
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { close(stall); _ = server.Close() })
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if signal.Ignored(sig) { // and so it is in a child
			continue
		}
		dir := t.TempDir()
		cli := startChild(t, "", "backup", filepath.Join(dir, "wxidp.db"), "--socket", socket)
		eventually(t, "a part of the backup is written", func() bool {
			parts, _ := filepath.Glob(filepath.Join(dir, ".wxidp-backup-*"))
			if len(parts) != 1 {
				return false
			}
			info, err := os.Stat(parts[0])
			return err == nil && info.Size() > 0
		})
		cli.Signal(sig)
		if code := cli.ExitCode(); code != 1 || cli.Stderr.String() != "wxidp: interrupted; no backup was written\n" {
			t.Errorf("%v: code %d: %s", sig, code, cli.Stderr)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%v: left: %v, %v", sig, left, err)
		}
	}
}

func TestCompactCommand(t *testing.T) {
	aboutDataFile(t)
	s := startServer(t, manyPhones())
	var tokens []answer
	for i := range 20 {
		tokens = append(tokens, signIn(s, fmt.Sprint("user", i)))
	}
	imported(s, 0, manyRows(t, 3000))
	var out web.CompactProgress
	decode(t, ctl(s, "compact", "--json"), &out)
	info, err := os.Stat(filepath.Join(s.Dir, "data", "wxidp.db"))
	if err != nil || !out.Done || out.SizeBefore <= out.SizeAfter || out.Copied == 0 || info.Size() < out.SizeAfter {
		t.Errorf("%+v, %v, %v", out, info, err)
	}
	for i := range tokens {
		signedIn(s, "after a compaction", tokens[i])
	}
	if out := ctl(s, "compact"); !strings.Contains(out, "before") {
		t.Errorf("%s", out)
	}
}

// TestCompactFails: a compaction that cannot be done changes nothing and says
// so.
func TestCompactFails(t *testing.T) {
	aboutDataFile(t)
	s := startServer(t, manyPhones())
	tokens := signIn(s, "alice")
	id := sub(t, tokens)
	// Something that cannot be removed stands where the copy would be.
	blocked := filepath.Join(s.Dir, "data", "wxidp.db.compact")
	if err := os.MkdirAll(filepath.Join(blocked, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctlFails(s, "stays as it was", "compact")
	signedIn(s, "a failed compaction", tokens)
	_, errs := ctlFails(s, id+" is erased, but", "users", "erase", id, "--yes")
	if !strings.Contains(errs, `run "wxidp compact"`) {
		t.Errorf("%s", errs)
	}
	ctlFails(s, "", "backup", filepath.Join(t.TempDir(), "x.db"))
	if err := os.RemoveAll(blocked); err != nil {
		t.Fatal(err)
	}
	ctl(s, "compact")
}
