package config

import (
	"fmt"
	"regexp"
	"slices"
	"unicode/utf8"
)

var (
	clientID = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,128}$`)
	// subject is the form of a user's `sub`. Were a client's id of that
	// form, the `sub` of its own tokens could be taken for a user
	// (RFC 9700 §4.15).
	subject = regexp.MustCompile(`^[A-Za-z0-9_-]{22}$`)
	// scopeToken is RFC 6749 §3.3.
	scopeToken = regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]{1,128}$`)
	audience   = regexp.MustCompile(`^[\x21-\x7E]{1,512}$`)
)

var assertionAlgs = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"}

func (l *loading) validateClients(c *Config) {
	apps := map[string]bool{}
	for _, app := range c.WeChat.Apps {
		apps[app.AppID] = true
	}
	first := map[string]int{}
	for i := range c.Clients {
		client, path := &c.Clients[i], item("clients", i)
		switch before, dup := first[client.ClientID]; {
		case client.ClientID == "":
			l.add(path+".client_id", "is missing", "")
		case !clientID.MatchString(client.ClientID):
			l.add(path+".client_id", "is not 1 to 128 of A-Z a-z 0-9 . _ ~ -", "")
		case subject.MatchString(client.ClientID):
			l.add(path+".client_id", "has the form of a user's sub (22 of A-Z a-z 0-9 _ -)", "make it longer or shorter by one")
		case dup:
			l.add(path+".client_id", fmt.Sprintf("is the same as that of clients[%d]", before), "")
		default:
			first[client.ClientID] = i
		}
		if utf8.RuneCountInString(client.Name) > 128 {
			l.add(path+".name", "is longer than 128 characters", "")
		}
		if client.Type == "" {
			l.add(path+".type", "is missing", "public for what runs on a user's device, confidential for what runs on a server")
		} else {
			l.oneOf(path+".type", client.Type, ClientPublic, ClientConfidential)
		}
		l.validateGrants(path, client, apps)
		l.validateClientAuth(path, client)
		l.validateClientURIs(path, client, developmentIssuer(c.Issuer))
		l.validateClientLifetimes(path, client, c.Tokens)
		l.validateSubject(path, client, c.Tokens)
		l.signingAlg(path+".id_token_signed_response_alg", client.IDTokenSignedResponseAlg, c.Keys.EdDSA)
		l.validateScopes(path, client)
		switch {
		case client.Introspection && client.Type == ClientPublic:
			l.add(path+".introspection", "is for confidential clients only", "")
		case client.Introspection && len(client.Audience) == 0:
			l.add(path+".introspection", "needs an audience: a client introspects tokens for its own audience", "name it in audience")
		}
	}
}

func (l *loading) validateGrants(path string, c *Client, apps map[string]bool) {
	key := path + ".grant_types"
	for i, grant := range c.GrantTypes {
		switch {
		case grant == GrantClientCredentials && c.Type == ClientPublic:
			l.add(item(key, i), "client_credentials is for confidential clients only", "a public client cannot keep a credential")
		default:
			l.oneOf(item(key, i), grant, GrantWeChatJSCode, GrantWeChatPhone, GrantAuthorizationCode, GrantDeviceCode, GrantRefreshToken, GrantClientCredentials)
		}
	}
	l.unique(key, c.GrantTypes)
	if len(c.GrantTypes) == 0 && !c.Introspection && !slices.Contains(c.Scopes, ScopeWeChatData) {
		l.add(key, "is empty: this client could do nothing", "list its grants")
	}
	if c.WeChatAppID != "" && !apps[c.WeChatAppID] {
		l.add(path+".wechat_appid", "is not the appid of one of wechat.apps", "")
	}
	for _, grant := range []string{GrantWeChatJSCode, GrantWeChatPhone} {
		if c.WeChatAppID == "" && slices.Contains(c.GrantTypes, grant) {
			l.add(path+".wechat_appid", "is missing, and the grant "+grant+" needs it", "name one of wechat.apps")
			return
		}
	}
}

