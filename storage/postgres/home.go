package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
)

// home is the database that data live in.
type home struct {
	system   string // identifier of the cluster, which replicas share; "": not to be had
	database string // object id
}

// otherThan reports whether it is another database, as far as can be known.
func (h home) otherThan(before home) bool {
	return h.database != before.database || h.system != before.system && h.system != "" && before.system != ""
}

// checkHome marks the data as restored where they were last opened in another
// database: they came here with a dump. A database that is brought back to an
// earlier moment as a whole looks the same as before.
func (s *Store) checkHome(ctx context.Context) error {
	now, err := s.whereabouts(ctx)
	if err != nil {
		return err
	}
	var before home
	err = s.readRow(ctx, `SELECT system_id, database_id FROM home`, nil, &before.system, &before.database)
	if err == nil && before == now {
		return nil
	}
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	marked := false
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		marked, err = s.moveIn(ctx, c, now)
		return err
	})
	if err == nil && marked {
		s.log.Warn("the data were in another database before, so they came here with a dump", "event", "restore.found")
	}
	return err
}

// whereabouts returns the database that this is.
func (s *Store) whereabouts(ctx context.Context) (h home, err error) {
	if err := s.readRow(ctx, `SELECT oid::bigint::text FROM pg_database WHERE datname = current_database()`, nil, &h.database); err != nil {
		return h, err
	}
	err = s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		err := c.QueryRow(ctx, `SELECT system_identifier::text FROM pg_control_system()`).Scan(&h.system)
		switch sqlState(err) {
		case "42883", "42501", "0A000": // undefined_function, insufficient_privilege, feature_not_supported
			h.system, err = "", nil
		}
		return err
	})
	return h, err
}

// moveIn records where the data are, and reports whether they were elsewhere.
func (s *Store) moveIn(ctx context.Context, c *pgx.Conn, now home) (marked bool, err error) {
	if err := s.begin(ctx, c); err != nil {
		return false, err
	}
	tag, err := c.Exec(ctx, `INSERT INTO home (system_id, database_id) VALUES ($1, $2) ON CONFLICT (one) DO NOTHING`, now.system, now.database)
	if err != nil {
		return false, err
	}
	if tag.RowsAffected() == 0 {
		if marked, err = moveOver(ctx, c, now); err != nil {
			return false, err
		}
	}
	_, err = c.Exec(ctx, `COMMIT`)
	return marked && err == nil, err
}

func moveOver(ctx context.Context, c *pgx.Conn, now home) (marked bool, err error) {
	var before home
	if err := c.QueryRow(ctx, `SELECT system_id, database_id FROM home FOR UPDATE`).Scan(&before.system, &before.database); err != nil {
		return false, err
	}
	if _, err := c.Exec(ctx, `UPDATE home SET system_id = $1, database_id = $2`, now.system, now.database); err != nil {
		return false, err
	}
	if !now.otherThan(before) {
		return false, nil
	}
	mark := storage.Restored{State: storage.RestorePending, RestoredAt: time.Now().UTC().Truncate(time.Second)}
	_, err = c.Exec(ctx, `INSERT INTO records AS old (name, version, value) VALUES ($1, 1, $2)
		ON CONFLICT (name) DO UPDATE SET version = old.version + 1, value = excluded.value`, storage.RestoredRecord, mark.Encode())
	return err == nil, err
}
