package storagetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// resurrection is what a backup may bring back to life.
type resurrection struct {
	family, ended, disabled storage.Family
	login                   storage.LoginSession
	redeemed                storage.Family     // in login
	unused, used            storage.Redemption // codes in login; used became redeemed
	repeat                  storage.SignIn     // has an idempotency key
}

func (s *suite) resurrect() (r resurrection) {
	s.Helper()
	r.family, r.ended = s.family("live"), s.family("ended")
	if _, err := s.store.RevokeFamily(s.Context(), r.ended.ID, "before"); err != nil {
		s.Fatal(err)
	}
	r.disabled = s.family("disabled")
	s.must(s.store.SetUserDisabled(s.Context(), r.disabled.UserID, true))
	r.login = s.login(s.account("ming"), "cookie")
	r.unused, r.used = s.issue("unused", s.grant(r.login)), s.issue("used", s.grant(r.login))
	r.redeemed = s.wantRedeem(r.used, storage.RedeemOK).Family
	s.put(kindA, "jti", "", long)
	s.put(kindB, "pushed", "v", long)
	s.putState(storage.StateTicket, "ticket", "v", long)
	r.repeat = request("repeat")
	r.repeat.Idempotency = &storage.Idempotency{Key: digest("repeat"), Lifetime: long}
	s.signIn(r.repeat)
	s.must(s.store.DenyJTI(s.Context(), "denied", time.Now().Add(long)))
	return r
}

// wantSingleUsesGone looks at what must not come to life again whatever was
// chosen.
func (s *suite) wantSingleUsesGone(r *resurrection) {
	s.Helper()
	s.wantRedeem(r.unused, storage.RedeemMissing)
	if s.put(kindA, "jti", "", long) {
		s.Error("a jti is free again")
	}
	if value, verdict := s.consume(kindB, "pushed"); verdict != storage.ConsumeUsed || value != "" {
		s.Errorf("a pushed request: %q, %d", value, verdict)
	}
	s.wantState(storage.StateTicket, "ticket", "", 0)
	if _, ok, err := s.store.Idempotency(s.Context(), r.repeat.Idempotency.Key); ok || err != nil {
		s.Errorf("an idempotency record: %v, %v", ok, err)
	}
	s.wantAccess(storage.FamilyID{}, "denied", storage.AccessDenied)
}

func (s *suite) settle(choice storage.RestoreChoice, notify ...string) (storage.RestoreCounts, bool, error) {
	_, counts, settled, err := storage.Settle(s.Context(), s.store, choice, notify, nil)
	return counts, settled, err
}

// wantMark compares the state of the document about restoring.
func (s *suite) wantMark(want storage.RestoreState) storage.Restored {
	s.Helper()
	mark, _, err := storage.ReadRestored(s.Context(), s.store)
	if err != nil || mark.State != want {
		s.Fatalf("the document says %+v, %v; want %q", mark, err, want)
	}
	return mark
}

// restoreUndecided: nothing happens where nothing was restored, and nothing
// without a choice.
func (s *suite) restoreUndecided() {
	r := s.resurrect()
	for _, choice := range []storage.RestoreChoice{"", storage.RestoreAccept, storage.RestoreRevokeAll} {
		if counts, settled, err := s.settle(choice); settled || err != nil || counts != (storage.RestoreCounts{}) {
			s.Fatalf("choice %q about data that were never restored: %+v, %v, %v", choice, counts, settled, err)
		}
	}
	taken := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	s.must(storage.MarkRestored(s.Context(), s.store, taken))
	if mark := s.wantMark(storage.RestorePending); !mark.TakenAt.Equal(taken) || mark.RestoredAt.IsZero() || !mark.Open() {
		s.Errorf("mark %+v", mark)
	}
	if _, settled, err := s.settle(""); settled || !errors.Is(err, storage.ErrUndecided) {
		s.Fatalf("without a choice: %v, %v", settled, err)
	}
	s.wantAccess(r.family.ID, "", storage.AccessActive)
	s.wantLogin("cookie", r.login.ID)
	s.wantRedeem(r.unused, storage.RedeemOK)
	s.wantMark(storage.RestorePending)
}

