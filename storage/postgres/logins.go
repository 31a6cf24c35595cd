package postgres

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/wxidp/wxidp/storage"
)

// StartLogin records that a user has signed in with a browser.
func (s *Store) StartLogin(ctx context.Context, in storage.LoginStart) (res storage.LoginResult, err error) {
	if err := s.usable(ctx); err != nil {
		return storage.LoginResult{}, err
	}
	c, err := s.vault.PrepareLogin(in)
	if err != nil {
		return storage.LoginResult{}, err
	}
	err = s.decide(ctx, func(d *storage.Draft, r *rows) (bool, error) {
		var err error
		if res, err = c.Judge(d); err != nil || res.Verdict != storage.LoginOK {
			return false, err
		}
		taken, err := r.exists(`SELECT FROM logins WHERE token = $1 AND id <> $2`, res.Session.Token[:], [16]byte(res.Session.ID))
		if err != nil || taken {
			return false, cmpErr(err, "the login session's token exists already")
		}
		return true, nil
	})
	if err != nil {
		return storage.LoginResult{}, err
	}
	return res, nil
}

// Login returns the live login session with this token.
func (s *Store) Login(ctx context.Context, token storage.Digest) (storage.LoginSession, error) {
	var row familyRow
	var id [16]byte
	var data []byte
	err := s.readRow(ctx, `SELECT clock_timestamp(), l.id, l.record, u.disabled, u.retired, u.epoch
		FROM logins l JOIN users u ON u.id = l.user_id WHERE l.token = $1`, []any{token[:]},
		&row.now, &id, &data, &row.user.Disabled, &row.user.Retired, &row.userStateEpoch)
	if err != nil {
		return storage.LoginSession{}, err
	}
	login, err := storage.DecodeLogin(storage.LoginID(id), data)
	if err != nil {
		return storage.LoginSession{}, err
	}
	row.user.Found, row.user.Epoch = true, uint32(row.userStateEpoch)
	if login.Token != token || !login.LiveAt(row.user, row.now.UTC()) {
		return storage.LoginSession{}, storage.ErrNotFound
	}
	return login.LoginSession, nil
}

// PageLogins lists the live login sessions of a user in the order of their
// ids, which is that of their creation.
func (s *Store) PageLogins(ctx context.Context, userID, after string, limit int) (page []storage.LoginSession, next string, err error) {
	start, err := storage.LoginCursor(after)
	if err != nil {
		return nil, "", err
	}
	limit = storage.PageSize(limit)
	err = s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		page, next = nil, ""
		found, err := c.Query(ctx, s.sql(`SELECT l.id, l.record FROM logins l JOIN users u ON u.id = l.user_id
			WHERE l.user_id = $1 AND l.id > $2 AND NOT u.disabled AND NOT u.retired
				AND l.ended_at IS NULL AND l.idle_expires_at > clock_timestamp() AND l.expires_at > clock_timestamp() AND l.user_epoch = u.epoch
			ORDER BY l.id LIMIT $3`), text(userID), [16]byte(start), limit+1) // no login session has the id zero
		if err != nil {
			return err
		}
		defer found.Close()
		for found.Next() {
			var id [16]byte
			var data []byte
			if err := found.Scan(&id, &data); err != nil {
				return err
			}
			login, err := storage.DecodeLogin(storage.LoginID(id), data)
			if err != nil {
				return err
			}
			page = append(page, login.LoginSession)
		}
		return found.Err()
	})
	if err != nil {
		return nil, "", err
	}
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].ID.String()
	}
	return page, next, nil
}

const dueLogouts = `SELECT id, client_id, user_id, family_id, ended_at, attempts, next_at FROM logouts
	WHERE next_at <= ` + dbNow + ` ORDER BY next_at, id LIMIT $1`

