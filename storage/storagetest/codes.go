package storagetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxidp/wxidp/storage"
)

const redirectURI = "https://shop.example/callback"

// grant is what a user grants the usual client in a login session.
func (s *suite) grant(login storage.LoginSession) storage.Grant { return s.grantTo(login, clientID) }

func (s *suite) grantTo(login storage.LoginSession, client string) storage.Grant {
	return storage.Grant{
		UserID: login.UserID, UserEpoch: login.UserEpoch, ClientID: client, LoginID: login.ID,
		Scope: []string{"openid", "profile"}, Audience: []string{"https://api.shop.example"},
		AuthTime: login.AuthTime, AMR: login.AMR, ACR: "level1",
		Nonce: "nonce", RedirectURI: redirectURI, Challenge: "challenge",
		IDTokenClaims: []string{"nickname"}, UserInfoClaims: []string{"phone_number"},
	}
}

func (s *suite) issueVerdict(code string, grant storage.Grant, remember bool) storage.CodeVerdict {
	s.Helper()
	verdict, err := s.store.IssueCode(s.Context(), storage.CodeIssue{Code: digest("code", code), Grant: grant, Lifetime: long, Remember: remember})
	s.must(err)
	return verdict
}

// issue records a code and returns the right redemption of it.
func (s *suite) issue(code string, grant storage.Grant) storage.Redemption {
	s.Helper()
	if verdict := s.issueVerdict(code, grant, false); verdict != storage.CodeOK {
		s.Fatalf("IssueCode = %d", verdict)
	}
	return redemption(code, grant)
}

func redemption(code string, grant storage.Grant) storage.Redemption {
	return storage.Redemption{
		Code: digest("code", code), ClientID: grant.ClientID, RedirectURI: grant.RedirectURI, Challenge: grant.Challenge,
		DPoPThumbprint: grant.DPoPThumbprint, Family: storage.Family{MACKeyID: 3}, Idle: long, Absolute: long, Remember: long,
	}
}

// undated returns a grant of IssueCode without the time of that.
func (s *suite) undated(g storage.Grant) storage.Grant {
	s.Helper()
	if g.IssuedAt.IsZero() || g.IssuedAt.After(time.Now()) {
		s.Errorf("issued at %v", g.IssuedAt)
	}
	g.IssuedAt = time.Time{}
	return g
}

func (s *suite) redeem(in storage.Redemption) storage.RedeemResult {
	s.Helper()
	res, err := s.store.Redeem(s.Context(), in)
	if err != nil {
		s.Fatalf("Redeem: %v", err)
	}
	return res
}

func (s *suite) wantRedeem(in storage.Redemption, want storage.RedeemVerdict) storage.RedeemResult {
	s.Helper()
	res := s.redeem(in)
	if res.Verdict != want {
		s.Fatalf("Redeem: verdict %d, want %d", res.Verdict, want)
	}
	return res
}

// redeemed exchanges a fresh code for a family.
func (s *suite) redeemed(grant storage.Grant) storage.Family {
	s.Helper()
	return s.wantRedeem(s.issue(storage.NewToken(), grant), storage.RedeemOK).Family
}

