// Package config owns config.yaml: its keys, its defaults, its checks, and
// noticing that it changed. The comments of [Config] and of the types below
// it are the manual of the file; the key of a field is its mapstructure tag.
//
// Every fault is found at once and named by line and key, and no value of the
// file is ever repeated in a message, so that no secret can be.
package config

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

// Config is a checked configuration. Relative paths start at the folder of
// the file; after [Load] they are absolute.
//
// A key outside a list can also be set by the environment, which then wins
// over the file: WXIDP_ and the key in capitals with _ for the dots, such as
// WXIDP_TOKENS_ACCESS_TOKEN_LIFETIME. An empty variable counts as not set;
// lists such as trusted_proxies are written with commas.
//
// A secret may be written as ${NAME}, which takes the environment variable
// NAME (capitals, digits and _), or, by its *_file key, be read from a file of
// at most 64 KiB that only its owner can read; a newline at its end is cut.
// A file of root may be readable by its group (mode 0640), too, as service
// managers hand them out. Written in the config file itself, a secret is
// accepted only where the config file, too, is as private.
//
// Durations are numbers with units, such as 90s, 15m or 720h.
type Config struct {
	// Issuer is the issuer identifier (OpenID Connect Core §1.2): the URL
	// under which clients reach wxidp and the `iss` of every token. https,
	// without a slash at its end, query or fragment; http only on loopback.
	// Required. A change needs a restart.
	Issuer string `mapstructure:"issuer"`

	// Listen is the public host:port. Off loopback it needs tls, or a proxy
	// that is named in trusted_proxies. Default 127.0.0.1:8080. A change
	// needs a restart.
	Listen string `mapstructure:"listen"`

	// TLS serves HTTPS on listen, for where there is no proxy in front.
	TLS TLS `mapstructure:"tls"`

	// TrustedProxies are the networks, in CIDR form, whose X-Forwarded-For
	// is believed. Empty trusts nobody. Networks so wide that they hold
	// strangers (shorter than /8, or /7 for IPv6) are refused. A change needs
	// a restart.
	TrustedProxies []netip.Prefix `mapstructure:"trusted_proxies"`

	// Admin is the operator's side: metrics, health and the admin API.
	Admin Admin `mapstructure:"admin"`

	// Storage is where users and refresh-token families are kept.
	Storage Storage `mapstructure:"storage"`

	// MasterKeyFile holds the master keys, one base64 of 32 bytes per line:
	// the first seals, all open. The environment variable WXIDP_MASTER_KEY,
	// where set, takes its place. Default data/master.key. A change needs a
	// restart.
	MasterKeyFile string `mapstructure:"master_key_file"`

	// Tokens are the lifetimes of what is issued, and what all tokens have in
	// common.
	Tokens Tokens `mapstructure:"tokens"`

	// Keys is the rotation of the signing keys.
	Keys Keys `mapstructure:"keys"`

	// LoginSessions are the sign-ins of browsers at the issuer itself.
	LoginSessions LoginSessions `mapstructure:"login_sessions"`

	// WeChat is the connection to WeChat and the mini-programs.
	WeChat WeChat `mapstructure:"wechat"`

	// Scan is signing in with a browser by scanning a code with WeChat.
	Scan Scan `mapstructure:"scan"`

	// Users is what a new user starts with.
	Users Users `mapstructure:"users"`

	// Accounts is where usernames and passwords are checked.
	Accounts Accounts `mapstructure:"accounts"`

	// Brand is what the pages look like.
	Brand Brand `mapstructure:"brand"`

	// BackchannelLogout is how clients are told of logouts.
	BackchannelLogout BackchannelLogout `mapstructure:"backchannel_logout"`

	// RateLimits are wxidp's own limits. Beyond one: 429 and Retry-After.
	RateLimits RateLimits `mapstructure:"rate_limits"`

	// Clients are the OAuth clients (RFC 6749 §2).
	Clients []Client `mapstructure:"clients"`

	// Log is what is written to standard output.
	Log Log `mapstructure:"log"`

	// Insecure are switches that give up a protection. Leave them false.
	Insecure Insecure `mapstructure:"insecure"`
}

