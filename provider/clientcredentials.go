package provider

import (
	"context"
	"slices"
	"time"

	"github.com/ory/fosite"
)

// GrantClientCredentials is the grant_type of a client acting for itself
// (RFC 6749 §4.4).
const GrantClientCredentials = "client_credentials"

// clientCredentialsGrant issues access tokens whose subject is the client. It
// stores nothing.
type clientCredentialsGrant struct{ p *Provider }

var _ grantHandler = (*clientCredentialsGrant)(nil)

func (h *clientCredentialsGrant) grantTypes() []string { return []string{GrantClientCredentials} }

func (h *clientCredentialsGrant) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool {
	return false
}

func (h *clientCredentialsGrant) CanHandleTokenEndpointRequest(_ context.Context, requester fosite.AccessRequester) bool {
	return isFor(requester, GrantClientCredentials)
}

func (h *clientCredentialsGrant) HandleTokenEndpointRequest(ctx context.Context, requester fosite.AccessRequester) error {
	if !isFor(requester, GrantClientCredentials) {
		return fosite.ErrUnknownRequest
	}
	sess, err := h.p.admit(ctx, requester, GrantClientCredentials)
	if err != nil {
		return err
	}
	if sess.client.Public {
		return fail(UnauthorizedClient, msgGrantForbidden).reason("public_client")
	}
	if slices.Contains(sess.scope, "openid") {
		// There is no End-User, so nothing of OpenID Connect can be asked for.
		return fail(InvalidScope, msgScopeRefused).reason("openid_without_user")
	}
	return nil
}

func (h *clientCredentialsGrant) PopulateTokenEndpointResponse(_ context.Context, requester fosite.AccessRequester, responder fosite.AccessResponder) error {
	if !isFor(requester, GrantClientCredentials) {
		return fosite.ErrUnknownRequest
	}
	sess := requester.GetSession().(*session)
	now := time.Now()
	token, err := h.p.accessToken(sess, accessClaims{
		subject: sess.client.ID, issued: now, expires: now.Add(sess.accessTokenLifetime()),
	})
	if err != nil {
		return err
	}
	respond(sess, responder, &TokenResponse{
		AccessToken: token,
		ExpiresIn:   sess.accessTokenLifetime(),
		Bound:       sess.jkt != "",
		Scope:       joinScope(sess.scope),
		Subject:     sess.client.ID,
	})
	return nil
}
