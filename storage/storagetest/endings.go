package storagetest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// tick lets the store's clock go on: what happens at one time happens at once.
func (s *suite) tick() { time.Sleep(10 * time.Millisecond) }

func (s *suite) wantRevoked(userID, client string, want bool, notify ...string) {
	s.Helper()
	if found, err := s.store.RevokeConsent(s.Context(), userID, client, notify); err != nil || found != want {
		s.Fatalf("RevokeConsent = %v, %v, want %v", found, err, want)
	}
}

// device returns the redemption of a device code that was approved now.
func (s *suite) device(login storage.LoginSession, client string) storage.Redemption {
	grant := s.grantTo(login, client)
	grant.LoginID, grant.RedirectURI, grant.Challenge, grant.Nonce = storage.LoginID{}, "", "", ""
	grant.IssuedAt = time.Now()
	in := redemption(storage.NewToken(), grant)
	in.Grant = &grant
	return in
}

// allEnds holds that an end of identities ends all that the user is signed in
// to and lets nothing be taken up any more that was agreed to before, while a
// refusal ends nothing.
func (s *suite) allEnds(reason string, refused func(first, second storage.SignInResult), end func(first, second storage.SignInResult)) {
	first, second := s.wantOK(union(appID, "o1", platform, "u1")), s.wantOK(union(otherApp, "o2", platform, "u1"))
	id := first.UserID
	login, idle := s.login(id, "a"), s.login(id, "b")
	s.endLogin(s.login(id, "c").ID, true)
	in := s.redeemed(s.grant(login))
	grant := s.grantTo(login, otherClient)
	grant.Offline = true
	offline := s.redeemed(grant)
	pending, device := s.issue("pending", s.grant(login)), s.device(login, clientID)
	live := []storage.Family{first.Family, second.Family, in, offline}

	refused(first, second)
	for _, f := range live {
		s.wantAccess(f.ID, "", storage.AccessActive)
	}
	s.wantLogin("a", login.ID)
	s.wantLogin("b", idle.ID)
	s.wantDue()

	commits := s.store.Stats().Commits
	end(first, second)
	if n := s.store.Stats().Commits - commits; n != 1 {
		s.Errorf("%d commits", n)
	}
	for _, f := range live {
		s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
		if stored, err := s.store.Family(s.Context(), f.ID); err != nil || stored.RevokedFor != reason {
			s.Errorf("family %+v, %v", stored, err)
		}
	}
	for _, f := range live[:2] {
		s.wantRotate(f.ID, 0, long, storage.RotateRevoked)
	}
	s.wantLogin("a", storage.LoginID{})
	s.wantLogin("b", storage.LoginID{})
	s.wantRedeem(pending, storage.RedeemEnded)
	s.wantRedeem(device, storage.RedeemEnded)
	if verdict := s.issueVerdict("late", s.grant(login), false); verdict != storage.CodeLoginEnded {
		s.Errorf("IssueCode = %d", verdict)
	}
	// A scan that was approved before signs no browser in.
	scan := s.loginStart(id, "scan")
	scan.Account.Epoch = login.UserEpoch
	s.startLogin(scan, storage.LoginUserMissing)
	s.wantDue(offline) // the only one of a client that wants to know
	s.check()
}

func (s *suite) unbindEndsAll() {
	refuse := func(first, _ storage.SignInResult) {
		none := storage.Unbinding{UserID: first.UserID, All: true, Notify: []string{otherClient}}
		if verdict, err := s.store.Unbind(s.Context(), none); err != nil || verdict != storage.UnbindLastWayIn {
			s.Fatal(verdict, err)
		}
	}
	s.allEnds(storage.RevokedForUnbind, refuse, func(first, _ storage.SignInResult) {
		in := anyWay(first.UserID, first.Family.Identity)
		in.Notify = []string{otherClient}
		if verdict, err := s.store.Unbind(s.Context(), in); err != nil || verdict != storage.UnbindOK {
			s.Fatal(verdict, err)
		}
	})
	// The other app signs in as before.
	again := s.wantOK(union(otherApp, "o2", platform, "u1"))
	s.wantAccess(again.Family.ID, "", storage.AccessActive)
}

func (s *suite) withdrawEndsAll() {
	nobody := func(storage.SignInResult, storage.SignInResult) {
		s.wantWithdrawn(storage.Withdrawal{AppID: appID, WeChatOpenID: "o9", Account: true}, "", storage.WithdrawMissing)
	}
	s.allEnds(storage.RevokedForWeChat, nobody, func(first, _ storage.SignInResult) {
		s.wantWithdrawn(storage.Withdrawal{AppID: appID, WeChatOpenID: "o1", Account: true, Notify: []string{otherClient}}, first.UserID, storage.WithdrawUnbound)
	})
}

