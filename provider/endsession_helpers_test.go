package provider

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"time"

	"github.com/wxidp/wxidp/storage"
)

const (
	webClient   = "shop-web"
	otherClient = "news-web"
	webReturn   = "https://shop.example/"
	webLogout   = "https://shop.example/backchannel"
)

// logoutClientsOf adds two clients with browsers to a bench.
func logoutClientsOf(settings *Settings) {
	settings.LoginIdleLifetime, settings.LoginAbsoluteLifetime = 7*24*time.Hour, 14*24*time.Hour
	settings.Clients = append(settings.Clients,
		Client{ID: webClient, Name: "Shop", Public: true, AuthMethod: AuthNone, GrantTypes: []string{GrantAuthorizationCode, GrantRefreshToken},
			Scopes: []string{"openid"}, RedirectURIs: []string{"https://shop.example/cb"}, IDTokenAlg: "ES256",
			PostLogoutRedirectURIs: []string{webReturn, "https://shop.example/bye?from=idp", "https://shop.example/q?"}, BackchannelLogoutURI: webLogout},
		Client{ID: otherClient, Public: true, AuthMethod: AuthNone, GrantTypes: []string{GrantAuthorizationCode}, Scopes: []string{"openid"},
			RedirectURIs: []string{"https://news.example/cb"}, PostLogoutRedirectURIs: []string{"https://news.example/"}})
}

// browser is a browser in which a user has signed in.
type browser struct {
	*bench
	cookie string
	login  storage.LoginSession
}

// browser signs a user in with a new browser.
func (b *bench) browser(user string) *browser {
	b.t.Helper()
	userID := b.signIn(user + ":" + storage.NewToken()).Subject
	out := &browser{bench: b, cookie: storage.NewToken()}
	result, err := b.store.StartLogin(b.t.Context(), storage.LoginStart{
		Account:  storage.Binding{UserID: userID},
		Session:  storage.LoginSession{Token: tokenDigest(out.cookie), AMR: []string{"pwd"}},
		Idle:     7 * 24 * time.Hour,
		Absolute: 14 * 24 * time.Hour,
	})
	if err != nil || result.Verdict != storage.LoginOK {
		b.t.Fatalf("verdict %d, error %v", result.Verdict, err)
	}
	out.login = result.Session
	return out
}

// join signs the browser's user in at a client.
func (b *browser) join(clientID string) storage.Family {
	b.t.Helper()
	ctx := b.t.Context()
	code := tokenDigest(storage.NewToken())
	verdict, err := b.store.IssueCode(ctx, storage.CodeIssue{
		Code: code, Lifetime: time.Minute,
		Grant: storage.Grant{UserID: b.login.UserID, UserEpoch: b.login.UserEpoch, ClientID: clientID, LoginID: b.login.ID, Scope: []string{"openid"}},
	})
	if err != nil || verdict != storage.CodeOK {
		b.t.Fatalf("verdict %d, error %v", verdict, err)
	}
	result, err := b.store.Redeem(ctx, storage.Redemption{
		Code: code, ClientID: clientID, Idle: time.Hour, Absolute: time.Hour, Remember: time.Hour, Family: storage.Family{MACKeyID: b.ring.MACKey().ID},
	})
	if err != nil || result.Verdict != storage.RedeemOK {
		b.t.Fatalf("verdict %d, error %v", result.Verdict, err)
	}
	return result.Family
}

// alive reports whether the cookie is good for anything.
func (b *browser) alive() bool {
	b.t.Helper()
	_, err := b.store.Login(b.t.Context(), tokenDigest(b.cookie))
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		b.t.Fatal(err)
	}
	return err == nil
}

func (b *browser) end(params url.Values) (EndSessionOutcome, error) {
	return b.EndSession(context.Background(), b.request(), params)
}

func (b *browser) request() Request {
	req := request(PathEndSession, nil)
	req.Login = b.cookie
	return req
}

// confirm presses the button of a page that asks.
func (b *browser) confirm(question *EndSessionQuestion) EndSessionOutcome {
	b.t.Helper()
	params := url.Values{}
	for _, field := range question.Fields {
		params.Add(field.Name, field.Value)
	}
	out, err := b.ConfirmEndSession(context.Background(), b.request(), params)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// hint signs an ID Token for a family, with claims changed or (nil) removed.
func (b *bench) hint(family storage.Family, edits map[string]any) string {
	b.t.Helper()
	claims := map[string]any{
		"iss": testIssuer, "sub": family.UserID, "aud": family.ClientID, "sid": family.ID.String(),
		"iat": time.Now().Add(-2 * time.Hour).Unix(), "exp": time.Now().Add(-time.Hour).Unix(),
	}
	maps.Copy(claims, edits)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	raw, err := json.Marshal(claims)
	if err != nil {
		b.t.Fatal(err)
	}
	token, err := b.ring.Sign("ES256", typIDToken, raw)
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}
