package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
)

// restoredKind is a kind of records that EndRestored looks at. Its step looks
// at those behind a key, which is empty for the beginning, and returns the last
// key where there may be more.
type restoredKind struct {
	signIn bool // ended only with all sign-ins
	step   func(s *Store, ctx context.Context, c *pgx.Conn, after []byte, step *storage.RestoreStep, n *storage.RestoreCounts) (last []byte, err error)
}

var restoredKinds = [...]restoredKind{
	{true, endRestoredFamilies}, {true, endRestoredLogins},
	{false, endRestoredCodes}, {false, endRestoredItems}, {false, dropRestored("states", "kind, id")}, {false, dropRestored("idempotency", "id")},
}

// EndRestored ends what must not come to life again with restored data: of one
// kind in one call. It holds the row that says so, so that what another node
// has settled meanwhile is left alone.
func (s *Store) EndRestored(ctx context.Context, step storage.RestoreStep) (res storage.RestoreStepResult, err error) {
	kind, after, err := storage.ParseRestoreCursor(step.Cursor, len(restoredKinds))
	if err != nil {
		return res, err
	}
	for restoredKinds[kind].signIn && !step.RevokeAll {
		kind, after = kind+1, nil
	}
	step.Limit = storage.PageSize(step.Limit)
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		res = storage.RestoreStepResult{}
		if err := s.begin(ctx, c); err != nil {
			return err
		}
		var version int64
		err := c.QueryRow(ctx, `SELECT version FROM records WHERE name = $1 FOR UPDATE`, storage.RestoredRecord).Scan(&version)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && uint64(version) != step.Version {
			res.Superseded = true
			return nil // the transaction is rolled back
		}
		if err != nil {
			return err
		}
		last, err := restoredKinds[kind].step(s, ctx, c, after, &step, &res.RestoreCounts)
		if err != nil {
			return err
		}
		switch {
		case last != nil:
			res.Next = storage.RestoreCursor(kind, last)
		case kind+1 < len(restoredKinds):
			res.Next = storage.RestoreCursor(kind+1, nil)
		}
		if _, err := c.Exec(ctx, `COMMIT`); err != nil {
			return err
		}
		if res.RestoreCounts != (storage.RestoreCounts{}) {
			s.wrote(ctx, 1)
		}
		return nil
	})
	if err != nil {
		return storage.RestoreStepResult{}, err
	}
	return res, nil
}

// lastUUID is the key of a row as a parameter; the beginning is below all keys.
func lastUUID(after []byte) (id [16]byte) {
	copy(id[:], after)
	return id
}

// endRestoredFamilies ends families that are live.
func endRestoredFamilies(s *Store, ctx context.Context, c *pgx.Conn, after []byte, step *storage.RestoreStep, n *storage.RestoreCounts) ([]byte, error) {
	var last [16]byte
	var seen int
	err := c.QueryRow(ctx, s.sql(`WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
		page AS MATERIALIZED (SELECT id FROM families WHERE id > $1 ORDER BY id LIMIT $2),
		ended AS (UPDATE families f SET revoked_at = t.now, revoked_for = $3 FROM page, t, users u
			WHERE f.id = page.id AND f.revoked_at IS NULL AND f.idle_expires_at > t.now AND f.expires_at > t.now
				AND u.id = f.user_id AND NOT u.retired AND u.epoch = f.user_epoch
				AND f.client_epoch = coalesce((SELECT c.epoch FROM clients c WHERE c.id = f.client_id), 0)
				AND (f.login_id IS NULL OR f.offline OR EXISTS (SELECT FROM logins l
					WHERE l.id = f.login_id AND l.ended_at IS NULL AND l.idle_expires_at > t.now AND l.expires_at > t.now))
			RETURNING 1)
		SELECT coalesce((SELECT id FROM page ORDER BY id DESC LIMIT 1), $1), (SELECT count(*) FROM page), (SELECT count(*) FROM ended)`),
		lastUUID(after), step.Limit, storage.RevokedForRestore).Scan(&last, &seen, &n.Families)
	if err != nil || seen < step.Limit {
		return nil, err
	}
	return last[:], nil
}

// keyedRow is a record with its key.
type keyedRow struct{ id, data []byte }