// Clients are told of a sign-in that ends because its user goes.
func (s *suite) withdrawErasesAll() {
	res := s.wantOK(request("o1"))
	f := s.redeemed(s.grant(s.login(res.UserID, "a")))
	s.wantWithdrawn(storage.Withdrawal{AppID: appID, WeChatOpenID: "o1", Account: true, Notify: []string{clientID}}, res.UserID, storage.WithdrawErased)
	s.wantLogin("a", storage.LoginID{})
	s.wantDue(f)
	if got := s.loginPages(res.UserID, 10); len(got) != 0 {
		s.Errorf("login sessions %v", got)
	}
}

func (s *suite) consentVoidsGrants() {
	ming, li := s.account("ming"), s.account("li")
	login, other := s.login(ming, "a"), s.login(li, "b")
	offline := s.grantTo(login, otherClient)
	offline.Offline = true
	told := []storage.Family{s.redeemed(s.grantTo(login, otherClient)), s.redeemed(offline)}
	onDevice := s.wantRedeem(s.device(login, otherClient), storage.RedeemOK).Family
	elsewhere := s.redeemed(s.grant(login))
	s.consent(login, otherClient, []string{"openid"}, nil)
	before := []storage.Redemption{s.issue("before", s.grantTo(login, otherClient)), s.device(login, otherClient)}
	same := []storage.Redemption{s.issue("same", s.grantTo(login, otherClient)), s.device(login, otherClient)}
	spared := []storage.Redemption{s.issue("elsewhere", s.grant(login)), s.issue("of li", s.grantTo(other, otherClient))}
	s.wantRevoked(ming, otherClient, true, clientID, otherClient)
	for _, f := range append(told, onDevice) {
		s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
	}
	s.wantAccess(elsewhere.ID, "", storage.AccessActive)
	s.wantDue(told...) // a device has no browser to log out
	s.wantConsents(ming)
	for _, in := range before {
		s.wantRedeem(in, storage.RedeemEnded)
	}
	undated := s.device(login, otherClient)
	undated.Grant.IssuedAt = time.Time{}
	s.wantRedeem(undated, storage.RedeemEnded)
	for _, in := range spared {
		s.wantRedeem(in, storage.RedeemOK)
	}

	// A new consent is good for what follows it, not for what came before.
	s.tick()
	s.consent(login, otherClient, []string{"email"}, nil)
	list := s.wantConsents(ming, storage.Consent{ClientID: otherClient, Scope: []string{"email"}})
	if !list[0].RevokedAt.Before(list[0].GrantedAt) || list[0].RevokedAt.IsZero() {
		s.Errorf("consent %+v", list[0])
	}
	for _, in := range same {
		s.wantRedeem(in, storage.RedeemEnded)
	}
	s.wantRedeem(s.issue("after", s.grantTo(login, otherClient)), storage.RedeemOK)
	s.wantRedeem(s.device(login, otherClient), storage.RedeemOK)

	// Nobody need have been asked for a consent.
	silent := s.issue("silent", s.grantTo(login, "another"))
	s.wantRevoked(ming, "another", false)
	s.wantRedeem(silent, storage.RedeemEnded)
	s.wantRevoked(ming, "another", false)
	commits := s.store.Stats().Commits
	s.wantRevoked(ming, strings.Repeat("x", 1000), false) // no client's
	if n := s.store.Stats().Commits - commits; n != 0 {
		s.Errorf("nothing to do took %d commits", n)
	}

	// What another user took back says nothing of a user who takes them over.
	from := s.family("o1").UserID
	fromLogin := s.login(from, "from")
	s.consent(fromLogin, clientID, []string{"openid"}, nil)
	s.wantRevoked(from, clientID, true)
	s.wantRevoked(from, "another", false)
	s.tick()
	s.consent(fromLogin, clientID, []string{"phone"}, nil)
	pending := s.issue("pending", s.grant(login))
	if res, err := s.store.Merge(s.Context(), from, ming, false); err != nil || res.Verdict != storage.MergeOK {
		s.Fatal(res, err)
	}
	s.wantRedeem(pending, storage.RedeemOK)
	s.wantConsents(ming, storage.Consent{ClientID: clientID, Scope: []string{"phone"}}, storage.Consent{ClientID: otherClient, Scope: []string{"email"}})
}

// A user with more families than an operation looks at loses all of them
// rather than keeping one.
func (s *suite) consentOfMany() {
	ming := s.account("ming")
	login := s.login(ming, "a")
	for range 1001 {
		if res := s.redeem(s.device(login, clientID)); res.Verdict != storage.RedeemOK {
			s.Fatal(res)
		}
	}
	last := s.redeemed(s.grantTo(login, otherClient))
	s.wantRevoked(ming, otherClient, true, otherClient)
	s.wantAccess(last.ID, "", storage.AccessFamilyRevoked)
	if stored, err := s.store.Family(s.Context(), last.ID); err != nil || stored.RevokedFor != storage.RevokedForConsent {
		s.Errorf("family %+v, %v", stored, err)
	}
	s.wantLogin("a", storage.LoginID{})
	s.wantDue(last)
}

