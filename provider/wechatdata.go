package provider

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat"
)

// Where backends use WeChat's session_key of a user, below the issuer.
const (
	PathWeChatDecrypt         = "/wechat/decrypt"
	PathWeChatVerifySignature = "/wechat/verify-signature"
	PathWeChatCheckSession    = "/wechat/check-session"
	PathWeChatResetSession    = "/wechat/reset-session"
)

// weChatUse is one way to use a session_key. Its answer is the response body,
// its result one word for the log.
type weChatUse struct {
	params []string // required, beside access_token
	do     func(p *Provider, ctx context.Context, holder accounts.Holder, form url.Values) (answer []byte, result string, err error)
}

var weChatUses = map[string]weChatUse{
	PathWeChatDecrypt:         {[]string{"encryptedData", "iv"}, (*Provider).decryptOpenData},
	PathWeChatVerifySignature: {[]string{"rawData", "signature"}, (*Provider).verifyRawData},
	PathWeChatCheckSession:    {nil, (*Provider).checkWeChatSession},
	PathWeChatResetSession:    {nil, (*Provider).resetWeChatSession},
}

// UseSessionKey answers a request to one of the paths above with the response
// body. Only confidential clients with the scope wechat.data may ask, for the
// user of an access token that is for their own audience.
func (p *Provider) UseSessionKey(ctx context.Context, req Request, path string) ([]byte, error) {
	client, err := p.weChatDataClient(ctx, req, path)
	if err != nil {
		return nil, err
	}
	use, form := weChatUses[path], req.HTTP.PostForm
	for _, name := range append([]string{"access_token"}, use.params...) {
		if form.Get(name) == "" {
			return nil, fail(InvalidRequest, msgParamMissing.with(name)).reason("missing_" + name)
		}
	}
	token, holder, err := p.weChatUser(ctx, req, client, form.Get("access_token"))
	if err != nil {
		return nil, err
	}
	var answer []byte
	var result string
	if ok, wait := p.weChatData.Allow(token.user()); ok {
		answer, result, err = use.do(p, ctx, holder, form)
	} else {
		err = Limited("wechat_data", wait)
	}
	if err != nil {
		refusal := fromCustody(err)
		result, err = refusal.LogReason, refusal
	}
	p.info(ctx, req, "wechat_data.used", slog.String("client_id", client.ID), slog.String("sub", token.user()),
		slog.String("operation", path[len("/wechat/"):]), slog.String("result", result))
	return answer, err
}

// weChatDataClient authenticates the client and looks whether it may ask.
func (p *Provider) weChatDataClient(ctx context.Context, req Request, path string) (*Client, error) {
	client, err := p.authenticateRequest(ctx, req, path)
	if err != nil {
		refusal := AsError(err)
		if refusal.Code == InvalidClient {
			p.warn(ctx, req, "wechat_data.denied", slog.String("reason", refusal.LogReason))
		}
		return nil, refusal
	}
	switch {
	case client.Public:
		p.warn(ctx, req, "wechat_data.denied", slog.String("client_id", client.ID), slog.String("reason", "public_client"))
		return nil, challenged(req.HTTP, fail(InvalidClient, msgClientAuth).reason("public_client"))
	case !slices.Contains(client.Scopes, ScopeWeChatData):
		p.warn(ctx, req, "wechat_data.denied", slog.String("client_id", client.ID), slog.String("reason", "no_right"))
		refusal := fail(AccessDenied, msgWeChatDataForbidden).reason("wechat_data_not_allowed")
		refusal.Status = http.StatusForbidden
		return nil, refusal
	}
	return client, nil
}

// weChatUser finds whose session_key to use. All tokens that will not do,
// those for others among them, have one answer. A token that is bound to a key
// comes here from a resource server, which has checked the proof and proven
// itself who it is.
func (p *Provider) weChatUser(ctx context.Context, req Request, client *Client, presented string) (activeToken, accounts.Holder, error) {
	// Not 401: the client has proven who it is.
	refusal := fail(InvalidToken, msgUserTokenInvalid).reason("token_refused")
	refusal.Status = http.StatusBadRequest
	token, err := p.activeAccessToken(ctx, presented)
	if errors.Is(err, errTokenRefused) {
		return activeToken{}, accounts.Holder{}, refusal
	}
	if err != nil {
		return activeToken{}, accounts.Holder{}, err
	}
	if !overlaps(client.Audience, token.Audience) {
		p.warn(ctx, req, "wechat_data.audience_mismatch", slog.String("client_id", client.ID), slog.String("sid", token.SID))
		return activeToken{}, accounts.Holder{}, refusal
	}
	if token.family == nil {
		return activeToken{}, accounts.Holder{}, refusal
	}
	identity, err := p.store.Identity(ctx, token.family.Identity)
	if errors.Is(err, storage.ErrNotFound) {
		return activeToken{}, accounts.Holder{}, refusal // unlinked since
	}
	if err != nil {
		return activeToken{}, accounts.Holder{}, err
	}
	if identity.UserID != token.user() || identity.AppID != token.client.WeChatAppID {
		return activeToken{}, accounts.Holder{}, refusal
	}
	return token, accounts.Holder{Identity: token.family.Identity, AppID: identity.AppID, WeChatOpenID: identity.WeChatOpenID}, nil
}

func (p *Provider) decryptOpenData(ctx context.Context, holder accounts.Holder, form url.Values) ([]byte, string, error) {
	object, err := p.custody.Decrypt(ctx, holder, form.Get("encryptedData"), form.Get("iv"))
	if err != nil {
		return nil, "", err
	}
	answer := make([]byte, 0, len(object)+16)
	answer = append(answer, `{"data":`...)
	answer = append(answer, object...)
	return append(answer, "}\n"...), "ok", nil
}

func (p *Provider) verifyRawData(ctx context.Context, holder accounts.Holder, form url.Values) ([]byte, string, error) {
	valid, err := p.custody.VerifyRawData(ctx, holder, form.Get("rawData"), form.Get("signature"))
	return validity(valid, err)
}

func (p *Provider) checkWeChatSession(ctx context.Context, holder accounts.Holder, _ url.Values) ([]byte, string, error) {
	valid, err := p.custody.Check(ctx, holder)
	return validity(valid, err)
}

func validity(valid bool, err error) ([]byte, string, error) {
	switch {
	case err != nil:
		return nil, "", err
	case valid:
		return []byte(`{"valid":true}` + "\n"), "valid", nil
	}
	return []byte(`{"valid":false}` + "\n"), "invalid", nil
}

func (p *Provider) resetWeChatSession(ctx context.Context, holder accounts.Holder, _ url.Values) ([]byte, string, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := p.custody.Reset(ctx, holder); err != nil {
		return nil, "", err
	}
	return []byte(`{"reset":true}` + "\n"), "ok", nil
}

// fromCustody says what a backend can do about a failed use.
func fromCustody(err error) *Error {
	switch {
	case errors.Is(err, accounts.ErrOpenData):
		return fail(InvalidRequest, msgOpenData).reason("open_data")
	case errors.Is(err, accounts.ErrSessionKeyExpired):
		return fail(SessionKeyExpired, msgSessionKeyExpired).reason("session_key_expired")
	case errors.Is(err, accounts.ErrNoSessionKey):
		return fail(SessionKeyExpired, msgSessionKeyExpired).reason("no_session_key")
	}
	out := AsError(err)
	if out.Code == TemporarilyUnavailable && out.Status == http.StatusServiceUnavailable {
		if _, ok := errors.AsType[*wechat.Error](err); ok {
			out.Message = msgWeChatDataDown
		}
	}
	return out
}
