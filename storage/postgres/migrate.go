package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/wxidp/wxidp/internal/secret"
)

//go:embed migrations/*.sql
var migrations embed.FS

// The tables that the schema's version and the lease of who changes it are in.
const (
	versionTable = "schema_versions"
	leaseTable   = "schema_leases"
)

// Schema says which schema a database has.
type Schema struct {
	Version int64    // of the database; 0: nothing was ever migrated
	Known   int64    // what this program works with
	Pending []string // migrations of this program that the database lacks
}

// Current reports whether the program can work with the database.
func (s Schema) Current() bool { return s.Version == s.Known }

// Migrate brings the database to the schema that this program knows and
// returns what was applied; progress, where it is not nil, is told of each
// migration when it is done. Where several nodes do so at once, one of them
// holds a lease in a row and the others wait for it.
func Migrate(ctx context.Context, dsn secret.String, progress func(migration string)) (applied []string, err error) {
	err = withProvider(dsn, func(p *goose.Provider) error {
		for {
			result, err := p.UpByOne(ctx)
			if errors.Is(err, goose.ErrNoNextVersion) {
				return nil
			}
			if err != nil {
				return err
			}
			applied = append(applied, result.Source.Path)
			if progress != nil {
				progress(result.Source.Path)
			}
		}
	})
	return applied, err
}

// MigrateStatus returns which schema the database has. It changes nothing but
// for the table of versions, which is made if it is missing.
func MigrateStatus(ctx context.Context, dsn secret.String) (schema Schema, err error) {
	err = withProvider(dsn, func(p *goose.Provider) error {
		status, err := p.Status(ctx)
		if err != nil {
			return err
		}
		for _, m := range status {
			schema.Known = max(schema.Known, m.Source.Version)
			if m.State != goose.StateApplied {
				schema.Pending = append(schema.Pending, m.Source.Path)
			}
		}
		schema.Version, err = p.GetDBVersion(ctx)
		return err
	})
	return schema, err
}

func withProvider(dsn secret.String, use func(p *goose.Provider) error) (err error) {
	config, parseErr := pgx.ParseConfig(dsn.Reveal())
	if dsn.IsZero() || parseErr != nil {
		return errUnreadableDSN
	}
	for name := range config.RuntimeParams {
		if len(name) > 5 && name[:5] == "pool_" { // of the pool, and no parameter of the server
			delete(config.RuntimeParams, name)
		}
	}
	db := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := newProvider(db)
	if err != nil {
		return err
	}
	if err := use(p); err != nil {
		return fmt.Errorf("storage database: %w", err)
	}
	return nil
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	lease, err := lock.NewPostgresTableLocker(
		lock.WithTableName(leaseTable), lock.WithTableLeaseDuration(30*time.Second), lock.WithTableHeartbeatInterval(5*time.Second),
		lock.WithTableLockTimeout(time.Second, 300),
	)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(versionTable), goose.WithLocker(lease), goose.WithDisableGlobalRegistry(true))
}

// knownVersion is the version of the last migration.
func knownVersion() (int64, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil || len(files) == 0 {
		return 0, errors.Join(err, errors.New("storage: no migrations"))
	}
	return goose.NumericComponent(files[len(files)-1])
}

// checkSchema refuses a database whose schema this program does not know.
func (s *Store) checkSchema(ctx context.Context) error {
	known, err := knownVersion()
	if err != nil {
		return err
	}
	conn, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var version int64
	err = conn.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM `+versionTable+` WHERE is_applied`).Scan(&version)
	var missing *pgconn.PgError
	if errors.As(err, &missing) && missing.Code == "42P01" { // undefined_table
		version, err = 0, nil
	}
	switch {
	case err != nil:
		return fmt.Errorf("read the schema's version: %w", err)
	case version < known:
		return fmt.Errorf("%w: it has version %d and this program needs %d; run wxidp migrate up", ErrSchema, version, known)
	case version > known:
		return fmt.Errorf("%w: it has version %d and this program knows no more than %d; a newer program has migrated it", ErrSchema, version, known)
	}
	return nil
}

// ErrSchema means that the database has another schema than this program
// works with.
var ErrSchema = errors.New("the database has another schema")
