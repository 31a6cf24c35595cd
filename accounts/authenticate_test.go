package accounts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

const bcryptHash = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW" // of U*U

func newAuthenticator(t testing.TB) (*Authenticator, *accountTable) {
	t.Helper()
	p := quickPasswords(PasswordOptions{Slots: 2})
	own := mustHash(t, p, canaryPassword)
	store := &accountTable{accounts: map[string]storage.Account{
		canaryUsername: {UserID: "u1", PasswordHash: own},
		"disabled":     {UserID: "u2", PasswordHash: own, Disabled: true},
		"wechatonly":   {UserID: "u3"},
		"imported":     {UserID: "u4", PasswordHash: bcryptHash},
		"broken":       {UserID: "u5", PasswordHash: "x"},
	}}
	return &Authenticator{Store: store, Passwords: p, Guard: NewGuard(DefaultGuardRates()), FailureTime: -1}, store
}

func TestAuthenticate(t *testing.T) {
	a, store := newAuthenticator(t)
	for _, username := range []string{canaryUsername, "CANARYuser", " ｃａｎａｒｙuser "} {
		got, err := a.Authenticate(context.Background(), credentials(username, canaryPassword))
		if err != nil || got.UserID != "u1" || got.ExternalID != "" {
			t.Errorf("%q: %+v, %v", username, got, err)
		}
		if b := got.Binding(); b.UserID != "u1" || b.ExternalID != "" {
			t.Errorf("the binding is %+v", b)
		}
	}
	if store.swaps != 0 {
		t.Error("a hash of our own was replaced")
	}
	for _, c := range []struct{ username, password, param string }{
		{"", "pw", "username"},
		{"a\x00", "pw", "username"},
		{"a", "", "password"},
		{"a", strings.Repeat("x", 129), "password"},
	} {
		before := a.Passwords.Stats().Hashes
		_, err := a.Authenticate(context.Background(), credentials(c.username, c.password))
		if e := asError(t, err, InvalidInput); e.Param != c.param {
			t.Errorf("%+v", e)
		}
		if a.Passwords.Stats().Hashes != before {
			t.Error("hashed what cannot be a password or username")
		}
	}
}

// Whatever is wrong, the outcome is the same, and so is the work: one look-up,
// one hash of the same cost, no write.
func TestThreat52Enumeration(t *testing.T) {
	a, store := newAuthenticator(t)
	a.Guard = nil
	var costs []argon2Params
	a.Passwords.work = func(h hash, password []byte) ([]byte, bool) {
		costs = append(costs, h.argon2Params)
		return work(h, password)
	}
	for _, c := range []struct{ username, password, reason, userID string }{
		{"nobody", canaryPassword, "unknown_user", ""},
		{canaryUsername, "wrong", "wrong_password", "u1"},
		{"disabled", canaryPassword, "disabled", "u2"},
		{"disabled", "wrong", "wrong_password", "u2"},
		{"wechatonly", canaryPassword, "no_password", "u3"},
		{"broken", canaryPassword, "bad_hash", "u5"},
	} {
		store.lookups, costs = 0, nil
		result, err := a.Authenticate(context.Background(), credentials(c.username, c.password))
		e := asError(t, err, WrongCredentials)
		if e.Reason != c.reason || e.UserID != c.userID {
			t.Errorf("%s: reason %s, user %s", c.username, e.Reason, e.UserID)
		}
		// Beside what is for the log, there is nothing to tell them apart.
		e.Reason, e.UserID = "", ""
		if *e != (Error{Kind: WrongCredentials}) || result.UserID != "" {
			t.Errorf("%s: %+v, %+v", c.username, *e, result)
		}
		if store.lookups != 1 || store.swaps != 0 || len(costs) != 1 || costs[0] != quickParams {
			t.Errorf("%s %s: %d look-ups, %d writes, hashes %+v", c.username, c.reason, store.lookups, store.swaps, costs)
		}
	}
}

