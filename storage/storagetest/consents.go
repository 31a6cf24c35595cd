package storagetest

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// wantConsents compares a user's consents but for their times.
func (s *suite) wantConsents(userID string, want ...storage.Consent) []storage.Consent {
	s.Helper()
	got, err := s.store.Consents(s.Context(), userID)
	s.must(err)
	bare := make([]storage.Consent, len(got))
	for i, c := range got {
		if c.GrantedAt.IsZero() {
			s.Errorf("consent %+v", c)
		}
		bare[i] = storage.Consent{ClientID: c.ClientID, Scope: c.Scope, Claims: c.Claims}
	}
	if len(bare) != len(want) || len(want) > 0 && !reflect.DeepEqual(bare, want) {
		s.Fatalf("consents %+v, want %+v", bare, want)
	}
	return got
}

// consent records what a user agrees to in a login session.
func (s *suite) consent(login storage.LoginSession, client string, scope, claims []string) {
	s.Helper()
	grant := s.grantTo(login, client)
	grant.Scope, grant.IDTokenClaims, grant.UserInfoClaims = scope, claims, claims
	if verdict := s.issueVerdict(storage.NewToken(), grant, true); verdict != storage.CodeOK {
		s.Fatalf("IssueCode = %d", verdict)
	}
}

func (s *suite) consents() {
	ming, li := s.account("ming"), s.account("li")
	login := s.login(ming, "a")
	s.wantConsents(ming)
	if verdict := s.issueVerdict("not remembered", s.grant(login), false); verdict != storage.CodeOK {
		s.Fatal(verdict)
	}
	s.wantConsents(ming)
	s.consent(login, otherClient, []string{"profile", "openid"}, []string{"phone_number"})
	web := storage.Consent{ClientID: otherClient, Scope: []string{"openid", "profile"}, Claims: []string{"phone_number"}}
	first := s.wantConsents(ming, web)[0].GrantedAt
	if s.Bubble {
		time.Sleep(time.Hour)
	}
	s.consent(login, otherClient, []string{"openid", "email"}, []string{"nickname"})
	web.Scope, web.Claims = []string{"email", "openid", "profile"}, []string{"nickname", "phone_number"}
	if second := s.wantConsents(ming, web)[0].GrantedAt; s.Bubble && !second.Equal(first.Add(time.Hour)) {
		s.Errorf("granted at %v, then %v", first, second)
	}
	s.consent(login, clientID, []string{"openid"}, nil)
	mini := storage.Consent{ClientID: clientID, Scope: []string{"openid"}}
	s.wantConsents(ming, mini, web)
	s.wantConsents(li)

	// To take it back ends what it was for, and nothing else.
	at, elsewhere := s.redeemed(s.grantTo(login, otherClient)), s.redeemed(s.grant(login))
	of := s.redeemed(s.grantTo(s.login(li, "b"), otherClient))
	revoke := func(userID, client string, want bool) {
		s.Helper()
		if found, err := s.store.RevokeConsent(s.Context(), userID, client, nil); err != nil || found != want {
			s.Fatalf("RevokeConsent = %v, %v", found, err)
		}
	}
	revoke(ming, otherClient, true)
	revoke(ming, otherClient, false)
	revoke(ming, "another", false)
	revoke(storage.NewUserID(), otherClient, false)
	s.wantConsents(ming, mini)
	s.wantAccess(at.ID, "", storage.AccessFamilyRevoked)
	if stored, err := s.store.Family(s.Context(), at.ID); err != nil || stored.RevokedFor != storage.RevokedForConsent {
		s.Errorf("family %+v, %v", stored, err)
	}
	s.wantAccess(elsewhere.ID, "", storage.AccessActive)
	s.wantAccess(of.ID, "", storage.AccessActive)
	s.wantLogin("a", login.ID)

	// They outlive the sign-ins, but not the user.
	s.must(s.store.RevokeUser(s.Context(), ming, "x"))
	s.wantConsents(ming, mini)
	if _, err := s.store.Erase(s.Context(), ming); err != nil {
		s.Fatal(err)
	}
	for _, id := range []string{ming, storage.NewUserID(), ""} {
		if _, err := s.store.Consents(s.Context(), id); !errors.Is(err, storage.ErrNotFound) {
			s.Errorf("consents of %q: %v", id, err)
		}
	}
}

