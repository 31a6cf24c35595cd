package postgres

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
)

// gcBatch is how many records one commit of RunGC looks at, and maxGCVolatile how
// many claims and notices beside them.
const (
	gcBatch       = 500
	maxGCVolatile = 1000
)

// expiring is one table whose records expire.
type expiring struct {
	due   string // whether there is a record to look at
	sweep string // looks at up to $1 records and returns how many it saw and how many it deleted
}

// dbNow is the database's time as an index takes it: for a function whose
// value may change from row to row, all rows would be looked at.
const dbNow = `(SELECT clock_timestamp())`

// firstDue asks whether the first record of a table by time is due. To ask
// whether any is, PostgreSQL would look through the table for one.
func firstDue(table, at string) string {
	return `coalesce((SELECT ` + at + ` FROM ` + table + ` ORDER BY ` + at + ` LIMIT 1) <= clock_timestamp(), false)`
}

// plain deletes the due records of a table by what they are known by.
func plain(table, key, at string) expiring {
	// By the index of the key, whatever a plan reckons with.
	var parts []string
	for column := range strings.SplitSeq(key, ", ") {
		parts = append(parts, column+` = ANY (ARRAY(SELECT `+column+` FROM due))`)
	}
	found := strings.Join(parts, " AND ")
	if len(parts) > 1 {
		found += ` AND (` + key + `) IN (SELECT ` + key + ` FROM due)`
	}
	return expiring{
		due: firstDue(table, at),
		sweep: `WITH due AS (SELECT ` + key + ` FROM ` + table + ` WHERE ` + at + ` <= ` + dbNow + ` ORDER BY ` + at + ` LIMIT $1 FOR UPDATE SKIP LOCKED),
			gone AS (DELETE FROM ` + table + ` WHERE ` + found + ` RETURNING 1)
			SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM gone)`,
	}
}

// prolonged deletes the due records of a table but for those that were
// prolonged since: these are looked at again when they expire.
func prolonged(table string) expiring {
	return expiring{
		due: firstDue(table, "look_at"),
		sweep: `WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
			due AS MATERIALIZED (SELECT id, least(idle_expires_at, expires_at) AS until FROM ` + table + ` WHERE look_at <= (SELECT now FROM t)
				ORDER BY look_at LIMIT $1 FOR UPDATE SKIP LOCKED),
			gone AS (DELETE FROM ` + table + ` x USING due, t WHERE x.id = due.id AND due.until <= t.now RETURNING 1),
			kept AS (UPDATE ` + table + ` x SET look_at = due.until FROM due, t WHERE x.id = due.id AND due.until > t.now RETURNING 1)
			SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM gone)`,
	}
}

var expiringTables = [...]expiring{
	prolonged("families"), prolonged("logins"),
	plain("items", "id", "expires_at"), plain("denied_jtis", "jti", "expires_at"), plain("idempotency", "id", "expires_at"),
	plain("codes", "id", "look_at"), plain("states", "kind, id", "expires_at"),
}

var (
	expiredClaims  = plain("claims", "id", "expires_at")
	expiredNotices = plain("notices", "node, round", "expires_at") // of nodes that are no more: others delete their own
)

// DeleteExpired looks at up to limit records whose time to be looked at has
// come: at some of every kind of which there are any. It passes over those
// that another node looks at.
func (s *Store) DeleteExpired(ctx context.Context, limit int) (deleted int, more bool, err error) {
	limit = storage.PageSize(limit)
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		deleted, more = 0, false
		due, keysDue, err := s.dueTables(ctx, c)
		if err != nil {
			return err
		}
		if len(due) > 0 {
			if deleted, more, err = s.sweep(ctx, c, due, limit); err != nil {
				return err
			}
		}
		if !keysDue {
			return nil
		}
		if deleted == limit {
			more = true
			return nil
		}
		n, rest, err := s.expireSessionKeys(ctx, c, limit-deleted)
		deleted, more = deleted+n, more || rest
		return err
	})
	if err != nil {
		return 0, false, err
	}
	s.expired.Add(uint64(deleted))
	return deleted, more, nil
}

