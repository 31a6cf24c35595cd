package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ory/fosite"

	"github.com/wxidp/wxidp/grants"
	"github.com/wxidp/wxidp/storage"
)

// proofGrants makes every grants.Grant a fosite handler: one handler for all,
// because fosite keeps one per Go type.
type proofGrants struct {
	p      *Provider
	byType map[string]grants.Grant
}

// proof is what the first pass over a proof grant found out.
type proof struct {
	subject grants.Subject
	repeat  *repeat         // nil: the request has no Idempotency-Key
	earlier *storage.Family // set: the request repeats a sign-in that succeeded
}

var _ grantHandler = (*proofGrants)(nil)

func (h *proofGrants) grantTypes() []string {
	types := make([]string, 0, len(h.byType))
	for grantType := range h.byType {
		types = append(types, grantType)
	}
	return types
}

func (h *proofGrants) grant(requester fosite.AccessRequester) grants.Grant {
	if types := requester.GetGrantTypes(); len(types) == 1 {
		return h.byType[types[0]]
	}
	return nil
}

// CanSkipClientAuth is false: a mini-program is a public client, which
// authenticates by naming itself.
func (h *proofGrants) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool { return false }

func (h *proofGrants) CanHandleTokenEndpointRequest(_ context.Context, requester fosite.AccessRequester) bool {
	return h.grant(requester) != nil
}

// HandleTokenEndpointRequest lets the grant prove who the End-User is, unless
// the request repeats one that has an outcome.
func (h *proofGrants) HandleTokenEndpointRequest(ctx context.Context, requester fosite.AccessRequester) (err error) {
	grant := h.grant(requester)
	if grant == nil {
		return fosite.ErrUnknownRequest
	}
	sess, err := h.p.admit(requester, grant.Type())
	if err != nil {
		return err
	}
	sess.proof = new(proof)
	if sess.proof.repeat, err = h.p.repeats.begin(ctx, sess); err != nil {
		return err
	}
	// The second pass ends the repeat if this one succeeds.
	defer func() {
		if err != nil {
			sess.proof.repeat.end(err)
		}
	}()
	if sess.proof.repeat != nil {
		family, err := h.p.earlierOutcome(ctx, sess.proof.repeat)
		if err != nil || family != nil {
			sess.proof.earlier = family
			return err
		}
	}
	form := requester.GetRequestForm()
	sess.proof.subject, err = grant.Prove(ctx, grants.Request{
		Param:       form.Get,
		ClientID:    sess.client.ID,
		WeChatAppID: sess.client.WeChatAppID,
		RemoteIP:    sess.req.RemoteIP,
	})
	return err
}

// PopulateTokenEndpointResponse records the sign-in in one commit and mints.
func (h *proofGrants) PopulateTokenEndpointResponse(ctx context.Context, requester fosite.AccessRequester, responder fosite.AccessResponder) (err error) {
	if h.grant(requester) == nil {
		return fosite.ErrUnknownRequest
	}
	sess := requester.GetSession().(*session)
	defer func() { sess.proof.repeat.end(err) }()

	out, err := h.p.signIn(ctx, sess)
	if err != nil {
		return err
	}
	respond(sess, responder, out)
	return nil
}

func (p *Provider) signIn(ctx context.Context, sess *session) (*TokenResponse, error) {
	if sess.proof.earlier != nil {
		return p.repeatSignIn(sess, *sess.proof.earlier)
	}
	request := p.newSignIn(sess)
	result, err := p.store.SignIn(ctx, request)
	if err != nil {
		return nil, err
	}
	switch result.Verdict {
	case storage.SignInOK:
	case storage.SignInUserDisabled:
		return nil, fail(AccessDenied, msgUserDisabled).reason("user_disabled")
	case storage.SignInIdempotencyTaken:
		// Another node finished the same request meanwhile.
		family, err := p.earlierOutcome(ctx, sess.proof.repeat)
		if err != nil {
			return nil, err
		}
		if family == nil {
			return nil, errors.New("idempotency record vanished")
		}
		sess.proof.earlier = family
		return p.signIn(ctx, sess)
	default:
		return nil, fmt.Errorf("sign-in verdict %d to a request that binds nothing", result.Verdict)
	}
	if result.Conflict {
		p.logConflict(ctx, sess.req, result, sess.client.ID)
	}
	out, err := p.mint(sess, result.Family, true)
	if err == nil {
		out.NewUser = result.Created
	}
	return out, err
}

