// Package provider is the OpenID Provider: what the token, revocation,
// introspection and UserInfo endpoints decide, and what tokens are made of.
//
// ory/fosite is the engine underneath (request parsing, client
// authentication, the order of handlers) and is imported nowhere else. Grants
// that prove an End-User come from package grants and meet fosite in
// extension.go; the refresh and client credentials grants are handlers of our
// own because what they promise needs one atomic storage operation.
package provider

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ory/fosite"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/grants"
	"github.com/wxidp/wxidp/internal/limit"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/storage"
)

// Settings are what a reload may change. A Provider copies nothing out of the
// slices given, so they must not be modified afterwards.
type Settings struct {
	Clients []Client

	AccessTokenLifetime          time.Duration
	IDTokenLifetime              time.Duration
	RefreshTokenIdleLifetime     time.Duration
	RefreshTokenAbsoluteLifetime time.Duration
	RefreshGrace                 time.Duration // 0: strict rotation
	AccessTokenSigningAlg        string        // JWS alg; "": ES256
	ExternalAccounts             bool          // passwords are checked by the product's own account system, which says claims of users

	FailedClientAuthPerMinute    int // per client and address; 0: no limit
	IntrospectionMissesPerMinute int // per client; 0: no limit
	WeChatDataPerUserPerMinute   int // uses of WeChat's session_key; 0: no limit
	SignInsPerUserPerMinute      int // codes for one user's browsers and devices, after a burst of an hour's worth; 0: no limit
	AuthorizationsPerIPPerMinute int // requests that are kept until a person has answered or the client has come; 0: no limit
	ScanCodesPerIPPerMinute      int // codes for scanning; 0: no limit
	TicketMissesPerIPPerMinute   int // wrong or unknown tickets and user codes; 0: no limit

	DPoPNonce    bool          // proofs need a nonce of ours (RFC 9449 §8)
	PairwiseSalt secret.String // of pairwise subjects; empty: no client has them

	LoginIdleLifetime     time.Duration
	LoginAbsoluteLifetime time.Duration
	LoginScannedLifetime  time.Duration // absolute lifetime of a login session that began by scanning
	Scan                  Scan
	Logout                Logout
}

// Scan is how people sign in by scanning a code with the mini-program.
type Scan struct {
	AppID      string // the mini-program; "": nobody can scan
	Link       string // prefix of the link in the code; the ticket is its query parameter t
	WeChatCode bool   // the code is WeChat's own, for Page
	Page       string
	EnvVersion string // release, trial or develop
}

// Logout is how clients are told of logouts through the back channel.
type Logout struct {
	AllowedNetworks []netip.Prefix // that logout tokens may be sent to beyond public addresses
	Timeout         time.Duration  // of one delivery
}

// Options are the parts that a Provider is made of. All are required but
// Nodes, ObserveLogout and LogoutRootCAs.
type Options struct {
	Issuer string // the iss claim; no trailing slash
	Store  storage.Store
	Keys   *keys.Ring
	Grants []grants.Grant
	// Codes and Passwords prove afresh who a user is where an access token
	// alone is not enough.
	Codes     CodeProver
	Passwords PasswordChecker
	Custody   *accounts.Custody
	// QRCodes draws codes that only WeChat can draw; nil where no Settings
	// will ask for them.
	QRCodes  QRCodeMaker
	Settings Settings
	Logger   *slog.Logger
	Nodes    bool // other nodes may work with the same Store

	// RestoredAt is when data from a backup were put in service, zero where
	// they never were: what was used before is not all remembered.
	RestoredAt time.Time

	// ObserveLogout is called once per logout token sent to a client. outcome
	// is "ok", "refused" or what kept it from arriving. It must not block.
	ObserveLogout func(outcome string, elapsed time.Duration)
	// LogoutRootCAs verify the certificates of clients that are told of
	// logouts. nil: the system's.
	LogoutRootCAs *x509.CertPool
}

