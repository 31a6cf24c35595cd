package storagetest

import (
	"errors"
	"reflect"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

func (s *suite) wantWithdrawn(in storage.Withdrawal, userID string, want storage.WithdrawVerdict) {
	s.Helper()
	res, err := s.store.Withdraw(s.Context(), in)
	if err != nil || res != (storage.WithdrawResult{Verdict: want, UserID: userID}) {
		s.Fatalf("Withdraw = %+v, %v, want verdict %d of %q", res, err, want, userID)
	}
	s.check()
}

// withdraw: values that a user took back are gone, with the sign-ins of that
// identity and of no other.
func (s *suite) withdraw() {
	in := phone(union(appID, "o1", platform, "u1"), numberA, false)
	in.SessionKey, in.SessionKeyLifetime = secret.New("key"), long
	first := s.wantOK(in)
	second := s.wantOK(union(appID, "o1", platform, "u1"))
	other := s.wantOK(union(otherApp, "o2", platform, "u1"))
	before := s.user(first.UserID)

	nick := "anybody"
	s.wantWithdrawn(storage.Withdrawal{AppID: appID, WeChatOpenID: "o1", Profile: storage.ProfileChange{Nickname: &nick}}, first.UserID, storage.WithdrawOK)
	for _, f := range []storage.Family{first.Family, second.Family} {
		s.wantRotate(f.ID, 0, long, storage.RotateRevoked)
		s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
		if stored, err := s.store.Family(s.Context(), f.ID); err != nil || stored.RevokedFor != storage.RevokedForWeChat {
			s.Errorf("family %+v, %v", stored, err)
		}
	}
	s.wantAccess(other.Family.ID, "", storage.AccessActive)
	if keys, err := s.store.SessionKeys(s.Context(), first.Family.Identity); err != nil || len(keys) != 0 {
		s.Errorf("%d session_keys, %v", len(keys), err)
	}
	after := s.user(first.UserID)
	if after.Profile.Nickname != nick || after.Profile.Picture != before.Profile.Picture || after.Phone != numberA {
		s.Errorf("user %+v", after)
	}
	s.wantIdentities(first.UserID, "o1", "o2")

	again := s.wantOK(union(appID, "o1", platform, "u1"))
	s.wantWithdrawn(storage.Withdrawal{AppID: appID, WeChatOpenID: "o1", Phone: true}, first.UserID, storage.WithdrawOK)
	s.wantAccess(again.Family.ID, "", storage.AccessFamilyRevoked)
	if after := s.user(first.UserID); after.Phone != "" || !after.PhoneVerifiedAt.IsZero() {
		s.Errorf("user %+v", after)
	}
	if fresh := s.wantOK(phone(request("o3"), numberA, true)); !fresh.Created {
		s.Errorf("the number still leads to the user: %+v", fresh)
	}

	// The same again, and about nobody, writes nothing.
	commits := s.store.Stats().Commits
	s.wantWithdrawn(storage.Withdrawal{AppID: appID, WeChatOpenID: "o1", Phone: true, Profile: storage.ProfileChange{Nickname: &nick}}, first.UserID, storage.WithdrawOK)
	s.wantWithdrawn(storage.Withdrawal{AppID: otherApp, WeChatOpenID: "o1", Account: true}, "", storage.WithdrawMissing)
	if n := s.store.Stats().Commits - commits; n != 0 {
		s.Errorf("nothing to do took %d commits", n)
	}
}

// withdrawAccount: a WeChat account that is gone takes with it who has nothing
// else.
func (s *suite) withdrawAccount() {
	gone := func(app, openID string) storage.Withdrawal {
		return storage.Withdrawal{AppID: app, WeChatOpenID: openID, Account: true, Phone: true}
	}
	bare := s.wantOK(union(appID, "o1", platform, "u1"))
	s.wantWithdrawn(gone(appID, "o1"), bare.UserID, storage.WithdrawErased)
	s.wantRetired(bare.UserID, bare.Family)
	s.wantWithdrawn(gone(appID, "o1"), "", storage.WithdrawMissing)
	if fresh := s.wantOK(union(appID, "o1", platform, "u1")); !fresh.Created || fresh.UserID == bare.UserID {
		s.Errorf("%+v", fresh)
	}

	for name, in := range map[string]storage.SignIn{
		"password":    bound(inApp(appID, "o-a"), s.account("ming")),
		"external id": external(inApp(appID, "o-b"), "x-1"),
	} {
		s.Log(name)
		in = phone(in, numberA, false)
		res := s.wantOK(in)
		s.wantWithdrawn(gone(appID, in.WeChatOpenID), res.UserID, storage.WithdrawUnbound)
		s.wantAccess(res.Family.ID, "", storage.AccessFamilyRevoked)
		s.wantIdentities(res.UserID)
		if user := s.user(res.UserID); user.Retired || user.Phone != "" {
			s.Errorf("user %+v", user)
		}
	}
	// A number that the account had confirmed is no way in: somebody else may
	// come to have it.
	left := s.wantOK(phone(inApp(appID, "o-c"), numberA, false))
	s.wantWithdrawn(gone(appID, "o-c"), left.UserID, storage.WithdrawErased)
	s.wantRetired(left.UserID, left.Family)
	if next := s.wantOK(phone(inApp(appID, "o-d"), numberA, true)); next.UserID == left.UserID {
		s.Errorf("%+v", next)
	}
	// Another identity is another way in, but its sign-ins end.
	a, b := s.wantOK(union(appID, "o2", platform, "u2")), s.wantOK(union(otherApp, "o3", platform, "u2"))
	s.wantWithdrawn(gone(appID, "o2"), a.UserID, storage.WithdrawUnbound)
	s.wantAccess(a.Family.ID, "", storage.AccessFamilyRevoked)
	s.wantAccess(b.Family.ID, "", storage.AccessFamilyRevoked)
	b = s.wantOK(union(otherApp, "o3", platform, "u2"))
	if b.UserID != a.UserID {
		s.Errorf("%+v", b)
	}
	s.wantWithdrawn(gone(otherApp, "o3"), a.UserID, storage.WithdrawErased)
	s.wantRetired(a.UserID, a.Family, b.Family)
}

// concurrentWithdraw: whatever races it, no sign-in of an erased user lives.
func (s *suite) concurrentWithdraw() {
	first := s.wantOK(request("o1"))
	type outcome struct {
		signIn   storage.SignInResult
		withdraw storage.WithdrawResult
	}
	results := collect(s, callers, func(i int) (out outcome, err error) {
		if i%4 == 0 {
			out.withdraw, err = s.store.Withdraw(s.Context(), storage.Withdrawal{AppID: appID, WeChatOpenID: "o1", Account: true})
		} else {
			out.signIn, err = s.store.SignIn(s.Context(), request("o1"))
		}
		return out, err
	})
	erased := map[string]bool{}
	for _, r := range results {
		if r.withdraw.Verdict == storage.WithdrawErased {
			erased[r.withdraw.UserID] = true
		}
	}
	if !erased[first.UserID] {
		s.Error("the first user was not erased")
	}
	alive := map[string]bool{}
	for _, r := range results {
		if r.signIn.Verdict == 0 {
			continue
		}
		access, err := s.store.CheckAccess(s.Context(), storage.AccessCheck{FamilyID: r.signIn.Family.ID})
		s.must(err)
		if active := access.Verdict == storage.AccessActive; active == erased[r.signIn.UserID] {
			s.Errorf("a sign-in is active: %v; its user was erased: %v", active, erased[r.signIn.UserID])
		} else if active {
			alive[r.signIn.UserID] = true
		}
	}
	if len(alive) > 1 {
		s.Errorf("the identity leads to %d users", len(alive))
	}
	_, _, err := s.store.IdentityUser(s.Context(), appID, "o1")
	if errors.Is(err, storage.ErrNotFound) != (len(alive) == 0) {
		s.Errorf("%d users with sign-ins, identity: %v", len(alive), err)
	}
	for id := range erased {
		if user := s.user(id); !reflect.DeepEqual(user, storage.User{ID: id, Retired: true}) {
			s.Errorf("erased user %+v", user)
		}
	}
}
