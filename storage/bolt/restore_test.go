//go:build unix

package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
)

// folder returns every file in a folder with its bytes.
func folder(t *testing.T, path string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(path)
	must(t, err)
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(path, entry.Name()))
		must(t, err)
		files[entry.Name()] = string(data)
	}
	return files
}

func newBackup(t *testing.T, people int) (path string, ring *seal.Keyring) {
	t.Helper()
	ring = newKeyring(t)
	s := openStore(t, Options{Keyring: ring})
	filler(t, s, people)
	return backup(t, s), ring
}

func TestRestore(t *testing.T) {
	ring := newKeyring(t)
	s := openStore(t, Options{Keyring: ring})
	filler(t, s, 30)
	ended, err := s.SignIn(t.Context(), signInRequest("ended"))
	must(t, err)
	_, err = s.RevokeFamily(t.Context(), ended.Family.ID, "x")
	must(t, err)
	rows, path := dumpRows(t, s), backup(t, s)
	steps := map[string]bool{}
	progress := func(step string, _, _ int64) { steps[step] = true }

	want := Contents{Users: 31, Families: 30, Summed: true}
	check := func(what string, got Contents, err error) {
		t.Helper()
		if err != nil || time.Since(got.TakenAt) > time.Minute || got.Newest.IsZero() || got.Size == 0 {
			t.Fatalf("%s: %+v, %v", what, got, err)
		}
		got.TakenAt, got.Newest, got.Size = time.Time{}, time.Time{}, 0
		if got != want {
			t.Fatalf("%s: %+v, want %+v", what, got, want)
		}
	}
	before := folder(t, filepath.Dir(path))
	got, err := Verify(t.Context(), path, ring, progress)
	check("Verify", got, err)
	if !reflect.DeepEqual(folder(t, filepath.Dir(path)), before) {
		t.Error("Verify has changed something")
	}

	target := newPath(t)
	opts := RestoreOptions{Backup: path, Path: target, Keyring: ring, Progress: progress}
	res, err := Restore(t.Context(), opts)
	check("Restore", res.Contents, err)
	if res.Kept != "" || len(folder(t, filepath.Dir(target))) != 1 {
		t.Errorf("kept %q", res.Kept)
	}
	if len(steps) < 3 {
		t.Errorf("progress: %v", slices.Collect(maps.Keys(steps)))
	}
	info, err := os.Stat(target)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
	if _, err := Restore(t.Context(), opts); !errors.Is(err, ErrDataExist) {
		t.Errorf("over data: %v", err)
	}
	old := folder(t, filepath.Dir(target))[filepath.Base(target)]
	opts.Force = true
	if res, err = Restore(t.Context(), opts); err != nil || !strings.HasPrefix(res.Kept, target+".before-restore-") {
		t.Fatalf("forced: %+v, %v", res, err)
	}
	if files := folder(t, filepath.Dir(target)); len(files) != 2 || files[filepath.Base(res.Kept)] != old {
		t.Errorf("what was there is not kept")
	}

	restored := openStore(t, Options{Path: target, Keyring: ring})
	mark, version, err := storage.ReadRestored(t.Context(), restored)
	if err != nil || version == 0 || mark.State != storage.RestorePending || !mark.TakenAt.Equal(res.TakenAt) || mark.RestoredAt.IsZero() || mark.Summed {
		t.Errorf("mark %+v, %v", mark, err)
	}
	again := dumpRows(t, restored)
	delete(again[string(bucketRecords)], storage.RestoredRecord)
	if !reflect.DeepEqual(again, rows) {
		t.Errorf("buckets %v differ", changedBuckets(rows, again))
	}
	// Nothing is done to data that a server holds, or that are the backup.
	before = folder(t, filepath.Dir(target))
	if _, err := Restore(t.Context(), opts); !errors.Is(err, ErrHeld) {
		t.Errorf("over the data of a server: %v", err)
	}
	if _, err := Verify(t.Context(), target, ring, nil); err == nil || !strings.Contains(err.Error(), "wxidp backup") {
		t.Errorf("the data of a server as the backup: %v", err)
	}
	if !reflect.DeepEqual(folder(t, filepath.Dir(target)), before) {
		t.Error("a refused Restore has changed something")
	}
	must(t, restored.Close())
	opts.Backup = target
	if _, err := Restore(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "the data file itself") {
		t.Errorf("the data file as its own backup: %v", err)
	}
}

