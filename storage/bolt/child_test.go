//go:build linux

package bolt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
)

// Some tests need a process of their own: one that is killed, or one whose
// files may not grow. They start this test binary again with these variables.
const (
	envChild = "WXIDP_TEST_CHILD"
	envPath  = "WXIDP_TEST_PATH"
	envKey   = "WXIDP_TEST_KEY"

	envBackup = "WXIDP_TEST_BACKUP" // of the child that restores
)

func TestMain(m *testing.M) {
	children := map[string]func(s *Store) error{"write": writeUntilKilled, "compact": compactUntilKilled, "full": fillToTheLimit}
	if os.Getenv(envChild) == "restore" {
		restoreUntilKilled()
	}
	run, ok := children[os.Getenv(envChild)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := runChild(run); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

func runChild(run func(s *Store) error) error {
	ring, err := seal.ParseKeyring([]byte(os.Getenv(envKey)))
	if err != nil {
		return err
	}
	s, err := Open(context.Background(), Options{Path: os.Getenv(envPath), Keyring: ring})
	if err != nil {
		return err
	}
	return errors.Join(run(s), s.Close())
}

func startChild(t *testing.T, mode, path, key string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envChild+"="+mode, envPath+"="+path, envKey+"="+key)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	return cmd, out
}

// writeUntilKilled signs people in and refreshes, and prints what was
// acknowledged: a family id and its generation.
func writeUntilKilled(s *Store) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range 16 {
		wg.Go(func() {
			for n := 0; ; n++ {
				res, err := s.SignIn(context.Background(), signInRequest(fmt.Sprint("o", (i*31+n)%97)))
				if err != nil {
					panic(err)
				}
				for generation := range uint32(3) {
					mu.Lock()
					fmt.Println(res.Family.ID, generation)
					mu.Unlock()
					rotated, err := s.Rotate(context.Background(), storage.Rotation{FamilyID: res.Family.ID, ClientID: "shop-mini", Generation: generation, Idle: time.Hour})
					if err != nil || rotated.Verdict != storage.RotateOK {
						panic(fmt.Sprint(rotated.Verdict, err))
					}
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// compactUntilKilled does so while the file is compacted again and again.
func compactUntilKilled(s *Store) error {
	go func() {
		for {
			if err := s.Compact(context.Background()); err != nil {
				panic(err)
			}
		}
	}()
	return writeUntilKilled(s)
}

// Killing the process at any moment loses nothing that was acknowledged.
func TestKilledProcessLosesNothing(t *testing.T) {
	for _, mode := range []string{"write", "compact"} {
		t.Run(mode, func(t *testing.T) { killedProcess(t, mode) })
	}
}

func killedProcess(t *testing.T, mode string) {
	path, key := newPath(t), seal.GenerateKey()
	ring, err := seal.ParseKeyring([]byte(key))
	must(t, err)
	acknowledged := map[storage.FamilyID]uint32{}
	for round := range 5 {
		cmd, out := startChild(t, mode, path, key)
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == 150+100*round {
				must(t, cmd.Process.Kill())
			}
			id, generation := parseAcknowledged(t, lines.Text())
			acknowledged[id] = max(acknowledged[id], generation)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the child ended with %v", err)
		}
		s, err := Open(t.Context(), Options{Path: path, Keyring: ring})
		must(t, err)
		for id, generation := range acknowledged {
			family, err := s.Family(t.Context(), id)
			if err != nil || family.Generation < generation {
				t.Fatalf("round %d: family %v at generation %d, acknowledged %d: %v", round, id, family.Generation, generation, err)
			}
			if _, err := s.User(t.Context(), family.UserID); err != nil {
				t.Fatalf("round %d: user: %v", round, err)
			}
		}
		must(t, s.Close())
	}
	if len(acknowledged) < 500 {
		t.Errorf("only %d families were acknowledged", len(acknowledged))
	}
}

func parseAcknowledged(t *testing.T, line string) (id storage.FamilyID, generation uint32) {
	t.Helper()
	text, number, _ := strings.Cut(line, " ")
	id, ok := storage.ParseFamilyID(text)
	if _, err := fmt.Sscan(number, &generation); err != nil || !ok {
		t.Fatalf("line %q", line)
	}
	return id, generation
}

// A limit on the size of files is what a full disk looks like to a process
// that no test may fill a disk for.
func TestThreat43FullDiskByLimit(t *testing.T) {
	path := newPath(t)
	cmd, out := startChild(t, "full", path, seal.GenerateKey())
	text, err := io.ReadAll(out)
	must(t, err)
	t.Logf("%s", text)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the child ended with %v", err)
	}
	checkFile(t, path)
}

func fillToTheLimit(s *Store) error {
	info, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	limited := syscall.Rlimit{Cur: uint64(info.Size()) + 4<<20, Max: old.Max}
	return fillAndRecover(s,
		func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limited) },
		func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old) })
}

