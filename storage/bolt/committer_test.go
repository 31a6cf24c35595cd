package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// stall keeps the writer busy with an operation that writes nothing until
// release is called, so that what is enqueued meanwhile becomes one batch.
func stall(t *testing.T, s *Store) (release func()) {
	t.Helper()
	entered, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.write(context.Background(), func(txn) (bool, error) {
			once.Do(func() { close(entered) })
			<-leave
			return false, nil
		})
		if err != nil {
			t.Errorf("stalling operation: %v", err)
		}
	})
	<-entered
	return func() {
		close(leave)
		wg.Wait()
	}
}

// waitQueued waits until n operations are in the queue.
func waitQueued(t *testing.T, s *Store, n int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); len(s.committer.queue) < n; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d operations are queued", len(s.committer.queue), n)
		}
	}
}

// putRow is an operation that writes one row and then does what then says.
func putRow(key string, then func() error) func(tx txn) (bool, error) {
	return func(tx txn) (bool, error) {
		if err := put(tx, bucketRecords, []byte(key), storage.EncodeDocument(&storage.Document{Version: 1})); err != nil {
			return true, err
		}
		if then != nil {
			return true, then()
		}
		return true, nil
	}
}

func hasRow(t *testing.T, s *Store, key string) bool {
	t.Helper()
	_, version, err := s.Record(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return version > 0
}

func TestConcurrentWritesShareCommits(t *testing.T) {
	var told, operations atomic.Int64
	s := openStore(t, Options{OnCommit: func(n int, elapsed time.Duration) {
		told.Add(1)
		operations.Add(int64(n))
		if elapsed <= 0 {
			t.Errorf("a commit took %v", elapsed)
		}
	}})
	const n = 256
	before, toldBefore := s.Stats(), told.Load()
	release := stall(t, s)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if _, err := s.SignIn(t.Context(), signInRequest(fmt.Sprint("o", i))); err != nil {
				t.Errorf("SignIn: %v", err)
			}
		})
	}
	waitQueued(t, s, n)
	release()
	wg.Wait()
	after := s.Stats()
	// The operations were all there when the writer came back.
	if commits := after.Commits - before.Commits; commits != 1 {
		t.Errorf("%d waiting operations took %d commits", n, commits)
	}
	if after.Operations-before.Operations != n || told.Load()-toldBefore != 1 || operations.Load() < n {
		t.Errorf("stats %+v, told of %d commits with %d operations", after, told.Load()-toldBefore, operations.Load())
	}
	if after.SizeBytes < 4*4096 {
		t.Errorf("size %d", after.SizeBytes)
	}
}

func TestLoneWriteTakesOneCommitAndNobodysWriteNone(t *testing.T) {
	s := openStore(t, Options{})
	res, err := s.SignIn(t.Context(), signInRequest("o1"))
	if err != nil {
		t.Fatal(err)
	}
	for name, step := range map[string]struct {
		call    func() error
		commits uint64
	}{
		"sign-in": {func() error { _, err := s.SignIn(t.Context(), signInRequest("o1")); return err }, 1},
		"rotation by another client": {func() error {
			_, err := s.Rotate(t.Context(), storage.Rotation{FamilyID: res.Family.ID, ClientID: "another"})
			return err
		}, 0},
		"unknown user": {func() error {
			if err := s.RevokeUser(t.Context(), "nobody", "x"); !errors.Is(err, storage.ErrNotFound) {
				return fmt.Errorf("error %v", err)
			}
			return nil
		}, 0},
		"nothing expired": {func() error { _, _, err := s.DeleteExpired(t.Context(), 100); return err }, 0},
	} {
		before := s.Stats().Commits
		if err := step.call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := s.Stats().Commits - before; got != step.commits {
			t.Errorf("%s took %d commits, want %d", name, got, step.commits)
		}
	}
}