// A data file that a server has left is as good as a backup, but has no
// checksum; so is a copied backup that was served since.
func TestRestoreDataFile(t *testing.T) {
	path, ring := newBackup(t, 5)
	s := openStore(t, Options{Path: path, Keyring: ring})
	if _, _, settled, err := storage.Settle(t.Context(), s, storage.RestoreAccept, nil, nil); !settled || err != nil {
		t.Fatal(settled, err)
	}
	filler(t, s, 7)
	must(t, s.Close())
	res, err := Restore(t.Context(), RestoreOptions{Backup: path, Path: newPath(t), Keyring: ring})
	if err != nil || res.Summed || res.Users != 7 || !res.TakenAt.IsZero() {
		t.Fatalf("%+v, %v", res, err)
	}
}

// TestThreat88RestoreRefuses: what is not wholly as it was written is refused
// with a reason, and nothing is changed.
func TestThreat88RestoreRefuses(t *testing.T) {
	path, ring := newBackup(t, 60)
	good, err := os.ReadFile(path)
	must(t, err)
	target := newPath(t)
	data := openStore(t, Options{Path: target, Keyring: ring})
	filler(t, data, 3)
	must(t, data.Close())
	before := folder(t, filepath.Dir(target))

	type damage struct {
		name, want string
		bytes      []byte
		ring       *seal.Keyring
	}
	table := []damage{
		{"empty", "is empty", nil, ring},
		{"text", "not a wxidp data file", []byte(strings.Repeat("this is no database\n", 1000)), ring},
		{"another master key", "another master key", good, newKeyring(t)},
		{"another program's", "another program", bboltFile(t, func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket([]byte("things"))
			return err
		}), ring},
		{"newer format", `format "2"`, bboltFile(t, func(tx *bbolt.Tx) error {
			meta, err := tx.CreateBucket(bucketMeta)
			must(t, err)
			return meta.Put(keyFormat, []byte("2"))
		}), ring},
		{"no vault", "the vault is missing", bboltFile(t, func(tx *bbolt.Tx) error {
			for _, name := range buckets {
				_, err := tx.CreateBucket(name)
				must(t, err)
			}
			return tx.Bucket(bucketMeta).Put(keyFormat, []byte(formatVersion))
		}), ring},
		{"parts missing", "parts are missing", bboltFile(t, func(tx *bbolt.Tx) error {
			meta, err := tx.CreateBucket(bucketMeta)
			must(t, err)
			return meta.Put(keyFormat, []byte(formatVersion))
		}), ring},
		{"bytes added", "its end is missing, or it was changed", append(slices.Clone(good), 'x'), ring},
	}
	for _, length := range []int{1, 100, 4096, 8192, 8193, len(good) / 2, len(good) - trailerSize - 1, len(good) - trailerSize, len(good) - 20, len(good) - 1} {
		table = append(table, damage{fmt.Sprint("cut to ", length), "", good[:length], ring})
	}
	for at := 7; at < len(good); at += 4096 / 3 {
		flipped := slices.Clone(good)
		flipped[at] ^= 0x10
		table = append(table, damage{fmt.Sprint("flipped at ", at), "", flipped, ring})
	}
	for _, at := range []int{1, trailerSize - 1, trailerSize - 30, trailerSize - 17, trailerSize} {
		flipped := slices.Clone(good)
		flipped[len(flipped)-at] ^= 1
		table = append(table, damage{fmt.Sprint("trailer flipped at ", at), "", flipped, ring})
	}
	for _, d := range table {
		file := filepath.Join(t.TempDir(), "backup.db")
		must(t, os.WriteFile(file, d.bytes, 0o600))
		res, err := Restore(t.Context(), RestoreOptions{Backup: file, Path: target, Keyring: d.ring, Force: true})
		if err == nil || res != (RestoreResult{}) || !strings.Contains(err.Error(), d.want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %+v, %v", d.name, res, err)
		}
		if _, err := Verify(t.Context(), file, d.ring, nil); err == nil {
			t.Errorf("%s: verified", d.name)
		}
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "missing"), t.TempDir(), os.DevNull} {
		if _, err := Restore(t.Context(), RestoreOptions{Backup: path, Path: target, Keyring: ring, Force: true}); err == nil {
			t.Errorf("%s was restored", path)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Restore(cancelled, RestoreOptions{Backup: path, Path: target, Keyring: ring, Force: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if !reflect.DeepEqual(folder(t, filepath.Dir(target)), before) {
		t.Error("something was changed")
	}
}

// bboltFile returns the bytes of a bbolt file.
func bboltFile(t *testing.T, fill func(tx *bbolt.Tx) error) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := bbolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(fill))
	must(t, db.Close())
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}

// TestVerifyWithoutChecksum: damage that no checksum tells may be found or not,
// but never takes the process down.
func TestVerifyWithoutChecksum(t *testing.T) {
	path, ring := newBackup(t, 60)
	s := openStore(t, Options{Path: path, Keyring: ring})
	_, _, _, err := storage.Settle(t.Context(), s, storage.RestoreAccept, nil, nil)
	must(t, err)
	must(t, s.Close())
	good, err := os.ReadFile(path)
	must(t, err)
	if c, err := Verify(t.Context(), path, ring, nil); err != nil || c.Summed {
		t.Fatal(c, err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	file := filepath.Join(t.TempDir(), "x.db")
	refused := 0
	for range 300 {
		data := slices.Clone(good)
		page := random.IntN(len(good)/4096) * 4096
		for range 1 + random.IntN(8) {
			at := page + random.IntN(64) // the beginning of a page tells how it is read
			data[at] ^= byte(1 + random.IntN(255))
		}
		must(t, os.WriteFile(file, data, 0o600))
		if _, err := Verify(t.Context(), file, ring, nil); err != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Error("no damage was found")
	}
	t.Logf("%d of 300 were refused", refused)
}

// TestBackupTrailer holds the form of the end of a backup.
func TestBackupTrailer(t *testing.T) {
	path, _ := newBackup(t, 1)
	data, err := os.ReadFile(path)
	must(t, err)
	rest, end := data[:len(data)-56], data[len(data)-56:]
	sum := sha256.Sum256(rest)
	want := append([]byte("wxidp backup v1\n"), byte(len(rest)>>56), 0, 0, 0, 0, byte(len(rest)>>16), byte(len(rest)>>8), byte(len(rest)))
	if !bytes.Equal(end, append(want, sum[:]...)) {
		t.Errorf("trailer %x", end)
	}
}

// TestRestoreRefusesTheFolder: data must not go where others can reach them.
func TestRestoreRefusesTheFolder(t *testing.T) {
	path, ring := newBackup(t, 1)
	open := filepath.Join(t.TempDir(), "open")
	must(t, os.Mkdir(open, 0o700))
	chmod(t, open, fs.FileMode(0o755))
	opts := RestoreOptions{Backup: path, Path: filepath.Join(open, "wxidp.db"), Keyring: ring}
	if _, err := Restore(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a folder that is open to others: %v", err)
	}
	if files := folder(t, open); len(files) != 0 {
		t.Errorf("left: %d files", len(files))
	}
	opts.InsecurePermissions = true
	_, err := Restore(t.Context(), opts)
	must(t, err)
}