func (s *suite) redeemOK() {
	login := s.login(s.account("ming"), "a")
	grant := s.grant(login)
	grant.DPoPThumbprint = "jkt"
	in := s.issue("a", grant)
	in.Family = storage.Family{
		ID: storage.NewFamilyID(), Secret: storage.NewFamilySecret(), MACKeyID: 7, DPoPThumbprint: "jkt",
		ClientID: "not the caller's to say", UserID: "neither", WeChatAppID: "x", Identity: digest("x"), RevokedAt: time.Now(), Offline: true,
	}
	in.Absolute = long / 2
	commits := s.store.Stats().Commits
	res := s.wantRedeem(in, storage.RedeemOK)
	if n := s.store.Stats().Commits - commits; n != 1 {
		s.Errorf("%d commits", n)
	}
	if !reflect.DeepEqual(s.undated(res.Grant), grant) {
		s.Errorf("grant %+v, want %+v", res.Grant, grant)
	}
	f := res.Family
	want := storage.Family{
		ID: in.Family.ID, UserID: login.UserID, ClientID: clientID, Scope: grant.Scope, Audience: grant.Audience,
		AuthTime: login.AuthTime, AMR: login.AMR, Secret: in.Family.Secret, MACKeyID: 7, DPoPThumbprint: "jkt",
		CreatedAt: f.CreatedAt, RotatedAt: f.CreatedAt, IdleExpiresAt: f.CreatedAt.Add(long / 2), ExpiresAt: f.CreatedAt.Add(long / 2),
		LoginID: login.ID, ACR: "level1", IDTokenClaims: grant.IDTokenClaims, UserInfoClaims: grant.UserInfoClaims,
	}
	if !reflect.DeepEqual(f, want) {
		s.Errorf("family %+v\nwant %+v", f, want)
	}
	if stored, err := s.store.Family(s.Context(), f.ID); err != nil || !reflect.DeepEqual(stored, f) {
		s.Errorf("stored %+v, %v\nwant %+v", stored, err, f)
	}
	if got := s.wantLogin("a", login.ID).Participants; !slices.Equal(got, []storage.Participant{{ClientID: clientID, FamilyID: f.ID}}) {
		s.Errorf("participants %+v", got)
	}
	if got := s.familyPages(login.UserID, 10); !slices.Equal(got, []string{string(f.ID[:])}) {
		s.Errorf("families of the user %v", got)
	}
	s.wantRotate(f.ID, 0, 0, storage.RotateOK)
	s.wantAccess(f.ID, "", storage.AccessActive)

	// A family ends no later than its login session, unless it is offline.
	in = s.issue("b", grant)
	in.Idle, in.Absolute = 0, 10*long
	if f := s.wantRedeem(in, storage.RedeemOK).Family; !f.ExpiresAt.Equal(login.ExpiresAt) || !f.IdleExpiresAt.Equal(login.ExpiresAt) || f.ID.IsZero() {
		s.Errorf("family %+v outlives its login session", f)
	}
	grant.Offline = true
	in = s.issue("c", grant)
	in.Absolute = 10 * long
	if f := s.wantRedeem(in, storage.RedeemOK).Family; !f.Offline || !f.ExpiresAt.Equal(f.CreatedAt.Add(10*long)) {
		s.Errorf("offline family %+v", f)
	}
	// A code is issued once.
	if verdict, err := s.store.IssueCode(s.Context(), storage.CodeIssue{Code: in.Code, Grant: grant, Lifetime: long}); !errors.Is(err, storage.ErrUnavailable) {
		s.Errorf("IssueCode of a known code = %d, %v", verdict, err)
	}
	grant.Nonce = strings.Repeat("x", storage.MaxValueSize)
	if verdict, err := s.store.IssueCode(s.Context(), storage.CodeIssue{Code: digest("big"), Grant: grant, Lifetime: long}); !errors.Is(err, storage.ErrTooLarge) {
		s.Errorf("IssueCode of too much = %d, %v", verdict, err)
	}
	in = s.issue("d", s.grant(login))
	in.Family.ID = f.ID
	if res, err := s.store.Redeem(s.Context(), in); !errors.Is(err, storage.ErrUnavailable) {
		s.Errorf("a family id again: %+v, %v", res, err)
	}
	in.Family.ID = storage.FamilyID{}
	s.wantRedeem(in, storage.RedeemOK) // a failure burns nothing
}

// Threats 6 and 8: whatever is wrong with a redemption burns the code.
func (s *suite) redeemWrong() {
	login := s.login(s.account("ming"), "a")
	li := s.login(s.account("li"), "b")
	for name, c := range map[string]struct {
		grant func(*storage.Grant)
		spoil func(*storage.Redemption)
		want  storage.RedeemVerdict
	}{
		"client":                {nil, func(in *storage.Redemption) { in.ClientID = otherClient }, storage.RedeemWrongClient},
		"client comes first":    {nil, func(in *storage.Redemption) { in.ClientID, in.RedirectURI, in.Challenge = "", "", "" }, storage.RedeemWrongClient},
		"redirect_uri":          {nil, func(in *storage.Redemption) { in.RedirectURI += "/" }, storage.RedeemWrongRedirect},
		"no redirect_uri":       {nil, func(in *storage.Redemption) { in.RedirectURI, in.Challenge = "", "" }, storage.RedeemWrongRedirect},
		"verifier":              {nil, func(in *storage.Redemption) { in.Challenge = "Challenge" }, storage.RedeemWrongVerifier},
		"no verifier":           {nil, func(in *storage.Redemption) { in.Challenge, in.DPoPThumbprint = "", "x" }, storage.RedeemWrongVerifier},
		"verifier out of place": {func(g *storage.Grant) { g.Challenge = "" }, func(in *storage.Redemption) { in.Challenge = "challenge" }, storage.RedeemWrongVerifier},
		"key":                   {func(g *storage.Grant) { g.DPoPThumbprint = "jkt" }, func(in *storage.Redemption) { in.DPoPThumbprint = "other" }, storage.RedeemWrongKey},
		"no key":                {func(g *storage.Grant) { g.DPoPThumbprint = "jkt" }, func(in *storage.Redemption) { in.DPoPThumbprint = "" }, storage.RedeemWrongKey},
	} {
		grant := s.grant(login)
		if c.grant != nil {
			c.grant(&grant)
		}
		right := s.issue(name, grant)
		wrong := right
		c.spoil(&wrong)
		res := s.wantRedeem(wrong, c.want)
		if !reflect.DeepEqual(s.undated(res.Grant), grant) || !res.Family.ID.IsZero() {
			s.Errorf("%s: %+v", name, res)
		}
		// The right client comes too late, and there is nothing to end.
		if res := s.wantRedeem(right, storage.RedeemUsed); !reflect.DeepEqual(s.undated(res.Grant), grant) || !res.Family.ID.IsZero() {
			s.Errorf("%s: then %+v", name, res)
		}
	}
	free := s.grant(login)
	free.Challenge = ""
	in := s.issue("neither", free)
	in.DPoPThumbprint = "of a proof that the code is not bound to"
	s.wantRedeem(in, storage.RedeemOK)
	in.Code = digest("code", "never issued")
	if res := s.wantRedeem(in, storage.RedeemMissing); res.Grant.ClientID != "" {
		s.Errorf("%+v", res)
	}

	// A login session authorizes for its own user only.
	for name, spoil := range map[string]func(*storage.Grant){
		"another's login session": func(g *storage.Grant) { g.LoginID = li.ID },
		"unknown login session":   func(g *storage.Grant) { g.LoginID = storage.NewLoginID() },
		"unknown user":            func(g *storage.Grant) { g.UserID = storage.NewUserID() },
		"another epoch":           func(g *storage.Grant) { g.UserEpoch++ },
	} {
		grant := s.grant(login)
		spoil(&grant)
		if verdict := s.issueVerdict(name, grant, true); verdict != storage.CodeLoginEnded {
			s.Errorf("%s: IssueCode = %d", name, verdict)
		}
		s.wantRedeem(redemption(name, grant), storage.RedeemMissing)
		device := redemption("device "+name, grant)
		device.Grant = &grant
		s.wantRedeem(device, storage.RedeemEnded)
	}
	s.wantConsents(login.UserID)
	without := s.grant(login)
	without.LoginID = storage.LoginID{}
	f := s.redeemed(without)
	s.endLogin(login.ID, true)
	s.wantAccess(f.ID, "", storage.AccessActive)
}

