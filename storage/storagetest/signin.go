package storagetest

import (
	"errors"
	"reflect"
	"time"

	"github.com/wxidp/wxidp/storage"
)

func (s *suite) signInNew() {
	in := request("o-new")
	in.UnionID, in.OpenPlatform = "union-new", platform
	in.Idle = long / 2
	in.Family.DPoPThumbprint = "thumb"
	before := time.Now().Add(-time.Minute)
	res := s.signIn(in)
	if res.Verdict != storage.SignInOK || !res.Created || res.Conflict || res.UserID == "" {
		s.Fatalf("SignIn = %+v", res)
	}
	f := res.Family
	if f.ID != in.Family.ID || f.UserID != res.UserID || f.ClientID != clientID || f.Generation != 0 || f.MACKeyID != 1 ||
		f.Secret != in.Family.Secret || f.DPoPThumbprint != "thumb" || f.Identity.IsZero() || !f.RevokedAt.IsZero() {
		s.Errorf("family %+v", f)
	}
	if !reflect.DeepEqual(f.Scope, in.Family.Scope) || !reflect.DeepEqual(f.Audience, in.Family.Audience) || !reflect.DeepEqual(f.AMR, in.Family.AMR) {
		s.Errorf("lists of the family %+v", f)
	}
	if !f.AuthTime.Equal(storage.RoundTime(in.Family.AuthTime)) {
		s.Errorf("auth_time %v, want %v", f.AuthTime, in.Family.AuthTime)
	}
	if f.CreatedAt.Before(before) || !f.RotatedAt.Equal(f.CreatedAt) ||
		!f.ExpiresAt.Equal(f.CreatedAt.Add(long)) || !f.IdleExpiresAt.Equal(f.CreatedAt.Add(long/2)) {
		s.Errorf("times of the family %+v", f)
	}
	stored, err := s.store.Family(s.Context(), f.ID)
	s.must(err)
	if !reflect.DeepEqual(stored, f) {
		s.Errorf("stored family %+v, want %+v", stored, f)
	}
	user, err := s.store.User(s.Context(), res.UserID)
	s.must(err)
	if user.ID != res.UserID || user.Profile != in.NewProfile || user.Disabled || user.CreatedAt.Before(before) || user.UpdatedAt.IsZero() {
		s.Errorf("user %+v", user)
	}
	identity, err := s.store.Identity(s.Context(), f.Identity)
	s.must(err)
	if identity.AppID != appID || identity.WeChatOpenID != "o-new" || identity.UnionID != "union-new" ||
		identity.OpenPlatform != platform || identity.UserID != res.UserID || identity.LinkedAt.Before(before) {
		s.Errorf("identity %+v", identity)
	}
}

func (s *suite) signInAgain() {
	first := s.signIn(request("o-again"))
	again := request("o-again")
	again.NewProfile.Nickname = "not for a known user"
	second := s.signIn(again)
	if second.Created || second.UserID != first.UserID || second.Family.ID == first.Family.ID || second.Family.Identity != first.Family.Identity {
		s.Fatalf("second sign-in %+v after %+v", second, first)
	}
	user, err := s.store.User(s.Context(), first.UserID)
	s.must(err)
	if user.Profile.Nickname != "nick of o-again" {
		s.Errorf("a later sign-in changed the profile to %+v", user.Profile)
	}
	s.wantRotate(first.Family.ID, 0, 0, storage.RotateOK) // sign-ins live beside each other

	made := request("o-again")
	made.Family.ID, made.Family.Secret = storage.FamilyID{}, storage.FamilySecret{}
	third := s.signIn(made)
	if third.Family.ID.IsZero() || third.Family.Secret == (storage.FamilySecret{}) {
		s.Error("the store did not make the id and the secret that were left to it")
	}
}

