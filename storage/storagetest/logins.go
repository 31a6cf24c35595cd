package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/wxidp/wxidp/storage"
)

const otherClient = "shop-web"

// loginStart is a sign-in of a user with a browser, whose cookie is named.
func (s *suite) loginStart(userID, cookie string) storage.LoginStart {
	s.Helper()
	return storage.LoginStart{
		Account:  storage.Binding{UserID: userID, Epoch: s.user(userID).Epoch},
		Session:  storage.LoginSession{Token: digest("cookie", cookie), AMR: []string{"pwd"}, Browser: "Chrome, Windows", Network: "CN"},
		Idle:     long,
		Absolute: 2 * long,
	}
}

func (s *suite) startLogin(in storage.LoginStart, want storage.LoginVerdict) storage.LoginResult {
	s.Helper()
	res, err := s.store.StartLogin(s.Context(), in)
	if err != nil || res.Verdict != want {
		s.Fatalf("StartLogin = %+v, %v, want verdict %d", res, err, want)
	}
	return res
}

// login signs a user in with a browser whose cookie is named.
func (s *suite) login(userID, cookie string) storage.LoginSession {
	s.Helper()
	return s.startLogin(s.loginStart(userID, cookie), storage.LoginOK).Session
}

// wantLogin looks where a cookie leads to; a zero id: nowhere.
func (s *suite) wantLogin(cookie string, id storage.LoginID) storage.LoginSession {
	s.Helper()
	login, err := s.store.Login(s.Context(), digest("cookie", cookie))
	if id.IsZero() && !errors.Is(err, storage.ErrNotFound) || !id.IsZero() && (err != nil || login.ID != id) {
		s.Fatalf("cookie %q leads to %+v, %v; want %v", cookie, login, err, id)
	}
	return login
}

func (s *suite) endLogin(id storage.LoginID, want bool, notify ...string) {
	s.Helper()
	if found, err := s.store.EndLogin(s.Context(), id, notify); err != nil || found != want {
		s.Fatalf("EndLogin = %v, %v, want %v", found, err, want)
	}
}

// wantDue compares the logout notices that are due, whatever their order, with
// those of families at their clients.
func (s *suite) wantDue(want ...storage.Family) []storage.LogoutNotice {
	s.Helper()
	due, err := s.store.DueLogouts(s.Context(), 0)
	s.must(err)
	for _, f := range want {
		if !slices.ContainsFunc(due, func(n storage.LogoutNotice) bool {
			return n.ClientID == f.ClientID && n.FamilyID == f.ID && n.UserID == f.UserID && n.Attempts == 0 && !n.EndedAt.IsZero() && !n.ID.IsZero()
		}) {
			s.Errorf("no notice of %v at %s", f.ID, f.ClientID)
		}
	}
	if len(due) != len(want) {
		s.Fatalf("%d notices are due, want %d: %+v", len(due), len(want), due)
	}
	return due
}

func (s *suite) loginStartFresh() {
	ming := s.account("ming")
	before := storage.RoundTime(time.Now())
	login := s.login(ming, "a")
	after := storage.RoundTime(time.Now())
	if login.UserID != ming || login.ID.IsZero() || login.CreatedAt.Before(before) || login.CreatedAt.After(after) ||
		!login.IdleExpiresAt.Equal(login.CreatedAt.Add(long)) || !login.ExpiresAt.Equal(login.CreatedAt.Add(2*long)) ||
		!login.AuthTime.Equal(login.CreatedAt.Truncate(time.Second)) || len(login.Participants) != 0 {
		s.Errorf("login session %+v", login)
	}
	if stored := s.wantLogin("a", login.ID); !reflect.DeepEqual(stored, login) {
		s.Errorf("stored %+v, want %+v", stored, login)
	}
	s.wantLogin("b", storage.LoginID{})
	if _, err := s.store.Login(s.Context(), storage.Digest{}); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("no token: %v", err)
	}
	own := s.loginStart(ming, "own id")
	own.Session.ID, own.Idle = storage.NewLoginID(), 0
	if got := s.startLogin(own, storage.LoginOK).Session; got.ID != own.Session.ID || !got.IdleExpiresAt.Equal(got.ExpiresAt) {
		s.Errorf("login session %+v, want the id given and no idle expiry", got)
	}

	// An account of the product's own system is made once.
	external := storage.LoginStart{
		Account: storage.Binding{ExternalID: "x-1", Profile: storage.Profile{Nickname: "li"}, Attributes: storage.Attributes{Roles: []string{"vip"}}},
		Session: storage.LoginSession{Token: digest("cookie", "c")}, Absolute: long,
	}
	first := s.startLogin(external, storage.LoginOK)
	external.Session.Token, external.Account.Attributes.Roles = digest("cookie", "d"), []string{"basic"}
	second := s.startLogin(external, storage.LoginOK)
	if !first.Created || second.Created || first.Session.UserID != second.Session.UserID || first.Session.ID == second.Session.ID {
		s.Errorf("%+v and %+v", first, second)
	}
	if user := s.user(first.Session.UserID); user.ExternalID != "x-1" || user.Profile.Nickname != "li" || !slices.Equal(user.Attributes.Roles, []string{"basic"}) {
		s.Errorf("user %+v", user)
	}
}

