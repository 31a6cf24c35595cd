package storagetest

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/wxidp/wxidp/storage"
)

// inApp is a sign-in of somebody in another app than the usual one.
func inApp(app, openID string) storage.SignIn {
	in := request(openID)
	in.AppID = app
	return in
}

func bound(in storage.SignIn, userID string) storage.SignIn {
	in.Bind = &storage.Binding{UserID: userID}
	return in
}

func external(in storage.SignIn, id string) storage.SignIn {
	in.Bind = &storage.Binding{ExternalID: id, Profile: storage.Profile{Nickname: "nick of " + id}}
	return in
}

// wantOK signs in and returns the result.
func (s *suite) wantOK(in storage.SignIn) storage.SignInResult {
	s.Helper()
	res := s.signIn(in)
	if res.Verdict != storage.SignInOK || res.Family.UserID != res.UserID {
		s.Fatalf("SignIn = %+v", res)
	}
	s.wantAccess(res.Family.ID, "", storage.AccessActive)
	return res
}

// wantRefused holds that a sign-in is refused and writes nothing.
func (s *suite) wantRefused(in storage.SignIn, want storage.SignInVerdict) {
	s.Helper()
	rows, commits := s.rows(), s.store.Stats().Commits
	if res := s.signIn(in); res.Verdict != want || res.Created || !res.Family.ID.IsZero() {
		s.Fatalf("SignIn = %+v, want verdict %d", res, want)
	}
	if after := s.store.Stats().Commits; after != commits || s.rows() != rows {
		s.Errorf("a refused sign-in wrote: %d commits, %d rows after %d", after-commits, s.rows(), rows)
	}
	if _, err := s.store.Family(s.Context(), in.Family.ID); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("a refused sign-in left a family: %v", err)
	}
}

func (s *suite) user(id string) storage.User {
	s.Helper()
	user, err := s.store.User(s.Context(), id)
	s.must(err)
	return user
}

// wantRetired holds that nothing is left of a user, and that their families
// ended.
func (s *suite) wantRetired(id string, families ...storage.Family) {
	s.Helper()
	if user := s.user(id); !reflect.DeepEqual(user, storage.User{ID: id, Retired: true}) {
		s.Errorf("retired user %+v", user)
	}
	for _, f := range families {
		if res := s.rotate(f.ID, 0, long); res.Verdict != storage.RotateRevoked && res.Verdict != storage.RotateMissing {
			s.Errorf("family of a retired user: verdict %d", res.Verdict)
		}
		access, err := s.store.CheckAccess(s.Context(), storage.AccessCheck{FamilyID: f.ID})
		if err != nil || access.Verdict != storage.AccessFamilyRevoked && access.Verdict != storage.AccessFamilyMissing {
			s.Errorf("family of a retired user: %+v, %v", access, err)
		}
	}
	for name, err := range map[string]error{
		"RevokeUser":      s.store.RevokeUser(s.Context(), id, "x"),
		"SetUserDisabled": s.store.SetUserDisabled(s.Context(), id, true),
	} {
		if !errors.Is(err, storage.ErrNotFound) {
			s.Errorf("%s of a retired user: %v", name, err)
		}
	}
	if _, err := s.store.Identities(s.Context(), id); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("Identities of a retired user: %v", err)
	}
	s.check()
}