// DueLogouts returns logout notices whose time has come.
func (s *Store) DueLogouts(ctx context.Context, limit int) (due []storage.LogoutNotice, err error) {
	err = s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		due = nil
		found, err := c.Query(ctx, s.sql(dueLogouts), storage.PageSize(limit))
		if err != nil {
			return err
		}
		defer found.Close()
		for found.Next() {
			var n storage.LogoutNotice
			var id, family [16]byte
			var attempts int64
			if err := found.Scan(&id, &n.ClientID, &n.UserID, &family, &n.EndedAt, &attempts, &n.Next); err != nil {
				return err
			}
			n.ID, n.FamilyID, n.Attempts = storage.LogoutID(id), storage.FamilyID(family), uint32(attempts)
			n.EndedAt, n.Next = n.EndedAt.UTC(), n.Next.UTC()
			due = append(due, n)
		}
		return found.Err()
	})
	if err != nil {
		return nil, err
	}
	return due, nil
}

// SettleLogouts removes notices whose Next is zero and puts the others off.
// Those that were removed meanwhile stay so.
func (s *Store) SettleLogouts(ctx context.Context, notices []storage.LogoutNotice) error {
	list := make([]statement, len(notices))
	for i := range notices {
		n := &notices[i]
		if n.Next.IsZero() {
			list[i] = statement{`DELETE FROM logouts WHERE id = $1`, []any{[16]byte(n.ID)}}
		} else {
			list[i] = statement{`UPDATE logouts SET next_at = $2, attempts = $3 WHERE id = $1`,
				[]any{[16]byte(n.ID), storage.RoundTime(n.Next), int64(n.Attempts)}}
		}
	}
	return s.writeLogouts(ctx, notices, list)
}

// QueueLogouts adds notices that are due at once. An ID or an EndedAt that is
// zero is filled in; a notice whose ID is there already stays as it is.
func (s *Store) QueueLogouts(ctx context.Context, notices []storage.LogoutNotice) error {
	if len(notices) > storage.MaxPage {
		return storage.ErrTooLarge
	}
	list := make([]statement, len(notices))
	logins := make([]storage.LoginID, len(notices)) // that the families came from, which never changes
	for i := range notices {
		n := notices[i]
		if len(storage.EncodeLogout(&n)) > storage.MaxValueSize {
			return storage.ErrTooLarge
		}
		if n.ID.IsZero() {
			n.ID = storage.NewLogoutID()
		}
		list[i] = statement{s.sql(`INSERT INTO logouts (id, client_id, user_id, family_id, ended_at, attempts, next_at)
			VALUES ($1, $2, $3, $4, coalesce($5, clock_timestamp()), $6, clock_timestamp()) ON CONFLICT (id) DO NOTHING`),
			[]any{[16]byte(n.ID), text(n.ClientID), text(n.UserID), [16]byte(n.FamilyID), optional(n.EndedAt), int64(n.Attempts)}}
		family, err := s.Family(ctx, n.FamilyID)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		logins[i] = family.LoginID
	}
	return s.decide(ctx, func(d *storage.Draft, r *rows) (bool, error) {
		for i := range notices {
			if err := d.Told(logins[i], notices[i].FamilyID); err != nil {
				return false, err
			}
			r.add(list[i].sql, list[i].args...)
		}
		return len(notices) > 0, nil
	})
}

// writeLogouts writes one statement for each notice in one commit, in the
// order of the notices' ids.
func (s *Store) writeLogouts(ctx context.Context, notices []storage.LogoutNotice, list []statement) error {
	if len(notices) > storage.MaxPage {
		return storage.ErrTooLarge
	}
	slices.SortStableFunc(list, func(a, b statement) int {
		x, y := a.args[0].([16]byte), b.args[0].([16]byte)
		return bytes.Compare(x[:], y[:])
	})
	return s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		var b pgx.Batch
		changed := int64(0)
		for _, st := range list {
			b.Queue(st.sql, st.args...).Exec(func(tag pgconn.CommandTag) error {
				changed += tag.RowsAffected()
				return nil
			})
		}
		if b.Len() == 0 {
			return nil
		}
		err := c.SendBatch(ctx, &b).Close()
		if err == nil && changed > 0 {
			s.wrote(ctx, 1)
		}
		return err
	})
}
