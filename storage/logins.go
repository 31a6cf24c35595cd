package storage

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"time"
)

// Logins is the part of a Store about browsers: login sessions, what clients
// were authorized in them, and the clients that are to be told of their end.
// Every operation is one transaction with a verdict, as in Store.
type Logins interface {
	// StartLogin records that a user has signed in with a browser. A login
	// session of the same browser that it replaces goes on under a new token
	// where it is the same user's, and ends as by EndLogin otherwise.
	StartLogin(ctx context.Context, in LoginStart) (LoginResult, error)

	// Login returns the live login session with this token, or ErrNotFound: of
	// one that ended, expired or whose user was disabled, too.
	Login(ctx context.Context, token Digest) (LoginSession, error)

	// TouchLogin puts the idle expiry of a live login session to idle from now
	// on, never beyond its absolute one. One that is not live stays as it is.
	TouchLogin(ctx context.Context, id LoginID, idle time.Duration) error

	// EndLogin ends a login session with all families that were signed in
	// through it and are not Offline. Of its clients those named by notify are
	// queued to be told, in the same commit. found is false for an unknown
	// session and for one that had ended already.
	EndLogin(ctx context.Context, id LoginID, notify []string) (found bool, err error)

	// PageLogins returns up to limit live login sessions of a user in order of
	// creation, starting after the cursor. A page may be short or empty while
	// next is not "".
	PageLogins(ctx context.Context, userID, after string, limit int) (logins []LoginSession, next string, err error)

	// IssueCode records an authorization code with what it stands for, and the
	// user's consent where one is to be remembered. The login session must be
	// live and the user's.
	IssueCode(ctx context.Context, in CodeIssue) (CodeVerdict, error)

	// Redeem exchanges a code for a family: among concurrent callers exactly
	// one gets RedeemOK. A code that is presented in any wrong way is burnt, and
	// one that is presented again ends the family that it was exchanged for.
	Redeem(ctx context.Context, in Redemption) (RedeemResult, error)

	// Consents returns what a user has agreed to, by client, or ErrNotFound for
	// an unknown or retired user.
	Consents(ctx context.Context, userID string) ([]Consent, error)

	// RevokeConsent forgets what a user has agreed to for a client and ends the
	// user's families there; grants of before it cannot be redeemed any more.
	// Where the user has more families than an operation looks at, all of them
	// end, and the login sessions. If notify names the client it is told of the
	// families that began in a browser, in the same commit. found says whether
	// there was a consent or a family.
	RevokeConsent(ctx context.Context, userID, clientID string, notify []string) (found bool, err error)

	// PutState stores a document for lifetime. stored is false where an
	// unexpired one has that kind and key.
	PutState(ctx context.Context, kind StateKind, key Digest, value []byte, lifetime time.Duration) (stored bool, err error)

	// State returns a document that has not expired, or ErrNotFound.
	State(ctx context.Context, kind StateKind, key Digest) (State, error)

	// SwapState replaces the value of a document that has not expired, if it
	// still has the given version. Its expiry stays.
	SwapState(ctx context.Context, kind StateKind, key Digest, version uint64, value []byte) (swapped bool, err error)

	// DueLogouts returns up to limit logout notices whose time has come, in
	// order of that time.
	DueLogouts(ctx context.Context, limit int) ([]LogoutNotice, error)

	// SettleLogouts removes notices that were delivered or given up (Next is
	// zero), and puts the others off until Next, with Attempts as given. It takes
	// up to MaxPage of them, and passes over those that are gone already.
	SettleLogouts(ctx context.Context, notices []LogoutNotice) error

	// QueueLogouts adds up to MaxPage notices, which are due at once. A zero ID
	// or EndedAt is filled in; a notice whose ID is known already stays as it is.
	// The families are participants of their login sessions no more, so that
	// EndLogin does not tell of them again.
	QueueLogouts(ctx context.Context, notices []LogoutNotice) error
}

// Limits of what a browser's sign-in holds.
const (
	MaxParticipants = 128 // families that one login session remembers to tell of its end; the oldest are forgotten
	MaxConsents     = 256 // clients that one user's consent, or its revocation, is remembered for; the oldest are forgotten
	MaxConsentNames = 256 // scopes and claims that one consent remembers, those of the newest request first

	// MaxConsentSize is how many bytes these names have together: MaxConsents of
	// them fit in one value.
	MaxConsentSize = 3 << 10
)