// An imported hash costs more or less than ours; a failure takes the same time
// all the same.
func TestThreat52FailureTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthenticator(t)
		a.Guard, a.FailureTime = nil, 0
		a.Passwords.work = func(h hash, password []byte) ([]byte, bool) {
			if h.algorithm == algBcrypt {
				time.Sleep(345 * time.Millisecond)
			} else {
				time.Sleep(42 * time.Millisecond)
			}
			return work(h, password)
		}
		for _, username := range []string{"nobody", canaryUsername, "imported", "disabled", "wechatonly", "broken"} {
			took := elapsed(func() {
				_, err := a.Authenticate(context.Background(), credentials(username, "wrong"))
				asError(t, err, WrongCredentials)
			})
			if took != DefaultFailureTime {
				t.Errorf("%s: %v, want %v", username, took, DefaultFailureTime)
			}
		}
		if took := elapsed(func() {
			if _, err := a.Authenticate(context.Background(), credentials(canaryUsername, canaryPassword)); err != nil {
				t.Error(err)
			}
		}); took != 42*time.Millisecond {
			t.Errorf("the right password took %v", took)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if took := elapsed(func() {
			_, err := a.Authenticate(ctx, credentials("nobody", "wrong"))
			asError(t, err, WrongCredentials)
		}); took != 100*time.Millisecond {
			t.Errorf("waited %v for a caller who was gone", took)
		}
	})
}

func TestThreat53BlockedBeforeHashing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, username := range map[string]string{
			"a known user": canaryUsername, "an unknown one": "nobody", "a disabled one": "disabled",
		} {
			a, _ := newAuthenticator(t)
			spellings := []string{username, strings.ToUpper(username), " " + username + " "}
			for i := range 10 { // every spelling counts for the one account
				_, err := a.Authenticate(context.Background(), credentials(spellings[i%3], "wrong"))
				asError(t, err, WrongCredentials)
			}
			before := a.Passwords.Stats().Hashes
			_, wrong := a.Authenticate(context.Background(), credentials(username, "wrong"))
			_, right := a.Authenticate(context.Background(), credentials(username, canaryPassword))
			e1, e2 := asError(t, wrong, Limited), asError(t, right, Limited)
			if *e1 != *e2 || e1.Scope != "account_ip" || e1.RetryAfter <= 0 || e1.Reason != "" {
				t.Errorf("%s: inside the block, %+v and %+v", name, *e1, *e2)
			}
			if a.Passwords.Stats().Hashes != before {
				t.Errorf("%s: hashed inside the block", name)
			}
			time.Sleep(e1.RetryAfter)
			if _, err := a.Authenticate(context.Background(), credentials(username, canaryPassword)); (err == nil) != (username == canaryUsername) {
				t.Errorf("%s: after the block: %v", name, err)
			}
		}
	})
}

// All outcomes of a blocked attempt are one answer, for known and unknown users.
func TestThreat52BlockedAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthenticator(t)
		var answers []Error
		for _, username := range []string{canaryUsername, "nobody", "disabled", "wechatonly", "broken"} {
			for range 10 {
				_, _ = a.Authenticate(context.Background(), credentials(username, "wrong"))
			}
			_, err := a.Authenticate(context.Background(), credentials(username, "wrong"))
			e := *asError(t, err, Limited)
			e.UserID = "" // for the log only
			answers = append(answers, e)
		}
		for _, e := range answers[1:] {
			if e != answers[0] {
				t.Errorf("%+v and %+v", e, answers[0])
			}
		}
	})
}

func TestThreat53SuccessClears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthenticator(t)
		for range 5 {
			for range 9 {
				_, err := a.Authenticate(context.Background(), credentials(canaryUsername, "wrong"))
				asError(t, err, WrongCredentials)
			}
			if _, err := a.Authenticate(context.Background(), credentials(canaryUsername, canaryPassword)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestThreat53ParallelAuthenticate(t *testing.T) {
	a, _ := newAuthenticator(t)
	a.Passwords = quickPasswords(PasswordOptions{Slots: 2, Queue: 100})
	var wrong, limited, busy atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			_, err := a.Authenticate(context.Background(), credentials(canaryUsername, fmt.Sprint("wrong", i)))
			switch e, _ := errors.AsType[*Error](err); e.Kind {
			case WrongCredentials:
				wrong.Add(1)
			case Limited:
				limited.Add(1)
			case Busy:
				busy.Add(1)
			}
		})
	}
	wg.Wait()
	if n := wrong.Load(); n < 1 || n > 10 || n+limited.Load()+busy.Load() != 64 {
		t.Errorf("%d were checked, %d limited and %d had no turn, want at most 10 of 64", n, limited.Load(), busy.Load())
	}
}

