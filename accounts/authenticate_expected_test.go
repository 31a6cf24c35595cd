package accounts

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func expecting(username, password string, account ExpectedAccount) Credentials {
	c := credentials(username, password)
	c.Account = &account
	return c
}

func from(c Credentials, ip string) Credentials {
	c.IP = netip.MustParseAddr(ip)
	return c
}

// Where it is known whose password it must be, the right one of another
// account is a wrong one: in answer, work and time.
func TestThreat53OtherAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := newAuthenticator(t)
		a.Guard, a.FailureTime = nil, 0
		var costs []argon2Params
		a.Passwords.work = func(h hash, password []byte) ([]byte, bool) {
			costs = append(costs, h.argon2Params)
			time.Sleep(42 * time.Millisecond)
			return work(h, password)
		}
		for _, c := range []struct{ username, password, expected, reason, userID string }{
			{canaryUsername, canaryPassword, "u9", "other_account", "u1"},
			{canaryUsername, "wrong", "u9", "other_account", "u1"},
			{canaryUsername, canaryPassword, "", "other_account", "u1"},
			{"disabled", canaryPassword, "u9", "other_account", "u2"},
			{"wechatonly", canaryPassword, "u9", "other_account", "u3"},
			{"imported", "U*U", "u9", "other_account", "u4"},
			{"broken", canaryPassword, "u9", "other_account", "u5"},
			{"nobody", canaryPassword, "u9", "unknown_user", ""},
			{"nobody", canaryPassword, "", "unknown_user", ""},
			{canaryUsername, "wrong", "u1", "wrong_password", "u1"},
		} {
			costs = nil
			var err error
			var result Result
			took := elapsed(func() {
				result, err = a.Authenticate(context.Background(), expecting(c.username, c.password, ExpectedAccount{UserID: c.expected}))
			})
			e := asError(t, err, WrongCredentials)
			if e.Reason != c.reason || e.UserID != c.userID {
				t.Errorf("%s for %q: reason %s, user %s", c.username, c.expected, e.Reason, e.UserID)
			}
			e.Reason, e.UserID = "", "" // for the log only
			if *e != (Error{Kind: WrongCredentials}) || result.Binding().UserID != "" {
				t.Errorf("%s for %q: %+v, %+v", c.username, c.expected, *e, result)
			}
			if took != DefaultFailureTime || len(costs) != 1 || costs[0] != quickParams {
				t.Errorf("%s for %q: took %v, hashes %+v", c.username, c.expected, took, costs)
			}
		}
		if store.swaps != 0 {
			t.Error("a hash of another account was upgraded")
		}
		got, err := a.Authenticate(context.Background(), expecting(canaryUsername, canaryPassword, ExpectedAccount{UserID: "u1"}))
		if err != nil || got.UserID != "u1" {
			t.Errorf("the account itself: %+v, %v", got, err)
		}
	})
}

// Where one account is expected, guesses count against that one, whatever name
// was entered and right or wrong; nobody uses up the limit of somebody else's.
func TestThreat53OtherAccountCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, username := range []string{canaryUsername, "nobody"} {
			a, _ := newAuthenticator(t)
			mine := ExpectedAccount{UserID: "u9"}
			for range 10 {
				_, err := a.Authenticate(context.Background(), expecting(username, canaryPassword, mine))
				asError(t, err, WrongCredentials)
			}
			for _, name := range []string{username, "another"} {
				_, err := a.Authenticate(context.Background(), expecting(name, canaryPassword, mine))
				if e := asError(t, err, Limited); e.Scope != "account_ip" {
					t.Errorf("%s: %+v", name, *e)
				}
			}
			if _, err := a.Authenticate(context.Background(), credentials(canaryUsername, canaryPassword)); err != nil {
				t.Errorf("%s: the owner of the name: %v", username, err)
			}
		}
		// An account's own guesses count together on all paths.
		a, _ := newAuthenticator(t)
		for i := range 10 {
			c := credentials(canaryUsername, "wrong")
			if i%2 == 0 {
				c = expecting(canaryUsername, "wrong", ExpectedAccount{UserID: "u1"})
			}
			_, err := a.Authenticate(context.Background(), c)
			asError(t, err, WrongCredentials)
		}
		_, err := a.Authenticate(context.Background(), credentials(canaryUsername, canaryPassword))
		asError(t, err, Limited)
	})
}