func (s *suite) signInOpenIDPerApp() {
	one := s.signIn(request("o-same"))
	in := request("o-same")
	in.AppID = otherApp
	two := s.signIn(in)
	if !two.Created || two.UserID == one.UserID {
		s.Fatal("one openid under two appids is one identity")
	}
	three := request("o-third")
	three.OpenPlatform = platform // an empty unionid never matches
	four := request("o-fourth")
	four.OpenPlatform = platform
	if a, b := s.signIn(three), s.signIn(four); a.UserID == b.UserID {
		s.Fatal("two people without a unionid are one user")
	}
}

// union is a sign-in with a unionid.
func union(app, openID, platform, unionID string) storage.SignIn {
	in := request(openID)
	in.AppID, in.OpenPlatform, in.UnionID = app, platform, unionID
	return in
}

func (s *suite) signInUnion() {
	one := s.signIn(union(appID, "o1", platform, "u1"))
	two := s.signIn(union(otherApp, "o2", platform, "u1"))
	if two.Created || two.Conflict || two.UserID != one.UserID {
		s.Fatalf("the unionid did not link: %+v", two)
	}
	identity, err := s.store.Identity(s.Context(), two.Family.Identity)
	s.must(err)
	if identity.WeChatOpenID != "o2" || identity.UnionID != "u1" || identity.UserID != one.UserID {
		s.Errorf("linked identity %+v", identity)
	}
	again := s.signIn(union(otherApp, "o2", platform, "u1"))
	if again.Created || again.Conflict || again.UserID != one.UserID {
		s.Errorf("second sign-in of the linked identity %+v", again)
	}
	// Without an open platform a unionid says nothing.
	alone := s.signIn(union("wx3333333333333333", "o3", "", "u1"))
	if !alone.Created || alone.UserID == one.UserID {
		s.Errorf("an app outside the open platform was linked: %+v", alone)
	}
	if identity, err = s.store.Identity(s.Context(), alone.Family.Identity); err != nil || identity.UnionID != "" {
		s.Errorf("identity outside the open platform %+v, %v", identity, err)
	}
}

func (s *suite) signInUnionLater() {
	one := s.signIn(union(appID, "o1", platform, ""))
	upgraded := s.signIn(union(appID, "o1", platform, "u1"))
	if upgraded.Created || upgraded.Conflict || upgraded.UserID != one.UserID {
		s.Fatalf("sign-in with the first unionid %+v", upgraded)
	}
	identity, err := s.store.Identity(s.Context(), one.Family.Identity)
	s.must(err)
	if identity.UnionID != "u1" || identity.WeChatOpenID != "o1" || identity.OpenPlatform != platform {
		s.Errorf("upgraded identity %+v", identity)
	}
	if two := s.signIn(union(otherApp, "o2", platform, "u1")); two.UserID != one.UserID {
		s.Errorf("the unionid that came later does not link: %+v", two)
	}
	// A sign-in without a unionid loses nothing.
	s.signIn(union(appID, "o1", platform, ""))
	if identity, err = s.store.Identity(s.Context(), one.Family.Identity); err != nil || identity.UnionID != "u1" {
		s.Errorf("identity after a sign-in without unionid %+v, %v", identity, err)
	}
	// An identity may join the unionid of its own user later, too.
	three := s.signIn(union("wx3333333333333333", "o3", platform, "u3"))
	bare := s.signIn(union("wx4444444444444444", "o4", platform, ""))
	joined := s.signIn(union("wx4444444444444444", "o4", platform, "u3"))
	if !joined.Conflict || joined.ConflictUserID != three.UserID || joined.UserID != bare.UserID {
		s.Errorf("a user with an own identity was merged: %+v", joined)
	}
}

