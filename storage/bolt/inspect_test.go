package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"
)

// eventLog passes on the events that are logged.
type eventLog struct {
	slog.Handler
	events chan string
}

func newEventLog() (*slog.Logger, chan string) {
	events := make(chan string, 1000)
	return slog.New(eventLog{slog.NewTextHandler(io.Discard, nil), events}), events
}

func (l eventLog) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "event" {
			l.events <- a.Value.String()
		}
		return true
	})
	return nil
}

func await(t *testing.T, events chan string, want string) {
	t.Helper()
	for timeout := time.After(20 * time.Second); ; {
		select {
		case event := <-events:
			if event == want {
				return
			}
		case <-timeout:
			t.Fatalf("no event %s", want)
		}
	}
}

// fill signs users in, and returns the id of one of them.
func fill(t *testing.T, s *Store, n int) (userID string) {
	t.Helper()
	for i := range n {
		res, err := s.SignIn(t.Context(), signInRequest(fmt.Sprint("o", i)))
		must(t, err)
		userID = res.UserID
	}
	return userID
}

// A large file that was closed in order is served at once and read as a whole
// afterwards; its free pages are known.
func TestOrderlyEndMakesTheNextStartShort(t *testing.T) {
	path, ring := newPath(t), newKeyring(t)
	s, err := Open(t.Context(), Options{Path: path, Keyring: ring})
	must(t, err)
	fill(t, s, 300)
	guard := guard{}
	if closedInOrder(path, guard) {
		t.Error("a file that is written to counts as closed")
	}
	crashed := filepath.Join(filepath.Dir(path), "crashed.db")
	copyFile(t, path, crashed)
	must(t, s.Close())
	if !closedInOrder(path, guard) || closedInOrder(crashed, guard) {
		t.Errorf("closed in order: %v, and a copy of before: %v", closedInOrder(path, guard), closedInOrder(crashed, guard))
	}

	log, events := newEventLog()
	again, err := Open(t.Context(), Options{Path: path, Keyring: ring, Logger: log, inspectFirst: 1})
	must(t, err)
	await(t, events, "storage.inspected")
	fill(t, again, 10)
	if closedInOrder(path, guard) {
		t.Error("after a commit the file still counts as closed")
	}
	must(t, again.Close())
	checkPages(t, path)

	log, events = newEventLog()
	after := openStore(t, Options{Path: crashed, Keyring: ring, Logger: log, inspectFirst: 1})
	fill(t, after, 10)
	must(t, after.Close())
	close(events)
	for event := range events {
		if event == "storage.inspected" {
			t.Error("after a crash the file was read only while it was served")
		}
	}
	checkPages(t, crashed)
}

// Whether free pages are kept or not, none is ever used twice, over many ends
// of both kinds.
func TestFreePagesSurviveEndsOfBothKinds(t *testing.T) {
	path, ring := newPath(t), newKeyring(t)
	for round := range 8 {
		s, err := Open(t.Context(), Options{Path: path, Keyring: ring})
		must(t, err)
		for i := range 60 {
			res, err := s.SignIn(t.Context(), signInRequest(fmt.Sprint("o", round%3*1000+i)))
			must(t, err)
			if i%2 == 0 {
				_, err := s.Erase(t.Context(), res.UserID)
				must(t, err)
			}
		}
		crashed := path + ".crashed"
		copyFile(t, path, crashed)
		must(t, s.Close())
		if round%2 == 1 {
			must(t, os.Rename(crashed, path))
		}
		checkPages(t, path)
	}
}

// A page that is damaged in a large file ends the store as soon as it is found.
func TestDamageIsFoundWhileServed(t *testing.T) {
	path, ring := newPath(t), newKeyring(t)
	s, err := Open(t.Context(), Options{Path: path, Keyring: ring})
	must(t, err)
	userID := fill(t, s, 300)
	must(t, s.Close())
	data, err := os.ReadFile(path)
	must(t, err)
	// All pages that ever held the user, but no page of another bucket's: their
	// keys are other ones.
	page := os.Getpagesize()
	for at := range len(data) / page {
		if i := bytes.Index(data[at*page:(at+1)*page], []byte(userID)); i >= 0 && bytes.Count(data[at*page:(at+1)*page], []byte("shop-mini")) == 0 {
			overwrite(t, path, int64(at*page), bytes.Repeat([]byte{0xa5}, page))
		}
	}
	fatal := make(chan error, 1)
	s, err = Open(t.Context(), Options{Path: path, Keyring: ring, inspectFirst: 1, Fatal: func(err error) { fatal <- err }})
	must(t, err)
	defer s.Close()
	select {
	case err := <-fatal:
		if !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), path) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the damage was not found")
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("a damaged store goes on")
	}
	if s, err := Open(t.Context(), Options{Path: path, Keyring: ring}); err == nil {
		must(t, s.Close())
		t.Error("a small file is opened although it is damaged")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, data, 0o600))
}

// checkPages has bbolt check every page of a file that nobody has open.
func checkPages(t *testing.T, path string) {
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