// fillAndRecover writes until nothing fits any more, holds that reads go on
// and that a refused write left nothing, makes room, and holds that writes
// work again by themselves and that all that was acknowledged is there.
func fillAndRecover(s *Store, restrict, relax func() error) (err error) {
	ctx := context.Background()
	signedIn, err := s.SignIn(ctx, signInRequest("o1"))
	if err != nil {
		return err
	}
	revoked, err := s.SignIn(ctx, signInRequest("o2"))
	if err != nil {
		return err
	}
	if err := restrict(); err != nil {
		return fmt.Errorf("restrict: %w", err)
	}
	reading, stop := context.WithCancel(ctx)
	var readers sync.WaitGroup
	var failedRead error
	readers.Go(func() { // a failed commit must not take pages from under a reader
		for reading.Err() == nil && failedRead == nil {
			if _, failedRead = s.Family(ctx, signedIn.Family.ID); failedRead == nil {
				if _, _, err := s.Consume(ctx, storage.ItemClientAssertion, []byte("none")); err != nil {
					failedRead = fmt.Errorf("consume: %w", err)
				}
			}
			if errors.Is(failedRead, storage.ErrUnavailable) && strings.Contains(failedRead.Error(), "consume: ") {
				failedRead = nil // a write, even where it finds nothing: it may rest on what its batch could not store
			}
		}
	})
	defer func() {
		stop()
		readers.Wait()
		if err == nil {
			err = failedRead
		}
	}()
	value := make([]byte, 256<<10)
	put := func(n int) error {
		_, err := s.PutIfAbsent(ctx, storage.ItemClientAssertion, []byte(fmt.Sprint(n)), value, time.Hour)
		return err
	}
	stored := 0
	for failures := 0; failures < 20; { // a page that a reader gives back may make room for one more value
		switch err := put(stored); {
		case err == nil:
			if stored++; stored > 2000 {
				return errors.New("the disk does not get full")
			}
			failures = 0
			continue
		case !errors.Is(err, storage.ErrUnavailable):
			return fmt.Errorf("write to a full disk: %w", err)
		}
		failures++
		if err := revokedOrRefused(s, revoked.Family.ID); err != nil {
			return err
		}
		access, err := s.CheckAccess(ctx, storage.AccessCheck{FamilyID: signedIn.Family.ID})
		if err != nil || access.Verdict != storage.AccessActive {
			return fmt.Errorf("read beside a full disk: %d, %w", access.Verdict, err)
		}
		time.Sleep(minFullPause)
	}
	if err := relax(); err != nil {
		return fmt.Errorf("relax: %w", err)
	}
	recovered := false
	for begin := time.Now(); !recovered && time.Since(begin) < 30*time.Second; time.Sleep(minFullPause) {
		recovered = put(stored) == nil
	}
	if !recovered {
		return errors.New("writes do not recover")
	}
	if _, err := s.RevokeFamily(ctx, revoked.Family.ID, "logout"); err != nil {
		return fmt.Errorf("revocation after the recovery: %w", err)
	}
	if err := revokedOrRefused(s, revoked.Family.ID); err != nil {
		return err
	}
	if _, err := s.Rotate(ctx, storage.Rotation{FamilyID: signedIn.Family.ID, ClientID: "shop-mini", Idle: time.Hour}); err != nil {
		return fmt.Errorf("rotation after the recovery: %w", err)
	}
	for n := range stored + 2 {
		got, verdict, err := s.Consume(ctx, storage.ItemClientAssertion, []byte(fmt.Sprint(n)))
		if err != nil {
			return err
		}
		if there := verdict == storage.ConsumeOK && len(got) == len(value); there != (n <= stored) {
			return fmt.Errorf("value %d of %d: verdict %d with %d bytes", n, stored, verdict, len(got))
		}
	}
	return nil
}

// revokedOrRefused holds that a revocation is never acknowledged while the
// family lives.
func revokedOrRefused(s *Store, id storage.FamilyID) error {
	ctx := context.Background()
	if _, err := s.RevokeFamily(ctx, id, "logout"); errors.Is(err, storage.ErrUnavailable) {
		return nil
	} else if err != nil {
		return err
	}
	access, err := s.CheckAccess(ctx, storage.AccessCheck{FamilyID: id})
	if err != nil || access.Verdict != storage.AccessFamilyRevoked {
		return fmt.Errorf("acknowledged revocation on a full disk: %d, %w", access.Verdict, err)
	}
	return nil
}