// wantIdentities holds which identities a user has, by openid, in their order.
func (s *suite) wantIdentities(userID string, want ...string) {
	s.Helper()
	list, err := s.store.Identities(s.Context(), userID)
	s.must(err)
	var got []string
	for _, identity := range list {
		if identity.UserID != userID {
			s.Errorf("identity of user %s in the list of %s", identity.UserID, userID)
		}
		got = append(got, identity.WeChatOpenID)
		user, index, err := s.store.IdentityUser(s.Context(), identity.AppID, identity.WeChatOpenID)
		s.must(err)
		direct, err := s.store.Identity(s.Context(), index)
		s.must(err)
		sameUser, err := s.store.SignInUser(s.Context(), identity)
		s.must(err)
		if sameUser.ID != userID {
			s.Errorf("SignInUser leads to %s, want %s", sameUser.ID, userID)
		}
		if identity.UnionID != "" {
			// Another app of the open platform, where the user was never seen.
			sameUser, err = s.store.SignInUser(s.Context(), storage.Identity{
				AppID: "wx-unseen", WeChatOpenID: "unseen", UnionID: identity.UnionID, OpenPlatform: identity.OpenPlatform})
			if s.must(err); sameUser.ID != userID {
				s.Errorf("SignInUser by unionid leads to %s, want %s", sameUser.ID, userID)
			}
		}
		if user.ID != userID || direct != identity {
			s.Errorf("IdentityUser leads to %s, Identity to %+v, want %s and %+v", user.ID, direct, userID, identity)
		}
	}
	if !reflect.DeepEqual(got, want) {
		s.Errorf("identities %v, want %v", got, want)
	}
	s.check()
}

// account makes an account with a username and a password.
func (s *suite) account(username string) string {
	s.Helper()
	res, err := s.store.CreateAccount(s.Context(), storage.NewAccount{
		Username: username, PasswordHash: "hash of " + username, Profile: storage.Profile{Nickname: "nick of " + username},
	})
	s.must(err)
	if res.Verdict != storage.AccountCreated || res.UserID == "" {
		s.Fatalf("CreateAccount = %+v", res)
	}
	return res.UserID
}

func (s *suite) bindNew() {
	a := s.account("ming")
	res := s.wantOK(bound(union(appID, "o1", platform, "u1"), a))
	if res.UserID != a || res.Created || res.Conflict {
		s.Fatalf("bound sign-in %+v", res)
	}
	s.wantIdentities(a, "o1")
	if user := s.user(a); user.Profile.Nickname != "nick of ming" || user.Username != "ming" || !user.HasPassword {
		s.Errorf("user %+v", user)
	}
	if again := s.wantOK(bound(union(appID, "o1", platform, "u1"), a)); again.UserID != a {
		s.Errorf("bound again: %+v", again)
	}
	if silent := s.wantOK(union(appID, "o1", platform, "u1")); silent.UserID != a || silent.Created {
		s.Errorf("silent sign-in after binding %+v", silent)
	}
	if other := s.wantOK(union(otherApp, "o2", platform, "u1")); other.UserID != a {
		s.Errorf("the unionid does not lead to the account: %+v", other)
	}
	s.wantIdentities(a, "o1", "o2")
}

func (s *suite) bindMovesBareUser() {
	a := s.account("ming")
	first := s.wantOK(union(appID, "o1", platform, "u1"))
	res := s.wantOK(bound(union(appID, "o1", platform, "u1"), a))
	if res.UserID != a || res.Created || res.Conflict || res.Family.Identity != first.Family.Identity {
		s.Fatalf("bound sign-in %+v", res)
	}
	s.wantRetired(first.UserID, first.Family)
	s.wantIdentities(a, "o1")
	identity, err := s.store.Identity(s.Context(), first.Family.Identity)
	s.must(err)
	if identity.UnionID != "u1" || identity.OpenPlatform != platform {
		s.Errorf("moved identity %+v", identity)
	}
	if other := s.wantOK(union(otherApp, "o2", platform, "u1")); other.UserID != a {
		s.Errorf("the unionid did not move: %+v", other)
	}
}

