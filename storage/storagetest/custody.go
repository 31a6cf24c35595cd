package storagetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

func (s *suite) sessionKeys() {
	in := request("o1")
	in.SessionKey = secret.New("not kept")
	f := s.wantOK(in).Family
	want := func(values ...string) {
		s.Helper()
		keys, err := s.store.SessionKeys(s.Context(), f.Identity)
		s.must(err)
		var got []string
		for i, key := range keys {
			got = append(got, key.Value.Reveal())
			if key.At.IsZero() || i > 0 && key.At.After(keys[i-1].At) {
				s.Errorf("key %d at %v", i, key.At)
			}
		}
		if !slices.Equal(got, values) {
			s.Errorf("session_keys %v, want %v", got, values)
		}
		s.check()
	}
	keep := func(value string, lifetime time.Duration) {
		s.Helper()
		s.must(s.store.PutSessionKey(s.Context(), f.Identity, secret.New(value), lifetime))
	}
	want()
	keep("none", 0)
	want()
	in = request("o1")
	in.SessionKey, in.SessionKeyLifetime = secret.New("k1"), long
	commits := s.store.Stats().Commits
	s.wantOK(in)
	if n := s.store.Stats().Commits - commits; n != 1 {
		s.Errorf("%d commits", n)
	}
	want("k1")
	keep("k2", long)
	want("k2", "k1")
	keep("k3", long)
	want("k3", "k2")
	keep("k3", long) // WeChat gave it again
	want("k3", "k2")
	keep("k2", long)
	want("k2", "k3")
	s.wantOK(request("o1")) // keeps none and drops none
	want("k2", "k3")

	if err := s.store.PutSessionKey(s.Context(), digest("nobody"), secret.New("k"), long); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("PutSessionKey for nobody: %v", err)
	}
	if err := s.store.PutSessionKey(s.Context(), f.Identity, secret.New(strings.Repeat("k", storage.MaxValueSize)), long); !errors.Is(err, storage.ErrTooLarge) {
		s.Errorf("a huge session_key: %v", err)
	}
	// A binding that moves the identity drops them; so does unbinding it.
	s.wantOK(bound(request("o1"), s.account("ming")))
	want()
	keep("k4", long)
	want("k4")
	user, index, err := s.store.IdentityUser(s.Context(), appID, "o1")
	if err != nil || index != f.Identity {
		s.Fatal(index, err)
	}
	if verdict, err := s.store.Unbind(s.Context(), anyWay(user.ID, index)); err != nil || verdict != storage.UnbindOK {
		s.Fatal(verdict, err)
	}
	want()
	s.wantOK(request("o1"))
	want()
}

func (s *suite) sessionKeysExpire() {
	f := s.family("o1")
	base := s.rows()
	put := func(value string, lifetime time.Duration) {
		s.must(s.store.PutSessionKey(s.Context(), f.Identity, secret.New(value), lifetime))
	}
	count := func() int {
		keys, err := s.store.SessionKeys(s.Context(), f.Identity)
		s.must(err)
		return len(keys)
	}
	put("brief", s.short())
	s.outlive()
	if n := count(); n != 0 {
		s.Errorf("%d session_keys after their end", n)
	}
	put("long", long)
	put("brief", s.short())
	s.outlive()
	put("longer", long) // beside the one that lives
	if n := count(); n != 2 {
		s.Errorf("%d session_keys, want those that live", n)
	}
	put("brief", s.short())
	s.pastSecond()
	if n := s.collectGarbage(10); n != 1 {
		s.Errorf("%d records deleted, want the one session_key", n)
	}
	if n := count(); n != 1 {
		s.Errorf("%d session_keys, want the long one", n)
	}
	if !s.Bubble {
		return
	}
	time.Sleep(long)
	s.collectGarbage(10)
	if rows := s.rows(); count() != 0 || rows != base-3 {
		s.Errorf("%d rows are left, want user and identity of %d", rows, base)
	}
}

func (s *suite) revokeClient() {
	a, b := s.family("o1"), s.family("o2")
	in := request("o1")
	in.Family.ClientID = "another"
	other := s.wantOK(in).Family
	commits := s.store.Stats().Commits
	s.must(s.store.RevokeClient(s.Context(), clientID, "leaked"))
	if n := s.store.Stats().Commits - commits; n != 1 {
		s.Errorf("%d commits", n)
	}
	for _, f := range []storage.Family{a, b} {
		s.wantRotate(f.ID, 0, long, storage.RotateRevoked)
		s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
		if stored, err := s.store.Family(s.Context(), f.ID); err != nil || stored.RevokedFor != "leaked" || stored.RevokedAt.IsZero() {
			s.Errorf("family %+v, %v", stored, err)
		}
	}
	page, _, err := s.store.PageFamilies(s.Context(), a.UserID, "", 10)
	s.must(err)
	for _, f := range page {
		if f.RevokedAt.IsZero() != (f.ClientID == "another") {
			s.Errorf("listed family %+v", f)
		}
	}
	s.wantAccess(other.ID, "", storage.AccessActive)
	fresh := s.family("o1")
	s.wantRotate(fresh.ID, 0, 0, storage.RotateOK)
	s.wantAccess(fresh.ID, "", storage.AccessActive)
	s.must(s.store.RevokeClient(s.Context(), clientID, "again"))
	s.wantAccess(fresh.ID, "", storage.AccessFamilyRevoked)
	for name, err := range map[string]error{
		"no id":       s.store.RevokeClient(s.Context(), "", "x"),
		"long id":     s.store.RevokeClient(s.Context(), strings.Repeat("c", 10_000), "x"),
		"long reason": s.store.RevokeClient(s.Context(), clientID, strings.Repeat("x", storage.MaxReason+1)),
	} {
		if !errors.Is(err, storage.ErrTooLarge) {
			s.Errorf("%s: %v", name, err)
		}
	}
}

