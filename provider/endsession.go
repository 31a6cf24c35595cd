package provider

import (
	"context"
	"errors"
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
	Fields []Param
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
	return p.finishEndSession(ctx, req, logout, "client")
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
	return p.finishEndSession(ctx, req, logout, "user")
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
	if err := onceEach(params); err != nil {
		return nil, err
	}
	if len(params.Get("state")) > maxState {
		return nil, fail(InvalidRequest, msgParamMalformed.with("state")).reason("state_too_long")
	}
	snap := p.settings()
	logout := &endSession{params: params}
	hint, hinted := p.readHint(params.Get("id_token_hint"))
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
	var err error
	if logout.login, err = p.login(ctx, req); err != nil {
		return nil, err
	}
	if logout.login != nil && logout.hinted {
		logout.vouched, err = p.signedInThrough(ctx, logout.login, hint)
	}
	return logout, err
}

// signedInThrough reports whether the hint's sign-in went through the login
// session. The session forgets the oldest of very many sign-ins, and the store
// forgets sign-ins that have expired, so both are asked.
func (p *Provider) signedInThrough(ctx context.Context, login *storage.LoginSession, hint *idTokenHint) (bool, error) {
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
	if e.client == nil {
		return ""
	}
	return e.client.title()
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
	account, err := p.accountName(ctx, logout.login.UserID)
	if err != nil {
		return EndSessionOutcome{}, err
	}
	question := &EndSessionQuestion{Fields: []Param{{fieldLogin, logout.login.ID.String()}}, Account: account}
	for _, name := range endSessionParams {
		if value := logout.params.Get(name); value != "" {
			question.Fields = append(question.Fields, Param{name, value})
		}
	}
	return EndSessionOutcome{Confirm: question, ClientName: logout.clientName()}, nil
}

// finishEndSession ends the browser's login session. reason says whose word it
// was.
func (p *Provider) finishEndSession(ctx context.Context, req Request, logout *endSession, reason string) (EndSessionOutcome, error) {
	if err := p.endLogin(ctx, req, *logout.login, reason); err != nil {
		return EndSessionOutcome{}, err
	}
	return EndSessionOutcome{RedirectURI: logout.target, ClientName: logout.clientName()}, nil
}
