package provider

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/storage"
)

// accessTokenPayload are the claims of our own access tokens, as accessToken
// wrote them.
type accessTokenPayload struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience audience `json:"aud"`
	ClientID string   `json:"client_id"`
	Scope    string   `json:"scope"`
	IssuedAt int64    `json:"iat"`
	Expires  int64    `json:"exp"`
	JTI      string   `json:"jti"`
	SID      string   `json:"sid,omitempty"`
	AuthTime int64    `json:"auth_time,omitempty"`

	Confirmation *confirmation `json:"cnf,omitempty"`

	// account are the claims that scopes of their names have released.
	account map[string]json.RawMessage
}

// confirmation is the key that a token is bound to (RFC 9449 §6.1).
type confirmation struct {
	Thumbprint string `json:"jkt"`
}

// thumbprint is of the key that the token is bound to; "": a bearer token.
func (c *accessTokenPayload) thumbprint() string {
	if c.Confirmation == nil {
		return ""
	}
	return c.Confirmation.Thumbprint
}

// audience reads the aud claim, a string or a list of strings.
type audience []string

// UnmarshalJSON accepts both forms of RFC 7519 §4.1.3.
func (a *audience) UnmarshalJSON(raw []byte) error {
	var one string
	if err := json.Unmarshal(raw, &one); err == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(a))
}

// errTokenRefused says that a string is no access token of ours, for whatever
// reason.
var errTokenRefused = errors.New("not a valid access token")

// parseAccessToken verifies signature, type, issuer and lifetime of an access
// token. It does not know whether the token was revoked. An error that is not
// errTokenRefused says that it cannot tell.
func (p *Provider) parseAccessToken(ctx context.Context, token string, now time.Time) (accessTokenPayload, error) {
	var claims accessTokenPayload
	verified, err := p.keys.VerifyLatest(ctx, token, typAccessToken)
	if errors.Is(err, keys.ErrInvalidToken) {
		return claims, errTokenRefused
	}
	if err != nil {
		return claims, err
	}
	if claims, err = decodeAccessToken(verified.Payload); err != nil {
		return claims, errTokenRefused
	}
	if claims.Issuer != p.issuer || claims.Subject == "" || claims.ClientID == "" || claims.JTI == "" ||
		len(claims.Audience) == 0 || slices.Contains(claims.Audience, "") || claims.IssuedAt <= 0 || claims.Expires <= now.Unix() ||
		claims.Confirmation != nil && claims.Confirmation.Thumbprint == "" {
		return claims, errTokenRefused
	}
	return claims, nil
}

// decodeAccessToken refuses what accessToken would not have written: a claim
// that is neither its own nor named like one of the token's scopes.
func decodeAccessToken(payload []byte) (accessTokenPayload, error) {
	claims, err := decodeStrictly(payload)
	if err == nil {
		return claims, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(payload, &all); err != nil {
		return claims, err
	}
	var scope string
	if err := json.Unmarshal(all["scope"], &scope); err != nil {
		return claims, err
	}
	account := make(map[string]json.RawMessage)
	for _, name := range strings.Fields(scope) {
		if value, ok := all[name]; ok && !slices.Contains(accessTokenClaims, name) {
			account[name] = value
			delete(all, name)
		}
	}
	if payload, err = json.Marshal(all); err != nil {
		return claims, err
	}
	claims, err = decodeStrictly(payload)
	claims.account = account
	return claims, err
}

func decodeStrictly(payload []byte) (claims accessTokenPayload, err error) {
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&claims); err != nil {
		return claims, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return claims, errTokenRefused
	}
	return claims, nil
}

// activeToken is an access token that is good at this moment.
type activeToken struct {
	accessTokenPayload
	client *Client         // the one it was issued to
	family *storage.Family // nil for a client's own token
}

// user is the id of the token's user, which the sub claim need not be; "" for a
// client's own token.
func (t activeToken) user() string {
	if t.family == nil {
		return ""
	}
	return t.family.UserID
}

func (t activeToken) scopes() []string { return strings.Fields(t.Scope) }

func (t activeToken) has(scope string) bool { return slices.Contains(t.scopes(), scope) }

// activeAccessToken verifies an access token and asks the store whether it and
// its family are still good, and the configuration whether its client is.
func (p *Provider) activeAccessToken(ctx context.Context, token string) (activeToken, error) {
	claims, err := p.parseAccessToken(ctx, token, time.Now())
	if err != nil {
		return activeToken{}, err
	}
	snap := p.settings()
	active := activeToken{accessTokenPayload: claims, client: snap.client(claims.ClientID)}
	if active.client == nil {
		return activeToken{}, errTokenRefused
	}
	check := storage.AccessCheck{JTI: claims.JTI}
	if claims.SID != "" {
		var ok bool
		if check.FamilyID, ok = storage.ParseFamilyID(claims.SID); !ok {
			return activeToken{}, errTokenRefused
		}
	}
	result, err := p.store.CheckAccess(ctx, check)
	if err != nil {
		return activeToken{}, err
	}
	if result.Verdict != storage.AccessActive {
		return activeToken{}, errTokenRefused
	}
	if claims.SID != "" {
		family := result.Family
		if p.subject(snap, active.client, family.UserID) != claims.Subject || family.ClientID != claims.ClientID ||
			!active.client.serves(family) {
			return activeToken{}, errTokenRefused
		}
		if lives, err := p.macKeyLives(ctx, family); err != nil || !lives {
			return activeToken{}, cmp.Or(err, errTokenRefused)
		}
		active.family = &family
	}
	return active, nil
}