// forgetSessionKeys: where nobody uses session_keys, none stay.
func (s *suite) forgetSessionKeys() {
	var identities []storage.Digest
	for _, openID := range []string{"o1", "o2", "o3"} {
		in := request(openID)
		in.SessionKey, in.SessionKeyLifetime = secret.New("key of "+openID), long
		identities = append(identities, s.wantOK(in).Family.Identity)
	}
	for _, want := range []struct {
		forgotten int
		more      bool
	}{{2, true}, {1, false}, {0, false}} {
		n, more, err := s.store.ForgetSessionKeys(s.Context(), 2)
		if err != nil || n != want.forgotten || more != want.more {
			s.Fatalf("ForgetSessionKeys = %d, %t, %v, want %+v", n, more, err, want)
		}
		s.check()
	}
	for _, identity := range identities {
		if keys, err := s.store.SessionKeys(s.Context(), identity); err != nil || len(keys) != 0 {
			s.Errorf("%d keys, %v", len(keys), err)
		}
	}
	// Custody begins anew.
	s.must(s.store.PutSessionKey(s.Context(), identities[0], secret.New("again"), long))
	if keys, err := s.store.SessionKeys(s.Context(), identities[0]); err != nil || len(keys) != 1 {
		s.Errorf("%d keys, %v", len(keys), err)
	}
}

func (s *suite) unknownPeople() {
	id := storage.NewUserID()
	_, errIdentities := s.store.Identities(s.Context(), id)
	_, _, errIdentity := s.store.IdentityUser(s.Context(), appID, "nobody")
	_, errSignIn := s.store.SignInUser(s.Context(), storage.Identity{AppID: appID, WeChatOpenID: "nobody", UnionID: "nobody's", OpenPlatform: "main"})
	for name, err := range map[string]error{"SignInUser": errSignIn, "Identities": errIdentities, "IdentityUser": errIdentity} {
		if !errors.Is(err, storage.ErrNotFound) {
			s.Errorf("%s: %v", name, err)
		}
	}
	if keys, err := s.store.SessionKeys(s.Context(), digest("nobody")); err != nil || len(keys) != 0 {
		s.Errorf("SessionKeys: %v, %v", keys, err)
	}
	if verdict, err := s.store.Unbind(s.Context(), anyWay(id, digest("nobody"))); err != nil || verdict != storage.UnbindMissing {
		s.Errorf("Unbind: %d, %v", verdict, err)
	}
}

// Threat 21, for what people and operators do: once it is acknowledged, no
// refresh of the families that it ended succeeds.
func (s *suite) concurrentEnd() {
	for name, end := range map[string]func(f storage.Family) error{
		"Erase": func(f storage.Family) error { _, err := s.store.Erase(s.Context(), f.UserID); return err },
		"Bind": func(f storage.Family) error {
			res, err := s.store.SignIn(s.Context(), bound(request("o-Bind"), s.account("ming")))
			if err == nil && res.Verdict != storage.SignInOK {
				err = fmt.Errorf("verdict %d", res.Verdict)
			}
			return err
		},
		"RevokeClient": func(storage.Family) error { return s.store.RevokeClient(s.Context(), clientID, "x") },
	} {
		f := s.family("o-" + name)
		verdicts := make(chan storage.RotateVerdict, 1)
		started := make(chan struct{})
		go func() {
			verdict := storage.RotateOK
			for generation := uint32(0); verdict == storage.RotateOK; generation++ {
				res, err := s.store.Rotate(s.Context(), storage.Rotation{FamilyID: f.ID, ClientID: clientID, Generation: generation, Idle: long})
				if err != nil {
					s.Errorf("%s: Rotate: %v", name, err)
					break
				}
				if verdict = res.Verdict; generation == 0 {
					close(started)
				}
			}
			verdicts <- verdict
		}()
		<-started
		s.must(end(f))
		access, err := s.store.CheckAccess(s.Context(), storage.AccessCheck{FamilyID: f.ID})
		if err != nil || access.Verdict == storage.AccessActive {
			s.Errorf("%s: %+v, %v", name, access, err)
		}
		if verdict := <-verdicts; verdict != storage.RotateRevoked && verdict != storage.RotateMissing {
			s.Errorf("%s: the refreshes ended with verdict %d", name, verdict)
		}
	}
}
