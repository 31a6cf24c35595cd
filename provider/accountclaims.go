package provider

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/wxidp/wxidp/storage"
)

// Scopes with a meaning of their own. Each scope of another name releases the
// claim of that name, where the product's own account system has said one of
// the user.
const (
	scopeOpenID     = "openid"
	scopeProfile    = "profile"
	scopePhone      = "phone"
	scopeWeChat     = "wechat"
	scopeRoles      = "roles"
	scopeExternalID = "external_id"
	// scopeOfflineAccess lets a sign-in outlive the browser's login session
	// (OIDC Core §11).
	scopeOfflineAccess = "offline_access"
	// ScopeWeChatData is for confidential clients: it lets them use WeChat's
	// session_key of a user whose access token is for them.
	ScopeWeChatData = "wechat.data"
	// ScopeDeviceApprove lets a mini-program approve sign-ins on other screens
	// in the user's name.
	ScopeDeviceApprove = "device.approve"
)

// accountClaims returns what the scopes release of the user's account beyond
// profile, phone and WeChat identity: roles, external_id, and the claims of
// the product's own account system, each by the scope of its name. It reads
// the store only where a scope may release something. The values are JSON.
func (p *Provider) accountClaims(ctx context.Context, snap *snapshot, scope []string, userID string) (map[string]json.RawMessage, error) {
	if !slices.ContainsFunc(scope, snap.mayRelease) {
		return nil, nil
	}
	user, err := p.store.User(ctx, userID)
	if errors.Is(err, storage.ErrNotFound) || err == nil && user.Retired {
		return nil, nil // ended this moment: the token will be inactive
	}
	if err != nil {
		return nil, err
	}
	claims := make(map[string]json.RawMessage)
	for _, name := range scope {
		switch {
		case !snap.mayRelease(name):
		case name == scopeRoles && len(user.Attributes.Roles) > 0:
			claims[name] = appendStrings(nil, user.Attributes.Roles)
		case name == scopeExternalID && user.ExternalID != "":
			claims[name] = appendString(nil, user.ExternalID)
		case user.Attributes.Claims[name] != "":
			claims[name] = json.RawMessage(user.Attributes.Claims[name])
		}
	}
	return claims, nil
}

// mayRelease reports whether a scope can release a claim of the account.
func (s *snapshot) mayRelease(scope string) bool {
	switch scope {
	case scopeOpenID, scopeProfile, scopePhone, scopeWeChat, scopeOfflineAccess, ScopeWeChatData, ScopeDeviceApprove:
		return false
	case scopeExternalID:
		return true
	}
	return s.ExternalAccounts // nobody else could renew roles or take them back
}

// appendClaims writes claims as further members of a JSON object.
func appendClaims(b []byte, claims map[string]json.RawMessage) []byte {
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		b = append(b, ',')
		b = appendString(b, name)
		b = append(b, ':')
		b = append(b, claims[name]...)
	}
	return b
}

// accessTokenClaims are the claims that every access token may have.
var accessTokenClaims = []string{"iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti", "sid", "auth_time", "cnf"}
