package provider

import (
	"context"
	"errors"
	"log/slog"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/grants"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// PathUnbind is where users remove a WeChat identity from their account, below
// the issuer.
const PathUnbind = "/account/unbind"

// CodeProver finds out who a js_code was given to; *grants.JSCodes does.
type CodeProver interface {
	Exchange(ctx context.Context, req grants.Request) (grants.WeChatUser, error)
}

// PasswordChecker names the account that a username and password open;
// *accounts.Authenticator does.
type PasswordChecker interface {
	Authenticate(ctx context.Context, c accounts.Credentials) (accounts.Result, error)
}

// Unbind removes a WeChat identity from the account of the user whose access
// token comes with the request, and ends all that the user is signed in to. A
// token may be stolen, so the request also proves afresh who sends it: by a js_code of the client's
// app, or by username and password. wechat_appid names the app whose identity
// is to go; without it, the client's own. everywhere=true removes those of all
// apps: while one of another app bears the same unionid, a sign-in of the
// removed one leads back to the account.
func (p *Provider) Unbind(ctx context.Context, req Request) ([]byte, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	token, err := p.userToken(ctx, req, scopeProfile)
	if err != nil {
		return nil, err
	}
	form := req.HTTP.PostForm
	everywhere := form.Get("everywhere") == "true"
	appID := form.Get("wechat_appid")
	switch {
	case everywhere && appID != "", !everywhere && form.Get("everywhere") != "" && form.Get("everywhere") != "false":
		return nil, fail(InvalidRequest, msgParamMalformed.with("everywhere")).reason("malformed_everywhere")
	case appID == "":
		appID = token.client.WeChatAppID
	}
	if err := p.proveAgain(ctx, req, token); err != nil {
		return nil, err
	}
	removed, appIDs, err := p.identitiesIn(ctx, token.user(), appID, everywhere)
	if err != nil {
		return nil, err
	}
	verdict, err := p.store.Unbind(ctx, storage.Unbinding{
		// All by the store's list: a sign-in may add one at this moment.
		UserID: token.user(), Identities: removed, All: everywhere,
		WaysIn: p.settings().waysIn(), Notify: p.settings().notified(),
	})
	switch {
	case err != nil:
		return nil, err
	case verdict == storage.UnbindLastWayIn:
		return nil, fail(LastWayIn, msgLastWayIn).reason("last_way_in")
	case verdict != storage.UnbindOK:
		return nil, fail(InvalidRequest, msgNotBound).reason("not_bound")
	}
	p.wakeLogouts()
	for _, appID := range appIDs {
		p.info(ctx, req, "identity.unbound", slog.String("sub", token.user()),
			slog.String("client_id", token.ClientID), slog.String("wechat_appid", appID))
	}
	out := appendStrings([]byte(`{"unbound":true,"wechat_appids":`), appIDs)
	return append(out, "}\n"...), nil
}

// proveAgain checks that the sender of the request is the token's user.
func (p *Provider) proveAgain(ctx context.Context, req Request, token activeToken) error {
	form := req.HTTP.PostForm
	password := form.Get("password")
	switch {
	case form.Get("js_code") != "" && password != "":
		return fail(InvalidRequest, msgUnbindProof).reason("two_proofs")
	case form.Get("js_code") != "":
		if token.client.WeChatAppID == "" {
			return fail(InvalidRequest, msgUnbindProof).reason("client_without_app")
		}
		user, err := p.codes.Exchange(ctx, grants.Request{
			Param: form.Get, ClientID: token.ClientID, WeChatAppID: token.client.WeChatAppID, RemoteIP: req.RemoteIP, ID: req.ID,
		})
		if err != nil {
			return err
		}
		found, _, err := p.store.IdentityUser(ctx, user.Identity.AppID, user.Identity.WeChatOpenID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && found.ID != token.user() {
			return fail(InvalidGrant, msgOtherUser).reason("proof_of_another_user")
		}
		return err
	case password != "":
		return p.proveByPassword(ctx, req, token)
	}
	return fail(InvalidRequest, msgUnbindProof).reason("no_proof")
}

// proveByPassword takes the password of the token's user and of nobody else: a
// token must not be a means to try the passwords of others.
func (p *Provider) proveByPassword(ctx context.Context, req Request, token activeToken) error {
	form := req.HTTP.PostForm
	if form.Get("username") == "" {
		return fail(InvalidRequest, msgParamMissing.with("username")).reason("missing_username")
	}
	user, err := p.store.User(ctx, token.user())
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	_, err = p.passwords.Authenticate(ctx, accounts.Credentials{
		Username: form.Get("username"), Password: secret.New(form.Get("password")),
		Account: &accounts.ExpectedAccount{UserID: token.user(), ExternalID: user.ExternalID},
		IP:      req.RemoteIP, ClientID: token.ClientID, RequestID: req.ID,
	})
	if wrong, ok := errors.AsType[*accounts.Error](err); ok && wrong.Kind == accounts.WrongCredentials {
		refusal := AsError(err)
		refusal.Message = msgWrongPassword
		return refusal
	}
	return err
}

// identitiesIn returns the user's identity in an app, or those of all apps.
func (p *Provider) identitiesIn(ctx context.Context, userID, appID string, everywhere bool) (indexes []storage.Digest, appIDs []string, err error) {
	identities, err := p.store.Identities(ctx, userID)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, nil, err
	}
	for _, identity := range identities {
		if !everywhere && identity.AppID != appID {
			continue
		}
		indexes, appIDs = append(indexes, identity.Index), append(appIDs, identity.AppID)
	}
	if len(indexes) == 0 {
		return nil, nil, fail(InvalidRequest, msgNotBound).reason("not_bound")
	}
	return indexes, appIDs, nil
}

// waysIn are the ways into an account without a WeChat identity as things are
// configured: a password that is checked here or by the product's account
// system, or a phone number that is the account's all.
func (s *snapshot) waysIn() storage.WaysIn {
	return storage.WaysIn{Password: !s.ExternalAccounts, ExternalID: s.ExternalAccounts, Phone: s.phoneSignIn}
}
