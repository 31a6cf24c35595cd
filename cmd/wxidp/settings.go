package main

import (
	"net/netip"
	"slices"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/grants"
	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/web"
	"github.com/wxidp/wxidp/web/pages"
	"github.com/wxidp/wxidp/wechat"
)

// The functions of this file say what a configuration means to each part.

func guardRates(c *config.Config) accounts.GuardRates {
	return accounts.GuardRates{
		PerAccountIP: unlessDisabled(c, c.RateLimits.WrongPasswordsPerAccountAndIP),
		PerAccount:   unlessDisabled(c, c.RateLimits.WrongPasswordsPerAccount),
		PerIP:        unlessDisabled(c, c.RateLimits.WrongPasswordsPerIP),
		Window:       accounts.DefaultGuardRates().Window,
	}
}

func keySettings(c *config.Config) keys.Settings {
	return keys.Settings{
		RotateEvery:     c.Keys.RotateEvery,
		PublishAhead:    c.Keys.PublishAhead,
		TokenLifetime:   c.LongestTokenLifetime(),
		RefreshLifetime: c.LongestRefreshLifetime(),
		EdDSA:           c.Keys.EdDSA,
	}
}

func weChatApps(c *config.Config) []wechat.App {
	apps := make([]wechat.App, len(c.WeChat.Apps))
	for i, app := range c.WeChat.Apps {
		apps[i] = wechat.App{AppID: app.AppID, Secret: app.Secret, OpenPlatform: app.OpenPlatform}
	}
	return apps
}

func messagePushes(c *config.Config) []accounts.MessagePush {
	var pushes []accounts.MessagePush
	for _, app := range c.WeChat.Apps {
		if m := app.MessagePush; m.Enabled() {
			pushes = append(pushes, accounts.MessagePush{AppID: app.AppID, Token: m.Token, EncodingAESKey: m.EncodingAESKey})
		}
	}
	return pushes
}

func signInRates(c *config.Config) grants.SignInRates {
	return grants.SignInRates{
		PerIP:          unlessDisabled(c, c.RateLimits.SignInsPerIPPerMinute),
		PerNetwork:     unlessDisabled(c, c.RateLimits.SignInsPerNetworkPerMinute),
		PerClient:      unlessDisabled(c, c.RateLimits.SignInsPerClientPerMinute),
		PerUser:        unlessDisabled(c, c.RateLimits.SignInsPerUserPerMinute),
		PerApp:         unlessDisabled(c, c.RateLimits.WeChatCallsPerAppPerMinute),
		ReservePercent: c.RateLimits.WeChatReservePercent,
	}
}

func unlessDisabled(c *config.Config, rate int) int {
	if c.RateLimits.Disabled {
		return 0
	}
	return rate
}

func defaultProfile(c *config.Config) storage.Profile {
	return storage.Profile{Nickname: c.Users.DefaultNickname, Picture: c.Users.DefaultPicture}
}

func providerSettings(c *config.Config) provider.Settings {
	settings := provider.Settings{
		AccessTokenLifetime:          c.Tokens.AccessTokenLifetime,
		IDTokenLifetime:              c.Tokens.IDTokenLifetime,
		RefreshTokenIdleLifetime:     c.Tokens.RefreshTokenIdleLifetime,
		RefreshTokenAbsoluteLifetime: c.Tokens.RefreshTokenAbsoluteLifetime,
		RefreshGrace:                 c.Tokens.RefreshGrace,
		AccessTokenSigningAlg:        c.Tokens.AccessTokenSigningAlg,
		DPoPNonce:                    c.Tokens.DPoPNonce,
		PairwiseSalt:                 c.Tokens.PairwiseSalt,
		ExternalAccounts:             c.Accounts.Verifier.Enabled(),
		LoginIdleLifetime:            c.LoginSessions.IdleLifetime,
		LoginAbsoluteLifetime:        c.LoginSessions.AbsoluteLifetime,
		LoginScannedLifetime:         c.LoginSessions.ScannedLifetime,
		Scan:                         scanSettings(c),
		Logout:                       logoutSettings(c),
		FailedClientAuthPerMinute:    unlessDisabled(c, c.RateLimits.FailedClientAuthPerMinute),
		IntrospectionMissesPerMinute: unlessDisabled(c, c.RateLimits.IntrospectionMissesPerMinute),
		WeChatDataPerUserPerMinute:   unlessDisabled(c, c.RateLimits.WeChatDataPerUserPerMinute),
		SignInsPerUserPerMinute:      unlessDisabled(c, c.RateLimits.SignInsPerUserPerMinute),
		AuthorizationsPerIPPerMinute: unlessDisabled(c, c.RateLimits.AuthorizationsPerIPPerMinute),
		ScanCodesPerIPPerMinute:      unlessDisabled(c, c.RateLimits.ScanCodesPerIPPerMinute),
		TicketMissesPerIPPerMinute:   unlessDisabled(c, c.RateLimits.TicketMissesPerIPPerMinute),
	}
	for i := range c.Clients {
		settings.Clients = append(settings.Clients, clientSettings(&c.Clients[i]))
	}
	return settings
}

