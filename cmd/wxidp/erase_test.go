package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
)

// takeBackup writes a backup through the command line and returns its path.
func takeBackup(s *testServer) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "backup.db")
	ctl(s, "backup", path)
	return path
}

func readBytes(t testing.TB, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// userRecord reads a user's record, as it is stored, from a backup.
func userRecord(t testing.TB, path, id string) (record storage.UserRecord) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) (err error) {
		record, err = storage.DecodeUser(tx.Bucket([]byte("users")).Get([]byte(id)))
		record = record.Clone()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// opensFor counts the places of a file that the master key opens as the key of
// a user.
func opensFor(t testing.TB, s *testServer, data []byte, id string, size int) (n int) {
	t.Helper()
	ring, err := seal.ParseKeyring(readBytes(t, filepath.Join(s.Dir, "data", "master.key")))
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at+size <= len(data); at++ {
		if _, err := ring.Open("user key", []byte(id), data[at:at+size]); err == nil {
			n++
		}
	}
	return n
}

// TestThreat88EraseLeavesNothing erases a user through the front door, and
// searches the data file and a fresh backup for whatever is left.
func TestThreat88EraseLeavesNothing(t *testing.T) {
	aboutDataFile(t)
	s := startServer(t, manyPhones())
	other := signIn(s, "bystander", "scope", "openid profile wechat")
	id, tokens, personal := fullUser(s)
	file := filepath.Join(s.Dir, "data", "wxidp.db")
	record := userRecord(t, takeBackup(s), id)
	if n := opensFor(t, s, readBytes(t, file), id, len(record.Key)); n == 0 {
		t.Fatal("the search does not find the user's key, which shows that it does not work")
	}

	out, errs := "", ""
	if _, errs = ctlFails(s, "nothing was erased", "users", "erase", id); strings.Contains(errs, "Type the id") {
		t.Errorf("asks where nobody answers: %s", errs)
	}
	signedIn(s, "a refused erasure", tokens[0])
	if out = ctl(s, "users", "erase", "external:canary-external-66", "--yes", "--no-compact"); !strings.Contains(out, id) || !strings.Contains(out, "wxidp compact") {
		t.Errorf("%s", out)
	}
	if out = ctl(s, "compact"); !strings.Contains(out, "before") {
		t.Errorf("%s", out)
	}
	for where, data := range map[string][]byte{"the data file": readBytes(t, file), "a fresh backup": readBytes(t, takeBackup(s))} {
		noneOf(t, where, string(data), personal...)
		for what, sealed := range map[string][]byte{
			"key": record.Key, "profile": record.Profile, "username": record.Username.Sealed, "phone": record.Phone.Sealed, "external id": record.ExternalID.Sealed,
			"password": record.Password, "username's index": record.Username.Index[:], "phone's index": record.Phone.Index[:],
			"external id's index": record.ExternalID.Index[:], "openid's index": record.Identities,
		} {
			if len(sealed) == 0 || bytes.Contains(data, sealed) {
				t.Errorf("%s holds the sealed %s (%d bytes)", where, what, len(sealed))
			}
		}
		if n := opensFor(t, s, data, id, len(record.Key)); n != 0 {
			t.Errorf("%s holds %d keys of the user that the master key opens", where, n)
		}
	}
	for i := range tokens {
		dead(s, "the erased user", tokens[i])
	}
	signedIn(s, "another user", other)

	again := signIn(s, "canary-alice")
	fresh := shown(s, sub(t, again))
	if fresh.ID == id || fresh.Username+fresh.Phone+fresh.ExternalID != "" || fresh.HasPassword || strings.Contains(fresh.Profile.Nickname, "canary") || len(fresh.SignIns) != 1 {
		t.Errorf("the same WeChat account signs in as %+v", fresh)
	}
	for _, who := range []string{id, "username:canary-username-55", "external:canary-external-66", "phone:" + number(s, "canary-alice")} {
		ctlFails(s, "", "users", "disable", who)
	}
	ctlFails(s, "merged into another or erased", "users", "erase", id, "--yes")
	if row := lineWith(ctl(s, "users", "list"), id); !strings.Contains(row, "retired") {
		t.Errorf("%q", row)
	}
	noneOf(t, "the log", s.Logs.String(), personal...)
}

// TestEraseCompacts erases and compacts in one command.
func TestEraseCompacts(t *testing.T) {
	aboutDataFile(t)
	s := startServer(t, manyPhones())
	id := sub(t, signIn(s, "alice"))
	key := userRecord(t, takeBackup(s), id).Key
	if out := ctl(s, "users", "erase", id, "--yes"); !strings.Contains(out, "is compacted") {
		t.Errorf("%s", out)
	}
	if bytes.Contains(readBytes(t, filepath.Join(s.Dir, "data", "wxidp.db")), key) {
		t.Error("the user's sealed key is still in the file")
	}
	if events := s.Logs.Events("admin.compact"); len(events) != 1 || events[0]["size_before"] == nil || events[0]["size_after"] == nil {
		t.Errorf("audit: %v", events)
	}
	signedIn(s, "after a compaction", signIn(s, "alice"))
}
