package bolt

import (
	"context"

	"github.com/wxidp/wxidp/storage"
)

// User returns a user with the profile opened.
func (s *Store) User(ctx context.Context, id string) (storage.User, error) {
	var user storage.UserRecord
	err := s.read(ctx, func(tx txn) error {
		u, found, err := getUser(tx, id)
		if err == nil && !found {
			err = storage.ErrNotFound
		}
		user = u.Clone()
		return err
	})
	if err != nil {
		return storage.User{}, err
	}
	return s.vault.OpenUser(id, &user)
}

// Identity returns a WeChat identity with its values opened.
func (s *Store) Identity(ctx context.Context, index storage.Digest) (storage.Identity, error) {
	var identity storage.IdentityRecord
	var key []byte
	err := s.read(ctx, func(tx txn) error {
		record, found, err := getIdentity(tx, index)
		if err == nil && !found {
			err = storage.ErrNotFound
		}
		if err != nil {
			return err
		}
		identity = record
		user, err := getLinked(tx, record.UserID)
		key = user.Key
		return err
	})
	if err != nil {
		return storage.Identity{}, err
	}
	return s.vault.OpenIdentity(index, &identity, key)
}

// RevokeUser ends all families that the user has at this moment.
func (s *Store) RevokeUser(ctx context.Context, userID, reason string) error {
	if len(reason) > storage.MaxReason {
		return storage.ErrTooLarge
	}
	return s.updateUser(ctx, userID, func(tx txn, u *storage.UserRecord) (bool, error) {
		return true, u.EndFamilies(tx.now, reason)
	})
}

// SetUserDisabled disables or enables a user.
func (s *Store) SetUserDisabled(ctx context.Context, userID string, disabled bool) error {
	return s.updateUser(ctx, userID, func(tx txn, u *storage.UserRecord) (bool, error) {
		if u.Disabled == disabled {
			return false, nil
		}
		u.Disabled = disabled
		if disabled {
			return true, u.EndFamilies(tx.now, storage.RevokedForDisabled)
		}
		return true, nil
	})
}

// updateUser changes the record of a user who is not retired, where change says
// so.
func (s *Store) updateUser(ctx context.Context, id string, change func(tx txn, u *storage.UserRecord) (bool, error)) error {
	return s.write(ctx, func(tx txn) (bool, error) {
		user, found, err := getUser(tx, id)
		if err != nil {
			return false, err
		}
		if !found || user.Retired {
			return false, storage.ErrNotFound
		}
		if changed, err := change(tx, &user); err != nil || !changed {
			return false, err
		}
		return true, put(tx, bucketUsers, []byte(id), storage.EncodeUser(&user))
	})
}

// PageUsers lists users in the order of their ids. Profiles are opened after
// the transaction, which a slow reader must not keep open.
func (s *Store) PageUsers(ctx context.Context, after string, limit int) (users []storage.User, next string, err error) {
	type row struct {
		id   string
		user storage.UserRecord
	}
	limit = storage.PageSize(limit)
	var rows []row
	err = s.read(ctx, func(tx txn) error {
		cursor := tx.Bucket(bucketUsers).Cursor()
		key, data := cursor.Seek([]byte(after))
		if after != "" && string(key) == after {
			key, data = cursor.Next()
		}
		for ; key != nil; key, data = cursor.Next() {
			if len(rows) == limit {
				next = rows[limit-1].id
				return nil
			}
			user, err := storage.DecodeUser(data)
			if err != nil {
				return err
			}
			rows = append(rows, row{string(key), user.Clone()})
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	users = make([]storage.User, len(rows))
	for i := range rows {
		if users[i], err = s.vault.OpenUser(rows[i].id, &rows[i].user); err != nil {
			return nil, "", err
		}
	}
	return users, next, nil
}
