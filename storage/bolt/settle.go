package bolt

import (
	"bytes"
	"context"

	"github.com/wxidp/wxidp/storage"
)

// restoredKinds are the records that EndRestored looks at, in this order. end
// ends one of them, unless it has ended already; a record that cannot be read
// is good for nothing and stays.
var restoredKinds = [...]struct {
	bucket []byte
	signIn bool // ended only with all sign-ins
	end    func(tx txn, w *writes, key, value []byte, step *storage.RestoreStep) (storage.RestoreCounts, error)
}{
	{bucketFamilies, true, endRestoredFamily},
	{bucketLogins, true, endRestoredLogin},
	{bucketCodes, false, endRestoredCode},
	{bucketItems, false, endRestoredItem},
	{bucketStates, false, dropRestored(bucketStates)},
	{bucketIdempotency, false, dropRestored(bucketIdempotency)},
}

// EndRestored ends what must not come to life again with restored data. Of
// what is deleted the entries in the expiry bucket stay, and lead to nothing.
func (s *Store) EndRestored(ctx context.Context, step storage.RestoreStep) (res storage.RestoreStepResult, err error) {
	kind, after, err := storage.ParseRestoreCursor(step.Cursor, len(restoredKinds))
	if err != nil {
		return res, err
	}
	err = s.write(ctx, func(tx txn) (bool, error) {
		res = storage.RestoreStepResult{}
		_, version, err := getRecord(tx, storage.RestoredRecord)
		if err != nil || version != step.Version {
			res.Superseded = err == nil
			return false, err
		}
		var w writes
		res.RestoreCounts, res.Next, err = endRestored(tx, &w, &step, kind, after)
		if err == nil {
			err = w.err
		}
		return res.RestoreCounts != storage.RestoreCounts{}, err
	})
	if err != nil {
		return storage.RestoreStepResult{}, err
	}
	return res, nil
}

func endRestored(
	tx txn, w *writes, step *storage.RestoreStep, kind int, after []byte,
) (counts storage.RestoreCounts, next string, err error) {
	for left := storage.PageSize(step.Limit); kind < len(restoredKinds); kind, after = kind+1, nil {
		k := &restoredKinds[kind]
		if k.signIn && !step.RevokeAll {
			continue
		}
		rows := nextRows(tx, k.bucket, after, left)
		for _, row := range rows {
			n, err := k.end(tx, w, []byte(row.key), row.value, step)
			if err != nil {
				return counts, "", err
			}
			counts.Families, counts.Logins, counts.Others = counts.Families+n.Families, counts.Logins+n.Logins, counts.Others+n.Others
		}
		if left -= len(rows); left == 0 {
			return counts, storage.RestoreCursor(kind, []byte(rows[len(rows)-1].key)), nil
		}
	}
	return counts, "", nil
}

// nextRows returns copies of the rows behind a key, which is nil for the
// beginning.
func nextRows(tx txn, bucket, after []byte, limit int) (rows []copiedRow) {
	cursor := tx.Bucket(bucket).Cursor()
	key, value := cursor.Seek(after)
	if after != nil && bytes.Equal(key, after) {
		key, value = cursor.Next()
	}
	for ; key != nil && len(rows) < limit; key, value = cursor.Next() {
		rows = append(rows, copyOf(string(bucket), string(key), value))
	}
	return rows
}

func endRestoredFamily(tx txn, w *writes, key, value []byte, _ *storage.RestoreStep) (n storage.RestoreCounts, err error) {
	if len(key) != len(storage.FamilyID{}) {
		return n, nil
	}
	family, err := storage.DecodeFamily(storage.FamilyID(key), value)
	if err != nil || family.ExpiredAt(tx.now) {
		return n, nil
	}
	parties, err := getParties(tx, &family)
	if err != nil {
		return n, err
	}
	if seen := parties.Overlay(family); !seen.RevokedAt.IsZero() {
		return n, nil
	}
	family.RevokedAt, family.RevokedFor = storage.RoundTime(tx.now), storage.RevokedForRestore
	w.put(tx, bucketFamilies, key, storage.EncodeFamily(&family))
	n.Families++
	return n, nil
}

func endRestoredLogin(tx txn, w *writes, key, value []byte, step *storage.RestoreStep) (n storage.RestoreCounts, err error) {
	if len(key) != len(storage.LoginID{}) {
		return n, nil
	}
	login, err := storage.DecodeLogin(storage.LoginID(key), value)
	if err != nil || !login.EndedAt.IsZero() {
		return n, nil
	}
	change := storage.LoginChange{Was: &login, Is: login}
	notices := change.Is.End(tx.now, step.Notify)
	change.Data = storage.EncodeLogin(&change.Is)
	w.changeLogin(tx, &change)
	for i := range notices {
		w.putLogout(tx, &notices[i])
	}
	n.Logins++
	return n, nil
}

// endRestoredCode keeps a used code: it still tells a replay.
func endRestoredCode(tx txn, w *writes, key, _ []byte, _ *storage.RestoreStep) (n storage.RestoreCounts, err error) {
	if len(key) != len(storage.Digest{}) {
		return n, nil
	}
	code, found, err := getCode(tx, storage.Digest(key))
	if err != nil || !found || code.Used {
		return n, nil
	}
	w.delete(tx, bucketCodes, key)
	n.Others++
	return n, nil
}

// endRestoredItem keeps the key taken, as for one that was consumed.
func endRestoredItem(tx txn, w *writes, key, _ []byte, _ *storage.RestoreStep) (n storage.RestoreCounts, err error) {
	if len(key) != len(storage.Digest{}) {
		return n, nil
	}
	item, found, err := getItem(tx, storage.Digest(key))
	if err != nil || !found || item.Used {
		return n, nil
	}
	w.put(tx, bucketItems, key, storage.EncodeItem(&storage.ItemRecord{ExpiresAt: item.ExpiresAt, Used: true}))
	n.Others++
	return n, nil
}

func dropRestored(bucket []byte) func(txn, *writes, []byte, []byte, *storage.RestoreStep) (storage.RestoreCounts, error) {
	return func(tx txn, w *writes, key, _ []byte, _ *storage.RestoreStep) (storage.RestoreCounts, error) {
		w.delete(tx, bucket, key)
		return storage.RestoreCounts{Others: 1}, nil
	}
}
