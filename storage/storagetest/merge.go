package storagetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// anyWay is an unbinding where every other way in counts.
func anyWay(userID string, identities ...storage.Digest) storage.Unbinding {
	return storage.Unbinding{UserID: userID, Identities: identities, WaysIn: storage.WaysIn{Password: true, ExternalID: true, Phone: true}}
}

func (s *suite) unbind() {
	unbind := func(userID string, f storage.Family, want storage.UnbindVerdict) {
		s.Helper()
		commits := s.store.Stats().Commits
		verdict, err := s.store.Unbind(s.Context(), anyWay(userID, f.Identity))
		if err != nil || verdict != want {
			s.Fatalf("Unbind = %d, %v, want %d", verdict, err, want)
		}
		if wrote := s.store.Stats().Commits - commits; (wrote == 1) != (want == storage.UnbindOK) {
			s.Errorf("verdict %d took %d commits", verdict, wrote)
		}
		s.check()
	}
	one := s.wantOK(union(appID, "o1", platform, "u1"))
	unbind(one.UserID, one.Family, storage.UnbindLastWayIn)
	two := s.wantOK(inApp(otherApp, "o-stranger"))
	unbind(two.UserID, one.Family, storage.UnbindMissing)
	unbind(one.UserID, storage.Family{Identity: digest("none")}, storage.UnbindMissing)

	other := s.wantOK(union(otherApp, "o2", platform, "u1"))
	second := s.wantOK(union(appID, "o1", platform, "u1"))
	unbind(one.UserID, one.Family, storage.UnbindOK)
	for _, f := range []storage.Family{one.Family, second.Family} {
		s.wantRotate(f.ID, 0, long, storage.RotateRevoked)
		s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
	}
	s.wantRotate(other.Family.ID, 0, long, storage.RotateRevoked) // signed in with another identity, and ends all the same
	s.wantIdentities(one.UserID, "o2")
	other = s.wantOK(union(otherApp, "o2", platform, "u1"))
	unbind(one.UserID, one.Family, storage.UnbindMissing)
	unbind(one.UserID, other.Family, storage.UnbindLastWayIn)
	if again := s.wantOK(union("wx3333333333333333", "o3", platform, "u1")); again.UserID != one.UserID {
		s.Errorf("the unionid of the other identity was forgotten: %+v", again)
	}

	// Each other way in lets the last identity go.
	for name, in := range map[string]storage.SignIn{
		"password":    bound(union(appID, "o-a", platform, "u-a"), s.account("ming")),
		"external id": external(union(appID, "o-b", platform, "u-b"), "x-1"),
		"phone":       phone(union(appID, "o-c", platform, "u-c"), numberA, false),
	} {
		res := s.wantOK(in)
		s.Log(name)
		unbind(res.UserID, res.Family, storage.UnbindOK)
		s.wantAccess(res.Family.ID, "", storage.AccessFamilyRevoked)
		s.wantIdentities(res.UserID)
		in.Bind, in.Phone, in.Family.ID = nil, nil, storage.NewFamilyID()
		if fresh := s.wantOK(in); !fresh.Created || fresh.UserID == res.UserID {
			s.Errorf("%s: the identity still leads to the user: %+v", name, fresh)
		}
	}
	// A username without a password lets nobody in.
	id := s.account("li")
	res := s.wantOK(bound(inApp(otherApp, "o-d"), id))
	if swapped, err := s.store.SetPassword(s.Context(), id, "hash of li", "", false); err != nil || !swapped {
		s.Fatal(swapped, err)
	}
	unbind(id, res.Family, storage.UnbindLastWayIn)
}

