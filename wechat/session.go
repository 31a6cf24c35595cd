package wechat

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/url"

	"github.com/wxidp/wxidp/internal/ascii"
	"github.com/wxidp/wxidp/internal/secret"
)

// CheckSession reports whether sessionKey is still the user's session_key in
// the app. It says nothing about who the user is. Every error is an [*Error].
func (c *Client) CheckSession(ctx context.Context, appid, weChatOpenID string, sessionKey secret.String) (valid bool, err error) {
	a, err := c.sessionApp(apiCheckSession, appid, weChatOpenID, sessionKey)
	if err != nil {
		return false, err
	}
	e := c.authorized(ctx, a, authorizedCall{
		api: apiCheckSession, breaker: a.checks, path: "/wxa/checksession",
		query: sessionQuery(weChatOpenID, sessionKey), parse: parseDone,
	})
	switch {
	case e == nil:
		return true, nil
	case e.Kind == SessionExpired:
		return false, nil
	}
	return false, e
}

// ResetSession has WeChat replace the user's session_key, and returns the new
// one, which ends when the old one would have. A session_key that WeChat no
// longer takes is SessionExpired. Where the Error is Sent, the key may have
// been replaced all the same: then only a new wx.login gives the present one.
// Every error is an [*Error].
func (c *Client) ResetSession(ctx context.Context, appid, weChatOpenID string, sessionKey secret.String) (newKey secret.String, err error) {
	a, err := c.sessionApp(apiResetSession, appid, weChatOpenID, sessionKey)
	if err != nil {
		return secret.String{}, err
	}
	if e := c.authorized(ctx, a, authorizedCall{
		api: apiResetSession, breaker: a.resets, path: "/wxa/resetusersessionkey",
		query: sessionQuery(weChatOpenID, sessionKey),
		parse: func(body []byte) *Error {
			var e *Error
			newKey, e = parseReset(body, weChatOpenID)
			return e
		},
	}); e != nil {
		return secret.String{}, e
	}
	return newKey, nil
}

// sessionApp makes the checks that go before a call about a session_key.
func (c *Client) sessionApp(api, appid, weChatOpenID string, sessionKey secret.String) (*app, error) {
	a, ok := (*c.apps.Load())[appid]
	switch {
	case !ok:
		return nil, c.refuse(api, appid, Misconfigured, reasonUnknownApp)
	case !ascii.Visible(weChatOpenID, maxID):
		return nil, c.refuse(api, appid, Misconfigured, reasonOpenIDFormat)
	case !ascii.Visible(sessionKey.Reveal(), maxSessionKey):
		return nil, c.refuse(api, appid, Misconfigured, reasonKeyFormat)
	}
	return a, nil
}

func sessionQuery(weChatOpenID string, sessionKey secret.String) string {
	return "&openid=" + url.QueryEscape(weChatOpenID) + "&signature=" + sign(sessionKey, nil) + "&sig_method=hmac_sha256"
}

// sign is WeChat's signature of a message by the user's session: its key is
// the base64 text of the session_key, not the bytes that text stands for.
func sign(sessionKey secret.String, message []byte) string {
	h := hmac.New(sha256.New, []byte(sessionKey.Reveal()))
	h.Write(message)
	return hex.EncodeToString(h.Sum(nil))
}
