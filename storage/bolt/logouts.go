package bolt

import (
	"context"

	"github.com/wxidp/wxidp/storage"
)

// DueLogouts returns logout notices whose time has come.
func (s *Store) DueLogouts(ctx context.Context, limit int) (due []storage.LogoutNotice, err error) {
	limit = storage.PageSize(limit)
	err = s.read(ctx, func(tx txn) error {
		cursor := tx.Bucket(bucketLogoutsDue).Cursor()
		for key, _ := cursor.First(); key != nil && len(due) < limit; key, _ = cursor.Next() {
			if len(key) != 8+len(storage.LogoutID{}) {
				return storage.ErrCorrupt
			}
			if tx.now.Before(micros(key)) {
				return nil
			}
			// A damaged one must not keep all others from being delivered.
			notice, found, err := getLogout(tx, storage.LogoutID(key[8:]))
			if found && err == nil {
				due = append(due, notice)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return due, nil
}

// SettleLogouts removes notices whose Next is zero and puts the others off.
// Those that were removed meanwhile stay so.
func (s *Store) SettleLogouts(ctx context.Context, notices []storage.LogoutNotice) error {
	if len(notices) > storage.MaxPage {
		return storage.ErrTooLarge
	}
	return s.write(ctx, func(tx txn) (bool, error) {
		var old, changed []storage.LogoutNotice
		for i := range notices {
			stored, found, err := getLogout(tx, notices[i].ID)
			if err != nil {
				return false, err
			}
			if !found {
				continue
			}
			old = append(old, stored)
			stored.Next, stored.Attempts = storage.RoundTime(notices[i].Next), notices[i].Attempts
			changed = append(changed, stored)
		}
		var w writes
		for i := range old {
			w.delete(tx, bucketLogoutsDue, logoutDueKey(&old[i]))
			if changed[i].Next.IsZero() {
				w.delete(tx, bucketLogouts, old[i].ID[:])
			} else {
				w.putLogout(tx, &changed[i])
			}
		}
		return len(old) > 0, w.err
	})
}

// QueueLogouts adds notices that are due at once. An ID or an EndedAt that is
// zero is filled in; a notice whose ID is there already stays as it is.
func (s *Store) QueueLogouts(ctx context.Context, notices []storage.LogoutNotice) error {
	if len(notices) > storage.MaxPage {
		return storage.ErrTooLarge
	}
	for i := range notices {
		if len(storage.EncodeLogout(&notices[i])) > storage.MaxValueSize {
			return storage.ErrTooLarge
		}
	}
	return s.write(ctx, func(tx txn) (bool, error) {
		left, err := leftLogins(tx, notices)
		if err != nil {
			return false, err
		}
		var w writes
		for id, login := range left {
			w.put(tx, bucketLogins, id[:], storage.EncodeLogin(login))
		}
		wrote := len(left) > 0
		for _, n := range notices {
			if n.ID.IsZero() {
				n.ID = storage.NewLogoutID()
			} else if tx.Bucket(bucketLogouts).Get(n.ID[:]) != nil {
				continue
			}
			wrote = true
			if n.EndedAt.IsZero() {
				n.EndedAt = tx.now
			}
			n.Next = storage.RoundTime(tx.now)
			w.putLogout(tx, &n)
		}
		return wrote, w.err
	})
}

// leftLogins returns the login sessions that the families of notices were
// participants of, without them.
func leftLogins(tx txn, notices []storage.LogoutNotice) (map[storage.LoginID]*storage.LoginRecord, error) {
	read, left := map[storage.LoginID]*storage.LoginRecord{}, map[storage.LoginID]*storage.LoginRecord{}
	for i := range notices {
		family, found, err := getFamily(tx, notices[i].FamilyID)
		if err != nil {
			return nil, err
		}
		if !found || family.LoginID.IsZero() {
			continue
		}
		login := read[family.LoginID]
		if login == nil {
			record, found, err := getLogin(tx, family.LoginID)
			if err != nil {
				return nil, err
			}
			if !found {
				continue
			}
			login = &record
			read[family.LoginID] = login
		}
		if login.Leave(family.ID) {
			left[family.LoginID] = login
		}
	}
	return left, nil
}

func (w *writes) putLogout(tx txn, n *storage.LogoutNotice) {
	w.put(tx, bucketLogouts, n.ID[:], storage.EncodeLogout(n))
	w.put(tx, bucketLogoutsDue, logoutDueKey(n), nil)
}

// logoutDueKey orders notices by when they are due.
func logoutDueKey(n *storage.LogoutNotice) []byte {
	return append(appendMicros(make([]byte, 0, 8+len(n.ID)), n.Next), n.ID[:]...)
}

func getLogout(tx txn, id storage.LogoutID) (notice storage.LogoutNotice, found bool, err error) {
	data := tx.Bucket(bucketLogouts).Get(id[:])
	if data == nil {
		return notice, false, nil
	}
	notice, err = storage.DecodeLogout(id, data)
	return notice, err == nil, err
}
