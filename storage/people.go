package storage

import (
	"context"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

// People is the part of a Store about accounts beyond silent sign-in: profile,
// password, phone, binding, custody of session_keys, merging and erasing. Every
// operation is one transaction with a verdict, as in Store.
type People interface {
	// UpdateProfile replaces what change names of a user's profile. It returns
	// ErrNotFound for an unknown or retired user.
	UpdateProfile(ctx context.Context, userID string, change ProfileChange) (User, error)

	// CreateAccount makes a user with a username, or takes up the import of
	// one again: an account with the same external id and username is left as
	// it is (AccountExists), another use of either is a conflict. Without an
	// external id a username that exists is always taken.
	CreateAccount(ctx context.Context, in NewAccount) (AccountResult, error)

	// AccountByUsername returns what checking a password needs, or
	// ErrNotFound. Usernames are compared as the caller canonicalised them.
	AccountByUsername(ctx context.Context, username string) (Account, error)

	// SetPassword replaces a password hash if it still is the old one ("": the
	// user has none); an upgraded hash must not undo a change made meanwhile.
	// endFamilies ends the user's families in the same commit. It returns
	// ErrNotFound for an unknown or retired user.
	SetPassword(ctx context.Context, userID, oldHash, newHash string, endFamilies bool) (swapped bool, err error)

	// UserBy returns the user whom a username (canonical), a phone number
	// (E.164) or an external id leads to, or ErrNotFound.
	UserBy(ctx context.Context, kind IndexKind, value string) (User, error)

	// Identities returns the WeChat identities of a user in order of linking,
	// or ErrNotFound for an unknown or retired user.
	Identities(ctx context.Context, userID string) ([]Identity, error)

	// IdentityUser returns the user of a WeChat identity with the identity's
	// index, or ErrNotFound.
	IdentityUser(ctx context.Context, appID, weChatOpenID string) (User, Digest, error)

	// SignInUser returns the user whom a sign-in of the identity (AppID,
	// WeChatOpenID and, where known, UnionID with OpenPlatform) leads to at
	// present, or ErrNotFound. It may be disabled.
	SignInUser(ctx context.Context, identity Identity) (User, error)

	// Unbind removes identities from a user: all of those named, or none where
	// nothing else would let the user in. All families and login sessions of the
	// user end, and no grant can be redeemed any more, since any of them may
	// have come from one of the identities. While another identity of the user
	// bears the same unionid, a sign-in of a removed one leads to the user again.
	Unbind(ctx context.Context, in Unbinding) (UnbindVerdict, error)

	// Merge moves everything of one user to another and retires the first:
	// its families end, its id is never used again. Profile and families of
	// into stay; session_keys do not move. With dryRun it only says what would
	// happen.
	Merge(ctx context.Context, from, into string, dryRun bool) (MergeResult, error)

	// Erase destroys a user's key and removes all that points to the user. The
	// id stays as a tombstone, so that it is never used again. found is false
	// for an unknown or retired user. An engine may leave families of a user
	// with very many of them to expire; they have ended and hold no personal
	// value.
	Erase(ctx context.Context, userID string) (found bool, err error)

	// ImportUsers takes users of an earlier system: it links WeChat identities
	// and accounts to users named by their external ids, making users where
	// there are none. A user without an external id whom the identity, or else
	// its unionid, leads to already gets the row's. It is idempotent: a row that
	// is already so is ImportUnchanged. One commit for the whole slice, of at most MaxImport
	// rows. With dryRun it only says what would happen.
	ImportUsers(ctx context.Context, rows []ImportRow, dryRun bool) ([]ImportVerdict, error)

	// SessionKeys returns the session_keys in custody for an identity, newest
	// first, at most two; none for an unknown identity.
	SessionKeys(ctx context.Context, identity Digest) ([]SessionKey, error)

	// PutSessionKey adds a session_key to an identity's custody, or returns
	// ErrNotFound. One that is there already becomes the newest.
	PutSessionKey(ctx context.Context, identity Digest, key secret.String, lifetime time.Duration) error

	// ForgetSessionKeys removes the session_keys of up to limit identities from
	// custody and says whether more are there.
	ForgetSessionKeys(ctx context.Context, limit int) (forgotten int, more bool, err error)

	// Withdraw records what WeChat says a user took back from an app. It may
	// be repeated.
	Withdraw(ctx context.Context, in Withdrawal) (WithdrawResult, error)

	// RevokeClient ends all families of a client with one write; its grants of
	// before it cannot be redeemed any more.
	RevokeClient(ctx context.Context, clientID, reason string) error
}

// MaxImport is how many rows one ImportUsers takes.
const MaxImport = 1000

// ProfileChange names what to change of a profile; nil leaves it as it is.
type ProfileChange struct {
	Nickname *string
	Picture  *string
}

// Attributes are what the product's own account system says of a user; they
// are sealed like the profile.
type Attributes struct {
	Roles  []string          `json:"roles,omitempty"`
	Claims map[string]string `json:"claims,omitempty"` // claim name → JSON value
}

// NewAccount is an account to create.
type NewAccount struct {
	Username     string // canonical; "" only with an ExternalID
	PasswordHash string // PHC string; "": no password here
	ExternalID   string // the product's own id; "": none
	Profile      Profile
}

// AccountResult is the outcome of CreateAccount.
type AccountResult struct {
	Verdict AccountVerdict
	UserID  string // for AccountCreated and AccountExists
}

// AccountVerdict is the judgement of CreateAccount.
type AccountVerdict int

// The judgements of CreateAccount.
const (
	AccountCreated AccountVerdict = iota + 1
	AccountExists
	AccountUsernameTaken
	AccountExternalIDTaken
)

// Account is what checking a password needs.
type Account struct {
	UserID       string
	Epoch        uint32 // raised whenever the password is changed by somebody; see Binding
	PasswordHash string
	Disabled     bool
}

// Binding asks SignIn to bind the identity to an existing account, named by
// exactly one of UserID and ExternalID. The caller has proven that the account
// is the caller's.
type Binding struct {
	UserID     string
	Epoch      uint32     // of the UserID when that was proven; another means that the proof is void
	ExternalID string     // an account of the product's own system, made here if it is new
	Attributes Attributes // of an ExternalID: what its system said this time
	Profile    Profile    // of an ExternalID that is new
}

// PhoneProof is a phone number that WeChat has confirmed for the identity that
// signs in.
type PhoneProof struct {
	E164       string
	VerifiedAt time.Time
	// SignIn: the number itself names the account. It may join an identity
	// that has no user, or a bare one, to the number's user, where that user
	// has no username, password, external id, identity or live family and is
	// not disabled. Where nobody has the number, and always without SignIn or
	// with a Binding, it is recorded for the user who signs in.
	SignIn bool
	// Change: it may take the place of another number of the user, which
	// stays otherwise.
	Change bool
}

// SessionKey is WeChat's session_key of one identity in custody.
type SessionKey struct {
	Value secret.String
	At    time.Time // when WeChat gave it
}

// Unbinding names identities to remove from a user, and what counts as another
// way in as things are configured.
type Unbinding struct {
	UserID     string
	Identities []Digest
	All        bool // all that the user has at that moment, in the place of Identities
	WaysIn
	Notify []string // clients to tell that the login sessions have ended
}

// WaysIn are the ways into an account beside a WeChat identity.
type WaysIn struct {
	Password   bool // a username with a password
	ExternalID bool // the product's own account system
	Phone      bool // a number, on an account that has neither username nor external id
}

// UnbindVerdict is the judgement of Unbind.
type UnbindVerdict int

// The judgements of Unbind.
const (
	UnbindOK        UnbindVerdict = iota + 1
	UnbindMissing                 // no such identity, or another user's
	UnbindLastWayIn               // nothing else would let the user in
)

// MergeResult is what Merge did or would do.
type MergeResult struct {
	Verdict    MergeVerdict
	Identities int  // that move
	Username   bool // moves, with the password
	Phone      bool // moves
	ExternalID bool // moves
	Families   int  // of the retired user that end; no more are counted than an operation looks at
}

// MergeVerdict is the judgement of Merge.
type MergeVerdict int

// The judgements of Merge.
const (
	MergeOK              MergeVerdict = iota + 1
	MergeMissing                      // one of the users does not exist or is retired
	MergeSame                         // a user with itself
	MergeSameApp                      // both have an identity of the same app
	MergeBothUsernames                // both have a username
	MergeBothPhones                   // both have a phone number
	MergeBothExternalIDs              // both have an external id
	MergeDisabled                     // one of them is disabled
)

// ImportRow is one user of an earlier system: a WeChat identity (AppID and
// WeChatOpenID) of a user named by ExternalID, or an account (Username and
// PasswordHash), or both.
type ImportRow struct {
	AppID        string
	WeChatOpenID string
	UnionID      string // "": none
	OpenPlatform string
	ExternalID   string  // may be "" for an account only
	Username     string  // canonical
	PasswordHash string  // of a new account, and of a user who has no username so far
	Profile      Profile // for a user that is new
}

// ImportVerdict is the judgement of one row.
type ImportVerdict int

// The judgements of ImportUsers. After those from ImportIdentityTaken on,
// nothing of the row was taken.
const (
	ImportCreated       ImportVerdict = iota + 1 // a new user
	ImportLinked                                 // a new identity, unionid, username or external id of a known user
	ImportUnchanged                              // all of it was so already
	ImportIdentityTaken                          // the identity belongs to another user
	ImportUnionIDTaken                           // the unionid belongs to another user, or the identity has another one
	ImportSameApp                                // the user has another identity of that app
	ImportUsernameTaken                          // the username belongs to another user
	ImportOtherUsername                          // the user has another username
	ImportDisabled                               // the user is disabled
)