// TLS names a certificate and its key: both or none. Replacing the content
// of the files needs no restart, other paths do.
type TLS struct {
	// CertFile is a PEM file with the certificate, then its intermediates.
	CertFile string `mapstructure:"cert_file"`
	// KeyFile is the PEM file of its private key, readable by its owner alone.
	KeyFile string `mapstructure:"key_file"`
}

// Enabled reports whether listen serves HTTPS.
func (t TLS) Enabled() bool { return t.CertFile != "" }

// Admin is the operator's side. A change needs a restart.
type Admin struct {
	// Listen is the host:port of metrics and health, which need no
	// credential, and of the admin API, which does. Off loopback it needs
	// token_file. Empty opens no port. Default 127.0.0.1:8081.
	Listen string `mapstructure:"listen"`
	// Socket is the Unix socket (mode 0600, path of at most 107 bytes)
	// through which the command line talks to the running server. Empty
	// opens none. Default data/admin.sock.
	Socket string `mapstructure:"socket"`
	// TokenFile holds the bearer token of the admin API over TCP: at least
	// 32 random characters. Empty: the admin API answers on the socket only.
	TokenFile string `mapstructure:"token_file"`

	// Token is the content of TokenFile.
	Token secret.String `mapstructure:"-"`
}

// Storage drivers.
const (
	DriverBolt     = "bolt"
	DriverPostgres = "postgres"
)

// Storage is where users and refresh-token families are kept. A change needs
// a restart.
type Storage struct {
	// Driver is bolt, one file for one node, or postgres, a database that any
	// number of nodes share. Default bolt.
	Driver string `mapstructure:"driver"`
	// Bolt belongs to the driver bolt.
	Bolt Bolt `mapstructure:"bolt"`
	// Postgres belongs to the driver postgres.
	Postgres Postgres `mapstructure:"postgres"`
}

// Bolt is the file of the driver bolt.
type Bolt struct {
	// Path is the database file. Default data/wxidp.db.
	Path string `mapstructure:"path"`
}

// Postgres is the database of the driver postgres.
type Postgres struct {
	// DSN is the connection string, with its password: a secret. A URL, or
	// key=value pairs as libpq reads them. pool_max_conns in it sets how many
	// connections a node opens, 16 where it says nothing.
	DSN secret.String `mapstructure:"dsn"`
	// DSNFile is a file that holds the connection string, in place of dsn.
	DSNFile string `mapstructure:"dsn_file"`
}

// Tokens are the lifetimes of what is issued, and what all tokens have in
// common. A client may have lifetimes of its own.
type Tokens struct {
	// AccessTokenLifetime is 1s to 24h. A resource server that checks tokens
	// by itself honours a revoked one until then. Default 15m.
	AccessTokenLifetime time.Duration `mapstructure:"access_token_lifetime"`
	// AccessTokenSigningAlg signs access tokens: ES256, RS256, or EdDSA
	// where keys.eddsa is true. Default ES256.
	AccessTokenSigningAlg string `mapstructure:"access_token_signing_alg"`
	// IDTokenLifetime is 1s to 24h. Default 1h.
	IDTokenLifetime time.Duration `mapstructure:"id_token_lifetime"`
	// RefreshTokenIdleLifetime ends a sign-in that was not refreshed for so
	// long: 1s up to the absolute lifetime. Default 720h.
	RefreshTokenIdleLifetime time.Duration `mapstructure:"refresh_token_idle_lifetime"`
	// RefreshTokenAbsoluteLifetime ends every sign-in, however active: 1s to
	// 43800h. Default 4320h.
	RefreshTokenAbsoluteLifetime time.Duration `mapstructure:"refresh_token_absolute_lifetime"`
	// RefreshGrace is how long the refresh token before the current one is
	// still answered, with the same successor: 0 to 60s, and less than the
	// idle lifetime. 0 is strict rotation. Default 20s.
	RefreshGrace time.Duration `mapstructure:"refresh_grace"`
	// DPoPNonce asks DPoP proofs for a nonce made by the server (RFC 9449 §8),
	// which costs clients a second request now and then. Default false.
	DPoPNonce bool `mapstructure:"dpop_nonce"`
	// PairwiseSalt makes the `sub` of clients with subject_type: pairwise: at
	// least 32 random characters, required where there is such a client. Keep
	// a copy and keep it for good: another one changes every such `sub`, so
	// that these clients meet nothing but strangers. Once set, a change needs a
	// restart.
	PairwiseSalt secret.String `mapstructure:"pairwise_salt"`
	// PairwiseSaltFile is a file that holds the salt, in place of
	// pairwise_salt.
	PairwiseSaltFile string `mapstructure:"pairwise_salt_file"`
}

