package bolt

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// briefFamilies signs n people in for a minute.
func briefFamilies(t *testing.T, s *Store, n int) []storage.Family {
	t.Helper()
	families := make([]storage.Family, n)
	for i := range families {
		in := signInRequest(fmt.Sprint("o", i%10))
		in.Idle, in.Absolute = time.Minute, time.Minute
		res, err := s.SignIn(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		families[i] = res.Family
	}
	return families
}

func TestRunGCWorksThroughABacklogInSmallCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var largest int
		s := openStore(t, Options{Path: fastPath(t), OnCommit: func(n int, _ time.Duration) { largest = max(largest, n) }})
		const n = 5*gcBatch + 7
		briefFamilies(t, s, n)
		time.Sleep(2 * time.Minute)
		before := s.Stats()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.RunGC(ctx, time.Hour)
		}()
		time.Sleep(10 * time.Minute) // far less than one period: a backlog does not wait for it
		if rows := countRows(t, s); rows != 2*10+2 {
			t.Errorf("%d rows are left, want users, identities, format and vault", rows)
		}
		after := s.Stats()
		if commits := after.Commits - before.Commits; commits != 6 {
			t.Errorf("%d commits for %d records", commits, n)
		}

		briefFamilies(t, s, 3)
		time.Sleep(2 * time.Hour)
		if rows := countRows(t, s); rows != 2*10+2 {
			t.Errorf("%d rows are left after the next period", rows)
		}
		cancel()
		<-done
	})
}

func TestRunGCEndsWithTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.RunGC(context.Background(), 0)
		}()
		time.Sleep(5 * time.Second)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		<-done
	})
}

func TestRunGCReportsAFailureOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := openStore(t, Options{Logger: slog.New(slog.NewJSONHandler(&log, nil)), Fatal: func(error) {}})
		s.committer.broke(fmt.Errorf("test"))
		err := s.write(t.Context(), func(txn) (bool, error) { s.committer.broken = true; return false, nil })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		s.RunGC(ctx, time.Minute)
		if n := strings.Count(log.String(), "storage.gc_failed"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		if err := s.db.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A record that cannot be read is left alone, and does not keep the others
// from being deleted.
func TestDamagedRecordDoesNotStopTheCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		families := briefFamilies(t, s, 10)
		damaged := families[4].ID
		err := s.write(t.Context(), func(tx txn) (bool, error) {
			return true, put(tx, bucketFamilies, damaged[:], []byte{99, 1, 2, 3})
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		deleted, more, err := s.DeleteExpired(t.Context(), 100)
		if err != nil || deleted != 9 || more {
			t.Fatalf("DeleteExpired = %d, %v, %v", deleted, more, err)
		}
		if _, err := s.Family(t.Context(), damaged); err == nil {
			t.Error("the damaged family was read")
		}
		if _, err := s.Rotate(t.Context(), storage.Rotation{FamilyID: damaged}); err == nil {
			t.Error("the damaged family was rotated")
		}
	})
}

// A refresh writes the family and nothing else.
func TestRotateTouchesOneRow(t *testing.T) {
	s := openStore(t, Options{})
	res, err := s.SignIn(t.Context(), signInRequest("o1"))
	if err != nil {
		t.Fatal(err)
	}
	before := dumpRows(t, s)
	if _, err := s.Rotate(t.Context(), storage.Rotation{FamilyID: res.Family.ID, ClientID: "shop-mini", Idle: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if changed := changedBuckets(before, dumpRows(t, s)); strings.Join(changed, " ") != "families" {
		t.Errorf("a refresh changed %v", changed)
	}

	before = dumpRows(t, s)
	if _, err := s.SignIn(t.Context(), signInRequest("o1")); err != nil {
		t.Fatal(err)
	}
	if changed := changedBuckets(before, dumpRows(t, s)); strings.Join(changed, " ") != "expiry families families_by_user" {
		t.Errorf("a silent sign-in of a known user changed %v", changed)
	}
}