func readRows[K []byte | [16]byte](ctx context.Context, c *pgx.Conn, sql string, args ...any) (list []keyedRow, err error) {
	found, err := c.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	for found.Next() {
		var id K
		var data []byte
		if err := found.Scan(&id, &data); err != nil {
			return nil, err
		}
		switch id := any(id).(type) {
		case []byte:
			list = append(list, keyedRow{id, data})
		case [16]byte:
			list = append(list, keyedRow{id[:], data})
		}
	}
	return list, found.Err()
}

// lastOf returns the last key where there may be more.
func lastOf(list []keyedRow, limit int) []byte {
	if len(list) < limit {
		return nil
	}
	return list[len(list)-1].id
}

// endRestoredLogins ends login sessions and queues what their clients are told.
func endRestoredLogins(s *Store, ctx context.Context, c *pgx.Conn, after []byte, step *storage.RestoreStep, n *storage.RestoreCounts) ([]byte, error) {
	r := &rows{ctx: ctx, store: s, conn: c}
	var clock pgx.Batch
	r.queueClock(&clock)
	if err := c.SendBatch(ctx, &clock).Close(); err != nil {
		return nil, err
	}
	list, err := readRows[[16]byte](ctx, c, `SELECT id, record FROM logins WHERE id > $1 ORDER BY id LIMIT $2 FOR UPDATE`, lastUUID(after), step.Limit)
	if err != nil {
		return nil, err
	}
	var b pgx.Batch
	for _, row := range list {
		login, err := storage.DecodeLogin(storage.LoginID(row.id), row.data)
		if err != nil || !login.EndedAt.IsZero() {
			continue
		}
		change := storage.LoginChange{Was: &login, Is: login}
		notices := change.Is.End(r.now, step.Notify)
		change.Data = storage.EncodeLogin(&change.Is)
		st := changeLogin(&change)
		b.Queue(st.sql, st.args...)
		for i := range notices {
			st := putLogout(&notices[i])
			b.Queue(st.sql, st.args...)
		}
		n.Logins++
	}
	return lastOf(list, step.Limit), c.SendBatch(ctx, &b).Close()
}

// endRestoredCodes deletes codes that have not been used. Used ones still tell
// a replay.
func endRestoredCodes(_ *Store, ctx context.Context, c *pgx.Conn, after []byte, step *storage.RestoreStep, n *storage.RestoreCounts) ([]byte, error) {
	list, err := readRows[[]byte](ctx, c, `SELECT id, record FROM codes WHERE id > $1 ORDER BY id LIMIT $2`, filled(after), step.Limit)
	if err != nil {
		return nil, err
	}
	var unused [][]byte
	for _, row := range list {
		if code, err := storage.DecodeCode(row.data); err == nil && !code.Used {
			unused = append(unused, row.id)
		}
	}
	n.Others = len(unused)
	_, err = c.Exec(ctx, `DELETE FROM codes WHERE id = ANY($1)`, unused)
	return lastOf(list, step.Limit), err
}

// endRestoredItems keeps the keys of items taken, as of those that were
// consumed.
func endRestoredItems(_ *Store, ctx context.Context, c *pgx.Conn, after []byte, step *storage.RestoreStep, n *storage.RestoreCounts) ([]byte, error) {
	var last []byte
	var seen int
	err := c.QueryRow(ctx, `WITH page AS MATERIALIZED (SELECT id FROM items WHERE id > $1 ORDER BY id LIMIT $2),
		ended AS (UPDATE items i SET used = true, value = '' FROM page WHERE i.id = page.id AND NOT i.used RETURNING 1)
		SELECT coalesce((SELECT id FROM page ORDER BY id DESC LIMIT 1), $1), (SELECT count(*) FROM page), (SELECT count(*) FROM ended)`,
		filled(after), step.Limit).Scan(&last, &seen, &n.Others)
	if err != nil || seen < step.Limit {
		return nil, err
	}
	return last, nil
}

// dropRestored deletes all rows of a table.
func dropRestored(table, key string) func(*Store, context.Context, *pgx.Conn, []byte, *storage.RestoreStep, *storage.RestoreCounts) ([]byte, error) {
	sql := `DELETE FROM ` + table + ` WHERE (` + key + `) IN (SELECT ` + key + ` FROM ` + table + ` LIMIT $1)`
	return func(_ *Store, ctx context.Context, c *pgx.Conn, _ []byte, step *storage.RestoreStep, n *storage.RestoreCounts) ([]byte, error) {
		tag, err := c.Exec(ctx, sql, step.Limit)
		if n.Others = int(tag.RowsAffected()); err != nil || n.Others < step.Limit {
			return nil, err
		}
		return []byte{}, nil
	}
}
