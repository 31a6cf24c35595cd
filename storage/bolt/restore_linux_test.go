package bolt

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
)

// restoreUntilKilled restores again and again, and prints a line each time.
func restoreUntilKilled() {
	ring, err := seal.ParseKeyring([]byte(os.Getenv(envKey)))
	for err == nil {
		_, err = Restore(context.Background(), RestoreOptions{
			Backup: os.Getenv(envBackup), Path: os.Getenv(envPath), Keyring: ring, Force: true,
		})
		fmt.Println("restored")
	}
	fmt.Fprintln(os.Stderr, "child:", err)
	os.Exit(1)
}

// TestRestoreKilled: wherever a restore is killed, the data file is wholly as
// it was or wholly restored, and so is what was kept.
func TestRestoreKilled(t *testing.T) {
	key := seal.GenerateKey()
	ring, err := seal.ParseKeyring([]byte(key))
	must(t, err)
	old := openStore(t, Options{Keyring: ring})
	filler(t, old, 11)
	oldBytes, err := os.ReadFile(backup(t, old))
	must(t, err)
	source := openStore(t, Options{Keyring: ring})
	filler(t, source, 200)
	from := backup(t, source)

	random := rand.New(rand.NewPCG(8, 8))
	olds, news := 0, 0
	for range 12 {
		path := newPath(t)
		must(t, os.Mkdir(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, bytes.Clone(oldBytes), 0o600))
		t.Setenv(envBackup, from)
		cmd, out := startChild(t, "restore", path, key)
		if random.IntN(2) == 0 {
			bufio.NewScanner(out).Scan() // the first one is done
		}
		time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
		entries, err := os.ReadDir(filepath.Dir(path))
		must(t, err)
		for _, entry := range entries {
			if strings.HasSuffix(entry.Name(), ".compact") {
				continue // Open removes it
			}
			contents, err := Verify(t.Context(), filepath.Join(filepath.Dir(path), entry.Name()), ring, nil)
			switch {
			case err != nil || contents.Users != 11 && contents.Users != 200:
				t.Errorf("%s: %+v, %v", entry.Name(), contents, err)
			case entry.Name() == filepath.Base(path) && contents.Users == 11:
				olds++
			case entry.Name() == filepath.Base(path):
				news++
			}
		}
		s := openStore(t, Options{Path: path, Keyring: ring})
		must(t, s.Close())
		if _, err := os.Stat(copyPath(path)); !os.IsNotExist(err) {
			t.Errorf("left: %v", err)
		}
	}
	t.Logf("%d as it was, %d restored", olds, news)
	if olds+news != 12 {
		t.Errorf("%d data files are missing", 12-olds-news)
	}
}