// Threat 9: a code that comes again ends what it was exchanged for.
func (s *suite) redeemReplay() {
	login := s.login(s.account("ming"), "a")
	grant := s.grant(login)
	grant.Offline = true
	in := s.issue("a", grant)
	f, other := s.wantRedeem(in, storage.RedeemOK).Family, s.redeemed(grant)
	stranger := in
	stranger.ClientID = otherClient
	if res := s.wantRedeem(stranger, storage.RedeemWrongClient); !res.Family.ID.IsZero() {
		s.Errorf("%+v", res)
	}
	s.wantAccess(f.ID, "", storage.AccessActive)
	s.wantRotate(f.ID, 0, 0, storage.RotateOK)

	again := in
	again.Challenge, again.RedirectURI = "", "" // what else is wrong does not matter
	res := s.wantRedeem(again, storage.RedeemUsed)
	if res.Family.ID != f.ID || res.Family.RevokedFor != storage.RevokedForCodeReuse || !reflect.DeepEqual(s.undated(res.Grant), grant) {
		s.Errorf("%+v", res)
	}
	s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
	s.wantRotate(f.ID, 1, long, storage.RotateRevoked)
	if stored, err := s.store.Family(s.Context(), f.ID); err != nil || stored.RevokedFor != storage.RevokedForCodeReuse {
		s.Errorf("family %+v, %v", stored, err)
	}
	commits := s.store.Stats().Commits
	if res := s.wantRedeem(in, storage.RedeemUsed); !res.Family.ID.IsZero() {
		s.Errorf("there was nothing left to end: %+v", res)
	}
	s.wantRedeem(stranger, storage.RedeemWrongClient)
	if n := s.store.Stats().Commits - commits; n != 0 {
		s.Errorf("%d commits", n)
	}
	s.wantAccess(other.ID, "", storage.AccessActive)
}

// A device code is recorded by its first redemption.
func (s *suite) redeemDevice() {
	login := s.login(s.account("ming"), "a")
	grant := s.grant(login)
	grant.LoginID, grant.RedirectURI, grant.Challenge, grant.Nonce = storage.LoginID{}, "", "", ""
	in := redemption("device", grant)
	in.Grant = &grant
	f := s.wantRedeem(in, storage.RedeemOK).Family
	if f.UserID != login.UserID || !f.LoginID.IsZero() || len(s.wantLogin("a", login.ID).Participants) != 0 {
		s.Errorf("family %+v", f)
	}
	if res := s.wantRedeem(in, storage.RedeemUsed); res.Family.ID != f.ID {
		s.Errorf("%+v", res)
	}
	s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
	in.Code = digest("code", "device 2")
	in.ClientID = otherClient
	s.wantRedeem(in, storage.RedeemWrongClient)
	in.ClientID = clientID
	s.wantRedeem(in, storage.RedeemUsed)
	in.Code, in.Grant = digest("code", "device 3"), nil
	s.wantRedeem(in, storage.RedeemMissing)
}

