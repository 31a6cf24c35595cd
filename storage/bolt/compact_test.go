//go:build unix

package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// backup writes a backup next to where the test keeps its files.
func backup(t *testing.T, s *Store) string {
	t.Helper()
	var out bytes.Buffer
	must(t, s.Backup(t.Context(), &out))
	path := newPath(t)
	must(t, os.Mkdir(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, out.Bytes(), 0o600))
	return path
}

// filler signs people in, so that a file has more than a few pages.
func filler(t *testing.T, s *Store, n int) {
	t.Helper()
	for i := range n {
		_, err := s.SignIn(t.Context(), signInRequest(fmt.Sprint("filler", i)))
		must(t, err)
	}
}

// A compacted file has every row, is smaller, private and locked, and the
// store goes on with it.
func TestCompactKeepsEverything(t *testing.T) {
	ring, path := newKeyring(t), newPath(t)
	s := openStore(t, Options{Path: path, Keyring: ring})
	filler(t, s, 200)
	value := bytes.Repeat([]byte("v"), 64<<10)
	for i := range 100 {
		_, err := s.PutIfAbsent(t.Context(), storage.ItemClientAssertion, []byte(fmt.Sprint(i)), value, time.Hour)
		must(t, err)
		_, _, err = s.Consume(t.Context(), storage.ItemClientAssertion, []byte(fmt.Sprint(i)))
		must(t, err)
	}
	_, err := s.SwapRecord(t.Context(), "empty", 0, nil)
	must(t, err)
	rows, size := dumpRows(t, s), s.Stats().SizeBytes
	for range 3 {
		must(t, s.Compact(t.Context()))
	}
	if got := dumpRows(t, s); !reflect.DeepEqual(got, rows) {
		t.Errorf("buckets %v differ", changedBuckets(rows, got))
	}
	if after := s.Stats().SizeBytes; after >= size {
		t.Errorf("%d bytes after %d", after, size)
	}
	if copied := s.Copied(); copied == 0 || copied >= s.Stats().SizeBytes {
		t.Errorf("%d bytes were copied into a file of %d", copied, s.Stats().SizeBytes)
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("files %v, %v", entries, err)
	}
	if _, err := Open(t.Context(), Options{Path: path, Keyring: ring}); err == nil || !strings.Contains(err.Error(), "another process holds") {
		t.Errorf("second opener: %v", err)
	}
	res, err := s.SignIn(t.Context(), signInRequest("after"))
	must(t, err)
	must(t, s.Close())
	again := openStore(t, Options{Path: path, Keyring: ring})
	if _, err := again.Family(t.Context(), res.Family.ID); err != nil {
		t.Errorf("what was written after the compaction: %v", err)
	}
	checkPeople(t, again)
}

func TestBackupIsComplete(t *testing.T) {
	ring := newKeyring(t)
	s := openStore(t, Options{Keyring: ring})
	filler(t, s, 100)
	rows := dumpRows(t, s)
	path := backup(t, s)
	_, err := s.SignIn(t.Context(), signInRequest("after"))
	must(t, err)
	restored := openStore(t, Options{Path: path, Keyring: ring})
	got := dumpRows(t, restored)
	mark, _, err := storage.ReadRestored(t.Context(), restored)
	if err != nil || mark.State != storage.RestorePending || time.Since(mark.TakenAt) > time.Minute || !mark.Summed {
		t.Errorf("the backup says %+v, %v", mark, err)
	}
	delete(got[string(bucketRecords)], storage.RestoredRecord)
	if !reflect.DeepEqual(got, rows) {
		t.Errorf("buckets %v differ", changedBuckets(rows, got))
	}
	if entries, err := os.ReadDir(filepath.Dir(s.path)); err != nil || len(entries) != 1 {
		t.Errorf("files %v, %v", entries, err)
	}
	if _, err := Open(t.Context(), Options{Path: backup(t, s), Keyring: newKeyring(t)}); err == nil {
		t.Error("a backup opened with another master key")
	}
}

// failingWriter takes so many bytes and fails then.
type failingWriter struct{ left int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errors.New("the pipe broke")
	}
	return len(p), nil
}

