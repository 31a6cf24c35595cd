// Package storage says what wxidp keeps and what it asks of an engine that
// keeps it.
//
// The contract is [Store]: composite operations, each of them one atomic
// transaction that decides by the engine's own clock and returns a verdict.
// No operation takes a closure and none leaves a transaction open, so that
// every engine with compare-and-set can implement them all. A backend is
// whatever passes package storagetest.
package storage

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrUnavailable means that the engine cannot answer or cannot write now,
	// a full disk included. Nothing was written. The caller may try later.
	ErrUnavailable = errors.New("storage: unavailable")
	// ErrClosed means that the store was closed.
	ErrClosed = errors.New("storage: closed")
	// ErrNotFound means that no such record exists.
	ErrNotFound = errors.New("storage: not found")
	// ErrBadCursor means that a cursor is not one that the listing gave out.
	ErrBadCursor = errors.New("storage: not a cursor of this listing")
	// ErrTooLarge means that a value or a name is longer than the engine takes.
	// Nothing was written.
	ErrTooLarge = errors.New("storage: value is too large")
)

// InsteadError is returned for what an engine leaves to the means of its own
// database.
type InsteadError struct {
	Operation string // what was asked for
	Instead   string // what to do, as a sentence for the operator
}

func (e *InsteadError) Error() string {
	return "storage: no " + e.Operation + " by this engine: " + e.Instead
}

// Limits that every engine keeps.
const (
	MaxValueSize = 1 << 20 // bytes of one item, document or family
	MaxReason    = 256     // bytes of the reason for a revocation
	MaxPage      = 1000    // records in one page or one DeleteExpired or Rewrap; a limit outside 1..MaxPage counts as MaxPage
)

// PageSize returns the limit that counts for the one given.
func PageSize(limit int) int {
	if limit < 1 || limit > MaxPage {
		return MaxPage
	}
	return limit
}

