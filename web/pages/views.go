package pages

import (
	"html/template"
	"time"
)

// SignIn asks people who they are: by a QR code for their phone, by a password,
// or by their choice of both.
type SignIn struct {
	// Base is the path of this sign-in. Forms post to Base + "/password",
	// "/scan" (a new QR code), "/finish" (after the phone approved) and
	// "/cancel". The script listens to Base + "/events", whose first event is
	// the present state, and asks Base + "/state" every two seconds where no
	// event comes. Both speak of the ScanState as {"state":"scanned"}.
	Base      string
	Client    string // the name of the client that people sign in to
	LoginHint string // fills the user name in
	Notice    string // why the last attempt failed, localised; "": there was none
	Password  bool   // the form for a password is shown
	Scan      *Scan  // nil: no QR code
}

// Scan is a QR code and what became of it.
type Scan struct {
	Image     template.URL // a data URL, such as QR's
	Link      string       // opens the same on a phone: https or weixin; "": none
	Number    string       // to be chosen on the phone, such as "42"
	ExpiresIn time.Duration
	State     ScanState // "": ScanWaiting
}

// ScanState is what became of a QR code.
type ScanState string

// The states of a QR code.
const (
	ScanWaiting  ScanState = "waiting"
	ScanScanned  ScanState = "scanned"
	ScanApproved ScanState = "approved"
	ScanDenied   ScanState = "denied"
	ScanExpired  ScanState = "expired"
)

// SelectAccount offers to go on as who is signed in, or as somebody else
// (prompt=select_account, OIDC Core §3.1.2.1). Forms post to Base + "/continue",
// "/switch" and "/cancel".
type SelectAccount struct {
	Base    string
	Client  string
	Account string // the name that the user knows
}

// Consent asks what a client may do. Forms post to Base + "/allow", "/deny" and
// "/switch".
type Consent struct {
	Base    string
	Client  string
	Account string
	Scopes  []ScopeText
	Claims  []string // names of claims that are requested one by one (OIDC Core §5.5)
	Offline bool     // the client keeps access while the user is away
	Terms   string   // comes back as TermsField with the form that allows; "": no such field
	Device  *Device  // what is to be let in is a device elsewhere; nil: this browser
}

// Device is a device that shows a user code and waits to be let in (RFC 8628).
type Device struct {
	Code  string // that it shows
	Agent string // what it says it is, such as "Chrome, Linux"; "": nothing
	Place string // where it is, coarsely; "": not known
	Since time.Time
}

// ScopeText is a scope and how to speak of it. Where Title is "", both texts are
// those of this package; the title of a scope that it does not know is its name.
type ScopeText struct {
	Name  string
	Title string
	Text  string
}

// DeviceEntry asks for the user code of another device (RFC 8628 §3.3). Its form
// posts user_code to Action.
type DeviceEntry struct {
	Action string
	Code   string // fills the field
	Notice string // localised; "": none
}

// DeviceDone tells that a device got its answer.
type DeviceDone struct {
	Approved bool
	Client   string
}

// SignOut asks whether to end the login session (OIDC RP-Initiated Logout §2).
// Its form posts Fields to Action.
type SignOut struct {
	Action  string
	Fields  []Field
	Client  string // who asks for it; "": nobody known
	Account string
}

// SignedOut tells that the login session has ended.
type SignedOut struct {
	Client    string
	ReturnURI string // a link back to the client: https, or a scheme with a dot; "": none
}

// Error tells what went wrong.
type Error struct {
	Message   string // localised
	Code      string // the OAuth error code; "": none
	RequestID string
}

// FormPost sends an authorization response to a client by a form that submits
// itself (OAuth 2.0 Form Post Response Mode). It has no CSRF field.
type FormPost struct {
	Action string
	Fields []Field
}

// Field is a hidden field of a form.
type Field struct {
	Name  string
	Value string
}

// Account shows people what is kept of them and lets them end it. Forms post to
// the issuer's /account/end-login, /account/end-sign-in and
// /account/revoke-consent with the field id, to /account/sign-out and to
// /account/sign-out-everywhere.
type Account struct {
	Name       string
	Username   string
	Phone      string // masked
	Identities []Identity
	Logins     []Login
	SignIns    []ClientSignIn
	Consents   []GrantedConsent
}

// Identity is a WeChat identity of the user.
type Identity struct {
	App      string // name or AppID of the mini-program
	LinkedAt time.Time
}

// Login is a browser that the user is signed in with.
type Login struct {
	ID      string
	Browser string
	Network string
	Since   time.Time
	Current bool // the browser that asks
}

// ClientSignIn is a client that holds a refresh token of the user's.
type ClientSignIn struct {
	ID       string
	Client   string
	Since    time.Time
	LastUsed time.Time
}

// GrantedConsent is what the user allowed a client.
type GrantedConsent struct {
	ClientID string
	Client   string
	Scopes   []string
	Since    time.Time
}

// ScanLanding is what a QR code's link shows outside WeChat.
type ScanLanding struct{}

// SignIn renders the sign-in page.
func (r *Renderer) SignIn(ctx Context, v SignIn) ([]byte, error) {
	return r.render("signin", ctx, v)
}

// SelectAccount renders the choice of an account.
func (r *Renderer) SelectAccount(ctx Context, v SelectAccount) ([]byte, error) {
	return r.render("select", ctx, v)
}

// Consent renders the request for consent.
func (r *Renderer) Consent(ctx Context, v Consent) ([]byte, error) {
	return r.render("consent", ctx, v)
}

// DeviceEntry renders the form for a user code.
func (r *Renderer) DeviceEntry(ctx Context, v DeviceEntry) ([]byte, error) {
	return r.render("device", ctx, v)
}

// DeviceDone renders the end of signing in another device.
func (r *Renderer) DeviceDone(ctx Context, v DeviceDone) ([]byte, error) {
	return r.render("devicedone", ctx, v)
}

// SignOut renders the question whether to sign out.
func (r *Renderer) SignOut(ctx Context, v SignOut) ([]byte, error) {
	return r.render("signout", ctx, v)
}

// SignedOut renders the end of a login session.
func (r *Renderer) SignedOut(ctx Context, v SignedOut) ([]byte, error) {
	return r.render("signedout", ctx, v)
}

// Error renders an error.
func (r *Renderer) Error(ctx Context, v Error) ([]byte, error) {
	return r.render("error", ctx, v)
}

// FormPost renders a form that submits itself.
func (r *Renderer) FormPost(ctx Context, v FormPost) ([]byte, error) {
	return r.render("formpost", ctx, v)
}

// Account renders the user's own page.
func (r *Renderer) Account(ctx Context, v Account) ([]byte, error) {
	return r.render("account", ctx, v)
}

// ScanLanding renders what a QR code's link shows outside WeChat.
func (r *Renderer) ScanLanding(ctx Context, v ScanLanding) ([]byte, error) {
	return r.render("scanlanding", ctx, v)
}