// bindMovesUnion: the identity is new, but its unionid has a bare user.
func (s *suite) bindMovesUnion() {
	a := s.account("ming")
	w := s.wantOK(union(otherApp, "o-other", platform, "u1"))
	res := s.wantOK(bound(union(appID, "o1", platform, "u1"), a))
	if res.UserID != a || res.Conflict {
		s.Fatalf("bound sign-in %+v", res)
	}
	s.wantRetired(w.UserID, w.Family)
	s.wantIdentities(a, "o-other", "o1")

	// A user with more than that keeps what they have.
	s.wantOK(union(appID, "o5", platform, "u5"))
	s.wantOK(union(otherApp, "o6", platform, "u5"))
	s.wantRefused(bound(union("wx3333333333333333", "o7", platform, "u5"), a), storage.SignInIdentityBound)
	// Nor does a unionid bring a second identity of an app.
	s.wantOK(union(otherApp, "o8", platform, "u8"))
	s.wantRefused(bound(union("wx3333333333333333", "o9", platform, "u8"), a), storage.SignInAccountBound)
}

func (s *suite) bindRefusals() {
	a, b := s.account("ming"), s.account("li")
	s.wantOK(bound(request("o1"), a))
	s.wantRefused(bound(request("o1"), b), storage.SignInIdentityBound)
	s.wantRefused(external(request("o1"), "x-1"), storage.SignInIdentityBound)
	s.wantRefused(bound(request("o2"), a), storage.SignInAccountBound)
	bare := s.wantOK(request("o3"))
	s.wantRefused(bound(request("o3"), a), storage.SignInAccountBound)
	if user := s.user(bare.UserID); user.Retired {
		s.Error("a refused binding retired the user")
	}
	s.wantRefused(bound(request("o4"), storage.NewUserID()), storage.SignInAccountMissing)
	s.wantOK(bound(request("o3"), b))
	s.wantRefused(bound(request("o4"), bare.UserID), storage.SignInAccountMissing)

	c := s.account("wang")
	s.must(s.store.SetUserDisabled(s.Context(), c, true))
	s.wantRefused(bound(request("o4"), c), storage.SignInUserDisabled)
	locked := s.wantOK(request("o5"))
	s.must(s.store.SetUserDisabled(s.Context(), locked.UserID, true))
	s.wantRefused(bound(request("o5"), s.account("zhao")), storage.SignInUserDisabled) // no way out by binding

	// A password that was changed since it was looked at proves nothing.
	e := s.account("chen")
	if swapped, err := s.store.SetPassword(s.Context(), e, "hash of chen", "new", true); err != nil || !swapped {
		s.Fatal(swapped, err)
	}
	s.wantRefused(bound(request("o6"), e), storage.SignInAccountMissing)
	fresh := bound(request("o6"), e)
	account, err := s.store.AccountByUsername(s.Context(), "chen")
	s.must(err)
	fresh.Bind.Epoch = account.Epoch
	s.wantOK(fresh)

	for name, bind := range map[string]storage.Binding{"neither": {}, "both": {UserID: a, ExternalID: "x"}} {
		in := request("o9")
		in.Bind = &bind
		if res, err := s.store.SignIn(s.Context(), in); err == nil {
			s.Errorf("%s account named: %+v", name, res)
		}
	}
	s.check()
}

func (s *suite) bindExternal() {
	in := external(request("o1"), "x-1")
	in.Bind.Attributes = storage.Attributes{Roles: []string{"buyer"}, Claims: map[string]string{"level": "3"}}
	first := s.wantOK(in)
	user := s.user(first.UserID)
	if !first.Created || user.ExternalID != "x-1" || user.Profile.Nickname != "nick of x-1" || !reflect.DeepEqual(user.Attributes, in.Bind.Attributes) {
		s.Fatalf("new external account %+v, %+v", first, user)
	}
	again := external(inApp(otherApp, "o2"), "x-1")
	again.Bind.Attributes = storage.Attributes{Roles: []string{"seller"}}
	again.Bind.Profile.Nickname = "not for a known user"
	res := s.wantOK(again)
	user = s.user(first.UserID)
	if res.Created || res.UserID != first.UserID || !reflect.DeepEqual(user.Attributes, again.Bind.Attributes) || user.Profile.Nickname != "nick of x-1" {
		s.Errorf("second binding %+v, %+v", res, user)
	}
	s.wantIdentities(first.UserID, "o1", "o2")
	silent := s.wantOK(external(request("o1"), "x-1")) // its system says nothing of the user now
	if user = s.user(silent.UserID); silent.UserID != first.UserID || !reflect.DeepEqual(user.Attributes, storage.Attributes{}) {
		s.Errorf("third binding %+v, %+v", silent, user)
	}
	// A bare user becomes the new external account's.
	bare := s.wantOK(request("o3"))
	res = s.wantOK(external(request("o3"), "x-3"))
	if !res.Created || res.UserID == bare.UserID {
		s.Errorf("binding of a bare user %+v", res)
	}
	s.wantRetired(bare.UserID, bare.Family)
	s.wantIdentities(res.UserID, "o3")
}