// A slow receiver of a backup holds up neither the store nor a compaction, and
// one that fails leaves nothing behind.
func TestBackupReceiver(t *testing.T) {
	s := openStore(t, Options{})
	filler(t, s, 20)
	if err := s.Backup(t.Context(), &failingWriter{10_000}); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("failing receiver: %v", err)
	}
	slow := &blockingWriter{reached: make(chan struct{}), release: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- s.Backup(context.Background(), slow) }()
	<-slow.reached
	filler(t, s, 5)
	must(t, s.Compact(t.Context()))
	must(t, s.Backup(t.Context(), &bytes.Buffer{}))
	close(slow.release)
	must(t, <-done)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{"Backup": s.Backup(ctx, &bytes.Buffer{}), "Compact": s.Compact(ctx)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.committer.between(func() error {
		if s.committer.changed != nil {
			return errors.New("still noting")
		}
		return nil
	}) != nil {
		t.Error("the writer still notes what it writes")
	}
	if entries, err := os.ReadDir(filepath.Dir(s.path)); err != nil || len(entries) != 1 {
		t.Errorf("files %v, %v", entries, err)
	}
}

type blockingWriter struct {
	once             sync.Once
	reached, release chan struct{}
}

func (w *blockingWriter) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.reached) })
	<-w.release
	return len(p), nil
}

// Compaction beside sign-ins, refreshes, erasures and collection of garbage:
// no read or write fails, and the file has what the store acknowledged.
func TestCompactBesideWriters(t *testing.T) {
	ring, path := newKeyring(t), newPath(t)
	s := openStore(t, Options{Path: path, Keyring: ring})
	filler(t, s, 300)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var mu sync.Mutex
	generations := map[storage.FamilyID]uint32{}
	erased := map[string]bool{}
	var operations atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for n := 0; ctx.Err() == nil; n++ {
				res, err := s.SignIn(context.Background(), signInRequest(fmt.Sprint("o", i, "-", random.IntN(50))))
				if err != nil {
					t.Errorf("SignIn: %v", err)
					return
				}
				rotated, err := s.Rotate(context.Background(), storage.Rotation{FamilyID: res.Family.ID, ClientID: "shop-mini", Idle: time.Hour})
				if err != nil || rotated.Verdict != storage.RotateOK {
					t.Errorf("Rotate: %d, %v", rotated.Verdict, err)
					return
				}
				mu.Lock()
				generations[res.Family.ID] = 1
				mu.Unlock()
				if access, err := s.CheckAccess(context.Background(), storage.AccessCheck{FamilyID: res.Family.ID}); err != nil || access.Verdict != storage.AccessActive {
					t.Errorf("CheckAccess: %d, %v", access.Verdict, err)
					return
				}
				if n%10 == 9 {
					if found, err := s.Erase(context.Background(), res.UserID); err != nil || !found {
						t.Errorf("Erase: %v, %v", found, err)
						return
					}
					mu.Lock()
					erased[res.UserID] = true
					mu.Unlock()
				}
				operations.Add(1)
			}
		})
	}
	compactions := 0
	for begin := time.Now(); time.Since(begin) < time.Second || operations.Load() < 500 || compactions < 5; compactions++ {
		must(t, s.Compact(t.Context()))
		if compactions%3 == 0 {
			must(t, s.Backup(t.Context(), &bytes.Buffer{}))
		}
		if t.Failed() {
			break
		}
	}
	stop()
	wg.Wait()
	must(t, s.Compact(t.Context()))
	rows := dumpRows(t, s)
	must(t, s.Close())
	again := openStore(t, Options{Path: path, Keyring: ring})
	if got := dumpRows(t, again); !reflect.DeepEqual(got, rows) {
		t.Errorf("buckets %v differ after reopening", changedBuckets(rows, got))
	}
	lost := 0
	for id, generation := range generations {
		family, err := again.Family(t.Context(), id)
		if errors.Is(err, storage.ErrNotFound) {
			lost++ // allowed for an erased user alone
		} else if err != nil || family.Generation != generation {
			t.Fatalf("family %v: generation %d, %v", id, family.Generation, err)
		}
	}
	for id := range erased {
		if user, err := again.User(t.Context(), id); err != nil || !user.Retired {
			t.Fatalf("erased user %+v, %v", user, err)
		}
	}
	if lost > 0 && len(erased) == 0 {
		t.Errorf("%d families are lost", lost)
	}
	checkPeople(t, again)
	t.Logf("%d compactions beside %d rounds, %d erasures", compactions, operations.Load(), len(erased))
}

