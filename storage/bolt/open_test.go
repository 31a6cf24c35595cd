//go:build unix

package bolt

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"
)

// Files are made for their owner alone, whatever the umask says.
func TestOpenMakesPrivateFiles(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o277} {
		base := t.TempDir()
		path := filepath.Join(base, "deeper", "data", "wxidp.db")
		if umask == 0o277 { // such a umask would not even let the test's parent folder be entered
			path = filepath.Join(base, "data", "wxidp.db")
		}
		old := syscall.Umask(umask)
		s, err := Open(t.Context(), Options{Path: path, Keyring: newKeyring(t)})
		syscall.Umask(old)
		if err != nil {
			t.Fatalf("umask %04o: %v", umask, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != want {
				t.Errorf("umask %04o: %s has mode %04o, want %04o", umask, filepath.Base(name), info.Mode().Perm(), want)
			}
		}
	}
}

func TestOpenRefusesWhatOthersCanReach(t *testing.T) {
	for name, c := range map[string]struct {
		spoil    func(t *testing.T, path string) string // returns the path to open
		want     string
		insecure bool // opens with InsecurePermissions
	}{
		"file readable by group": {func(t *testing.T, path string) string { chmod(t, path, 0o640); return path }, "chmod 600", true},
		"file readable by all":   {func(t *testing.T, path string) string { chmod(t, path, 0o604); return path }, "chmod 600", true},
		"folder open to group":   {func(t *testing.T, path string) string { chmod(t, filepath.Dir(path), 0o710); return path }, "chmod 700", true},
		"file is a link": {func(t *testing.T, path string) string {
			link := filepath.Join(filepath.Dir(path), "link.db")
			must(t, os.Symlink(path, link))
			return link
		}, "symbolic link", true},
		"folder is a link": {func(t *testing.T, path string) string {
			link := filepath.Join(t.TempDir(), "link")
			must(t, os.Symlink(filepath.Dir(path), link))
			return filepath.Join(link, filepath.Base(path))
		}, "symbolic link", true},
		"file is a folder": {func(t *testing.T, path string) string {
			must(t, os.Remove(path))
			must(t, os.Mkdir(path, 0o700))
			return path
		}, "not a regular file", false},
		"file is a pipe": {func(t *testing.T, path string) string {
			must(t, os.Remove(path))
			must(t, syscall.Mkfifo(path, 0o600))
			return path
		}, "not a regular file", false},
		"folder is a file": {func(t *testing.T, path string) string { return filepath.Join(path, "wxidp.db") }, "not a folder", false},
		"file of another user": {func(t *testing.T, path string) string {
			if os.Geteuid() != 0 {
				t.Skip("only root can give files away")
			}
			must(t, os.Chown(path, 12345, -1))
			return path
		}, "belongs to user 12345", true},
	} {
		t.Run(name, func(t *testing.T) {
			path, ring := newPath(t), newKeyring(t)
			s, err := Open(t.Context(), Options{Path: path, Keyring: ring})
			must(t, err)
			must(t, s.Close())
			path = c.spoil(t, path)
			s, err = Open(t.Context(), Options{Path: path, Keyring: ring})
			if err == nil {
				must(t, s.Close())
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
			s, err = Open(t.Context(), Options{Path: path, Keyring: ring, InsecurePermissions: true})
			if (err == nil) != c.insecure {
				t.Errorf("with InsecurePermissions: %v", err)
			}
			if err == nil {
				must(t, s.Close())
			}
		})
	}
}

func TestSecondOpenerIsToldSoon(t *testing.T) {
	path, ring := newPath(t), newKeyring(t)
	openStore(t, Options{Path: path, Keyring: ring})
	begin := time.Now()
	_, err := Open(t.Context(), Options{Path: path, Keyring: ring})
	if err == nil || !strings.Contains(err.Error(), "another process holds") {
		t.Fatalf("error %v", err)
	}
	if waited := time.Since(begin); waited > 10*lockTimeout {
		t.Errorf("told after %v", waited)
	}
}

func TestOpenRefusesForeignAndDamagedFiles(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, path string)
		want  string
	}{
		"text": {func(t *testing.T, path string) {
			must(t, os.WriteFile(path, bytes.Repeat([]byte("not a database\n"), 4000), 0o600))
		}, "not a wxidp data file"},
		"short text": {func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("x"), 0o600)) }, "not a wxidp data file"},
		"both meta pages gone": {func(t *testing.T, path string) {
			overwrite(t, path, 0, make([]byte, 2*os.Getpagesize()))
		}, "not a wxidp data file"},
		"truncated": {func(t *testing.T, path string) { must(t, os.Truncate(path, int64(3*os.Getpagesize()))) }, "damaged"},
		"pages overwritten": {func(t *testing.T, path string) {
			page := int64(os.Getpagesize())
			overwrite(t, path, 2*page, bytes.Repeat([]byte{0xa5}, int(size(t, path)-2*page)))
		}, "damaged"},
		"another program's": {func(t *testing.T, path string) {
			must(t, os.Remove(path))
			db, err := bbolt.Open(path, 0o600, nil)
			must(t, err)
			must(t, db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err }))
			must(t, db.Close())
		}, "another program"},
		"a later format": {func(t *testing.T, path string) {
			db, err := bbolt.Open(path, 0o600, nil)
			must(t, err)
			must(t, db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte("99")) }))
			must(t, db.Close())
		}, `format "99"`},
	} {
		t.Run(name, func(t *testing.T) {
			path, ring := newPath(t), newKeyring(t)
			s, err := Open(t.Context(), Options{Path: path, Keyring: ring})
			must(t, err)
			for range 20 {
				_, err := s.SignIn(t.Context(), signInRequest("o1"))
				must(t, err)
			}
			must(t, s.Close())
			c.spoil(t, path)
			before, err := os.ReadFile(path)
			must(t, err)
			s, err = Open(t.Context(), Options{Path: path, Keyring: ring})
			if err == nil {
				must(t, s.Close())
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
			after, err := os.ReadFile(path)
			must(t, err)
			if !bytes.Equal(before, after) {
				t.Error("the refused file was changed")
			}
		})
	}
}

func TestOpenContinuesAnEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wxidp.db")
	chmod(t, filepath.Dir(path), 0o700)
	must(t, os.WriteFile(path, nil, 0o600)) // an earlier start ended between making and filling it
	s := openStore(t, Options{Path: path})
	if _, err := s.SignIn(t.Context(), signInRequest("o1")); err != nil {
		t.Fatal(err)
	}
}

// Another master key opens nothing and changes nothing.
func TestThreat88OpenRefusesAnotherMasterKey(t *testing.T) {
	path, ring := newPath(t), newKeyring(t)
	s, err := Open(t.Context(), Options{Path: path, Keyring: ring})
	must(t, err)
	res, err := s.SignIn(t.Context(), signInRequest("o1"))
	must(t, err)
	must(t, s.Close())
	before, err := os.ReadFile(path)
	must(t, err)
	if s, err = Open(t.Context(), Options{Path: path, Keyring: newKeyring(t)}); err == nil {
		must(t, s.Close())
		t.Fatal("opened")
	}
	if !strings.Contains(err.Error(), "another master key") {
		t.Errorf("error %v", err)
	}
	if _, err = Open(t.Context(), Options{Path: path}); err == nil {
		t.Fatal("opened without a master key")
	}
	after, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the refused file was changed")
	}
	again := openStore(t, Options{Path: path, Keyring: ring})
	if _, err := again.User(t.Context(), res.UserID); err != nil {
		t.Errorf("with the right key: %v", err)
	}
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	must(t, os.Chmod(path, mode))
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Size()
}

func overwrite(t *testing.T, path string, at int64, data []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteAt(data, at)
	must(t, errors.Join(err, file.Close()))
}
