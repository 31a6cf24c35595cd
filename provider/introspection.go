package provider

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
)

// inactive is the whole answer about any token that is not good, unknown to
// the caller, or none of the caller's business (RFC 7662 §2.2).
var inactive = []byte(`{"active":false}` + "\n")

// Introspect answers a token introspection request (RFC 7662) with the
// response body. Only confidential clients with the right may ask, and they
// learn only of access tokens for their own audience.
func (p *Provider) Introspect(ctx context.Context, req Request) ([]byte, error) {
	client, err := p.authenticateRequest(ctx, req, PathIntrospection)
	if err != nil {
		refusal := AsError(err)
		if refusal.Code == InvalidClient {
			p.warn(ctx, req, "introspect.denied", slog.String("reason", refusal.LogReason))
		}
		return nil, refusal
	}
	switch {
	case client.Public:
		p.warn(ctx, req, "introspect.denied", slog.String("client_id", client.ID), slog.String("reason", "public_client"))
		return nil, challenged(req.HTTP, fail(InvalidClient, msgClientAuth).reason("public_client"))
	case !client.Introspection:
		p.warn(ctx, req, "introspect.denied", slog.String("client_id", client.ID), slog.String("reason", "no_right"))
		refusal := fail(AccessDenied, msgIntrospectionForbidden).reason("introspection_not_allowed")
		refusal.Status = http.StatusForbidden
		return nil, refusal
	}
	presented := req.HTTP.PostForm.Get("token")
	if presented == "" {
		return nil, fail(InvalidRequest, msgTokenMissing).reason("missing_token")
	}
	token, err := p.activeAccessToken(ctx, presented)
	if errors.Is(err, errTokenRefused) {
		return p.miss(client)
	}
	if err != nil {
		return nil, err
	}
	if !overlaps(client.Audience, token.Audience) {
		p.warn(ctx, req, "introspect.audience_mismatch", slog.String("client_id", client.ID), slog.String("sid", token.SID))
		return p.miss(client)
	}
	return introspection(token), nil
}

// miss answers about a token that is no good. Only such answers are limited:
// whoever sends a resource server junk must not shut out its honest users.
func (p *Provider) miss(client *Client) ([]byte, error) {
	if ok, wait := p.misses.Allow(client.ID); !ok {
		return nil, Limited("introspection_misses", wait)
	}
	return inactive, nil
}

func introspection(t activeToken) []byte {
	b := make([]byte, 0, 512)
	b = append(b, `{"active":true,"token_type":"`...)
	if t.thumbprint() != "" {
		b = append(b, schemeDPoP...)
	} else {
		b = append(b, schemeBearer...)
	}
	b = append(b, `","iss":`...)
	b = appendString(b, t.Issuer)
	b = append(b, `,"sub":`...)
	b = appendString(b, t.Subject)
	b = append(b, `,"aud":`...)
	b = appendAudience(b, t.Audience)
	b = append(b, `,"client_id":`...)
	b = appendString(b, t.ClientID)
	b = append(b, `,"scope":`...)
	b = appendString(b, t.Scope)
	b = append(b, `,"iat":`...)
	b = strconv.AppendInt(b, t.IssuedAt, 10)
	b = append(b, `,"exp":`...)
	b = strconv.AppendInt(b, t.Expires, 10)
	b = append(b, `,"jti":`...)
	b = appendString(b, t.JTI)
	if t.SID != "" {
		b = append(b, `,"sid":`...)
		b = appendString(b, t.SID)
	}
	if t.AuthTime != 0 {
		b = append(b, `,"auth_time":`...)
		b = strconv.AppendInt(b, t.AuthTime, 10)
	}
	b = appendConfirmation(b, t.thumbprint())
	return append(appendClaims(b, t.account), "}\n"...)
}
