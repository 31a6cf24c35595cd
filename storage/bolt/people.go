package bolt

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// edit judges one operation about people in a shared transaction and writes
// what it drafted. judge must set its results anew whenever it is called.
func (s *Store) edit(ctx context.Context, judge func(d *storage.Draft) error) error {
	return s.write(ctx, func(tx txn) (bool, error) {
		draft := storage.NewDraft(peopleRows{tx}, s.vault, tx.now)
		if err := judge(draft); err != nil {
			return false, err
		}
		changes, err := draft.Changes()
		if err != nil || changes.Empty() {
			return false, err
		}
		var w writes
		w.apply(tx, &changes)
		return true, w.err
	})
}

// rehearse judges an operation on what is durable and writes nothing.
func (s *Store) rehearse(ctx context.Context, judge func(d *storage.Draft) error) error {
	return s.read(ctx, func(tx txn) error {
		return judge(storage.NewDraft(peopleRows{tx}, s.vault, tx.now))
	})
}

// AccountByUsername returns what checking a password needs.
func (s *Store) AccountByUsername(ctx context.Context, username string) (storage.Account, error) {
	index := s.vault.UsernameIndex(username)
	var id string
	var user storage.UserRecord
	err := s.read(ctx, func(tx txn) (err error) {
		if id = getOwner(tx, storage.IndexUsername, index); id == "" {
			return storage.ErrNotFound
		}
		user, err = getLinked(tx, id)
		return err
	})
	if err != nil {
		return storage.Account{}, err
	}
	return s.vault.OpenAccount(id, &user)
}

// UserBy returns the user whom a username, phone number or external id leads to.
func (s *Store) UserBy(ctx context.Context, kind storage.IndexKind, value string) (storage.User, error) {
	index := s.vault.HandleIndex(kind, value)
	if index.IsZero() || value == "" {
		return storage.User{}, storage.ErrNotFound
	}
	var id string
	var user storage.UserRecord
	err := s.read(ctx, func(tx txn) (err error) {
		if id = getOwner(tx, kind, index); id == "" {
			return storage.ErrNotFound
		}
		user, err = getLinked(tx, id)
		return err
	})
	if err != nil {
		return storage.User{}, err
	}
	return s.vault.OpenUser(id, &user)
}

// Identities returns the WeChat identities of a user in order of linking.
func (s *Store) Identities(ctx context.Context, userID string) ([]storage.Identity, error) {
	var key []byte
	var indexes []storage.Digest
	var records []storage.IdentityRecord
	err := s.read(ctx, func(tx txn) error {
		user, found, err := getUser(tx, userID)
		if err != nil {
			return err
		}
		if !found || user.Retired {
			return storage.ErrNotFound
		}
		key = bytes.Clone(user.Key)
		for i := range user.Identities.Len() {
			index := user.Identities.At(i)
			record, err := storage.DecodeIdentity(bytes.Clone(tx.Bucket(bucketIdentities).Get(index[:])))
			if err != nil {
				return err
			}
			indexes, records = append(indexes, index), append(records, record)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([]storage.Identity, len(records))
	for i := range records {
		if out[i], err = s.vault.OpenIdentity(indexes[i], &records[i], key); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// IdentityUser returns the user of a WeChat identity with the identity's index.
func (s *Store) IdentityUser(ctx context.Context, appID, weChatOpenID string) (storage.User, storage.Digest, error) {
	index := s.vault.OpenIDIndex(appID, weChatOpenID)
	var id string
	var user storage.UserRecord
	err := s.read(ctx, func(tx txn) error {
		identity, found, err := getIdentity(tx, index)
		if err == nil && !found {
			err = storage.ErrNotFound
		}
		if err != nil {
			return err
		}
		id = identity.UserID
		user, err = getLinked(tx, id)
		return err
	})
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
	index := s.vault.UnionIDIndex(who.OpenPlatform, who.UnionID)
	var id string
	var record storage.UserRecord
	err = s.read(ctx, func(tx txn) (err error) {
		if id = getOwner(tx, storage.IndexUnionID, index); id == "" {
			return storage.ErrNotFound
		}
		if record, err = getLinked(tx, id); err != nil {
			return err
		}
		for i := range record.Identities.Len() {
			other, found, err := getIdentity(tx, record.Identities.At(i))
			if err != nil {
				return err
			}
			if found && other.AppID == who.AppID {
				return storage.ErrNotFound // somebody else's, as sign-ins judge
			}
		}
		return nil
	})
	if err != nil {
		return storage.User{}, err
	}
	return s.vault.OpenUser(id, &record)
}

// ImportUsers takes users of an earlier system. A rehearsal makes the keys of
// the new users, which would hold up the writer.
func (s *Store) ImportUsers(ctx context.Context, rows []storage.ImportRow, dryRun bool) (verdicts []storage.ImportVerdict, err error) {
	c, err := s.vault.PrepareImport(rows)
	if err != nil {
		return nil, err
	}
	judge := func(d *storage.Draft) (err error) {
		verdicts, err = c.Judge(d)
		return err
	}
	if err := s.rehearse(ctx, judge); err != nil {
		return nil, err
	}
	if dryRun {
		return verdicts, nil
	}
	if err := s.edit(ctx, judge); err != nil {
		return nil, err
	}
	return verdicts, nil
}

// SessionKeys returns the session_keys in custody for an identity.
func (s *Store) SessionKeys(ctx context.Context, identity storage.Digest) ([]storage.SessionKey, error) {
	var id string
	var userKey []byte
	var keys []storage.SessionKeyRecord
	var now time.Time
	err := s.read(ctx, func(tx txn) error {
		now = tx.now
		data := tx.Bucket(bucketSessionKeys).Get(identity[:])
		if data == nil {
			return nil
		}
		record, found, err := getIdentity(tx, identity)
		if err == nil && !found {
			err = storage.ErrCorrupt
		}
		if err != nil {
			return err
		}
		user, err := getLinked(tx, record.UserID)
		if err != nil {
			return err
		}
		id, userKey = record.UserID, user.Key
		keys, err = storage.DecodeSessionKeys(bytes.Clone(data))
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.vault.OpenSessionKeys(identity, id, userKey, keys, now)
}

// PutSessionKey adds a session_key to an identity's custody.
func (s *Store) PutSessionKey(ctx context.Context, identity storage.Digest, key secret.String, lifetime time.Duration) error {
	if key.IsZero() || lifetime <= 0 {
		return ctx.Err()
	}
	return s.edit(ctx, func(d *storage.Draft) error { return d.PutSessionKey(identity, key, lifetime) })
}

// maxClientID is the longest id of a client, in bytes.
const maxClientID = 256

// RevokeClient ends all families of a client with one write.
func (s *Store) RevokeClient(ctx context.Context, clientID, reason string) error {
	if len(reason) > storage.MaxReason || clientID == "" || len(clientID) > maxClientID {
		return storage.ErrTooLarge
	}
	return s.write(ctx, func(tx txn) (bool, error) {
		client, err := getClient(tx, clientID)
		if err != nil {
			return false, err
		}
		if err := client.EndFamilies(tx.now, reason); err != nil {
			return false, err
		}
		return true, put(tx, bucketClients, []byte(clientID), storage.EncodeClient(&client))
	})
}
