package postgres

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// manyRows fills every table whose records expire with records that do not,
// until PostgreSQL sees that it is large.
var manyRows = []string{
	`INSERT INTO families (id, user_id, client_id, user_epoch, client_epoch, generation, mac_key_id, created_at, rotated_at, idle_expires_at, expires_at,
		offline, look_at, fixed) SELECT gen_random_uuid(), i::text, 'c', 0, 0, 0, 1, now(), now(), now() + i * interval '1 min', now() + interval '1 year',
		false, now() + i * interval '1 min', 'fixed' FROM generate_series(1, 20000) i`,
	`INSERT INTO logins (id, user_id, user_epoch, idle_expires_at, expires_at, look_at, record)
		SELECT gen_random_uuid(), i::text, 0, now() + i * interval '1 min', now() + interval '1 year', now() + i * interval '1 min', 'record' FROM generate_series(1, 20000) i`,
	`INSERT INTO items (id, used, value, expires_at) SELECT sha256(i::text::bytea), false, '', now() + i * interval '1 min' FROM generate_series(1, 20000) i`,
	`INSERT INTO denied_jtis (jti, expires_at) SELECT sha256(i::text::bytea), now() + i * interval '1 min' FROM generate_series(1, 20000) i`,
	`INSERT INTO idempotency (id, form, family_id, expires_at) SELECT sha256(i::text::bytea), '', gen_random_uuid(), now() + i * interval '1 min' FROM generate_series(1, 20000) i`,
	`INSERT INTO codes (id, look_at, record) SELECT sha256(i::text::bytea), now() + i * interval '1 min', 'record' FROM generate_series(1, 20000) i`,
	`INSERT INTO states (kind, id, version, value, expires_at) SELECT 1, sha256(i::text::bytea), 1, '', now() + i * interval '1 min' FROM generate_series(1, 20000) i`,
	`INSERT INTO claims (id, expires_at) SELECT sha256(i::text::bytea), now() + i * interval '1 min' FROM generate_series(1, 20000) i`,
	`INSERT INTO session_keys (identity, look_at, record) SELECT sha256(i::text::bytea), now() + i * interval '1 min', 'record' FROM generate_series(1, 20000) i`,
	`INSERT INTO logouts (id, client_id, user_id, family_id, ended_at, attempts, next_at)
		SELECT gen_random_uuid(), 'c', i::text, gen_random_uuid(), now(), 0, now() + i * interval '1 min' FROM generate_series(1, 20000) i`,
	`ANALYZE`,
}

// explain returns the plan of a statement with one parameter, with the values
// known or not.
func explain(ctx context.Context, c *pgx.Conn, sql, args string, generic bool) (string, error) {
	mode := "force_custom_plan"
	if generic {
		mode = "force_generic_plan"
	}
	if _, err := c.Exec(ctx, `SET plan_cache_mode = `+mode+`; DEALLOCATE ALL; PREPARE asked AS `+sql); err != nil {
		return "", err
	}
	if args != "" {
		args = "(" + args + ")"
	}
	rows, err := c.Query(ctx, `EXPLAIN EXECUTE asked `+args, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return "", err
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return strings.Join(lines, "\n"), err
}

// No statement that nodes repeat, or that reads a page, looks through a table:
// what is due is found by an index, however many records are not.
func TestStatementsGoByIndexes(t *testing.T) {
	s := openStore(t, Options{MaxConns: 1}, hooks{})
	type query struct{ name, sql, args string }
	list := []query{
		{"logouts that are due", dueLogouts, "100"}, {"session_keys that expire", dueSessionKeys, "100"},
		{"are claims due", `SELECT ` + expiredClaims.due, ""}, {"expired claims", expiredClaims.sweep, "500"},
		{"are session_keys due", `SELECT ` + firstDue("session_keys", "look_at"), ""},
		{"a page of all sign-ins", pageAll, `'80000000-0000-0000-0000-000000000000', 100`},
		{"a page of a user's", pageOfUser, `'80000000-0000-0000-0000-000000000000', 100, 'u'`},
	}
	for i := range expiringTables {
		list = append(list, query{"is one due", `SELECT ` + expiringTables[i].due, ""}, query{"those that are due", expiringTables[i].sweep, "500"})
	}
	err := s.read(t.Context(), func(ctx context.Context, c *pgx.Conn) error {
		for _, sql := range manyRows {
			if _, err := c.Exec(ctx, sql); err != nil {
				return err
			}
		}
		for _, q := range list {
			for _, generic := range []bool{false, true} {
				plan, err := explain(ctx, c, q.sql, q.args, generic)
				if err != nil {
					return err
				}
				for _, table := range []string{"families", "logins", "items", "denied_jtis", "idempotency", "codes", "states", "claims", "session_keys", "logouts"} {
					if strings.Contains(plan, "Seq Scan on "+table) {
						t.Errorf("%s, generic: %v, looks through %s:\n%s\n%s", q.name, generic, table, q.sql, plan)
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
