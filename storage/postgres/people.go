package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// UpdateProfile replaces what change names of a user's profile.
func (s *Store) UpdateProfile(ctx context.Context, userID string, change storage.ProfileChange) (storage.User, error) {
	var user storage.UserRecord
	err := s.edit(ctx, func(d *storage.Draft) (err error) {
		user, err = d.UpdateProfile(userID, change)
		return err
	})
	if err != nil {
		return storage.User{}, err
	}
	return s.vault.OpenUser(userID, &user)
}

// CreateAccount makes a user with a username.
func (s *Store) CreateAccount(ctx context.Context, in storage.NewAccount) (res storage.AccountResult, err error) {
	c, err := s.vault.PrepareAccount(in)
	if err != nil {
		return storage.AccountResult{}, err
	}
	err = s.edit(ctx, func(d *storage.Draft) (err error) {
		res, err = c.Judge(d)
		return err
	})
	if err != nil {
		return storage.AccountResult{}, err
	}
	return res, nil
}

// SetPassword replaces a password hash if it still is the old one.
func (s *Store) SetPassword(ctx context.Context, userID, oldHash, newHash string, endFamilies bool) (swapped bool, err error) {
	err = s.edit(ctx, func(d *storage.Draft) (err error) {
		swapped, err = d.SetPassword(userID, oldHash, newHash, endFamilies)
		return err
	})
	return swapped && err == nil, err
}

// Unbind removes identities from a user, unless they are the last way in.
func (s *Store) Unbind(ctx context.Context, in storage.Unbinding) (verdict storage.UnbindVerdict, err error) {
	err = s.edit(ctx, func(d *storage.Draft) (err error) {
		verdict, err = d.Unbind(in)
		return err
	})
	if err != nil {
		return 0, err
	}
	return verdict, nil
}

// Merge moves everything of one user to another and retires the first.
func (s *Store) Merge(ctx context.Context, from, into string, dryRun bool) (res storage.MergeResult, err error) {
	run := s.edit
	if dryRun {
		run = s.rehearse
	}
	err = run(ctx, func(d *storage.Draft) (err error) {
		res, err = d.Merge(from, into)
		return err
	})
	if err != nil {
		return storage.MergeResult{}, err
	}
	return res, nil
}

// Erase destroys a user's key and removes all that points to the user. What
// was removed lies in dead row versions until the database vacuums them, and
// in its write-ahead log and backups until these are recycled.
func (s *Store) Erase(ctx context.Context, userID string) (found bool, err error) {
	err = s.edit(ctx, func(d *storage.Draft) (err error) {
		found, err = d.Erase(userID)
		return err
	})
	return found && err == nil, err
}

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

// Withdraw records what WeChat says a user took back from an app.
func (s *Store) Withdraw(ctx context.Context, in storage.Withdrawal) (res storage.WithdrawResult, err error) {
	index := s.vault.OpenIDIndex(in.AppID, in.WeChatOpenID)
	err = s.edit(ctx, func(d *storage.Draft) (err error) {
		res, err = d.Withdraw(index, in)
		return err
	})
	if err != nil {
		return storage.WithdrawResult{}, err
	}
	return res, nil
}