// Store is the contract of a storage engine. All methods are safe for
// concurrent use. A method that writes returns only after its write is
// durable, and so does one whose answer rests on another's write that is not
// durable yet. Every error is or wraps one of the package's errors or the
// context's; once a write was handed to the engine a cancelled context no
// longer withdraws it.
type Store interface {
	// SignIn finds or creates the user of a WeChat identity and creates a
	// refresh-token family for it, in one commit.
	SignIn(ctx context.Context, in SignIn) (SignInResult, error)

	// Idempotency returns what an earlier sign-in with this key recorded. ok is
	// false where there is none or its lifetime is over.
	Idempotency(ctx context.Context, key Digest) (rec IdempotencyRecord, ok bool, err error)

	// Rotate redeems one generation of a family's refresh token. Grace, expiry,
	// revocation, the user's state and reuse are judged in the same operation,
	// which revokes the family where it finds reuse.
	Rotate(ctx context.Context, in Rotation) (RotateResult, error)

	// Family returns a family whatever its state, or ErrNotFound.
	Family(ctx context.Context, id FamilyID) (Family, error)

	// CheckAccess judges whether what was issued under a family, and one token
	// by its jti, is still good. It writes nothing.
	CheckAccess(ctx context.Context, in AccessCheck) (AccessResult, error)

	// RevokeFamily ends a family. found is false where there is no such family;
	// revoking one that is already revoked keeps the first reason.
	RevokeFamily(ctx context.Context, id FamilyID, reason string) (found bool, err error)

	// RevokeUser ends all families that the user has at this moment with one
	// write, however many they are. It returns ErrNotFound for an unknown or
	// retired user.
	RevokeUser(ctx context.Context, userID string, reason string) error

	// SetUserDisabled disables or enables a user. Disabling also ends all of
	// the user's families. It returns ErrNotFound for an unknown or retired
	// user.
	SetUserDisabled(ctx context.Context, userID string, disabled bool) error

	// User returns a user with all values opened, or ErrNotFound. A retired
	// one has only ID and Retired.
	User(ctx context.Context, id string) (User, error)

	// Identity returns a WeChat identity with its values opened, or ErrNotFound.
	Identity(ctx context.Context, index Digest) (Identity, error)

	// PageUsers returns up to limit users, retired ones included, in id order,
	// starting after the cursor after ("" starts at the beginning). next is "" at the end.
	PageUsers(ctx context.Context, after string, limit int) (users []User, next string, err error)

	// PageFamilies returns up to limit families of a user (of all users where
	// userID is "") in id order, starting after the cursor. A page may be short
	// or empty while next is not "": the listing goes on there.
	PageFamilies(ctx context.Context, userID, after string, limit int) (families []Family, next string, err error)

	// RecentFamilies returns up to limit families of a user that are live,
	// newest first. An engine that has looked at very many others returns what
	// it has found.
	RecentFamilies(ctx context.Context, userID string, limit int) ([]Family, error)

	// DenyJTI makes CheckAccess refuse the token with this jti until expires.
	DenyJTI(ctx context.Context, jti string, expires time.Time) error

	// PutIfAbsent stores a single-use item for lifetime. stored is false where
	// an unexpired item with that key exists, consumed or not.
	PutIfAbsent(ctx context.Context, kind ItemKind, key, value []byte, lifetime time.Duration) (stored bool, err error)

	// Consume takes a single-use item: among concurrent callers exactly one
	// gets ConsumeOK and the value. The key stays taken until its expiry.
	Consume(ctx context.Context, kind ItemKind, key []byte) (value []byte, verdict ConsumeVerdict, err error)

	// Record returns a versioned document. An absent one has version 0.
	Record(ctx context.Context, name string) (value []byte, version uint64, err error)

	// SwapRecord replaces a versioned document if it still has the given
	// version (0: if it is absent). The new version is version+1.
	SwapRecord(ctx context.Context, name string, version uint64, value []byte) (swapped bool, err error)

	// Claim takes key for lifetime. Claims are volatile: they may be forgotten
	// by a restart, they cost no commit, and under pressure the oldest are
	// forgotten first. taken is false where somebody holds the claim.
	Claim(ctx context.Context, key Digest, lifetime time.Duration) (taken bool, err error)

	// Release gives a claim back.
	Release(ctx context.Context, key Digest) error

	// DeleteExpired removes up to limit expired records of any kind in one
	// short commit and says whether more are waiting. It may remove fewer, even
	// none, while more is true: a record that was prolonged is looked at, too.
	DeleteExpired(ctx context.Context, limit int) (deleted int, more bool, err error)

	// Rewrap looks at up to limit users, starting after the cursor, and re-seals
	// under the first master key what is sealed under another; without a cursor
	// it begins with the vault's own key. next is "" when all are done.
	Rewrap(ctx context.Context, after string, limit int) (rewrapped int, next string, err error)

	People
	Logins
	Restores

	// Ping reports whether reads work.
	Ping(ctx context.Context) error

	// Stats returns counters since the store was opened.
	Stats() Stats

	// Close waits for writes under way and releases the engine.
	Close() error
}

// Stats are an engine's counters since it was opened.
type Stats struct {
	Commits    uint64 // durable commits (fsyncs of data)
	Operations uint64 // writing operations that were part of a commit
	Expired    uint64 // records that DeleteExpired has removed
	SizeBytes  int64  // size of the data on disk, where the engine knows it
}

// ItemKind is the namespace of a single-use item, one for each kind of
// credential, so that none can be presented in the place of another.
type ItemKind byte

// The kinds of single-use items.
const (
	// ItemClientAssertion is the jti of a client assertion (RFC 7523 §3).
	ItemClientAssertion ItemKind = 1
	// ItemPushedRequest is a pushed authorization request (RFC 9126).
	ItemPushedRequest ItemKind = 2
)

// ConsumeVerdict is the outcome of Store.Consume.
type ConsumeVerdict int

// The outcomes of Store.Consume.
const (
	ConsumeOK ConsumeVerdict = iota + 1
	ConsumeUsed
	ConsumeMissing // never stored, or expired
)

// AccessCheck asks whether an access token is still good.
type AccessCheck struct {
	FamilyID FamilyID // zero: a token without a family, such as a client's own
	JTI      string
}

// AccessResult is the outcome of Store.CheckAccess.
type AccessResult struct {
	Verdict AccessVerdict
	Family  Family // set for AccessActive with a family
}

// AccessVerdict is the judgement of Store.CheckAccess.
type AccessVerdict int

// The judgements of Store.CheckAccess.
const (
	AccessActive AccessVerdict = iota + 1
	AccessDenied               // the jti was revoked
	AccessFamilyMissing
	AccessFamilyRevoked // or the user's families were ended
	AccessFamilyExpired
	AccessUserDisabled
)
