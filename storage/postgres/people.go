package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// ImportUsers takes users of an earlier system.
func (s *Store) ImportUsers(ctx context.Context, rows []storage.ImportRow, dryRun bool) (verdicts []storage.ImportVerdict, err error) {
	c, err := s.vault.PrepareImport(rows)
	if err != nil {
		return nil, err
	}
	run := s.edit
	if dryRun {
		run = s.rehearse
	}
	err = run(ctx, func(d *storage.Draft) (err error) {
		verdicts, err = c.Judge(d)
		return err
	})
	if err != nil {
		return nil, err
	}
	return verdicts, nil
}

// SessionKeys returns the session_keys in custody for an identity.
func (s *Store) SessionKeys(ctx context.Context, identity storage.Digest) ([]storage.SessionKey, error) {
	var now time.Time
	var data, userData []byte
	var id string
	found := false
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		found = false
		rows, err := c.Query(ctx, s.sql(`SELECT clock_timestamp(), k.record, u.id, u.record
			FROM session_keys k JOIN identities i ON i.id = k.identity JOIN users u ON u.id = i.user_id WHERE k.identity = $1`), identity[:])
		if err != nil {
			return err
		}
		defer rows.Close()
		if found = rows.Next(); found {
			err = rows.Scan(&now, &data, &id, &userData)
		}
		rows.Close()
		if err == nil {
			err = rows.Err()
		}
		return err
	})
	if err != nil || !found {
		return nil, err
	}
	user, err := linked(userData)
	if err != nil {
		return nil, err
	}
	keys, err := storage.DecodeSessionKeys(data)
	if err != nil {
		return nil, err
	}
	return s.vault.OpenSessionKeys(identity, id, user.Key, keys, now.UTC())
}

// PutSessionKey adds a session_key to an identity's custody.
func (s *Store) PutSessionKey(ctx context.Context, identity storage.Digest, key secret.String, lifetime time.Duration) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if key.IsZero() || lifetime <= 0 {
		return nil
	}
	return s.edit(ctx, func(d *storage.Draft) error { return d.PutSessionKey(identity, key, lifetime) })
}

// ForgetSessionKeys removes the session_keys of up to limit identities.
func (s *Store) ForgetSessionKeys(ctx context.Context, limit int) (forgotten int, more bool, err error) {
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tag, err := c.Exec(ctx, `DELETE FROM session_keys WHERE identity IN (
			SELECT identity FROM session_keys ORDER BY identity LIMIT $1 FOR UPDATE SKIP LOCKED)`, storage.PageSize(limit))
		if err != nil {
			return err
		}
		if forgotten = int(tag.RowsAffected()); forgotten > 0 {
			s.wrote(ctx, 1)
		}
		return c.QueryRow(ctx, `SELECT EXISTS (SELECT FROM session_keys)`).Scan(&more)
	})
	if err != nil {
		return 0, false, err
	}
	return forgotten, more, nil
}
