package provider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"time"

	"github.com/ory/fosite"

	"github.com/wxidp/wxidp/storage"
)

// GrantAuthorizationCode is the grant_type that redeems an authorization code
// (RFC 6749 §4.1.3).
const GrantAuthorizationCode = "authorization_code"

// usedCodeMemory is how long a code is known to have been used, so that its
// return ends what it was exchanged for.
const usedCodeMemory = 24 * time.Hour

// codeGrant redeems authorization codes. Whether a code is good, for this
// client, redirect_uri, code_verifier and key, is judged inside one storage
// operation, which also records the sign-in: however many present a code at
// once, one of them gets tokens.
type codeGrant struct{ p *Provider }

var _ grantHandler = (*codeGrant)(nil)

func (h *codeGrant) grantTypes() []string { return []string{GrantAuthorizationCode} }

func (h *codeGrant) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool { return false }

func (h *codeGrant) CanHandleTokenEndpointRequest(_ context.Context, requester fosite.AccessRequester) bool {
	return isFor(requester, GrantAuthorizationCode)
}

// HandleTokenEndpointRequest checks what can be checked without the code.
func (h *codeGrant) HandleTokenEndpointRequest(ctx context.Context, requester fosite.AccessRequester) error {
	if !isFor(requester, GrantAuthorizationCode) {
		return fosite.ErrUnknownRequest
	}
	if _, err := h.p.enter(ctx, requester, GrantAuthorizationCode); err != nil {
		return err
	}
	if requester.GetRequestForm().Get("code") == "" {
		return fail(InvalidRequest, msgParamMissing.with("code")).reason("missing_code")
	}
	return nil
}

// PopulateTokenEndpointResponse redeems the code in one commit and mints.
func (h *codeGrant) PopulateTokenEndpointResponse(ctx context.Context, requester fosite.AccessRequester, responder fosite.AccessResponder) error {
	if !isFor(requester, GrantAuthorizationCode) {
		return fosite.ErrUnknownRequest
	}
	sess := requester.GetSession().(*session)
	form := requester.GetRequestForm()
	redemption := storage.Redemption{
		Code:        tokenDigest(form.Get("code")),
		RedirectURI: form.Get("redirect_uri"),
		Challenge:   challengeOf(form.Get("code_verifier")),
		Remember:    usedCodeMemory,
	}
	out, err := h.p.redeem(ctx, sess, redemption, requestedAudience(requester))
	if err != nil {
		return err
	}
	respond(sess, responder, out)
	return nil
}

// challengeOf is the S256 transformation of a code_verifier (RFC 7636 §4.2),
// "" where there is none.
func challengeOf(verifier string) string {
	if verifier == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// redeem exchanges an authorization code or an approved device code for
// tokens. audience, where it names something, narrows what was granted (RFC
// 8707 §2.2).
func (p *Provider) redeem(ctx context.Context, sess *session, in storage.Redemption, audience []string) (*TokenResponse, error) {
	in.ClientID = sess.client.ID
	in.DPoPThumbprint = sess.jkt
	in.Family = storage.Family{
		ID:             storage.NewFamilyID(),
		Secret:         storage.NewFamilySecret(),
		MACKeyID:       p.keys.MACKey().ID,
		DPoPThumbprint: sess.jkt,
	}
	in.Idle, in.Absolute = sess.familyLifetimes()
	result, err := p.store.Redeem(ctx, in)
	if err != nil {
		return nil, err
	}
	if err := p.redemptionRefusal(ctx, sess, result); err != nil {
		return nil, err
	}
	family := result.Family
	sess.nonce = result.Grant.Nonce
	sess.scope = intersect(family.Scope, sess.client.Scopes)
	sess.audience = intersect(family.Audience, sess.client.Audience)
	if len(sess.scope) == 0 || len(sess.audience) == 0 {
		return nil, p.undo(ctx, family, fail(InvalidGrant, msgCodeInvalid).reason("grant_withdrawn"))
	}
	if sess.audience, err = narrow(sess.audience, audience, fail(InvalidTarget, msgTarget).reason("audience_not_allowed")); err != nil {
		return nil, p.undo(ctx, family, err)
	}
	return p.mint(ctx, sess, family, true)
}

// undo ends a sign-in that has begun and whose tokens nobody gets, and returns
// why.
func (p *Provider) undo(ctx context.Context, family storage.Family, refusal error) error {
	if _, err := p.store.RevokeFamily(ctx, family.ID, "not_issued"); err != nil {
		return err
	}
	return refusal
}

// redemptionRefusal turns a verdict other than success into an error. The
// client learns nothing but that the code is no good; the log learns who
// misused it.
func (p *Provider) redemptionRefusal(ctx context.Context, sess *session, result storage.RedeemResult) error {
	reason := ""
	switch result.Verdict {
	case storage.RedeemOK:
		return nil
	case storage.RedeemMissing:
		reason = "code_unknown"
	case storage.RedeemExpired:
		reason = "code_expired"
	case storage.RedeemWrongClient, storage.RedeemWrongRedirect, storage.RedeemWrongVerifier, storage.RedeemWrongKey:
		reason = misuses[result.Verdict]
		p.warn(ctx, sess.req, "code.misuse", slog.String("client_id", sess.client.ID),
			slog.String("issued_to", result.Grant.ClientID), slog.String("sub", result.Grant.UserID), slog.String("reason", reason))
	case storage.RedeemUsed:
		reason = "code_used"
		attrs := []slog.Attr{slog.String("client_id", sess.client.ID), slog.String("sub", result.Grant.UserID)}
		if !result.Family.ID.IsZero() {
			attrs = append(attrs, slog.String("sid", result.Family.ID.String()))
		}
		p.warn(ctx, sess.req, "code.reuse_detected", attrs...)
	case storage.RedeemUserDisabled:
		reason = "user_disabled"
	case storage.RedeemEnded:
		reason = "login_ended"
	default:
		return fmt.Errorf("redemption verdict %d", result.Verdict)
	}
	refusal := fail(InvalidGrant, msgCodeInvalid).reason(reason)
	refusal.Subject = result.Grant.UserID
	return refusal
}

// misuses are the words for codes that were presented in a wrong way.
var misuses = map[storage.RedeemVerdict]string{
	storage.RedeemWrongClient:   "other_client",
	storage.RedeemWrongRedirect: "other_redirect_uri",
	storage.RedeemWrongVerifier: "wrong_verifier",
	storage.RedeemWrongKey:      "other_dpop_key",
}
