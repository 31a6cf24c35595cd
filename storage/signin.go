package storage

import (
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

// User is a person known to the issuer. ID is the sub claim.
type User struct {
	ID        string
	CreatedAt time.Time
	UpdatedAt time.Time // of the profile; the updated_at claim
	Disabled  bool
	Retired   bool   // merged into another or erased; the id is never used again
	Epoch     uint32 // raised whenever all of the user's families are ended
	Profile   Profile

	Identities      int    // WeChat identities that lead to the user
	Username        string // "": none
	HasPassword     bool
	Phone           string // E.164; "": none
	PhoneVerifiedAt time.Time
	ExternalID      string // the product's own id; "": none
	Attributes      Attributes
}

// Profile is what a user shows of themself; sealed at rest under the user's
// own key.
type Profile struct {
	Nickname string `json:"nickname,omitempty"`
	Picture  string `json:"picture,omitempty"` // URL
}

// Identity is one WeChat account as one mini-program sees it. The values that
// WeChat assigned are sealed at rest under the user's own key.
type Identity struct {
	Index        Digest // names the record; zero in what was not read from a store
	AppID        string
	WeChatOpenID string
	UnionID      string // "": not known
	OpenPlatform string // the group of apps within which UnionID means a person
	UserID       string
	LinkedAt     time.Time
}

// SignIn asks Store.SignIn to record one proven WeChat identity and to create
// the family that this sign-in stands for.
type SignIn struct {
	AppID        string
	WeChatOpenID string
	UnionID      string // "": WeChat sent none
	OpenPlatform string // "": the app shares unionids with no other, and UnionID is not kept

	// NewProfile is given to the user if this sign-in creates one.
	NewProfile Profile

	// Family is the record to create. The store fills UserID, Identity,
	// WeChatAppID, UserEpoch and, by its own clock, CreatedAt, RotatedAt,
	// IdleExpiresAt and ExpiresAt; AuthTime stays the caller's. A zero ID or
	// Secret is made by the store; an ID that exists already is an error.
	Family   Family
	Idle     time.Duration // 0: the absolute lifetime alone counts
	Absolute time.Duration

	Idempotency *Idempotency // nil: none

	// RequireKnown refuses instead of creating a user, but for the account that
	// Bind names by its external id: the product's own system knows that one.
	RequireKnown bool
	Bind         *Binding    // nil: bind nothing
	Phone        *PhoneProof // nil: none

	// SessionKey goes into custody for SessionKeyLifetime; zero: not kept.
	SessionKey         secret.String
	SessionKeyLifetime time.Duration
}

// Idempotency lets a repeated request find the outcome of the first.
type Idempotency struct {
	Key      Digest // of the client and its Idempotency-Key
	Form     Digest // of all form parameters
	Lifetime time.Duration
}

// IdempotencyRecord is what a sign-in with an Idempotency left behind.
type IdempotencyRecord struct {
	Form     Digest
	FamilyID FamilyID
}

// SignInResult is the outcome of Store.SignIn.
type SignInResult struct {
	Verdict SignInVerdict
	Family  Family // as stored, for SignInOK
	UserID  string
	Created bool // the user is new
	// Conflict: the unionid belongs to another user than the openid, or differs
	// from the one recorded. The sign-in went on as the openid's user and
	// nobody was merged. ConflictUserID is the unionid's user, where there is one.
	Conflict       bool
	ConflictUserID string
}

// SignInVerdict is the judgement of Store.SignIn.
type SignInVerdict int

// The judgements of Store.SignIn.
const (
	SignInOK SignInVerdict = iota + 1
	// SignInUserDisabled: the user is disabled; nothing was written.
	SignInUserDisabled
	// SignInIdempotencyTaken: the idempotency key was recorded by another
	// sign-in meanwhile; nothing was written.
	SignInIdempotencyTaken
	// SignInAccountRequired: the identity has no user and RequireKnown is set.
	SignInAccountRequired
	// SignInAccountMissing: the account to bind to does not exist or is retired.
	SignInAccountMissing
	// SignInIdentityBound: the identity belongs to another user who is not bare.
	SignInIdentityBound
	// SignInAccountBound: the account has another identity of the same app.
	SignInAccountBound
	// SignInPhoneTaken: the number belongs to a user whom it alone may not
	// open, or to another user than the one it was to be recorded for.
	SignInPhoneTaken
)