// TestThreat52OneCheckAtATime: parallel tries do not add up to a time that
// shows what an account's hash costs.
func TestThreat52OneCheckAtATime(t *testing.T) {
	a, _ := newAuthenticator(t)
	begun, proceed := make(chan struct{}), make(chan struct{})
	work := a.Passwords.work
	a.Passwords.work = func(h hash, password []byte) ([]byte, bool) {
		begun <- struct{}{}
		<-proceed
		return work(h, password)
	}
	for _, username := range []string{canaryUsername, "nobody"} {
		done := make(chan error)
		go func() {
			_, err := a.Authenticate(context.Background(), credentials(username, "wrong"))
			done <- err
		}()
		<-begun
		for range 20 {
			_, err := a.Authenticate(context.Background(), credentials(username, canaryPassword))
			if e := asError(t, err, Busy); e.RetryAfter <= 0 {
				t.Errorf("%+v", e)
			}
		}
		proceed <- struct{}{}
		asError(t, <-done, WrongCredentials)
	}
}

func TestThreat53OtherAccountOfTheProduct(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthenticator(t)
		a.FailureTime = 0
		answer := `{"ok":true,"external_id":"42"}`
		v := newVerifier(t, VerifierOptions{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, r.Body)
			time.Sleep(30 * time.Millisecond)
			return response(200, answer), nil
		})})
		a.SetVerifier(v.Verifier)
		try := func(c Credentials) (result Result, took time.Duration, err error) {
			took = elapsed(func() { result, err = a.Authenticate(context.Background(), c) })
			return result, took, err
		}
		for i, expected := range []ExpectedAccount{{ExternalID: "41"}, {ExternalID: "420"}, {UserID: "42"}, {}} {
			result, took, err := try(from(expecting("ann", "pw", expected), fmt.Sprintf("198.51.100.%d", i)))
			e := asError(t, err, WrongCredentials)
			if e.Reason != "other_account" || result.Binding().ExternalID != "" || took != DefaultFailureTime {
				t.Errorf("%+v: %+v, %+v, took %v", expected, *e, result, took)
			}
		}
		got, took, err := try(from(expecting("ann", "pw", ExpectedAccount{ExternalID: "42"}), "198.51.100.9"))
		if err != nil || got.ExternalID != "42" || took != 30*time.Millisecond {
			t.Errorf("the account itself: %+v, %v, took %v", got, err, took)
		}
		for i := range 10 { // every second one is right, for somebody else
			answer = []string{`{"ok":false}`, `{"ok":true,"external_id":"42"}`}[i%2]
			_, took, err := try(expecting("ann", "pw", ExpectedAccount{ExternalID: "41"}))
			asError(t, err, WrongCredentials)
			if took != DefaultFailureTime {
				t.Errorf("took %v", took)
			}
		}
		_, _, err = try(expecting("ann", "pw", ExpectedAccount{ExternalID: "41"}))
		asError(t, err, Limited)
	})
}

// A product may refuse a password by its status. Nobody is told that the
// password is wrong, but it was a guess.
func TestThreat53VerifierStatusCounts(t *testing.T) {
	for status, counts := range map[int]bool{
		400: true, 401: true, 403: true, 404: true, 422: true, 423: true, 201: true, 302: true,
		408: false, 425: false, 429: false, 500: false, 503: false,
	} {
		synctest.Test(t, func(t *testing.T) {
			a, _ := newAuthenticator(t)
			now := status
			v := newVerifier(t, VerifierOptions{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
				return response(now, `{"ok":true,"external_id":"42"}`), nil
			})})
			a.SetVerifier(v.Verifier)
			for range 10 {
				_, err := a.Authenticate(context.Background(), credentials("ann", "guess"))
				asError(t, err, Unavailable)
			}
			now = 200
			_, err := a.Authenticate(context.Background(), credentials("ann", "right"))
			if counts {
				if e := asError(t, err, Limited); e.Scope != "account_ip" {
					t.Errorf("%d: %+v", status, e)
				}
			} else if err != nil {
				t.Errorf("%d: %v", status, err)
			}
		})
	}
}
