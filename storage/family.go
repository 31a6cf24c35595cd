package storage

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

// FamilyID names a refresh-token family. It starts with the creation time in
// milliseconds, so that new families lie together in an index; the other 80
// bits are random.
type FamilyID [16]byte

// NewFamilyID returns a fresh id.
func NewFamilyID() FamilyID {
	var id FamilyID
	rand.Read(id[:])
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(time.Now().UnixMilli()))
	copy(id[:6], ms[2:])
	return id
}

// String returns the id as 22 base64url characters: the sid claim.
func (id FamilyID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// IsZero reports whether the id is unset.
func (id FamilyID) IsZero() bool { return id == FamilyID{} }

// ParseFamilyID reads what FamilyID.String wrote and nothing else.
func ParseFamilyID(s string) (FamilyID, bool) {
	var id FamilyID
	if len(s) != 22 {
		return id, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(id[:], []byte(s))
	if err != nil || n != len(id) {
		return FamilyID{}, false
	}
	return id, true
}

// FamilyCursor reads a cursor that is the id of a family, the zero id for "".
// It returns ErrBadCursor for anything else.
func FamilyCursor(after string) (FamilyID, error) {
	if after == "" {
		return FamilyID{}, nil
	}
	id, ok := ParseFamilyID(after)
	if !ok {
		return FamilyID{}, ErrBadCursor
	}
	return id, nil
}

// FamilySecret is random and known to nobody outside. It prints as ***.
type FamilySecret [16]byte

// NewFamilySecret returns a fresh secret.
func NewFamilySecret() (s FamilySecret) {
	rand.Read(s[:])
	return s
}

// Format writes a mask for every verb.
func (FamilySecret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Mask) }

// MarshalText returns the mask, also for JSON.
func (FamilySecret) MarshalText() ([]byte, error) { return []byte(secret.Mask), nil }

// Family is one user's sign-in on one device at one client (RFC 9700
// §4.14.2): one record, updated in place, whether or not it has a refresh
// token.
type Family struct {
	ID       FamilyID
	UserID   string
	ClientID string
	Identity Digest // index of the WeChat identity that signed in; zero: none
	// WeChatAppID is the app of Identity, as the sign-in's AppID named it: a
	// client that is moved to another app must not go on with this family.
	WeChatAppID string
	Scope       []string
	Audience    []string
	AuthTime    time.Time
	AMR         []string

	Secret     FamilySecret // enters the MAC of the family's refresh tokens
	Generation uint32       // of the refresh token that is live
	MACKeyID   uint32       // of the key that made the live generation

	CreatedAt     time.Time
	RotatedAt     time.Time // when Generation became live
	IdleExpiresAt time.Time
	ExpiresAt     time.Time // absolute; no refresh moves it
	RevokedAt     time.Time // zero: not revoked
	RevokedFor    string
	UserEpoch     uint32 // the user's epoch at creation; an older one means ended
	ClientEpoch   uint32 // the client's epoch at creation; an older one means ended

	DPoPThumbprint string // RFC 9449 §6.1 jkt; "": bearer tokens

	// LoginID is the login session of the browser that signed in; zero: none.
	// Unless the family is Offline it ends with that session.
	LoginID        LoginID
	Offline        bool
	ACR            string   // "": none
	IDTokenClaims  []string // asked for by the claims parameter (OIDC Core §5.5)
	UserInfoClaims []string
}

// Rotation asks to redeem one generation of a refresh token whose MAC the
// caller has verified.
type Rotation struct {
	FamilyID   FamilyID
	ClientID   string
	Generation uint32
	MACKeyID   uint32        // key that will make the next generation
	Grace      time.Duration // how long the previous generation may be repeated; 0: never
	Idle       time.Duration // idle lifetime from this rotation on; 0: the absolute one alone counts
}

// RotateResult is the outcome of Store.Rotate. Family is the record after the
// operation, set wherever the family was found at all. What makes the verdict
// is asked in the order: missing, another client, revoked, expired, user
// disabled, user's families ended (RotateRevoked), generation.
type RotateResult struct {
	Verdict RotateVerdict
	Family  Family
	// SuccessorUsed tells, for RotateReused, whether a later generation than
	// the direct successor was already live: theft rather than a late retry.
	SuccessorUsed bool
}

// RotateVerdict is the judgement of Store.Rotate.
type RotateVerdict int

// The judgements of Store.Rotate.
const (
	// RotateOK: the generation was live, the next one is live now.
	RotateOK RotateVerdict = iota + 1
	// RotateRepeated: the generation before the live one came again within
	// the grace; the live one is the answer and nothing was written.
	RotateRepeated
	// RotateReused: an old generation came again; this operation revoked the
	// family.
	RotateReused
	RotateRevoked
	// RotateExpired: idle for too long, past the absolute end, or out of
	// generations.
	RotateExpired
	RotateMissing
	RotateUserDisabled
	// RotateWrongClient: the family belongs to another client; untouched.
	RotateWrongClient
	// RotateInvalid: a generation that was never issued; untouched.
	RotateInvalid
)
