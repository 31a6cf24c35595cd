package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/wxidp/wxidp/storage"
)

// Rewrap looks at up to limit users after the cursor and re-seals those keys
// that are not under the first master key; a run without a cursor begins with
// the vault's own key. A user who changes meanwhile is left as they are.
func (s *Store) Rewrap(ctx context.Context, after string, limit int) (rewrapped int, next string, err error) {
	if after == "" {
		if rewrapped, err = storage.RewrapVault(ctx, s, s.vault); err != nil {
			return 0, "", err
		}
	}
	limit = storage.PageSize(limit)
	page, err := s.userPage(ctx, after, limit+1)
	if err != nil {
		return 0, "", err
	}
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].id
	}
	var changes []statement
	for i := range page {
		sealed, err := s.vault.RewrapUserKey(page[i].id, page[i].user.Key)
		if err != nil {
			return 0, "", fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
		}
		if sealed != nil {
			page[i].user.Key = sealed
			changes = append(changes, statement{`UPDATE users SET record = $3 WHERE id = $1 AND record = $2`,
				[]any{page[i].id, page[i].data, storage.EncodeUser(&page[i].user)}})
		}
	}
	if len(changes) == 0 {
		return rewrapped, next, nil
	}
	done := 0
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		done = 0
		var b pgx.Batch
		for _, st := range changes {
			b.Queue(st.sql, st.args...).Exec(func(tag pgconn.CommandTag) error {
				done += int(tag.RowsAffected())
				return nil
			})
		}
		err := c.SendBatch(ctx, &b).Close()
		if err == nil && done > 0 {
			s.wrote(ctx, 1)
		}
		return err
	})
	if err != nil {
		return 0, "", err
	}
	return rewrapped + done, next, nil
}
