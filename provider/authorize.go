package provider

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// Paths of the authorization endpoint and its neighbours, below the issuer.
const (
	PathAuthorize = "/oauth2/authorize"
	PathPushed    = "/oauth2/par"
)

// codeLifetime is how long a client may take to redeem an authorization code.
const codeLifetime = time.Minute

// Authorize answers an authorization request (RFC 6749 §4.1.1, OIDC Core
// §3.1.2). An error is for the person in front of the browser: what the client
// is to know of is in the Next.
func (p *Provider) Authorize(ctx context.Context, req Request, params url.Values) (Next, error) {
	snap := p.settings()
	params, err := p.pushed(ctx, snap, params)
	if err != nil {
		return Next{}, err
	}
	a, err := p.parseAuthRequest(ctx, snap, params)
	if err != nil {
		return p.tell(ctx, req, err)
	}
	login, err := p.login(ctx, req)
	if err != nil {
		return Next{}, err
	}
	ix := &openInteraction{interaction: interaction{
		Purpose: purposeAuthorize, Params: known(params), LoginHint: a.loginHint, Locales: params.Get("ui_locales"),
	}}
	return p.advance(ctx, req, snap, ix, a, login)
}

// advance goes as far with an authorization request as it goes without asking
// anybody anything.
func (p *Provider) advance(ctx context.Context, req Request, snap *snapshot, ix *openInteraction, a *authRequest, login *storage.LoginSession) (Next, error) {
	step, err := p.nextStep(ctx, snap, &ix.interaction, a, login)
	if err != nil {
		return p.tell(ctx, req, err)
	}
	if step == stepFinish {
		return p.finish(ctx, req, snap, ix, a, login, false)
	}
	if ix.id == "" {
		if ix.id, err = p.beginInteraction(ctx, req, ix.interaction); err != nil {
			return Next{}, err
		}
	}
	return Next{Interaction: ix.id}, nil
}

// nextStep decides what a person must do next for an authorization request.
// With prompt=none everything but nothing is an error (OIDC Core §3.1.2.6).
func (p *Provider) nextStep(ctx context.Context, snap *snapshot, ix *interaction, a *authRequest, login *storage.LoginSession) (Step, error) {
	ask := func(step Step, code Code, message Message) (Step, error) {
		if a.prompts(promptNone) {
			return "", &redirectable{a, fail(code, message).reason("prompt_none")}
		}
		return step, nil
	}
	if login == nil || ix.Switch {
		return ask(StepSignIn, LoginRequired, msgLoginRequired)
	}
	authenticated := ix.LoginToken == login.Token
	if !p.suits(snap, a, login) {
		if authenticated {
			return "", &redirectable{a, fail(LoginRequired, msgOtherAccount).reason("other_user")}
		}
		return ask(StepSignIn, LoginRequired, msgLoginRequired)
	}
	if !authenticated && (a.prompts(promptLogin) || tooOld(a, login)) {
		return ask(StepSignIn, LoginRequired, msgLoginRequired)
	}
	if len(a.claims.acr) > 0 && !slices.Contains(a.claims.acr, acrOf(login.AMR)) {
		if authenticated {
			return "", &redirectable{a, fail(UnmetAuthentication, msgACR).reason("acr")}
		}
		return ask(StepSignIn, LoginRequired, msgLoginRequired)
	}
	if a.prompts(promptSelectAccount) && !authenticated && ix.Chosen != login.Token {
		return ask(StepSelect, AccountSelectionRequired, msgSelectionRequired)
	}
	agreed, err := p.hasAgreed(ctx, a, login.UserID)
	if err != nil {
		return "", err
	}
	if !agreed || a.prompts(promptConsent) {
		return ask(StepConsent, ConsentRequired, msgConsentRequired)
	}
	return stepFinish, nil
}

// suits reports whether the user of a login session is the one whom the
// request names, if it names one.
func (p *Provider) suits(snap *snapshot, a *authRequest, login *storage.LoginSession) bool {
	subject := p.subject(snap, a.client, login.UserID)
	return (a.hint == nil || a.hint.subject == subject) && (a.claims.subject == "" || a.claims.subject == subject)
}

// tooOld reports whether max_age asks for a newer authentication. 0 asks for
// one at any rate.
func tooOld(a *authRequest, login *storage.LoginSession) bool {
	return a.maxAge == 0 || a.maxAge > 0 && time.Since(login.AuthTime) > a.maxAge
}

// hasAgreed reports whether the user need not be asked for consent. What was
// agreed to once does not count for a program on the user's own device: any
// other there can claim to be it (RFC 8252 §8.6).
func (p *Provider) hasAgreed(ctx context.Context, a *authRequest, userID string) (bool, error) {
	if a.client.SkipConsent {
		return true, nil
	}
	if a.client.Public && !strings.HasPrefix(a.redirectURI, "https://") {
		return false, nil
	}
	consents, err := p.store.Consents(ctx, userID)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, consent := range consents {
		if consent.ClientID == a.client.ID {
			return within(a.scope, consent.Scope) && within(a.extraClaims(), consent.Claims), nil
		}
	}
	return false, nil
}