// What an earlier process left of a compaction is removed, and never taken for
// data.
func TestOpenRemovesLeftover(t *testing.T) {
	ring, path := newKeyring(t), newPath(t)
	s, err := Open(t.Context(), Options{Path: path, Keyring: ring})
	must(t, err)
	must(t, s.Close())
	must(t, os.WriteFile(copyPath(path), []byte("half a file"), 0o600))
	s = openStore(t, Options{Path: path, Keyring: ring})
	if _, err := os.Stat(copyPath(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover: %v", err)
	}
	must(t, os.WriteFile(copyPath(path), []byte("half a file"), 0o600))
	must(t, s.Compact(t.Context()))
	filler(t, s, 1)
}

// Whoever opened the old file before it was swapped out gets its lock when the
// store lets go of it, and must not work on a file that has no name.
func TestOpenNoticesSwappedFile(t *testing.T) {
	ring, path := newKeyring(t), newPath(t)
	s := openStore(t, Options{Path: path, Keyring: ring})
	old, err := os.Open(path)
	must(t, err)
	defer func() { _ = old.Close() }()
	must(t, checkName(path, old))
	must(t, s.Compact(t.Context()))
	if err := checkName(path, old); err == nil || !strings.Contains(err.Error(), "another process holds") {
		t.Errorf("checkName: %v", err)
	}
}

// A path that is a symbolic link, which InsecurePermissions allows, stays one.
func TestCompactThroughSymbolicLink(t *testing.T) {
	ring, path := newKeyring(t), newPath(t)
	s, err := Open(t.Context(), Options{Path: path, Keyring: ring})
	must(t, err)
	must(t, s.Close())
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Skip(err)
	}
	s = openStore(t, Options{Path: link, Keyring: ring, InsecurePermissions: true})
	must(t, s.Compact(t.Context()))
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link became %v, %v", info.Mode(), err)
	}
}

// A compaction that cannot be done changes nothing.
func TestCompactThatFails(t *testing.T) {
	s := openStore(t, Options{})
	filler(t, s, 20)
	rows := dumpRows(t, s)
	inTheWay := filepath.Join(copyPath(s.path), "file")
	must(t, os.Mkdir(filepath.Dir(inTheWay), 0o700))
	must(t, os.WriteFile(inTheWay, nil, 0o600))
	for name, err := range map[string]error{"Compact": s.Compact(t.Context()), "Backup": s.Backup(t.Context(), &bytes.Buffer{})} {
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := dumpRows(t, s); !reflect.DeepEqual(got, rows) {
		t.Errorf("buckets %v differ", changedBuckets(rows, got))
	}
	must(t, os.RemoveAll(copyPath(s.path)))
	filler(t, s, 1)
	must(t, s.Compact(t.Context()))
	if got := dumpRows(t, s); len(got["users"]) != len(rows["users"]) {
		t.Errorf("%d users, want %d", len(got["users"]), len(rows["users"]))
	}
}

// Closing ends a compaction that is under way.
func TestCloseDuringCompact(t *testing.T) {
	ring := newKeyring(t)
	for range 10 {
		path := newPath(t)
		s := openStore(t, Options{Path: path, Keyring: ring})
		filler(t, s, 100)
		done := make(chan error, 1)
		go func() {
			var err error
			for err == nil {
				err = s.Compact(context.Background())
			}
			done <- err
		}()
		res, err := s.SignIn(t.Context(), signInRequest("last"))
		must(t, err)
		must(t, s.Close())
		if err := <-done; !errors.Is(err, storage.ErrClosed) {
			t.Fatalf("Compact: %v", err)
		}
		again := openStore(t, Options{Path: path, Keyring: ring})
		if _, err := again.Family(t.Context(), res.Family.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(copyPath(path)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("leftover: %v", err)
		}
	}
}

func TestCompactOfClosedStore(t *testing.T) {
	s := openStore(t, Options{})
	must(t, s.Close())
	for name, err := range map[string]error{"Compact": s.Compact(t.Context()), "Backup": s.Backup(t.Context(), &bytes.Buffer{})} {
		if !errors.Is(err, storage.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(s.path)); err != nil || len(entries) != 1 {
		t.Errorf("files %v, %v", entries, err)
	}
}

// A silent sign-in touches what it touched before there were accounts.
func TestSilentSignInWritesLittle(t *testing.T) {
	s := openStore(t, Options{})
	in := signInRequest("o1")
	_, err := s.SignIn(t.Context(), in)
	must(t, err)
	before, commits := dumpRows(t, s), s.Stats().Commits
	in = signInRequest("o1")
	in.SessionKey = secret.New("not to be kept") // no lifetime
	_, err = s.SignIn(t.Context(), in)
	must(t, err)
	after := dumpRows(t, s)
	if got, want := changedBuckets(before, after), []string{"expiry", "families", "families_by_user"}; !slices.Equal(got, want) {
		t.Errorf("buckets %v changed, want %v", got, want)
	}
	for _, name := range []string{"expiry", "families", "families_by_user"} {
		if n := len(after[name]) - len(before[name]); n > 1 {
			t.Errorf("%d rows more in %s", n, name)
		}
	}
	if n := s.Stats().Commits - commits; n != 1 {
		t.Errorf("%d commits", n)
	}
}
