// Package accounts owns what is known about people and how they prove it by
// password: the profile and its rules, usernames, password hashes, the limits
// on guessing, and the client of a product's own account system.
//
// Unknown user, wrong password, disabled user and user without a password are
// one outcome with one amount of work. No error, log line or statistic made
// here holds a username, a password, a hash, a URL or a foreign answer.
package accounts

import (
	"strconv"
	"time"
)

// Kind says what a failed operation means to its caller.
type Kind int

// The kinds of failure.
const (
	// InvalidInput is a parameter that cannot be what it should be; Param names
	// it. It depends on nothing but the input.
	InvalidInput Kind = iota + 1
	// WrongCredentials is a username and password that do not open an account,
	// for whatever reason. No answer may tell the reasons apart.
	WrongCredentials
	// Limited is too many attempts; the password was not looked at.
	Limited
	// Busy is too many passwords being checked at this moment.
	Busy
	// Unavailable is the product's account system out of reach or answering
	// nonsense. It says nothing about the password.
	Unavailable
)

var kindNames = [...]string{
	InvalidInput: "invalid_input", WrongCredentials: "wrong_credentials", Limited: "limited",
	Busy: "busy", Unavailable: "unavailable",
}

// String returns the kind as a word for logs.
func (k Kind) String() string {
	if k <= 0 || int(k) >= len(kindNames) {
		return "kind(" + strconv.Itoa(int(k)) + ")"
	}
	return kindNames[k]
}

// Error is the error type of this package. It holds nothing that a person has
// entered, so it may be logged as it is.
type Error struct {
	Kind Kind
	// Param is the parameter at fault, for InvalidInput: username, password,
	// nickname or picture.
	Param string
	// Scope is the limit that was reached, for Limited: account_ip, account or ip.
	Scope string
	// Reason is a stable word for the log and for nobody else. It tells apart
	// what an answer must not. For WrongCredentials: unknown_user,
	// other_account, no_password, bad_hash, wrong_password, disabled or refused
	// (by the product's account system); for InvalidInput: encoding, too_short,
	// too_long, character or url; for Unavailable see [Verifier.Verify].
	Reason string
	// UserID is the user concerned where there is one; as Reason, for the log only.
	UserID string
	// RetryAfter is how long to wait before the next try; 0 where waiting does
	// not help.
	RetryAfter time.Duration

	cause error // context.Canceled, context.DeadlineExceeded or nil
	guess bool  // of Unavailable: may be the product's word on the password, and counts as a guess
}

// Error names the kind and the reason.
func (e *Error) Error() string {
	s := "accounts: " + e.Kind.String()
	for _, detail := range [...]string{e.Param, e.Scope, e.Reason} {
		if detail != "" {
			s += ": " + detail
		}
	}
	return s
}

// Unwrap returns context.Canceled or context.DeadlineExceeded where the
// caller's context ended the operation, else nil.
func (e *Error) Unwrap() error { return e.cause }

func invalid(param, reason string) *Error {
	return &Error{Kind: InvalidInput, Param: param, Reason: reason}
}

// The reasons of InvalidInput.
const (
	reasonEncoding  = "encoding" // not UTF-8
	reasonTooShort  = "too_short"
	reasonTooLong   = "too_long"
	reasonCharacter = "character" // one that is not allowed
	reasonURL       = "url"
)

// The reasons of WrongCredentials.
const (
	reasonUnknownUser   = "unknown_user"
	reasonOtherAccount  = "other_account" // than the one expected
	reasonNoPassword    = "no_password"
	reasonBadHash       = "bad_hash" // stored, but no hash that can be checked
	reasonWrongPassword = "wrong_password"
	reasonDisabled      = "disabled"
	reasonRefused       = "refused"
)