func TestOneFailedOperationDoesNotFailItsBatch(t *testing.T) {
	var log bytes.Buffer
	s := openStore(t, Options{Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	errRefused := errors.New("refused before writing")
	ops := []struct {
		name  string
		apply func(tx txn) (bool, error)
		check func(err error) bool
		row   bool
	}{
		{"good-1", putRow("good-1", nil), func(err error) bool { return err == nil }, true},
		{"panics", putRow("panics", func() error { panic("s3cret in a panic") }), func(err error) bool { return errors.Is(err, storage.ErrUnavailable) }, false},
		{"good-2", putRow("good-2", nil), func(err error) bool { return err == nil }, true},
		{"fails half-way", putRow("fails half-way", func() error { return storage.ErrCorrupt }), func(err error) bool { return errors.Is(err, storage.ErrCorrupt) }, false},
		{"refuses", func(txn) (bool, error) { return false, errRefused }, func(err error) bool { return errors.Is(err, errRefused) }, false},
		{"dereferences nil", func(txn) (bool, error) { var p *storage.Family; p.Generation++; return true, nil }, func(err error) bool { return errors.Is(err, storage.ErrUnavailable) }, false},
		{"good-3", putRow("good-3", nil), func(err error) bool { return err == nil }, true},
	}
	before := s.Stats()
	release := stall(t, s)
	var wg sync.WaitGroup
	errs := make([]error, len(ops))
	for i, op := range ops {
		wg.Go(func() { errs[i] = s.write(context.Background(), op.apply) })
		waitQueued(t, s, i+1)
	}
	release()
	wg.Wait()
	for i, op := range ops {
		if !op.check(errs[i]) {
			t.Errorf("%s: error %v", op.name, errs[i])
		}
		if hasRow(t, s, op.name) != op.row {
			t.Errorf("%s: row %v, want %v", op.name, !op.row, op.row)
		}
		if errs[i] != nil && strings.Contains(errs[i].Error(), "s3cret") {
			t.Errorf("%s: the error shows the panic's value: %v", op.name, errs[i])
		}
	}
	after := s.Stats()
	if after.Operations-before.Operations != 3 || after.Commits-before.Commits != 1 {
		t.Errorf("%d operations in %d commits, want 3 in 1", after.Operations-before.Operations, after.Commits-before.Commits)
	}
	if strings.Count(log.String(), "storage.operation_failed") != 3 || strings.Contains(log.String(), "s3cret") {
		t.Errorf("log: %s", &log)
	}
}

func TestContextWithdrawsOnlyWhatWasNotTaken(t *testing.T) {
	s := openStore(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	release := stall(t, s)
	waiting := make(chan error, 1)
	go func() { waiting <- s.write(ctx, putRow("withdrawn", nil)) }()
	waitQueued(t, s, 1)
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("withdrawn: %v", err)
	}
	release()

	// A taken operation runs, and its caller learns how it ended.
	ctx, cancel = context.WithCancel(t.Context())
	entered, leave := make(chan struct{}), make(chan struct{})
	go func() {
		waiting <- s.write(ctx, func(tx txn) (bool, error) {
			close(entered)
			<-leave
			return putRow("taken", nil)(tx)
		})
	}()
	<-entered
	cancel()
	close(leave)
	if err := <-waiting; err != nil {
		t.Errorf("taken: %v", err)
	}
	if hasRow(t, s, "withdrawn") || !hasRow(t, s, "taken") {
		t.Errorf("withdrawn %v, taken %v", hasRow(t, s, "withdrawn"), hasRow(t, s, "taken"))
	}
}

func TestFullQueueRefusesAtOnce(t *testing.T) {
	s := openStore(t, Options{})
	release := stall(t, s)
	var wg sync.WaitGroup
	var failed atomic.Int32
	for i := range maxQueue {
		wg.Go(func() {
			if err := s.write(context.Background(), putRow(fmt.Sprint("row", i), nil)); err != nil {
				failed.Add(1)
			}
		})
	}
	waitQueued(t, s, maxQueue)
	if err := s.write(t.Context(), putRow("one too many", nil)); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
	release()
	wg.Wait()
	if failed.Load() != 0 {
		t.Errorf("%d accepted operations failed", failed.Load())
	}
}

func TestCloseFinishesWhatWasAccepted(t *testing.T) {
	path, ring := newPath(t), newKeyring(t)
	s := openStore(t, Options{Path: path, Keyring: ring})
	release := stall(t, s)
	const n = 50
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := s.write(context.Background(), putRow(fmt.Sprint("row", i), nil)); err != nil {
				t.Errorf("accepted operation: %v", err)
			}
		})
	}
	waitQueued(t, s, n)
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	for !s.committer.closing() {
		runtime.Gosched()
	}
	if err := s.write(t.Context(), putRow("late", nil)); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("write while closing: %v", err)
	}
	release()
	wg.Wait()
	if err := <-closed; err != nil {
		t.Fatalf("Close: %v", err)
	}
	again := openStore(t, Options{Path: path, Keyring: ring})
	for i := range n {
		if !hasRow(t, again, fmt.Sprint("row", i)) {
			t.Errorf("row %d is lost", i)
		}
	}
	if hasRow(t, again, "late") {
		t.Error("a refused row was written")
	}
}