func (s *suite) consentsUnited() {
	into := s.account("into")
	s.consent(s.login(into, "into"), clientID, []string{"openid"}, []string{"a"})
	s.consent(s.login(into, "into 2"), "only into", []string{"openid"}, nil)
	agree := func(userID, cookie string) {
		login := s.login(userID, cookie)
		s.consent(login, clientID, []string{"email"}, []string{"b"})
		s.consent(login, cookie, []string{"openid"}, nil)
	}
	want := []storage.Consent{
		{ClientID: "from merge", Scope: []string{"openid"}},
		{ClientID: "only into", Scope: []string{"openid"}},
		{ClientID: clientID, Scope: []string{"email", "openid"}, Claims: []string{"a", "b"}},
	}
	from := s.family("o1").UserID
	agree(from, "from merge")
	for _, dry := range []bool{true, false} {
		if res, err := s.store.Merge(s.Context(), from, into, dry); err != nil || res.Verdict != storage.MergeOK {
			s.Fatalf("Merge = %+v, %v", res, err)
		}
		if dry {
			s.wantConsents(into, storage.Consent{ClientID: "only into", Scope: []string{"openid"}}, storage.Consent{ClientID: clientID, Scope: []string{"openid"}, Claims: []string{"a"}})
		}
	}
	s.wantConsents(into, want...)
	// A bare user who is bound to an account brings them along, too.
	bare := s.wantOK(inApp(otherApp, "o2")).UserID
	agree(bare, "from bind")
	if res := s.wantOK(bound(inApp(otherApp, "o2"), into)); res.UserID != into {
		s.Fatalf("%+v", res)
	}
	s.wantConsents(into, append([]storage.Consent{{ClientID: "from bind", Scope: []string{"openid"}}}, want...)...)
	s.wantRetired(bare)
}

func (s *suite) consentsBounded() {
	if !s.Bubble {
		s.Skip("needs a bubble: consents are a second apart")
	}
	ming := s.account("ming")
	login := s.login(ming, "a")
	for i := range storage.MaxConsents + 3 {
		time.Sleep(time.Second)
		s.consent(login, fmt.Sprintf("client-%04d", i), []string{"openid"}, nil)
		if i == 3 {
			s.consent(login, "client-0000", []string{"email"}, nil) // is the oldest no more
		}
	}
	got, err := s.store.Consents(s.Context(), ming)
	s.must(err)
	if len(got) != storage.MaxConsents || got[0].ClientID != "client-0000" || got[1].ClientID != "client-0004" {
		s.Errorf("%d consents, from %+v on", len(got), got[:2])
	}
}

// reliedConsents: a code that rests on an earlier consent is not issued once
// that was taken back, nor for more than it covers.
func (s *suite) reliedConsents() {
	login := s.login(s.account("ming"), "a")
	grant := s.grantTo(login, otherClient)
	grant.Scope = []string{"openid", "profile"}
	want := func(verdict storage.CodeVerdict, scope ...string) {
		s.Helper()
		grant := grant
		grant.Scope = scope
		got, err := s.store.IssueCode(s.Context(), storage.CodeIssue{
			Code: digest("code", storage.NewToken()), Grant: grant, Lifetime: long, Agreed: true,
		})
		s.must(err)
		if got != verdict {
			s.Errorf("IssueCode for %v = %d, want %d", scope, got, verdict)
		}
	}
	want(storage.CodeConsentGone, "openid")
	s.consent(login, otherClient, grant.Scope, nil)
	want(storage.CodeOK, "openid", "profile")
	want(storage.CodeOK, "openid")
	want(storage.CodeConsentGone, "openid", "phone")
	_, err := s.store.RevokeConsent(s.Context(), login.UserID, otherClient, nil)
	s.must(err)
	want(storage.CodeConsentGone, "openid")
}
