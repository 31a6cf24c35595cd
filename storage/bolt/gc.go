package bolt

import (
	"bytes"
	"context"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// gcBatch is how many records one commit of RunGC looks at.
const gcBatch = 200

// DeleteExpired looks at up to limit records whose time to be looked at has
// come. It deletes those that have expired and moves on those that were
// prolonged meanwhile.
func (s *Store) DeleteExpired(ctx context.Context, limit int) (deleted int, more bool, err error) {
	limit = storage.PageSize(limit)
	err = s.write(ctx, func(tx txn) (bool, error) {
		deleted, more = 0, false
		due, rest := dueEntries(tx, limit)
		more = rest
		var w writes
		for _, entry := range due {
			gone, until, err := expire(tx, &w, entry)
			if err != nil {
				// One damaged record must not keep all others from being deleted.
				until = tx.now.Add(24 * time.Hour)
			}
			w.delete(tx, bucketExpiry, entry)
			if gone {
				deleted++
			}
			if !until.IsZero() {
				_, kind, key, _ := parseExpiryKey(entry)
				w.expire(tx, until, kind, key)
			}
		}
		return len(due) > 0, w.err
	})
	if err != nil {
		return 0, false, err
	}
	s.expired.Add(uint64(deleted))
	return deleted, more, nil
}

// ForgetSessionKeys removes the session_keys of up to limit identities. What
// says when they would have expired stays until then and leads to nothing.
func (s *Store) ForgetSessionKeys(ctx context.Context, limit int) (forgotten int, more bool, err error) {
	limit = storage.PageSize(limit)
	err = s.write(ctx, func(tx txn) (bool, error) {
		forgotten, more = 0, false
		var w writes
		cursor := tx.Bucket(bucketSessionKeys).Cursor()
		for key, _ := cursor.First(); key != nil; key, _ = cursor.Next() {
			if forgotten == limit {
				more = true
				break
			}
			w.delete(tx, bucketSessionKeys, bytes.Clone(key))
			forgotten++
		}
		return forgotten > 0, w.err
	})
	if err != nil {
		return 0, false, err
	}
	return forgotten, more, nil
}

// dueEntries returns copies of the first entries that are due, and whether
// there are more.
func dueEntries(tx txn, limit int) (due [][]byte, more bool) {
	cursor := tx.Bucket(bucketExpiry).Cursor()
	for key, _ := cursor.First(); key != nil; key, _ = cursor.Next() {
		second, _, _, ok := parseExpiryKey(key)
		if ok && second > tx.now.Unix() {
			break
		}
		if len(due) == limit {
			return due, true
		}
		due = append(due, bytes.Clone(key))
	}
	return due, false
}

// expire deletes the record of a due entry if it has expired. until is when to
// look again where it has not; an entry without a record yields neither.
func expire(tx txn, w *writes, entry []byte) (gone bool, until time.Time, err error) {
	_, kind, key, ok := parseExpiryKey(entry)
	if !ok {
		return false, time.Time{}, nil
	}
	var bucket []byte
	switch kind {
	case kindFamily:
		return expireFamily(tx, w, key)
	case kindSessionKeys:
		return expireSessionKeys(tx, w, key)
	case kindLogin:
		return expireLogin(tx, w, key)
	case kindItem:
		bucket = bucketItems
	case kindDenied:
		bucket = bucketDenied
	case kindIdempotency:
		bucket = bucketIdempotency
	case kindCode:
		bucket = bucketCodes
	case kindState:
		bucket = bucketStates
	default:
		return false, time.Time{}, nil
	}
	data := tx.Bucket(bucket).Get(key)
	if data == nil {
		return false, time.Time{}, nil
	}
	if len(data) < 8 {
		return false, time.Time{}, storage.ErrCorrupt
	}
	if expires := micros(data); tx.now.Before(expires) {
		return false, expires, nil
	}
	w.delete(tx, bucket, key)
	return true, time.Time{}, nil
}

func expireFamily(tx txn, w *writes, key []byte) (gone bool, until time.Time, err error) {
	if len(key) != len(storage.FamilyID{}) {
		return false, time.Time{}, nil
	}
	family, found, err := getFamily(tx, storage.FamilyID(key))
	if err != nil || !found {
		return false, time.Time{}, err
	}
	if !family.ExpiredAt(tx.now) {
		return false, familyExpiry(&family), nil
	}
	w.deleteFamily(tx, &family)
	return true, time.Time{}, nil
}

func expireSessionKeys(tx txn, w *writes, key []byte) (gone bool, until time.Time, err error) {
	data := tx.Bucket(bucketSessionKeys).Get(key)
	if data == nil {
		return false, time.Time{}, nil
	}
	keys, err := storage.DecodeSessionKeys(data)
	if err != nil {
		return false, time.Time{}, err
	}
	left, until := storage.ExpireSessionKeys(keys, tx.now)
	switch {
	case len(left) == 0:
		w.delete(tx, bucketSessionKeys, key)
	case len(left) < len(keys):
		w.put(tx, bucketSessionKeys, key, storage.EncodeSessionKeys(left))
	}
	return len(left) < len(keys), until, nil
}

// RunGC deletes expired records until ctx ends, looking every so often. While
// there is a backlog it goes on at once, and leaves the writer to others for
// several times as long as each batch took.
func (s *Store) RunGC(ctx context.Context, every time.Duration) {
	if every <= 0 {
		every = time.Second
	}
	storage.Collect(ctx, s, gcBatch, func() time.Duration { return every }, s.log)
}
