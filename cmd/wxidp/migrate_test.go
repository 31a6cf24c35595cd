package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestMigrate takes a database from nothing to a server, and refuses one of
// another schema.
func TestMigrate(t *testing.T) {
	dsn := newDatabase(t)
	execute(t, dsn, `CREATE SCHEMA fresh`)
	t.Cleanup(func() { execute(t, dsn, `DROP SCHEMA fresh CASCADE`) })
	s := prepareServer(t, withConfig(func(yaml string) string {
		return strings.Replace(yaml, "STORAGE", fmt.Sprintf("storage: { driver: postgres, postgres: { dsn: %q } }", dsn+" search_path=fresh"), 1)
	}))
	migrate := func(args ...string) (int, string, string) {
		t.Helper()
		return runCLI(t, slices.Concat([]string{"migrate"}, args, []string{"--config", s.ConfigPath()})...)
	}

	if err := s.startErr(); err == nil || !strings.Contains(err.Error(), "run wxidp migrate up") {
		t.Errorf("an empty database is served: %v", err)
	}
	if code, out, errs := migrate("status"); code != 1 || !strings.Contains(out, "version 0") || !strings.Contains(errs, "run wxidp migrate up") {
		t.Errorf("status of an empty database: %d, %s%s", code, out, errs)
	}
	if code, out, errs := migrate("up"); code != 0 || errs != "" || !strings.Contains(out, "applied ") {
		t.Fatalf("up: %d, %s%s", code, out, errs)
	}
	if code, out, errs := migrate("up"); code != 0 || errs != "" || !strings.Contains(out, "up to date") {
		t.Errorf("up again: %d, %s%s", code, out, errs)
	}
	var status migrateStatus
	code, out, errs := migrate("status", "--json")
	if err := json.Unmarshal([]byte(out), &status); err != nil || code != 0 || status.Version != status.Known || len(status.Pending) != 0 {
		t.Errorf("status: %d, %s%s, %v", code, out, errs, err)
	}
	s.start()
	signedIn(s, "a migrated database", signIn(s, "alice"))
	s.stop()

	execute(t, dsn, fmt.Sprintf(`INSERT INTO fresh.schema_versions (version_id, is_applied) VALUES (%d, true)`, status.Known+1))
	if err := s.startErr(); err == nil || !strings.Contains(err.Error(), "a newer program") {
		t.Errorf("the schema of a newer program is served: %v", err)
	}
	if code, _, errs := migrate("status"); code != 1 || !strings.Contains(errs, "newer program") {
		t.Errorf("status of a newer schema: %d, %s", code, errs)
	}
	if code, out, errs := migrate("up"); code != 1 || out != "" || !strings.Contains(errs, "newer program") {
		t.Errorf("up with a newer schema: %d, %s%s", code, out, errs)
	}
}

// TestMigrateNeedsPostgres: the data file has no schema, and a database that
// is not there is told of without its password.
func TestMigrateNeedsPostgres(t *testing.T) {
	s := prepareServer(t, withConfig(func(yaml string) string {
		return strings.Replace(yaml, "STORAGE", "storage: { driver: bolt, bolt: { path: data/wxidp.db } }", 1)
	}))
	for _, command := range []string{"up", "status"} {
		if code, _, errs := runCLI(t, "migrate", command, "--config", s.ConfigPath()); code != 1 || !strings.Contains(errs, "has no schema to migrate") {
			t.Errorf("%s: %d, %s", command, code, errs)
		}
	}
	const password = "canary-dsn-password-9f3a"
	s.editConfig("storage: { driver: bolt, bolt: { path: data/wxidp.db } }",
		"storage: { driver: postgres, postgres: { dsn: 'postgres://wxidp:"+password+"@127.0.0.1:1/wxidp?connect_timeout=2' } }")
	for _, command := range [][]string{{"migrate", "up"}, {"migrate", "status"}, {"serve"}} {
		code, out, errs := runCLI(t, append(command, "--config", s.ConfigPath())...)
		if code != 1 || strings.Contains(out+errs, password) || !strings.Contains(out+errs, "127.0.0.1") {
			t.Errorf("%v without a database: %d, %s%s", command, code, out, errs)
		}
	}
}

func execute(t testing.TB, dsn, sql string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatal(err)
	}
}