// LoginID names a login session for its whole life, whatever its token is.
type LoginID [16]byte

// NewLoginID returns a fresh id, which starts with the creation time in
// milliseconds as a FamilyID does.
func NewLoginID() LoginID { return LoginID(NewFamilyID()) }

// String returns the id as 22 base64url characters.
func (id LoginID) String() string { return FamilyID(id).String() }

// IsZero reports whether the id is unset.
func (id LoginID) IsZero() bool { return id == LoginID{} }

// ParseLoginID reads what LoginID.String wrote and nothing else.
func ParseLoginID(s string) (LoginID, bool) {
	id, ok := ParseFamilyID(s)
	return LoginID(id), ok
}

// LoginCursor reads a cursor that is the id of a login session, as FamilyCursor
// does.
func LoginCursor(after string) (LoginID, error) {
	id, err := FamilyCursor(after)
	return LoginID(id), err
}

// NewToken returns 256 random bits as 43 base64url characters: a cookie's
// value, a code, a ticket. Stores keep digests of tokens only.
func NewToken() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// IsToken reports whether s is what NewToken may return: of the spellings that
// decode to the same bits, only that one is a token.
func IsToken(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == 32 && len(s) == 43
}

// LoginSession is a browser's sign-in at the issuer itself, from which clients
// are authorized (OIDC Core §1.2, "End-User Authentication").
type LoginSession struct {
	ID            LoginID
	Token         Digest // of the cookie's value
	UserID        string
	UserEpoch     uint32 // the user's epoch when it began; an older one means ended
	CreatedAt     time.Time
	AuthTime      time.Time // of the last active authentication
	AMR           []string
	IdleExpiresAt time.Time
	ExpiresAt     time.Time // absolute

	Browser string // what people may recognise it by, such as "Chrome, Windows"; at most 128 bytes
	Network string // coarse place or network, at most 128 bytes

	Participants []Participant
}

// Participant is a family that was signed in through a login session.
type Participant struct {
	ClientID string
	FamilyID FamilyID
}

// LoginStart asks Store.StartLogin to record a sign-in.
type LoginStart struct {
	// Account is who has signed in: a UserID with its Epoch when that was
	// proven, or an account of the product's own system by its ExternalID,
	// which is made here if it is new.
	Account Binding
	// Session has ID (of a session that is new; zero: made by the store),
	// Token, AMR, Browser and Network. The store fills the rest.
	Session  LoginSession
	Idle     time.Duration // 0: the absolute lifetime alone counts
	Absolute time.Duration
	Replaces LoginID  // the browser's login session so far; zero: none
	Notify   []string // clients to tell if the session replaced is another user's
}

// LoginResult is the outcome of StartLogin.
type LoginResult struct {
	Verdict LoginVerdict
	Session LoginSession // for LoginOK
	Created bool         // the user is new
}

// LoginVerdict is the judgement of StartLogin.
type LoginVerdict int

// The judgements of StartLogin.
const (
	LoginOK LoginVerdict = iota + 1
	LoginUserDisabled
	LoginUserMissing // unknown or retired, or the proof is void since
)

// Grant is what an authorization code or an approved device code stands for.
type Grant struct {
	UserID    string
	UserEpoch uint32 // of the user when the grant was made
	// IssuedAt is when the user agreed. IssueCode sets it; for a device code it
	// is the caller's. A consent revoked, or a client whose families were ended,
	// at that time or later voids the grant.
	IssuedAt time.Time
	ClientID string
	LoginID  LoginID // zero: no login session
	Offline  bool    // the family outlives the login session (offline_access)
	Scope    []string
	Audience []string
	AuthTime time.Time
	AMR      []string
	ACR      string // "": none

	Nonce       string // of the ID Token; "": none
	RedirectURI string // as requested
	// Challenge is the code_challenge, always of S256 (RFC 7636); "": none.
	Challenge string
	// DPoPThumbprint is the dpop_jkt that the code is bound to (RFC 9449 §10);
	// "": none.
	DPoPThumbprint string

	IDTokenClaims  []string // asked for by the claims parameter (OIDC Core §5.5)
	UserInfoClaims []string
}

