package config

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/wxidp/wxidp/internal/secret"
)

// maxClientSecrets is how many secrets a client can have side by side.
const maxClientSecrets = 3

var secretHash = regexp.MustCompile(`^sha256\$[0-9a-f]{64}$`)

// resolve fills in what the file only refers to: absolute paths, secrets from
// the environment and from files, and defaults that depend on other keys.
func (l *loading) resolve(c *Config) {
	for _, p := range []*string{&c.TLS.CertFile, &c.TLS.KeyFile, &c.Admin.Socket, &c.Admin.TokenFile, &c.Storage.Bolt.Path, &c.Storage.Postgres.DSNFile, &c.MasterKeyFile, &c.Scan.VerificationFile, &c.Brand.LogoFile} {
		l.absolute(p)
	}
	for _, networks := range [][]netip.Prefix{c.TrustedProxies, c.BackchannelLogout.AllowedNetworks} {
		for i, p := range networks {
			networks[i] = p.Masked()
		}
	}
	c.WeChat.BaseURL = strings.TrimRight(c.WeChat.BaseURL, "/")
	l.resolveTLS(c.TLS)
	if c.Admin.TokenFile != "" {
		c.Admin.Token = l.secretFile("admin.token_file", c.Admin.TokenFile)
		if !c.Admin.Token.IsZero() {
			l.strongSecret("admin.token_file", c.Admin.Token)
			l.bearerToken("admin.token_file", c.Admin.Token)
		}
	}
	pg := &c.Storage.Postgres
	pg.DSN = l.secret("storage.postgres.dsn", pg.DSN)
	if pg.DSNFile != "" {
		if !pg.DSN.IsZero() {
			l.add("storage.postgres.dsn_file", "dsn is set too", "keep one of them")
		}
		pg.DSN = l.secretFile("storage.postgres.dsn_file", pg.DSNFile)
	}
	verifier := &c.Accounts.Verifier
	l.resolveSecret("accounts.verifier.secret", &verifier.Secret, &verifier.SecretFile)
	l.resolveSecret("tokens.pairwise_salt", &c.Tokens.PairwiseSalt, &c.Tokens.PairwiseSaltFile)
	l.resolveScan(&c.Scan, c.Issuer)
	l.resolveBrand(&c.Brand, c.Issuer)
	for i := range c.WeChat.Apps {
		l.resolveApp(item("wechat.apps", i), &c.WeChat.Apps[i])
	}
	for i := range c.Clients {
		l.resolveClient(item("clients", i), &c.Clients[i])
	}
}

// absolute makes a path of the config start at the config file's folder.
func (l *loading) absolute(path *string) {
	switch {
	case *path == "":
	case filepath.IsAbs(*path):
		*path = filepath.Clean(*path)
	default:
		*path = filepath.Join(l.dir, *path)
	}
}

// secret takes the value of a secret from where it points to.
func (l *loading) secret(path string, value secret.String) secret.String {
	text := value.Reveal()
	if _, fromEnv := l.report.env[path]; fromEnv || text == "" {
		return value
	}
	if m := reference.FindStringSubmatch(text); m != nil {
		found := l.env[m[1]]
		if found == "" {
			l.add(path, "the environment variable "+m[1]+" is missing or empty", "set it where wxidp starts")
			l.bad[path] = true
		}
		return secret.New(found)
	}
	if strings.Contains(text, "${") {
		l.add(path, "holds ${ but is not of the form ${NAME}", "NAME is all of the value, in A-Z, 0-9 and _")
		l.bad[path] = true
		return secret.String{}
	}
	if !l.inlineSecrets && !l.anySecretMode && !secretHash.MatchString(text) {
		l.add(path, "a secret stands in a config file that other users can read", "chmod 600 the config file, or use ${NAME} or a *_file key")
	}
	return value
}

// secretFile reads the secret in a file, whose path is absolute already.
func (l *loading) secretFile(path, file string) secret.String {
	value, state, problem, fix := readSecret(file, l.anySecretMode)
	l.states[file] = state
	if problem != "" {
		l.add(path, problem, fix)
		l.bad[path] = true
	}
	return value
}

// file reads a file of at most limit bytes that is no secret.
func (l *loading) file(path, file string, limit int64) ([]byte, bool) {
	data, state, problem := readFile(file, limit)
	l.states[file] = state
	if problem != "" {
		l.add(path, problem, "relative paths start at the folder of the config file")
		return nil, false
	}
	return data, true
}

func (l *loading) resolveTLS(t TLS) {
	switch {
	case t.CertFile == "" && t.KeyFile == "":
		return
	case t.KeyFile == "":
		l.add("tls.cert_file", "key_file is missing", "set both or none")
		return
	case t.CertFile == "":
		l.add("tls.key_file", "cert_file is missing", "set both or none")
		return
	}
	cert, certOK := l.file("tls.cert_file", t.CertFile, maxSmallFile)
	key := l.secretFile("tls.key_file", t.KeyFile)
	if !certOK || key.IsZero() {
		return
	}
	if _, err := tls.X509KeyPair(cert, []byte(key.Reveal())); err != nil {
		l.add("tls.cert_file", "this and key_file are not a certificate and its private key", "both are PEM; the server's certificate comes first")
	}
}

func (l *loading) resolveApp(path string, app *App) {
	l.resolveSecret(path+".secret", &app.Secret, &app.SecretFile)
	push := &app.MessagePush
	l.resolveSecret(path+".message_push.token", &push.Token, &push.TokenFile)
	l.resolveSecret(path+".message_push.encoding_aes_key", &push.EncodingAESKey, &push.EncodingAESKeyFile)
}

