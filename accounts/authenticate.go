package accounts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// DefaultFailureTime is how long a failed check takes at least.
const DefaultFailureTime = 500 * time.Millisecond

// Store is what checking a password needs of a storage.Store.
type Store interface {
	// AccountByUsername takes a canonical username; storage.ErrNotFound where
	// there is no such account.
	AccountByUsername(ctx context.Context, username string) (storage.Account, error)
	SetPassword(ctx context.Context, userID, oldHash, newHash string, endFamilies bool) (swapped bool, err error)
}

var _ Store = storage.Store(nil)

// Credentials are a username and password that somebody has entered.
type Credentials struct {
	Username string
	Password secret.String
	IP       netip.Addr // of the caller, as far as trusted proxies vouch for it

	// Account is whose password it must be; nil: anybody's. The right password
	// of another account is then a wrong one, and cannot be told from it.
	Account *ExpectedAccount

	// ClientID and RequestID are passed on to a product's own account system
	// and to the log.
	ClientID  string
	RequestID string
}

// ExpectedAccount names the account that credentials must open: by UserID if
// it lives here, by ExternalID if it lives in the product's own account system.
// What is empty is no account's.
type ExpectedAccount struct {
	UserID     string
	ExternalID string
}

// Result names the account that credentials open: by UserID if it lives here,
// by ExternalID if it lives in the product's own account system.
type Result struct {
	UserID string
	Epoch  uint32 // of the UserID: a binding that comes after another change of the password is void

	ExternalID string
	Profile    storage.Profile
	Attributes storage.Attributes
}

// Binding returns what a sign-in records to bind its identity to the account.
// The Profile is for an ExternalID that is new, and may be empty.
func (r Result) Binding() *storage.Binding {
	if r.UserID != "" {
		return &storage.Binding{UserID: r.UserID, Epoch: r.Epoch}
	}
	return &storage.Binding{ExternalID: r.ExternalID, Attributes: r.Attributes, Profile: r.Profile}
}

// Authenticator checks usernames and passwords, for every path that takes
// them, against the accounts kept here or, where a Verifier is set, by asking
// the product's own account system instead. It is safe for concurrent use.
type Authenticator struct {
	Store     Store
	Passwords *Passwords
	Guard     *Guard // nil: no limit

	// FailureTime is how long WrongCredentials takes at least, so that a hash
	// that came by import and costs other than those made here does not show.
	// 0 means DefaultFailureTime; a negative one, no such time.
	FailureTime time.Duration

	Log *slog.Logger // nil: none

	verifier atomic.Pointer[Verifier]
	checking sync.Map // names whose password is being checked here
}

// SetVerifier makes v answer from now on in place of the accounts kept here;
// nil goes back to them. The one before is closed.
func (a *Authenticator) SetVerifier(v *Verifier) {
	if old := a.verifier.Swap(v); old != nil && old != v {
		old.Close()
	}
}

