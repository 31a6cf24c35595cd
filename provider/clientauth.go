package provider

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/ory/fosite"

	"github.com/wxidp/wxidp/internal/limit"
)

// caller is what travels through fosite beside a request whose client is to be
// authenticated.
type caller struct {
	ip       netip.Addr
	endpoint string // URL of the endpoint asked
	// claimed is the configured client that the request says it is from, nil
	// where it names none; set by the authentication, proven or not.
	claimed *Client
}

type callerKey struct{}

// authenticate is the client authentication of every endpoint (RFC 6749 §2.3,
// OIDC Core §9). A failure counts against the address and the client it
// claimed to be; success always passes, so that nobody can shut out a client
// by failing in its name.
func (p *Provider) authenticate(ctx context.Context, engine *fosite.Fosite, r *http.Request, form url.Values) (fosite.Client, error) {
	from, ok := ctx.Value(callerKey{}).(*caller)
	if !ok {
		return nil, errors.New("client authentication without a caller")
	}
	snap := p.settings()
	client, claimed, err := p.proveClient(ctx, engine, snap, from, r, form)
	if err == nil {
		return client, nil
	}
	refusal := AsError(err)
	if refusal.Code != InvalidClient {
		return nil, refusal
	}
	refusal = challenged(r, refusal)
	if from.claimed != nil && from.claimed.Public {
		return nil, refusal // there is nothing to guess
	}
	// No client has a longer id; the table of attempts keeps no longer ones.
	attempts := claimed[:min(len(claimed), maxClientID)] + "|" + limit.Subscriber(from.ip).String()
	if ok, wait := p.authFailures.Allow(attempts); !ok {
		return nil, Limited("client_authentication", wait)
	}
	return nil, refusal
}

// challenged names the scheme to use where a client tried to authenticate by
// the Authorization header (RFC 6749 §5.2).
func challenged(r *http.Request, refusal *Error) *Error {
	if r.Header.Get("Authorization") != "" {
		refusal.Scheme = "Basic"
	}
	return refusal
}

// maxClientID is the length of the longest client_id that can be configured.
const maxClientID = 128

// proveClient authenticates. claimed is the id that the request gave.
func (p *Provider) proveClient(ctx context.Context, engine *fosite.Fosite, snap *snapshot, from *caller, r *http.Request, form url.Values) (_ fosite.Client, claimed string, _ error) {
	claimed, err := claimedClient(r, form)
	if err != nil {
		return nil, claimed, err
	}
	from.claimed = snap.client(claimed)
	if form.Has("client_assertion") {
		if err := p.verifyAssertion(ctx, from.claimed, form, from.endpoint); err != nil {
			return nil, claimed, err
		}
		return fositeClient{from.claimed}, claimed, nil
	}
	client, err := engine.DefaultClientAuthenticationStrategy(context.WithValue(ctx, snapshotKey{}, snap), r, form)
	if err != nil {
		return nil, claimed, err
	}
	if _, password, _ := r.BasicAuth(); client.IsPublic() && (form.Has("client_secret") || password != "") {
		return nil, claimed, fail(InvalidClient, msgClientAuth).reason("public_client_with_secret")
	}
	return client, claimed, nil
}

// claimedClient is the client that a request says it is from, by exactly one
// method of authentication.
func claimedClient(r *http.Request, form url.Values) (string, error) {
	if len(r.Header.Values("Authorization")) > 1 {
		return "", fail(InvalidRequest, msgClientTwice).reason("two_authorization_headers")
	}
	claimed := form.Get("client_id")
	user, _, basic := r.BasicAuth()
	switch {
	case basic:
		name, err := url.QueryUnescape(user)
		if err != nil {
			return "", fail(InvalidRequest, msgClientAuth).reason("basic_encoding")
		}
		if form.Has("client_secret") || form.Has("client_assertion") || claimed != "" && claimed != name {
			return name, fail(InvalidRequest, msgClientTwice).reason("two_authentications")
		}
		claimed = name
	case r.Header.Get("Authorization") != "":
		return claimed, fail(InvalidClient, msgClientAuth).reason("authorization_scheme")
	case form.Has("client_secret") && form.Has("client_assertion"):
		return claimed, fail(InvalidRequest, msgClientTwice).reason("two_authentications")
	case form.Has("client_assertion") != form.Has("client_assertion_type"):
		return claimed, fail(InvalidRequest, msgParamMissing.with("client_assertion")).reason("assertion_incomplete")
	case form.Has("client_assertion"):
		assertion := form.Get("client_assertion")
		if !oneSpelling(assertion) {
			return claimed, fail(InvalidClient, msgClientAuth).reason("assertion_malformed")
		}
		if claimed == "" {
			claimed = assertionSubject(assertion)
		}
	}
	if claimed == "" {
		return "", fail(InvalidClient, msgClientAuth).reason("no_client")
	}
	return claimed, nil
}

// authenticateRequest authenticates the client of an endpoint other than the
// token endpoint.
func (p *Provider) authenticateRequest(ctx context.Context, req Request, path string) (*Client, error) {
	if err := checkForm(req.HTTP); err != nil {
		return nil, err
	}
	from := &caller{ip: req.RemoteIP, endpoint: p.issuer + path}
	client, err := p.engine.AuthenticateClient(context.WithValue(ctx, callerKey{}, from), req.HTTP, req.HTTP.PostForm)
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
// (of at most 10 s) included.
const requestBudget = 15 * time.Second

// detached is ctx without the caller's hanging up: once a code was sent or a
// token redeemed, the work runs to its commit.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), requestBudget)
}
