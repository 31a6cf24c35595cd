package grants

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/wxidp/wxidp/internal/ascii"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat"
)

// codeMemory is how long a js_code or phone code is remembered. WeChat lets a
// code live for five minutes; twice that leaves room for clocks and queues.
const codeMemory = 10 * time.Minute

// mockCode is what wx.login yields in the developer tool without a real appid.
const mockCode = "the code is a mock one"

// Claims remembers which codes were presented.
type Claims interface {
	Claim(ctx context.Context, key storage.Digest, lifetime time.Duration) (taken bool, err error)
	Release(ctx context.Context, key storage.Digest) error
}

// CodeExchanger trades a js_code at WeChat; *wechat.Client does.
type CodeExchanger interface {
	App(appid string) (wechat.App, bool)
	Code2Session(ctx context.Context, appid, jsCode string) (wechat.CodeResult, error)
}

// JSCodes finds out by the js_code of wx.login who the End-User is at WeChat.
// One code reaches WeChat at most once, whatever happens; only where WeChat
// answers that it was busy (errcode -1) is it sent once more.
type JSCodes struct {
	WeChat CodeExchanger
	Claims Claims
	Limits *SignInLimits
}

// WeChatUser is whom a js_code was given to.
type WeChatUser struct {
	Identity   storage.Identity // AppID, WeChatOpenID, UnionID, OpenPlatform
	SessionKey secret.String
}

// Exchange trades the form parameter js_code for the user's identity in the
// client's app. The claim on a code is taken before the code is sent and given
// back only where no byte of it was.
func (x *JSCodes) Exchange(ctx context.Context, req Request) (WeChatUser, error) {
	code := req.Param("js_code")
	if err := checkJSCode(code); err != nil {
		return WeChatUser{}, err
	}
	app, ok := x.WeChat.App(req.WeChatAppID)
	if !ok {
		return WeChatUser{}, fmt.Errorf("client %q: its wechat_appid is not configured", req.ClientID)
	}
	if err := x.Limits.caller(req.RemoteIP, req.ClientID); err != nil {
		return WeChatUser{}, err
	}
	var result wechat.CodeResult
	err := once(ctx, x.Claims, "js_code", app.AppID, code, func() (err error) {
		if err = x.Limits.upstream(req.RemoteIP, app.AppID); err == nil {
			result, err = x.WeChat.Code2Session(ctx, app.AppID, code)
		}
		return err
	})
	if err != nil {
		return WeChatUser{}, err
	}
	x.Limits.succeeded(req.RemoteIP)
	if err := x.Limits.user(app.AppID, result.WeChatOpenID); err != nil {
		return WeChatUser{}, err
	}
	return WeChatUser{
		Identity: storage.Identity{
			AppID:        app.AppID,
			WeChatOpenID: result.WeChatOpenID,
			UnionID:      result.UnionID,
			OpenPlatform: app.OpenPlatform,
		},
		SessionKey: result.SessionKey,
	}, nil
}

// once runs send unless the code, which came in the form parameter param, was
// presented before. The code is free again only where err leaves it unspent.
func once(ctx context.Context, claims Claims, param, appid, code string, send func() error) error {
	claim := claimKey(param, appid, code)
	taken, err := claims.Claim(ctx, claim, codeMemory)
	if err != nil {
		return fmt.Errorf("claim %s: %w", param, err)
	}
	if !taken {
		return &Refusal{Kind: Replayed, Param: param}
	}
	if err := send(); err != nil {
		if nothingSent(err) {
			if releaseErr := claims.Release(ctx, claim); releaseErr != nil {
				return errors.Join(err, fmt.Errorf("release %s: %w", param, releaseErr))
			}
		}
		return err
	}
	return nil
}

// nothingSent reports whether err leaves the code unspent for certain.
func nothingSent(err error) bool {
	if weChatErr, ok := errors.AsType[*wechat.Error](err); ok {
		return !weChatErr.Sent
	}
	_, refused := errors.AsType[*Refusal](err)
	return refused
}

func checkJSCode(code string) error {
	if code == mockCode {
		return &Refusal{Kind: MockCode, Param: "js_code"}
	}
	return checkCode("js_code", code)
}

// checkCode accepts 1 to 256 visible ASCII characters.
func checkCode(param, code string) error {
	switch {
	case code == "":
		return &Refusal{Kind: MissingParameter, Param: param}
	case !ascii.Visible(code, 256):
		return &Refusal{Kind: MalformedParameter, Param: param}
	}
	return nil
}

func claimKey(param, appid, code string) storage.Digest {
	return sha256.Sum256([]byte(param + "\x00" + appid + "\x00" + code))
}