// CodeIssue asks Store.IssueCode to record an authorization code.
type CodeIssue struct {
	Code     Digest
	Grant    Grant
	Lifetime time.Duration
	// Agreed: the grant rests on what the user has agreed to for the client
	// before, which must still cover its scope.
	Agreed bool
	// Remember adds Grant.Scope, IDTokenClaims and UserInfoClaims to what the
	// user has agreed to for the client.
	Remember bool
}

// CodeVerdict is the judgement of IssueCode.
type CodeVerdict int

// The judgements of IssueCode.
const (
	CodeOK         CodeVerdict = iota + 1
	CodeLoginEnded             // the login session is not live or not the user's
	CodeUserDisabled
	CodeConsentGone // of Agreed: taken back meanwhile
)

// Redemption asks Store.Redeem to exchange a code.
type Redemption struct {
	Code Digest
	// Grant is given for a device code, which no IssueCode has recorded: the
	// first redemption records it as used. nil: the code was issued.
	Grant *Grant

	ClientID    string
	RedirectURI string // as sent with the code; must be the one of the authorization request
	// Challenge is the S256 transformation of the code_verifier, "" where none
	// was sent. It must be the code's.
	Challenge string
	// DPoPThumbprint is of the proof that came with the request; "": none.
	DPoPThumbprint string

	// Family has ID and Secret (zero: made by the store), MACKeyID and
	// DPoPThumbprint. The store fills the rest from the grant and its clock.
	Family   Family
	Idle     time.Duration
	Absolute time.Duration
	// Remember is how long a used code is remembered. For a device code that is
	// no less than the Grant may come for: after it, nothing tells the code from
	// a fresh one.
	Remember time.Duration
}

// RedeemResult is the outcome of Redeem.
type RedeemResult struct {
	Verdict RedeemVerdict
	Grant   Grant // wherever the code was found, for the log too
	// Family is the new one for RedeemOK, and the one that was ended for
	// RedeemUsed (zero ID: there was none to end).
	Family Family
}

// RedeemVerdict is the judgement of Redeem. Every one but RedeemOK and
// RedeemMissing leaves the code burnt.
type RedeemVerdict int

// The judgements of Redeem, in the order in which they are made.
const (
	RedeemOK            RedeemVerdict = iota + 1
	RedeemMissing                     // never issued, or forgotten
	RedeemWrongClient                 // another client's; nothing else is touched
	RedeemUsed                        // presented before: what it was exchanged for has ended
	RedeemExpired                     //
	RedeemWrongRedirect               // another redirect_uri than requested
	RedeemWrongVerifier               // code_verifier is missing, wrong, or was not announced
	RedeemWrongKey                    // the code is bound to another DPoP key
	RedeemUserDisabled                //
	RedeemEnded                       // the login session, the consent, or the user's or client's sign-ins ended meanwhile
)

// Consent is what a user has agreed to for a client.
type Consent struct {
	ClientID  string
	Scope     []string // sorted
	Claims    []string // sorted; claims released beyond the scopes
	GrantedAt time.Time
	RevokedAt time.Time // when an earlier consent was last revoked; zero: never
}

// StateKind is the namespace of an expiring document.
type StateKind byte

// The kinds of expiring documents.
const (
	// StateInteraction is an authorization request that waits for a person.
	StateInteraction StateKind = 1
	// StateTicket is a device authorization or a scan (RFC 8628).
	StateTicket StateKind = 2
	// StateTicketName leads from another name of a ticket to it.
	StateTicketName StateKind = 3
	// StateRefusal is the refusal of a request with an Idempotency-Key.
	StateRefusal StateKind = 4
)

// State is an expiring document.
type State struct {
	Value     []byte
	Version   uint64 // from 1 on
	ExpiresAt time.Time
}

// LogoutNotice is a client that is to be told that a sign-in has ended (OpenID
// Connect Back-Channel Logout 1.0).
type LogoutNotice struct {
	ID       LogoutID
	ClientID string
	UserID   string
	FamilyID FamilyID // the sid claim
	EndedAt  time.Time
	Attempts uint32
	Next     time.Time // when it is due
}

// LogoutID names a logout notice.
type LogoutID [16]byte

// NewLogoutID returns a fresh id.
func NewLogoutID() LogoutID { return LogoutID(NewFamilyID()) }

// IsZero reports whether the id is unset.
func (id LogoutID) IsZero() bool { return id == LogoutID{} }
