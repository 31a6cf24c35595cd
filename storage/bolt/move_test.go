package bolt

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
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

func BenchmarkImportRows(b *testing.B) {
	s := openStore(b, Options{})
	const batch = 9999
	for b.Loop() {
		rows := make([]storage.Row, 0, batch)
		for range batch / 3 {
			var d storage.Digest
			rand.Read(d[:])
			id := storage.NewUserID()
			now := time.Now()
			user := storage.UserRecord{CreatedAt: now, UpdatedAt: now, Key: d[:], Profile: make([]byte, 80), Identities: storage.DigestList(d[:])}
			identity := storage.IdentityRecord{UserID: id, AppID: "wx0123456789abcdef", LinkedAt: now, OpenID: make([]byte, 56)}
			family := storage.Family{ID: storage.NewFamilyID(), UserID: id, ClientID: "shop-mini", Identity: d, Scope: []string{"openid", "profile"},
				Audience: []string{"https://api.shop.example"}, AMR: []string{"wechat"}, Secret: storage.NewFamilySecret(),
				CreatedAt: now, RotatedAt: now, AuthTime: now, IdleExpiresAt: now.Add(time.Hour), ExpiresAt: now.Add(2 * time.Hour)}
			rows = append(rows, storage.Row{Kind: storage.RowUser, Key: []byte(id), Value: storage.EncodeUser(&user)},
				storage.Row{Kind: storage.RowIdentity, Key: d[:], Value: storage.EncodeIdentity(&identity)},
				storage.Row{Kind: storage.RowFamily, Key: family.ID[:], Value: storage.EncodeFamily(&family)})
		}
		if err := s.ImportRows(b.Context(), rows); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "rows/s")
}