// What came to no judgement is no guess.
func TestThreat54BusyDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := newAuthenticator(t)
		a.Passwords.light.limit = 0
		for range 50 {
			_, err := a.Authenticate(context.Background(), credentials(canaryUsername, canaryPassword))
			if e := asError(t, err, Busy); e.RetryAfter <= 0 || e.UserID != "u1" {
				t.Fatalf("%+v", e)
			}
		}
		store.fault = storage.ErrUnavailable
		for range 50 {
			_, err := a.Authenticate(context.Background(), credentials(canaryUsername, canaryPassword))
			if !errors.Is(err, storage.ErrUnavailable) {
				t.Fatal(err)
			}
			noCanary(t, err.Error())
		}
		store.fault, a.Passwords.light.limit = nil, 10
		if _, err := a.Authenticate(context.Background(), credentials(canaryUsername, canaryPassword)); err != nil {
			t.Error(err)
		}
	})
}

func TestUpgradeOnSignIn(t *testing.T) {
	a, store := newAuthenticator(t)
	log, logged := newLog()
	a.Log = log
	signIn := func(password string) error {
		_, err := a.Authenticate(context.Background(), credentials("imported", password))
		return err
	}
	asError(t, signIn("wrong"), WrongCredentials)
	store.swapErr = storage.ErrUnavailable
	if err := signIn("U*U"); err != nil || store.get("imported").PasswordHash != bcryptHash {
		t.Fatalf("with a store that cannot write: %v", err)
	}
	if !strings.Contains(logged.String(), `"event":"password.upgrade_failed"`) {
		t.Errorf("logged %q", logged)
	}
	noCanary(t, logged.String())
	store.swapErr = nil
	if err := signIn("U*U"); err != nil {
		t.Fatal(err)
	}
	upgraded := store.get("imported").PasswordHash
	if !strings.HasPrefix(upgraded, "$argon2id$v=19$m=64,t=1,p=1$") || store.swaps != 1 {
		t.Fatalf("the hash is now %q after %d writes", upgraded, store.swaps)
	}
	if err := signIn("U*U"); err != nil || store.swaps != 1 {
		t.Errorf("with the new hash: %v, %d writes", err, store.swaps)
	}
	asError(t, signIn("wrong"), WrongCredentials)

	// A disabled user's hash is left alone: an upgrade would take time.
	account := storage.Account{UserID: "u6", PasswordHash: bcryptHash, Disabled: true}
	store.accounts["gone"] = account
	before := a.Passwords.Stats().Hashes
	_, err := a.Authenticate(context.Background(), credentials("gone", "U*U"))
	asError(t, err, WrongCredentials)
	if store.get("gone") != account || a.Passwords.Stats().Hashes != before+1 {
		t.Error("a disabled user's hash was upgraded")
	}
}

// Every kind of error, printed in every way, shows nothing of what was entered.
func TestErrorsShowNothing(t *testing.T) {
	a, _ := newAuthenticator(t)
	for _, c := range []Credentials{
		credentials(canaryUsername, "wrong"), credentials("nobody", canaryPassword),
		credentials(canaryUsername+"\x00", canaryPassword), credentials(canaryUsername, strings.Repeat(canaryPassword, 20)),
	} {
		_, err := a.Authenticate(context.Background(), c)
		noCanary(t, fmt.Sprintf("%v %+v %#v", err, err, err))
	}
	c := Credentials{Password: secret.New(canaryPassword)}
	noCanary(t, fmt.Sprintf("%v %+v %#v", c, c, c))
	for k := Kind(0); k < 8; k++ {
		if k.String() == "" {
			t.Errorf("kind %d has no name", k)
		}
	}
}
