package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// Idempotency returns what an earlier sign-in with this key recorded.
func (s *Store) Idempotency(ctx context.Context, key storage.Digest) (rec storage.IdempotencyRecord, ok bool, err error) {
	err = s.read(ctx, func(tx txn) error {
		kept, found, err := getIdempotency(tx, key)
		if found && tx.now.Before(kept.ExpiresAt) {
			rec, ok = kept.IdempotencyRecord, true
		}
		return err
	})
	return rec, ok, err
}

// Rotate redeems one generation of a family's refresh token.
func (s *Store) Rotate(ctx context.Context, in storage.Rotation) (storage.RotateResult, error) {
	var res storage.RotateResult
	err := s.write(ctx, func(tx txn) (bool, error) {
		res = storage.RotateResult{Verdict: storage.RotateMissing}
		family, found, err := getFamily(tx, in.FamilyID)
		if err != nil || !found {
			return false, err
		}
		parties, err := getParties(tx, &family)
		if err != nil {
			return false, err
		}
		var write bool
		if res, write = storage.JudgeRotate(in, family, parties, tx.now); !write {
			return false, nil
		}
		return true, putFamily(tx, &res.Family)
	})
	if err != nil {
		return storage.RotateResult{}, err
	}
	return res, nil
}

// putFamily stores a changed family. Its entry in the expiry bucket stays: the
// collector looks there no later than the family can expire, and moves it on.
func putFamily(tx txn, f *storage.Family) error {
	return put(tx, bucketFamilies, f.ID[:], storage.EncodeFamily(f))
}

// Family returns a family whatever its state.
func (s *Store) Family(ctx context.Context, id storage.FamilyID) (storage.Family, error) {
	var family storage.Family
	err := s.read(ctx, func(tx txn) error {
		f, found, err := getFamily(tx, id)
		if err != nil {
			return err
		}
		if !found {
			return storage.ErrNotFound
		}
		parties, err := getParties(tx, &f)
		family = parties.Overlay(f)
		return err
	})
	if err != nil {
		return storage.Family{}, err
	}
	return family, nil
}

// CheckAccess judges whether what was issued under a family is still good.
func (s *Store) CheckAccess(ctx context.Context, in storage.AccessCheck) (res storage.AccessResult, err error) {
	jti := jtiKey(in.JTI)
	err = s.read(ctx, func(tx txn) error {
		if in.JTI != "" {
			until, err := getDenied(tx, jti)
			if err != nil {
				return err
			}
			if tx.now.Before(until) {
				res.Verdict = storage.AccessDenied
				return nil
			}
		}
		if in.FamilyID.IsZero() {
			res.Verdict = storage.AccessActive
			return nil
		}
		family, found, err := getFamily(tx, in.FamilyID)
		if err != nil {
			return err
		}
		if !found {
			res.Verdict = storage.AccessFamilyMissing
			return nil
		}
		parties, err := getParties(tx, &family)
		if err != nil {
			return err
		}
		res = storage.JudgeAccess(family, parties, tx.now)
		return nil
	})
	return res, err
}

// RevokeFamily ends a family.
func (s *Store) RevokeFamily(ctx context.Context, id storage.FamilyID, reason string) (found bool, err error) {
	if len(reason) > storage.MaxReason {
		return false, storage.ErrTooLarge
	}
	err = s.write(ctx, func(tx txn) (bool, error) {
		var family storage.Family
		family, found, err = getFamily(tx, id)
		if err != nil || !found {
			return false, err
		}
		parties, err := getParties(tx, &family)
		if err != nil {
			return false, err
		}
		if seen := parties.Overlay(family); !seen.RevokedAt.IsZero() {
			return false, nil
		}
		family.RevokedAt, family.RevokedFor = storage.RoundTime(tx.now), reason
		return true, putFamily(tx, &family)
	})
	return found && err == nil, err
}

// maxScan is how many rows one page of a listing looks at.
const maxScan = 250_000

