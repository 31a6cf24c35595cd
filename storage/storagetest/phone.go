package storagetest

import (
	"time"

	"github.com/wxidp/wxidp/storage"
)

const (
	numberA = "+8613800138000"
	numberB = "+8613900139000"
)

func phone(in storage.SignIn, number string, signIn bool) storage.SignIn {
	in.Phone = &storage.PhoneProof{E164: number, VerifiedAt: time.Now(), SignIn: signIn}
	return in
}

func (s *suite) wantPhone(userID, number string, at time.Time) {
	s.Helper()
	if user := s.user(userID); user.Phone != number || !user.PhoneVerifiedAt.Equal(storage.RoundTime(at)) {
		s.Errorf("phone %q verified at %v, want %q at %v", user.Phone, user.PhoneVerifiedAt, number, at)
	}
	s.check()
}

// phoneStepUp: a number is recorded for whoever signs in.
func (s *suite) phoneStepUp() {
	in := phone(request("o1"), numberA, false)
	res := s.wantOK(in)
	if !res.Created {
		s.Errorf("%+v", res)
	}
	s.wantPhone(res.UserID, numberA, in.Phone.VerifiedAt)

	again := phone(request("o1"), numberA, false)
	again.Phone.VerifiedAt = again.Phone.VerifiedAt.Add(time.Hour)
	s.wantOK(again)
	s.wantPhone(res.UserID, numberA, again.Phone.VerifiedAt)

	s.wantRefused(phone(request("o2"), numberA, false), storage.SignInPhoneTaken)
	two := s.wantOK(request("o2"))
	s.wantRefused(phone(request("o2"), numberA, false), storage.SignInPhoneTaken)
	s.wantRefused(bound(phone(request("o3"), numberA, false), s.account("ming")), storage.SignInPhoneTaken)

	kept := phone(request("o1"), numberB, false)
	s.wantOK(kept)
	s.wantPhone(res.UserID, numberA, again.Phone.VerifiedAt)
	other := phone(request("o1"), numberB, false)
	other.Phone.Change = true
	s.wantOK(other)
	s.wantPhone(res.UserID, numberB, other.Phone.VerifiedAt)
	freed := phone(request("o2"), numberA, false) // the one it replaced is free
	s.wantOK(freed)
	s.wantPhone(two.UserID, numberA, freed.Phone.VerifiedAt)

	// In one commit with a binding.
	a := s.account("li")
	in = bound(phone(inApp(otherApp, "o9"), "+8613700137000", true), a)
	s.wantOK(in)
	s.wantPhone(a, "+8613700137000", in.Phone.VerifiedAt)
}

// ended signs in with a number and ends the family, so that the user has no
// recent activity.
func (s *suite) ended(in storage.SignIn) storage.SignInResult {
	s.Helper()
	res := s.wantOK(in)
	if _, err := s.store.RevokeFamily(s.Context(), res.Family.ID, "logout"); err != nil {
		s.Fatal(err)
	}
	return res
}

// numberOnly leaves a user who has nothing but the number.
func (s *suite) numberOnly(in storage.SignIn) storage.SignInResult {
	s.Helper()
	res := s.wantOK(in)
	verdict, err := s.store.Unbind(s.Context(), anyWay(res.UserID, res.Family.Identity))
	if err != nil || verdict != storage.UnbindOK {
		s.Fatal(verdict, err)
	}
	return res
}