func (s *suite) loginStartRefusals() {
	ming := s.account("ming")
	login := s.login(ming, "a")
	commits := s.store.Stats().Commits
	stale := s.loginStart(ming, "b")
	stale.Account.Epoch++
	s.startLogin(stale, storage.LoginUserMissing)
	stranger := stale
	stranger.Account.UserID = storage.NewUserID()
	s.startLogin(stranger, storage.LoginUserMissing)
	for name, spoil := range map[string]func(*storage.LoginStart){
		"no token":      func(in *storage.LoginStart) { in.Session.Token = storage.Digest{} },
		"a token again": func(in *storage.LoginStart) { in.Session.Token = login.Token },
		"an id again":   func(in *storage.LoginStart) { in.Session.ID = login.ID },
		"no account":    func(in *storage.LoginStart) { in.Account = storage.Binding{} },
		"two accounts":  func(in *storage.LoginStart) { in.Account.ExternalID = "x" },
		"long browser":  func(in *storage.LoginStart) { in.Session.Browser = strings.Repeat("x", 129) },
		"long network":  func(in *storage.LoginStart) { in.Session.Network = strings.Repeat("x", 129) },
		"too much":      func(in *storage.LoginStart) { in.Session.AMR = []string{strings.Repeat("x", storage.MaxValueSize)} },
	} {
		in := s.loginStart(ming, "c")
		spoil(&in)
		if res, err := s.store.StartLogin(s.Context(), in); err == nil || res.Verdict != 0 {
			s.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	if n := s.store.Stats().Commits - commits; n != 0 {
		s.Errorf("refusals took %d commits", n)
	}
	s.wantLogin("a", login.ID)
	in := s.loginStart(ming, "d")
	s.must(s.store.SetUserDisabled(s.Context(), ming, true))
	s.startLogin(in, storage.LoginUserDisabled)
	s.wantLogin("d", storage.LoginID{})
}

// Threat 51: whoever signs in again in the same browser gets another token,
// and the one so far leads nowhere.
func (s *suite) loginReplace() {
	ming, li := s.account("ming"), s.account("li")
	first := s.login(ming, "a")
	f := s.redeemed(s.grant(first))
	if s.Bubble {
		time.Sleep(time.Hour)
	}
	again := s.loginStart(ming, "b")
	again.Replaces, again.Session.AMR, again.Session.Browser, again.Idle, again.Notify = first.ID, []string{"otp"}, "Firefox", long/2, []string{clientID}
	second := s.startLogin(again, storage.LoginOK).Session
	s.wantLogin("a", storage.LoginID{})
	if stored := s.wantLogin("b", first.ID); !reflect.DeepEqual(stored, second) {
		s.Errorf("stored %+v, want %+v", stored, second)
	}
	if second.ID != first.ID || !second.CreatedAt.Equal(first.CreatedAt) || !slices.Equal(second.Participants, []storage.Participant{{ClientID: clientID, FamilyID: f.ID}}) {
		s.Errorf("the login session does not go on: %+v", second)
	}
	if second.Browser != "Firefox" || !slices.Equal(second.AMR, []string{"otp"}) ||
		s.Bubble && (!second.AuthTime.Equal(first.AuthTime.Add(time.Hour)) || !second.ExpiresAt.Equal(first.ExpiresAt.Add(time.Hour)) ||
			!second.IdleExpiresAt.Equal(first.CreatedAt.Add(time.Hour+long/2))) {
		s.Errorf("the login session has what it had: %+v", second)
	}
	s.wantAccess(f.ID, "", storage.AccessActive)
	s.wantDue()

	other := s.loginStart(li, "c")
	other.Replaces, other.Notify = first.ID, []string{clientID, otherClient}
	third := s.startLogin(other, storage.LoginOK).Session
	if third.ID == first.ID || third.UserID != li || len(third.Participants) != 0 {
		s.Errorf("another user's login session %+v", third)
	}
	s.wantLogin("b", storage.LoginID{})
	s.wantLogin("c", third.ID)
	s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
	s.wantDue(f)

	// One that has ended does not come back.
	s.endLogin(third.ID, true)
	fresh := s.loginStart(li, "d")
	fresh.Replaces = third.ID
	if got := s.startLogin(fresh, storage.LoginOK).Session; got.ID == third.ID {
		s.Error("a login session that had ended goes on")
	}
	s.wantLogin("c", storage.LoginID{})
	// A token that leads to another login session is nobody's to take over.
	if res, err := s.store.StartLogin(s.Context(), fresh); err == nil {
		s.Errorf("a token was used twice: %+v", res)
	}
	unknown := s.loginStart(li, "e")
	unknown.Replaces = storage.NewLoginID()
	s.startLogin(unknown, storage.LoginOK)
}

func (s *suite) loginEnd() {
	ming := s.account("ming")
	login, other := s.login(ming, "a"), s.login(ming, "b")
	mini := s.redeemed(s.grant(login))
	web := s.redeemed(s.grantTo(login, otherClient))
	twice := s.redeemed(s.grantTo(login, otherClient))
	offline := s.grantTo(login, otherClient)
	offline.Offline = true
	kept := s.redeemed(offline)
	elsewhere := s.redeemed(s.grant(other))
	pending := s.issue("pending", s.grant(login))

	s.endLogin(storage.NewLoginID(), false)
	s.endLogin(storage.LoginID{}, false)
	s.endLogin(login.ID, true, otherClient)
	s.endLogin(login.ID, false, otherClient, clientID)
	for _, f := range []storage.Family{mini, web, twice} {
		s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
		stored, err := s.store.Family(s.Context(), f.ID)
		if err != nil || stored.RevokedFor != storage.RevokedForLogout || stored.RevokedAt.IsZero() {
			s.Errorf("family %+v, %v", stored, err)
		}
	}
	s.wantRotate(mini.ID, 0, long, storage.RotateRevoked)
	for _, f := range []storage.Family{kept, elsewhere} {
		s.wantAccess(f.ID, "", storage.AccessActive)
	}
	s.wantRotate(elsewhere.ID, 0, 0, storage.RotateOK)
	s.wantDue(web, twice, kept) // one for each family
	s.wantLogin("a", storage.LoginID{})
	if got := s.loginPages(ming, 10); !slices.Equal(got, []storage.LoginID{other.ID}) {
		s.Errorf("login sessions %v", got)
	}
	// What was authorized in it cannot go on.
	if verdict := s.issueVerdict("late", s.grant(login), false); verdict != storage.CodeLoginEnded {
		s.Errorf("IssueCode = %d", verdict)
	}
	if res := s.redeem(pending); res.Verdict != storage.RedeemEnded {
		s.Errorf("Redeem = %+v", res)
	}
	commits := s.store.Stats().Commits
	s.must(s.store.TouchLogin(s.Context(), login.ID, long))
	s.must(s.store.TouchLogin(s.Context(), storage.NewLoginID(), long))
	if n := s.store.Stats().Commits - commits; n != 0 {
		s.Errorf("touching what has ended took %d commits", n)
	}
	s.wantLogin("a", storage.LoginID{})
}

// Threat 23: what ends all sign-ins of a user ends the login sessions, too.
func (s *suite) loginUserEnds() {
	into := s.account("into")
	for name, end := range map[string]func(userID string) error{
		"RevokeUser":      func(id string) error { return s.store.RevokeUser(s.Context(), id, "logout everywhere") },
		"SetUserDisabled": func(id string) error { return s.store.SetUserDisabled(s.Context(), id, true) },
		"SetPassword": func(id string) error {
			_, err := s.store.SetPassword(s.Context(), id, "hash of SetPassword", "changed", true)
			return err
		},
		"Merge": func(id string) error {
			res, err := s.store.Merge(s.Context(), s.family("o-merge").UserID, into, false)
			return errors.Join(err, map[bool]error{false: errors.New("not merged")}[res.Verdict == storage.MergeOK])
		},
		"Erase": func(id string) error { _, err := s.store.Erase(s.Context(), id); return err },
		"Unbind": func(id string) error {
			verdict, err := s.store.Unbind(s.Context(), storage.Unbinding{UserID: id, All: true, WaysIn: storage.WaysIn{Password: true}})
			return errors.Join(err, map[bool]error{false: errors.New("not unbound")}[verdict == storage.UnbindOK])
		},
	} {
		id := ""
		switch name {
		case "Merge":
			id = s.family("o-merge").UserID
		case "Unbind":
			id = s.wantOK(bound(inApp(appID, "o-unbind"), s.account(name))).UserID
		default:
			id = s.account(name)
		}
		login := s.login(id, name)
		grant := s.grant(login)
		f := s.redeemed(grant)
		pending := s.issue("pending "+name, grant)
		s.must(end(id))
		s.wantLogin(name, storage.LoginID{})
		if got := s.loginPages(id, 10); len(got) != 0 {
			s.Errorf("%s: login sessions %v", name, got)
		}
		if res, err := s.store.CheckAccess(s.Context(), storage.AccessCheck{FamilyID: f.ID}); err != nil || res.Verdict == storage.AccessActive {
			s.Errorf("%s: CheckAccess = %+v, %v", name, res, err)
		}
		disabled := name == "SetUserDisabled"
		want, wantCode := storage.RedeemEnded, storage.CodeLoginEnded
		if disabled {
			want, wantCode = storage.RedeemUserDisabled, storage.CodeUserDisabled
		}
		if res := s.redeem(pending); res.Verdict != want {
			s.Errorf("%s: Redeem = %d, want %d", name, res.Verdict, want)
		}
		if verdict := s.issueVerdict("late "+name, grant, true); verdict != wantCode {
			s.Errorf("%s: IssueCode = %d, want %d", name, verdict, wantCode)
		}
		s.endLogin(login.ID, false)
		if disabled {
			s.must(s.store.SetUserDisabled(s.Context(), id, false))
			s.wantLogin(name, storage.LoginID{}) // for good
		}
	}
	s.wantDue()
}

// loginPages returns the ids of a user's login sessions, which must be listed
// in order of creation.
func (s *suite) loginPages(userID string, limit int) (ids []storage.LoginID) {
	s.Helper()
	after := ""
	for range 1000 {
		page, next, err := s.store.PageLogins(s.Context(), userID, after, limit)
		s.must(err)
		if len(page) > limit {
			s.Fatalf("a page of %d, limit %d", len(page), limit)
		}
		for _, login := range page {
			if login.UserID != userID {
				s.Fatalf("another user's login session %+v", login)
			}
			ids = append(ids, login.ID)
		}
		if next == "" {
			if !slices.IsSortedFunc(ids, func(a, b storage.LoginID) int { return bytes.Compare(a[:], b[:]) }) {
				s.Error("the listing is out of order")
			}
			return ids
		}
		after = next
	}
	s.Fatal("the listing has no end")
	return nil
}

func (s *suite) pagingLogins() {
	const people, each = 20, 7 // more people than an engine has shards
	want := map[string][]storage.LoginID{}
	for i := range people * each {
		name := fmt.Sprint("user", i%people)
		id := ""
		if i < people {
			id = s.account(name)
		} else {
			user, err := s.store.UserBy(s.Context(), storage.IndexUsername, name)
			s.must(err)
			id = user.ID
		}
		want[id] = append(want[id], s.login(id, fmt.Sprint(i)).ID)
	}
	for id, ids := range want {
		slices.SortFunc(ids, func(a, b storage.LoginID) int { return bytes.Compare(a[:], b[:]) })
		for _, limit := range []int{1, 3, each, each + 1} {
			if got := s.loginPages(id, limit); !slices.Equal(got, ids) {
				s.Fatalf("limit %d: %v, want %v", limit, got, ids)
			}
		}
		s.endLogin(ids[0], true)
		if got := s.loginPages(id, 2); !slices.Equal(got, ids[1:]) {
			s.Fatalf("after the end of one: %v, want %v", got, ids[1:])
		}
	}
	for _, cursor := range []string{"x", strings.Repeat("A", 21) + "B", strings.Repeat("!", 22)} {
		if _, _, err := s.store.PageLogins(s.Context(), "user", cursor, 1); !errors.Is(err, storage.ErrBadCursor) {
			s.Errorf("cursor %q: %v", cursor, err)
		}
	}
	if got := s.loginPages(storage.NewUserID(), 10); len(got) != 0 {
		s.Errorf("login sessions of nobody: %v", got)
	}
}
