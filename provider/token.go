package provider

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ory/fosite"
)

// Paths of the endpoints, below the issuer.
const (
	PathToken         = "/oauth2/token"
	PathRevocation    = "/oauth2/revoke"
	PathIntrospection = "/oauth2/introspect"
	PathUserInfo      = "/oauth2/userinfo"
	PathJWKS          = "/.well-known/jwks.json"
	PathDiscovery     = "/.well-known/openid-configuration"
	PathMetadata      = "/.well-known/oauth-authorization-server" // RFC 8414 §3
)

// TokenResponse is a successful answer of the token endpoint (RFC 6749 §5.1),
// with what the log line says of it.
type TokenResponse struct {
	AccessToken  string
	ExpiresIn    time.Duration
	Scope        string
	RefreshToken string // "": none
	IDToken      string // "": none
	Bound        bool   // to a key (RFC 9449 §5); otherwise a bearer token

	GrantType string
	ClientID  string
	Subject   string
	FamilyID  string // the sid claim; "" for a client's own token
	NewUser   bool
	Repeated  bool // the answer to a request that had succeeded before
}

// JSON returns the response body.
func (t *TokenResponse) JSON() []byte {
	b := make([]byte, 0, 160+len(t.AccessToken)+len(t.RefreshToken)+len(t.IDToken)+len(t.Scope))
	b = append(b, `{"access_token":`...)
	b = appendString(b, t.AccessToken)
	b = append(b, `,"token_type":"`...)
	b = append(b, t.scheme()...)
	b = append(b, `","expires_in":`...)
	b = strconv.AppendInt(b, int64(t.ExpiresIn/time.Second), 10)
	b = append(b, `,"scope":`...)
	b = appendString(b, t.Scope)
	if t.RefreshToken != "" {
		b = append(b, `,"refresh_token":`...)
		b = appendString(b, t.RefreshToken)
	}
	if t.IDToken != "" {
		b = append(b, `,"id_token":`...)
		b = appendString(b, t.IDToken)
	}
	return append(b, "}\n"...)
}

// scheme is the token_type, by which the access token is to be presented.
func (t *TokenResponse) scheme() string {
	if t.Bound {
		return schemeDPoP
	}
	return schemeBearer
}

// session carries one token request through fosite's two passes over the
// handlers: the first judges, the second commits and mints.
type session struct {
	req      Request
	snapshot *snapshot
	client   *Client
	scope    []string
	audience []string
	nonce    string

	jkt    string // thumbprint of the key that access tokens are bound to; "": bearer tokens
	proven bool   // tokenProof is through

	proof   *proof          // proof grants
	refresh *refreshRequest // refresh grant
	out     *TokenResponse  // set by the second pass
}

var _ fosite.Session = (*session)(nil)

func (s *session) SetExpiresAt(fosite.TokenType, time.Time)        {}
func (s *session) GetExpiresAt(fosite.TokenType) (never time.Time) { return never }
func (s *session) GetUsername() string                             { return "" }
func (s *session) GetSubject() string                              { return "" }
func (s *session) Clone() fosite.Session                           { return s }

// Token answers a token request (RFC 6749 §3.2). On error the TokenResponse
// holds what the log may say of the request.
func (p *Provider) Token(ctx context.Context, req Request) (*TokenResponse, error) {
	about := &TokenResponse{}
	if err := checkForm(req.HTTP); err != nil {
		return about, err
	}
	form := req.HTTP.PostForm
	grantType := form.Get("grant_type")
	if grantType == "" {
		return about, fail(InvalidRequest, msgParamMissing.with("grant_type")).reason("missing_grant_type")
	}
	if !p.types[grantType] {
		return about, fail(UnsupportedGrantType, msgGrantUnknown).reason("grant_type")
	}
	about.GrantType = grantType
	if len(form.Get("nonce")) > 512 {
		return about, fail(InvalidRequest, msgParamMalformed.with("nonce")).reason("nonce_too_long")
	}

	// fosite compares each value of these lists with all the others.
	if strings.Count(form.Get("scope"), " ") >= maxListed {
		return about, fail(InvalidScope, msgScopeRefused).reason("too_many_scopes")
	}
	if strings.Count(form.Get("audience"), " ") >= maxListed {
		return about, fail(InvalidTarget, msgTarget).reason("too_many_audiences")
	}

	from := &caller{ip: req.RemoteIP, endpoint: p.issuer + PathToken}
	ctx, cancel := detached(context.WithValue(ctx, callerKey{}, from))
	defer cancel()
	sess := &session{req: req, snapshot: p.settings(), nonce: form.Get("nonce")}
	defer func() {
		if sess.proof != nil { // also where a panic comes through
			p.endRepeat(ctx, sess.proof.repeat, context.Canceled)
		}
	}()
	requester, err := p.engine.NewAccessRequest(ctx, req.HTTP, sess)
	if from.claimed != nil {
		about.ClientID = from.claimed.ID
	}
	if err != nil {
		return about, err
	}
	if _, err := p.engine.NewAccessResponse(ctx, requester); err != nil {
		return about, err
	}
	sess.out.GrantType, sess.out.ClientID = grantType, sess.client.ID
	return sess.out, nil
}

// maxListed bounds the values of scope and of audience in one request.
const maxListed = 256

// words splits a list of values as RFC 6749 §3.3 writes it: by spaces and
// nothing else.
func words(list string) []string {
	return slices.DeleteFunc(strings.Split(list, " "), func(s string) bool { return s == "" })
}

// isFor reports whether requester asks for exactly this grant type.
func isFor(requester fosite.AccessRequester, grantType string) bool {
	types := requester.GetGrantTypes()
	return len(types) == 1 && types[0] == grantType
}

// enter makes the checks that no grant may forget: the client may use the
// grant, and it proves possession of a key where it must or will.
func (p *Provider) enter(ctx context.Context, requester fosite.AccessRequester, grantType string) (*session, error) {
	sess := requester.GetSession().(*session)
	sess.client = requester.GetClient().(fositeClient).Client
	if !sess.client.may(grantType) {
		return nil, fail(UnauthorizedClient, msgGrantForbidden).reason("grant_not_allowed")
	}
	return sess, p.tokenProof(ctx, sess)
}

// admit is enter for a grant whose request says what is to be granted: the
// client may have the scopes and audiences asked for.
func (p *Provider) admit(ctx context.Context, requester fosite.AccessRequester, grantType string) (*session, error) {
	sess, err := p.enter(ctx, requester, grantType)
	if err != nil {
		return nil, err
	}
	if sess.scope, err = sess.client.scope(requester.GetRequestedScopes()); err != nil {
		return nil, err
	}
	sess.audience, err = narrow(sess.client.Audience, requestedAudience(requester), fail(InvalidTarget, msgTarget).reason("audience_not_allowed"))
	return sess, err
}

// requestedAudience joins the parameters audience and resource (RFC 8707).
func requestedAudience(requester fosite.AccessRequester) []string {
	requested := requester.GetRequestedAudience()
	resources := requester.GetRequestForm()["resource"]
	if len(resources) == 0 {
		return requested
	}
	return append(slices.Clone([]string(requested)), resources...)
}

// respond hands a minted answer to fosite, which insists on having one.
func respond(sess *session, responder fosite.AccessResponder, out *TokenResponse) {
	sess.out = out
	responder.SetAccessToken(out.AccessToken)
	responder.SetTokenType("bearer")
}
