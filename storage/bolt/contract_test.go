package bolt

import (
	"os"
	"path/filepath"
	"testing"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/storagetest"
)

func contractOptions(t *testing.T) storagetest.Options {
	keyring := newKeyring(t)
	return storagetest.Options{
		Open: func(t *testing.T) storage.Store { return openStore(t, Options{Path: fastPath(t), Keyring: keyring}) },
		Reopen: func(t *testing.T, s storage.Store) storage.Store {
			must(t, s.Close())
			return openStore(t, Options{Path: s.(*Store).path, Keyring: keyring})
		},
		Rows:  countRows,
		Check: checkPeople,
		Dump: func(t *testing.T, s storage.Store) []byte {
			data, err := os.ReadFile(s.(*Store).path)
			if err != nil {
				t.Fatal(err)
			}
			return data
		},
	}
}

func TestContract(t *testing.T) {
	storagetest.RunOptions(t, contractOptions(t))
}

func TestContractInBubble(t *testing.T) {
	opts := contractOptions(t)
	opts.Bubble = true
	if testing.Short() {
		opts.ModelSteps = 4000
	}
	storagetest.RunOptions(t, opts)
}

// fastPath is a path in memory where there is such a place: tens of thousands
// of commits need not wear a disk out.
func fastPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "wxidp-test-")
	if err != nil {
		return newPath(t)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "wxidp.db")
}

// countRows counts the records in all buckets.
func countRows(t *testing.T, s storage.Store) (rows int) {
	err := s.(*Store).db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			rows += b.Stats().KeyN
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
