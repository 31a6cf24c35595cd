package main

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/grants"
	"github.com/wxidp/wxidp/internal/limit"
	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/web"
	"github.com/wxidp/wxidp/wechat"
)

// parts is the whole server without its listeners. The functions below build
// it in the order in which one needs the other.
type parts struct {
	log       *slog.Logger
	metrics   *web.Metrics
	store     engine
	exchange  *limit.Exchange // nil where no other node can exist
	keys      *keys.Ring
	weChat    *wechat.Client
	limits    *grants.SignInLimits
	defaults  *accounts.Defaults
	passwords *accounts.Authenticator
	guard     *accounts.Guard
	verifier  config.Verifier // in force
	custody   *keyCustody
	provider  *provider.Provider
	events    *accounts.Events
	web       *web.Server
	config    atomic.Pointer[config.Config] // in force

	restoredAt time.Time // when data from a backup were last settled; zero: never
}

// build wires the server for a checked configuration.
func build(ctx context.Context, loaded *config.Loaded, logger *slog.Logger, afterRestore storage.RestoreChoice) (_ *parts, err error) {
	c := loaded.Config
	p := &parts{log: logger}
	p.config.Store(c)
	p.metrics = web.NewMetrics([]string{grants.TypeWeChatJSCode, grants.TypeWeChatPhone, provider.GrantRefreshToken,
		provider.GrantAuthorizationCode, provider.GrantDeviceCode, provider.GrantClientCredentials})
	if err := p.openData(ctx, loaded, afterRestore); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = p.store.Close() // the first error is the one to tell
		}
	}()
	for _, step := range []func(*config.Config) error{p.connectWeChat, p.gatherPeople, p.makeProvider, p.makeWeb} {
		if err := step(c); err != nil {
			return nil, err
		}
	}
	p.shareLimits()
	return p, nil
}

// openData opens the store and the signing keys in it. Restored data are
// settled before anything else looks at them.
func (p *parts) openData(ctx context.Context, loaded *config.Loaded, afterRestore storage.RestoreChoice) error {
	c := loaded.Config
	masterKeys, err := loaded.MasterKeys()
	if err != nil {
		return err
	}
	keyring, err := seal.ParseKeyring([]byte(masterKeys.Reveal()))
	if err != nil {
		return err
	}
	if p.store, err = openStore(ctx, c, keyring, p.metrics, p.log); err != nil {
		return err
	}
	if p.restoredAt, err = settleRestored(ctx, p.store, afterRestore, c, p.log); err != nil {
		_ = p.store.Close() // the first error is the one to tell
		return err
	}
	p.keys, err = keys.Open(ctx, keys.Options{
		Store: p.store, Keyring: keyring, Settings: keySettings(c), Logger: p.log, PollEvery: pollKeysEvery(c),
	})
	if err != nil {
		_ = p.store.Close() // the first error is the one to tell
		return err
	}
	p.metrics.Watch(p.keys, p.store)
	if board, ok := p.store.(limit.Board); ok {
		p.exchange = limit.NewExchange(board, keyring, p.log)
	}
	return nil
}

// shareLimits makes the limits hold for all nodes together, where there can be
// others.
func (p *parts) shareLimits() {
	if p.exchange == nil {
		return
	}
	p.exchange.Register("passwords", p.guard)
	p.limits.Share(p.exchange)
	p.provider.ShareLimits(p.exchange)
	p.web.ShareLimits(p.exchange)
	p.events.Share(p.exchange)
}

func (p *parts) connectWeChat(c *config.Config) (err error) {
	p.weChat, err = wechat.New(wechat.Options{
		BaseURL: c.WeChat.BaseURL,
		Timeout: c.WeChat.Timeout,
		Apps:    weChatApps(c),
		Observe: p.metrics.WeChatCall,
		Logger:  p.log,
	})
	return err
}

// gatherPeople makes what knows people: their passwords, WeChat's session_keys
// and WeChat's events about them.
func (p *parts) gatherPeople(c *config.Config) error {
	p.defaults = accounts.NewDefaults(defaultProfile(c))
	p.guard = accounts.NewGuard(guardRates(c))
	p.passwords = &accounts.Authenticator{
		Store: p.store, Passwords: accounts.NewPasswords(accounts.PasswordOptions{}), Guard: p.guard, Log: p.log,
	}
	setVerifier, err := p.prepareVerifier(c)
	if err != nil {
		return err
	}
	notified := func() []string { return p.provider.NotifiedClients() } // the provider is made later
	p.events = accounts.NewEvents(p.store, p.defaults, notified, p.log)
	setReceivers, err := p.events.Prepare(messagePushes(c))
	if err != nil {
		return err
	}
	setVerifier()
	setReceivers()
	p.custody = &keyCustody{store: p.store, log: p.log, unused: make(chan struct{}, 1)}
	p.custody.configured(c)
	return nil
}