// phoneSignIn: a number opens its user's account to an identity that has none
// of its own.
func (s *suite) phoneSignIn() {
	x := s.numberOnly(phone(request("o1"), numberA, true))
	if !x.Created {
		s.Errorf("first sign-in %+v", x)
	}
	in := phone(inApp(otherApp, "o2"), numberA, true)
	joined := s.wantOK(in)
	if joined.UserID != x.UserID || joined.Created {
		s.Fatalf("sign-in by the number %+v", joined)
	}
	s.wantPhone(x.UserID, numberA, in.Phone.VerifiedAt)
	s.wantIdentities(x.UserID, "o2")
	s.wantAccess(x.Family.ID, "", storage.AccessFamilyRevoked)

	// The identity has a bare user already, who ends.
	y := s.numberOnly(phone(request("o3"), numberB, true))
	bare := s.wantOK(inApp(otherApp, "o4"))
	joined = s.wantOK(phone(inApp(otherApp, "o4"), numberB, true))
	if joined.UserID != y.UserID {
		s.Fatalf("sign-in of a bare user by the number %+v", joined)
	}
	s.wantRetired(bare.UserID, bare.Family)
	s.wantIdentities(y.UserID, "o4")

	// So does the bare user to whom the unionid of a new identity leads.
	z := s.numberOnly(phone(request("o5"), "+8613600136000", true))
	w := s.wantOK(union("wx3333333333333333", "o6", platform, "u6"))
	joined = s.wantOK(phone(union("wx4444444444444444", "o7", platform, "u6"), "+8613600136000", true))
	if joined.UserID != z.UserID || joined.Conflict {
		s.Fatalf("sign-in with a unionid and the number %+v", joined)
	}
	s.wantRetired(w.UserID, w.Family)
	s.wantIdentities(z.UserID, "o6", "o7")

	// The number's own user is refreshed, and a new number replaces the old
	// where that was asked for.
	again := phone(inApp(otherApp, "o4"), numberB, true)
	if res := s.wantOK(again); res.UserID != y.UserID {
		s.Errorf("%+v", res)
	}
	fresh := phone(inApp(otherApp, "o4"), "+8613700137000", true)
	fresh.Phone.Change = true
	s.wantOK(fresh)
	s.wantPhone(y.UserID, "+8613700137000", fresh.Phone.VerifiedAt)
	taken := phone(inApp(otherApp, "o4"), numberA, true)
	taken.Phone.Change = true
	s.wantRefused(taken, storage.SignInPhoneTaken)
}

// Threat 70: a number is weak proof.
func (s *suite) phoneIsWeak() {
	const third = "wx3333333333333333"
	for _, c := range []struct {
		name, number string
		prepare      func(number string) // gives the number to a user whom it alone may not open
	}{
		{"live family", "+861", func(number string) {
			s.wantOK(phone(request("o-live"), number, true))
		}},
		{"password", "+862", func(number string) {
			s.ended(bound(inApp(third, "o-bound"), s.account("ming")))
			s.numberOnly(phone(inApp(third, "o-bound"), number, false))
		}},
		{"external id", "+863", func(number string) {
			s.numberOnly(external(phone(inApp(third, "o-ext"), number, false), "x-1"))
		}},
		{"identity of the same app", "+864", func(number string) {
			s.ended(phone(inApp(otherApp, "o-app"), number, false))
		}},
		// Whoever had the number before would keep their way into the account.
		{"identity of another app", "+867", func(number string) {
			s.ended(phone(inApp(third, "o-third"), number, false))
		}},
		{"disabled", "+865", func(number string) {
			x := s.numberOnly(phone(inApp(third, "o-off"), number, false))
			s.must(s.store.SetUserDisabled(s.Context(), x.UserID, true))
		}},
	} {
		s.Log(c.name)
		c.prepare(c.number)
		newcomer := "new" + c.number
		s.wantRefused(phone(inApp(otherApp, newcomer), c.number, true), storage.SignInPhoneTaken)
		s.wantOK(inApp(otherApp, newcomer))
		s.wantRefused(phone(inApp(otherApp, newcomer), c.number, true), storage.SignInPhoneTaken)
	}
	// A user with something of their own joins nobody.
	s.numberOnly(phone(inApp(third, "o-free"), "+866", false))
	s.wantOK(external(inApp(otherApp, "o-own"), "x-2"))
	s.wantRefused(phone(inApp(otherApp, "o-own"), "+866", true), storage.SignInPhoneTaken)
	s.check()
}

// Of many identities that come with one number only one gets its account.
func (s *suite) concurrentPhone() {
	results := collect(s, callers, func(i int) (storage.SignInResult, error) {
		return s.store.SignIn(s.Context(), phone(request(string(rune('a'+i))+"-openid"), numberA, true))
	})
	won := 0
	for _, res := range results {
		switch res.Verdict {
		case storage.SignInOK:
			won++
		case storage.SignInPhoneTaken:
		default:
			s.Fatalf("%+v", res)
		}
	}
	if won != 1 {
		s.Errorf("%d identities got the number", won)
	}
	s.check()
}
