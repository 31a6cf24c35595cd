package main

import (
	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/grants"
	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/storage"
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
		TokenLifetime:   max(c.Tokens.AccessTokenLifetime, c.Tokens.IDTokenLifetime),
		RefreshLifetime: c.Tokens.RefreshTokenAbsoluteLifetime,
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
		ExternalAccounts:             c.Accounts.Verifier.Enabled(),
		FailedClientAuthPerMinute:    unlessDisabled(c, c.RateLimits.FailedClientAuthPerMinute),
		IntrospectionMissesPerMinute: unlessDisabled(c, c.RateLimits.IntrospectionMissesPerMinute),
		WeChatDataPerUserPerMinute:   unlessDisabled(c, c.RateLimits.WeChatDataPerUserPerMinute),
	}
	for _, client := range c.Clients {
		settings.Clients = append(settings.Clients, provider.Client{
			ID:            client.ClientID,
			Name:          client.Name,
			Public:        client.Type == config.ClientPublic,
			SecretHashes:  client.SecretHashes,
			AuthMethod:    client.TokenEndpointAuthMethod,
			AuthAlg:       client.TokenEndpointAuthSigningAlg,
			JWKS:          client.JWKS,
			GrantTypes:    client.GrantTypes,
			Scopes:        client.Scopes,
			DefaultScopes: client.DefaultScopes,
			Audience:      client.Audience,
			WeChatAppID:   client.WeChatAppID,
			IDTokenAlg:    client.IDTokenSignedResponseAlg,
			Introspection: client.Introspection,
			RequireKnown:  !client.AutoCreate,
		})
	}
	return settings
}