// Authenticate names the account that c opens. The error is an [*Error] of any
// kind, or wraps storage's or ctx's. An attempt that came to no judgement
// (Busy, Unavailable, storage down) does not count against the limits; that
// the product answers with a 4xx status does, for it may be its way to say no.
//
// It does the same work for a user that is unknown, disabled, without a
// password or not the one expected as for a wrong password.
func (a *Authenticator) Authenticate(ctx context.Context, c Credentials) (Result, error) {
	start := time.Now()
	username, err := CanonicalUsername(c.Username)
	if err != nil {
		return Result{}, err
	}
	if err := CheckPassword(c.Password); err != nil {
		return Result{}, err
	}
	var result Result
	if v := a.verifier.Load(); v != nil {
		result, err = a.askProduct(ctx, v, username, c)
	} else {
		result, err = a.checkHere(ctx, username, c)
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Kind == WrongCredentials {
		a.waitUntil(ctx, start)
	}
	return result, err
}

func (a *Authenticator) waitUntil(ctx context.Context, start time.Time) {
	least := a.FailureTime
	if least == 0 {
		least = DefaultFailureTime
	}
	t := time.NewTimer(least - time.Since(start))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (a *Authenticator) askProduct(ctx context.Context, v *Verifier, username string, c Credentials) (Result, error) {
	name := "product:" + username
	if c.Account != nil { // only this account can open, whatever name was entered
		name = "product id:" + c.Account.ExternalID
	}
	attempt, err := a.Guard.Begin(name, c.IP)
	if err != nil {
		return Result{}, err
	}
	// The product's usernames are its own: it gets what was entered.
	answer, err := v.Verify(ctx, Question{
		Username: strings.TrimSpace(c.Username), Password: c.Password, ClientID: c.ClientID, RequestID: c.RequestID,
	})
	if err != nil {
		if e, ok := errors.AsType[*Error](err); !ok || e.Kind != WrongCredentials && !e.guess {
			attempt.Withdraw()
		}
		return Result{}, err
	}
	if c.Account != nil && answer.ExternalID != c.Account.ExternalID {
		return Result{}, &Error{Kind: WrongCredentials, Reason: reasonOtherAccount}
	}
	attempt.Succeeded()
	return Result{ExternalID: answer.ExternalID, Profile: answer.Profile, Attributes: answer.Attributes}, nil
}

func (a *Authenticator) checkHere(ctx context.Context, username string, c Credentials) (Result, error) {
	account, err := a.Store.AccountByUsername(ctx, username)
	unknown := errors.Is(err, storage.ErrNotFound)
	if err != nil && !unknown {
		return Result{}, fmt.Errorf("look up account: %w", err)
	}
	other := c.Account != nil && !unknown && account.UserID != c.Account.UserID
	name := account.UserID
	switch {
	case unknown:
		account = storage.Account{}
		name = "name:" + username
	case other: // its password is not looked at
		account = storage.Account{UserID: account.UserID}
	}
	if c.Account != nil {
		// Only this account can open, whatever name was entered: guesses count
		// against it, and nobody uses up the limit of somebody else's.
		name = c.Account.UserID
	}
	attempt, err := a.Guard.Begin(name, c.IP)
	if err != nil {
		return Result{}, withUser(err, account.UserID)
	}
	// One check at a time: several of a hash that costs much would show, by
	// their time together, that the account exists.
	if _, busy := a.checking.LoadOrStore(name, true); busy {
		attempt.Withdraw()
		return Result{}, &Error{Kind: Busy, RetryAfter: retryBusy, UserID: account.UserID}
	}
	defer a.checking.Delete(name)
	match, err := a.Passwords.Verify(ctx, account.PasswordHash, c.Password)
	if err != nil {
		attempt.Withdraw()
		return Result{}, withUser(err, account.UserID)
	}
	if reason := judge(account, unknown, other, match); reason != "" {
		return Result{}, &Error{Kind: WrongCredentials, Reason: reason, UserID: account.UserID}
	}
	attempt.Succeeded()
	if match.Upgrade {
		a.upgrade(ctx, account, c)
	}
	return Result{UserID: account.UserID, Epoch: account.Epoch}, nil
}

// judge returns why an account does not open, "" if it does.
func judge(account storage.Account, unknown, other bool, match Match) string {
	switch {
	case unknown:
		return reasonUnknownUser
	case other:
		return reasonOtherAccount
	case account.PasswordHash == "":
		return reasonNoPassword
	case match.Unusable:
		return reasonBadHash
	case !match.OK:
		return reasonWrongPassword
	case account.Disabled:
		return reasonDisabled
	}
	return ""
}

func withUser(err error, userID string) error {
	if e, ok := errors.AsType[*Error](err); ok {
		e.UserID = userID
	}
	return err
}

// upgrade replaces a hash from elsewhere. It is no matter if that fails: the
// next sign-in tries again.
func (a *Authenticator) upgrade(ctx context.Context, account storage.Account, c Credentials) {
	next, err := a.Passwords.Hash(ctx, c.Password)
	if err == nil {
		_, err = a.Store.SetPassword(ctx, account.UserID, account.PasswordHash, next, false)
	}
	if err == nil || a.Log == nil {
		return
	}
	a.Log.LogAttrs(ctx, slog.LevelWarn, "A password hash was not upgraded",
		slog.String("event", "password.upgrade_failed"), slog.String("request_id", c.RequestID),
		slog.String("sub", account.UserID), slog.Any("error", err))
}