// validateClientAuth checks that a client has exactly the credential that its
// authentication method uses.
func (l *loading) validateClientAuth(path string, c *Client) {
	secretKey := l.secretKeys[path]
	key := path + ".token_endpoint_auth_method"
	method := c.TokenEndpointAuthMethod
	if c.Type == ClientPublic {
		if method != AuthNone {
			l.add(key, "must be none for a public client", "")
		}
		if secretKey != "" {
			l.add(secretKey, "a public client has no secret", "remove it, or set type: confidential if only a server ever holds it")
		}
		if c.JWKSFile != "" {
			l.add(path+".jwks_file", "is for confidential clients only", "")
		}
		return
	}
	if method == AuthNone && c.Type == ClientConfidential {
		l.add(key, "a confidential client must authenticate", "use client_secret_basic, client_secret_post or private_key_jwt")
		return
	}
	if c.Type != ClientConfidential || !l.oneOf(key, method, AuthClientSecretBasic, AuthClientSecretPost, AuthPrivateKeyJWT) {
		return
	}
	if method == AuthPrivateKeyJWT {
		l.validateAssertionKeys(path, c)
		if secretKey != "" {
			l.add(secretKey, "is of no use with private_key_jwt", "remove it")
		}
		return
	}
	if secretKey == "" {
		l.add(path+".client_secret", "a confidential client needs a secret", "set client_secret: ${NAME}, client_secret_file or client_secret_hash")
	}
	if c.JWKSFile != "" {
		l.add(path+".jwks_file", "is of no use without token_endpoint_auth_method: private_key_jwt", "")
	}
	if c.TokenEndpointAuthSigningAlg != "" {
		l.add(path+".token_endpoint_auth_signing_alg", "is of no use without token_endpoint_auth_method: private_key_jwt", "")
	}
}

func (l *loading) validateAssertionKeys(path string, c *Client) {
	known := l.oneOf(path+".token_endpoint_auth_signing_alg", c.TokenEndpointAuthSigningAlg, assertionAlgs...)
	switch {
	case c.JWKSFile == "":
		l.add(path+".jwks_file", "is missing, and private_key_jwt needs it", "a JWK Set with the client's public keys")
	case known && !l.bad[path+".jwks_file"]:
		if problem, fix := checkJWKS(c.JWKS, c.TokenEndpointAuthSigningAlg); problem != "" {
			l.add(path+".jwks_file", problem, fix)
		}
	}
}

func (l *loading) validateScopes(path string, c *Client) {
	for i, scope := range c.Scopes {
		if !scopeToken.MatchString(scope) {
			l.add(item(path+".scopes", i), `is not 1 to 128 visible ASCII characters without " and \`, "one scope per entry")
		}
	}
	l.unique(path+".scopes", c.Scopes)
	if slices.Contains(c.Scopes, ScopeWeChatData) {
		switch {
		case c.Type == ClientPublic:
			l.add(path+".scopes", "wechat.data is for confidential clients only", "let a backend ask for WeChat data")
		case len(c.Audience) == 0:
			l.add(path+".scopes", "wechat.data needs an audience: it is for users whose access tokens are for the client", "name it in audience")
		}
	}
	if c.WeChatAppID == "" && slices.Contains(c.Scopes, ScopeDeviceApprove) {
		l.add(path+".scopes", "device.approve is for clients with wechat_appid only", "people approve in the mini-program")
	}
	for i, scope := range c.DefaultScopes {
		if !slices.Contains(c.Scopes, scope) {
			l.add(item(path+".default_scopes", i), "is not one of the client's scopes", "")
		}
	}
	l.unique(path+".default_scopes", c.DefaultScopes)
	for i, a := range c.Audience {
		if !audience.MatchString(a) {
			l.add(item(path+".audience", i), "is not 1 to 512 visible ASCII characters", "a URI such as https://api.example.com, or a name")
		}
	}
	l.unique(path+".audience", c.Audience)
	size := 0
	for _, value := range slices.Concat(c.Scopes, c.Audience) {
		size += len(value) + 1
	}
	if size > maxTokenLists {
		l.add(path+".audience", fmt.Sprintf("has, with scopes, %d characters", size),
			fmt.Sprintf("at most %d: each access token carries them", maxTokenLists))
	}
}

// maxTokenLists bounds what a client's access tokens carry of configuration,
// in bytes, so that tokens fit into HTTP headers.
const maxTokenLists = 4096

func (l *loading) unique(path string, list []string) {
	first := map[string]int{}
	for i, entry := range list {
		if before, dup := first[entry]; dup && entry != "" {
			l.add(item(path, i), fmt.Sprintf("is the same as entry %d", before), "")
		} else {
			first[entry] = i
		}
	}
}
