package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/bolt"
	"github.com/wxidp/wxidp/storage/postgres/pgtest"
	"github.com/wxidp/wxidp/storage/storagetest"
)

var cluster *pgtest.Cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	var err error
	cluster, err = pgtest.Start(func(ctx context.Context, dsn string) error {
		_, err := Migrate(ctx, secret.New(dsn), nil)
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	return m.Run()
}

func testKeyring(t testing.TB) *seal.Keyring {
	t.Helper()
	keyring, err := seal.ParseKeyring([]byte("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n"))
	if err != nil {
		t.Fatal(err)
	}
	return keyring
}

// openStore opens a store on an empty database.
func openStore(t testing.TB, opts Options, test hooks) *Store {
	t.Helper()
	opts.DSN = secret.New(cluster.Database(t))
	return openDatabase(t, opts, test)
}

// reopen closes a store and opens its database anew.
func reopen(t testing.TB, s *Store, test hooks) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return openDatabase(t, Options{DSN: secret.New(s.pool.Config().ConnString())}, test)
}

func openDatabase(t testing.TB, opts Options, test hooks) *Store {
	t.Helper()
	opts.Keyring = testKeyring(t)
	s, err := open(context.Background(), opts, test)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func contractOptions(clock func() time.Time) storagetest.Options {
	return storagetest.Options{
		Open: func(t *testing.T) storage.Store { return openStore(t, Options{}, hooks{clock: clock}) },
		Reopen: func(t *testing.T, s storage.Store) storage.Store {
			return reopen(t, s.(*Store), hooks{clock: clock})
		},
		Other: boltOptions(),
		Rows:  countRows,
		Check: checkRows,
		Dump: func(t *testing.T, s storage.Store) []byte {
			return cluster.Files(t, s.(*Store).pool.Config().ConnString())
		},
	}
}

// boltOptions is the other engine, to move to.
func boltOptions() *storagetest.Options {
	openFile := func(t *testing.T, path string) storage.Store {
		s, err := bolt.Open(context.Background(), bolt.Options{Path: path, Keyring: testKeyring(t)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	paths := map[storage.Store]string{}
	return &storagetest.Options{
		Open: func(t *testing.T) storage.Store {
			path := filepath.Join(t.TempDir(), "data", "wxidp.db")
			s := openFile(t, path)
			paths[s] = path
			return s
		},
		Reopen: func(t *testing.T, s storage.Store) storage.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return openFile(t, paths[s])
		},
	}
}

func TestContract(t *testing.T) { storagetest.RunOptions(t, contractOptions(nil)) }

// TestContractInBubble moves time by days: the bubble's clock takes the place
// of the database's. Its time stands still while the database is asked.
func TestContractInBubble(t *testing.T) {
	opts := contractOptions(time.Now)
	opts.Bubble, opts.ModelSteps = true, 10_000
	if testing.Short() {
		opts.ModelSteps = 4000
	}
	storagetest.RunOptions(t, opts)
}

// countRows counts the records of all kinds with their entries in indexes of
// expiry and of what belongs to a user.
func countRows(t *testing.T, store storage.Store) (rows int) {
	for table, weight := range map[string]int{
		"users": 1, "identities": 1, "owners": 1, "session_keys": 2, "clients": 1, "families": 3, "denied_jtis": 2, "idempotency": 2,
		"items": 2, "records": 1, "logins": 3, "codes": 2, "consents": 1, "states": 2, "logouts": 2,
	} {
		var n int
		if err := store.(*Store).readRow(t.Context(), `SELECT count(*) FROM `+table, nil, &n); err != nil {
			t.Fatal(err)
		}
		rows += n * weight
	}
	return rows
}

// Who lets the database forget what it has acknowledged is told so.
func TestWarnsOfCommitsThatMayBeLost(t *testing.T) {
	for mode, want := range map[string]bool{"off": true, "on": false} {
		var log strings.Builder
		s := openDatabase(t, Options{
			DSN:    secret.New(cluster.Database(t) + " synchronous_commit=" + mode),
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		}, hooks{})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "event=storage.not_durable"); got != want {
			t.Errorf("%s: %q", mode, log.String())
		}
	}
}