func (s *suite) consentNamesBounded() {
	ming := s.account("ming")
	login := s.login(ming, "a")
	names := func(prefix string, n, length int) (out []string) {
		for i := range n {
			name := fmt.Sprintf("%s%04d", prefix, i)
			out = append(out, name+strings.Repeat("x", max(0, length-len(name))))
		}
		return out
	}
	kept := func() storage.Consent {
		s.Helper()
		list, err := s.store.Consents(s.Context(), ming)
		s.must(err)
		size := 0
		for _, name := range slices.Concat(list[0].Scope, list[0].Claims) {
			size += len(name)
		}
		if n := len(list[0].Scope) + len(list[0].Claims); n > storage.MaxConsentNames || size > storage.MaxConsentSize || !slices.IsSorted(list[0].Scope) || !slices.IsSorted(list[0].Claims) {
			s.Fatalf("%d names of %d bytes", n, size)
		}
		return list[0]
	}
	s.consent(login, clientID, names("a", 200, 0), names("b", 200, 0))
	if got := kept(); len(got.Scope) != 200 || len(got.Claims) != storage.MaxConsentNames-200 {
		s.Errorf("%d scopes, %d claims", len(got.Scope), len(got.Claims))
	}
	s.tick()
	newest := []string{"openid", "profile"}
	s.consent(login, clientID, newest, []string{"nickname"})
	got := kept()
	if !slices.Contains(got.Scope, "openid") || !slices.Contains(got.Scope, "profile") || !slices.Contains(got.Claims, "nickname") || len(got.Scope) != 202 {
		s.Errorf("the newest request is forgotten: %d scopes, %d claims", len(got.Scope), len(got.Claims))
	}
	for round := range 20 {
		s.tick()
		s.consent(login, clientID, newest, names(fmt.Sprint("c", round, "-"), 60, 110))
		if got := kept(); !slices.Contains(got.Scope, "openid") || !slices.Contains(got.Scope, "profile") {
			s.Fatalf("round %d: scopes %v", round, got.Scope)
		}
	}
	// All that a user may agree to has room.
	for i := range storage.MaxConsents {
		s.consent(login, fmt.Sprintf("client-%04d-%s", i, strings.Repeat("x", 100)), newest, names("d", 300, 60))
	}
	s.tick()
	s.consent(login, "one more", newest, nil)
	s.wantRevoked(ming, "one more", true)
}

func (s *suite) clientVoidsGrants() {
	login := s.login(s.account("ming"), "a")
	before := []storage.Redemption{s.issue("before", s.grant(login)), s.device(login, clientID)}
	spared := s.issue("elsewhere", s.grantTo(login, otherClient))
	s.must(s.store.RevokeClient(s.Context(), clientID, "leaked"))
	for _, in := range before {
		s.wantRedeem(in, storage.RedeemEnded)
	}
	s.wantRedeem(spared, storage.RedeemOK)
	s.tick()
	s.wantRedeem(s.issue("after", s.grant(login)), storage.RedeemOK)
	s.wantRedeem(s.device(login, clientID), storage.RedeemOK)
}

func (s *suite) recentFamilies() {
	ming, li := s.account("ming"), s.account("li")
	want := func(userID string, limit int, families ...storage.Family) {
		s.Helper()
		got, err := s.store.RecentFamilies(s.Context(), userID, limit)
		s.must(err)
		if len(got) != len(families) {
			s.Fatalf("%d families, want %d", len(got), len(families))
		}
		for i := range got {
			if !reflect.DeepEqual(got[i], families[i]) {
				s.Errorf("family %d is %+v, want %+v", i, got[i], families[i])
			}
		}
	}
	want(ming, 10)
	want(storage.NewUserID(), 10)
	login, other := s.login(ming, "a"), s.login(ming, "b")
	with := func(login storage.LoginSession, client string, offline bool) storage.Family {
		s.tick()
		grant := s.grantTo(login, client)
		grant.Offline = offline
		return s.redeemed(grant)
	}
	first := with(login, clientID, false)
	second := with(other, otherClient, false)
	s.redeemed(s.grant(s.login(li, "c")))
	third := with(other, clientID, true)
	expiring := s.device(login, clientID)
	expiring.Absolute = s.seen()
	s.tick()
	fourth := s.wantRedeem(expiring, storage.RedeemOK).Family
	fifth := with(login, clientID, false)
	want(ming, 10, fifth, fourth, third, second, first)
	want(ming, 2, fifth, fourth)
	want(ming, 0, fifth, fourth, third, second, first)

	s.outlast()
	want(ming, 10, fifth, third, second, first)
	if _, err := s.store.RevokeFamily(s.Context(), fifth.ID, "x"); err != nil {
		s.Fatal(err)
	}
	want(ming, 2, third, second)
	s.endLogin(other.ID, true)
	want(ming, 2, third, first)
	s.must(s.store.RevokeUser(s.Context(), ming, "x"))
	want(ming, 10)
	s.must(s.store.SetUserDisabled(s.Context(), li, true))
	want(li, 10)
}
