package config

import (
	"net/url"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

// Values of [Client.Type], [Client.GrantTypes] and
// [Client.TokenEndpointAuthMethod].
const (
	ClientPublic       = "public"
	ClientConfidential = "confidential"

	GrantWeChatJSCode      = "wechat_jscode"
	GrantWeChatPhone       = "wechat_phone"
	GrantAuthorizationCode = "authorization_code"
	GrantDeviceCode        = "urn:ietf:params:oauth:grant-type:device_code" // RFC 8628 §3.4
	GrantRefreshToken      = "refresh_token"
	GrantClientCredentials = "client_credentials"

	AuthNone              = "none"
	AuthClientSecretBasic = "client_secret_basic"
	AuthClientSecretPost  = "client_secret_post"
	AuthPrivateKeyJWT     = "private_key_jwt"
)

// Values of [Client.Consent] and [Client.SubjectType].
const (
	ConsentAsk  = "ask"
	ConsentSkip = "skip"

	SubjectPublic   = "public"
	SubjectPairwise = "pairwise"
)

const (
	// ScopeWeChatData lets a confidential client use the session_keys in
	// custody of users whose access tokens are for its audience.
	ScopeWeChatData = "wechat.data"
	// ScopeDeviceApprove lets a mini-program approve the sign-ins of other
	// devices and of browsers for its user.
	ScopeDeviceApprove = "device.approve"

	algES256 = "ES256"
	algRS256 = "RS256"
	algEdDSA = "EdDSA"

	envRelease = "release"
	envTrial   = "trial"
	envDevelop = "develop"
)

// Client is an OAuth client. Nothing is implied: it may use the grants,
// scopes and audiences named here and no others. A client that is removed is
// inactive at once, with all its tokens.
type Client struct {
	// ClientID is 1 to 128 of the characters A-Z a-z 0-9 . _ ~ - and unique.
	// Ids of exactly 22 characters without . and ~ are refused: they look
	// like a user's `sub`. Required.
	ClientID string `mapstructure:"client_id"`
	// Name is what people read, at most 128 characters. Empty: the client_id.
	Name string `mapstructure:"name"`
	// Type is public, for what runs on a user's device and can keep no
	// secret, or confidential, for what runs on a server. Required.
	Type string `mapstructure:"type"`
	// WeChatAppID names the one of wechat.apps whose users sign in by this
	// client. Required with the grants wechat_jscode and wechat_phone and with
	// the scope device.approve.
	WeChatAppID string `mapstructure:"wechat_appid"`
	// GrantTypes are those the client may use of wechat_jscode, wechat_phone,
	// authorization_code (sign-in with a browser),
	// urn:ietf:params:oauth:grant-type:device_code (for devices without a
	// browser, RFC 8628), refresh_token and client_credentials (confidential
	// only). It may be empty for a client that only introspects or has the
	// scope wechat.data.
	GrantTypes []string `mapstructure:"grant_types"`
	// AutoCreate makes a new user of somebody who signs in for the first
	// time. false answers account_required until the WeChat identity was bound
	// to an account by username and password, or imported. Default true.
	AutoCreate bool `mapstructure:"auto_create"`

	// TokenEndpointAuthMethod is how the client proves who it is: none for a
	// public client; client_secret_basic, client_secret_post or
	// private_key_jwt for a confidential one. Default none for a public
	// client, client_secret_basic for a confidential one.
	TokenEndpointAuthMethod string `mapstructure:"token_endpoint_auth_method"`
	// ClientSecret is at least 32 random characters. A client with a secret
	// has one of client_secret, client_secret_file, client_secret_hash and
	// client_secrets. Hashed into SecretHashes and cleared by [Load].
	ClientSecret secret.String `mapstructure:"client_secret"`
	// ClientSecretFile is a file that holds the secret.
	ClientSecretFile string `mapstructure:"client_secret_file"`
	// ClientSecretHash is sha256$ and the SHA-256 of the secret in 64
	// lower-case hex digits.
	ClientSecretHash string `mapstructure:"client_secret_hash"`
	// ClientSecrets are 1 to 3 secrets that are valid side by side, each
	// also possible in the form of client_secret_hash. To rotate: add the
	// new one, move the client to it, remove the old one. Hashed into
	// SecretHashes and cleared by [Load].
	ClientSecrets []secret.String `mapstructure:"client_secrets"`
	// JWKSFile is a JWK Set (RFC 7517) with 1 to 16 public keys that verify
	// the client's assertions. Each has its kid and use=sig. Required with
	// private_key_jwt and refused without it.
	JWKSFile string `mapstructure:"jwks_file"`
	// TokenEndpointAuthSigningAlg is what the client signs its assertions
	// with: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or ES512.
	// Default RS256 with private_key_jwt; refused without it.
	TokenEndpointAuthSigningAlg string `mapstructure:"token_endpoint_auth_signing_alg"`

	// RedirectURIs are where a browser returns to, compared character by
	// character (RFC 9700 §2.1): https; for a public client also http on
	// 127.0.0.1 or [::1] (any port is accepted then, RFC 8252 §7.3) or a scheme
	// of its own with a dot, such as com.example.app:/cb. Where the issuer is
	// http on loopback, for development, http on 127.0.0.1, [::1] or localhost
	// with its exact port is accepted for every client. A query is allowed; no
	// wildcard, fragment, user, relative segment or default port. At most 32 of
	// at most 2048 bytes. Required with authorization_code and refused
	// without it.
	RedirectURIs []string `mapstructure:"redirect_uris"`
	// PostLogoutRedirectURIs are where a browser may return to after logout
	// (OpenID Connect RP-Initiated Logout 1.0 §3). They follow the same rules.
	PostLogoutRedirectURIs []string `mapstructure:"post_logout_redirect_uris"`
	// BackchannelLogoutURI is told of logouts (OpenID Connect Back-Channel
	// Logout 1.0). https; http on loopback where the issuer is.
	BackchannelLogoutURI string `mapstructure:"backchannel_logout_uri"`
	// RequirePKCE demands PKCE with S256 (RFC 7636); false is for a
	// confidential client only. Default true.
	RequirePKCE bool `mapstructure:"require_pkce"`
	// RequirePushedAuthorizationRequests takes authorization requests by the
	// pushed request endpoint only (RFC 9126 §6). For clients with the grant
	// authorization_code. Default false.
	RequirePushedAuthorizationRequests bool `mapstructure:"require_pushed_authorization_requests"`
	// Consent is ask or skip: whether people are asked, once, what the client
	// may see. skip is for the operator's own, first-party clients; leave ask
	// where redirect_uris are not https, since other apps on a device can claim
	// those (RFC 8252 §8.6). Default ask.
	Consent string `mapstructure:"consent"`
	// DefaultMaxAge makes people sign in anew at the issuer where their last
	// sign-in is older and the request names no max_age (OpenID Connect
	// Registration §2): whole seconds, at least 1s. 0: no limit.
	DefaultMaxAge time.Duration `mapstructure:"default_max_age"`
	// CORSOrigins are the origins of the client's own pages, whose scripts may
	// call the token, revocation, UserInfo and pushed request endpoints:
	// scheme://host or scheme://host:port as a browser writes them, https or
	// http on loopback. At most 32.
	CORSOrigins []string `mapstructure:"cors_origins"`

	// AccessTokenLifetime is as in tokens. 0: that of tokens.
	AccessTokenLifetime time.Duration `mapstructure:"access_token_lifetime"`
	// IDTokenLifetime is as in tokens. 0: that of tokens.
	IDTokenLifetime time.Duration `mapstructure:"id_token_lifetime"`
	// RefreshTokenIdleLifetime is as in tokens. 0: that of tokens.
	RefreshTokenIdleLifetime time.Duration `mapstructure:"refresh_token_idle_lifetime"`
	// RefreshTokenAbsoluteLifetime is as in tokens. 0: that of tokens.
	RefreshTokenAbsoluteLifetime time.Duration `mapstructure:"refresh_token_absolute_lifetime"`
	// DPoPBoundAccessTokens takes token requests with a DPoP proof only (RFC
	// 9449 §5.2). Default false.
	DPoPBoundAccessTokens bool `mapstructure:"dpop_bound_access_tokens"`
	// SubjectType is public, the same `sub` for all clients, or pairwise,
	// another one for each sector, so that clients cannot compare notes
	// (OpenID Connect Core §8). pairwise needs tokens.pairwise_salt. A change
	// makes the client's users strangers to it. Default public.
	SubjectType string `mapstructure:"subject_type"`
	// SectorIdentifier is the host name that clients with the same pairwise
	// `sub` share; it is only compared, never called. Empty: the host of
	// redirect_uris; required where these have several hosts, loopback, or none
	// (OpenID Connect Core §8.1).
	SectorIdentifier string `mapstructure:"sector_identifier"`

	// IDTokenSignedResponseAlg signs the client's ID Tokens: RS256, ES256
	// (ten times cheaper), or EdDSA where keys.eddsa is true. Default RS256.
	IDTokenSignedResponseAlg string `mapstructure:"id_token_signed_response_alg"`
	// Scopes are all the scopes the client may ask for (RFC 6749 §3.3).
	// wechat.data, for confidential clients only, opens /wechat/decrypt and
	// its neighbours for users whose access tokens are for its audience; the
	// session_keys of those users are then kept, encrypted, for three days.
	// device.approve, for clients with wechat_appid only, lets the mini-program
	// approve the sign-ins of browsers and other devices for its user.
	Scopes []string `mapstructure:"scopes"`
	// DefaultScopes, a part of scopes, are granted where a request names
	// none. Empty: such a request is invalid_scope.
	DefaultScopes []string `mapstructure:"default_scopes"`
	// Audience is the `aud` of the client's access tokens: URIs or names of
	// the resource servers they are for.
	Audience []string `mapstructure:"audience"`
	// Introspection lets a confidential client introspect tokens (RFC 7662)
	// for its audience. Default false.
	Introspection bool `mapstructure:"introspection"`

	// SecretHashes are the client's secrets, each as sha256$ and 64
	// lower-case hex digits. Empty for a client without one.
	SecretHashes []string `mapstructure:"-"`
	// JWKS is the content of JWKSFile, checked.
	JWKS []byte `mapstructure:"-"`
}

// Sector is the host name that the client's pairwise `sub`s are made for
// (OpenID Connect Core §8.1), or "" for a client that sees public ones.
func (c *Client) Sector() string {
	switch {
	case c.SubjectType != SubjectPairwise:
		return ""
	case c.SectorIdentifier != "":
		return c.SectorIdentifier
	}
	return commonHost(c.RedirectURIs)
}

// commonHost is the one host that all of the URIs have, or "". Loopback is
// none: apps that have nothing to do with each other share it.
func commonHost(uris []string) string {
	common := ""
	for _, uri := range uris {
		u, err := url.Parse(uri)
		if err != nil || u.Hostname() == "" || loopbackHost(u.Hostname()) || common != "" && common != u.Hostname() {
			return ""
		}
		common = u.Hostname()
	}
	return common
}

// LongestTokenLifetime is that of the access tokens and ID Tokens which live
// longest, whatever the client: so long must a key that signed stay published.
func (c *Config) LongestTokenLifetime() time.Duration {
	longest := max(c.Tokens.AccessTokenLifetime, c.Tokens.IDTokenLifetime)
	for i := range c.Clients {
		longest = max(longest, c.Clients[i].AccessTokenLifetime, c.Clients[i].IDTokenLifetime)
	}
	return longest
}

// LongestRefreshLifetime is that of the refresh tokens which can live longest,
// whatever the client.
func (c *Config) LongestRefreshLifetime() time.Duration {
	longest := c.Tokens.RefreshTokenAbsoluteLifetime
	for i := range c.Clients {
		longest = max(longest, c.Clients[i].RefreshTokenAbsoluteLifetime)
	}
	return longest
}