func (s *suite) restoreRevokeAll() {
	r := s.resurrect()
	s.must(storage.MarkRestored(s.Context(), s.store, time.Time{}))
	counts, settled, err := s.settle(storage.RestoreRevokeAll, clientID)
	if err != nil || !settled || counts.Families != 3 || counts.Logins != 1 || counts.Others < 4 {
		s.Fatalf("%+v, %v, %v", counts, settled, err)
	}
	for _, f := range []storage.Family{r.family, r.redeemed, r.repeat.Family} {
		s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
		s.wantRotate(f.ID, f.Generation, long, storage.RotateRevoked)
		got, err := s.store.Family(s.Context(), f.ID)
		if err != nil || got.RevokedFor != storage.RevokedForRestore || got.RevokedAt.IsZero() {
			s.Errorf("family %+v, %v", got, err)
		}
	}
	if got, err := s.store.Family(s.Context(), r.ended.ID); err != nil || got.RevokedFor != "before" {
		s.Errorf("a family that had ended: %+v, %v", got, err)
	}
	if got, err := s.store.Family(s.Context(), r.disabled.ID); err != nil || got.RevokedFor != storage.RevokedForDisabled {
		s.Errorf("a disabled user's family: %+v, %v", got, err)
	}
	s.wantLogin("cookie", storage.LoginID{})
	s.wantDue(r.redeemed)
	s.wantSingleUsesGone(&r)
	s.wantRedeem(r.used, storage.RedeemUsed)
	if mark := s.wantMark(storage.RestoreSettled); mark.Choice != storage.RestoreRevokeAll || mark.SettledAt.IsZero() || mark.Open() {
		s.Errorf("mark %+v", mark)
	}

	// It happens once: what signs in now stays, whatever is said later.
	again := s.family("live")
	for _, choice := range []storage.RestoreChoice{"", storage.RestoreAccept, storage.RestoreRevokeAll} {
		if _, settled, err := s.settle(choice); settled || err != nil {
			s.Errorf("choice %q when all is settled: %v, %v", choice, settled, err)
		}
	}
	s.wantAccess(again.ID, "", storage.AccessActive)
	if again.UserID != r.family.UserID {
		s.Error("the user is another one")
	}
}

func (s *suite) restoreAccept() {
	r := s.resurrect()
	s.must(storage.MarkRestored(s.Context(), s.store, time.Time{}))
	counts, settled, err := s.settle(storage.RestoreAccept, clientID)
	if err != nil || !settled || counts.Families != 0 || counts.Logins != 0 || counts.Others < 4 {
		s.Fatalf("%+v, %v, %v", counts, settled, err)
	}
	s.wantAccess(r.family.ID, "", storage.AccessActive)
	s.wantAccess(r.redeemed.ID, "", storage.AccessActive)
	s.wantAccess(r.ended.ID, "", storage.AccessFamilyRevoked)
	s.wantAccess(r.disabled.ID, "", storage.AccessUserDisabled)
	s.wantLogin("cookie", r.login.ID)
	s.wantDue()
	s.wantSingleUsesGone(&r)
	s.wantRotate(r.family.ID, 0, long, storage.RotateOK)
	// A code that was used by the time of the backup still tells its replay.
	if res := s.wantRedeem(r.used, storage.RedeemUsed); res.Family.ID != r.redeemed.ID {
		s.Errorf("the replay ended %v", res.Family.ID)
	}
	s.wantMark(storage.RestoreSettled)
}

// restoreSteps settles many records by few at a time, is ended in the middle,
// begins anew and comes to the same end.
func (s *suite) restoreSteps() {
	const n = 23
	var families []storage.Family
	ming := s.account("ming")
	for i := range n {
		families = append(families, s.family(fmt.Sprint("o", i)))
		login := s.login(ming, fmt.Sprint("cookie", i))
		s.issue(fmt.Sprint("code", i), s.grant(login))
		s.put(kindB, fmt.Sprint("item", i), "v", long)
		s.putState(storage.StateTicket, fmt.Sprint("ticket", i), "v", long)
	}
	s.must(storage.MarkRestored(s.Context(), s.store, time.Time{}))
	_, version, err := storage.ReadRestored(s.Context(), s.store)
	s.must(err)

	var sum storage.RestoreCounts
	step := storage.RestoreStep{Version: version, RevokeAll: true, Limit: 5}
	do := func() {
		res, err := s.store.EndRestored(s.Context(), step)
		s.must(err)
		if res.Superseded || res.Families+res.Logins+res.Others > step.Limit {
			s.Fatalf("step %+v: %+v", step, res)
		}
		sum.Families, sum.Logins, sum.Others = sum.Families+res.Families, sum.Logins+res.Logins, sum.Others+res.Others
		step.Cursor = res.Next
	}
	for range 3 {
		do()
	}
	step.Cursor = "" // as after a crash
	for do(); step.Cursor != ""; {
		do()
	}
	if want := (storage.RestoreCounts{Families: n, Logins: n, Others: 3 * n}); sum != want {
		s.Errorf("ended %+v, want %+v", sum, want)
	}
	for i := range families {
		s.wantAccess(families[i].ID, "", storage.AccessFamilyRevoked)
		s.wantLogin(fmt.Sprint("cookie", i), storage.LoginID{})
		s.wantState(storage.StateTicket, fmt.Sprint("ticket", i), "", 0)
	}

	// A step of somebody who does not know what has happened since does nothing.
	live := s.family("new")
	for _, version := range []uint64{0, version - 1, version + 1} {
		step.Version = version
		if res, err := s.store.EndRestored(s.Context(), step); err != nil || !res.Superseded || res.RestoreCounts != (storage.RestoreCounts{}) {
			s.Errorf("version %d: %+v, %v", version, res, err)
		}
	}
	s.wantAccess(live.ID, "", storage.AccessActive)
	step.Version = version
	for _, cursor := range []string{"x", "9.", "-1.", "0.*"} {
		step.Cursor = cursor
		if _, err := s.store.EndRestored(s.Context(), step); !errors.Is(err, storage.ErrBadCursor) {
			s.Errorf("cursor %q: %v", cursor, err)
		}
	}
}

