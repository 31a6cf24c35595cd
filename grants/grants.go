// Package grants answers one question: who is the End-User? Each proof grant,
// one file each, is a function from form parameters to a [Subject]. It knows
// no HTTP server and no token; the checks that every grant needs (client,
// scopes, audience) are made around it.
package grants

import (
	"context"
	"net/netip"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// Request is what a proof grant sees of a token request.
type Request struct {
	// Param returns a form parameter, "" if absent. No parameter occurs twice.
	Param func(name string) string
	// ClientID and WeChatAppID come from the client's configuration, never
	// from the request.
	ClientID    string
	WeChatAppID string
	// RequireKnown: the client makes no new users by itself.
	RequireKnown bool
	// KeepSessionKey: some client is there that may use WeChat's session_key.
	KeepSessionKey bool
	// TakesPhone: the client may have phone numbers recorded.
	TakesPhone bool
	// RemoteIP is the caller's address as far as trusted proxies vouch for it.
	RemoteIP netip.Addr
	ID       string // of the request, for logs
}

// Subject is the End-User that a grant has proven, and what the sign-in's
// commit is to record.
type Subject struct {
	Identity   storage.Identity // AppID, WeChatOpenID, UnionID, OpenPlatform
	NewProfile storage.Profile  // for the user, if this is their first sign-in
	AuthTime   time.Time
	AMR        []string // Authentication Methods References (OIDC Core §2)

	RequireKnown bool                // refuse rather than create a user
	Bind         *storage.Binding    // the account to bind the identity to; nil: none
	Phone        *storage.PhoneProof // nil: none
	SessionKey   secret.String       // to be kept in custody; zero: not kept
}

// Grant is one way of proving who the End-User is. An error is a *Refusal,
// a *wechat.Error, an *accounts.Error or an internal fault.
type Grant interface {
	// Type is the grant_type value.
	Type() string
	// Prove is called once a client that may use the grant was authenticated.
	Prove(ctx context.Context, req Request) (Subject, error)
}

// RefusalKind says why a grant refused before anybody else was asked.
type RefusalKind int

// The kinds of refusals.
const (
	// MissingParameter: a required form parameter is absent.
	MissingParameter RefusalKind = iota + 1
	// MalformedParameter: a form parameter cannot be what it should be.
	MalformedParameter
	// MockCode: the developer tool's stand-in for a js_code.
	MockCode
	// ForeignParameter: a form parameter that this grant does not take, and
	// that must not be ignored.
	ForeignParameter
	// Replayed: the same code was presented before.
	Replayed
	// Limited: too many sign-ins; RetryAfter says when to come again.
	Limited
)

// Refusal is a grant's own refusal.
type Refusal struct {
	Kind       RefusalKind
	Param      string // the form parameter concerned
	Scope      string // for Limited: ip, network, client, app or user
	RetryAfter time.Duration
}

// Error describes the refusal without any request value.
func (r *Refusal) Error() string {
	switch r.Kind {
	case MissingParameter:
		return "parameter missing: " + r.Param
	case MalformedParameter:
		return "parameter malformed: " + r.Param
	case MockCode:
		return "mock js_code of the developer tool"
	case ForeignParameter:
		return "parameter not of this grant: " + r.Param
	case Replayed:
		return r.Param + " presented again"
	case Limited:
		return "sign-in limit reached: " + r.Scope
	}
	return "refused"
}
