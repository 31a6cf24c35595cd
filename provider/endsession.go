package provider

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"github.com/wxidp/wxidp/storage"
)

// PathEndSession is where clients send browsers to sign out (OpenID Connect
// RP-Initiated Logout 1.0 §2), by GET or POST.
// PathEndSessionConfirm takes the form of the page that asks, by POST.
const (
	PathEndSession        = "/oauth2/end_session"
	PathEndSessionConfirm = "/oauth2/end_session/confirm"
)

// maxLogoutState bounds the state parameter, in bytes.
const maxLogoutState = 2048

// EndSessionOutcome is what a logout request comes to. Where Confirm is nil
// the browser has no login session any more, so that its cookie is to be
// removed.
type EndSessionOutcome struct {
	// Confirm asks the person first; nothing has ended. nil: it is done.
	Confirm *EndSessionQuestion
	// RedirectURI is where to send the browser at once, state included. "":
	// show that it is signed out.
	RedirectURI string
	// ReturnURI is a link that a page may offer, state included; "": none.
	ReturnURI string
	// ClientName is of the client concerned; "": none is known.
	ClientName string
}

// EndSessionQuestion is what a page asks before a login session ends.
type EndSessionQuestion struct {
	// Fields are to come back to PathEndSessionConfirm as they are.
	Fields map[string]string
	// Account is what the user recognises the account by; "": nothing.
	Account string
}

// endSessionParams are the parameters that are passed on to the confirmation.
var endSessionParams = []string{"id_token_hint", "client_id", "post_logout_redirect_uri", "state", "ui_locales"}

// fieldLogin names, in the form of the page that asks, the login session that
// it asked about.
const fieldLogin = "login"

// EndSession answers a logout request that a client sent a browser with. The
// browser's login session ends at once only where an ID Token of that very
// session vouches for the request; otherwise the person is asked. params are
// those of the query or of the form. Errors are those of the request and of
// storage; nothing has ended then.
func (p *Provider) EndSession(ctx context.Context, req Request, params url.Values) (EndSessionOutcome, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	logout, err := p.newEndSession(ctx, req, params)
	if err != nil {
		return EndSessionOutcome{}, err
	}
	switch {
	case logout.login == nil:
		return logout.nothingToEnd(), nil
	case !logout.vouched || logout.misdirected():
		return p.askEndSession(ctx, logout)
	}
	return p.endLogin(ctx, req, logout, "client")
}

// ConfirmEndSession answers the form of the page that EndSession asked for. The
// caller has made sure that the person sent it.
func (p *Provider) ConfirmEndSession(ctx context.Context, req Request, params url.Values) (EndSessionOutcome, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	logout, err := p.newEndSession(ctx, req, params)
	switch {
	case err != nil:
		return EndSessionOutcome{}, err
	case logout.login == nil:
		return logout.nothingToEnd(), nil
	case params.Get(fieldLogin) != logout.login.ID.String():
		// Somebody else has signed in with the browser since the page was made.
		return p.askEndSession(ctx, logout)
	}
	return p.endLogin(ctx, req, logout, "person")
}

// endSession is a logout request as far as it was understood.
type endSession struct {
	params  url.Values
	login   *storage.LoginSession // of the browser; nil: none
	client  *Client               // that the hint or else client_id names; nil: none, or no longer configured
	hinted  bool                  // client was named by a valid hint
	vouched bool                  // the hint is of login
	target  string                // the post_logout_redirect_uri with state; "": none that is client's
}

func (p *Provider) newEndSession(ctx context.Context, req Request, params url.Values) (*endSession, error) {
	for name, values := range params {
		if len(values) > 1 {
			return nil, fail(InvalidRequest, msgParamTwice).reason("duplicate_parameter")
		}
		if name == "state" && len(values[0]) > maxLogoutState {
			return nil, fail(InvalidRequest, msgParamMalformed.with("state")).reason("state_too_long")
		}
	}
	snap := p.settings()
	logout := &endSession{params: params}
	hint, hinted := p.parseIDTokenHint(params.Get("id_token_hint"))
	clientID := params.Get("client_id")
	switch {
	case !hinted:
		logout.client = snap.client(clientID)
	case clientID != "" && clientID != hint.clientID:
		return nil, fail(InvalidRequest, msgLogoutClient).reason("client_mismatch")
	default:
		logout.client = snap.client(hint.clientID)
		logout.hinted = logout.client != nil
	}
	logout.target = logoutTarget(logout.client, params)
	login, err := p.browserLogin(ctx, req)
	if err != nil || login == nil {
		return logout, err
	}
	logout.login = login
	if logout.hinted {
		logout.vouched, err = p.signedInThrough(ctx, login, hint)
	}
	return logout, err
}

// browserLogin is the live login session of the browser, or nil.
func (p *Provider) browserLogin(ctx context.Context, req Request) (*storage.LoginSession, error) {
	if req.Login == "" {
		return nil, nil
	}
	login, err := p.store.Login(ctx, sha256.Sum256([]byte(req.Login)))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	return &login, err
}

