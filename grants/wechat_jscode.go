package grants

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat"
)

// TypeWeChatJSCode is the grant_type of a WeChat mini-program sign-in.
const TypeWeChatJSCode = "wechat_jscode"

// replayMemory is how long a js_code is remembered. WeChat lets a code live
// for five minutes; twice that leaves room for clocks and queues.
const replayMemory = 10 * time.Minute

// mockCode is what wx.login yields in the developer tool without a real appid.
const mockCode = "the code is a mock one"

// Claims remembers which js_codes were presented.
type Claims interface {
	Claim(ctx context.Context, key storage.Digest, lifetime time.Duration) (taken bool, err error)
	Release(ctx context.Context, key storage.Digest) error
}

// CodeExchanger trades a js_code at WeChat; *wechat.Client does.
type CodeExchanger interface {
	App(appid string) (wechat.App, bool)
	Code2Session(ctx context.Context, appid, jsCode string) (wechat.CodeResult, error)
}

// WeChatJSCode proves a user by the js_code of wx.login. One code reaches
// WeChat at most once, whatever happens; only where WeChat answers that it was
// busy (errcode -1) is it sent once more.
type WeChatJSCode struct {
	WeChat   CodeExchanger
	Claims   Claims
	Limits   *SignInLimits
	Defaults *accounts.Defaults
}

var _ Grant = (*WeChatJSCode)(nil)

// Type returns "wechat_jscode".
func (g *WeChatJSCode) Type() string { return TypeWeChatJSCode }

// Prove trades the form parameter js_code for the user's identity. The claim
// on a code is taken before the code is sent and given back only where no byte
// of it was.
func (g *WeChatJSCode) Prove(ctx context.Context, req Request) (Subject, error) {
	code := req.Param("js_code")
	if err := checkJSCode(code); err != nil {
		return Subject{}, err
	}
	app, ok := g.WeChat.App(req.WeChatAppID)
	if !ok {
		return Subject{}, fmt.Errorf("client %q: its wechat_appid is not configured", req.ClientID)
	}
	if err := g.Limits.caller(req.RemoteIP, req.ClientID); err != nil {
		return Subject{}, err
	}
	claim := claimKey(app.AppID, code)
	taken, err := g.Claims.Claim(ctx, claim, replayMemory)
	if err != nil {
		return Subject{}, fmt.Errorf("claim js_code: %w", err)
	}
	if !taken {
		return Subject{}, &Refusal{Kind: Replayed, Param: "js_code"}
	}
	result, err := g.exchange(ctx, req, app.AppID, code)
	if err != nil {
		if nothingSent(err) {
			if releaseErr := g.Claims.Release(ctx, claim); releaseErr != nil {
				return Subject{}, errors.Join(err, fmt.Errorf("release js_code: %w", releaseErr))
			}
		}
		return Subject{}, err
	}
	g.Limits.succeeded(req.RemoteIP)
	if err := g.Limits.user(app.AppID, result.WeChatOpenID); err != nil {
		return Subject{}, err
	}
	return Subject{
		Identity: storage.Identity{
			AppID:        app.AppID,
			WeChatOpenID: result.WeChatOpenID,
			UnionID:      result.UnionID,
			OpenPlatform: app.OpenPlatform,
		},
		NewProfile: g.Defaults.NewProfile(),
		AuthTime:   time.Now(),
		AMR:        []string{"wechat"},
	}, nil
}

func (g *WeChatJSCode) exchange(ctx context.Context, req Request, appid, code string) (wechat.CodeResult, error) {
	if err := g.Limits.upstream(req.RemoteIP, appid); err != nil {
		return wechat.CodeResult{}, err
	}
	return g.WeChat.Code2Session(ctx, appid, code)
}

// nothingSent reports whether err leaves the code unspent for certain.
func nothingSent(err error) bool {
	if weChatErr, ok := errors.AsType[*wechat.Error](err); ok {
		return !weChatErr.Sent
	}
	_, refused := errors.AsType[*Refusal](err)
	return refused
}

// checkJSCode accepts 1 to 256 visible ASCII characters.
func checkJSCode(code string) error {
	switch {
	case code == "":
		return &Refusal{Kind: MissingParameter, Param: "js_code"}
	case code == mockCode:
		return &Refusal{Kind: MockCode, Param: "js_code"}
	case len(code) > 256:
		return &Refusal{Kind: MalformedParameter, Param: "js_code"}
	}
	for _, c := range []byte(code) {
		if c <= ' ' || c > '~' {
			return &Refusal{Kind: MalformedParameter, Param: "js_code"}
		}
	}
	return nil
}

func claimKey(appid, code string) storage.Digest {
	return sha256.Sum256([]byte("js_code\x00" + appid + "\x00" + code))
}
