package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/storage"
)

// PathAccount is where users change what is theirs to change, below the
// issuer.
const PathAccount = "/account"

// accountChange is all that a user may change of their account. Null or absent
// leaves a value as it is, an empty picture removes it.
type accountChange struct {
	Nickname *string `json:"nickname"`
	Picture  *string `json:"picture"`
}

// UpdateAccount changes the profile of the user whose access token comes with
// the request, and answers the profile claims as UserInfo would. body is a JSON
// object; a member that is not the user's to change is an error and not
// ignored.
func (p *Provider) UpdateAccount(ctx context.Context, req Request, body []byte) ([]byte, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	token, err := p.userToken(ctx, req, "profile")
	if err != nil {
		return nil, err
	}
	change, err := parseAccountChange(body)
	if err != nil {
		return nil, err
	}
	user, err := p.store.UpdateProfile(ctx, token.user(), change)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, bearer(fail(InvalidToken, msgBearerInvalid).reason("user_missing"))
	}
	if err != nil {
		return nil, err
	}
	p.info(ctx, req, "account.changed", slog.String("client_id", token.ClientID), slog.String("sub", token.user()))
	info := userInfo{Subject: token.Subject}
	info.profile(user)
	out, err := json.Marshal(info)
	return append(out, '\n'), err
}

// userToken is the active access token of a user that comes in the
// Authorization header, from who holds the key if it is bound to one, and has
// the scope.
func (p *Provider) userToken(ctx context.Context, req Request, scope string) (activeToken, error) {
	presented, scheme, err := presentedToken(req.HTTP)
	if err != nil {
		return activeToken{}, err
	}
	token, err := p.activeAccessToken(ctx, presented)
	if errors.Is(err, errTokenRefused) {
		refusal := bearer(fail(InvalidToken, msgBearerInvalid).reason("token_refused"))
		refusal.Scheme = scheme
		return activeToken{}, refusal
	}
	if err != nil {
		return activeToken{}, err
	}
	if err := p.resourceProof(ctx, req, token, scheme, presented); err != nil {
		return activeToken{}, err
	}
	if token.family == nil || !token.has(scope) {
		refusal := bearer(fail(InsufficientScope, msgBearerScope.with(scope)).reason("scope_missing"))
		refusal.Scheme, refusal.Scope = scheme, scope
		return activeToken{}, refusal
	}
	return token, nil
}

func parseAccountChange(body []byte) (storage.ProfileChange, error) {
	var in accountChange
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		return storage.ProfileChange{}, fail(InvalidRequest, msgAccountBody).reason("account_body")
	}
	if _, err := decoder.Token(); err != io.EOF || in == (accountChange{}) {
		return storage.ProfileChange{}, fail(InvalidRequest, msgAccountBody).reason("account_body")
	}
	return accounts.ValidateProfile(storage.ProfileChange{Nickname: in.Nickname, Picture: in.Picture})
}