// Provider decides requests. It is safe for concurrent use.
type Provider struct {
	issuer    string
	store     storage.Store
	keys      *keys.Ring
	log       *slog.Logger
	engine    *fosite.Fosite
	handlers  []grantHandler
	types     map[string]bool // the grant types of handlers
	repeats   *repeats
	codes     CodeProver
	passwords PasswordChecker
	custody   *accounts.Custody
	qrCodes   QRCodeMaker
	tickets   *ticketDesk
	logouts   logouts
	restored  time.Time // Options.RestoredAt
	current   atomic.Pointer[snapshot]

	authFailures *limit.Limiter
	misses       *limit.Limiter
	weChatData   *limit.Limiter
	begun        *limit.Limiter // authorization requests that are kept, by address
	granted      *limit.Limiter // codes, by user
}

// grantHandler is a fosite handler for the grant types it names.
type grantHandler interface {
	fosite.TokenEndpointHandler
	grantTypes() []string
}

// snapshot is one consistent set of settings; a request reads it once.
type snapshot struct {
	Settings
	clients     map[string]*Client
	phoneSignIn bool            // a client may use the grant wechat_phone
	origins     map[string]bool // of browser apps (CORS)
}

// Request is an HTTP request with what the front learnt about it. The form of
// HTTP has been parsed.
type Request struct {
	HTTP     *http.Request
	RemoteIP netip.Addr
	ID       string // of the request, for logs

	// What follows is known of browsers only.
	Login   string // value of the login session's cookie; "": none
	Browser string // value of the cookie that every browser has from its first page on
	Agent   string // the browser as people may recognise it, such as "Chrome, Windows"
	Place   string // a coarse place or network, such as "203.0.113.*"
}

// New returns a Provider.
func New(opts Options) (*Provider, error) {
	p := &Provider{
		issuer:       opts.Issuer,
		store:        opts.Store,
		keys:         opts.Keys,
		log:          opts.Logger,
		repeats:      newRepeats(opts.Nodes),
		codes:        opts.Codes,
		passwords:    opts.Passwords,
		custody:      opts.Custody,
		qrCodes:      opts.QRCodes,
		restored:     opts.RestoredAt,
		tickets:      newTicketDesk(),
		authFailures: limit.New(limit.Rate{}, 1<<16),
		misses:       limit.New(limit.Rate{}, 1<<12),
		weChatData:   limit.New(limit.Rate{}, 1<<16),
		begun:        limit.New(limit.Rate{}, 1<<16),
		granted:      limit.New(limit.Rate{}, 1<<16),
	}
	p.logouts = p.newLogouts(opts)
	proof := &proofGrants{p: p, byType: make(map[string]grants.Grant)}
	for _, grant := range opts.Grants {
		if proof.byType[grant.Type()] != nil {
			return nil, fmt.Errorf("grant type %q is wired twice", grant.Type())
		}
		proof.byType[grant.Type()] = grant
	}
	p.handlers = []grantHandler{proof, &refreshGrant{p: p}, &codeGrant{p: p}, &clientCredentialsGrant{p: p}, &deviceGrant{p: p}}
	p.types = make(map[string]bool)
	for _, grantType := range p.GrantTypes() {
		p.types[grantType] = true
	}
	p.engine = newEngine(p)
	if err := p.Reload(opts.Settings); err != nil {
		return nil, err
	}
	return p, nil
}

// ShareLimits makes the limits hold for all nodes of an exchange together.
func (p *Provider) ShareLimits(x *limit.Exchange) {
	x.Register("client_authentication", p.authFailures)
	x.Register("introspection_misses", p.misses)
	x.Register("wechat_data", p.weChatData)
	x.Register("authorizations", p.begun)
	x.Register("codes_user", p.granted)
	x.Register("scan_codes", p.tickets.codes)
	x.Register("ticket_misses", p.tickets.misses)
}

// Reload puts new settings in force for requests that start from now on, or
// changes nothing and says what is wrong with them.
func (p *Provider) Reload(settings Settings) error {
	apply, err := p.Prepare(settings)
	if err != nil {
		return err
	}
	apply()
	return nil
}

