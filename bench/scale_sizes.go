package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5"
	bbolt "go.etcd.io/bbolt"
)

// sizes says what takes how much room.
func (m *scaleRun) sizes(ctx context.Context) error {
	if m.db != nil {
		return m.tableSizes(ctx)
	}
	return m.bucketSizes()
}

// bucketSizes walks through the whole file.
func (m *scaleRun) bucketSizes() (err error) {
	path := filepath.Join(m.o.dir, boltFile)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	m.report.printf("\n| bucket | rows | MiB | bytes per row | pages are full to | depth |\n|---|---:|---:|---:|---:|---:|\n")
	var used int64
	counts := map[string]int{}
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			stats := b.Stats()
			pages := int64(stats.LeafAlloc + stats.BranchAlloc)
			used += pages
			counts[string(name)] = stats.KeyN
			if stats.KeyN == 0 {
				return nil
			}
			m.report.printf("| %s | %d | %.1f | %.0f | %.0f %% | %d |\n", name, stats.KeyN, float64(pages)/(1<<20), float64(pages)/float64(stats.KeyN),
				100*float64(stats.LeafInuse)/float64(max(stats.LeafAlloc, 1)), stats.Depth)
			return nil
		})
	})
	m.report.printf("\nThe file has %s MiB, %s MiB of them in use: %.0f bytes per user of %d, with %d sign-ins.\n", mebibytes(info.Size()), mebibytes(used),
		float64(used)/float64(max(counts["users"], 1)), counts["users"], counts["families"])
	return err
}

// tableSizes asks the database, and says what is dead in it.
func (m *scaleRun) tableSizes(ctx context.Context) (err error) {
	c, err := pgx.Connect(ctx, m.db.Cluster.DSN())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	if _, err := c.Exec(ctx, `ANALYZE`); err != nil {
		return err
	}
	rows, err := c.Query(ctx, `SELECT t.relname, '' AS index, t.reltuples::bigint, pg_table_size(t.oid), s.n_dead_tup, s.autovacuum_count
			FROM pg_class t JOIN pg_stat_user_tables s ON s.relid = t.oid WHERE t.reltuples > 0
		UNION ALL SELECT t.relname, i.relname, i.reltuples::bigint, pg_relation_size(i.oid), 0, 0
			FROM pg_class t JOIN pg_stat_user_tables s ON s.relid = t.oid JOIN pg_index x ON x.indrelid = t.oid JOIN pg_class i ON i.oid = x.indexrelid WHERE t.reltuples > 0
		ORDER BY 1, 2`)
	if err != nil {
		return err
	}
	m.report.printf("\n| table, index | rows | MiB | bytes per row | dead rows | autovacuums |\n|---|---:|---:|---:|---:|---:|\n")
	var table, index string
	var tuples, size, dead, vacuums int64
	_, err = pgx.ForEachRow(rows, []any{&table, &index, &tuples, &size, &dead, &vacuums}, func() error {
		if index != "" {
			m.report.printf("| · %s | | %.1f | %.0f | | |\n", index, float64(size)/(1<<20), float64(size)/float64(max(tuples, 1)))
		} else {
			m.report.printf("| %s | %d | %.1f | %.0f | %d | %d |\n", table, tuples, float64(size)/(1<<20), float64(size)/float64(max(tuples, 1)), dead, vacuums)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var total int64
	if err := c.QueryRow(ctx, `SELECT pg_database_size(current_database())`).Scan(&total); err != nil {
		return err
	}
	m.report.printf("\nThe database has %s MiB.\n", mebibytes(total))
	return nil
}