// within reports whether all values are among those allowed.
func within(values, allowed []string) bool {
	return !slices.ContainsFunc(values, func(v string) bool { return !slices.Contains(allowed, v) })
}

// finish issues a code. agreed says that the person has just agreed, which is
// remembered.
func (p *Provider) finish(ctx context.Context, req Request, snap *snapshot, ix *openInteraction, a *authRequest, login *storage.LoginSession, agreed bool) (Next, error) {
	if err := p.mayGrant(login.UserID); err != nil {
		return Next{}, err
	}
	if err := p.finishInteraction(ctx, req, ix); err != nil {
		return Next{}, err
	}
	code := storage.NewToken()
	verdict, err := p.store.IssueCode(ctx, storage.CodeIssue{
		Code: tokenDigest(code),
		Grant: storage.Grant{
			UserID:         login.UserID,
			UserEpoch:      login.UserEpoch,
			ClientID:       a.client.ID,
			LoginID:        login.ID,
			Offline:        a.offline(),
			Scope:          a.scope,
			Audience:       a.audience,
			AuthTime:       login.AuthTime,
			AMR:            login.AMR,
			ACR:            acrOf(login.AMR),
			Nonce:          a.nonce,
			RedirectURI:    a.redirectURI,
			Challenge:      a.challenge,
			DPoPThumbprint: a.dpopJKT,
			IDTokenClaims:  a.claims.idToken,
			UserInfoClaims: a.claims.userInfo,
		},
		Lifetime: codeLifetime,
		Agreed:   !agreed && !a.client.SkipConsent,
		Remember: agreed,
	})
	if err != nil {
		return Next{}, err
	}
	switch verdict {
	case storage.CodeOK:
	case storage.CodeLoginEnded, storage.CodeUserDisabled: // at this moment: as if it had been so before
		ix.id, ix.Finished = "", false // that one led here
		return p.advance(ctx, req, snap, ix, a, nil)
	case storage.CodeConsentGone:
		return p.advance(ctx, req, snap, ix, a, login)
	default:
		return Next{}, errors.New("unknown verdict of a code's issue")
	}
	p.info(ctx, req, "authorization.granted", slog.String("client_id", a.client.ID), slog.String("sub", login.UserID))
	response := p.respondTo(a)
	response.Params = append([]Param{{"code", code}}, response.Params...)
	response.UserID = login.UserID
	return Next{Response: response}, nil
}

// respondTo starts a response with what every one has: state, if there was
// one, and iss (RFC 9207).
func (p *Provider) respondTo(a *authRequest) *AuthorizationResponse {
	response := &AuthorizationResponse{RedirectURI: a.redirectURI, FormPost: a.formPost, ClientID: a.client.ID}
	if a.state != "" {
		response.Params = append(response.Params, Param{"state", a.state})
	}
	response.Params = append(response.Params, Param{"iss", p.issuer})
	return response
}

// tell turns an error that is the client's to know into a response, and
// returns every other one. A description is in English: only ASCII may stand in
// it (RFC 6749 §4.1.2.1).
func (p *Provider) tell(ctx context.Context, req Request, err error) (Next, error) {
	target, ok := errors.AsType[*redirectable](err)
	if !ok {
		refusal := AsError(err)
		if refusal.LogReason == "redirect_mismatch" || refusal.LogReason == "unknown_client" {
			p.warn(ctx, req, "authorization.denied", slog.String("client_id", refusal.ClientID), slog.String("reason", refusal.LogReason))
		}
		return Next{}, err
	}
	if target.err.Code == ServerError || target.err.Code == TemporarilyUnavailable {
		return Next{}, target.err // a page says more, and the log says it once
	}
	p.info(ctx, req, "authorization.denied", slog.String("client_id", target.request.client.ID),
		slog.String("error", string(target.err.Code)), slog.String("reason", target.err.LogReason))
	response := p.respondTo(target.request)
	response.Error, response.Reason = target.err.Code, target.err.LogReason
	response.Params = append([]Param{
		{"error", string(target.err.Code)}, {"error_description", strings.ReplaceAll(target.err.Message.EN, `"`, "'")},
	}, response.Params...)
	return Next{Response: response}, nil
}

// The authentication context classes that are announced (OIDC Core §2, acr).
const (
	acrPassword = "urn:wxidp:acr:password"
	acrScan     = "urn:wxidp:acr:scan" // confirmed with the mini-program
)

func acrOf(amr []string) string {
	if slices.Contains(amr, amrScan) {
		return acrScan
	}
	return acrPassword
}

// The authentication methods of browsers (RFC 8176 §2; qr is our own).
const (
	amrPassword = "pwd"
	amrScan     = "qr"
)

// extraClaims are those that the claims parameter asks for beyond the scopes
// and beyond what every sign-in says.
func (a *authRequest) extraClaims() []string {
	return slices.DeleteFunc(a.claims.all(), func(name string) bool {
		scope := namedClaims[name].scope
		return scope == "" || slices.Contains(a.scope, scope)
	})
}