// unbindWays: what counts as a way in is the caller's to say, and all of the
// identities go or none.
func (s *suite) unbindWays() {
	for _, c := range []struct {
		name string
		in   storage.SignIn
		ways storage.WaysIn
	}{
		{"password", bound(inApp(appID, "o-a"), s.account("ming")), storage.WaysIn{Password: true}},
		{"external id", external(inApp(appID, "o-b"), "x-1"), storage.WaysIn{ExternalID: true}},
		{"phone", phone(inApp(appID, "o-c"), numberA, false), storage.WaysIn{Phone: true}},
		{"phone beside an external id", external(phone(inApp(appID, "o-d"), numberB, false), "x-2"), storage.WaysIn{ExternalID: true}},
	} {
		first := s.wantOK(c.in)
		in := c.in
		in.AppID, in.WeChatOpenID, in.Family.ID = otherApp, c.in.WeChatOpenID+"-2", storage.NewFamilyID()
		if in.Bind == nil { // the phone number does not join: bind both by the unionid
			in.UnionID, in.OpenPlatform = "u-c", platform
			again := c.in
			again.Phone, again.UnionID, again.OpenPlatform, again.Family.ID = nil, "u-c", platform, storage.NewFamilyID()
			s.wantOK(again)
			in.Phone = nil
		}
		second := s.wantOK(in)
		if second.UserID != first.UserID {
			s.Fatalf("%s: %+v", c.name, second)
		}
		both := storage.Unbinding{UserID: first.UserID, Identities: []storage.Digest{first.Family.Identity, second.Family.Identity}}
		for _, ways := range []storage.WaysIn{{}, {Password: !c.ways.Password, ExternalID: !c.ways.ExternalID, Phone: !c.ways.Phone}} {
			both.WaysIn = ways
			if verdict, err := s.store.Unbind(s.Context(), both); err != nil || verdict != storage.UnbindLastWayIn {
				s.Fatalf("%s: with %+v %d, %v", c.name, ways, verdict, err)
			}
		}
		s.wantAccess(second.Family.ID, "", storage.AccessActive)
		both.WaysIn = c.ways
		if c.name != "password" { // named, and else whatever there is
			both.Identities, both.All = nil, true
		}
		if verdict, err := s.store.Unbind(s.Context(), both); err != nil || verdict != storage.UnbindOK {
			s.Fatalf("%s: %d, %v", c.name, verdict, err)
		}
		s.wantIdentities(first.UserID)
		for _, f := range []storage.Family{first.Family, second.Family} {
			s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
		}
	}
	for _, none := range []storage.Unbinding{anyWay(s.account("li")), {UserID: s.account("wu"), All: true}, {UserID: storage.NewUserID(), All: true}} {
		if verdict, err := s.store.Unbind(s.Context(), none); err != nil || verdict != storage.UnbindMissing {
			s.Errorf("nothing to unbind: %d, %v", verdict, err)
		}
	}
}

// concurrentUnbind: of two identities that are the only ways in, one stays.
func (s *suite) concurrentUnbind() {
	for round := range 20 {
		u := fmt.Sprint("u", round)
		a, b := s.wantOK(union(appID, u+"-a", platform, u)), s.wantOK(union(otherApp, u+"-b", platform, u))
		families := []storage.Family{a.Family, b.Family}
		verdicts := collect(s, 2, func(i int) (storage.UnbindVerdict, error) {
			return s.store.Unbind(s.Context(), storage.Unbinding{UserID: a.UserID, Identities: []storage.Digest{families[i].Identity}})
		})
		slices.Sort(verdicts)
		if verdicts[0] != storage.UnbindOK || verdicts[1] != storage.UnbindLastWayIn {
			s.Fatalf("verdicts %v", verdicts)
		}
	}
	s.check()
}

