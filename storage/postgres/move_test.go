package postgres

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/storagetest"
)

// TestEveryTableMoves: a new table that a crash must not empty has rows to be
// moved, with all its columns.
func TestEveryTableMoves(t *testing.T) {
	s := openStore(t, Options{}, hooks{})
	known := map[string]bool{versionTable: true, leaseTable: true, "home": true} // about the database itself
	for _, kind := range storage.RowKinds() {
		table := movedTables[kind]
		known[table.name] = true
		var want, got []string
		for _, column := range table.columns {
			got = append(got, column.name)
		}
		err := s.readRow(t.Context(), `SELECT array_agg(column_name::text) FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1`,
			[]any{table.name}, &want)
		slices.Sort(got)
		slices.Sort(want)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("of %s the columns %v move, and it has %v; %v", table.name, got, want, err)
		}
	}
	var tables []string
	err := s.readRow(t.Context(), `SELECT array_agg(relname::text) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relpersistence = 'p'`, nil, &tables)
	if err != nil || len(tables) < 10 {
		t.Fatal(tables, err)
	}
	for _, table := range tables {
		if !known[table] {
			t.Errorf("a move leaves the table %s behind", table)
		}
	}
}

// TestAlone: a server and another move are seen, one's own connections and
// those of other programs are not.
func TestAlone(t *testing.T) {
	s := openStore(t, Options{}, hooks{})
	dsn := s.pool.Config().ConnString()
	mover := func(dsn string) *Store { return openDatabase(t, Options{DSN: secret.New(dsn), Moving: true}, hooks{}) }
	alone, busy := func(m *Store) bool { return m.Alone(t.Context()) == nil }, func(m *Store, says string) {
		t.Helper()
		if err := m.Alone(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	m := mover(dsn)
	busy(m, "1 connection(s)") // of s
	guest := mover(withGuest(t, s, dsn))
	busy(guest, "connection(s)") // whoever asks
	if err := guest.Analyze(t.Context()); err != nil {
		t.Errorf("a user that does not own the tables: %v", err)
	}
	if err := guest.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !alone(m) {
		t.Error("a server that has ended is seen")
	}
	named := openDatabase(t, Options{DSN: secret.New(dsn + " application_name=idp")}, hooks{})
	if !alone(m) {
		t.Error("another program is taken for a server")
	}
	other := mover(dsn + " application_name=idp")
	busy(other, "such as from this machine")
	if err := named.Close(); err != nil {
		t.Fatal(err)
	}
	busy(other, "connection(s) of wxidp servers or of another move") // m
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if !alone(other) {
		t.Error("nobody else is there")
	}
}

// withGuest returns the DSN of a user who may change rows and nothing else.
func withGuest(t *testing.T, s *Store, dsn string) string {
	t.Helper()
	execute := func(sql string) {
		t.Helper()
		if _, err := s.pool.Exec(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	execute(`CREATE ROLE guest LOGIN`)
	execute(`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest`)
	t.Cleanup(func() {
		c, err := pgx.Connect(context.Background(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close(context.Background()) }()
		if _, err := c.Exec(context.Background(), `DROP OWNED BY guest; DROP ROLE guest`); err != nil {
			t.Error(err)
		}
	})
	return strings.Replace(dsn, "user=wxidp", "user=guest", 1)
}

func TestDSNs(t *testing.T) {
	for dsn, want := range map[string]struct {
		password bool
		name     string
	}{
		"postgres://wxidp@db.example.com/idp":                 {false, "db.example.com:5432/idp"},
		"postgres://wxidp:canary@db.example.com:5433/idp":     {true, "db.example.com:5433/idp"},
		"postgresql://db/idp?user=wxidp&password=canary":      {true, "db:5432/idp"},
		"host=/run/postgresql user=wxidp dbname=idp":          {false, "/run/postgresql/idp"},
		"host=db user=wxidp dbname=idp password=canary":       {true, "db:5432/idp"},
		"host=db user=wxidp dbname=idp PASSWORD = 'canary x'": {true, "db:5432/idp"},
		"host=db user=password_reader dbname=idp":             {false, "db:5432/idp"},
		"":      {false, ""},
		"host":  {false, ""},
		"://@%": {false, ""},
	} {
		if got := HasPassword(secret.New(dsn)); got != want.password {
			t.Errorf("%q: password %v", dsn, got)
		}
		name, err := Describe(secret.New(dsn))
		if name != want.name || (err == nil) != (want.name != "") || err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%q is called %q, %v", dsn, name, err)
		}
	}
}

func BenchmarkImportRows(b *testing.B) {
	storagetest.BenchmarkImportRows(b, openStore(b, Options{}, hooks{}))
}
