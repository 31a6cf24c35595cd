package bolt

import (
	"testing"

	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/storagetest"
)

// TestEveryBucketMoves: a new bucket has rows to be moved, or follows from
// those of others.
func TestEveryBucketMoves(t *testing.T) {
	known := map[string]bool{}
	for _, follows := range [][]byte{bucketMeta, bucketByUser, bucketExpiry, bucketLoginsByUser, bucketLoginTokens, bucketLogoutsDue} {
		known[string(follows)] = true
	}
	for _, kind := range storage.RowKinds() {
		parts := movedParts(kind)
		if len(parts) == 0 {
			t.Errorf("%s have no bucket", kind)
		}
		for _, part := range parts {
			known[string(part.bucket)] = true
		}
	}
	for _, bucket := range buckets {
		if !known[string(bucket)] {
			t.Errorf("a move leaves the bucket %s behind", bucket)
		}
	}
}

func BenchmarkImportRows(b *testing.B) { storagetest.BenchmarkImportRows(b, openStore(b, Options{})) }
