package bolt

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// StartLogin records that a user has signed in with a browser.
func (s *Store) StartLogin(ctx context.Context, in storage.LoginStart) (res storage.LoginResult, err error) {
	c, err := s.vault.PrepareLogin(in)
	if err != nil {
		return storage.LoginResult{}, err
	}
	err = s.write(ctx, func(tx txn) (bool, error) {
		draft := storage.NewDraft(peopleRows{tx}, s.vault, tx.now)
		if res, err = c.Judge(draft); err != nil || res.Verdict != storage.LoginOK {
			return false, err
		}
		holder := tx.Bucket(bucketLoginTokens).Get(res.Session.Token[:])
		if holder != nil && !bytes.Equal(holder, res.Session.ID[:]) {
			return false, fmt.Errorf("%w: the login session's token exists already", storage.ErrUnavailable)
		}
		changes, err := draft.Changes()
		if err != nil {
			return false, err
		}
		var w writes
		w.apply(tx, &changes)
		return true, w.err
	})
	if err != nil {
		return storage.LoginResult{}, err
	}
	return res, nil
}

// Login returns the live login session with this token.
func (s *Store) Login(ctx context.Context, token storage.Digest) (login storage.LoginSession, err error) {
	err = s.read(ctx, func(tx txn) error {
		id := tx.Bucket(bucketLoginTokens).Get(token[:])
		if id == nil {
			return storage.ErrNotFound
		}
		if len(id) != len(storage.LoginID{}) {
			return storage.ErrCorrupt
		}
		record, found, err := getLogin(tx, storage.LoginID(id))
		if err != nil {
			return err
		}
		if !found || record.Token != token {
			return storage.ErrNotFound
		}
		user, err := getUserState(tx, record.UserID)
		if err != nil {
			return err
		}
		if !record.LiveAt(user, tx.now) {
			return storage.ErrNotFound
		}
		login = record.LoginSession
		return nil
	})
	return login, err
}