// restoreBegun: a choice that was begun is carried on, and what has ended is
// not accepted any more.
func (s *suite) restoreBegun() {
	family := s.family("live")
	begun := storage.Restored{State: storage.RestoreSettling, Choice: storage.RestoreRevokeAll, TakenAt: time.Now().UTC().Truncate(time.Second)}
	if swapped, err := s.store.SwapRecord(s.Context(), storage.RestoredRecord, 0, begun.Encode()); err != nil || !swapped {
		s.Fatal(swapped, err)
	}
	if _, settled, err := s.settle(storage.RestoreAccept); settled || !errors.Is(err, storage.ErrRevokeAllBegun) {
		s.Fatalf("accept after revoke-all: %v, %v", settled, err)
	}
	if counts, settled, err := s.settle(""); !settled || err != nil || counts.Families != 1 {
		s.Fatalf("carried on: %+v, %v, %v", counts, settled, err)
	}
	s.wantAccess(family.ID, "", storage.AccessFamilyRevoked)
	if mark := s.wantMark(storage.RestoreSettled); !mark.TakenAt.Equal(begun.TakenAt) || mark.Choice != storage.RestoreRevokeAll {
		s.Errorf("mark %+v", mark)
	}

	family = s.family("live") // restored once more, and accepting it was begun
	s.must(storage.MarkRestored(s.Context(), s.store, time.Time{}))
	_, version, err := storage.ReadRestored(s.Context(), s.store)
	s.must(err)
	begun.Choice = storage.RestoreAccept
	if swapped, err := s.store.SwapRecord(s.Context(), storage.RestoredRecord, version, begun.Encode()); err != nil || !swapped {
		s.Fatal(swapped, err)
	}
	if counts, settled, err := s.settle(storage.RestoreRevokeAll); !settled || err != nil || counts.Families != 1 {
		s.Fatalf("revoke-all after accept: %+v, %v, %v", counts, settled, err)
	}
	s.wantAccess(family.ID, "", storage.AccessFamilyRevoked)
}

// concurrentSettle: of many nodes that start at once one settles, and none
// ends what was signed in when another had finished.
func (s *suite) concurrentSettle() {
	var old []storage.Family
	for i := range 40 {
		old = append(old, s.family(fmt.Sprint("old", i)))
	}
	s.must(storage.MarkRestored(s.Context(), s.store, time.Time{}))
	type outcome struct {
		settled bool
		family  storage.Family
	}
	settlers := 0
	for _, out := range collect(s, 8, func(i int) (out outcome, err error) {
		if _, _, out.settled, err = storage.Settle(s.Context(), s.store, storage.RestoreRevokeAll, nil, nil); err != nil {
			return out, err
		}
		res, err := s.store.SignIn(s.Context(), request(fmt.Sprint("new", i)))
		out.family = res.Family
		return out, err
	}) {
		if out.settled {
			settlers++
		}
		s.wantAccess(out.family.ID, "", storage.AccessActive)
	}
	if settlers != 1 {
		s.Errorf("%d nodes have settled it", settlers)
	}
	for i := range old {
		s.wantAccess(old[i].ID, "", storage.AccessFamilyRevoked)
	}
}

// restoreAhead: a device holds a refresh token that is generations ahead of its
// restored family, one that was redeemed since the backup is live again, and
// none of it ends the family wrongly.
func (s *suite) restoreAhead() {
	family := s.family("live")
	s.wantRotate(family.ID, 0, 0, storage.RotateOK)
	for _, ahead := range []uint32{2, 3, 1000, 1<<32 - 1} {
		if res := s.wantRotate(family.ID, ahead, long, storage.RotateInvalid); res.Family.Generation != 1 || !res.Family.RevokedAt.IsZero() {
			s.Errorf("generation %d: %+v", ahead, res.Family)
		}
	}
	s.wantAccess(family.ID, "", storage.AccessActive)
	s.wantRotate(family.ID, 1, 0, storage.RotateOK)
	s.wantRotate(family.ID, 2, 0, storage.RotateOK) // issued before the restore and again after it
	s.wantRotate(family.ID, 1, 0, storage.RotateReused)
}
