package storagetest

import (
	"math"
	"time"

	"github.com/wxidp/wxidp/storage"
)

func (s *suite) rotateTable() {
	f := s.family("o1")
	foreign, err := s.store.Rotate(s.Context(), storage.Rotation{FamilyID: f.ID, ClientID: "another", Generation: 0})
	s.must(err)
	if foreign.Verdict != storage.RotateWrongClient {
		s.Fatalf("another client: verdict %d", foreign.Verdict)
	}
	s.wantRotate(f.ID, 1, long, storage.RotateInvalid)
	s.wantRotate(f.ID, math.MaxUint32, long, storage.RotateInvalid)

	ok := s.wantRotate(f.ID, 0, long, storage.RotateOK)
	if ok.Family.Generation != 1 || ok.Family.MACKeyID != 10 || ok.Family.Secret != f.Secret || !ok.Family.ExpiresAt.Equal(f.ExpiresAt) {
		s.Errorf("family after rotation %+v", ok.Family)
	}
	before := s.store.Stats().Commits
	repeated := s.wantRotate(f.ID, 0, long, storage.RotateRepeated)
	if repeated.Family.Generation != 1 || repeated.Family.MACKeyID != 10 || !repeated.Family.RotatedAt.Equal(ok.Family.RotatedAt) {
		s.Errorf("family after repetition %+v", repeated.Family)
	}
	s.wantRotate(f.ID, 0, long, storage.RotateRepeated) // as often as you like
	if after := s.store.Stats().Commits; after != before {
		s.Errorf("repetition wrote: %d commits", after-before)
	}
	stored, err := s.store.Family(s.Context(), f.ID)
	s.must(err)
	if stored.Generation != 1 || !stored.RevokedAt.IsZero() {
		s.Errorf("stored family %+v", stored)
	}

	// Threat 19: once the successor was used, no grace helps its predecessor.
	s.wantRotate(f.ID, 1, long, storage.RotateOK)
	reused := s.wantRotate(f.ID, 0, long, storage.RotateReused)
	if !reused.SuccessorUsed || reused.Family.RevokedAt.IsZero() || reused.Family.RevokedFor != storage.RevokedForReuse {
		s.Errorf("reuse of an old generation %+v", reused)
	}
	for _, generation := range []uint32{0, 1, 2, 3} {
		s.wantRotate(f.ID, generation, long, storage.RotateRevoked)
	}
	s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)

	// Strict rotation: the direct predecessor is reuse at once.
	strict := s.family("o1")
	s.wantRotate(strict.ID, 0, 0, storage.RotateOK)
	if res := s.wantRotate(strict.ID, 0, 0, storage.RotateReused); res.SuccessorUsed {
		s.Error("the successor was not used")
	}
	s.wantAccess(strict.ID, "", storage.AccessFamilyRevoked)

	if res := s.rotate(storage.NewFamilyID(), 0, long); res.Verdict != storage.RotateMissing {
		s.Errorf("unknown family: verdict %d", res.Verdict)
	}
	// Threat 17: other families of the user live.
	s.wantRotate(s.family("o1").ID, 0, 0, storage.RotateOK)
}

func (s *suite) rotateManyGenerations() {
	f := s.family("o1")
	for g := range uint32(50) {
		res := s.wantRotate(f.ID, g, long, storage.RotateOK)
		if res.Family.Generation != g+1 {
			s.Fatalf("generation %d after %d", res.Family.Generation, g)
		}
		if g > 0 && g%10 == 0 {
			s.wantRotate(f.ID, g, long, storage.RotateRepeated)
		}
	}
	s.wantRotate(f.ID, 20, long, storage.RotateReused)
}

func (s *suite) rotateGraceEnds() {
	f := s.family("o1")
	s.wantRotate(f.ID, 0, s.short(), storage.RotateOK)
	if s.Bubble {
		time.Sleep(s.short() - time.Millisecond)
		s.wantRotate(f.ID, 0, s.short(), storage.RotateRepeated)
		time.Sleep(time.Millisecond)
	} else {
		s.outlive()
	}
	if res := s.wantRotate(f.ID, 0, s.short(), storage.RotateReused); res.SuccessorUsed {
		s.Error("the successor was not used")
	}
	s.wantRotate(f.ID, 1, s.short(), storage.RotateRevoked)
}

func (s *suite) rotateExpiry() {
	idle := request("o1")
	idle.Idle = s.short()
	absolute := request("o1")
	absolute.Idle, absolute.Absolute = 0, s.short()
	a, b := s.signIn(idle).Family, s.signIn(absolute).Family
	if !b.IdleExpiresAt.Equal(b.ExpiresAt) {
		s.Errorf("no idle lifetime: %v and %v", b.IdleExpiresAt, b.ExpiresAt)
	}
	s.outlive()
	s.wantRotate(a.ID, 0, long, storage.RotateExpired)
	s.wantRotate(b.ID, 0, long, storage.RotateExpired)
	s.wantAccess(a.ID, "", storage.AccessFamilyExpired)
	s.wantAccess(b.ID, "", storage.AccessFamilyExpired)
	if !s.Bubble {
		return
	}
	// Threat 30: however often it is refreshed, a family ends.
	in := request("o2")
	in.Idle, in.Absolute = 24*time.Hour, 180*24*time.Hour
	f := s.signIn(in).Family
	end := time.Now().Add(180 * 24 * time.Hour)
	for g := uint32(0); ; g++ {
		time.Sleep(23 * time.Hour)
		res, err := s.store.Rotate(s.Context(), storage.Rotation{FamilyID: f.ID, ClientID: clientID, Generation: g, Grace: time.Minute, Idle: 24 * time.Hour})
		s.must(err)
		if time.Now().Before(end) != (res.Verdict == storage.RotateOK) {
			s.Fatalf("%v before the end: verdict %d", time.Until(end), res.Verdict)
		}
		if res.Verdict != storage.RotateOK {
			break
		}
		if res.Family.IdleExpiresAt.After(res.Family.ExpiresAt) {
			s.Fatalf("idle expiry %v after the end %v", res.Family.IdleExpiresAt, res.Family.ExpiresAt)
		}
	}
}

