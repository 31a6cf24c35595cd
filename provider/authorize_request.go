package provider

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ory/fosite"
)

// Limits of an authorization request.
const (
	maxState       = 4096
	maxNonce       = 512
	maxClaimsParam = 8 << 10
	maxMaxAge      = 10 * 365 * 24 * 60 * 60 // seconds
)

// authRequest is an authorization request that passed all checks that do not
// depend on who is in front of the browser (OIDC Core §3.1.2.1).
type authRequest struct {
	client      *Client
	redirectURI string
	formPost    bool
	state       string
	scope       []string
	audience    []string
	nonce       string
	challenge   string
	dpopJKT     string
	prompt      []string
	maxAge      time.Duration // negative: any age will do
	hint        *idTokenHint
	loginHint   string
	claims      requestedClaims
}

func (a *authRequest) prompts(value string) bool { return slices.Contains(a.prompt, value) }

// offline reports whether the sign-in shall outlive the login session.
func (a *authRequest) offline() bool { return slices.Contains(a.scope, scopeOfflineAccess) }

// redirectable is an error that the client is to be told by a redirect.
type redirectable struct {
	request *authRequest // with client, redirectURI, formPost and state
	err     *Error
}

func (e *redirectable) Error() string { return e.err.Error() }
func (e *redirectable) Unwrap() error { return e.err }

// authorizeParams are the parameters of an authorization request that are known
// here; display and acr_values are checked for repetition only. Of others
// nothing is kept (RFC 6749 §3.1).
var authorizeParams = []string{
	"response_type", "response_mode", "client_id", "redirect_uri", "scope", "state", "nonce", "display", "prompt", "max_age", "ui_locales",
	"id_token_hint", "login_hint", "acr_values", "claims", "code_challenge", "code_challenge_method", "dpop_jkt", "audience", "resource",
	"request", "request_uri", "registration",
}

// known returns those of authorizeParams.
func known(params url.Values) url.Values {
	out := make(url.Values)
	for _, name := range authorizeParams {
		if values, ok := params[name]; ok {
			out[name] = values
		}
	}
	return out
}

// maxAuthRequest bounds an authorization request as it is kept, in bytes.
const maxAuthRequest = 12 << 10

// onceEach refuses a parameter that occurs twice (RFC 6749 §3.1). resource
// alone may repeat (RFC 8707 §2).
func onceEach(params url.Values) error {
	for name, values := range params {
		if len(values) > 1 && name != "resource" {
			return fail(InvalidRequest, msgParamTwice).reason("duplicate_parameter")
		}
	}
	return nil
}

// parseAuthRequest checks an authorization request. An error that is
// redirectable goes to the client; any other is for the person in front of the
// browser, because nothing vouches for the redirect URI.
func (p *Provider) parseAuthRequest(ctx context.Context, snap *snapshot, params url.Values) (*authRequest, error) {
	if err := onceEach(params); err != nil {
		return nil, err
	}
	if len(params.Encode()) > maxAuthRequest {
		return nil, fail(InvalidRequest, msgAuthRequestLong).reason("authorization_request_too_long")
	}
	client := snap.client(params.Get("client_id"))
	if client == nil || !client.may(GrantAuthorizationCode) {
		return nil, fail(InvalidRequest, msgUnknownClient).reason("unknown_client")
	}
	a := &authRequest{client: client, redirectURI: params.Get("redirect_uri"), state: params.Get("state"), maxAge: -1}
	if a.redirectURI == "" || !client.redirects(a.redirectURI) {
		err := fail(InvalidRequest, msgRedirectURI).reason("redirect_mismatch")
		err.ClientID = client.ID
		return nil, err
	}
	a.formPost = params.Get("response_mode") == modeFormPost
	if err := p.checkAuthRequest(ctx, snap, a, params); err != nil {
		return nil, &redirectable{a, AsError(err)}
	}
	return a, nil
}

