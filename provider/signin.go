package provider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/storage"
)

// signIn commits what the grant has proven and mints.
func (p *Provider) signIn(ctx context.Context, sess *session) (*TokenResponse, error) {
	if sess.proof.earlier != nil {
		return p.repeatSignIn(ctx, sess, *sess.proof.earlier)
	}
	request := p.newSignIn(sess)
	result, err := p.store.SignIn(ctx, request)
	if err != nil {
		return nil, err
	}
	if result.Verdict == storage.SignInIdempotencyTaken {
		// Another node finished the same request meanwhile.
		family, err := p.earlierOutcome(ctx, sess)
		if err != nil {
			return nil, err
		}
		if family == nil {
			return nil, errors.New("idempotency record vanished")
		}
		sess.proof.earlier = family
		return p.signIn(ctx, sess)
	}
	if err := signInRefusal(result.Verdict); err != nil {
		return nil, err
	}
	p.logSignIn(ctx, sess, result)
	out, err := p.mint(ctx, sess, result.Family, true)
	if err == nil {
		out.NewUser = result.Created
	}
	return out, err
}

// signInRefusal turns a verdict other than success into an error, which never
// says whose an identity, account or number is.
func signInRefusal(verdict storage.SignInVerdict) error {
	switch verdict {
	case storage.SignInOK:
		return nil
	case storage.SignInUserDisabled:
		return fail(AccessDenied, msgUserDisabled).reason("user_disabled")
	case storage.SignInAccountRequired:
		return fail(AccountRequired, msgAccountRequired).reason("account_required")
	case storage.SignInAccountMissing: // the password was right and is so no more, or the account is gone
		return fail(InvalidGrant, msgAccountChanged).reason("account_changed")
	case storage.SignInIdentityBound:
		refusal := fail(AlreadyBound, msgIdentityBound).reason("identity_bound")
		refusal.Detail = "identity_bound"
		return refusal
	case storage.SignInAccountBound:
		refusal := fail(AlreadyBound, msgAccountBound).reason("account_bound")
		refusal.Detail = "account_bound"
		return refusal
	case storage.SignInPhoneTaken:
		return fail(AccountExists, msgPhoneTaken).reason("phone_taken")
	}
	return fmt.Errorf("sign-in verdict %d", verdict)
}

// logSignIn reports what a sign-in did beyond signing in.
func (p *Provider) logSignIn(ctx context.Context, sess *session, result storage.SignInResult) {
	if result.Conflict {
		p.warn(ctx, sess.req, "identity.conflict", slog.String("sub", result.UserID),
			slog.String("other_sub", result.ConflictUserID), slog.String("client_id", sess.client.ID))
	}
	about := []slog.Attr{slog.String("sub", result.UserID), slog.String("client_id", sess.client.ID)}
	if sess.proof.subject.Bind != nil {
		p.info(ctx, sess.req, "identity.bound", about...)
	}
	if sess.proof.subject.Phone != nil {
		p.info(ctx, sess.req, "phone.verified", about...)
	}
}

// repeatSignIn answers a repetition with the first answer's refresh token. It
// grants what the first request was granted and the client may still have,
// whatever the client's defaults have become since.
func (p *Provider) repeatSignIn(ctx context.Context, sess *session, family storage.Family) (*TokenResponse, error) {
	sess.scope = intersect(family.Scope, sess.client.Scopes)
	sess.audience = intersect(family.Audience, sess.client.Audience)
	if len(sess.scope) == 0 || len(sess.audience) == 0 || !sess.client.serves(family) {
		return nil, fail(InvalidGrant, msgIdempotencyMoved).reason("idempotency_withdrawn")
	}
	out, err := p.mint(ctx, sess, family, true)
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

		DPoPThumbprint: sess.jkt,
	}
	idle, absolute := sess.familyLifetimes()
	request := storage.SignIn{
		AppID:        subject.Identity.AppID,
		WeChatOpenID: subject.Identity.WeChatOpenID,
		UnionID:      subject.Identity.UnionID,
		OpenPlatform: subject.Identity.OpenPlatform,
		NewProfile:   subject.NewProfile,
		Family:       family,
		Idle:         idle,
		Absolute:     absolute,
		RequireKnown: subject.RequireKnown,
		Bind:         subject.Bind,
		Phone:        subject.Phone,
	}
	if !subject.SessionKey.IsZero() {
		request.SessionKey, request.SessionKeyLifetime = subject.SessionKey, accounts.SessionKeyLifetime
	}
	if repeat := sess.proof.repeat; repeat != nil {
		request.Idempotency = &storage.Idempotency{Key: repeat.key, Form: repeat.form, Lifetime: repeatLifetime}
	}
	return request
}

// mint makes the tokens of a family's live generation. Scope and audience are
// the session's, which a refresh may have narrowed; so is the key that the
// access token is bound to.
func (p *Provider) mint(ctx context.Context, sess *session, family storage.Family, withRefresh bool) (*TokenResponse, error) {
	now := time.Now()
	expires := now.Add(sess.accessTokenLifetime())
	for _, end := range []time.Time{family.ExpiresAt, family.IdleExpiresAt} {
		if end.Before(expires) {
			expires = end
		}
	}
	sid := family.ID.String()
	account, err := p.accountClaims(ctx, sess.snapshot, sess.scope, family.UserID)
	if err != nil {
		return nil, err
	}
	claims := accessClaims{
		subject: p.subject(sess.snapshot, sess.client, family.UserID), sid: sid, issued: now, expires: expires, authTime: family.AuthTime, account: account,
	}
	access, err := p.accessToken(sess, claims)
	if err != nil {
		return nil, err
	}
	out := &TokenResponse{
		AccessToken: access,
		ExpiresIn:   expires.Sub(now),
		Scope:       joinScope(sess.scope),
		Bound:       sess.jkt != "",
		Subject:     family.UserID,
		FamilyID:    sid,
	}
	if withRefresh && sess.client.may(GrantRefreshToken) {
		if out.RefreshToken, err = p.refreshToken(ctx, family); err != nil {
			return nil, err
		}
	}
	if slices.Contains(sess.scope, "openid") {
		if claims.account, err = p.addNamed(ctx, sess.snapshot, sess.client, account, idTokenNames(family.IDTokenClaims), &family, nil); err != nil {
			return nil, err
		}
		out.IDToken, err = p.idToken(sess, family, access, claims)
	}
	return out, err
}
