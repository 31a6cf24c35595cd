package bolt

import (
	"bytes"
	"context"

	"github.com/wxidp/wxidp/storage"
)

// How many rows a look for the newest families of a user takes: of the part of
// the index, and of families of the user that have ended.
const (
	maxRecentScan  = 4 * maxScan
	maxRecentEnded = 10_000
)

// RecentFamilies lists the live families of a user, newest first.
func (s *Store) RecentFamilies(ctx context.Context, userID string, limit int) (recent []storage.Family, err error) {
	limit = storage.PageSize(limit)
	err = s.read(ctx, func(tx txn) error {
		seen := newSeenParties()
		ended := 0
		return eachNewest(tx, bucketByUser, userID, maxRecentScan, func(id storage.FamilyID) (enough bool, err error) {
			family, found, err := seen.family(tx, id)
			if err != nil {
				return false, err
			}
			if found && family.UserID == userID && family.RevokedAt.IsZero() && !family.ExpiredAt(tx.now) {
				recent = append(recent, family)
			} else {
				ended++
			}
			return len(recent) == limit || ended == maxRecentEnded, nil
		})
	})
	if err != nil {
		return nil, err
	}
	return recent, nil
}

// eachNewest visits the ids that an index of families or login sessions by
// user has for a user, newest first, until one is enough. It looks at up to
// rows rows. What it visits may be another user's, but rarely is.
func eachNewest(tx txn, index []byte, userID string, rows int, visit func(id storage.FamilyID) (enough bool, err error)) error {
	shard, mark := userShard(userID)
	cursor := tx.Bucket(index).Cursor()
	previous := cursor.Prev
	if key, _ := cursor.Seek([]byte{shard + 1}); key == nil {
		previous = cursor.Last
	}
	key, value := previous()
	for ; key != nil && key[0] == shard && rows > 0; rows-- {
		if len(key) != 1+len(storage.FamilyID{}) {
			return storage.ErrCorrupt
		}
		if bytes.Equal(value, mark) {
			if enough, err := visit(storage.FamilyID(key[1:])); err != nil || enough {
				return err
			}
		}
		key, value = cursor.Prev()
	}
	return nil
}
