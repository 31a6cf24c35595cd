package postgres

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// Threat 44: no connection to a standby is used, whatever the DSN prefers, so
// that nothing that was revoked is good there, and a node that could not write
// does not count as ready.
func TestThreat44StandbyIsNotRead(t *testing.T) {
	dsn := cluster.Database(t)
	for _, prefers := range []string{"", "any", "read-write", "primary", "prefer-standby"} {
		with := dsn
		if prefers != "" {
			with += " target_session_attrs=" + prefers
		}
		s := openDatabase(t, Options{DSN: secret.New(with)}, hooks{})
		family := signIn(t, s, request("o"+prefers)).Family
		// As a standby does, the database now refuses to write on new connections.
		admin, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		name := pgx.Identifier{admin.Config().Database}.Sanitize()
		for _, standby := range []bool{true, false} {
			if _, err := admin.Exec(t.Context(), fmt.Sprintf(`ALTER DATABASE %s SET default_transaction_read_only = %v`, name, standby)); err != nil {
				t.Fatal(err)
			}
			s.pool.Reset()
			_, err := s.CheckAccess(t.Context(), storage.AccessCheck{FamilyID: family.ID})
			if unavailable := errors.Is(err, storage.ErrUnavailable); unavailable != standby {
				t.Errorf("%q, standby %v: CheckAccess: %v", prefers, standby, err)
			}
			if ping := s.Ping(t.Context()); (ping != nil) != standby {
				t.Errorf("%q, standby %v: Ping: %v", prefers, standby, ping)
			}
		}
		if _, err := admin.Exec(t.Context(), fmt.Sprintf(`ALTER DATABASE %s RESET default_transaction_read_only`, name)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(admin.Close(t.Context()), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// Threat 84: nothing of a DSN's password is in any error.
func TestThreat84ConnectErrors(t *testing.T) {
	const canary = "cAnArYpAsS"
	for _, dsn := range []string{
		"postgres://wxidp:" + canary + "@127.0.0.1:1/wxidp?connect_timeout=1",
		"host=127.0.0.1 port=1 user=wxidp password=" + canary + " dbname=wxidp",
		"postgres://wxidp:" + canary + "@127.0.0.1:port/wxidp",
		"postgres://wxidp:" + canary + "%zz@127.0.0.1/wxidp",
		"host=127.0.0.1 password='" + canary,
		"postgres://127.0.0.1:1/wxidp?sslmode=" + canary,
	} {
		_, err := Open(t.Context(), Options{DSN: secret.New(dsn), Keyring: testKeyring(t), Wait: 1})
		_, statusErr := MigrateStatus(t.Context(), secret.New(dsn))
		_, upErr := Migrate(t.Context(), secret.New(dsn), nil)
		_, nameErr := Describe(secret.New(dsn))
		for i, err := range []error{err, statusErr, upErr, nameErr} {
			if err == nil && i < 3 {
				t.Errorf("%d: no error for a database that is not there", i)
			}
			if err != nil && strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err.Error()), canary) {
				t.Errorf("%d: the password is in %v", i, err)
			}
		}
	}
}

// Threat 89: a database on another machine that anybody could answer for is
// noticed.
func TestThreat89Unverified(t *testing.T) {
	for dsn, want := range map[string]string{
		"postgres://u@db.example/w":                                    "db.example",
		"postgres://u@db.example/w?sslmode=disable":                    "db.example",
		"postgres://u@db.example/w?sslmode=require":                    "db.example",
		"postgres://u@db.example/w?sslmode=verify-ca":                  "",
		"postgres://u@db.example/w?sslmode=verify-full":                "",
		"postgres://u@10.0.0.1,127.0.0.1/w":                            "10.0.0.1",
		"postgres://u@127.0.0.1,10.0.0.1/w?sslmode=disable":            "10.0.0.1",
		"postgres://u@localhost/w?sslmode=disable":                     "",
		"postgres://u@[::1]/w":                                         "",
		"host=/run/postgresql user=u":                                  "",
		"host=db.example hostaddr=10.0.0.1 user=u sslmode=verify-full": "",
		"nonsense": "",
	} {
		if got := Unverified(secret.New(dsn)); got != want {
			t.Errorf("%s: %q, want %q", dsn, got, want)
		}
	}
}