// Keys is the rotation of the signing keys.
type Keys struct {
	// RotateEvery is the time a key signs: longer than publish_ahead, at
	// most 8784h. Default 720h.
	RotateEvery time.Duration `mapstructure:"rotate_every"`
	// PublishAhead is how long a key stands in the JWK Set before it signs,
	// at least 1s. Half of it, at most 1h, is the max-age of the JWK Set.
	// Default 24h.
	PublishAhead time.Duration `mapstructure:"publish_ahead"`
	// EdDSA adds a ring of Ed25519 keys to those of ES256 and RS256.
	// Default false.
	EdDSA bool `mapstructure:"eddsa"`
}

// WeChat is the connection to WeChat and the mini-programs.
type WeChat struct {
	// BaseURL is WeChat's API: https; http only on loopback, for the
	// simulator. Default https://api.weixin.qq.com. A change needs a restart.
	BaseURL string `mapstructure:"base_url"`
	// Timeout is the limit of one exchange with WeChat: 100ms to 10s.
	// Default 3s. A change needs a restart.
	Timeout time.Duration `mapstructure:"timeout"`
	// Apps are the mini-programs.
	Apps []App `mapstructure:"apps"`
}

// App is a mini-program.
type App struct {
	// AppID is the mini-program's AppID. Required, unique.
	AppID string `mapstructure:"appid"`
	// Secret is its AppSecret. Required, or secret_file.
	Secret secret.String `mapstructure:"secret"`
	// SecretFile is a file that holds the AppSecret, in place of secret.
	SecretFile string `mapstructure:"secret_file"`
	// OpenPlatform is a name of your choice for the WeChat Open Platform
	// account the mini-program is bound to: apps with the same name share
	// unionids, and so users. Empty shares none.
	OpenPlatform string `mapstructure:"open_platform"`
	// MessagePush lets WeChat tell wxidp at <issuer>/wechat/events/<appid>
	// who withdrew an authorisation or closed their WeChat account.
	MessagePush MessagePush `mapstructure:"message_push"`
}

// MessagePush is what the mini-program's console says under 消息推送, which
// is to be set to JSON and the encrypted mode (安全模式). All or nothing.
type MessagePush struct {
	// Token is the Token: 3 to 32 letters and digits.
	Token secret.String `mapstructure:"token"`
	// TokenFile is a file that holds it, in place of token.
	TokenFile string `mapstructure:"token_file"`
	// EncodingAESKey is the EncodingAESKey: 43 letters and digits. Without
	// encryption a push could be forged, and pushes erase personal data.
	EncodingAESKey secret.String `mapstructure:"encoding_aes_key"`
	// EncodingAESKeyFile is a file that holds it, in place of
	// encoding_aes_key.
	EncodingAESKeyFile string `mapstructure:"encoding_aes_key_file"`
}

// Enabled reports whether the app's pushes are taken.
func (m MessagePush) Enabled() bool { return !m.Token.IsZero() }

// Users is what a new user starts with; both are the user's to change.
type Users struct {
	// DefaultNickname is at most 64 characters; {n} in it becomes four
	// random digits. Default 微信用户.
	DefaultNickname string `mapstructure:"default_nickname"`
	// DefaultPicture is an https URL, or empty for none.
	DefaultPicture string `mapstructure:"default_picture"`
}

// Accounts is where usernames and passwords are checked: against the accounts
// kept here (wxidp users add, wxidp users import), or by the product's own
// account system.
type Accounts struct {
	// Verifier asks the product's own account system instead of the accounts
	// kept here.
	Verifier Verifier `mapstructure:"verifier"`
}