// PageFamilies lists families in the order of their ids, which is that of
// their creation. A user's page may be short, or empty, before the last one:
// the families of other users that lie between cost time, too.
func (s *Store) PageFamilies(ctx context.Context, userID, after string, limit int) (page []storage.Family, next string, err error) {
	start, err := storage.FamilyCursor(after)
	if err != nil {
		return nil, "", err
	}
	err = s.read(ctx, func(tx txn) (err error) {
		page, next, err = scanFamilies(tx, userID, after, start, storage.PageSize(limit))
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return page, next, nil
}

// scanFamilies looks at up to maxScan rows, behind the family start where
// after is not "".
func scanFamilies(tx txn, userID, after string, start storage.FamilyID, limit int) (page []storage.Family, next string, err error) {
	bucket, prefix, mark := tx.Bucket(bucketFamilies), []byte(nil), []byte(nil)
	if userID != "" {
		shard, m := userShard(userID)
		bucket, prefix, mark = tx.Bucket(bucketByUser), []byte{shard}, m
	}
	seen := newSeenParties()
	cursor := bucket.Cursor()
	from := append(bytes.Clone(prefix), start[:]...)
	key, value := cursor.Seek(from)
	if after != "" && bytes.Equal(key, from) {
		key, value = cursor.Next()
	}
	var last storage.FamilyID
	for n := 0; key != nil && bytes.HasPrefix(key, prefix); n++ {
		if len(page) == limit || n == maxScan {
			return page, last.String(), nil
		}
		if len(key) != len(prefix)+len(last) {
			return nil, "", storage.ErrCorrupt
		}
		last = storage.FamilyID(key[len(prefix):])
		if mark == nil || bytes.Equal(value, mark) {
			family, found, err := seen.family(tx, last)
			if err != nil {
				return nil, "", err
			}
			if found && (userID == "" || family.UserID == userID) {
				page = append(page, family)
			}
		}
		key, value = cursor.Next()
	}
	return page, "", nil
}

// seenParties remembers the users, clients and login sessions that a listing
// has read already.
type seenParties struct {
	users   map[string]storage.UserState
	clients map[string]storage.ClientState
	logins  map[storage.LoginID]storage.LoginState
}

func newSeenParties() seenParties {
	return seenParties{
		users: map[string]storage.UserState{}, clients: map[string]storage.ClientState{}, logins: map[storage.LoginID]storage.LoginState{},
	}
}

// family returns a family as a caller should see it.
func (s *seenParties) family(tx txn, id storage.FamilyID) (family storage.Family, found bool, err error) {
	if family, found, err = getFamily(tx, id); err != nil || !found {
		return family, false, err
	}
	var p storage.Parties
	var ok bool
	if p.User, ok = s.users[family.UserID]; !ok {
		if p.User, err = getUserState(tx, family.UserID); err != nil {
			return family, false, err
		}
		s.users[family.UserID] = p.User
	}
	if p.Client, ok = s.clients[family.ClientID]; !ok {
		if p.Client, err = getClient(tx, family.ClientID); err != nil {
			return family, false, err
		}
		s.clients[family.ClientID] = p.Client
	}
	if p.Login, ok = s.logins[family.LoginID]; !ok && family.EndsWithLogin() {
		if p.Login, err = getLoginState(tx, &family); err != nil {
			return family, false, err
		}
		s.logins[family.LoginID] = p.Login
	}
	return p.Overlay(family), true, nil
}

// DenyJTI makes CheckAccess refuse the token with this jti until expires.
func (s *Store) DenyJTI(ctx context.Context, jti string, expires time.Time) error {
	key := jtiKey(jti)
	expires = storage.RoundTime(expires)
	return s.write(ctx, func(tx txn) (bool, error) {
		until, err := getDenied(tx, key)
		if err != nil || !expires.After(until) || !expires.After(tx.now) {
			return false, err
		}
		var w writes
		w.put(tx, bucketDenied, key[:], storage.EncodeDenied(expires))
		w.expire(tx, expires, kindDenied, key[:])
		return true, w.err
	})
}

// jtiKey gives ids of any length and content one form.
func jtiKey(jti string) storage.Digest { return sha256.Sum256([]byte(jti)) }
