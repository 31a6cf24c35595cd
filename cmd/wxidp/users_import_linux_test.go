package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openPipe makes a named pipe and opens it, so that nobody waits for the other
// end.
func openPipe(t *testing.T, name string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pipe.Close() })
	return pipe
}

// waiting returns how many bytes nobody has read yet.
func waiting(t *testing.T, pipe *os.File) int {
	t.Helper()
	raw, err := pipe.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var ioctlErr error
	if err := raw.Control(func(fd uintptr) { n, ioctlErr = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil || ioctlErr != nil {
		t.Fatal(err, ioctlErr)
	}
	return n
}

// TestUsersImportSignalled: an import whose input has stopped coming ends at the
// first signal.
func TestUsersImportSignalled(t *testing.T) {
	s := startServer(t, manyPhones())
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		pipe := openPipe(t, "users.csv")
		cli := startChild(t, "", "users", "import", pipe.Name(), "--socket", s.Socket())
		for _, text := range []string{"external_id,appid,openid\n", "1," + testAppID + ",o1\n"} {
			if _, err := io.WriteString(pipe, text); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the import has read what there is", func() bool { return waiting(t, pipe) == 0 })
		}
		cli.Signal(sig)
		if code := cli.ExitCode(); code != 1 || cli.Stderr.String() != "wxidp: interrupted; go on with --from-line 2, or from the start: what was taken stays as it is\n" {
			t.Errorf("%v: code %d: %s%s", sig, code, cli.Stdout, cli.Stderr)
		}
	}
}

// TestUsersImportSecondSignal: an import that cannot end in order, since nobody
// takes the faults, ends at the second signal.
func TestUsersImportSecondSignal(t *testing.T) {
	s := startServer(t, manyPhones())
	faults := openPipe(t, "faults")
	file := writeRows(t, "users.csv", append([]string{"external_id,appid,openid"}, strings.Split(strings.Repeat("1,wx,o1\n", 2000), "\n")...)...)
	cli := startChild(t, "", "users", "import", file, "--faults", faults.Name(), "--socket", s.Socket())
	eventually(t, "the pipe is full", func() bool { return waiting(t, faults) >= 60<<10 })
	eventually(t, "the import is gone", func() bool {
		_ = cli.cmd.Process.Signal(syscall.SIGINT) // gone is what it should be
		return cli.Gone()
	})
	if status, ok := cli.state.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("%v: %s%s", cli.state, cli.Stdout, cli.Stderr)
	}
}