// idTokenHint is what an ID Token of ours says, however old it is.
type idTokenHint struct {
	clientID string
	familyID storage.FamilyID
}

// parseIDTokenHint reads an ID Token that was made with a key that is still
// published. Anything else is no hint; that it has expired does not matter
// (RP-Initiated Logout §4).
func (p *Provider) parseIDTokenHint(token string) (hint idTokenHint, ok bool) {
	if token == "" {
		return hint, false
	}
	verified, err := p.keys.Verify(token, typIDToken)
	if err != nil {
		return hint, false
	}
	// A map, because struct members would take names of another case, too.
	var claims map[string]json.RawMessage
	var issuer, subject, sid string
	var aud audience
	if json.Unmarshal(verified.Payload, &claims) != nil || json.Unmarshal(claims["iss"], &issuer) != nil ||
		json.Unmarshal(claims["sub"], &subject) != nil || json.Unmarshal(claims["sid"], &sid) != nil ||
		json.Unmarshal(claims["aud"], &aud) != nil {
		return hint, false
	}
	if issuer != p.issuer || subject == "" || len(aud) != 1 || aud[0] == "" {
		return hint, false
	}
	hint.clientID = aud[0]
	hint.familyID, ok = storage.ParseFamilyID(sid)
	return hint, ok
}

// signedInThrough reports whether the hint's sign-in went through the login
// session. The session forgets the oldest of very many sign-ins, and the store
// forgets sign-ins that have expired, so both are asked.
func (p *Provider) signedInThrough(ctx context.Context, login *storage.LoginSession, hint idTokenHint) (bool, error) {
	if slices.Contains(login.Participants, storage.Participant{ClientID: hint.clientID, FamilyID: hint.familyID}) {
		return true, nil
	}
	family, err := p.store.Family(ctx, hint.familyID)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	return err == nil && family.LoginID == login.ID && family.ClientID == hint.clientID && family.UserID == login.UserID, err
}

// logoutTarget is the post_logout_redirect_uri with state, if the client has
// registered exactly that URI.
func logoutTarget(client *Client, params url.Values) string {
	target := params.Get("post_logout_redirect_uri")
	if client == nil || !slices.Contains(client.PostLogoutRedirectURIs, target) {
		return ""
	}
	state := params.Get("state")
	if state == "" {
		return target
	}
	separator := "?"
	if strings.Contains(target, "?") {
		separator = "&"
	}
	if strings.HasSuffix(target, "?") || strings.HasSuffix(target, "&") {
		separator = ""
	}
	// A space as %20 is one to every reader of URIs, not of forms only.
	return target + separator + "state=" + strings.ReplaceAll(url.QueryEscape(state), "+", "%20")
}

// misdirected reports whether the request names a target that is none of the
// client's.
func (e *endSession) misdirected() bool {
	return e.params.Get("post_logout_redirect_uri") != "" && e.target == ""
}

func (e *endSession) clientName() string {
	switch {
	case e.client == nil:
		return ""
	case e.client.Name == "":
		return e.client.ID
	}
	return e.client.Name
}

// nothingToEnd is the outcome for a browser without a login session. It is
// sent on only on the word of an ID Token: a client_id can be had by anybody.
func (e *endSession) nothingToEnd() EndSessionOutcome {
	out := EndSessionOutcome{ClientName: e.clientName()}
	if e.hinted {
		out.RedirectURI = e.target
	} else {
		out.ReturnURI = e.target
	}
	return out
}

// askEndSession is the outcome that asks the person.
func (p *Provider) askEndSession(ctx context.Context, logout *endSession) (EndSessionOutcome, error) {
	user, err := p.store.User(ctx, logout.login.UserID)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return EndSessionOutcome{}, err
	}
	question := &EndSessionQuestion{Fields: map[string]string{fieldLogin: logout.login.ID.String()}, Account: user.Username}
	if question.Account == "" {
		question.Account = user.Profile.Nickname
	}
	for _, name := range endSessionParams {
		if value := logout.params.Get(name); value != "" {
			question.Fields[name] = value
		}
	}
	return EndSessionOutcome{Confirm: question, ClientName: logout.clientName()}, nil
}

// endLogin ends the browser's login session. reason says whose word it was.
func (p *Provider) endLogin(ctx context.Context, req Request, logout *endSession, reason string) (EndSessionOutcome, error) {
	found, err := p.store.EndLogin(ctx, logout.login.ID, p.logoutClients())
	if err != nil {
		return EndSessionOutcome{}, err
	}
	if found {
		p.wakeLogouts()
		attrs := []slog.Attr{slog.String("sub", logout.login.UserID), slog.String("reason", reason)}
		if logout.client != nil {
			attrs = append(attrs, slog.String("client_id", logout.client.ID))
		}
		p.info(ctx, req, "login.ended", attrs...)
	}
	return EndSessionOutcome{RedirectURI: logout.target, ClientName: logout.clientName()}, nil
}
