package provider

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	josev3 "github.com/go-jose/go-jose/v3"
	"github.com/go-jose/go-jose/v4"
	"github.com/ory/fosite"

	"github.com/wxidp/wxidp/grants"
	"github.com/wxidp/wxidp/storage"
)

// Client authentication methods (OIDC Core §9).
const (
	AuthNone              = "none"
	AuthClientSecretBasic = "client_secret_basic"
	AuthClientSecretPost  = "client_secret_post"
	AuthPrivateKeyJWT     = "private_key_jwt"
)

// Client is an OAuth 2.0 client as the operator configured it.
type Client struct {
	ID            string
	Name          string
	Public        bool     // RFC 6749 §2.1
	SecretHashes  []string // "sha256$" and 64 hex digits; several while a secret is rotated
	AuthMethod    string   // token_endpoint_auth_method
	AuthAlg       string   // token_endpoint_auth_signing_alg, for private_key_jwt
	JWKS          []byte   // JWK Set with the client's public keys, for private_key_jwt
	GrantTypes    []string
	Scopes        []string
	DefaultScopes []string // where a request names none; empty: such a request is refused
	Audience      []string // of access tokens; empty: the issuer itself
	WeChatAppID   string
	IDTokenAlg    string // id_token_signed_response_alg; "": RS256
	Introspection bool   // may introspect tokens for its audience
	RequireKnown  bool   // makes no new users: identities must be bound or imported before

	RedirectURIs           []string
	PostLogoutRedirectURIs []string
	BackchannelLogoutURI   string // "": not told of logouts
	RequirePKCE            bool
	RequirePushed          bool          // require_pushed_authorization_requests (RFC 9126 §6)
	SkipConsent            bool          // the operator's own: people are not asked
	DefaultMaxAge          time.Duration // 0: none
	DPoPBound              bool          // dpop_bound_access_tokens (RFC 9449 §5.2)
	CORSOrigins            []string
	// Sector is what pairwise subjects are made for (OIDC Core §8.1); "": the
	// client sees public ones.
	Sector string

	// Lifetimes of the client's own; 0: those of the Settings.
	AccessTokenLifetime          time.Duration
	IDTokenLifetime              time.Duration
	RefreshTokenIdleLifetime     time.Duration
	RefreshTokenAbsoluteLifetime time.Duration

	keys *jose.JSONWebKeySet
	// keepSessionKey: a client with the scope wechat.data shares an audience
	// with this one, so that WeChat's session_key may be of use.
	keepSessionKey bool
}

var (
	_ fosite.OpenIDConnectClient      = (*fositeClient)(nil)
	_ fosite.ClientWithSecretRotation = (*fositeClient)(nil)
	_ fosite.ResponseModeClient       = (*fositeClient)(nil)
)

// prepare checks and derives what requests need.
func (c *Client) prepare(issuer string) error {
	if len(c.Audience) == 0 {
		c.Audience = []string{issuer}
	}
	if c.IDTokenAlg == "" {
		c.IDTokenAlg = "RS256"
	}
	for _, hash := range c.SecretHashes {
		if _, err := decodeSecretHash([]byte(hash)); err != nil {
			return err
		}
	}
	if c.JWKS != nil {
		var err error
		if c.keys, err = parseClientKeys(c.JWKS); err != nil {
			return err
		}
	}
	return nil
}

// may reports whether the client may use a grant type. Comparison is exact:
// fosite's Arguments.Has folds case.
func (c *Client) may(grantType string) bool { return slices.Contains(c.GrantTypes, grantType) }

// takesPhone reports whether the client has a use for phone numbers.
func (c *Client) takesPhone() bool {
	return slices.Contains(c.Scopes, scopePhone) || c.may(grants.TypeWeChatPhone)
}

// overlaps reports whether two audiences have a value in common.
func overlaps(a, b []string) bool {
	return slices.ContainsFunc(a, func(value string) bool { return slices.Contains(b, value) })
}

// responseTypes are the response_type values that the client may ask for.
func (c *Client) responseTypes() []string {
	if c.may(GrantAuthorizationCode) {
		return []string{"code"}
	}
	return nil
}

// serves reports whether the family's WeChat identity is one of the app that
// the client is for now. A client that was moved to another app must not go on
// with sign-ins of the old one.
func (c *Client) serves(family storage.Family) bool {
	return family.WeChatAppID == "" || family.WeChatAppID == c.WeChatAppID
}

