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