// checkAuthRequest is what is checked once the redirect URI is known to be the
// client's.
func (p *Provider) checkAuthRequest(ctx context.Context, snap *snapshot, a *authRequest, params url.Values) error {
	if len(a.state) > maxState {
		a.state = "" // what is too long is not sent back either
		return fail(InvalidRequest, msgParamMalformed.with("state")).reason("state_too_long")
	}
	switch {
	case params.Get("request") != "":
		return fail(RequestNotSupported, msgRequestObject).reason("request_object")
	case params.Get("request_uri") != "":
		return fail(RequestURINotSupported, msgRequestObject).reason("request_uri")
	case params.Get("response_type") == "":
		return fail(InvalidRequest, msgParamMissing.with("response_type")).reason("missing_response_type")
	case params.Get("response_type") != "code": // exactly: fosite folds case
		return fail(UnsupportedResponseType, msgResponseType).reason("response_type")
	}
	if err := p.engineCheck(ctx, snap, params); err != nil {
		return err
	}
	for _, step := range []func(*snapshot, *authRequest, url.Values) error{
		p.checkScope, p.checkProofs, p.checkPrompt, p.checkHints,
	} {
		if err := step(snap, a, params); err != nil {
			return err
		}
	}
	return nil
}

// engineCheck lets fosite judge response_type, response_mode and registration.
// It sees no more than that: it reads scope and audience otherwise than the
// token endpoint does.
func (p *Provider) engineCheck(ctx context.Context, snap *snapshot, params url.Values) error {
	form := url.Values{"state": {"-"}} // fosite wants one, the specifications do not
	for _, name := range []string{"client_id", "redirect_uri", "response_type", "response_mode", "registration"} {
		if value := params.Get(name); value != "" {
			form.Set(name, value)
		}
	}
	request := &http.Request{Method: http.MethodGet, URL: new(url.URL), Header: http.Header{}, Form: form, PostForm: url.Values{}}
	_, err := p.engine.NewAuthorizeRequest(context.WithValue(ctx, snapshotKey{}, snap), request)
	if refusal, ok := errors.AsType[*fosite.RFC6749Error](err); ok {
		if out, ok := fromFositeAuthorize(refusal); ok {
			return out
		}
	}
	return err
}

func (p *Provider) checkScope(_ *snapshot, a *authRequest, params url.Values) error {
	requested := words(params.Get("scope"))
	if len(requested) > maxListed || len(params["resource"]) > maxListed || strings.Count(params.Get("audience"), " ") >= maxListed {
		return fail(InvalidScope, msgScopeRefused).reason("too_many_scopes")
	}
	named := len(requested)
	requested = slices.DeleteFunc(requested, func(s string) bool { return ignoredScope(a.client, s) })
	if named > 0 && len(requested) == 0 { // none is not the same as the default ones
		return fail(InvalidScope, msgScopeRefused).reason("scope_not_allowed")
	}
	var err error
	if a.scope, err = a.client.scope(requested); err != nil {
		return err
	}
	if a.scope, err = narrow(a.client.Scopes, a.scope, fail(InvalidScope, msgScopeRefused)); err != nil {
		return err
	}
	audience := append(words(params.Get("audience")), params["resource"]...)
	a.audience, err = narrow(a.client.Audience, audience, fail(InvalidTarget, msgTarget).reason("audience_not_allowed"))
	return err
}

// ignoredScope reports whether an authorization request may name a scope of
// OIDC Core that its client cannot be granted: libraries ask for email by
// themselves, and of email and address nothing is known here (§3.1.2.1, §11).
// Any other scope that the client may not have is an error.
func ignoredScope(client *Client, scope string) bool {
	switch scope {
	case "email", "address":
		return !slices.Contains(client.Scopes, scope)
	case scopeOfflineAccess:
		return !client.may(GrantRefreshToken)
	}
	return false
}