func (s *suite) participants() {
	login := s.login(s.account("ming"), "a")
	var mini []storage.FamilyID
	web := s.redeemed(s.grantTo(login, otherClient)).ID
	for len(mini) < storage.MaxParticipants-1 {
		mini = append(mini, s.redeemed(s.grant(login)).ID)
	}
	want := func(first ...storage.FamilyID) {
		s.Helper()
		got := s.wantLogin("a", login.ID).Participants
		if len(got) != storage.MaxParticipants {
			s.Fatalf("%d participants", len(got))
		}
		for i, id := range first {
			if got[i].FamilyID != id {
				s.Fatalf("participant %d is %+v, want %v", i, got[i], id)
			}
		}
	}
	want(web, mini[0])
	s.redeemed(s.grant(login))
	want(web, mini[1]) // the oldest of the same client is forgotten
	s.redeemed(s.grantTo(login, "a third"))
	want(mini[1], mini[2]) // or else the oldest
	s.endLogin(login.ID, true)
	s.wantAccess(web, "", storage.AccessFamilyRevoked) // forgotten or not
}

// toldParticipants: who was told of the end of a sign-in is not told again at
// the end of the login session, and everybody else is.
func (s *suite) toldParticipants() {
	login := s.login(s.account("ming"), "a")
	ended, first, second := s.redeemed(s.grant(login)), s.redeemed(s.grant(login)), s.redeemed(s.grantTo(login, otherClient))
	told := []storage.LogoutNotice{{ClientID: clientID, UserID: ended.UserID, FamilyID: ended.ID}}
	s.must(s.store.QueueLogouts(s.Context(), told))
	if got := s.wantLogin("a", login.ID).Participants; !slices.Equal(got, []storage.Participant{
		{ClientID: clientID, FamilyID: first.ID}, {ClientID: otherClient, FamilyID: second.ID},
	}) {
		s.Errorf("participants %+v", got)
	}
	s.endLogin(login.ID, true, clientID, otherClient)
	s.wantDue(ended, first, second) // each once
	s.must(s.store.QueueLogouts(s.Context(), []storage.LogoutNotice{{ClientID: clientID, UserID: first.UserID, FamilyID: first.ID}}))
	s.wantLogin("a", storage.LoginID{}) // one that ended stays so
}

// Threat 10: of parallel redemptions one succeeds.
func (s *suite) concurrentRedeem() {
	login := s.login(s.account("ming"), "a")
	for round := range 20 {
		grant := s.grant(login)
		in := s.issue(fmt.Sprint(round), grant)
		if round%2 == 1 {
			in = redemption(fmt.Sprint("device", round), grant)
			in.Grant = &grant
		}
		count := map[storage.RedeemVerdict]int{}
		for _, res := range collect(s, 50, func(int) (storage.RedeemResult, error) { return s.store.Redeem(s.Context(), in) }) {
			count[res.Verdict]++
		}
		if count[storage.RedeemOK] != 1 || count[storage.RedeemUsed] != 49 {
			s.Fatalf("verdicts %v", count)
		}
	}
	if got := len(s.familyPages(login.UserID, 100)); got != 20 {
		s.Errorf("%d families of 20 codes", got)
	}
}

// Once the end of a login session is acknowledged nothing of it is active,
// whatever was under way.
func (s *suite) concurrentLoginEnd() {
	ming := s.account("ming")
	for round := range 50 {
		login := s.login(ming, fmt.Sprint(round))
		var acknowledged atomic.Bool
		var wg sync.WaitGroup
		for i := range 4 {
			in := s.issue(fmt.Sprint(round, "-", i), s.grant(login))
			wg.Go(func() {
				late := acknowledged.Load()
				res, err := s.store.Redeem(s.Context(), in)
				if err != nil || res.Verdict != storage.RedeemOK && res.Verdict != storage.RedeemEnded {
					s.Errorf("Redeem = %+v, %v", res, err)
				}
				if res.Verdict == storage.RedeemOK && late {
					s.Errorf("round %d: redeemed after the end", round)
				}
			})
		}
		ended := collect(s, 3, func(int) (bool, error) { return s.store.EndLogin(s.Context(), login.ID, []string{clientID}) })
		acknowledged.Store(true)
		if ended[0] && ended[1] || ended[1] && ended[2] || ended[0] && ended[2] || !(ended[0] || ended[1] || ended[2]) {
			s.Errorf("ended %v", ended)
		}
		wg.Wait()
	}
	families, _, err := s.store.PageFamilies(s.Context(), ming, "", 0)
	s.must(err)
	for _, f := range families {
		s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
	}
	s.wantDue(families...) // each was in its login session when that ended
}
