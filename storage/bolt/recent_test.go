package bolt

import (
	"testing"

	"github.com/wxidp/wxidp/storage"
)

// A look from the end of a user's shard keeps to that shard, passes over the
// rows of others and ends after as many rows as it may take, or when told to.
func TestEachNewest(t *testing.T) {
	s := openStore(t, Options{Path: fastPath(t)})
	const user = "user"
	shard, mark := userShard(user)
	id := func(n byte) storage.FamilyID { return storage.FamilyID{15: n} }
	put := func(shard byte, mark []byte, ids ...byte) {
		t.Helper()
		must(t, s.write(t.Context(), func(tx txn) (bool, error) {
			var w writes
			for _, n := range ids {
				key := id(n)
				w.put(tx, bucketByUser, append([]byte{shard}, key[:]...), mark)
			}
			return true, w.err
		}))
	}
	visited := func(rows, enough int) (seen []byte) {
		t.Helper()
		must(t, s.read(t.Context(), func(tx txn) error {
			seen = nil
			return eachNewest(tx, bucketByUser, user, rows, func(id storage.FamilyID) (bool, error) {
				seen = append(seen, id[15])
				return len(seen) == enough, nil
			})
		}))
		return seen
	}
	want := func(rows, enough int, want ...byte) {
		t.Helper()
		if got := visited(rows, enough); string(got) != string(want) {
			t.Errorf("%d rows, %d enough: %v, want %v", rows, enough, got, want)
		}
	}
	want(100, 100)
	put(shard-1, mark, 1, 200)
	want(100, 100)
	put(shard, mark, 2, 4, 6)
	put(shard, make([]byte, len(mark)), 3, 5)
	want(100, 100, 6, 4, 2) // the last shard that there is
	put(shard+1, mark, 7)
	want(100, 100, 6, 4, 2)
	want(100, 2, 6, 4)
	want(3, 100, 6, 4)
	want(0, 100)
}
