package postgres

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// Threat 23: a grant from before what voids it never leads to a family that is
// live afterwards, whichever of the two comes first.
func TestThreat23RedeemRaces(t *testing.T) {
	s := openStore(t, Options{MaxConns: 8}, hooks{})
	ctx := t.Context()
	seen := map[storage.RedeemVerdict]int{}
	for name, void := range map[string]func(g *storage.Grant) error{
		"RevokeConsent": func(g *storage.Grant) error { _, err := s.RevokeConsent(ctx, g.UserID, g.ClientID, nil); return err },
		"EndLogin":      func(g *storage.Grant) error { _, err := s.EndLogin(ctx, g.LoginID, nil); return err },
		"RevokeUser":    func(g *storage.Grant) error { return s.RevokeUser(ctx, g.UserID, "test") },
		"Disable":       func(g *storage.Grant) error { return s.SetUserDisabled(ctx, g.UserID, true) },
		"RevokeClient":  func(g *storage.Grant) error { return s.RevokeClient(ctx, g.ClientID, "test") },
		"Erase":         func(g *storage.Grant) error { _, err := s.Erase(ctx, g.UserID); return err },
	} {
		for round := range 40 {
			grant, code := browserGrant(t, s, fmt.Sprint(name, round))
			results := make([]storage.RedeemResult, 3)
			errs := parallel(len(results)+1, func(i int) (err error) {
				if i == len(results) {
					return void(grant)
				}
				results[i], err = s.Redeem(ctx, storage.Redemption{
					Code: code, ClientID: grant.ClientID, Idle: time.Hour, Absolute: time.Hour, Remember: time.Hour,
				})
				return err
			})
			if err := errors.Join(errs...); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			redeemed := 0
			for _, res := range results {
				seen[res.Verdict]++
				if res.Verdict != storage.RedeemOK {
					continue
				}
				redeemed++
				access, err := s.CheckAccess(ctx, storage.AccessCheck{FamilyID: res.Family.ID})
				if err != nil || access.Verdict == storage.AccessActive {
					t.Errorf("%s: the family is %+v, %v", name, access.Verdict, err)
				}
			}
			if redeemed > 1 {
				t.Errorf("%s: a code was redeemed %d times", name, redeemed)
			}
		}
	}
	if seen[storage.RedeemOK] == 0 || seen[storage.RedeemUsed] == 0 {
		t.Errorf("verdicts %v: the race does not show much", seen)
	}
	checkRows(t, s)
}

// browserGrant makes a user with a login session and a code in it.
func browserGrant(t *testing.T, s *Store, name string) (*storage.Grant, storage.Digest) {
	t.Helper()
	ctx := t.Context()
	account, err := s.CreateAccount(ctx, storage.NewAccount{Username: name, PasswordHash: "hash"})
	if err != nil {
		t.Fatal(err)
	}
	var token, code storage.Digest
	copy(token[:], "token "+name)
	copy(code[:], "code "+name)
	login, err := s.StartLogin(ctx, storage.LoginStart{
		Account: storage.Binding{UserID: account.UserID}, Session: storage.LoginSession{Token: token}, Absolute: time.Hour,
	})
	if err != nil || login.Verdict != storage.LoginOK {
		t.Fatal(login.Verdict, err)
	}
	grant := &storage.Grant{UserID: account.UserID, ClientID: testClient, LoginID: login.Session.ID}
	verdict, err := s.IssueCode(ctx, storage.CodeIssue{Code: code, Grant: *grant, Lifetime: time.Hour, Remember: true})
	if err != nil || verdict != storage.CodeOK {
		t.Fatal(verdict, err)
	}
	return grant, code
}

// Once a write has begun, a cancelled context does not undo it.
func TestCancelledWhileWriting(t *testing.T) {
	s := openStore(t, Options{}, hooks{})
	family := signIn(t, s, request("o1")).Family
	lock, err := s.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Exec(t.Context(), `SELECT FROM families WHERE id = $1 FOR UPDATE`, [16]byte(family.ID)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		res, err := s.Rotate(ctx, storage.Rotation{FamilyID: family.ID, ClientID: testClient, Idle: time.Hour})
		if err == nil && res.Verdict != storage.RotateOK {
			err = fmt.Errorf("verdict %d", res.Verdict)
		}
		done <- err
	}()
	for waiting := 0; waiting == 0; {
		if err := s.readRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`, nil, &waiting); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Rotate: %v", err)
	}
}

// A name that the database cannot hold is the name of nothing.
func TestUnspeakableNames(t *testing.T) {
	s := openStore(t, Options{}, hooks{})
	for _, name := range []string{"a\x00b", "\xff\xfe", "\xed\xa0\x80"} {
		if _, err := s.User(t.Context(), name); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("User(%q): %v", name, err)
		}
		if err := s.RevokeUser(t.Context(), name, name); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("RevokeUser(%q): %v", name, err)
		}
		in := request(name)
		in.Family.ClientID, in.AppID = name, name
		family := signIn(t, s, in).Family
		if err := s.RevokeClient(t.Context(), name, name); err != nil {
			t.Error(err)
		}
		if access, err := s.CheckAccess(t.Context(), storage.AccessCheck{FamilyID: family.ID, JTI: name}); err != nil || access.Verdict != storage.AccessFamilyRevoked {
			t.Errorf("CheckAccess: %+v, %v", access.Verdict, err)
		}
		if swapped, err := s.SwapRecord(t.Context(), name+"x", 0, nil); err != nil {
			t.Error(swapped, err)
		}
	}
}
