package bolt

import (
	"bytes"
	"testing"
	"time"

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
	if err == nil {
		err = s.db.View(func(btx *bbolt.Tx) error { return checkLogins(t, txn{Tx: btx}) })
	}
	if err != nil {
		t.Error(err)
	}
}

// checkLogins holds the same of all rows about browsers, and that every row
// that expires is looked at no later than that.
func checkLogins(t *testing.T, tx txn) error {
	t.Helper()
	looks := map[string]int64{} // kind and key -> second of the first look
	err := tx.Bucket(bucketExpiry).ForEach(func(entry, _ []byte) error {
		second, kind, key, ok := parseExpiryKey(entry)
		if name := string(kind) + string(key); !ok {
			t.Errorf("expiry entry %x", entry)
		} else if old, seen := looks[name]; !seen || second < old {
			looks[name] = second
		}
		return nil
	})
	if err != nil {
		return err
	}
	look := func(kind byte, key []byte, expires time.Time) {
		if second, ok := looks[string(kind)+string(key)]; !ok || second > expires.Unix()+1 {
			t.Errorf("a row of kind %c that expires at %v is looked at in second %d, %v", kind, expires, second, ok)
		}
	}
	logins, tokens := 0, 0
	err = tx.Bucket(bucketLogins).ForEach(func(id, data []byte) error {
		login, err := storage.DecodeLogin(storage.LoginID(id), data)
		if err != nil {
			return err
		}
		logins++
		key, mark := loginByUserRow(login.UserID, login.ID)
		if got := tx.Bucket(bucketLoginsByUser).Get(key); !bytes.Equal(got, mark) {
			t.Errorf("login session %+v is not found by its user: %x", login, got)
		}
		if !login.Token.IsZero() {
			tokens++
			if got := tx.Bucket(bucketLoginTokens).Get(login.Token[:]); !bytes.Equal(got, id) {
				t.Errorf("login session %+v is not found by its token: %x", login, got)
			}
		}
		look(kindLogin, id, login.ExpiresAt)
		return nil
	})
	if err != nil {
		return err
	}
	if n := tx.Bucket(bucketLoginsByUser).Stats().KeyN; n != logins {
		t.Errorf("%d login sessions by user, want %d", n, logins)
	}
	if n := tx.Bucket(bucketLoginTokens).Stats().KeyN; n != tokens {
		t.Errorf("%d tokens, want %d", n, tokens)
	}
	for kind, bucket := range map[byte][]byte{kindCode: bucketCodes, kindState: bucketStates} {
		err := tx.Bucket(bucket).ForEach(func(key, data []byte) error {
			look(kind, key, micros(data))
			return nil
		})
		if err != nil {
			return err
		}
	}
	due := 0
	err = tx.Bucket(bucketLogouts).ForEach(func(id, data []byte) error {
		notice, err := storage.DecodeLogout(storage.LogoutID(id), data)
		if due++; err == nil && tx.Bucket(bucketLogoutsDue).Get(logoutDueKey(&notice)) == nil {
			t.Errorf("notice %+v is never due", notice)
		}
		return err
	})
	if err != nil {
		return err
	}
	if n := tx.Bucket(bucketLogoutsDue).Stats().KeyN; n != due {
		t.Errorf("%d notices are due some time, want %d", n, due)
	}
	return tx.Bucket(bucketConsents).ForEach(func(id, data []byte) error {
		user, found, err := getUser(tx, string(id))
		if err != nil || !found || user.Retired {
			t.Errorf("consents of user %s: found %v, %+v, %v", id, found, user, err)
		}
		list, err := storage.DecodeConsents(data)
		if len(list) == 0 {
			t.Error("a row of no consents")
		}
		return err
	})
}
