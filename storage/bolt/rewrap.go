package bolt

import (
	"bytes"
	"context"
	"fmt"

	"github.com/wxidp/wxidp/storage"
)

// Rewrap looks at up to limit users after the cursor and re-seals those keys
// that are not under the first master key; a run without a cursor begins with
// the vault's own key.
func (s *Store) Rewrap(ctx context.Context, after string, limit int) (rewrapped int, next string, err error) {
	if after == "" {
		if rewrapped, err = storage.RewrapVault(ctx, s, s.vault); err != nil {
			return 0, "", err
		}
	}
	type change struct{ id, old, new []byte }
	limit = storage.PageSize(limit)
	var changes []change
	err = s.read(ctx, func(tx txn) error {
		cursor := tx.Bucket(bucketUsers).Cursor()
		key, data := cursor.Seek([]byte(after))
		if after != "" && string(key) == after {
			key, data = cursor.Next()
		}
		last := ""
		for n := 0; key != nil; n++ {
			if n == limit {
				next = last
				break
			}
			user, err := storage.DecodeUser(data)
			if err != nil {
				return err
			}
			sealed, err := s.vault.RewrapUserKey(string(key), user.Key)
			if err != nil {
				return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
			}
			if sealed != nil {
				changes = append(changes, change{bytes.Clone(key), bytes.Clone(user.Key), sealed})
			}
			last = string(key)
			key, data = cursor.Next()
		}
		return nil
	})
	if err != nil {
		return 0, "", err
	}
	if len(changes) == 0 {
		return rewrapped, next, nil
	}
	done := 0
	err = s.write(ctx, func(tx txn) (bool, error) {
		done = 0
		var w writes
		for _, c := range changes {
			user, found, err := getUser(tx, string(c.id))
			if err != nil {
				return done > 0, err
			}
			if !found || !bytes.Equal(user.Key, c.old) {
				continue // gone or changed meanwhile
			}
			user.Key = c.new
			w.put(tx, bucketUsers, c.id, storage.EncodeUser(&user))
			done++
		}
		return done > 0, w.err
	})
	if err != nil {
		return 0, "", err
	}
	return rewrapped + done, next, nil
}
