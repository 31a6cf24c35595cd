package bolt

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// writes collects the first error of several puts, which bbolt returns only
// for keys and values of impossible form.
type writes struct{ err error }

func (w *writes) put(tx txn, bucket, key, value []byte) {
	if w.err == nil {
		w.err = put(tx, bucket, key, value)
	}
}

func (w *writes) delete(tx txn, bucket, key []byte) {
	if w.err != nil {
		return
	}
	tx.note(bucket, key)
	if err := tx.Bucket(bucket).Delete(key); err != nil {
		w.err = fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
}

func put(tx txn, bucket, key, value []byte) error {
	tx.note(bucket, key)
	if err := tx.Bucket(bucket).Put(key, value); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	return nil
}

// note tells a copy under way that a row may change.
func (tx txn) note(bucket, key []byte) {
	if tx.changed != nil {
		tx.changed[rowName{string(bucket), string(key)}] = struct{}{}
	}
}

// expire notes when to look whether a record has expired.
func (w *writes) expire(tx txn, at time.Time, kind byte, key []byte) {
	w.put(tx, bucketExpiry, expiryKey(at, kind, key), nil)
}

// The kinds of records that expire.
const (
	kindFamily      byte = 'f'
	kindItem        byte = 'i'
	kindDenied      byte = 'd'
	kindIdempotency byte = 'p'
	kindSessionKeys byte = 's'
	kindLogin       byte = 'l'
	kindCode        byte = 'c'
	kindState       byte = 't'
)

// expiryKey orders records by the first full second at which they are expired.
func expiryKey(at time.Time, kind byte, key []byte) []byte {
	second := at.Unix()
	if at.Nanosecond() > 0 {
		second++
	}
	b := make([]byte, 0, 9+len(key))
	b = binary.BigEndian.AppendUint64(b, uint64(max(second, 0)))
	return append(append(b, kind), key...)
}

func parseExpiryKey(b []byte) (second int64, kind byte, key []byte, ok bool) {
	if len(b) < 10 {
		return 0, 0, nil, false
	}
	return int64(binary.BigEndian.Uint64(b)), b[8], b[9:], true
}

func familyExpiry(f *storage.Family) time.Time {
	if f.IdleExpiresAt.Before(f.ExpiresAt) {
		return f.IdleExpiresAt
	}
	return f.ExpiresAt
}

// shards is the number of parts that the index of families by user has.
//
// Rows in the order of users would put every sign-in on a page of its own,
// which would cost more than all the rest of it. In a shard rows are in the
// order of family ids, that of time, so that concurrent sign-ins meet on a few
// pages; a listing reads one shard.
const shards = 16

// byUserRow is the row that finds a family by its user.
func byUserRow(userID string, id storage.FamilyID) (key, value []byte) {
	shard, mark := userShard(userID)
	return append([]byte{shard}, id[:]...), mark
}

// userShard returns the shard of a user, and what marks the user's rows there.
// Another user's rows may bear the same mark.
func userShard(userID string) (shard byte, mark []byte) {
	sum := sha256.Sum256([]byte(userID))
	return sum[0] % shards, sum[1:9]
}

func getUser(tx txn, id string) (user storage.UserRecord, found bool, err error) {
	data := tx.Bucket(bucketUsers).Get([]byte(id))
	if data == nil {
		return user, false, nil
	}
	user, err = storage.DecodeUser(data)
	return user, err == nil, err
}

func getUserState(tx txn, id string) (storage.UserState, error) {
	user, found, err := getUser(tx, id)
	if err != nil || !found {
		return storage.UserState{}, err
	}
	return user.State(), nil
}

func getFamily(tx txn, id storage.FamilyID) (family storage.Family, found bool, err error) {
	data := tx.Bucket(bucketFamilies).Get(id[:])
	if data == nil {
		return family, false, nil
	}
	family, err = storage.DecodeFamily(id, data)
	return family, err == nil, err
}

func getIdempotency(tx txn, key storage.Digest) (kept storage.KeptIdempotency, found bool, err error) {
	return decoded(tx, bucketIdempotency, key[:], storage.DecodeIdempotency)
}

// getItem returns a single-use item. Its value is borrowed from the
// transaction.
func getItem(tx txn, key storage.Digest) (item storage.ItemRecord, found bool, err error) {
	return decoded(tx, bucketItems, key[:], storage.DecodeItem)
}

func getDenied(tx txn, key storage.Digest) (until time.Time, err error) {
	until, _, err = decoded(tx, bucketDenied, key[:], storage.DecodeDenied)
	return until, err
}

// getRecord returns a copy of a versioned document.
func getRecord(tx txn, name string) (value []byte, version uint64, err error) {
	document, _, err := decoded(tx, bucketRecords, []byte(name), storage.DecodeDocument)
	return bytes.Clone(document.Value), document.Version, err
}

// decoded returns what a bucket has under a key.
func decoded[T any](tx txn, bucket, key []byte, decode func([]byte) (T, error)) (record T, found bool, err error) {
	data := tx.Bucket(bucket).Get(key)
	if data == nil {
		return record, false, nil
	}
	record, err = decode(data)
	return record, err == nil, err
}

func appendMicros(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixMicro()))
}

func micros(b []byte) time.Time {
	return time.UnixMicro(int64(binary.BigEndian.Uint64(b))).UTC()
}
