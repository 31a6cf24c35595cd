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

// Attempts at another account count as guesses, right or wrong, and are
// limited like those at a name that nobody has, together with those of the
// paths that expect nobody.
func TestThreat53OtherAccountCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, username := range []string{canaryUsername, "nobody"} {
			for _, elsewhere := range []int{0, 4} {
				a, _ := newAuthenticator(t)
				for range elsewhere {
					_, err := a.Authenticate(context.Background(), credentials(username, "wrong"))
					asError(t, err, WrongCredentials)
				}
				for range 10 - elsewhere {
					_, err := a.Authenticate(context.Background(), expecting(username, canaryPassword, ExpectedAccount{UserID: "u9"}))
					asError(t, err, WrongCredentials)
				}
				_, err := a.Authenticate(context.Background(), expecting(username, canaryPassword, ExpectedAccount{UserID: "u9"}))
				e1 := asError(t, err, Limited)
				_, err = a.Authenticate(context.Background(), credentials(username, canaryPassword))
				e2 := asError(t, err, Limited)
				if *e1 != *e2 || e1.Scope != "account_ip" {
					t.Errorf("%s: %+v and %+v", username, *e1, *e2)
				}
			}
		}
	})
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
		400: true, 401: true, 403: true, 404: true, 422: true, 423: true,
		201: false, 302: false, 408: false, 425: false, 429: false, 500: false, 503: false,
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
