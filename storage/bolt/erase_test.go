//go:build unix

package bolt

import (
	"bytes"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/storagetest"
)

// After an erasure and a compaction nothing of the person is left: not in the
// file, not in a backup, neither open nor for whoever has the master key.
func TestThreat88ErasedIsGoneAfterCompact(t *testing.T) {
	ring := newKeyring(t)
	s := openStore(t, Options{Keyring: ring})
	filler(t, s, 50)
	res, err := s.SignIn(t.Context(), storagetest.Canary("wx0123456789abcdef"))
	must(t, err)
	if res.Verdict != storage.SignInOK {
		t.Fatalf("SignIn = %+v", res)
	}
	canary := storagetest.Canaries()
	account, err := s.CreateAccount(t.Context(), storage.NewAccount{Username: "canary-username-000000001", PasswordHash: "CANARYhash"})
	must(t, err)
	merged, err := s.Merge(t.Context(), account.UserID, res.UserID, false)
	must(t, err)
	if merged.Verdict != storage.MergeOK {
		t.Fatalf("Merge = %+v", merged)
	}
	// What the person's rows were, to be looked for.
	before := dumpRows(t, s)
	user := before["users"][res.UserID]
	record, err := storage.DecodeUser([]byte(user))
	must(t, err)
	if leaks := openable(t, s, ring, dumpRows(t, s)); !slices.Equal(leaks, canariesThatOpen(canary)) {
		t.Fatalf("the search finds %q, which shows that it does not work", leaks)
	}
	if !bytes.Contains(fileBytes(t, s), record.Key) {
		t.Fatal("the search does not find the person's sealed key")
	}

	found, err := s.Erase(t.Context(), res.UserID)
	if !found || err != nil {
		t.Fatal(found, err)
	}
	must(t, s.Compact(t.Context()))
	for name, data := range map[string][]byte{"file": fileBytes(t, s), "backup": readFile(t, backup(t, s))} {
		for what, sealed := range map[string][]byte{
			"key": record.Key, "profile": record.Profile, "username": record.Username.Sealed, "phone": record.Phone.Sealed,
			"external id": record.ExternalID.Sealed, "attributes": record.Attributes, "password": record.Password,
			"phone index": record.Phone.Index[:], "identity index": res.Family.Identity[:],
		} {
			if bytes.Contains(data, sealed) {
				t.Errorf("%s: the sealed %s is still there", name, what)
			}
		}
		for _, value := range canary {
			if bytes.Contains(data, []byte(value)) {
				t.Errorf("%s: %q lies open", name, value)
			}
		}
	}
	restored := openStore(t, Options{Path: backup(t, s), Keyring: ring})
	for name, s := range map[string]*Store{"file": s, "backup": restored} {
		if leaks := openable(t, s, ring, dumpRows(t, s)); len(leaks) > 0 {
			t.Errorf("%s: the master key opens %q", name, leaks)
		}
		checkPeople(t, s)
		if user, err := s.User(t.Context(), res.UserID); err != nil || !reflect.DeepEqual(user, storage.User{ID: res.UserID, Retired: true}) {
			t.Errorf("%s: user %+v, %v", name, user, err)
		}
	}
}

// openable returns the canaries that come to light when everything is opened
// that the master key opens, with every key found on the way.
func openable(t *testing.T, s *Store, ring *seal.Keyring, dump map[string]map[string]string) []string {
	t.Helper()
	var boxes []*seal.Box
	for id, data := range dump["users"] {
		user, err := storage.DecodeUser([]byte(data))
		must(t, err)
		if len(user.Key) == 0 {
			continue
		}
		box, err := s.vault.OpenUserKey(id, user.Key)
		must(t, err)
		boxes = append(boxes, box)
	}
	purposes := []string{"profile", "username", "password hash", "phone", "external id", "attributes", "wechat openid", "wechat unionid", "wechat session_key"}
	var plain bytes.Buffer
	try := func(aad, sealed []byte) {
		for _, purpose := range purposes {
			for _, box := range boxes {
				if value, err := box.Open(purpose, aad, sealed); err == nil {
					plain.Write(append(value, 0))
				}
			}
			if value, err := ring.Open(purpose, aad, sealed); err == nil {
				plain.Write(append(value, 0))
			}
		}
	}
	for id, data := range dump["users"] {
		user, err := storage.DecodeUser([]byte(data))
		must(t, err)
		for _, sealed := range [][]byte{user.Profile, user.Username.Sealed, user.Password, user.Phone.Sealed, user.ExternalID.Sealed, user.Attributes} {
			try([]byte(id), sealed)
		}
	}
	for index, data := range dump["identities"] {
		identity, err := storage.DecodeIdentity([]byte(data))
		must(t, err)
		try([]byte(index), identity.OpenID)
		try([]byte(index), identity.UnionID)
	}
	for index, data := range dump["session_keys"] {
		keys, err := storage.DecodeSessionKeys([]byte(data))
		must(t, err)
		for _, key := range keys {
			try([]byte(index), key.Sealed)
		}
	}
	var leaks []string
	for _, value := range storagetest.Canaries() {
		if bytes.Contains(plain.Bytes(), []byte(value)) {
			leaks = append(leaks, value)
		}
	}
	return leaks
}

// canariesThatOpen leaves out what the account of these tests does not have.
func canariesThatOpen(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(value string) bool { return strings.HasPrefix(value, "$argon2id") })
}

func fileBytes(t *testing.T, s *Store) []byte {
	t.Helper()
	return readFile(t, s.path)
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}