func clientSettings(client *config.Client) provider.Client {
	return provider.Client{
		ID:                           client.ClientID,
		Name:                         client.Name,
		Public:                       client.Type == config.ClientPublic,
		SecretHashes:                 client.SecretHashes,
		AuthMethod:                   client.TokenEndpointAuthMethod,
		AuthAlg:                      client.TokenEndpointAuthSigningAlg,
		JWKS:                         client.JWKS,
		GrantTypes:                   client.GrantTypes,
		Scopes:                       client.Scopes,
		DefaultScopes:                client.DefaultScopes,
		Audience:                     client.Audience,
		WeChatAppID:                  client.WeChatAppID,
		IDTokenAlg:                   client.IDTokenSignedResponseAlg,
		Introspection:                client.Introspection,
		RequireKnown:                 !client.AutoCreate,
		RedirectURIs:                 client.RedirectURIs,
		PostLogoutRedirectURIs:       client.PostLogoutRedirectURIs,
		BackchannelLogoutURI:         client.BackchannelLogoutURI,
		RequirePKCE:                  client.RequirePKCE,
		RequirePushed:                client.RequirePushedAuthorizationRequests,
		SkipConsent:                  client.Consent == config.ConsentSkip,
		DefaultMaxAge:                client.DefaultMaxAge,
		DPoPBound:                    client.DPoPBoundAccessTokens,
		CORSOrigins:                  client.CORSOrigins,
		Sector:                       client.Sector(),
		AccessTokenLifetime:          client.AccessTokenLifetime,
		IDTokenLifetime:              client.IDTokenLifetime,
		RefreshTokenIdleLifetime:     client.RefreshTokenIdleLifetime,
		RefreshTokenAbsoluteLifetime: client.RefreshTokenAbsoluteLifetime,
	}
}

func scanSettings(c *config.Config) provider.Scan {
	return provider.Scan{
		AppID:      c.Scan.AppID,
		Link:       c.Scan.Link,
		WeChatCode: c.Scan.Code == config.ScanCodeWeChat,
		Page:       c.Scan.Page,
		EnvVersion: c.Scan.EnvVersion,
	}
}

// logoutSettings lets logout tokens go to this machine where the issuer is on
// it, too: that is development.
func logoutSettings(c *config.Config) provider.Logout {
	out := provider.Logout{AllowedNetworks: c.BackchannelLogout.AllowedNetworks, Timeout: c.BackchannelLogout.Timeout}
	if c.OnLoopback() {
		out.AllowedNetworks = append(slices.Clone(out.AllowedNetworks), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	}
	return out
}

func siteOf(c *config.Config) web.Site {
	return web.Site{
		Brand: pages.Brand{
			Name: c.Brand.Name, Color: c.Brand.Color, Logo: c.Brand.Logo, LogoType: c.Brand.LogoType,
			PrivacyURI: c.Brand.PrivacyURI, TermsURI: c.Brand.TermsURI,
		},
		PlaceHeader:      c.Scan.PlaceHeader,
		VerificationName: c.Scan.VerificationName,
		VerificationBody: c.Scan.VerificationBody,
	}
}