// PageLogins lists the live login sessions of a user in the order of their
// ids, which is that of their creation.
func (s *Store) PageLogins(ctx context.Context, userID, after string, limit int) (page []storage.LoginSession, next string, err error) {
	start, err := storage.LoginCursor(after)
	if err != nil {
		return nil, "", err
	}
	limit = storage.PageSize(limit)
	err = s.read(ctx, func(tx txn) error {
		user, err := getUserState(tx, userID)
		if err != nil {
			return err
		}
		last, more, err := scanLogins(tx, userID, after != "", start, func(login *storage.LoginRecord) (enough bool) {
			if login.LiveAt(user, tx.now) {
				page = append(page, login.LoginSession)
			}
			return len(page) == limit
		})
		if err == nil && more {
			next = last.String()
		}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return page, next, nil
}

// scanLogins visits a user's login sessions in the order of their ids until
// one is enough, behind the session start where skip is set. It looks at up to
// maxScan rows. more is false where it came to the end; last is the id of the
// last row.
func scanLogins(
	tx txn, userID string, skip bool, start storage.LoginID, visit func(*storage.LoginRecord) (enough bool),
) (last storage.LoginID, more bool, err error) {
	shard, mark := userShard(userID)
	from := append([]byte{shard}, start[:]...)
	cursor := tx.Bucket(bucketLoginsByUser).Cursor()
	key, value := cursor.Seek(from)
	if skip && bytes.Equal(key, from) {
		key, value = cursor.Next()
	}
	for n, enough := 0, false; key != nil && key[0] == shard; n++ {
		if enough || n == maxScan {
			return last, true, nil
		}
		if len(key) != 1+len(last) {
			return last, false, storage.ErrCorrupt
		}
		last = storage.LoginID(key[1:])
		if bytes.Equal(value, mark) {
			login, found, err := getLogin(tx, last)
			if err != nil {
				return last, false, err
			}
			if found && login.UserID == userID {
				enough = visit(&login)
			}
		}
		key, value = cursor.Next()
	}
	return last, false, nil
}

func (r peopleRows) LoginRow(id storage.LoginID) ([]byte, error) {
	return r.Bucket(bucketLogins).Get(id[:]), nil
}

// Logins looks at no more than maxScan rows.
func (r peopleRows) Logins(userID string, limit int) (logins []storage.LoginRecord, err error) {
	err = eachNewest(r.txn, bucketLoginsByUser, userID, maxScan, func(id storage.FamilyID) (enough bool, err error) {
		login, found, err := getLogin(r.txn, storage.LoginID(id))
		if found && login.UserID == userID {
			logins = append(logins, login)
		}
		return len(logins) == limit, err
	})
	return logins, err
}

func (r peopleRows) ConsentsRow(userID string) ([]byte, error) {
	return r.Bucket(bucketConsents).Get([]byte(userID)), nil
}

func getLogin(tx txn, id storage.LoginID) (login storage.LoginRecord, found bool, err error) {
	data := tx.Bucket(bucketLogins).Get(id[:])
	if data == nil {
		return login, false, nil
	}
	login, err = storage.DecodeLogin(id, data)
	return login, err == nil, err
}

// getLoginState returns what a judgement needs to know of the login session
// that a family ends with, if it does.
func getLoginState(tx txn, f *storage.Family) (storage.LoginState, error) {
	if !f.EndsWithLogin() {
		return storage.LoginState{}, nil
	}
	login, found, err := getLogin(tx, f.LoginID)
	if err != nil || !found {
		return storage.LoginState{}, err
	}
	return login.StateAt(tx.now), nil
}

// loginByUserRow is the row that finds a login session by its user.
func loginByUserRow(userID string, id storage.LoginID) (key, value []byte) {
	return byUserRow(userID, storage.FamilyID(id))
}

// changeLogin writes a login session with the rows that lead to it. The entry
// in the expiry bucket of one that is not new is moved on when it is due.
func (w *writes) changeLogin(tx txn, c *storage.LoginChange) {
	id := c.Is.ID[:]
	w.put(tx, bucketLogins, id, c.Data)
	if c.Was == nil {
		byUser, mark := loginByUserRow(c.Is.UserID, c.Is.ID)
		w.put(tx, bucketLoginsByUser, byUser, mark)
		w.expire(tx, c.Is.Expiry(), kindLogin, id)
	}
	if c.Was != nil && c.Was.Token != c.Is.Token {
		w.deleteToken(tx, c.Was.Token, c.Is.ID)
	}
	if !c.Is.Token.IsZero() && (c.Was == nil || c.Was.Token != c.Is.Token) {
		w.put(tx, bucketLoginTokens, c.Is.Token[:], id)
	}
}

// deleteLogin deletes a login session but for its entry in the expiry bucket,
// which the collector drops in its time.
func (w *writes) deleteLogin(tx txn, login *storage.LoginRecord) {
	w.delete(tx, bucketLogins, login.ID[:])
	byUser, _ := loginByUserRow(login.UserID, login.ID)
	w.delete(tx, bucketLoginsByUser, byUser)
	w.deleteToken(tx, login.Token, login.ID)
}

func (w *writes) deleteToken(tx txn, token storage.Digest, id storage.LoginID) {
	if !token.IsZero() && bytes.Equal(tx.Bucket(bucketLoginTokens).Get(token[:]), id[:]) {
		w.delete(tx, bucketLoginTokens, token[:])
	}
}

func expireLogin(tx txn, w *writes, key []byte) (gone bool, until time.Time, err error) {
	if len(key) != len(storage.LoginID{}) {
		return false, time.Time{}, nil
	}
	login, found, err := getLogin(tx, storage.LoginID(key))
	if err != nil || !found {
		return false, time.Time{}, err
	}
	if expiry := login.Expiry(); tx.now.Before(expiry) {
		return false, expiry, nil
	}
	w.deleteLogin(tx, &login)
	return true, time.Time{}, nil
}
