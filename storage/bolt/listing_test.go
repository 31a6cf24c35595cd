package bolt

import (
	"testing"

	"github.com/wxidp/wxidp/storage"
)

// A user's listing looks at a bounded number of rows in one go, and shows no
// family that only seems to be the user's.
func TestPageFamiliesIsBounded(t *testing.T) {
	s := openStore(t, Options{Path: fastPath(t)})
	signIn := func(openID string) storage.Family {
		t.Helper()
		res, err := s.SignIn(t.Context(), signInRequest(openID))
		if err != nil {
			t.Fatal(err)
		}
		return res.Family
	}
	first := signIn("o1")
	stranger := signIn("o2")
	shard, mark := userShard(first.UserID)
	err := s.write(t.Context(), func(tx txn) (bool, error) {
		var w writes
		foreign := make([]byte, len(mark))
		for n := range maxScan + 10 {
			id := storage.NewFamilyID()
			id[15], id[14], id[13] = byte(n), byte(n>>8), byte(n>>16)
			w.put(tx, bucketByUser, append([]byte{shard}, id[:]...), foreign)
		}
		w.put(tx, bucketByUser, append([]byte{shard}, stranger.ID[:]...), mark) // the same mark by chance
		return true, w.err
	})
	if err != nil {
		t.Fatal(err)
	}
	second := signIn("o1")
	var got []storage.FamilyID
	calls, after := 0, ""
	for {
		page, next, err := s.PageFamilies(t.Context(), first.UserID, after, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range page {
			got = append(got, f.ID)
		}
		calls, after = calls+1, next
		if next == "" {
			break
		}
	}
	if calls != 2 || len(got) != 2 || got[0] != first.ID || got[1] != second.ID {
		t.Errorf("%d calls listed %v, want %v", calls, got, []storage.FamilyID{first.ID, second.ID})
	}
}

// manyRows fills the part of the index that a user's families are in with
// others', so that no operation looks at all of it.
func manyRows(t *testing.T, s *Store, userID string) {
	t.Helper()
	shard, mark := userShard(userID)
	foreign := make([]byte, len(mark))
	must(t, s.write(t.Context(), func(tx txn) (bool, error) {
		var w writes
		for n := range maxScan + 10 {
			id := storage.FamilyID{13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)} // older than all others
			w.put(tx, bucketByUser, append([]byte{shard}, id[:]...), foreign)
		}
		return true, w.err
	}))
}

// Where there is more than an operation looks at it assumes the worse.
func TestPeopleOperationsAreBounded(t *testing.T) {
	s := openStore(t, Options{Path: fastPath(t)})
	signIn := func(in storage.SignIn) storage.SignInResult {
		t.Helper()
		res, err := s.SignIn(t.Context(), in)
		must(t, err)
		return res
	}
	const number = "+8613800138000"
	in := signInRequest("o1")
	in.Phone = &storage.PhoneProof{E164: number}
	owner := signIn(in)
	_, err := s.RevokeFamily(t.Context(), owner.Family.ID, "logout")
	must(t, err)
	manyRows(t, s, owner.UserID)
	in = signInRequest("o2")
	in.AppID, in.Phone = "wxfedcba9876543210", &storage.PhoneProof{E164: number, SignIn: true}
	if res := signIn(in); res.Verdict != storage.SignInPhoneTaken {
		t.Errorf("the number opens an account whose families were not all looked at: %+v", res)
	}

	in = signInRequest("o1")
	in.Phone = &storage.PhoneProof{E164: number}
	with := signIn(in)
	other := signIn(inOtherApp(signInRequest("o3"), owner.UserID))
	if verdict, err := s.Unbind(t.Context(), storage.Unbinding{UserID: owner.UserID, Identities: []storage.Digest{with.Family.Identity}, WaysIn: storage.WaysIn{Phone: true, Password: true, ExternalID: true}}); err != nil || verdict != storage.UnbindOK {
		t.Fatal(verdict, err)
	}
	for _, f := range []storage.Family{with.Family, other.Family} {
		access, err := s.CheckAccess(t.Context(), storage.AccessCheck{FamilyID: f.ID})
		if err != nil || access.Verdict != storage.AccessFamilyRevoked {
			t.Errorf("family after the unbinding: %+v, %v", access, err)
		}
	}
	checkPeople(t, s)
}

// inOtherApp makes a sign-in one of another app, bound to a user.
func inOtherApp(in storage.SignIn, userID string) storage.SignIn {
	in.AppID, in.Bind, in.Family.ID = "wxfedcba9876543210", &storage.Binding{UserID: userID}, storage.NewFamilyID()
	return in
}
