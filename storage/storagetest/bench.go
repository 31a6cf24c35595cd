package storagetest

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// BenchmarkImportRows imports people with a WeChat identity and a sign-in each,
// in random order.
func BenchmarkImportRows(b *testing.B, s storage.Movable) {
	b.Helper()
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
