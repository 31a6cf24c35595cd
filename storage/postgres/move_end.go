package postgres

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// The parameter by which a connection says whose it is, and what it begins
// with where rows are moved.
const (
	applicationName   = "application_name"
	movingApplication = "wxidp move "
)

// aloneWait is for how long the connections of a server that has ended may
// still be seen.
const aloneWait = 2 * time.Second

// Alone returns an error where a server, or another move, has connections to
// the database. It knows servers by the application_name that the DSN gives
// them, "wxidp" where it gives none.
func (s *Store) Alone(ctx context.Context) error {
	for deadline := time.Now().Add(aloneWait); ; {
		var others int
		var from string
		err := s.readRow(ctx, `SELECT count(*), coalesce(min(host(client_addr)::text), 'this machine') FROM pg_stat_activity
			WHERE datname = current_database() AND application_name <> current_setting('application_name')
				AND (application_name = $1 OR starts_with(application_name, $2))`, []any{s.serving, movingApplication}, &others, &from)
		switch {
		case err != nil:
			return fmt.Errorf("look who uses the database: %w", err)
		case others == 0:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("the database is in use: %d connection(s) of wxidp servers or of another move, such as from %s; end them first", others, from)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Analyze has the database look at what an import has made of its tables, so
// that it plans its queries well from the first one on.
func (s *Store) Analyze(ctx context.Context) error {
	for _, kind := range storage.RowKinds() {
		err := s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, `ANALYZE `+movedTables[kind].name)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Describe names the database of a DSN without its user and password, such as
// "db.example.com:5432/wxidp".
func Describe(dsn secret.String) (string, error) {
	config, err := pgx.ParseConfig(dsn.Reveal())
	if dsn.IsZero() || err != nil {
		return "", errUnreadableDSN
	}
	address := config.Host
	if !strings.HasPrefix(address, "/") {
		address = net.JoinHostPort(address, strconv.Itoa(int(config.Port)))
	}
	return address + "/" + config.Database, nil
}

// Unverified returns a host of the DSN, on another machine, of which connections
// do not check that it is the one: where sslmode is neither verify-ca nor
// verify-full, a stranger on the way may answer for it and learn the password.
// "" where there is none.
func Unverified(dsn secret.String) string {
	config, err := pgx.ParseConfig(dsn.Reveal())
	if dsn.IsZero() || err != nil {
		return ""
	}
	ways := append([]*pgconn.FallbackConfig{{Host: config.Host, TLSConfig: config.TLSConfig}}, config.Fallbacks...)
	for _, way := range ways {
		verified := way.TLSConfig != nil && (!way.TLSConfig.InsecureSkipVerify || way.TLSConfig.VerifyPeerCertificate != nil)
		if !verified && !here(way.Host) {
			return way.Host
		}
	}
	return ""
}

// here reports whether a host is this machine.
func here(host string) bool {
	ip := net.ParseIP(host)
	return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" || ip != nil && ip.IsLoopback()
}

var passwordParameter = regexp.MustCompile(`(?i)(^|\s)(password|sslpassword)\s*=`)

// HasPassword reports whether a password is part of the DSN itself.
func HasPassword(dsn secret.String) bool {
	text := dsn.Reveal()
	if !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://") {
		return passwordParameter.MatchString(text)
	}
	u, err := url.Parse(text)
	if err != nil {
		return strings.Contains(text, "@") // whatever it is, it is not shown
	}
	_, set := u.User.Password()
	return set || u.Query().Has("password") || u.Query().Has("sslpassword")
}
