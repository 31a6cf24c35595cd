package provider

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// clockLeeway is for how much longer than it lives an access token can be
// revoked, and a revocation is remembered: each node judges by its own clock
// whether one has expired, and the store, which forgets, by another.
const clockLeeway = 2 * time.Minute

// Revoke answers a token revocation request (RFC 7009). A refresh token ends
// its family with all its access tokens, an access token ends alone. Success
// is answered only after the revocation is durable; a token that is invalid or
// another client's is left as it is and answered with success (§2.2).
func (p *Provider) Revoke(ctx context.Context, req Request) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	client, err := p.authenticateRequest(ctx, req, PathRevocation)
	if err != nil {
		return err
	}
	presented := req.HTTP.PostForm.Get("token")
	if presented == "" {
		return fail(InvalidRequest, msgTokenMissing).reason("missing_token")
	}
	if strings.HasPrefix(presented, refreshTokenPrefix) {
		return p.revokeRefreshToken(ctx, req, client, presented)
	}
	return p.revokeAccessToken(ctx, req, client, presented)
}

func (p *Provider) revokeRefreshToken(ctx context.Context, req Request, client *Client, presented string) error {
	token, ok := parseRefreshToken(presented)
	if !ok {
		return nil
	}
	family, err := p.store.Family(ctx, token.familyID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if genuine, err := token.verify(ctx, p, family); err != nil || !genuine {
		return err
	}
	if family.ClientID != client.ID {
		p.revokeDenied(ctx, req, client, family.ClientID)
		return nil
	}
	if _, err := p.store.RevokeFamily(ctx, family.ID, "revoked by client"); err != nil {
		return err
	}
	p.log.LogAttrs(ctx, slog.LevelInfo, "token revoked", slog.String("event", "token.revoked"),
		slog.String("kind", "refresh_token"), slog.String("client_id", client.ID), slog.String("sub", family.UserID),
		slog.String("sid", family.ID.String()), slog.String("request_id", req.ID), slog.String("ip", req.RemoteIP.String()))
	return nil
}

func (p *Provider) revokeAccessToken(ctx context.Context, req Request, client *Client, presented string) error {
	claims, err := p.parseAccessToken(ctx, presented, time.Now().Add(-clockLeeway))
	if errors.Is(err, errTokenRefused) {
		return nil // nothing that could be used, so nothing to revoke
	}
	if err != nil {
		return err
	}
	if claims.ClientID != client.ID {
		p.revokeDenied(ctx, req, client, claims.ClientID)
		return nil
	}
	if err := p.store.DenyJTI(ctx, claims.JTI, time.Unix(claims.Expires, 0).Add(clockLeeway)); err != nil {
		return err
	}
	p.log.LogAttrs(ctx, slog.LevelInfo, "token revoked", slog.String("event", "token.revoked"),
		slog.String("kind", "access_token"), slog.String("client_id", client.ID), slog.String("sub", p.userOf(ctx, claims)),
		slog.String("sid", claims.SID), slog.String("request_id", req.ID), slog.String("ip", req.RemoteIP.String()))
	return nil
}

// userOf is whom the log names for an access token, whose sub may be a pairwise
// one: the user's id, "" where the sign-in is gone.
func (p *Provider) userOf(ctx context.Context, claims accessTokenPayload) string {
	if claims.SID == "" {
		return claims.Subject // the client itself
	}
	id, _ := storage.ParseFamilyID(claims.SID)
	family, err := p.store.Family(ctx, id)
	if err != nil {
		return ""
	}
	return family.UserID
}

func (p *Provider) revokeDenied(ctx context.Context, req Request, client *Client, owner string) {
	p.warn(ctx, req, "revoke.denied", slog.String("client_id", client.ID), slog.String("owner", owner))
}