// Prepare checks new settings without changing anything. apply, which cannot
// fail, puts them in force.
func (p *Provider) Prepare(settings Settings) (apply func(), err error) {
	snap := &snapshot{Settings: settings, clients: make(map[string]*Client, len(settings.Clients)), origins: make(map[string]bool)}
	if snap.AccessTokenSigningAlg == "" {
		snap.AccessTokenSigningAlg = "ES256"
	}
	if err := p.canSign(snap.AccessTokenSigningAlg); err != nil {
		return nil, fmt.Errorf("access tokens: %w", err)
	}
	for i := range settings.Clients {
		client := settings.Clients[i]
		if err := client.prepare(p.issuer); err != nil {
			return nil, fmt.Errorf("client %q: %w", client.ID, err)
		}
		if snap.clients[client.ID] != nil {
			return nil, fmt.Errorf("client %q is configured twice", client.ID)
		}
		if err := p.canSign(client.IDTokenAlg); err != nil {
			return nil, fmt.Errorf("client %q: ID Tokens: %w", client.ID, err)
		}
		snap.clients[client.ID] = &client
		snap.phoneSignIn = snap.phoneSignIn || client.may(grants.TypeWeChatPhone)
		for _, origin := range client.CORSOrigins {
			snap.origins[origin] = true
		}
	}
	for _, reader := range snap.clients {
		if !slices.Contains(reader.Scopes, ScopeWeChatData) {
			continue
		}
		for _, client := range snap.clients {
			client.keepSessionKey = client.keepSessionKey || overlaps(client.Audience, reader.Audience)
		}
	}
	return func() {
		p.authFailures.SetRate(limit.Rate{PerMinute: settings.FailedClientAuthPerMinute, Burst: settings.FailedClientAuthPerMinute})
		p.misses.SetRate(limit.Rate{PerMinute: settings.IntrospectionMissesPerMinute, Burst: settings.IntrospectionMissesPerMinute})
		p.weChatData.SetRate(limit.Rate{PerMinute: settings.WeChatDataPerUserPerMinute, Burst: settings.WeChatDataPerUserPerMinute})
		p.tickets.setRates(settings)
		p.begun.SetRate(limit.Rate{PerMinute: settings.AuthorizationsPerIPPerMinute, Burst: settings.AuthorizationsPerIPPerMinute})
		p.granted.SetRate(limit.Rate{PerMinute: settings.SignInsPerUserPerMinute, Burst: 60 * settings.SignInsPerUserPerMinute})
		p.current.Store(snap)
	}, nil
}

// canSign refuses an algorithm whose first key has not been published long
// enough to sign.
func (p *Provider) canSign(alg string) error {
	if slices.Contains(p.keys.Algorithms(), alg) {
		return nil
	}
	return fmt.Errorf("no key signs with %s yet; enable it without using it, and use it once wxidp keys list shows a current key", alg)
}

// GrantTypes returns the grant types that the token endpoint serves, sorted.
func (p *Provider) GrantTypes() []string {
	var types []string
	for _, handler := range p.handlers {
		types = append(types, handler.grantTypes()...)
	}
	slices.Sort(types)
	return types
}

func (p *Provider) settings() *snapshot { return p.current.Load() }

// AllowsOrigin reports whether a browser app of a configured client is served
// from origin, as the Origin header spells it.
func (p *Provider) AllowsOrigin(origin string) bool { return p.settings().origins[origin] }

// client returns a configured client, or nil.
func (s *snapshot) client(id string) *Client { return s.clients[id] }

func (p *Provider) warn(ctx context.Context, req Request, event string, attrs ...slog.Attr) {
	p.event(ctx, slog.LevelWarn, req, event, attrs)
}

func (p *Provider) info(ctx context.Context, req Request, event string, attrs ...slog.Attr) {
	p.event(ctx, slog.LevelInfo, req, event, attrs)
}

func (p *Provider) event(ctx context.Context, level slog.Level, req Request, event string, attrs []slog.Attr) {
	attrs = append(attrs[:len(attrs):len(attrs)], slog.String("request_id", req.ID), slog.String("ip", req.RemoteIP.String()))
	p.log.LogAttrs(ctx, level, strings.ReplaceAll(event, ".", " "), append([]slog.Attr{slog.String("event", event)}, attrs...)...)
}
