package storagetest

import (
	"errors"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// loginExpiry holds that a login session ends by idling and for good, with
// what ends with it, and that using it moves the first of these only.
func (s *suite) loginExpiry() {
	if !s.Bubble {
		s.Skip("needs a bubble")
	}
	ming := s.account("ming")
	in := s.loginStart(ming, "a")
	in.Idle, in.Absolute = time.Hour, 3*time.Hour
	start := storage.RoundTime(time.Now())
	login := s.startLogin(in, storage.LoginOK).Session
	f := s.redeemed(s.grant(login))
	offline := s.grant(login)
	offline.Offline = true
	kept := s.redeemed(offline)
	touch := func(after, idle time.Duration, want time.Duration) {
		s.Helper()
		time.Sleep(time.Until(start.Add(after)))
		s.must(s.store.TouchLogin(s.Context(), login.ID, idle))
		if got := s.wantLogin("a", login.ID).IdleExpiresAt; !got.Equal(start.Add(want)) {
			s.Fatalf("touched after %v: idle expiry after %v, want %v", after, got.Sub(start), want)
		}
	}
	touch(59*time.Minute, time.Hour, 119*time.Minute)
	touch(2*time.Hour-2*time.Minute, time.Hour, 178*time.Minute)
	touch(2*time.Hour, 0, 3*time.Hour)
	touch(2*time.Hour, 24*time.Hour, 3*time.Hour)
	time.Sleep(time.Hour - time.Microsecond)
	s.collectGarbage(10)
	s.wantLogin("a", login.ID)
	s.wantAccess(f.ID, "", storage.AccessActive)
	time.Sleep(time.Microsecond)
	s.must(s.store.TouchLogin(s.Context(), login.ID, time.Hour))
	s.wantLogin("a", storage.LoginID{})
	s.wantAccess(f.ID, "", storage.AccessFamilyExpired)
	s.wantAccess(kept.ID, "", storage.AccessActive)
	s.endLogin(login.ID, false, clientID)
	s.wantDue()

	// Idle: the family has its own lifetime left, but not the login session.
	in.Session.Token = digest("cookie", "b")
	second := s.startLogin(in, storage.LoginOK).Session
	g := s.redeemed(s.grant(second))
	pending := s.issue("pending", s.grant(second))
	time.Sleep(time.Hour)
	for range 2 { // before the row is deleted and after that
		s.wantLogin("b", storage.LoginID{})
		s.wantAccess(g.ID, "", storage.AccessFamilyRevoked)
		s.wantRotate(g.ID, 0, long, storage.RotateRevoked)
		if stored, err := s.store.Family(s.Context(), g.ID); err != nil || stored.RevokedFor != storage.RevokedForLogout || stored.RevokedAt.IsZero() {
			s.Errorf("family %+v, %v", stored, err)
		}
		time.Sleep(time.Second)
		s.collectGarbage(10)
	}
	s.wantRedeem(pending, storage.RedeemEnded)
	replacing := s.loginStart(ming, "c")
	replacing.Replaces = second.ID
	if third := s.startLogin(replacing, storage.LoginOK).Session; third.ID == second.ID {
		s.Error("an expired login session goes on")
	}
}

// codeExpiry holds how long codes are good, and how long used ones are known.
func (s *suite) codeExpiry() {
	if !s.Bubble {
		s.Skip("needs a bubble")
	}
	login := s.login(s.account("ming"), "a")
	issue := func(code string) storage.Redemption {
		grant := s.grant(login)
		verdict, err := s.store.IssueCode(s.Context(), storage.CodeIssue{Code: digest("code", code), Grant: grant, Lifetime: time.Minute})
		if err != nil || verdict != storage.CodeOK {
			s.Fatal(verdict, err)
		}
		in := redemption(code, grant)
		in.Remember = time.Hour
		return in
	}
	used, late, expired, forgotten := issue("used"), issue("late"), issue("expired"), issue("forgotten")
	f := s.wantRedeem(used, storage.RedeemOK).Family
	time.Sleep(time.Minute - time.Microsecond)
	g := s.wantRedeem(late, storage.RedeemOK).Family
	time.Sleep(time.Microsecond)
	s.wantRedeem(expired, storage.RedeemExpired)
	s.wantRedeem(expired, storage.RedeemUsed)
	time.Sleep(time.Second)
	s.collectGarbage(10)
	s.wantRedeem(forgotten, storage.RedeemMissing)

	// A replay is seen long after the code itself has expired.
	time.Sleep(30 * time.Minute)
	s.collectGarbage(10)
	if res := s.wantRedeem(used, storage.RedeemUsed); res.Family.ID != f.ID {
		s.Errorf("%+v", res)
	}
	s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
	time.Sleep(time.Hour)
	s.collectGarbage(10)
	s.wantRedeem(late, storage.RedeemMissing)
	s.wantAccess(g.ID, "", storage.AccessActive)
}

// gcLogins holds that of browsers' sign-ins nothing is left in the end.
func (s *suite) gcLogins() {
	ming := s.account("ming")
	base := s.rows()
	in := s.loginStart(ming, "a")
	in.Absolute = s.seen()
	login := s.startLogin(in, storage.LoginOK).Session
	in.Session.Token, in.Session.ID = digest("cookie", "b"), storage.LoginID{}
	ended := s.startLogin(in, storage.LoginOK).Session
	s.endLogin(ended.ID, true, clientID)
	brief := s.issue("a", s.grant(login))
	brief.Remember = 0
	device := redemption("b", s.grant(login))
	device.Grant, device.Remember, device.Absolute = &storage.Grant{UserID: ming, ClientID: clientID}, s.seen(), s.seen()
	device.RedirectURI, device.Challenge = "", ""
	s.wantRedeem(device, storage.RedeemOK)
	verdict, err := s.store.IssueCode(s.Context(), storage.CodeIssue{Code: digest("c"), Grant: s.grant(login), Lifetime: s.seen()})
	if err != nil || verdict != storage.CodeOK {
		s.Fatal(verdict, err)
	}
	s.putState(storage.StateInteraction, "a", "v", s.seen())
	s.outlast()
	time.Sleep(1100 * time.Millisecond) // an engine may keep expiry to the second
	s.collectGarbage(2)
	if rows := s.rows(); s.Rows != nil && rows != base+2 {
		s.Errorf("%d rows are left, want the code that has not expired above %d", rows, base)
	}
	if res := s.redeem(brief); res.Verdict != storage.RedeemEnded {
		s.Errorf("Redeem = %+v", res)
	}
	if err := s.store.TouchLogin(s.Context(), login.ID, long); err != nil {
		s.Error(err)
	}

	// What is left of an erased user expires by itself.
	login = s.login(ming, "c")
	in = s.loginStart(ming, "d")
	s.startLogin(in, storage.LoginOK)
	s.consent(login, clientID, []string{"openid"}, nil)
	if found, err := s.store.Erase(s.Context(), ming); !found || err != nil {
		s.Fatal(found, err)
	}
	s.wantLogin("c", storage.LoginID{})
	if _, err := s.store.Consents(s.Context(), ming); !errors.Is(err, storage.ErrNotFound) {
		s.Error(err)
	}
}