// scope returns what a request for these scopes is granted: all of them, or
// an error. None requested means the client's default scopes.
func (c *Client) scope(requested []string) ([]string, error) {
	if len(requested) == 0 {
		if len(c.DefaultScopes) == 0 {
			return nil, fail(InvalidScope, msgScopeMissing)
		}
		return c.DefaultScopes, nil
	}
	for _, scope := range requested {
		if !slices.Contains(c.Scopes, scope) {
			return nil, fail(InvalidScope, msgScopeRefused).reason("scope_not_allowed")
		}
	}
	return requested, nil
}

// narrow returns the requested part of granted, each value once; nothing
// requested means all.
func narrow(granted, requested []string, refusal *Error) ([]string, error) {
	if len(requested) == 0 {
		return granted, nil
	}
	var out []string
	for _, value := range requested {
		if !slices.Contains(granted, value) {
			return nil, refusal
		}
		if !slices.Contains(out, value) {
			out = append(out, value)
		}
	}
	return out, nil
}

// intersect returns the members of granted that are still allowed.
func intersect(granted, allowed []string) []string {
	if !slices.ContainsFunc(granted, func(s string) bool { return !slices.Contains(allowed, s) }) {
		return granted
	}
	var out []string
	for _, value := range granted {
		if slices.Contains(allowed, value) {
			out = append(out, value)
		}
	}
	return out
}

// fositeClient shows a Client to fosite.
type fositeClient struct{ *Client }

func (c fositeClient) GetID() string                      { return c.ID }
func (c fositeClient) GetRedirectURIs() []string          { return c.RedirectURIs }
func (c fositeClient) GetGrantTypes() fosite.Arguments    { return c.GrantTypes }
func (c fositeClient) GetResponseTypes() fosite.Arguments { return c.responseTypes() }
func (c fositeClient) GetScopes() fosite.Arguments        { return c.Scopes }
func (c fositeClient) IsPublic() bool                     { return c.Public }
func (c fositeClient) GetAudience() fosite.Arguments      { return c.Audience }

func (c fositeClient) GetHashedSecret() []byte {
	if len(c.SecretHashes) == 0 {
		return nil
	}
	return []byte(c.SecretHashes[0])
}

func (c fositeClient) GetRotatedHashes() [][]byte {
	var out [][]byte
	for i, hash := range c.SecretHashes {
		if i > 0 {
			out = append(out, []byte(hash))
		}
	}
	return out
}

func (c fositeClient) GetResponseModes() []fosite.ResponseModeType {
	return []fosite.ResponseModeType{fosite.ResponseModeQuery, fosite.ResponseModeFormPost}
}

func (c fositeClient) GetRequestURIs() []string                     { return nil }
func (c fositeClient) GetJSONWebKeys() *josev3.JSONWebKeySet        { return nil }
func (c fositeClient) GetJSONWebKeysURI() string                    { return "" }
func (c fositeClient) GetRequestObjectSigningAlgorithm() string     { return "" }
func (c fositeClient) GetTokenEndpointAuthMethod() string           { return c.AuthMethod }
func (c fositeClient) GetTokenEndpointAuthSigningAlgorithm() string { return c.AuthAlg }

const secretHashPrefix = "sha256$"

// HashSecret returns the stored form of a client secret. Machine secrets are
// random, so that one SHA-256 says no less than a password hash would and
// costs an attacker's request nothing.
func HashSecret(clientSecret string) string {
	sum := sha256.Sum256([]byte(clientSecret))
	return secretHashPrefix + hex.EncodeToString(sum[:])
}

func decodeSecretHash(hash []byte) ([]byte, error) {
	digits, ok := strings.CutPrefix(string(hash), secretHashPrefix)
	sum, err := hex.DecodeString(digits)
	if !ok || err != nil || len(sum) != sha256.Size {
		return nil, errors.New("client secret hash is not sha256$ and 64 hex digits")
	}
	return sum, nil
}

// secretHasher compares client secrets for fosite.
type secretHasher struct{}

var _ fosite.Hasher = secretHasher{}

// Compare takes the same time for every wrong secret and refuses an empty
// hash, which is what a client without a secret has.
func (secretHasher) Compare(_ context.Context, hash, data []byte) error {
	want, err := decodeSecretHash(hash)
	if err != nil {
		return err
	}
	got := sha256.Sum256(data)
	if subtle.ConstantTimeCompare(want, got[:]) != 1 {
		return errors.New("client secret does not match")
	}
	return nil
}

// Hash returns the stored form of data.
func (secretHasher) Hash(_ context.Context, data []byte) ([]byte, error) {
	return []byte(HashSecret(string(data))), nil
}
