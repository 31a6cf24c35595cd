package provider

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/wxidp/wxidp/storage"
)

// userInfo are the claims of the UserInfo endpoint (OIDC Core §5.3). What is
// not known is left out.
type userInfo struct {
	Subject     string `json:"sub"`
	Name        string `json:"name,omitempty"`
	Nickname    string `json:"nickname,omitempty"`
	Picture     string `json:"picture,omitempty"`
	UpdatedAt   int64  `json:"updated_at,omitempty"`
	PhoneNumber string `json:"phone_number,omitempty"`
	// PhoneVerified is there only with PhoneNumber.
	PhoneVerified bool   `json:"phone_number_verified,omitempty"`
	WeChatOpenID  string `json:"wechat_openid,omitempty"`
	UnionID       string `json:"wechat_unionid,omitempty"`
	WeChatAppID   string `json:"wechat_appid,omitempty"`
}

// profile fills in the claims of the scope profile (OIDC Core §5.4).
func (i *userInfo) profile(user storage.User) {
	i.Name, i.Nickname, i.Picture = user.Profile.Nickname, user.Profile.Nickname, user.Profile.Picture
	i.UpdatedAt = user.UpdatedAt.Unix()
}

// UserInfo answers a UserInfo request with the response body. The access token
// comes in the Authorization header or, by POST, in the body (RFC 6750 §2.1,
// §2.2), and never in the URL.
func (p *Provider) UserInfo(ctx context.Context, req Request) ([]byte, error) {
	token, err := p.userToken(ctx, req, "openid")
	if err != nil {
		return nil, err
	}
	info := userInfo{Subject: token.Subject}
	var known *storage.User
	if token.has(scopeProfile) || token.has(scopePhone) {
		user, err := p.store.User(ctx, token.user())
		if errors.Is(err, storage.ErrNotFound) {
			return nil, bearer(fail(InvalidToken, msgBearerInvalid).reason("user_missing"))
		}
		if err != nil {
			return nil, err
		}
		known = &user
		if token.has(scopeProfile) {
			info.profile(user)
		}
		if token.has(scopePhone) {
			info.PhoneNumber, info.PhoneVerified = user.Phone, user.Phone != ""
		}
	}
	if token.has(scopeWeChat) && !token.family.Identity.IsZero() {
		if err := p.weChatClaims(ctx, token, &info); err != nil {
			return nil, err
		}
	}
	snap := p.settings()
	account, err := p.accountClaims(ctx, snap, token.scopes(), token.user())
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(slices.Clone(token.family.UserInfoClaims), func(name string) bool {
		scope := namedClaims[name].scope // what profile and phone release is in info
		return (scope == scopeProfile || scope == scopePhone) && token.has(scope)
	})
	if token.has(scopeProfile) {
		names = append(names, profileNames...)
	}
	if account, err = p.addNamed(ctx, snap, token.client, account, names, token.family, known); err != nil {
		return nil, err
	}
	body, err := json.Marshal(info)
	if err != nil {
		return nil, err
	}
	return append(appendClaims(body[:len(body)-1], account), "}\n"...), nil
}

// weChatClaims releases the WeChat identity of the client's own app only.
func (p *Provider) weChatClaims(ctx context.Context, token activeToken, info *userInfo) error {
	identity, err := p.store.Identity(ctx, token.family.Identity)
	if errors.Is(err, storage.ErrNotFound) {
		return nil // unlinked since: the token may still speak for the user
	}
	if err != nil {
		return err
	}
	if identity.AppID == token.client.WeChatAppID && identity.UserID == token.user() {
		info.WeChatOpenID, info.UnionID, info.WeChatAppID = identity.WeChatOpenID, identity.UnionID, identity.AppID
	}
	return nil
}

// The schemes by which access tokens are presented, which are token types, too.
const (
	schemeBearer = "Bearer" // RFC 6750
	schemeDPoP   = "DPoP"   // RFC 9449 §7.1
)

// presentedToken is the access token of a request to a protected resource, and
// the scheme by which it comes.
func presentedToken(r *http.Request) (token, scheme string, err error) {
	if err := checkForm(r); err != nil {
		return "", "", bearer(AsError(err))
	}
	header := r.Header.Values("Authorization")
	body := ""
	if r.Method == http.MethodPost {
		body = r.PostForm.Get("access_token")
	}
	switch {
	case len(header) > 1 || len(header) == 1 && body != "":
		return "", "", bearer(fail(InvalidRequest, msgBearerMissing).reason("two_tokens"))
	case len(header) == 0 && body == "":
		// RFC 6750 §3.1: a request without any credentials gets no error code.
		return "", "", bearer(fail(InvalidToken, msgBearerMissing).reason("no_token"))
	case body != "":
		return body, schemeBearer, nil
	}
	scheme, token, _ = strings.Cut(header[0], " ")
	for _, known := range []string{schemeBearer, schemeDPoP} {
		if strings.EqualFold(scheme, known) && token != "" {
			return token, known, nil
		}
	}
	return "", "", bearer(fail(InvalidToken, msgBearerMissing).reason("authorization_scheme"))
}

func bearer(e *Error) *Error { e.Scheme = schemeBearer; return e }