// signInUnionSameApp: a person has one openid of an app, so a second one with
// the same unionid is somebody else's and comes into no account.
func (s *suite) signInUnionSameApp() {
	owner := s.wantOK(union(appID, "o1", platform, "u1"))
	other := s.signIn(union(appID, "o2", platform, "u1"))
	if other.Verdict != storage.SignInOK || !other.Created || !other.Conflict || other.ConflictUserID != owner.UserID || other.UserID == owner.UserID {
		s.Fatalf("a second openid: %+v", other)
	}
	if _, err := s.store.SignInUser(s.Context(), storage.Identity{AppID: appID, WeChatOpenID: "o3", UnionID: "u1", OpenPlatform: platform}); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("SignInUser of a third openid: %v", err)
	}
	known := union(appID, "o4", platform, "u1")
	known.RequireKnown = true
	s.wantRefused(known, storage.SignInAccountRequired)

	// A ban of the unionid's user holds for it, too.
	s.must(s.store.SetUserDisabled(s.Context(), owner.UserID, true))
	s.wantRefused(union(appID, "o8", platform, "u1"), storage.SignInUserDisabled)

	// Nor by way of a binding in another app.
	account := s.account("ming")
	s.wantOK(bound(union(appID, "o5", platform, "u5"), account))
	s.wantOK(bound(union(otherApp, "o6", platform, "u6"), account))
	eve := s.signIn(union(appID, "o7", platform, "u6"))
	if eve.UserID == account || !eve.Conflict {
		s.Errorf("%+v", eve)
	}
	s.wantIdentities(account, "o5", "o6")
	s.check()
}

func (s *suite) signInUnionConflict() {
	one := s.signIn(union(appID, "o1", platform, "u1"))
	two := s.signIn(union(appID, "o2", platform, "u2"))

	// The openid is one's, the unionid is two's.
	got := s.signIn(union(appID, "o1", platform, "u2"))
	if got.Verdict != storage.SignInOK || !got.Conflict || got.ConflictUserID != two.UserID || got.UserID != one.UserID || got.Created {
		s.Fatalf("conflicting sign-in %+v, users %s and %s", got, one.UserID, two.UserID)
	}
	// The openid's unionid changed to one that nobody has.
	got = s.signIn(union(appID, "o1", platform, "u9"))
	if got.Verdict != storage.SignInOK || !got.Conflict || got.ConflictUserID != "" || got.UserID != one.UserID {
		s.Fatalf("sign-in with a changed unionid %+v", got)
	}
	// No link has changed.
	identity, err := s.store.Identity(s.Context(), one.Family.Identity)
	s.must(err)
	if identity.UnionID != "u1" || identity.UserID != one.UserID {
		s.Errorf("identity after conflicts %+v", identity)
	}
	for unionID, want := range map[string]string{"u1": one.UserID, "u2": two.UserID} {
		if got := s.signIn(union(otherApp, "o-"+unionID, platform, unionID)); got.UserID != want || got.Conflict {
			s.Errorf("unionid %s leads to %+v, want user %s", unionID, got, want)
		}
	}
	if got := s.signIn(union(otherApp, "o-u9", platform, "u9")); !got.Created || got.Conflict {
		s.Errorf("the refused unionid was recorded: %+v", got)
	}
}

func (s *suite) signInUnionOtherPlatform() {
	one := s.signIn(union(appID, "o1", "one", "u1"))
	two := s.signIn(union(otherApp, "o2", "two", "u1"))
	if !two.Created || two.UserID == one.UserID {
		s.Fatal("unionids of two open platforms were taken for one")
	}
	// The operator moves the first app: its unionids are new ones.
	moved := s.signIn(union(appID, "o1", "three", "u1"))
	if moved.Conflict || moved.UserID != one.UserID {
		s.Fatalf("sign-in after the move %+v", moved)
	}
	if linked := s.signIn(union("wx3333333333333333", "o3", "three", "u1")); linked.UserID != one.UserID {
		s.Errorf("the new open platform does not link: %+v", linked)
	}
}

