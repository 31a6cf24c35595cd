package postgres

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

func mustOpen(t *testing.T, dsn string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{DSN: secret.New(dsn), Keyring: testKeyring(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // closed before, mostly
	return s
}

func markOf(t *testing.T, s *Store) storage.Restored {
	t.Helper()
	mark, _, err := storage.ReadRestored(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return mark
}

// TestThreat88DumpIsKnown loads a dump into another database: all nodes there
// ask for a choice, once, and the first database never does.
func TestThreat88DumpIsKnown(t *testing.T) {
	for _, tool := range []string{"pg_dump", "psql"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	from := cluster.Database(t)
	s := mustOpen(t, from)
	res, err := s.SignIn(t.Context(), storage.SignIn{
		AppID: "wx0123456789abcdef", WeChatOpenID: "o1", Family: storage.Family{ClientID: "shop-mini"}, Absolute: 1 << 50,
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // however often it is opened
		if mark := markOf(t, mustOpen(t, from)); mark != (storage.Restored{}) {
			t.Fatalf("a database of its own: %+v", mark)
		}
	}
	dump, err := exec.CommandContext(t.Context(), "pg_dump", toolDSN(t, from), "--no-owner").Output()
	if err != nil {
		t.Fatal(err)
	}

	to := emptyDatabase(t, from)
	load := exec.CommandContext(t.Context(), "psql", "-q", "-v", "ON_ERROR_STOP=1", toolDSN(t, to))
	load.Stdin = strings.NewReader(string(dump))
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	stores := make([]*Store, 4)
	for _, err := range parallel(len(stores), func(i int) (err error) {
		stores[i], err = Open(t.Context(), Options{DSN: secret.New(to), Keyring: testKeyring(t)})
		return err
	}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range stores {
		if mark := markOf(t, s); mark.State != storage.RestorePending || mark.RestoredAt.IsZero() {
			t.Errorf("a dump in another database: %+v", mark)
		}
	}
	if _, _, settled, err := storage.Settle(t.Context(), stores[0], storage.RestoreRevokeAll, nil, nil); !settled || err != nil {
		t.Fatal(settled, err)
	}
	again := mustOpen(t, to)
	if mark := markOf(t, again); mark.State != storage.RestoreSettled {
		t.Errorf("when it is settled: %+v", mark)
	}
	check := func(s *Store, want storage.AccessVerdict) {
		t.Helper()
		got, err := s.CheckAccess(t.Context(), storage.AccessCheck{FamilyID: res.Family.ID})
		if err != nil || got.Verdict != want {
			t.Errorf("verdict %d, %v; want %d", got.Verdict, err, want)
		}
	}
	check(again, storage.AccessFamilyRevoked)
	check(s, storage.AccessActive)
	if mark := markOf(t, s); mark != (storage.Restored{}) {
		t.Errorf("the first database: %+v", mark)
	}
	for _, s := range append(stores, again) {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// toolDSN is a DSN as the programs of PostgreSQL take it.
func toolDSN(t *testing.T, dsn string) string {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return "postgresql:///" + config.Database + "?" + url.Values{"host": {config.Host}, "user": {config.User}}.Encode()
}

// emptyDatabase makes a database without a schema, which is the test's.
func emptyDatabase(t *testing.T, like string) (dsn string) {
	t.Helper()
	config, err := pgx.ParseConfig(like)
	if err != nil {
		t.Fatal(err)
	}
	name := config.Database + "_copy"
	execute(t, like, `CREATE DATABASE `+name+` TEMPLATE template0`)
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), like)
		if err == nil {
			_, err = conn.Exec(context.Background(), `DROP DATABASE `+name+` WITH (FORCE)`)
			_ = conn.Close(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	return fmt.Sprintf("host=%s user=%s dbname=%s sslmode=disable", config.Host, config.User, name)
}

// TestHome tells databases apart as far as what is known of them does.
func TestHome(t *testing.T) {
	for _, test := range []struct {
		now, before home
		other       bool
	}{
		{home{"1", "5"}, home{"1", "5"}, false},
		{home{"1", "5"}, home{"1", "6"}, true},
		{home{"1", "5"}, home{"2", "5"}, true},
		{home{"", "5"}, home{"2", "5"}, false}, // who asks may not know
		{home{"1", "5"}, home{"", "5"}, false},
		{home{"", "5"}, home{"", "6"}, true},
	} {
		if got := test.now.otherThan(test.before); got != test.other {
			t.Errorf("%+v after %+v: %v", test.now, test.before, got)
		}
	}
	// What is not known of the cluster is learned without a mark.
	dsn := cluster.Database(t)
	_ = mustOpen(t, dsn)
	execute(t, dsn, `UPDATE home SET system_id = ''`)
	s := mustOpen(t, dsn)
	var system string
	if err := s.readRow(t.Context(), `SELECT system_id FROM home`, nil, &system); err != nil || system == "" {
		t.Errorf("%q, %v", system, err)
	}
	if mark := markOf(t, s); mark.State != "" {
		t.Errorf("mark %+v", mark)
	}
}
