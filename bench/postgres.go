package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage/postgres"
	"github.com/wxidp/wxidp/storage/postgres/pgtest"
)

// The storages that can be measured.
const (
	engineBolt     = "bolt"
	enginePostgres = "postgres"
)

// database is a PostgreSQL of the benchmark's own with an empty schema.
type database struct {
	*pgtest.Cluster
	dsn string // with the size of the pool
}

func startDatabase(ctx context.Context, base string, pool int) (*database, error) {
	progress("starting PostgreSQL")
	cluster, err := pgtest.StartDurable(base, func(ctx context.Context, dsn string) error {
		if _, err := postgres.Migrate(ctx, secret.New(dsn), nil); err != nil {
			return err
		}
		return prepareRows(ctx, dsn)
	})
	if err != nil {
		return nil, err
	}
	return newDatabase(cluster, pool), nil
}

func newDatabase(cluster *pgtest.Cluster, pool int) *database {
	return &database{Cluster: cluster, dsn: cluster.DSN() + " pool_max_conns=" + strconv.Itoa(pool)}
}

// version names the program and the settings on which durability rests.
func (d *database) version(ctx context.Context) (text string, err error) {
	c, err := pgx.Connect(ctx, d.Cluster.DSN())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	for _, name := range []string{"server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers"} {
		var value string
		if err := c.QueryRow(ctx, `SELECT current_setting($1)`, name).Scan(&value); err != nil {
			return "", err
		}
		text += " " + name + "=" + value
	}
	return "PostgreSQL" + strings.Replace(text, "server_version=", "", 1), nil
}

// versions reads the versions of the bare server's rows.
func (d *database) versions(ctx context.Context, to []int64) (err error) {
	c, err := pgx.Connect(ctx, d.Cluster.DSN())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	rows, err := c.Query(ctx, `SELECT id, version FROM bench_rows`)
	if err != nil {
		return err
	}
	var id [16]byte
	var version int64
	_, err = pgx.ForEachRow(rows, []any{&id, &version}, func() error {
		if n := binary.BigEndian.Uint64(id[8:]); n < uint64(len(to)) && id == bareID(int(n)) {
			to[n] = version
		}
		return nil
	})
	return err
}

// The bare server's table. A row is as long as one of a sign-in, and leaves as
// much room beside itself.
const (
	bareTable = `CREATE TABLE bench_rows (id uuid PRIMARY KEY, version bigint NOT NULL, changed_at timestamptz NOT NULL, value bytea NOT NULL)
		WITH (fillfactor = 80)`
	bareRotate = `UPDATE bench_rows SET version = version + 1, changed_at = clock_timestamp() WHERE id = $1 AND version = $2`
	bareInsert = `INSERT INTO bench_rows (id, version, changed_at, value) VALUES ($1, 0, clock_timestamp(), $2)`
	bareSelect = `SELECT version, changed_at, value FROM bench_rows WHERE id = $1`
)

// bareRows is how many rows the bare server begins with.
const bareRows = 10_000

var bareValue = []byte(strings.Repeat("v", 300))

func prepareRows(ctx context.Context, dsn string) (err error) {
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	if _, err := c.Exec(ctx, bareTable); err != nil {
		return err
	}
	_, err = c.CopyFrom(ctx, pgx.Identifier{"bench_rows"}, []string{"id", "version", "changed_at", "value"},
		pgx.CopyFromSlice(bareRows, func(i int) ([]any, error) {
			return []any{bareID(i), int64(0), time.Now(), bareValue}, nil
		}))
	return err
}

func bareID(n int) (id [16]byte) {
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

// rowName is what the bare server takes for a refresh token.
func rowName(n int, version int64) string {
	return fmt.Sprintf("%d.%d", n, version)
}

func parseRowName(name string) (id [16]byte, version int64, err error) {
	number, rest, _ := strings.Cut(name, ".")
	n, err := strconv.Atoi(number)
	if err != nil {
		return id, 0, err
	}
	version, err = strconv.ParseInt(rest, 10, 64)
	return bareID(n), version, err
}