func (p *parts) makeProvider(c *config.Config) (err error) {
	p.limits = grants.NewSignInLimits(signInRates(c))
	codes := &grants.JSCodes{WeChat: p.weChat, Claims: p.store, Limits: p.limits}
	phones := &grants.PhoneCodes{WeChat: p.weChat, Claims: p.store, Users: p.store}
	p.provider, err = provider.New(provider.Options{
		Issuer: c.Issuer,
		Store:  p.store,
		Keys:   p.keys,
		Grants: []grants.Grant{
			&grants.WeChatJSCode{Codes: codes, Phones: phones, Passwords: p.passwords, Defaults: p.defaults},
			&grants.WeChatPhone{Codes: codes, Phones: phones, Defaults: p.defaults},
		},
		Codes:     codes,
		Passwords: p.passwords,
		Custody:   accounts.NewCustody(p.store, p.weChat),
		QRCodes:   p.weChat,
		Settings:  providerSettings(c),
		Logger:    p.log,
		Nodes:     p.exchange != nil,

		RestoredAt:    p.restoredAt,
		ObserveLogout: p.metrics.LogoutSent,
	})
	return err
}

func (p *parts) makeWeb(c *config.Config) (err error) {
	p.web, err = web.New(web.Options{
		Issuer:                 c.Issuer,
		Provider:               p.provider,
		Keys:                   p.keys,
		Store:                  p.store,
		Events:                 p.events,
		People:                 p.people(),
		Data:                   p.store,
		ClientExists:           p.clientExists,
		Metrics:                p.metrics,
		Logger:                 p.log,
		Site:                   siteOf(c),
		TrustedProxies:         c.TrustedProxies,
		RequestsPerIPPerMinute: unlessDisabled(c, c.RateLimits.RequestsPerIPPerMinute),
		AdminToken:             c.Admin.Token,
	})
	return err
}

// apply puts a reloaded configuration in force.
func (p *parts) apply(c *config.Config) error {
	apply, err := p.provider.Prepare(providerSettings(c))
	if err != nil {
		return err
	}
	setVerifier, err := p.prepareVerifier(c)
	if err != nil {
		return err
	}
	setReceivers, err := p.events.Prepare(messagePushes(c))
	if err != nil {
		return err
	}
	showSite, err := p.web.PrepareSite(siteOf(c))
	if err != nil {
		return err
	}
	p.keys.Reload(keySettings(c))
	p.weChat.SetApps(weChatApps(c)) // before the clients that may be of a new app
	apply()
	setVerifier()
	setReceivers()
	showSite()
	p.limits.SetRates(signInRates(c))
	p.guard.SetRates(guardRates(c))
	p.defaults.SetTemplate(defaultProfile(c))
	p.web.SetRequestLimit(unlessDisabled(c, c.RateLimits.RequestsPerIPPerMinute))
	p.web.SetAdminToken(c.Admin.Token)
	p.custody.configured(c)
	p.config.Store(c)
	return nil
}

// people is what the admin API does with users.
func (p *parts) people() *accounts.Directory {
	return &accounts.Directory{
		Store: p.store, Passwords: p.passwords.Passwords, Defaults: p.defaults,
		OpenPlatform: func(appID string) (name string, configured bool) {
			for _, app := range p.config.Load().WeChat.Apps {
				if app.AppID == appID {
					return app.OpenPlatform, true
				}
			}
			return "", false
		},
		Notified: p.provider.NotifiedClients,
	}
}

func (p *parts) clientExists(id string) bool {
	return slices.ContainsFunc(p.config.Load().Clients, func(client config.Client) bool { return client.ClientID == id })
}

// prepareVerifier returns how to put the configured account system in force,
// or what is wrong with it. One that stays as it is keeps its connections and
// its circuit breaker.
func (p *parts) prepareVerifier(c *config.Config) (apply func(), err error) {
	next := c.Accounts.Verifier
	if next.URL == p.verifier.URL && next.Timeout == p.verifier.Timeout && next.Secret.Equal(p.verifier.Secret) {
		return func() {}, nil
	}
	var verifier *accounts.Verifier
	if next.Enabled() {
		verifier, err = accounts.NewVerifier(accounts.VerifierOptions{
			URL: next.URL, Secret: next.Secret, Timeout: next.Timeout, Observe: p.metrics.VerifierCall, Log: p.log,
		})
		if err != nil {
			return nil, err
		}
	}
	return func() {
		p.passwords.SetVerifier(verifier)
		p.verifier = next
	}, nil
}
