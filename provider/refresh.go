package provider

import (
	"cmp"
	"context"
	"errors"
	"log/slog"

	"github.com/ory/fosite"

	"github.com/wxidp/wxidp/storage"
)

// GrantRefreshToken is the grant_type of a refresh (RFC 6749 §6).
const GrantRefreshToken = "refresh_token"

// refreshGrant redeems refresh tokens. All that depends on the moment (grace,
// reuse, expiry, revocation) is judged inside one storage operation; what is
// checked before it (MAC, client, scope) never changes for a given token.
type refreshGrant struct{ p *Provider }

// refreshRequest is what the first pass found out.
type refreshRequest struct {
	token  parsedRefreshToken
	family storage.Family
}

var _ grantHandler = (*refreshGrant)(nil)

func (h *refreshGrant) grantTypes() []string { return []string{GrantRefreshToken} }

func (h *refreshGrant) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool { return false }

func (h *refreshGrant) CanHandleTokenEndpointRequest(_ context.Context, requester fosite.AccessRequester) bool {
	return isFor(requester, GrantRefreshToken)
}

// HandleTokenEndpointRequest proves that the token is one of this client's
// and settles the scope. A token that fails here touches nothing.
func (h *refreshGrant) HandleTokenEndpointRequest(ctx context.Context, requester fosite.AccessRequester) error {
	if !isFor(requester, GrantRefreshToken) {
		return fosite.ErrUnknownRequest
	}
	sess, err := h.p.enter(ctx, requester, GrantRefreshToken)
	if err != nil {
		return err
	}
	presented := requester.GetRequestForm().Get("refresh_token")
	if presented == "" {
		return fail(InvalidRequest, msgParamMissing.with("refresh_token")).reason("missing_refresh_token")
	}
	token, family, err := h.p.ownRefreshToken(ctx, sess, presented)
	if err != nil {
		return err
	}
	if err := sess.holdsKey(family); err != nil {
		return err
	}
	sess.refresh = &refreshRequest{token: token, family: family}

	if len(requester.GetRequestedScopes()) > 0 {
		if _, err := narrow(family.Scope, requester.GetRequestedScopes(), fail(InvalidScope, msgScopeWider).reason("scope_widened")); err != nil {
			return err
		}
		sess.scope = intersect(requester.GetRequestedScopes(), sess.client.Scopes)
	} else {
		sess.scope = intersect(family.Scope, sess.client.Scopes)
	}
	allowed := intersect(family.Audience, sess.client.Audience)
	switch {
	case len(allowed) == 0:
		// Nothing in the request is at fault: only a new sign-in helps.
		return fail(InvalidGrant, msgRefreshInvalid).reason("audience_withdrawn")
	case len(sess.scope) > 0:
	case len(requester.GetRequestedScopes()) > 0:
		return fail(InvalidScope, msgScopeRefused).reason("scope_withdrawn")
	default:
		return fail(InvalidGrant, msgRefreshInvalid).reason("scope_withdrawn")
	}
	sess.audience, err = narrow(allowed, requestedAudience(requester), fail(InvalidTarget, msgTarget).reason("audience_widened"))
	return err
}

// ownRefreshToken checks that a refresh token is genuine and this client's.
func (p *Provider) ownRefreshToken(ctx context.Context, sess *session, presented string) (parsedRefreshToken, storage.Family, error) {
	refuse := func(reason string) error { return fail(InvalidGrant, msgRefreshInvalid).reason(reason) }
	token, ok := parseRefreshToken(presented)
	if !ok {
		return token, storage.Family{}, refuse("refresh_token_malformed")
	}
	family, err := p.store.Family(ctx, token.familyID)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return token, family, refuse("family_missing")
	case err != nil:
		return token, family, err
	}
	switch genuine, err := token.verify(ctx, p, family); {
	case err != nil:
		return token, family, err
	case !genuine:
		return token, family, refuse("refresh_token_forged")
	case family.ClientID != sess.client.ID:
		p.warn(ctx, sess.req, "token.misuse", slog.String("client_id", sess.client.ID),
			slog.String("owner", family.ClientID), slog.String("sid", family.ID.String()))
		return token, family, refuse("other_client")
	case !sess.client.serves(family):
		return token, family, refuse("app_withdrawn")
	}
	if lives, err := p.macKeyLives(ctx, family); err != nil || !lives {
		return token, family, cmp.Or(err, refuse("mac_key_revoked"))
	}
	return token, family, nil
}

// holdsKey checks that a public client holds the key that its refresh tokens
// are bound to (RFC 9449 §5). Those of a confidential client are bound to the
// client, which has authenticated.
func (s *session) holdsKey(family storage.Family) error {
	switch {
	case !s.client.Public || family.DPoPThumbprint == "" || family.DPoPThumbprint == s.jkt:
		return nil
	case s.jkt == "":
		return fail(InvalidDPoPProof, msgDPoPMissing).reason("dpop_missing")
	}
	return fail(InvalidGrant, msgDPoPOtherKey).reason("dpop_other_key")
}

// PopulateTokenEndpointResponse rotates and mints.
func (h *refreshGrant) PopulateTokenEndpointResponse(ctx context.Context, requester fosite.AccessRequester, responder fosite.AccessResponder) error {
	if !isFor(requester, GrantRefreshToken) {
		return fosite.ErrUnknownRequest
	}
	sess := requester.GetSession().(*session)
	result, err := h.p.store.Rotate(ctx, storage.Rotation{
		FamilyID:   sess.refresh.token.familyID,
		ClientID:   sess.client.ID,
		Generation: sess.refresh.token.generation,
		MACKeyID:   h.p.keys.MACKey().ID,
		Grace:      sess.snapshot.RefreshGrace,
		Idle:       sess.refreshIdleLifetime(),
	})
	if err != nil {
		return err
	}
	if err := h.refusal(ctx, sess, result); err != nil {
		return err
	}
	out, err := h.p.mint(ctx, sess, result.Family, true)
	if err != nil {
		return err
	}
	out.Repeated = result.Verdict == storage.RotateRepeated
	respond(sess, responder, out)
	return nil
}

// refusal turns a verdict other than success into an error and reports reuse.
func (h *refreshGrant) refusal(ctx context.Context, sess *session, result storage.RotateResult) error {
	reason := "rotate"
	switch result.Verdict {
	case storage.RotateOK, storage.RotateRepeated:
		return nil
	case storage.RotateReused:
		reason = "reuse"
		h.p.warn(ctx, sess.req, "token.reuse_detected",
			slog.String("sid", result.Family.ID.String()), slog.String("client_id", sess.client.ID),
			slog.String("sub", result.Family.UserID), slog.Bool("successor_used", result.SuccessorUsed))
	case storage.RotateRevoked:
		reason = "revoked"
	case storage.RotateExpired:
		reason = "expired"
	case storage.RotateMissing:
		reason = "family_missing"
	case storage.RotateUserDisabled:
		reason = "user_disabled"
	case storage.RotateWrongClient:
		reason = "other_client"
	case storage.RotateInvalid:
		reason = "generation_unknown"
	}
	return fail(InvalidGrant, msgRefreshInvalid).reason(reason)
}
