package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage/postgres"
	"github.com/wxidp/wxidp/storage/postgres/pgtest"
)

// storageEnv names the driver that the servers of all tests work with: bolt,
// unless it says postgres.
const storageEnv = "TEST_STORAGE"

func testsOnPostgres() bool { return os.Getenv(storageEnv) == "postgres" }

// database is a PostgreSQL that starts with the first test that asks for it.
var database struct {
	start   sync.Once
	cluster *pgtest.Cluster
	err     error
	folders sync.Map // DSNs by the folder of their server
}

func runTests(m *testing.M) int {
	code := m.Run()
	if err := database.cluster.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// newDatabase returns the DSN of an empty database, which is the test's.
func newDatabase(t testing.TB) string {
	t.Helper()
	database.start.Do(func() {
		database.cluster, database.err = pgtest.Start(func(ctx context.Context, dsn string) error {
			_, err := postgres.Migrate(ctx, secret.New(dsn), nil)
			return err
		})
	})
	if database.err != nil {
		t.Fatal(database.err)
	}
	return database.cluster.Database(t)
}

// storageConfig is the YAML of the storage of the server in dir. Servers of one
// folder share a database, as they would share a file.
func storageConfig(t testing.TB, dir string) string {
	t.Helper()
	if !testsOnPostgres() {
		return "storage: { driver: bolt, bolt: { path: data/wxidp.db } }"
	}
	dsn, known := database.folders.Load(dir)
	if !known {
		dsn = newDatabase(t)
		database.folders.Store(dir, dsn)
	}
	return fmt.Sprintf("storage: { driver: postgres, postgres: { dsn: %q } }", dsn)
}

// storedBytes are all bytes that the storage of a server keeps on disk.
func (s *testServer) storedBytes() []byte {
	s.t.Helper()
	if dsn, known := database.folders.Load(s.Dir); known {
		return database.cluster.Files(s.t, dsn.(string))
	}
	data, err := os.ReadFile(filepath.Join(s.Dir, "data", "wxidp.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	return bytes.TrimRight(data, "\x00") // the file grows ahead of its content
}

// aboutBubbles skips a test that moves the time of its own process, which a
// database does not share.
func aboutBubbles(t testing.TB) {
	t.Helper()
	if testsOnPostgres() {
		t.Skip("the database's clock judges here, and a test cannot move it; the storage contract is tested with a clock that moves")
	}
}

// aboutDataFile skips a test of what only the driver bolt has.
func aboutDataFile(t testing.TB) {
	t.Helper()
	if testsOnPostgres() {
		t.Skip("it is about the data file of the driver bolt")
	}
}