func (s *suite) merge() {
	from, into := s.account("ming"), s.wantOK(union(otherApp, "o2", platform, "u2"))
	s.wantOK(bound(phone(union(appID, "o1", platform, "u1"), numberA, false), from))
	in := external(inApp("wx3333333333333333", "o3"), "x-1")
	in.Bind.Attributes = storage.Attributes{Roles: []string{"buyer"}}
	x := s.wantOK(in)
	if res, err := s.store.Merge(s.Context(), x.UserID, from, false); err != nil || res.Verdict != storage.MergeOK || !res.ExternalID || res.Identities != 1 {
		s.Fatalf("Merge = %+v, %v", res, err)
	}
	s.wantRetired(x.UserID, x.Family)
	last := s.wantOK(union(appID, "o1", platform, "u1"))
	old := s.user(from)

	want := storage.MergeResult{Verdict: storage.MergeOK, Identities: 2, Username: true, Phone: true, ExternalID: true, Families: 2}
	commits := s.store.Stats().Commits
	res, err := s.store.Merge(s.Context(), from, into.UserID, true)
	if err != nil || res != want || s.store.Stats().Commits != commits {
		s.Errorf("dry run %+v, %v, want %+v", res, err, want)
	}
	if s.user(from).Retired {
		s.Fatal("the dry run retired the user")
	}
	if res, err = s.store.Merge(s.Context(), from, into.UserID, false); err != nil || res != want {
		s.Errorf("Merge = %+v, %v, want %+v", res, err, want)
	}
	s.wantRetired(from, last.Family)
	s.wantRotate(into.Family.ID, 0, 0, storage.RotateOK)
	s.wantIdentities(into.UserID, "o2", "o1", "o3")
	user := s.user(into.UserID)
	if user.Username != "ming" || user.Phone != numberA || user.ExternalID != "x-1" || !user.HasPassword ||
		!reflect.DeepEqual(user.Attributes, in.Bind.Attributes) || !user.PhoneVerifiedAt.Equal(old.PhoneVerifiedAt) || user.Profile.Nickname != "nick of o2" {
		s.Errorf("user after the merger %+v", user)
	}
	if account, err := s.store.AccountByUsername(s.Context(), "ming"); err != nil || account.UserID != into.UserID || account.PasswordHash != "hash of ming" {
		s.Errorf("account after the merger %+v, %v", account, err)
	}
	for _, in := range []storage.SignIn{request("o1"), union("wx4444444444444444", "o4", platform, "u1"), external(request("o1"), "x-1")} {
		if got := s.wantOK(in); got.UserID != into.UserID {
			s.Errorf("sign-in after the merger leads to %s", got.UserID)
		}
	}
}

func (s *suite) mergeRefusals() {
	banned := s.wantOK(inApp("wx5555555555555555", "o-banned"))
	s.must(s.store.SetUserDisabled(s.Context(), banned.UserID, true))
	named, other := s.account("ming"), s.account("li")
	phoneA, phoneB := s.wantOK(phone(request("o1"), numberA, false)), s.wantOK(phone(inApp(otherApp, "o2"), numberB, false))
	extA, extB := s.wantOK(external(inApp("wx3", "o3"), "x-1")), s.wantOK(external(inApp("wx4", "o4"), "x-2"))
	same := s.wantOK(request("o5"))
	gone := s.wantOK(inApp("wx5", "o6"))
	if found, err := s.store.Erase(s.Context(), gone.UserID); !found || err != nil {
		s.Fatal(found, err)
	}
	rows := s.rows()
	for _, c := range []struct {
		name, from, into string
		want             storage.MergeVerdict
	}{
		{"disabled from", banned.UserID, named, storage.MergeDisabled},
		{"disabled into", named, banned.UserID, storage.MergeDisabled},
		{"itself", named, named, storage.MergeSame},
		{"unknown from", storage.NewUserID(), named, storage.MergeMissing},
		{"unknown into", named, storage.NewUserID(), storage.MergeMissing},
		{"retired from", gone.UserID, named, storage.MergeMissing},
		{"retired into", named, gone.UserID, storage.MergeMissing},
		{"same app", phoneA.UserID, same.UserID, storage.MergeSameApp},
		{"usernames", named, other, storage.MergeBothUsernames},
		{"phones", phoneA.UserID, phoneB.UserID, storage.MergeBothPhones},
		{"external ids", extA.UserID, extB.UserID, storage.MergeBothExternalIDs},
	} {
		for _, dryRun := range []bool{true, false} {
			if res, err := s.store.Merge(s.Context(), c.from, c.into, dryRun); err != nil || res != (storage.MergeResult{Verdict: c.want}) {
				s.Errorf("%s: %+v, %v, want verdict %d", c.name, res, err, c.want)
			}
		}
	}
	if after := s.rows(); after != rows {
		s.Errorf("refused mergers left %d rows, %d before", after, rows)
	}
	s.check()
	// Mergers that cross leave one of the two.
	results := collect(s, callers, func(i int) (storage.MergeResult, error) {
		if i%2 == 0 {
			return s.store.Merge(s.Context(), named, phoneA.UserID, false)
		}
		return s.store.Merge(s.Context(), phoneA.UserID, named, false)
	})
	if n := slices.IndexFunc(results, func(r storage.MergeResult) bool { return r.Verdict == storage.MergeOK }); n < 0 ||
		s.user(named).Retired == s.user(phoneA.UserID).Retired {
		s.Errorf("users after crossing mergers: %+v, %+v", s.user(named), s.user(phoneA.UserID))
	}
	s.check()
}