// repeatSignIn answers a repetition with the first answer's refresh token. It
// grants what the first request was granted and the client may still have,
// whatever the client's defaults have become since.
func (p *Provider) repeatSignIn(sess *session, family storage.Family) (*TokenResponse, error) {
	sess.scope = intersect(family.Scope, sess.client.Scopes)
	sess.audience = intersect(family.Audience, sess.client.Audience)
	if len(sess.scope) == 0 || len(sess.audience) == 0 || !sess.client.serves(family) {
		return nil, fail(InvalidGrant, msgIdempotencyMoved).reason("idempotency_withdrawn")
	}
	out, err := p.mint(sess, family, true)
	if err == nil {
		out.Repeated = true
	}
	return out, err
}

func (p *Provider) newSignIn(sess *session) storage.SignIn {
	subject := sess.proof.subject
	family := storage.Family{
		ID:       storage.NewFamilyID(),
		ClientID: sess.client.ID,
		Scope:    sess.scope,
		Audience: sess.audience,
		AuthTime: subject.AuthTime,
		AMR:      subject.AMR,
		MACKeyID: p.keys.MACKey().ID,
		Secret:   storage.NewFamilySecret(),
	}
	settings := sess.snapshot
	idle, absolute := settings.RefreshTokenIdleLifetime, settings.RefreshTokenAbsoluteLifetime
	if !sess.client.may(GrantRefreshToken) {
		// Nothing can prolong this sign-in, so it ends with its access token.
		idle, absolute = settings.AccessTokenLifetime, settings.AccessTokenLifetime
	}
	request := storage.SignIn{
		AppID:        subject.Identity.AppID,
		WeChatOpenID: subject.Identity.WeChatOpenID,
		UnionID:      subject.Identity.UnionID,
		OpenPlatform: subject.Identity.OpenPlatform,
		NewProfile:   subject.NewProfile,
		Family:       family,
		Idle:         idle,
		Absolute:     absolute,
	}
	if repeat := sess.proof.repeat; repeat != nil {
		request.Idempotency = &storage.Idempotency{Key: repeat.key, Form: repeat.form, Lifetime: repeatLifetime}
	}
	return request
}

// mint makes the tokens of a family's live generation. Scope and audience are
// the session's, which a refresh may have narrowed.
func (p *Provider) mint(sess *session, family storage.Family, withRefresh bool) (*TokenResponse, error) {
	now := time.Now()
	expires := now.Add(sess.snapshot.AccessTokenLifetime)
	for _, end := range []time.Time{family.ExpiresAt, family.IdleExpiresAt} {
		if end.Before(expires) {
			expires = end
		}
	}
	sid := family.ID.String()
	access, err := p.accessToken(sess, accessClaims{
		subject: family.UserID, sid: sid, issued: now, expires: expires, authTime: family.AuthTime,
	})
	if err != nil {
		return nil, err
	}
	out := &TokenResponse{
		AccessToken: access,
		ExpiresIn:   expires.Sub(now),
		Scope:       joinScope(sess.scope),
		Subject:     family.UserID,
		FamilyID:    sid,
	}
	if withRefresh && sess.client.may(GrantRefreshToken) {
		if out.RefreshToken, err = p.refreshToken(family); err != nil {
			return nil, err
		}
	}
	if slices.Contains(sess.scope, "openid") {
		out.IDToken, err = p.idToken(sess, family, sid, access, now)
	}
	return out, err
}
