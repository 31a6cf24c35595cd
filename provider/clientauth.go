package provider

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/ory/fosite"

	"github.com/wxidp/wxidp/internal/limit"
)

// callerKey is where the address of a request's caller travels through fosite.
type callerKey struct{}

// authenticate is the client authentication of every endpoint (RFC 6749 §2.3,
// OIDC Core §9): fosite's, behind the checks it does not make.
func (p *Provider) authenticate(ctx context.Context, engine *fosite.Fosite, r *http.Request, form url.Values) (fosite.Client, error) {
	if len(r.Header.Values("Authorization")) > 1 {
		return nil, fail(InvalidRequest, msgClientTwice).reason("two_authorization_headers")
	}
	user, _, basic := r.BasicAuth()
	claimed := form.Get("client_id")
	if basic {
		name, err := url.QueryUnescape(user)
		if err != nil {
			return nil, fail(InvalidRequest, msgClientAuth).reason("basic_encoding")
		}
		if form.Has("client_secret") || form.Has("client_assertion") || claimed != "" && claimed != name {
			return nil, fail(InvalidRequest, msgClientTwice).reason("two_authentications")
		}
		claimed = name
	} else if r.Header.Get("Authorization") != "" {
		// Basic is the one scheme to answer with: RFC 6749 §5.2 asks for a challenge.
		refusal := fail(InvalidClient, msgClientAuth).reason("authorization_scheme")
		refusal.Scheme = "Basic"
		return nil, refusal
	}
	if form.Has("client_secret") && form.Has("client_assertion") {
		return nil, fail(InvalidRequest, msgClientTwice).reason("two_authentications")
	}
	if form.Has("client_assertion") != form.Has("client_assertion_type") {
		return nil, fail(InvalidRequest, msgParamMissing.with("client_assertion")).reason("assertion_incomplete")
	}
	if form.Has("client_assertion") && !compactJWS(form.Get("client_assertion")) {
		return nil, fail(InvalidClient, msgClientAuth).reason("assertion_malformed")
	}
	if claimed == "" && !form.Has("client_assertion") {
		return nil, fail(InvalidClient, msgClientAuth).reason("no_client")
	}

	ip, _ := ctx.Value(callerKey{}).(netip.Addr)
	// No client has a longer id; the table of attempts keeps no longer ones.
	attempts := claimed[:min(len(claimed), maxClientID)] + "|" + limit.Subscriber(ip).String()
	settings := p.settings()
	// A public client has nothing to guess, and all phones behind one carrier
	// share its address: failures of some must not shut out the others.
	known := settings.client(claimed)
	guessable := known == nil || !known.Public
	if ok, wait := p.authFailures.Peek(attempts); guessable && !ok {
		return nil, Limited("client_authentication", wait)
	}
	auth := &authentication{snapshot: settings}
	client, err := engine.DefaultClientAuthenticationStrategy(context.WithValue(ctx, authenticationKey{}, auth), r, form)
	if err == nil && client.IsPublic() && (form.Has("client_secret") || basic && hasPassword(r)) {
		err = fail(InvalidClient, msgClientAuth).reason("public_client_with_secret")
	}
	if err == nil {
		return client, nil
	}
	refusal := AsError(err)
	if form.Has("client_assertion") && (refusal.Code == InvalidRequest || refusal.Code == ServerError) {
		// fosite says invalid_request where an assertion names no usable key,
		// and has no code at all for one whose time has not come or is over.
		refusal = fail(InvalidClient, msgClientAuth).reason("client_assertion").because(refusal.Cause)
	}
	if refusal.Code == InvalidClient {
		if guessable {
			p.authFailures.Allow(attempts)
		}
		if basic {
			refusal.Scheme = "Basic"
		}
	}
	return nil, refusal
}

// maxClientID is the length of the longest client_id that can be configured.
const maxClientID = 128

// compactJWS reports whether token looks like a JWS in compact serialization
// (RFC 7515 §3.1). fosite's parser takes the JSON serializations too.
func compactJWS(token string) bool {
	return strings.Count(token, ".") == 2 && !strings.ContainsFunc(token, func(c rune) bool {
		return c != '.' && c != '-' && c != '_' && !('0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z')
	})
}

func hasPassword(r *http.Request) bool {
	_, password, ok := r.BasicAuth()
	return ok && password != ""
}

// authenticateRequest authenticates the client of an endpoint other than the
// token endpoint.
func (p *Provider) authenticateRequest(ctx context.Context, req Request) (*Client, error) {
	if err := checkForm(req.HTTP); err != nil {
		return nil, err
	}
	client, err := p.engine.AuthenticateClient(context.WithValue(ctx, callerKey{}, req.RemoteIP), req.HTTP, req.HTTP.PostForm)
	if err != nil {
		return nil, err
	}
	return client.(fositeClient).Client, nil
}

// checkForm refuses parameters in the URL and parameters that occur twice
// (RFC 6749 §3.2). resource alone may repeat (RFC 8707 §2).
func checkForm(r *http.Request) error {
	if r.URL.RawQuery != "" {
		return fail(InvalidRequest, msgQuery).reason("query_parameters")
	}
	for name, values := range r.PostForm {
		if len(values) > 1 && name != "resource" {
			return fail(InvalidRequest, msgParamTwice).reason("duplicate_parameter")
		}
	}
	return nil
}

// requestBudget is how long one request may take in all, its call to WeChat
// included.
const requestBudget = 15 * time.Second

// detached is ctx without the caller's hanging up: once a code was sent or a
// token redeemed, the work runs to its commit.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), requestBudget)
}