func (s *suite) erase() {
	base := s.rows()
	id := s.account("ming")
	in := bound(phone(union(appID, "o1", platform, "u1"), numberA, false), id)
	in.SessionKey, in.SessionKeyLifetime = secret.New("key"), long
	in.Absolute = s.seen()
	first := s.wantOK(in)
	in = external(union(otherApp, "o2", platform, "u2"), "x-1")
	in.Absolute = s.seen()
	x := s.wantOK(in)
	if res, err := s.store.Merge(s.Context(), x.UserID, id, false); err != nil || res.Verdict != storage.MergeOK {
		s.Fatalf("Merge = %+v, %v", res, err)
	}
	if found, err := s.store.Erase(s.Context(), id); !found || err != nil {
		s.Fatalf("Erase = %v, %v", found, err)
	}
	s.wantRetired(id, first.Family)
	for _, again := range []string{id, x.UserID, storage.NewUserID()} {
		if found, err := s.store.Erase(s.Context(), again); found || err != nil {
			s.Errorf("Erase of who is not there: %v, %v", found, err)
		}
	}
	if _, err := s.store.AccountByUsername(s.Context(), "ming"); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("AccountByUsername: %v", err)
	}
	if _, _, err := s.store.IdentityUser(s.Context(), appID, "o1"); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("IdentityUser: %v", err)
	}
	if _, err := s.store.Identity(s.Context(), first.Family.Identity); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("Identity: %v", err)
	}
	if keys, err := s.store.SessionKeys(s.Context(), first.Family.Identity); err != nil || len(keys) != 0 {
		s.Errorf("%d session_keys, %v", len(keys), err)
	}
	if s.Bubble {
		time.Sleep(long + 2*time.Second)
		s.collectGarbage(100)
		if rows := s.rows(); rows != base+2 {
			s.Errorf("%d rows are left, want two tombstones above %d", rows, base)
		}
	}
	// Whoever comes with the same values is somebody else.
	ids := map[string]bool{id: true, x.UserID: true}
	for name, in := range map[string]storage.SignIn{
		"identity":    request("o1"),
		"unionid":     union("wx3", "o3", platform, "u1"),
		"unionid 2":   union("wx4", "o4", platform, "u2"),
		"phone":       phone(inApp("wx5", "o5"), numberA, true),
		"external id": external(inApp("wx6", "o6"), "x-1"),
	} {
		res := s.wantOK(in)
		if !res.Created || ids[res.UserID] {
			s.Errorf("%s leads to user %s", name, res.UserID)
		}
		ids[res.UserID] = true
	}
	if fresh := s.account("ming"); ids[fresh] {
		s.Error("the username leads to the erased user")
	}
}
