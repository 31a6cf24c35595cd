package bolt

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/wxidp/wxidp/storage"
)

var _ storage.Movable = (*Store)(nil)

// movedBuckets have the rows of each kind; those of index keys are in
// ownerBuckets. Every other bucket follows from these.
var movedBuckets = map[storage.RowKind][]byte{
	storage.RowRecord:      bucketRecords,
	storage.RowClient:      bucketClients,
	storage.RowUser:        bucketUsers,
	storage.RowIdentity:    bucketIdentities,
	storage.RowSessionKeys: bucketSessionKeys,
	storage.RowConsents:    bucketConsents,
	storage.RowFamily:      bucketFamilies,
	storage.RowLogin:       bucketLogins,
	storage.RowCode:        bucketCodes,
	storage.RowIdempotency: bucketIdempotency,
	storage.RowItem:        bucketItems,
	storage.RowDeniedJTI:   bucketDenied,
	storage.RowState:       bucketStates,
	storage.RowLogout:      bucketLogouts,
}

// movedPart is a bucket with rows of one kind, and what its keys begin with as
// those of rows.
type movedPart struct {
	prefix []byte
	bucket []byte
}

// movedParts returns the buckets of a kind in the order of its rows' keys.
func movedParts(kind storage.RowKind) []movedPart {
	if kind != storage.RowOwner {
		if bucket := movedBuckets[kind]; bucket != nil {
			return []movedPart{{bucket: bucket}}
		}
		return nil
	}
	parts := make([]movedPart, 0, len(ownerBuckets))
	for owner, bucket := range ownerBuckets {
		parts = append(parts, movedPart{[]byte{byte(owner)}, bucket})
	}
	slices.SortFunc(parts, func(a, b movedPart) int { return bytes.Compare(a.prefix, b.prefix) })
	return parts
}