// resolveSecret takes the value of a secret that may stand in a file.
func (l *loading) resolveSecret(path string, value *secret.String, file *string) {
	l.absolute(file)
	if *file != "" && !value.IsZero() {
		l.add(path+"_file", path[strings.LastIndexByte(path, '.')+1:]+" is set too", "keep one of them")
		l.bad[path+"_file"] = true
	}
	*value = l.secret(path, *value)
	if *file != "" {
		*value = l.secretFile(path+"_file", *file)
	}
}

func (l *loading) resolveClient(path string, c *Client) {
	l.absolute(&c.ClientSecretFile)
	l.absolute(&c.JWKSFile)
	if c.Name == "" {
		c.Name = c.ClientID
	}
	if !l.has(path + ".require_pkce") {
		c.RequirePKCE = true
	}
	if !l.has(path + ".auto_create") {
		c.AutoCreate = true
	}
	c.IDTokenSignedResponseAlg = cmp.Or(c.IDTokenSignedResponseAlg, algRS256)
	c.Consent = cmp.Or(c.Consent, ConsentAsk)
	c.SubjectType = cmp.Or(c.SubjectType, SubjectPublic)
	if c.TokenEndpointAuthMethod == "" {
		c.TokenEndpointAuthMethod = AuthClientSecretBasic
		if c.Type == ClientPublic {
			c.TokenEndpointAuthMethod = AuthNone
		}
	}
	if c.TokenEndpointAuthMethod == AuthPrivateKeyJWT && c.TokenEndpointAuthSigningAlg == "" {
		c.TokenEndpointAuthSigningAlg = algRS256
	}
	l.resolveClientSecrets(path, c)
	if c.JWKSFile != "" {
		if data, ok := l.file(path+".jwks_file", c.JWKSFile, maxSmallFile); ok {
			c.JWKS = data
		} else {
			l.bad[path+".jwks_file"] = true
		}
	}
}

// resolveClientSecrets turns whichever form of secret a client has into its
// hashes, and drops the plain text.
func (l *loading) resolveClientSecrets(path string, c *Client) {
	once := func(key string) string {
		p := join(path, key)
		if first := l.secretKeys[path]; first != "" {
			l.add(p, "another form of the client's secret is set too", "keep one of client_secret, client_secret_file, client_secret_hash and client_secrets")
			l.bad[p] = true
		} else {
			l.secretKeys[path] = p
		}
		return p
	}
	if !c.ClientSecret.IsZero() {
		p := once("client_secret")
		l.hashSecret(c, p, l.secret(p, c.ClientSecret))
	}
	if c.ClientSecretFile != "" {
		p := once("client_secret_file")
		l.hashSecret(c, p, l.secretFile(p, c.ClientSecretFile))
	}
	if c.ClientSecretHash != "" {
		if p := once("client_secret_hash"); secretHash.MatchString(c.ClientSecretHash) {
			c.SecretHashes = append(c.SecretHashes, c.ClientSecretHash)
		} else {
			l.add(p, "is not sha256$ and 64 lower-case hex digits", "printf %s \"$SECRET\" | sha256sum")
		}
	}
	if len(c.ClientSecrets) > 0 {
		p := once("client_secrets")
		if len(c.ClientSecrets) > maxClientSecrets {
			l.add(p, "holds more than 3 secrets", "remove those no longer used")
		}
		for i, s := range c.ClientSecrets {
			if secretHash.MatchString(s.Reveal()) {
				c.SecretHashes = append(c.SecretHashes, s.Reveal())
			} else {
				l.hashSecret(c, item(p, i), l.secret(item(p, i), s))
			}
		}
	}
	c.ClientSecret, c.ClientSecrets = secret.String{}, nil
}

func (l *loading) hashSecret(c *Client, path string, value secret.String) {
	if value.IsZero() {
		l.add(path, "is empty", "")
		return
	}
	l.strongSecret(path, value)
	sum := sha256.Sum256([]byte(value.Reveal()))
	c.SecretHashes = append(c.SecretHashes, "sha256$"+hex.EncodeToString(sum[:]))
}

// bearerToken checks for the characters of RFC 6750 §2.1.
func (l *loading) bearerToken(path string, value secret.String) {
	if !bearerCharacters.MatchString(value.Reveal()) {
		l.add(path, "holds characters that a bearer token cannot have", "use A-Z a-z 0-9 - . _ ~ + / and = at the end")
	}
}

var bearerCharacters = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// strongSecret refuses secrets that a person could have made up: they are
// kept as plain SHA-256, which only a random secret withstands.
func (l *loading) strongSecret(path string, value secret.String) {
	if problem := weakness(value.Reveal()); problem != "" {
		l.add(path, problem+": machine secrets must be random", "try: openssl rand -base64 32")
	}
}

// weakness says why a text is no random secret of at least 32 characters.
func weakness(text string) string {
	distinct := map[rune]bool{}
	for _, char := range text {
		if char < ' ' || char > '~' {
			return "holds characters outside printable ASCII"
		}
		distinct[char] = true
	}
	lower := strings.ToLower(text)
	switch {
	case len(text) < 32:
		return "is shorter than 32 characters"
	case len(text) > 1024:
		return "is longer than 1024 characters"
	case strings.TrimSpace(text) != text:
		return "starts or ends with a space"
	case len(distinct) < 10:
		return "has too few different characters"
	case repeats(text):
		return "repeats itself"
	}
	for _, word := range []string{"changeme", "change-me", "change_me", "password"} {
		if strings.Contains(lower, word) {
			return "is made of words"
		}
	}
	return ""
}

// repeats reports whether text is one piece, written twice or more.
func repeats(text string) bool {
	return strings.Contains((text + text)[1:2*len(text)-1], text)
}
