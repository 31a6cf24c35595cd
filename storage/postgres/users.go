package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
)

// User returns a user with the profile opened.
func (s *Store) User(ctx context.Context, id string) (storage.User, error) {
	var data []byte
	if err := s.readRow(ctx, `SELECT record FROM users WHERE id = $1`, []any{text(id)}, &data); err != nil {
		return storage.User{}, err
	}
	user, err := storage.DecodeUser(data)
	if err != nil {
		return storage.User{}, err
	}
	return s.vault.OpenUser(id, &user)
}

// linked decodes a user whom a row leads to, who cannot be missing.
func linked(data []byte) (storage.UserRecord, error) {
	user, err := storage.DecodeUser(data)
	if err == nil && user.Retired {
		err = corrupt("a link points to no user")
	}
	return user, err
}

// Identity returns a WeChat identity with its values opened.
func (s *Store) Identity(ctx context.Context, index storage.Digest) (storage.Identity, error) {
	var data, userData []byte
	err := s.readRow(ctx, `SELECT i.record, u.record FROM identities i JOIN users u ON u.id = i.user_id WHERE i.id = $1`, []any{index[:]}, &data, &userData)
	if err != nil {
		return storage.Identity{}, err
	}
	record, err := storage.DecodeIdentity(data)
	if err != nil {
		return storage.Identity{}, err
	}
	user, err := linked(userData)
	if err != nil {
		return storage.Identity{}, err
	}
	return s.vault.OpenIdentity(index, &record, user.Key)
}

// RevokeUser ends all families that the user has at this moment.
func (s *Store) RevokeUser(ctx context.Context, userID, reason string) error {
	if len(reason) > storage.MaxReason {
		return storage.ErrTooLarge
	}
	return s.changeUser(ctx, userID, func(now time.Time, u *storage.UserRecord) (bool, error) {
		return true, u.EndFamilies(now, text(reason))
	})
}

// SetUserDisabled disables or enables a user.
func (s *Store) SetUserDisabled(ctx context.Context, userID string, disabled bool) error {
	return s.changeUser(ctx, userID, func(now time.Time, u *storage.UserRecord) (bool, error) {
		if u.Disabled == disabled {
			return false, nil
		}
		u.Disabled = disabled
		if disabled {
			return true, u.EndFamilies(now, storage.RevokedForDisabled)
		}
		return true, nil
	})
}

// maxClientID is the longest id of a client, in bytes.
const maxClientID = 256

// RevokeClient ends all families of a client with one write.
func (s *Store) RevokeClient(ctx context.Context, clientID, reason string) error {
	if len(reason) > storage.MaxReason || clientID == "" || len(clientID) > maxClientID {
		return storage.ErrTooLarge
	}
	return s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tag, err := c.Exec(ctx, s.sql(`INSERT INTO clients AS old (id, epoch, ended_at, ended_reason) VALUES ($1, 1, clock_timestamp(), $2)
			ON CONFLICT (id) DO UPDATE SET epoch = old.epoch + 1, ended_at = clock_timestamp(), ended_reason = excluded.ended_reason
			WHERE old.epoch < 4294967295`), text(clientID), text(reason))
		if err == nil && tag.RowsAffected() == 0 {
			return cmpErr(nil, "the client's epoch cannot be raised further")
		}
		if err == nil {
			s.wrote(ctx, 1)
		}
		return err
	})
}

// PageUsers lists users in the order of their ids.
func (s *Store) PageUsers(ctx context.Context, after string, limit int) (users []storage.User, next string, err error) {
	limit = storage.PageSize(limit)
	page, err := s.userPage(ctx, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].id
	}
	users = make([]storage.User, len(page))
	for i := range page {
		if users[i], err = s.vault.OpenUser(page[i].id, &page[i].user); err != nil {
			return nil, "", err
		}
	}
	return users, next, nil
}

type userRow struct {
	id   string
	data []byte
	user storage.UserRecord
}

func (s *Store) userPage(ctx context.Context, after string, limit int) (page []userRow, err error) {
	err = s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		found, err := c.Query(ctx, `SELECT id, record FROM users WHERE id > $1 ORDER BY id LIMIT $2`, text(after), limit)
		if err != nil {
			return err
		}
		defer found.Close()
		page = nil
		for found.Next() {
			var row userRow
			if err := found.Scan(&row.id, &row.data); err != nil {
				return err
			}
			if row.user, err = storage.DecodeUser(row.data); err != nil {
				return err
			}
			page = append(page, row)
		}
		return found.Err()
	})
	return page, err
}