// dueTables returns the tables with records to look at, in an order that
// changes, and drops expired claims and notices, which count for nothing.
func (s *Store) dueTables(ctx context.Context, c *pgx.Conn) (due []expiring, sessionKeys bool, err error) {
	query := `SELECT ` + expiredClaims.due + `, ` + expiredNotices.due + `, ` + firstDue("session_keys", "look_at")
	var claims, notices bool
	found := make([]bool, len(expiringTables))
	to := []any{&claims, &notices, &sessionKeys}
	for i := range expiringTables {
		query += `, ` + expiringTables[i].due
		to = append(to, &found[i])
	}
	if err := c.QueryRow(ctx, s.sql(query)).Scan(to...); err != nil {
		return nil, false, err
	}
	for _, volatile := range []struct {
		due   bool
		table expiring
	}{{claims, expiredClaims}, {notices, expiredNotices}} {
		var seen, gone int64
		if !volatile.due {
			continue
		}
		if err := c.QueryRow(ctx, s.sql(volatile.table.sweep), maxGCVolatile).Scan(&seen, &gone); err != nil {
			return nil, false, err
		}
	}
	turn := int(s.gcTurn.Add(1))
	for i := range expiringTables {
		if at := (i + turn) % len(expiringTables); found[at] {
			due = append(due, expiringTables[at])
		}
	}
	return due, sessionKeys, nil
}

// sweep looks at an equal share of each table in one commit.
func (s *Store) sweep(ctx context.Context, c *pgx.Conn, due []expiring, limit int) (deleted int, more bool, err error) {
	share := max(limit/len(due), 1)
	if len(due) > limit {
		due, more = due[:limit], true
	}
	changed := false
	var b pgx.Batch
	for _, table := range due {
		b.Queue(s.sql(table.sweep), share).QueryRow(func(row pgx.Row) error {
			var seen, gone int
			err := row.Scan(&seen, &gone)
			deleted += gone
			changed, more = changed || seen > 0, more || seen == share
			return err
		})
	}
	err = c.SendBatch(ctx, &b).Close()
	if err == nil && changed {
		s.wrote(ctx, 1)
	}
	return deleted, more, err
}

const dueSessionKeys = `SELECT clock_timestamp(), identity, record FROM session_keys WHERE look_at <= ` + dbNow + ` ORDER BY look_at LIMIT $1`

// expireSessionKeys drops expired session_keys from custody, unless another one
// was put there meanwhile.
func (s *Store) expireSessionKeys(ctx context.Context, c *pgx.Conn, limit int) (deleted int, more bool, err error) {
	type row struct{ identity, data []byte }
	var now time.Time
	var due []row
	found, err := c.Query(ctx, s.sql(dueSessionKeys), limit)
	if err != nil {
		return 0, false, err
	}
	defer found.Close()
	for found.Next() {
		var r row
		if err := found.Scan(&now, &r.identity, &r.data); err != nil {
			return 0, false, err
		}
		due = append(due, r)
	}
	if err := found.Err(); err != nil {
		return 0, false, err
	}
	var b pgx.Batch
	for _, r := range due {
		keys, err := storage.DecodeSessionKeys(r.data)
		left, until := storage.ExpireSessionKeys(keys, now.UTC())
		switch {
		case err != nil: // one damaged record must not keep all others from being deleted
			b.Queue(`UPDATE session_keys SET look_at = $3 WHERE identity = $1 AND record = $2`, r.identity, r.data, now.Add(24*time.Hour))
			continue
		case len(left) == 0:
			b.Queue(`DELETE FROM session_keys WHERE identity = $1 AND record = $2`, r.identity, r.data)
		default:
			b.Queue(`UPDATE session_keys SET look_at = $3, record = $4 WHERE identity = $1 AND record = $2`,
				r.identity, r.data, until, storage.EncodeSessionKeys(left))
		}
		if len(left) < len(keys) {
			deleted++
		}
	}
	if b.Len() == 0 {
		return 0, false, nil
	}
	if err := c.SendBatch(ctx, &b).Close(); err != nil {
		return 0, false, err
	}
	s.wrote(ctx, 1)
	return deleted, len(due) == limit, nil
}

// RunGC deletes expired records until ctx ends, looking every so often, and
// leaves the database to others for several times as long as each batch took.
// All nodes may run it: each passes over what another one has locked.
func (s *Store) RunGC(ctx context.Context, every time.Duration) {
	if every <= 0 {
		every = time.Second
	}
	storage.Collect(ctx, s, gcBatch, func() time.Duration { return every/2 + rand.N(every) }, s.log)
}
