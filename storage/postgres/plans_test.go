package postgres

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// What is due is found by an index, however many records are not due: nodes
// ask every second.
func TestDueRecordsAreFoundByIndex(t *testing.T) {
	s := openStore(t, Options{MaxConns: 1}, hooks{})
	type query struct{ name, sql, by string }
	list := []query{
		{"logouts", dueLogouts, "(next_at <= "}, {"session_keys", dueSessionKeys, "(look_at <= "},
		{"claims", `SELECT ` + expiredClaims.due, "(expires_at <= "}, {"claims", expiredClaims.sweep, "(expires_at <= "},
	}
	for i, name := range []string{"families", "logins", "items", "denied_jtis", "idempotency", "codes", "states"} {
		by := "(expires_at <= "
		if name == "families" || name == "logins" || name == "codes" {
			by = "(look_at <= "
		}
		list = append(list, query{name, `SELECT ` + expiringTables[i].due, by}, query{name, expiringTables[i].sweep, by})
	}
	err := s.read(t.Context(), func(ctx context.Context, c *pgx.Conn) error {
		// Where a table is empty a scan of all of it would cost least.
		if _, err := c.Exec(ctx, `SET enable_seqscan = off; SET enable_bitmapscan = off`); err != nil {
			return err
		}
		for _, q := range list {
			sql := strings.ReplaceAll(q.sql, "$1", "500")
			rows, err := c.Query(ctx, `EXPLAIN `+sql)
			if err != nil {
				return err
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return err
			}
			plan := strings.Join(lines, "\n")
			if !strings.Contains(plan, " on "+q.name) || !strings.Contains(plan, "Index Cond: "+q.by) {
				t.Errorf("%s does not go by its index:\n%s\n%s", q.name, sql, plan)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A page of a listing begins where the last one ended, also with the plan that
// PostgreSQL makes once for all values.
func TestPagesBeginByIndex(t *testing.T) {
	s := openStore(t, Options{MaxConns: 1}, hooks{})
	err := s.read(t.Context(), func(ctx context.Context, c *pgx.Conn) error {
		if _, err := c.Exec(ctx, `SET enable_seqscan = off; SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan`); err != nil {
			return err
		}
		for name, q := range map[string]struct{ sql, args, cond string }{
			"all":       {pageAll, `'00000000-0000-0000-0000-000000000000', 10`, "Index Cond: (id > $1)"},
			"of a user": {pageOfUser, `'00000000-0000-0000-0000-000000000000', 10, 'u'`, "Index Cond: ((user_id = $3) AND (id > $1))"},
		} {
			if _, err := c.Exec(ctx, `PREPARE page AS `+q.sql); err != nil {
				return err
			}
			rows, err := c.Query(ctx, `EXPLAIN EXECUTE page (`+q.args+`)`, pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				return err
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return err
			}
			if plan := strings.Join(lines, "\n"); !strings.Contains(plan, q.cond) {
				t.Errorf("%s: no %s in\n%s", name, q.cond, plan)
			}
			if _, err := c.Exec(ctx, `DEALLOCATE page`); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