// bindUnionConflict: a unionid that comes later and is another's changes
// nothing about the binding.
func (s *suite) bindUnionConflict() {
	a := s.account("ming")
	w := s.wantOK(union(otherApp, "o-w", platform, "u1"))
	s.wantOK(union(appID, "o1", platform, ""))
	res := s.wantOK(bound(union(appID, "o1", platform, "u1"), a))
	if res.UserID != a || !res.Conflict || res.ConflictUserID != w.UserID {
		s.Errorf("bound sign-in %+v", res)
	}
	s.wantIdentities(a, "o1")
	s.wantIdentities(w.UserID, "o-w")
}

func (s *suite) requireKnown() {
	known := func(in storage.SignIn) storage.SignIn {
		in.RequireKnown = true
		return in
	}
	s.wantRefused(known(union(appID, "o1", platform, "u1")), storage.SignInAccountRequired)
	s.wantRefused(known(phone(request("o1"), "+8613800138000", true)), storage.SignInAccountRequired)
	s.wantRefused(known(phone(request("o1"), "+8613800138000", false)), storage.SignInAccountRequired)
	res := s.wantOK(known(external(union(appID, "o1", platform, "u1"), "x-1")))
	for name, in := range map[string]storage.SignIn{
		"identity": union(appID, "o1", platform, "u1"),
		"unionid":  union(otherApp, "o2", platform, "u1"),
		"binding":  bound(inApp("wx3333333333333333", "o3"), res.UserID),
	} {
		if got := s.wantOK(known(in)); got.UserID != res.UserID || got.Created {
			s.Errorf("%s: %+v", name, got)
		}
	}
}

// Threat 72: of many first bindings of one account only one is made.
func (s *suite) concurrentBind() {
	a := s.account("ming")
	for name, bind := range map[string]func(in storage.SignIn) storage.SignIn{
		"user":     func(in storage.SignIn) storage.SignIn { return bound(in, a) },
		"external": func(in storage.SignIn) storage.SignIn { return external(in, "x-1") },
	} {
		for i := 0; i < callers; i += 2 {
			s.wantOK(request(fmt.Sprint(name, i))) // half of them have bare users
		}
		results := collect(s, callers, func(i int) (storage.SignInResult, error) {
			return s.store.SignIn(s.Context(), bind(request(fmt.Sprint(name, i))))
		})
		won := ""
		for _, res := range results {
			switch {
			case res.Verdict == storage.SignInOK && won == "":
				won = res.UserID
			case res.Verdict != storage.SignInAccountBound:
				s.Fatalf("%s: %+v", name, res)
			}
		}
		list, err := s.store.Identities(s.Context(), won)
		if err != nil || len(list) != 1 {
			s.Errorf("%s: %d identities, %v", name, len(list), err)
		}
	}
	// Many sign-ins of one identity that bind it are all right.
	b := s.account("li")
	for _, res := range collect(s, callers, func(int) (storage.SignInResult, error) {
		return s.store.SignIn(s.Context(), bound(request("o-same"), b))
	}) {
		if res.Verdict != storage.SignInOK || res.UserID != b {
			s.Errorf("%+v", res)
		}
	}
	s.wantIdentities(b, "o-same")
}
