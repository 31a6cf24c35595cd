//go:build linux

package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxidp/wxidp/storage"
)

func TestThreat43FullDiskOnSmallFileSystem(t *testing.T) {
	dir := t.TempDir()
	chmod(t, dir, 0o700)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m,mode=0700"); err != nil {
		t.Skipf("no file system can be mounted here (%v); TestThreat43FullDiskByLimit covers a full disk", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	path, ring := filepath.Join(dir, "wxidp.db"), newKeyring(t)
	var fatal atomic.Value
	s, err := Open(t.Context(), Options{Path: path, Keyring: ring, Fatal: func(err error) { fatal.Store(err) }})
	must(t, err)
	ballast := filepath.Join(dir, "ballast")
	err = fillAndRecover(s,
		func() error { return os.WriteFile(ballast, make([]byte, 16<<20), 0o600) },
		func() error { return os.Remove(ballast) })
	if err != nil {
		t.Errorf("%v (fatal: %v)", err, fatal.Load())
	}
	must(t, s.Close())
	checkFile(t, path)
	again, err := Open(t.Context(), Options{Path: path, Keyring: ring})
	must(t, err)
	must(t, again.Close())
}

// A copy that finds no room is given up; the store goes on.
func TestCompactOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	chmod(t, dir, 0o700)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m,mode=0700"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	path := filepath.Join(dir, "wxidp.db")
	s := openStore(t, Options{Path: path, Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
	value := make([]byte, 512<<10)
	for i := range 12 {
		_, err := s.PutIfAbsent(t.Context(), storage.ItemClientAssertion, []byte{byte(i)}, value, time.Hour)
		must(t, err)
	}
	ballast := filepath.Join(dir, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 13<<20), 0o600))
	for range 3 {
		if err := s.Compact(t.Context()); !errors.Is(err, storage.ErrUnavailable) {
			t.Fatalf("Compact: %v", err)
		}
		if _, err := os.Stat(copyPath(path)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("leftover: %v", err)
		}
		if _, err := s.SignIn(t.Context(), signInRequest("o1")); err != nil {
			t.Errorf("SignIn beside it: %v", err)
		}
	}
	must(t, os.Remove(ballast))
	must(t, s.Compact(t.Context()))
	if got, verdict, err := s.Consume(t.Context(), storage.ItemClientAssertion, []byte{7}); err != nil || verdict != storage.ConsumeOK || len(got) != len(value) {
		t.Errorf("after the compaction: %d bytes, verdict %d, %v", len(got), verdict, err)
	}
}

// checkFile runs bbolt's own check of the whole file.
func checkFile(t *testing.T, path string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	must(t, err)
	must(t, db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		return nil
	}))
	must(t, db.Close())
}

// An fsync that fails leaves it unknown what the file holds: the store gives
// up, answers nothing from then on, and whoever opens it next finds all that
// was acknowledged.
func TestFailedSyncEndsTheStore(t *testing.T) {
	for name, c := range map[string]struct {
		device string
		flag   int
		full   bool
	}{
		"fsync fails":                {"/dev/null", os.O_RDWR, false},   // takes writes, cannot be synced
		"write fails":                {"/dev/null", os.O_RDONLY, false}, // takes nothing
		"write fails for lack of it": {"/dev/full", os.O_RDWR, true},
	} {
		t.Run(name, func(t *testing.T) {
			path, ring := newPath(t), newKeyring(t)
			var fatal []error
			s, err := Open(t.Context(), Options{Path: path, Keyring: ring, Fatal: func(err error) { fatal = append(fatal, err) }})
			must(t, err)
			kept, err := s.SignIn(t.Context(), signInRequest("o1"))
			must(t, err)

			restore := replaceFile(t, path, c.device, c.flag)
			_, err = s.SignIn(t.Context(), signInRequest("o2"))
			if !errors.Is(err, storage.ErrUnavailable) {
				t.Errorf("SignIn: %v", err)
			}
			restore()
			_, err = s.Family(t.Context(), kept.Family.ID)
			if c.full {
				if len(fatal) != 0 || err != nil {
					t.Fatalf("a full disk: fatal %v, read %v", fatal, err)
				}
				must(t, s.Close())
			} else {
				if len(fatal) != 1 || !errors.Is(err, storage.ErrUnavailable) {
					t.Fatalf("fatal %v, read %v", fatal, err)
				}
				if _, err := s.SignIn(t.Context(), signInRequest("o3")); !errors.Is(err, storage.ErrUnavailable) {
					t.Errorf("SignIn after it: %v", err)
				}
				must(t, s.Close())
				must(t, s.db.Close()) // which the end of the process would do
			}
			checkFile(t, path)
			again := openStore(t, Options{Path: path, Keyring: ring})
			if _, err := again.Family(t.Context(), kept.Family.ID); err != nil {
				t.Errorf("the acknowledged sign-in: %v", err)
			}
		})
	}
}

func TestFatalPanicsByDefault(t *testing.T) {
	s := &Store{}
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	s.breaker(Options{}, discardLogger())(errors.New("gone"))
}

// replaceFile makes the open descriptor of path refer to a device, until
// restore.
func replaceFile(t *testing.T, path, device string, flag int) (restore func()) {
	t.Helper()
	fd := -1
	links, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, link := range links {
		if target, err := os.Readlink("/proc/self/fd/" + link.Name()); err == nil && target == path {
			_, err := fmt.Sscan(link.Name(), &fd)
			must(t, err)
		}
	}
	if fd < 0 {
		t.Fatalf("%s is not open", strings.TrimPrefix(path, os.TempDir()))
	}
	saved, err := syscall.Dup(fd)
	must(t, err)
	file, err := os.OpenFile(device, flag, 0)
	must(t, err)
	must(t, syscall.Dup3(int(file.Fd()), fd, syscall.O_CLOEXEC))
	must(t, file.Close())
	return func() {
		must(t, syscall.Dup3(saved, fd, syscall.O_CLOEXEC))
		must(t, syscall.Close(saved))
	}
}
