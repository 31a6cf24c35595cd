package bolt

import (
	"testing"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxidp/wxidp/storage"
)

// checkPeople holds that all rows about people fit together: every index leads
// to a user who knows of it, and the other way round; tombstones have nothing.
func checkPeople(t *testing.T, store storage.Store) {
	t.Helper()
	s := store.(*Store)
	err := s.db.View(func(btx *bbolt.Tx) error {
		tx := txn{Tx: btx}
		owners, identities := map[string]string{}, 0
		err := tx.Bucket(bucketUsers).ForEach(func(id, data []byte) error {
			user, err := storage.DecodeUser(data)
			if err != nil {
				return err
			}
			if user.Retired && (len(user.Key)+len(user.Profile)+len(user.Identities)+len(user.Password)+len(user.Attributes) > 0 ||
				!user.Username.IsZero() || !user.Phone.IsZero() || !user.ExternalID.IsZero()) {
				t.Errorf("a tombstone has something left: %+v", user)
			}
			for bucket, handle := range map[string]storage.Handle{
				string(bucketUsernames): user.Username, string(bucketPhones): user.Phone, string(bucketExternalIDs): user.ExternalID,
			} {
				if !handle.IsZero() {
					owners[bucket+string(handle.Index[:])] = string(id)
				}
			}
			for i := range user.Identities.Len() {
				identities++
				identity, found, err := getIdentity(tx, user.Identities.At(i))
				if err != nil || !found || identity.UserID != string(id) {
					t.Errorf("identity of user %s: found %v, %+v, %v", id, found, identity, err)
				}
				if !identity.Union.IsZero() {
					owners[string(bucketUnionIDs)+string(identity.Union[:])] = string(id)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if n := tx.Bucket(bucketIdentities).Stats().KeyN; n != identities {
			t.Errorf("%d identities, and users have %d", n, identities)
		}
		rows := 0
		for _, bucket := range ownerBuckets {
			err := tx.Bucket(bucket).ForEach(func(key, id []byte) error {
				rows++
				if owners[string(bucket)+string(key)] != string(id) {
					t.Errorf("a row of %s leads to %s, want %q", bucket, id, owners[string(bucket)+string(key)])
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if rows != len(owners) {
			t.Errorf("%d index rows, want %d", rows, len(owners))
		}
		return tx.Bucket(bucketSessionKeys).ForEach(func(key, _ []byte) error {
			if tx.Bucket(bucketIdentities).Get(key) == nil {
				t.Error("session_keys of no identity")
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
}
