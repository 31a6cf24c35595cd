package postgres

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/internal/secret"
)

func otherKeyring(t testing.TB) *seal.Keyring {
	t.Helper()
	keyring, err := seal.ParseKeyring([]byte(seal.GenerateKey()))
	if err != nil {
		t.Fatal(err)
	}
	return keyring
}

func execute(t *testing.T, dsn, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func TestMigrate(t *testing.T) {
	dsn := cluster.Database(t)
	execute(t, dsn, `CREATE SCHEMA fresh`)
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), dsn)
		if err == nil {
			_, err = conn.Exec(context.Background(), `DROP SCHEMA fresh CASCADE`)
			_ = conn.Close(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	fresh := secret.New(dsn + " search_path=fresh pool_max_conns=3")
	opts := Options{DSN: fresh, Keyring: testKeyring(t)}
	if _, err := Open(t.Context(), opts); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), "wxidp migrate up") {
		t.Fatalf("Open before the migration: %v", err)
	}
	status, err := MigrateStatus(t.Context(), fresh)
	if err != nil || status.Version != 0 || status.Current() || len(status.Pending) == 0 {
		t.Fatalf("status %+v, %v", status, err)
	}
	applied := make([]int, 2)
	errs := parallel(len(applied), func(i int) error {
		list, err := Migrate(t.Context(), fresh, nil)
		applied[i] = len(list)
		return err
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if applied[0]+applied[1] != len(status.Pending) {
		t.Errorf("two at once applied %v of %d migrations", applied, len(status.Pending))
	}
	if status, err = MigrateStatus(t.Context(), fresh); err != nil || !status.Current() || len(status.Pending) != 0 {
		t.Fatalf("status %+v, %v", status, err)
	}
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.pool.Config().MaxConns; got != 3 {
		t.Errorf("a pool of %d, the DSN says 3", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	execute(t, dsn, `INSERT INTO fresh.schema_versions (version_id, is_applied) VALUES (99999, true)`)
	if _, err := Open(t.Context(), opts); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), "99999") {
		t.Fatalf("Open of a later schema: %v", err)
	}
}

// No error quotes a DSN, which may hold a password.
func TestErrorsDoNotQuoteTheDSN(t *testing.T) {
	const password = "hunter2-hunter2"
	for _, dsn := range []string{
		"postgres://u:" + password + "@127.0.0.1:1/db?connect_timeout=1",
		"postgres://u:" + password + "@127.0.0.1:port/db",
		"host=/nonexistent password=" + password,
		"host=/nonexistent password='" + password,
		"password=" + password + " pool_max_conns=many",
		"",
	} {
		for name, call := range map[string]func() error{
			"Open": func() error {
				_, err := Open(t.Context(), Options{DSN: secret.New(dsn), Keyring: testKeyring(t)})
				return err
			},
			"Migrate":       func() error { _, err := Migrate(t.Context(), secret.New(dsn), nil); return err },
			"MigrateStatus": func() error { _, err := MigrateStatus(t.Context(), secret.New(dsn)); return err },
		} {
			if err := call(); err == nil {
				t.Errorf("%s of a wrong DSN succeeded", name)
			} else if strings.Contains(err.Error(), password) {
				t.Errorf("%s: the error quotes the password", name)
			}
		}
	}
}