// checkProofs checks what binds the code to who asked for it: PKCE (RFC 7636),
// nonce and DPoP key (RFC 9449 §10).
func (p *Provider) checkProofs(_ *snapshot, a *authRequest, params url.Values) error {
	a.challenge = params.Get("code_challenge")
	method := params.Get("code_challenge_method")
	switch {
	case a.challenge == "" && method == "":
		if a.client.Public || a.client.RequirePKCE {
			return fail(InvalidRequest, msgPKCEMissing).reason("pkce_missing")
		}
	case method != "S256":
		return fail(InvalidRequest, msgPKCEMethod).reason("pkce_method")
	case !isSHA256(a.challenge):
		return fail(InvalidRequest, msgParamMalformed.with("code_challenge")).reason("pkce_challenge")
	}
	if a.nonce = params.Get("nonce"); len(a.nonce) > maxNonce {
		return fail(InvalidRequest, msgParamMalformed.with("nonce")).reason("nonce_too_long")
	}
	if a.dpopJKT = params.Get("dpop_jkt"); a.dpopJKT != "" && !isSHA256(a.dpopJKT) {
		return fail(InvalidRequest, msgParamMalformed.with("dpop_jkt")).reason("dpop_jkt")
	}
	return nil
}

// isSHA256 reports whether s has the form of a SHA-256 in base64url.
func isSHA256(s string) bool {
	return len(s) == 43 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

func (p *Provider) checkPrompt(_ *snapshot, a *authRequest, params url.Values) error {
	a.prompt = words(params.Get("prompt"))
	for _, value := range a.prompt {
		switch value {
		case promptNone, promptLogin, promptConsent, promptSelectAccount:
		default:
			return fail(InvalidRequest, msgParamMalformed.with("prompt")).reason("prompt")
		}
	}
	if a.prompts(promptNone) && len(a.prompt) > 1 {
		return fail(InvalidRequest, msgPromptNone).reason("prompt_none")
	}
	if a.client.DefaultMaxAge > 0 {
		a.maxAge = a.client.DefaultMaxAge
	}
	if text := params.Get("max_age"); text != "" {
		seconds, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fail(InvalidRequest, msgParamMalformed.with("max_age")).reason("max_age")
		}
		a.maxAge = time.Duration(min(seconds, maxMaxAge)) * time.Second
	}
	return nil
}

func (p *Provider) checkHints(snap *snapshot, a *authRequest, params url.Values) error {
	if hint := params.Get("login_hint"); len(hint) <= 128 {
		a.loginHint = hint
	}
	if text := params.Get("id_token_hint"); text != "" {
		hint, ok := p.readHint(text)
		if !ok || hint.clientID != a.client.ID {
			return fail(InvalidRequest, msgHint).reason("id_token_hint")
		}
		a.hint = hint
	}
	wanted, err := parseClaimsParam(params.Get("claims"))
	if err != nil {
		return err
	}
	// What the client may not ask for now is not kept for a time when it may:
	// nobody would have been shown it.
	mayNot := func(name string) bool { return !a.client.mayAsk(name) }
	wanted.idToken, wanted.userInfo = slices.DeleteFunc(wanted.idToken, mayNot), slices.DeleteFunc(wanted.userInfo, mayNot)
	a.claims = wanted
	return nil
}

// fromFositeAuthorize maps what fosite says of an authorization request.
func fromFositeAuthorize(e *fosite.RFC6749Error) (*Error, bool) {
	switch e.ErrorField {
	case fosite.ErrUnsupportedResponseType.ErrorField:
		return fail(UnsupportedResponseType, msgResponseType).reason("response_type"), true
	case fosite.ErrUnsupportedResponseMode.ErrorField:
		return fail(InvalidRequest, msgResponseMode).reason("response_mode"), true
	case fosite.ErrRegistrationNotSupported.ErrorField:
		return fail(RegistrationNotSupported, msgRegistration).reason("registration"), true
	}
	return nil, false
}

// The values of prompt (OIDC Core §3.1.2.1).
const (
	promptNone          = "none"
	promptLogin         = "login"
	promptConsent       = "consent"
	promptSelectAccount = "select_account"
)