// ExportRows returns rows of one kind in the order of their keys.
func (s *Store) ExportRows(ctx context.Context, kind storage.RowKind, after []byte, limit int) (rows []storage.Row, next []byte, err error) {
	if limit < 1 || limit > storage.MaxRows {
		limit = storage.MaxRows
	}
	full, own := false, storage.OwnRecords()
	err = s.read(ctx, func(tx txn) error {
		size := 0
		for _, part := range movedParts(kind) {
			n := len(part.prefix)
			if len(after) >= n && bytes.Compare(part.prefix, after[:n]) < 0 {
				continue // all of it lies before
			}
			var start []byte
			if bytes.HasPrefix(after, part.prefix) {
				start = after[n:]
			}
			cursor := tx.Bucket(part.bucket).Cursor()
			key, value := cursor.Seek(start)
			if len(start) > 0 && bytes.Equal(key, start) {
				key, value = cursor.Next()
			}
			for ; key != nil; key, value = cursor.Next() {
				if kind == storage.RowRecord && slices.Contains(own, string(key)) {
					continue
				}
				if full = len(rows) == limit || size >= storage.MaxRowBytes; full {
					return nil
				}
				data := append(append(append(make([]byte, 0, n+len(key)+len(value)), part.prefix...), key...), value...)
				end := n + len(key)
				rows = append(rows, storage.Row{Kind: kind, Key: data[:end:end], Value: data[end:]})
				size += len(data)
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if full {
		next = rows[len(rows)-1].Key
	}
	return rows, next, nil
}

// CountRows returns how many rows of a kind there are.
func (s *Store) CountRows(ctx context.Context, kind storage.RowKind) (n int64, err error) {
	err = s.read(ctx, func(tx txn) error {
		for _, part := range movedParts(kind) {
			n += int64(tx.Bucket(part.bucket).Stats().KeyN)
		}
		for _, name := range storage.OwnRecords() {
			if kind == storage.RowRecord && tx.Bucket(bucketRecords).Get([]byte(name)) != nil {
				n--
			}
		}
		return nil
	})
	return n, err
}

// rawPut is one row of a bucket that an import puts.
type rawPut struct{ bucket, key, value []byte }

// ImportRows stores rows as they are, with the rows of other buckets that
// follow from them. In the order of buckets and keys bbolt meets every page
// once.
func (s *Store) ImportRows(ctx context.Context, rows []storage.Row) error {
	if len(rows) > storage.MaxRows {
		return storage.ErrTooLarge
	}
	moved := make([]importedRow, 0, len(rows))
	for _, row := range rows {
		imported, err := newImportedRow(row)
		if err != nil {
			return err
		}
		moved = append(moved, imported)
	}
	slices.SortStableFunc(moved, func(a, b importedRow) int {
		return cmp.Or(bytes.Compare(a.bucket, b.bucket), bytes.Compare(a.key, b.key))
	})
	return s.write(ctx, func(tx txn) (bool, error) {
		var w writes
		puts := make([]rawPut, 0, 3*len(moved))
		for i := range moved {
			row := &moved[i]
			if i+1 < len(moved) && bytes.Equal(moved[i+1].key, row.key) && bytes.Equal(moved[i+1].bucket, row.bucket) {
				continue // another one of that key follows
			}
			old := tx.Bucket(row.bucket).Get(row.key)
			if old != nil && bytes.Equal(old, row.value) {
				continue // with all that follows from it
			}
			if old != nil {
				w.withdraw(tx, row.Row, old)
			}
			puts = append(append(puts, rawPut{row.bucket, row.key, row.value}), row.follow...)
		}
		slices.SortFunc(puts, func(a, b rawPut) int {
			return cmp.Or(bytes.Compare(a.bucket, b.bucket), bytes.Compare(a.key, b.key))
		})
		for _, p := range puts {
			tx.Bucket(p.bucket).FillPercent = 0.9 // keys that follow on each other leave no gaps to be filled later
			w.put(tx, p.bucket, p.key, p.value)
		}
		return len(puts) > 0, w.err
	})
}

// importedRow is a row with its place, and the rows that follow from it.
type importedRow struct {
	storage.Row
	bucket, key, value []byte
	follow             []rawPut
}

func newImportedRow(row storage.Row) (importedRow, error) {
	content, err := row.Decode()
	if err != nil {
		return importedRow{}, err
	}
	r := importedRow{Row: row, bucket: movedBuckets[row.Kind], key: row.Key, value: row.Value}
	if row.Kind == storage.RowOwner {
		r.bucket, r.key = ownerBuckets[storage.IndexKind(content.Sub)], row.Key[1:]
	}
	r.follow = followers(row, &content)
	return r, nil
}

// followers returns the rows of other buckets that lead to a row.
func followers(row storage.Row, c *storage.RowContent) []rawPut {
	look := func(at time.Time, kind byte) rawPut { return rawPut{bucketExpiry, expiryKey(at, kind, row.Key), nil} }
	switch row.Kind {
	case storage.RowSessionKeys:
		_, next := storage.ExpireSessionKeys(c.SessionKeys, time.Time{}) // all of them
		return []rawPut{look(next, kindSessionKeys)}
	case storage.RowFamily:
		key, mark := byUserRow(c.Family.UserID, c.Family.ID)
		return []rawPut{{bucketByUser, key, mark}, look(familyExpiry(&c.Family), kindFamily)}
	case storage.RowLogin:
		key, mark := loginByUserRow(c.Login.UserID, c.Login.ID)
		follow := []rawPut{{bucketLoginsByUser, key, mark}, look(c.Login.Expiry(), kindLogin)}
		if !c.Login.Token.IsZero() {
			follow = append(follow, rawPut{bucketLoginTokens, c.Login.Token[:], row.Key})
		}
		return follow
	case storage.RowCode:
		return []rawPut{look(c.Code.KeepUntil, kindCode)}
	case storage.RowIdempotency:
		return []rawPut{look(c.Idempotency.ExpiresAt, kindIdempotency)}
	case storage.RowItem:
		return []rawPut{look(c.Item.ExpiresAt, kindItem)}
	case storage.RowDeniedJTI:
		return []rawPut{look(c.Denied, kindDenied)}
	case storage.RowState:
		return []rawPut{look(c.State.ExpiresAt, kindState)}
	case storage.RowLogout:
		return []rawPut{{bucketLogoutsDue, logoutDueKey(&c.Logout), nil}}
	}
	return nil
}

// withdraw deletes what leads to a row that is about to be replaced.
func (w *writes) withdraw(tx txn, row storage.Row, old []byte) {
	row.Value = old
	content, err := row.Decode()
	if err != nil {
		return // nobody was led to it
	}
	for _, p := range followers(row, &content) {
		if !bytes.Equal(p.bucket, bucketLoginTokens) || bytes.Equal(tx.Bucket(p.bucket).Get(p.key), row.Key) {
			w.delete(tx, p.bucket, bytes.Clone(p.key))
		}
	}
}