func (s *suite) access() {
	f := s.family("o1")
	s.wantAccess(f.ID, "jti-1", storage.AccessActive)
	s.wantAccess(storage.FamilyID{}, "jti-1", storage.AccessActive) // a client's own token
	s.wantAccess(storage.NewFamilyID(), "jti-1", storage.AccessFamilyMissing)

	s.must(s.store.DenyJTI(s.Context(), "jti-1", time.Now().Add(long)))
	s.must(s.store.DenyJTI(s.Context(), "jti-1", time.Now().Add(long/2))) // does not shorten it
	s.wantAccess(f.ID, "jti-1", storage.AccessDenied)
	s.wantAccess(storage.FamilyID{}, "jti-1", storage.AccessDenied)
	s.wantAccess(f.ID, "jti-2", storage.AccessActive) // threat 44: that token only
	s.wantRotate(f.ID, 0, 0, storage.RotateOK)

	commits := s.store.Stats().Commits
	for range 10 {
		s.wantAccess(f.ID, "jti-2", storage.AccessActive)
	}
	if after := s.store.Stats().Commits; after != commits {
		s.Errorf("CheckAccess wrote: %d commits", after-commits)
	}
}

func (s *suite) accessExpiry() {
	f := s.family("o1")
	s.must(s.store.DenyJTI(s.Context(), "past", time.Now().Add(-time.Second)))
	s.wantAccess(f.ID, "past", storage.AccessActive)
	s.must(s.store.DenyJTI(s.Context(), "brief", time.Now().Add(s.short())))
	s.outlive()
	s.wantAccess(f.ID, "brief", storage.AccessActive)
}

func (s *suite) revokeFamily() {
	f := s.family("o1")
	other := s.family("o1")
	found, err := s.store.RevokeFamily(s.Context(), f.ID, "logout")
	s.must(err)
	if !found {
		s.Fatal("the family was not found")
	}
	s.wantRotate(f.ID, 0, long, storage.RotateRevoked)
	s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
	found, err = s.store.RevokeFamily(s.Context(), f.ID, "second reason")
	s.must(err)
	stored, err := s.store.Family(s.Context(), f.ID)
	s.must(err)
	if !found || stored.RevokedFor != "logout" || stored.RevokedAt.IsZero() {
		s.Errorf("revoked twice: found %v, %+v", found, stored)
	}
	s.wantRotate(other.ID, 0, long, storage.RotateOK)
}

func (s *suite) revokeUser() {
	a, b := s.family("o1"), s.family("o1")
	stranger := s.family("o2")
	commits := s.store.Stats().Commits
	s.must(s.store.RevokeUser(s.Context(), a.UserID, "password changed"))
	if n := s.store.Stats().Commits - commits; n != 1 {
		s.Errorf("RevokeUser took %d commits", n)
	}
	for _, f := range []storage.Family{a, b} {
		s.wantRotate(f.ID, 0, long, storage.RotateRevoked)
		s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
		stored, err := s.store.Family(s.Context(), f.ID)
		s.must(err)
		if stored.RevokedAt.IsZero() || stored.RevokedFor != "password changed" {
			s.Errorf("ended family %+v", stored)
		}
	}
	if found, err := s.store.RevokeFamily(s.Context(), a.ID, "later"); !found || err != nil {
		s.Errorf("RevokeFamily of an ended family: %v, %v", found, err)
	}
	if stored, err := s.store.Family(s.Context(), a.ID); err != nil || stored.RevokedFor != "password changed" {
		s.Errorf("the reason changed: %+v, %v", stored, err)
	}
	page, _, err := s.store.PageFamilies(s.Context(), a.UserID, "", 10)
	s.must(err)
	if len(page) != 2 || page[0].RevokedAt.IsZero() || page[1].RevokedAt.IsZero() {
		s.Errorf("listed families %+v", page)
	}
	s.wantRotate(stranger.ID, 0, long, storage.RotateOK)
	fresh := s.family("o1")
	s.wantRotate(fresh.ID, 0, long, storage.RotateOK)
	s.wantAccess(fresh.ID, "", storage.AccessActive)
	s.must(s.store.RevokeUser(s.Context(), a.UserID, "again"))
	s.wantAccess(fresh.ID, "", storage.AccessFamilyRevoked)
}

func (s *suite) disabledUser() {
	f := s.family("o1")
	s.must(s.store.SetUserDisabled(s.Context(), f.UserID, true))
	s.must(s.store.SetUserDisabled(s.Context(), f.UserID, true))
	s.wantRotate(f.ID, 0, long, storage.RotateUserDisabled)
	s.wantAccess(f.ID, "", storage.AccessUserDisabled)
	if user, err := s.store.User(s.Context(), f.UserID); err != nil || !user.Disabled {
		s.Errorf("user %+v, %v", user, err)
	}
	s.must(s.store.SetUserDisabled(s.Context(), f.UserID, false))
	s.wantRotate(f.ID, 0, long, storage.RotateRevoked) // enabling brings nothing back
	s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
	if stored, err := s.store.Family(s.Context(), f.ID); err != nil || stored.RevokedFor != storage.RevokedForDisabled {
		s.Errorf("family %+v, %v", stored, err)
	}
	s.wantRotate(s.family("o1").ID, 0, long, storage.RotateOK)
}
