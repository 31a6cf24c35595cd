package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
)

var _ storage.Movable = (*Store)(nil)

func tableOf(kind storage.RowKind) (*movedTable, error) {
	table := movedTables[kind]
	if table == nil {
		return nil, fmt.Errorf("%w: no such kind of rows: %d", storage.ErrUnavailable, kind)
	}
	return table, nil
}

// keyColumns are the names of the columns of the key.
func (m *movedTable) keyColumns() string {
	if m.key == pairKey {
		return m.columns[0].name + ", " + m.columns[1].name
	}
	return m.columns[0].name
}

// ExportRows returns rows of one kind in the order of their keys.
func (s *Store) ExportRows(ctx context.Context, kind storage.RowKind, after []byte, limit int) (rows []storage.Row, next []byte, err error) {
	if limit < 1 || limit > storage.MaxRows {
		limit = storage.MaxRows
	}
	table, err := tableOf(kind)
	if err != nil {
		return nil, nil, err
	}
	start := table.key.start()
	if len(after) > 0 {
		start = table.key.of(after)
	}
	own := storage.OwnRecords()
	sql, args := table.page(start, limit+1+len(own))
	err = s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, next = nil, nil
		found, err := c.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		defer found.Close()
		for size := 0; found.Next(); {
			if len(rows) == limit || size >= storage.MaxRowBytes {
				next = rows[len(rows)-1].Key
				found.Close()
				return found.Err()
			}
			row, err := table.row(kind, found)
			if err != nil {
				return err
			}
			if kind == storage.RowRecord && slices.Contains(own, string(row.Key)) {
				continue
			}
			rows = append(rows, row)
			size += len(row.Key) + len(row.Value)
		}
		return found.Err()
	})
	if err != nil {
		return nil, nil, err
	}
	return rows, next, nil
}

// page returns the statement that reads rows behind a key.
func (m *movedTable) page(start key, limit int) (sql string, args []any) {
	args = start.values()
	behind := "$1"
	if len(args) == 2 {
		behind = "$1, $2"
	}
	keys := m.keyColumns()
	args = append(args, limit)
	return fmt.Sprintf(`SELECT %s, %s FROM %s f WHERE (%s) > (%s) ORDER BY %s LIMIT $%d`, keys, m.selected, m.name, keys, behind, keys, len(args)), args
}

func (m *movedTable) row(kind storage.RowKind, found pgx.Rows) (storage.Row, error) {
	k := key{kind: m.key}
	to, value := m.read()
	if err := found.Scan(append(k.scan(), to...)...); err != nil {
		return storage.Row{}, err
	}
	row := storage.Row{Kind: kind}
	var err error
	if row.Key, err = k.raw(); err != nil {
		return storage.Row{}, err
	}
	row.Value, err = value(k.id)
	return row, err
}

// CountRows returns how many rows of a kind there are.
func (s *Store) CountRows(ctx context.Context, kind storage.RowKind) (n int64, err error) {
	table, err := tableOf(kind)
	if err != nil {
		return 0, err
	}
	sql, args := `SELECT count(*) FROM `+table.name, []any(nil)
	if kind == storage.RowRecord {
		sql, args = sql+` WHERE name <> ALL($1)`, []any{storage.OwnRecords()}
	}
	err = s.readRow(ctx, sql, args, &n)
	return n, err
}

// ImportRows stores rows as they are, with one statement for each kind.
func (s *Store) ImportRows(ctx context.Context, rows []storage.Row) error {
	if len(rows) > storage.MaxRows {
		return storage.ErrTooLarge
	}
	list, err := importStatements(rows)
	if err != nil || len(list) == 0 {
		return err
	}
	return s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		var b pgx.Batch
		for _, st := range list {
			b.Queue(st.sql, st.args...)
		}
		err := c.SendBatch(ctx, &b).Close()
		if err == nil {
			s.wrote(ctx, 1)
		}
		return err
	})
}

// importStatements returns what stores rows. Of several with one key the last
// one counts, which a statement would not settle by itself.
func importStatements(rows []storage.Row) (list []statement, err error) {
	type name struct {
		kind storage.RowKind
		key  string
	}
	place := make(map[name]int, len(rows))
	count := map[storage.RowKind]int{}
	for i, row := range rows {
		place[name{row.Kind, string(row.Key)}] = i
		count[row.Kind]++
	}
	columns := map[storage.RowKind][][]any{}
	for i, row := range rows {
		content, err := row.Decode()
		if err != nil {
			return nil, err
		}
		if place[name{row.Kind, string(row.Key)}] != i {
			continue
		}
		table := movedTables[row.Kind]
		k := table.key.of(row.Key)
		rest, err := table.put(row, &content)
		if err != nil {
			return nil, err
		}
		values := append(k.values(), rest...)
		to := columns[row.Kind]
		if to == nil {
			to = make([][]any, len(values))
			for i := range to {
				to[i] = make([]any, 0, count[row.Kind])
			}
			columns[row.Kind] = to
		}
		for at, value := range values {
			to[at] = append(to[at], value)
		}
	}
	for kind, values := range columns {
		args := make([]any, len(values))
		for i := range values {
			args[i] = values[i]
		}
		list = append(list, statement{movedTables[kind].upsert(), args})
	}
	slices.SortFunc(list, func(a, b statement) int { return cmp.Compare(a.sql, b.sql) })
	return list, nil
}

// upsert returns the statement that stores rows, given one array for each
// column.
func (m *movedTable) upsert() string {
	var names, arrays, sets []string
	for i, c := range m.columns {
		names = append(names, c.name)
		arrays = append(arrays, fmt.Sprintf("$%d::%s[]", i+1, c.kind))
		sets = append(sets, c.name+" = excluded."+c.name)
	}
	return fmt.Sprintf(`INSERT INTO %s (%s) SELECT * FROM unnest(%s) ON CONFLICT (%s) DO UPDATE SET %s`,
		m.name, strings.Join(names, ", "), strings.Join(arrays, ", "), m.keyColumns(), strings.Join(sets, ", "))
}
