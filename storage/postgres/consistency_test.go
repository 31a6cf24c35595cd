package postgres

import (
	"testing"

	"github.com/wxidp/wxidp/storage"
)

// checkRows holds that all rows fit together: what leads to a user is known to
// the user and the other way round, tombstones have nothing, the columns say
// what the records say, and what expires is looked at in time.
func checkRows(t *testing.T, store storage.Store) {
	t.Helper()
	s := store.(*Store)
	ctx := t.Context()
	owners, identities := 0, 0
	page, err := s.userPage(ctx, "", 10_000)
	if err != nil {
		t.Fatal(err)
	}
	unions := map[storage.Digest]bool{}
	for _, row := range page {
		user := row.user
		if user.Retired && (len(user.Key)+len(user.Profile)+len(user.Identities)+len(user.Password)+len(user.Attributes) > 0 ||
			!user.Username.IsZero() || !user.Phone.IsZero() || !user.ExternalID.IsZero()) {
			t.Errorf("a tombstone has something left: %+v", user)
		}
		for kind, handle := range map[storage.IndexKind]storage.Handle{
			storage.IndexUsername: user.Username, storage.IndexPhone: user.Phone, storage.IndexExternalID: user.ExternalID,
		} {
			if !handle.IsZero() {
				owners++
				checkOwner(t, s, kind, handle.Index, row.id)
			}
		}
		for i := range user.Identities.Len() {
			identities++
			index := user.Identities.At(i)
			var data []byte
			if err := s.readRow(ctx, `SELECT record FROM identities WHERE id = $1 AND user_id = $2`, []any{index[:], row.id}, &data); err != nil {
				t.Errorf("identity of user %s: %v", row.id, err)
				continue
			}
			identity, err := storage.DecodeIdentity(data)
			if err != nil || identity.UserID != row.id {
				t.Errorf("identity of user %s: %+v, %v", row.id, identity, err)
			}
			if !identity.Union.IsZero() && !unions[identity.Union] {
				unions[identity.Union] = true
				owners++
				checkOwner(t, s, storage.IndexUnionID, identity.Union, row.id)
			}
		}
		var disabled, retired bool
		var epoch int64
		err := s.readRow(ctx, `SELECT disabled, retired, epoch FROM users WHERE id = $1`, []any{row.id}, &disabled, &retired, &epoch)
		if err != nil || disabled != user.Disabled || retired != user.Retired || uint32(epoch) != user.Epoch {
			t.Errorf("columns of user %s: %v, %v, %d, %v; record %+v", row.id, disabled, retired, epoch, err, user)
		}
	}
	for query, want := range map[string]int{
		`SELECT count(*) FROM owners`:     owners,
		`SELECT count(*) FROM identities`: identities,
		`SELECT count(*) FROM session_keys k WHERE NOT EXISTS (SELECT FROM identities i WHERE i.id = k.identity)`:        0,
		`SELECT count(*) FROM families f WHERE NOT EXISTS (SELECT FROM users u WHERE u.id = f.user_id)`:                  0,
		`SELECT count(*) FROM families WHERE idle_expires_at > expires_at OR look_at > idle_expires_at`:                  0,
		`SELECT count(*) FROM logins WHERE (token IS NULL) <> (ended_at IS NOT NULL)`:                                    0,
		`SELECT count(*) FROM consents c JOIN users u ON u.id = c.user_id WHERE u.retired`:                               0,
		`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'`: 0,
	} {
		var n int
		if err := s.readRow(ctx, query, nil, &n); err != nil || n != want {
			t.Errorf("%s: %d, want %d, %v", query, n, want, err)
		}
	}
}

func checkOwner(t *testing.T, s *Store, kind storage.IndexKind, index storage.Digest, want string) {
	t.Helper()
	var id string
	if err := s.readRow(t.Context(), `SELECT user_id FROM owners WHERE kind = $1 AND id = $2`, []any{int16(kind), index[:]}, &id); err != nil || id != want {
		t.Errorf("an index of kind %d leads to %q, want %q, %v", kind, id, want, err)
	}
}