// Verifier is an HTTPS endpoint of the product that says whether a username
// and password are right, and whose they are.
type Verifier struct {
	// URL is the endpoint: https; http only on loopback. Empty: the accounts
	// kept here are used.
	URL string `mapstructure:"url"`
	// Secret signs the requests: at least 32 random characters. Required with
	// url, or secret_file.
	Secret secret.String `mapstructure:"secret"`
	// SecretFile is a file that holds the secret, in place of secret.
	SecretFile string `mapstructure:"secret_file"`
	// Timeout is the limit of one call: 100ms to 10s. Default 3s.
	Timeout time.Duration `mapstructure:"timeout"`
}

// Enabled reports whether the product's own account system is asked.
func (v Verifier) Enabled() bool { return v.URL != "" }

// Log is what is written to standard output, as JSON lines.
type Log struct {
	// Level is debug, info, warn or error. Default info.
	Level string `mapstructure:"level"`
}

// SlogLevel is Level for log/slog.
func (l Log) SlogLevel() slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return slog.LevelInfo
	}
	return level
}

// Insecure are switches that give up a protection.
type Insecure struct {
	// AllowHTTPIssuer accepts an http issuer off loopback, and plain HTTP on
	// a listen address off loopback without a proxy: tokens and secrets can
	// then be read on the way. Default false.
	AllowHTTPIssuer bool `mapstructure:"allow_http_issuer"`
	// AllowWorldReadableSecrets accepts secrets in files that other users of
	// the machine can read. Default false.
	AllowWorldReadableSecrets bool `mapstructure:"allow_world_readable_secrets"`
}

// Enabled returns the keys of the switches that are on, to be warned of.
func (i Insecure) Enabled() []string {
	var keys []string
	if i.AllowHTTPIssuer {
		keys = append(keys, "insecure.allow_http_issuer")
	}
	if i.AllowWorldReadableSecrets {
		keys = append(keys, "insecure.allow_world_readable_secrets")
	}
	return keys
}

// Default returns the configuration of an empty file, before its checks.
func Default() *Config {
	return &Config{
		Listen: "127.0.0.1:8080",
		Admin: Admin{
			Listen: "127.0.0.1:8081",
			Socket: "data/admin.sock",
		},
		Storage: Storage{
			Driver: DriverBolt,
			Bolt:   Bolt{Path: "data/wxidp.db"},
		},
		MasterKeyFile: "data/master.key",
		Tokens: Tokens{
			AccessTokenLifetime:          15 * time.Minute,
			AccessTokenSigningAlg:        algES256,
			IDTokenLifetime:              time.Hour,
			RefreshTokenIdleLifetime:     720 * time.Hour,
			RefreshTokenAbsoluteLifetime: 4320 * time.Hour,
			RefreshGrace:                 20 * time.Second,
		},
		Keys: Keys{
			RotateEvery:  720 * time.Hour,
			PublishAhead: 24 * time.Hour,
		},
		LoginSessions: LoginSessions{
			IdleLifetime:     24 * time.Hour,
			AbsoluteLifetime: 336 * time.Hour,
			ScannedLifetime:  12 * time.Hour,
		},
		WeChat: WeChat{
			BaseURL: "https://api.weixin.qq.com",
			Timeout: 3 * time.Second,
		},
		Scan:              Scan{Code: ScanCodeLink, EnvVersion: envRelease},
		Users:             Users{DefaultNickname: "微信用户"},
		Accounts:          Accounts{Verifier: Verifier{Timeout: 3 * time.Second}},
		Brand:             Brand{Color: "#07c160"},
		BackchannelLogout: BackchannelLogout{Timeout: 5 * time.Second},
		RateLimits: RateLimits{
			RequestsPerIPPerMinute:        3000,
			SignInsPerIPPerMinute:         120,
			SignInsPerNetworkPerMinute:    1200,
			SignInsPerClientPerMinute:     30000,
			SignInsPerUserPerMinute:       2,
			WeChatCallsPerAppPerMinute:    30000,
			WeChatReservePercent:          20,
			FailedClientAuthPerMinute:     10,
			IntrospectionMissesPerMinute:  600,
			WrongPasswordsPerAccountAndIP: 10,
			WrongPasswordsPerAccount:      100,
			WrongPasswordsPerIP:           300,
			WeChatDataPerUserPerMinute:    10,
			AuthorizationsPerIPPerMinute:  300,
			ScanCodesPerIPPerMinute:       20,
			TicketMissesPerIPPerMinute:    20,
		},
		Log: Log{Level: "info"},
	}
}
