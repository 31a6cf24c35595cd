package postgres

import (
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// A rotation writes one row version beside the old one and no index entry.
func TestRotationTouchesNoIndex(t *testing.T) {
	s := openStore(t, Options{MaxConns: 1}, hooks{})
	family := signIn(t, s, request("o1")).Family
	const rotations = 200
	for generation := range uint32(rotations) {
		res, err := s.Rotate(t.Context(), storage.Rotation{FamilyID: family.ID, ClientID: testClient, Generation: generation, Idle: time.Hour})
		if err != nil || res.Verdict != storage.RotateOK {
			t.Fatal(res.Verdict, err)
		}
	}
	var updates, hot int
	var flushed any
	if err := s.readRow(t.Context(), `SELECT pg_stat_force_next_flush()::text`, nil, &flushed); err != nil {
		t.Fatal(err)
	}
	err := s.readRow(t.Context(), `SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'families'`, nil, &updates, &hot)
	if err != nil || updates < rotations || hot < updates-rotations/20 {
		t.Errorf("%d of %d updates touched no index, %v", hot, updates, err)
	}
}