// On a single processor the writer must let others run, or every batch is
// tiny. The ratio does not depend on how fast the disk is.
func TestBatchesOnOneProcessor(t *testing.T) {
	s := openStore(t, Options{})
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	before := s.Stats()
	const callers, each = 64, 40
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := range each {
				if err := s.write(context.Background(), putRow(fmt.Sprint(i, "-", n), nil)); err != nil {
					t.Errorf("write: %v", err)
				}
			}
		})
	}
	wg.Wait()
	after := s.Stats()
	if ratio := float64(after.Operations-before.Operations) / float64(after.Commits-before.Commits); ratio < 16 {
		t.Errorf("%.1f operations a commit with %d callers", ratio, callers)
	}
}

func TestFailedCommitDecision(t *testing.T) {
	full := fmt.Errorf("write /somewhere: %w", syscall.ENOSPC)
	for name, c := range map[string]struct {
		err   error
		wrote bool // the transaction became visible all the same
		fatal bool
	}{
		"full while writing pages":    {full, false, false},
		"full, after the meta page":   {full, true, true}, // durable or not, nobody knows
		"resize to beyond the limit":  {errors.New("file resize error: truncate x: " + syscall.EFBIG.Error()), false, false},
		"quota":                       {syscall.EDQUOT, false, false},
		"read-only now":               {syscall.EROFS, false, false},
		"fdatasync failed":            {syscall.EIO, false, true},
		"sync after resizing failed":  {errors.New("file sync error: sync x: " + syscall.EIO.Error()), false, true},
		"anything else":               {errors.New("no space left on device, says a stranger"), false, true},
		"panic that looks like space": {errors.New("bbolt panicked: " + syscall.ENOSPC.Error()), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			var fatal error
			s := openStore(t, Options{Fatal: func(err error) { fatal = err }})
			id := s.committer.visible()
			if !c.wrote {
				id++
			}
			err := s.committer.failed(id, time.Now(), c.err)
			if !errors.Is(err, storage.ErrUnavailable) {
				t.Errorf("error %v", err)
			}
			if (fatal != nil) != c.fatal {
				t.Fatalf("fatal: %v, want %v", fatal, c.fatal)
			}
			if c.fatal {
				if _, err := s.User(t.Context(), "u"); !errors.Is(err, storage.ErrUnavailable) {
					t.Errorf("read after a fatal failure: %v", err)
				}
				if err := s.RevokeUser(t.Context(), "u", "x"); !errors.Is(err, storage.ErrUnavailable) {
					t.Errorf("write after a fatal failure: %v", err)
				}
				if err := s.db.Close(); err != nil { // Close leaves a broken file to the end of the process
					t.Error(err)
				}
			}
		})
	}
}