// AccountByUsername returns what checking a password needs.
func (s *Store) AccountByUsername(ctx context.Context, username string) (storage.Account, error) {
	id, user, err := s.owned(ctx, storage.IndexUsername, s.vault.UsernameIndex(username))
	if err != nil {
		return storage.Account{}, err
	}
	return s.vault.OpenAccount(id, &user)
}

// UserBy returns the user whom a username, phone number or external id leads to.
func (s *Store) UserBy(ctx context.Context, kind storage.IndexKind, value string) (storage.User, error) {
	index := s.vault.HandleIndex(kind, value)
	if err := s.usable(ctx); err != nil {
		return storage.User{}, err
	}
	if index.IsZero() || value == "" {
		return storage.User{}, storage.ErrNotFound
	}
	id, user, err := s.owned(ctx, kind, index)
	if err != nil {
		return storage.User{}, err
	}
	return s.vault.OpenUser(id, &user)
}

func (s *Store) owned(ctx context.Context, kind storage.IndexKind, index storage.Digest) (id string, user storage.UserRecord, err error) {
	var data []byte
	err = s.readRow(ctx, `SELECT u.id, u.record FROM owners o JOIN users u ON u.id = o.user_id WHERE o.kind = $1 AND o.id = $2`,
		[]any{int16(kind), index[:]}, &id, &data)
	if err != nil {
		return "", user, err
	}
	user, err = linked(data)
	return id, user, err
}

// Identities returns the WeChat identities of a user in order of linking.
func (s *Store) Identities(ctx context.Context, userID string) (out []storage.Identity, err error) {
	err = s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		r := &rows{ctx: ctx, store: s, conn: c}
		if err := r.look(&rows{}); err != nil {
			return err
		}
		user, err := r.liveUser(userID)
		if err != nil {
			return err
		}
		out = make([]storage.Identity, user.Identities.Len())
		for i := range out {
			if out[i], err = r.identity(user.Identities.At(i), user.Key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// identity returns an identity that cannot be missing.
func (r *rows) identity(index storage.Digest, userKey []byte) (storage.Identity, error) {
	data, err := r.IdentityRow(index)
	if err != nil {
		return storage.Identity{}, err
	}
	record, err := storage.DecodeIdentity(data)
	if err != nil {
		return storage.Identity{}, err
	}
	return r.store.vault.OpenIdentity(index, &record, userKey)
}

// IdentityUser returns the user of a WeChat identity with the identity's index.
func (s *Store) IdentityUser(ctx context.Context, appID, weChatOpenID string) (storage.User, storage.Digest, error) {
	index := s.vault.OpenIDIndex(appID, weChatOpenID)
	var id string
	var data []byte
	err := s.readRow(ctx, `SELECT u.id, u.record FROM identities i JOIN users u ON u.id = i.user_id WHERE i.id = $1`, []any{index[:]}, &id, &data)
	if err != nil {
		return storage.User{}, storage.Digest{}, err
	}
	user, err := linked(data)
	if err != nil {
		return storage.User{}, storage.Digest{}, err
	}
	out, err := s.vault.OpenUser(id, &user)
	return out, index, err
}

// SignInUser returns the user whom a sign-in of the identity leads to.
func (s *Store) SignInUser(ctx context.Context, who storage.Identity) (storage.User, error) {
	user, _, err := s.IdentityUser(ctx, who.AppID, who.WeChatOpenID)
	if !errors.Is(err, storage.ErrNotFound) || who.UnionID == "" || who.OpenPlatform == "" {
		return user, err
	}
	id, record, err := s.owned(ctx, storage.IndexUnionID, s.vault.UnionIDIndex(who.OpenPlatform, who.UnionID))
	if err != nil {
		return storage.User{}, err
	}
	for i := range record.Identities.Len() {
		var data []byte
		index := record.Identities.At(i)
		err := s.readRow(ctx, `SELECT record FROM identities WHERE id = $1`, []any{index[:]}, &data)
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		if err != nil {
			return storage.User{}, err
		}
		other, err := storage.DecodeIdentity(data)
		if err != nil {
			return storage.User{}, err
		}
		if other.AppID == who.AppID {
			return storage.User{}, storage.ErrNotFound // somebody else's, as sign-ins judge
		}
	}
	return s.vault.OpenUser(id, &record)
}