func (s *suite) signInIdempotency() {
	key := digest("client", "key")
	in := request("o-idem")
	in.Idempotency = &storage.Idempotency{Key: key, Form: digest("form"), Lifetime: long}
	if _, ok, err := s.store.Idempotency(s.Context(), key); ok || err != nil {
		s.Fatalf("Idempotency before = %v, %v", ok, err)
	}
	first := s.signIn(in)
	rec, ok, err := s.store.Idempotency(s.Context(), key)
	s.must(err)
	if !ok || rec.FamilyID != first.Family.ID || rec.Form != digest("form") {
		s.Fatalf("Idempotency = %+v, %v", rec, ok)
	}
	again := request("o-idem-other")
	again.Idempotency = &storage.Idempotency{Key: key, Form: digest("another form"), Lifetime: long}
	if res := s.signIn(again); res.Verdict != storage.SignInIdempotencyTaken {
		s.Fatalf("second sign-in with the key %+v", res)
	}
	if _, err := s.store.Family(s.Context(), again.Family.ID); err != storage.ErrNotFound {
		s.Errorf("the refused sign-in left a family: %v", err)
	}
	if users, _, err := s.store.PageUsers(s.Context(), "", 10); err != nil || len(users) != 1 {
		s.Errorf("the refused sign-in left a user: %d users, %v", len(users), err)
	}

	brief := digest("client", "brief")
	in = request("o-idem")
	in.Idempotency = &storage.Idempotency{Key: brief, Lifetime: s.short()}
	s.signIn(in)
	s.outlive()
	if _, ok, err := s.store.Idempotency(s.Context(), brief); ok || err != nil {
		s.Errorf("Idempotency after its lifetime = %v, %v", ok, err)
	}
	in = request("o-idem")
	in.Idempotency = &storage.Idempotency{Key: brief, Lifetime: long}
	if res := s.signIn(in); res.Verdict != storage.SignInOK {
		s.Errorf("sign-in after the key's lifetime: verdict %d", res.Verdict)
	}
	if rec, ok, err := s.store.Idempotency(s.Context(), brief); err != nil || !ok || rec.FamilyID != in.Family.ID {
		s.Errorf("renewed Idempotency = %+v, %v, %v", rec, ok, err)
	}
}

func (s *suite) signInDisabled() {
	one := s.signIn(union(appID, "o1", platform, "u1"))
	s.must(s.store.SetUserDisabled(s.Context(), one.UserID, true))
	for name, in := range map[string]storage.SignIn{
		"by openid":  union(appID, "o1", platform, "u1"),
		"by unionid": union(otherApp, "o2", platform, "u1"),
	} {
		in.Idempotency = &storage.Idempotency{Key: digest(name), Lifetime: long}
		if res := s.signIn(in); res.Verdict != storage.SignInUserDisabled {
			s.Errorf("%s: %+v", name, res)
		}
		if _, err := s.store.Family(s.Context(), in.Family.ID); err != storage.ErrNotFound {
			s.Errorf("%s: a family was written: %v", name, err)
		}
		if _, ok, err := s.store.Idempotency(s.Context(), digest(name)); ok || err != nil {
			s.Errorf("%s: an idempotency record was written: %v, %v", name, ok, err)
		}
	}
	s.must(s.store.SetUserDisabled(s.Context(), one.UserID, false))
	res := s.signIn(union(otherApp, "o2", platform, "u1"))
	if res.Verdict != storage.SignInOK || res.UserID != one.UserID {
		s.Errorf("sign-in after enabling %+v", res)
	}
	s.wantAccess(res.Family.ID, "", storage.AccessActive)
}

func (s *suite) signInFamilyIDTaken() {
	f := s.family("o1")
	in := request("o2")
	in.Family.ID = f.ID
	if res, err := s.store.SignIn(s.Context(), in); err == nil {
		s.Fatalf("a second family with one id: %+v", res)
	}
	if got, err := s.store.Family(s.Context(), f.ID); err != nil || got.UserID != f.UserID {
		s.Fatalf("the family was replaced: %+v, %v", got, err)
	}
}
