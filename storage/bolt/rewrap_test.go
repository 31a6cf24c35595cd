package bolt

import (
	"fmt"
	"slices"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

func parseRing(t *testing.T, keys string) *seal.Keyring {
	t.Helper()
	ring, err := seal.ParseKeyring([]byte(keys))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func TestRewrapMovesEverythingToTheFirstMasterKey(t *testing.T) {
	oldKey, newKey := seal.GenerateKey(), seal.GenerateKey()
	path := newPath(t)
	s, err := Open(t.Context(), Options{Path: path, Keyring: parseRing(t, oldKey)})
	if err != nil {
		t.Fatal(err)
	}
	const n = 25
	var results []storage.SignInResult
	for i := range n {
		res, err := s.SignIn(t.Context(), signInRequest(fmt.Sprint("o", i)))
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, res)
	}
	erased, err := s.SignIn(t.Context(), signInRequest("erased")) // leaves nothing to be sealed
	if err != nil {
		t.Fatal(err)
	}
	if found, err := s.Erase(t.Context(), erased.UserID); !found || err != nil {
		t.Fatal(found, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s, err = Open(t.Context(), Options{Path: path, Keyring: parseRing(t, newKey+"\n"+oldKey)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SignIn(t.Context(), signInRequest("new while both keys are there")); err != nil {
		t.Fatal(err)
	}
	total, calls, after := 0, 0, ""
	for {
		rewrapped, next, err := s.Rewrap(t.Context(), after, 10)
		if err != nil {
			t.Fatal(err)
		}
		if rewrapped > 11 {
			t.Errorf("one call re-sealed %d values", rewrapped)
		}
		total, calls, after = total+rewrapped, calls+1, next
		if next == "" {
			break
		}
	}
	if total != n+1 || calls != 3 {
		t.Errorf("%d values in %d calls, want %d users and the index key", total, calls, n)
	}
	if rewrapped, _, err := s.Rewrap(t.Context(), "", 1000); err != nil || rewrapped != 0 {
		t.Errorf("again: %d, %v", rewrapped, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = openStore(t, Options{Path: path, Keyring: parseRing(t, newKey)}) // the old key is gone
	if user, err := s.User(t.Context(), erased.UserID); err != nil || !user.Retired {
		t.Errorf("erased user %+v, %v", user, err)
	}
	for i, res := range results {
		user, err := s.User(t.Context(), res.UserID)
		if err != nil || user.Profile != signInRequest("").NewProfile {
			t.Fatalf("user %d: %+v, %v", i, user, err)
		}
		identity, err := s.Identity(t.Context(), res.Family.Identity)
		if err != nil || identity.WeChatOpenID != fmt.Sprint("o", i) {
			t.Fatalf("identity %d: %+v, %v", i, identity, err)
		}
		again, err := s.SignIn(t.Context(), signInRequest(fmt.Sprint("o", i)))
		if err != nil || again.UserID != res.UserID {
			t.Fatalf("sign-in %d: %+v, %v", i, again, err)
		}
	}
}

// A sealed value opens only in its own row.
func TestThreat67SwappedRowsDoNotOpen(t *testing.T) {
	s := openStore(t, Options{})
	a, err := s.SignIn(t.Context(), signInRequest("o1"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.SignIn(t.Context(), signInRequest("o2"))
	if err != nil {
		t.Fatal(err)
	}
	err = s.write(t.Context(), func(tx txn) (bool, error) {
		var w writes
		for _, rows := range [][3][]byte{
			{bucketUsers, []byte(a.UserID), []byte(b.UserID)},
			{bucketIdentities, a.Family.Identity[:], b.Family.Identity[:]},
		} {
			one := slices.Clone(tx.Bucket(rows[0]).Get(rows[1]))
			two := slices.Clone(tx.Bucket(rows[0]).Get(rows[2]))
			w.put(tx, rows[0], rows[1], two)
			w.put(tx, rows[0], rows[2], one)
		}
		return true, w.err
	})
	if err != nil {
		t.Fatal(err)
	}
	if user, err := s.User(t.Context(), a.UserID); err == nil {
		t.Errorf("a user opened in another's row: %+v", user)
	}
	if identity, err := s.Identity(t.Context(), a.Family.Identity); err == nil {
		t.Errorf("an identity opened in another's row: %+v", identity)
	}
}

// The values of an account open only in their own user's row, and a
// session_key only in its own identity's.
func TestThreat67SwappedAccountsDoNotOpen(t *testing.T) {
	s := openStore(t, Options{})
	account := func(n int) (userID string, identity storage.Digest) {
		t.Helper()
		res, err := s.CreateAccount(t.Context(), storage.NewAccount{Username: fmt.Sprint("name", n), PasswordHash: fmt.Sprint("hash", n)})
		must(t, err)
		in := signInRequest(fmt.Sprint("o", n))
		in.Bind = &storage.Binding{UserID: res.UserID}
		in.Phone = &storage.PhoneProof{E164: fmt.Sprint("+861380013800", n)}
		in.SessionKey, in.SessionKeyLifetime = secret.New(fmt.Sprint("key", n)), time.Hour
		signedIn, err := s.SignIn(t.Context(), in)
		must(t, err)
		return res.UserID, signedIn.Family.Identity
	}
	a, identityA := account(1)
	b, identityB := account(2)
	for name, change := range map[string]func(one, two *storage.UserRecord){
		"username": func(one, two *storage.UserRecord) { one.Username.Sealed = two.Username.Sealed },
		"phone":    func(one, two *storage.UserRecord) { one.Phone.Sealed = two.Phone.Sealed },
		"password": func(one, two *storage.UserRecord) { one.Password = two.Password },
		"key":      func(one, two *storage.UserRecord) { one.Key = two.Key },
		"kind":     func(one, _ *storage.UserRecord) { one.Phone.Sealed = one.Username.Sealed },
	} {
		var saved []byte
		must(t, s.write(t.Context(), func(tx txn) (bool, error) {
			saved = slices.Clone(tx.Bucket(bucketUsers).Get([]byte(a)))
			one, _, err := getUser(tx, a)
			must(t, err)
			two, _, err := getUser(tx, b)
			must(t, err)
			change(&one, &two)
			return true, put(tx, bucketUsers, []byte(a), storage.EncodeUser(&one))
		}))
		_, errUser := s.User(t.Context(), a)
		_, errAccount := s.AccountByUsername(t.Context(), "name1")
		if errUser == nil && errAccount == nil {
			t.Errorf("%s: opened in another's place", name)
		}
		must(t, s.write(t.Context(), func(tx txn) (bool, error) { return true, put(tx, bucketUsers, []byte(a), saved) }))
	}
	must(t, s.write(t.Context(), func(tx txn) (bool, error) {
		return true, put(tx, bucketSessionKeys, identityA[:], slices.Clone(tx.Bucket(bucketSessionKeys).Get(identityB[:])))
	}))
	if keys, err := s.SessionKeys(t.Context(), identityA); err == nil {
		t.Errorf("another's session_keys opened: %v", keys)
	}
}

// dumpRows returns all rows, by bucket.
func dumpRows(t *testing.T, s *Store) map[string]map[string]string {
	t.Helper()
	dump := map[string]map[string]string{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			rows := map[string]string{}
			dump[string(name)] = rows
			return b.ForEach(func(k, v []byte) error {
				rows[string(k)] = string(v)
				return nil
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return dump
}

func changedBuckets(before, after map[string]map[string]string) (names []string) {
	for name, rows := range after {
		changed := len(rows) != len(before[name])
		for k, v := range rows {
			old, ok := before[name][k]
			changed = changed || !ok || old != v
		}
		if changed {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
