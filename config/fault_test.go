package config

import (
	"crypto/elliptic"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// faultRow is a config with one fault, on the line that holds "#!" where the
// fault has a line at all.
type faultRow struct {
	name string
	yaml string
	path string // of the fault
	text string // part of its problem or fix
	env  []string
	mode os.FileMode // of the config file, 0600 where 0
}

func (row faultRow) run(t *testing.T, f folder) {
	mode := row.mode
	if mode == 0 {
		mode = 0o600
	}
	path := f.write("config.yaml", row.yaml, mode)
	_, err := Load(path, row.env)
	if err == nil {
		t.Fatal("was accepted")
	}
	faults := faultsOf(t, err)
	if len(faults) != 1 {
		t.Errorf("want one fault, got %d:\n%v", len(faults), err)
	}
	line := 0
	for i, text := range strings.Split(row.yaml, "\n") {
		if strings.Contains(text, "#!") {
			line = i + 1
			break
		}
	}
	got := faults[0]
	if got.Line != line || got.Path != row.path || !strings.Contains(got.String(), row.text) {
		t.Errorf("got  %s\nwant line %d, path %q, and in it %q", got, line, row.path, row.text)
	}
	want := path
	if strings.HasPrefix(row.path, "WXIDP_") {
		want = "environment"
	}
	if got.File != want {
		t.Errorf("fault is of file %q, want %q", got.File, want)
	}
}

func runFaults(t *testing.T, rows []faultRow) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { row.run(t, newFolder(t)) })
	}
}

func TestFaultsOfTheFile(t *testing.T) {
	runFaults(t, []faultRow{
		{name: "empty", yaml: "", path: "issuer", text: "is missing"},
		{name: "only null", yaml: "# nothing\n", path: "issuer", text: "is missing"},
		{name: "list at the top", yaml: "- a #!\n", text: "must be a mapping"},
		{name: "broken syntax", yaml: issuerLine + "listen: [a #!\n", text: "not valid YAML"},
		{name: "tab", yaml: issuerLine + "tls:\n\tcert_file: a #!\n", text: "not valid YAML"},
		{name: "two documents", yaml: issuerLine + "--- #!\nlisten: :80\n", text: "second YAML document"},
		{name: "unknown key, close", yaml: issuerLine + "lisen: :80 #!\n", text: "did you mean listen?"},
		{name: "unknown key, nested", yaml: issuerLine + "tokens:\n  acces_token_lifetime: 1m #!\n", path: "tokens", text: "did you mean access_token_lifetime?"},
		{name: "unknown key in a list", yaml: issuerLine + publicClient("redirect_uri: https://x.example/ #!"), path: "clients[0]", text: "did you mean redirect_uris?"},
		{name: "key of another section", yaml: issuerLine + "refresh_grace: 1s #!\n", text: "it belongs in tokens"},
		{name: "key of a list's section", yaml: issuerLine + "scopes: [a] #!\n", text: "it belongs in clients[]"},
		{name: "unknown key, far", yaml: issuerLine + "log:\n  colour: red #!\n", path: "log", text: "known here: level"},
		{name: "unknown key, not repeated", yaml: issuerLine + "log:\n  S3cret-in-place-of-a-key: red #!\n", path: "log", text: "log: unknown key; known here"},
		{name: "key in capitals", yaml: issuerLine + "Listen: :80 #!\n", text: "did you mean listen?"},
		{name: "key is a list", yaml: issuerLine + "? [a] #!\n: b\n", text: "unknown key"},
		{name: "duplicate key", yaml: issuerLine + "log: {level: info}\nlog: {level: debug} #!\n", path: "log", text: "line 2 has it already"},
		{name: "alias", yaml: issuerLine + "log: &l {level: info}\ntls: *l #!\n", path: "tls", text: "aliases"},
		{name: "merge key", yaml: issuerLine + "log: {level: info}\ntls:\n  <<: {cert_file: a} #!\n", path: "tls", text: "merge keys"},
		{name: "section is a value", yaml: issuerLine + "tls: yes #!\n", path: "tls", text: "must be a section"},
		{name: "list is a value", yaml: issuerLine + "clients: yes #!\n", path: "clients", text: "must be a list"},
		{name: "value is a list", yaml: issuerLine + "listen: [a] #!\n", path: "listen", text: "must be a single value"},
		{name: "list entry is a value", yaml: issuerLine + "clients: [x] #!\n", path: "clients[0]", text: "must be a section"},
		{name: "list entry is null", yaml: issuerLine + "clients:\n  - #!\n", path: "clients[0]", text: "is empty"},
		{name: "duration without unit", yaml: issuerLine + "tokens:\n  id_token_lifetime: 900 #!\n", path: "tokens.id_token_lifetime", text: "with its unit"},
		{name: "duration in days", yaml: issuerLine + "tokens:\n  id_token_lifetime: 1d #!\n", path: "tokens.id_token_lifetime", text: "720h"},
		{name: "bool as text", yaml: issuerLine + "keys: {eddsa: yes} #!\n", path: "keys.eddsa", text: "true or false"},
		{name: "number as text", yaml: issuerLine + "rate_limits: {requests_per_ip_per_minute: many} #!\n", path: "rate_limits.requests_per_ip_per_minute", text: "whole number"},
		{name: "number as fraction", yaml: issuerLine + "rate_limits: {requests_per_ip_per_minute: 1.5} #!\n", path: "rate_limits.requests_per_ip_per_minute", text: "whole number"},
		{name: "text as number", yaml: issuerLine + "master_key_file: 0123 #!\n", path: "master_key_file", text: "put it in quotes"},
		{name: "secret that YAML reads as a number", yaml: issuerLine + "wechat:\n  apps:\n    - appid: wx1\n      secret: 12345678901234567890123456789012 #!\n", path: "wechat.apps[0].secret", text: "put it in quotes"},
		{name: "control character", yaml: issuerLine + "master_key_file: \"a\\nb\" #!\n", path: "master_key_file", text: "control characters"},
		{name: "reference outside a secret", yaml: issuerLine + "listen: ${LISTEN} #!\n", path: "listen", text: "only secrets do"},
	})
}

func TestFaultsOfServerKeys(t *testing.T) {
	runFaults(t, []faultRow{
		{name: "listen", yaml: issuerLine + "listen: '8080' #!\n", path: "listen", text: "host:port"},
		{name: "listen port", yaml: issuerLine + "listen: 127.0.0.1:99999 #!\n", path: "listen", text: "host:port"},
		{name: "Threat89 plain http off loopback", yaml: issuerLine + "listen: :8080 #!\n", path: "listen", text: "plain HTTP off loopback"},
		{name: "Threat85 admin off loopback", yaml: issuerLine + "admin: {listen: '0.0.0.0:8081'} #!\n", path: "admin.listen", text: "admin.token_file"},
		{name: "admin on the public port", yaml: issuerLine + "admin: {listen: '127.0.0.1:8080'} #!\n", path: "admin.listen", text: "same as listen"},
		{name: "socket too long", yaml: issuerLine + "admin: {socket: /" + strings.Repeat("a", 107) + "} #!\n", path: "admin.socket", text: "107 bytes"},
		{name: "token file missing", yaml: issuerLine + "admin: {token_file: nowhere} #!\n", path: "admin.token_file", text: "no such file"},
		{name: "tls half", yaml: issuerLine + "tls: {cert_file: a.pem} #!\n", path: "tls.cert_file", text: "key_file is missing"},
		{name: "tls other half", yaml: issuerLine + "tls: {key_file: a.pem} #!\n", path: "tls.key_file", text: "cert_file is missing"},
		{name: "Threat82 trust everybody", yaml: issuerLine + "trusted_proxies: [0.0.0.0/0] #!\n", path: "trusted_proxies[0]", text: "so wide"},
		{name: "Threat82 trust half", yaml: issuerLine + "trusted_proxies: ['10.0.0.0/8', '128.0.0.0/1'] #!\n", path: "trusted_proxies[1]", text: "so wide"},
		{name: "Threat82 trust everybody in IPv6", yaml: issuerLine + "trusted_proxies: ['::/0'] #!\n", path: "trusted_proxies[0]", text: "so wide"},
		{name: "Threat82 trust everybody mapped", yaml: issuerLine + "trusted_proxies: ['::ffff:0:0/96'] #!\n", path: "trusted_proxies[0]", text: "write it as IPv4"},
		{name: "proxy without mask", yaml: issuerLine + "trusted_proxies: [192.0.2.7] #!\n", path: "trusted_proxies[0]", text: "/32"},
		{name: "storage driver", yaml: issuerLine + "storage: {driver: mysql} #!\n", path: "storage.driver", text: "known driver"},
		{name: "postgres", yaml: issuerLine + "storage: {driver: postgres} #!\n", path: "storage.postgres.dsn", text: "is missing"},
		{name: "bolt path", yaml: issuerLine + "storage: {bolt: {path: ''}} #!\n", path: "storage.bolt.path", text: "is missing"},
		{name: "dsn twice", yaml: issuerLine + "storage: {postgres: {dsn: x, dsn_file: config.yaml}} #!\n", path: "storage.postgres.dsn_file", text: "dsn is set too"},
		{name: "access token too long", yaml: issuerLine + "tokens: {access_token_lifetime: 25h} #!\n", path: "tokens.access_token_lifetime", text: "1s to 24h"},
		{name: "access token too short", yaml: issuerLine + "tokens: {access_token_lifetime: 0} #!\n", path: "tokens.access_token_lifetime", text: "1s to 24h"},
		{name: "id token too long", yaml: issuerLine + "tokens: {id_token_lifetime: 25h} #!\n", path: "tokens.id_token_lifetime", text: "1s to 24h"},
		{name: "idle beyond absolute", yaml: issuerLine + "tokens: {refresh_token_idle_lifetime: 5000h} #!\n", path: "tokens.refresh_token_idle_lifetime", text: "longer than refresh_token_absolute_lifetime"},
		{name: "absolute too long", yaml: issuerLine + "tokens: {refresh_token_absolute_lifetime: 50000h} #!\n", path: "tokens.refresh_token_absolute_lifetime", text: "43800h"},
		{name: "grace too long", yaml: issuerLine + "tokens: {refresh_grace: 61s} #!\n", path: "tokens.refresh_grace", text: "0 to 60s"},
		{name: "grace negative", yaml: issuerLine + "tokens: {refresh_grace: -1s} #!\n", path: "tokens.refresh_grace", text: "0 to 60s"},
		{name: "grace beyond idle", yaml: issuerLine + "tokens: {refresh_token_idle_lifetime: 10s, refresh_grace: 10s} #!\n", path: "tokens.refresh_grace", text: "not shorter"},
		{name: "access token alg", yaml: issuerLine + "tokens: {access_token_signing_alg: HS256} #!\n", path: "tokens.access_token_signing_alg", text: "ES256, RS256, EdDSA"},
		{name: "EdDSA without its keys", yaml: issuerLine + "tokens: {access_token_signing_alg: EdDSA} #!\n", path: "tokens.access_token_signing_alg", text: "keys.eddsa: true"},
		{name: "publish_ahead", yaml: issuerLine + "keys: {publish_ahead: 900ms} #!\n", path: "keys.publish_ahead", text: "1s to"},
		{name: "rotate before published", yaml: issuerLine + "keys: {rotate_every: 24h} #!\n", path: "keys.rotate_every", text: "not longer than publish_ahead"},
		{name: "nickname empty", yaml: issuerLine + "users: {default_nickname: ''} #!\n", path: "users.default_nickname", text: "1 to 64"},
		{name: "nickname numbers", yaml: issuerLine + "users: {default_nickname: '{n}{n}'} #!\n", path: "users.default_nickname", text: "more than once"},
		{name: "picture", yaml: issuerLine + "users: {default_picture: 'http://x.example/a.png'} #!\n", path: "users.default_picture", text: "https"},
		{name: "rate limit", yaml: issuerLine + "rate_limits: {sign_ins_per_client_per_minute: 0} #!\n", path: "rate_limits.sign_ins_per_client_per_minute", text: "rate_limits.disabled"},
		{name: "reserve", yaml: issuerLine + "rate_limits: {wechat_reserve_percent: 91} #!\n", path: "rate_limits.wechat_reserve_percent", text: "0 to 90"},
		{name: "log level", yaml: issuerLine + "log: {level: loud} #!\n", path: "log.level", text: "debug, info, warn, error"},
		{name: "wechat over http", yaml: issuerLine + "wechat: {base_url: 'http://api.weixin.qq.com'} #!\n", path: "wechat.base_url", text: "loopback only"},
		{name: "wechat with query", yaml: issuerLine + "wechat: {base_url: 'https://api.weixin.qq.com?a=b'} #!\n", path: "wechat.base_url", text: "no query"},
		{name: "wechat timeout", yaml: issuerLine + "wechat: {timeout: 1m} #!\n", path: "wechat.timeout", text: "100ms to 10s"},
		{name: "appid missing", yaml: issuerLine + "wechat: {apps: [{secret: abc}]} #!\n", path: "wechat.apps[0].appid", text: "is missing"},
		{name: "appid form", yaml: issuerLine + "wechat: {apps: [{appid: 'a b', secret: abc}]} #!\n", path: "wechat.apps[0].appid", text: "1 to 64"},
		{name: "appid twice", yaml: issuerLine + "wechat:\n  apps:\n    - {appid: a, secret: abc}\n    - {appid: a, secret: abc} #!\n", path: "wechat.apps[1].appid", text: "wechat.apps[0]"},
		{name: "Threat88 push without encryption", yaml: issuerLine + "wechat: {apps: [{appid: a, secret: \"${SECRET}\", message_push: {token: \"${PUSH}\"}}]} #!\n", env: []string{"SECRET=s", "PUSH=abc"}, path: "wechat.apps[0].message_push.encoding_aes_key", text: "could be forged"},
		{name: "push without token", yaml: issuerLine + "wechat: {apps: [{appid: a, secret: \"${SECRET}\", message_push: {encoding_aes_key: \"${PUSH}\"}}]} #!\n", env: []string{"SECRET=s", "PUSH=" + strings.Repeat("k", 43)}, path: "wechat.apps[0].message_push.token", text: "is missing"},
		{name: "push token", yaml: issuerLine + "wechat: {apps: [{appid: a, secret: \"${SECRET}\", message_push: {encoding_aes_key: \"${PUSH}\", token: \"${SECRET}\"}}]} #!\n", env: []string{"SECRET=s!", "PUSH=" + strings.Repeat("k", 43)}, path: "wechat.apps[0].message_push.token", text: "letters and digits"},
		{name: "verifier without secret", yaml: issuerLine + "accounts: {verifier: {url: 'https://x.example/'}} #!\n", path: "accounts.verifier.secret", text: "is missing"},
		{name: "verifier without url", yaml: issuerLine + "accounts: {verifier: {secret: \"${SECRET}\"}} #!\n", env: []string{"SECRET=" + strong}, path: "accounts.verifier.url", text: "is missing"},
		{name: "verifier over http", yaml: issuerLine + "accounts: {verifier: {url: 'http://x.example/', secret: \"${SECRET}\"}} #!\n", env: []string{"SECRET=" + strong}, path: "accounts.verifier.url", text: "https"},
		{name: "verifier with a weak secret", yaml: issuerLine + "accounts: {verifier: {url: 'https://x.example/', secret: \"${SECRET}\"}} #!\n", env: []string{"SECRET=short"}, path: "accounts.verifier.secret", text: "must be random"},
		{name: "verifier timeout", yaml: issuerLine + "accounts: {verifier: {timeout: 1m}} #!\n", path: "accounts.verifier.timeout", text: "100ms to 10s"},
		{name: "wrong passwords", yaml: issuerLine + "rate_limits: {wrong_passwords_per_ip: 0} #!\n", path: "rate_limits.wrong_passwords_per_ip", text: "1 to 65535"},
		{name: "appsecret missing", yaml: issuerLine + "wechat: {apps: [{appid: a}]} #!\n", path: "wechat.apps[0].secret", text: "AppSecret is missing"},
		{name: "appsecret form", yaml: issuerLine + "wechat: {apps: [{appid: a, secret: a b}]} #!\n", path: "wechat.apps[0].secret", text: "visible ASCII"},
		{name: "appsecret twice", yaml: issuerLine + "wechat: {apps: [{appid: a, secret: a, secret_file: config.yaml}]} #!\n", path: "wechat.apps[0].secret_file", text: "keep one"},
		{name: "open platform", yaml: issuerLine + "wechat: {apps: [{appid: a, secret: a, open_platform: " + strings.Repeat("x", 65) + "}]} #!\n", path: "wechat.apps[0].open_platform", text: "64 bytes"},
	})
}

func TestFaultsOfClients(t *testing.T) {
	secretLine := "client_secret: " + strong
	runFaults(t, []faultRow{
		{name: "id missing", yaml: issuerLine + client("type: confidential #!", secretLine, "grant_types: [client_credentials]"), path: "clients[0].client_id", text: "is missing"},
		{name: "id form", yaml: issuerLine + client("client_id: a b #!", "type: confidential", secretLine, "grant_types: [client_credentials]"), path: "clients[0].client_id", text: "A-Z"},
		{name: "Threat29 id like a sub", yaml: issuerLine + client("client_id: AAAAAAAAAAAAAAAAAAAA-_ #!", "type: confidential", secretLine, "grant_types: [client_credentials]"), path: "clients[0].client_id", text: "user's sub"},
		{name: "id twice", yaml: issuerLine + confidentialClient(secretLine) + "  - {client_id: orders-api, type: confidential, client_secret: " + strong + ", grant_types: [client_credentials]} #!\n", path: "clients[1].client_id", text: "clients[0]"},
		{name: "name", yaml: issuerLine + publicClient("name: "+strings.Repeat("店", 129)+" #!"), path: "clients[0].name", text: "128"},
		{name: "type missing", yaml: issuerLine + client("client_id: a #!", "grant_types: [client_credentials]"), path: "clients[0].type", text: "public for what"},
		{name: "type unknown", yaml: issuerLine + client("client_id: a", "type: native #!", "grant_types: [refresh_token]"), path: "clients[0].type", text: "public, confidential"},
		{name: "no grant", yaml: issuerLine + client("client_id: a", "type: confidential", secretLine, "grant_types: [] #!"), path: "clients[0].grant_types", text: "could do nothing"},
		{name: "grant unknown", yaml: issuerLine + client("client_id: a", "type: confidential", secretLine, "grant_types: [password] #!"), path: "clients[0].grant_types[0]", text: "wechat_jscode, wechat_phone, authorization_code, urn:ietf:params:oauth:grant-type:device_code, refresh_token, client_credentials"},
		{name: "grant twice", yaml: issuerLine + client("client_id: a", "type: confidential", secretLine, "grant_types: [client_credentials, client_credentials] #!"), path: "clients[0].grant_types[1]", text: "same as entry 0"},
		{name: "public client_credentials", yaml: issuerLine + client("client_id: a", "type: public", "grant_types: [client_credentials] #!"), path: "clients[0].grant_types[0]", text: "confidential clients only"},
		{name: "appid missing", yaml: issuerLine + client("client_id: a #!", "type: public", "grant_types: [wechat_jscode]"), path: "clients[0].wechat_appid", text: "wechat_jscode needs it"},
		{name: "appid unknown", yaml: issuerLine + appsSection + client("client_id: a", "type: public", "wechat_appid: wx2 #!", "grant_types: [wechat_jscode]"), path: "clients[0].wechat_appid", text: "not the appid"},
		{name: "public with auth", yaml: issuerLine + publicClient("token_endpoint_auth_method: client_secret_post #!"), path: "clients[0].token_endpoint_auth_method", text: "must be none"},
		{name: "public with secret", yaml: issuerLine + publicClient(secretLine+" #!"), path: "clients[0].client_secret", text: "public client has no secret"},
		{name: "Threat68 public client with wechat.data", yaml: issuerLine + publicClient("scopes: [wechat.data] #!"), path: "clients[0].scopes", text: "confidential clients only"},
		{name: "wechat.data for nobody", yaml: issuerLine + confidentialClient(secretLine, "scopes: [wechat.data] #!"), path: "clients[0].scopes", text: "needs an audience"},
		{name: "wechat_phone without an app", yaml: issuerLine + client("client_id: a #!", "type: public", "grant_types: [wechat_phone]"), path: "clients[0].wechat_appid", text: "wechat_phone needs it"},
		{name: "public introspecting", yaml: issuerLine + publicClient("introspection: true #!"), path: "clients[0].introspection", text: "confidential clients only"},
		{name: "introspecting for nobody", yaml: issuerLine + confidentialClient(secretLine, "introspection: true #!"), path: "clients[0].introspection", text: "needs an audience"},
		{name: "token too long", yaml: issuerLine + publicClient("audience: ["+longList(9)+"] #!"), path: "clients[0].audience", text: "at most 4096"},
		{name: "public without PKCE", yaml: issuerLine + publicClient("require_pkce: false #!"), path: "clients[0].require_pkce", text: "must be true"},
		{name: "confidential without auth", yaml: issuerLine + confidentialClient("token_endpoint_auth_method: none #!"), path: "clients[0].token_endpoint_auth_method", text: "must authenticate"},
		{name: "auth method unknown", yaml: issuerLine + confidentialClient("token_endpoint_auth_method: tls_client_auth #!"), path: "clients[0].token_endpoint_auth_method", text: "private_key_jwt"},
		{name: "no secret", yaml: issuerLine + client("client_id: a #!", "type: confidential", "grant_types: [client_credentials]"), path: "clients[0].client_secret", text: "needs a secret"},
		{name: "empty secret", yaml: issuerLine + confidentialClient("client_secret: '' #!"), path: "clients[0].client_secret", text: "needs a secret"},
		{name: "no secrets", yaml: issuerLine + client("client_id: a #!", "type: confidential", "grant_types: [client_credentials]", "client_secrets: []"), path: "clients[0].client_secret", text: "needs a secret"},
		{name: "two forms", yaml: issuerLine + confidentialClient("client_secret: "+strong, "client_secret_hash: sha256$"+strings.Repeat("a", 64)+" #!"), path: "clients[0].client_secret_hash", text: "keep one"},
		{name: "secret and file", yaml: issuerLine + confidentialClient("client_secret: "+strong, "client_secret_file: nowhere #!"), path: "clients[0].client_secret_file", text: "keep one"},
		{name: "four secrets", yaml: issuerLine + confidentialClient("client_secrets: ["+strong+", "+strong+"1, "+strong+"2, "+strong+"3] #!"), path: "clients[0].client_secrets", text: "more than 3"},
		{name: "weak in a list", yaml: issuerLine + confidentialClient("client_secrets: ["+strong+", short] #!"), path: "clients[0].client_secrets[1]", text: "shorter than 32"},
		{name: "bad hash", yaml: issuerLine + confidentialClient("client_secret_hash: sha256$"+strings.Repeat("A", 64)+" #!"), path: "clients[0].client_secret_hash", text: "lower-case hex"},
		{name: "weak: short", yaml: issuerLine + confidentialClient("client_secret: hunter2 #!"), path: "clients[0].client_secret", text: "machine secrets must be random; try: openssl rand -base64 32"},
		{name: "weak: monotone", yaml: issuerLine + confidentialClient("client_secret: "+strings.Repeat("ab", 11)+strings.Repeat("cd", 12)+" #!"), path: "clients[0].client_secret", text: "few different"},
		{name: "weak: repeated", yaml: issuerLine + confidentialClient("client_secret: "+strings.Repeat("abcdefghijkl", 4)+" #!"), path: "clients[0].client_secret", text: "repeats itself"},
		{name: "weak: words", yaml: issuerLine + confidentialClient("client_secret: please-ChangeMe-to-something-better-0123 #!"), path: "clients[0].client_secret", text: "made of words"},
		{name: "long", yaml: issuerLine + confidentialClient("client_secret: "+strings.Repeat(strong, 26)+"x #!"), path: "clients[0].client_secret", text: "1024"},
		{name: "not ASCII", yaml: issuerLine + confidentialClient("client_secret: 密"+strong+" #!"), path: "clients[0].client_secret", text: "ASCII"},
		{name: "jwks for a secret", yaml: issuerLine + confidentialClient(secretLine, "jwks_file: config.yaml #!"), path: "clients[0].jwks_file", text: "of no use"},
		{name: "assertion alg for a secret", yaml: issuerLine + confidentialClient(secretLine, "token_endpoint_auth_signing_alg: RS256 #!"), path: "clients[0].token_endpoint_auth_signing_alg", text: "of no use"},
		{name: "private_key_jwt without keys", yaml: issuerLine + client("client_id: a #!", "type: confidential", "grant_types: [client_credentials]", "token_endpoint_auth_method: private_key_jwt"), path: "clients[0].jwks_file", text: "is missing"},
		{name: "jwks missing", yaml: issuerLine + confidentialClient("token_endpoint_auth_method: private_key_jwt", "jwks_file: nowhere #!"), path: "clients[0].jwks_file", text: "no such file"},
		{name: "ID Token alg", yaml: issuerLine + publicClient("id_token_signed_response_alg: none #!"), path: "clients[0].id_token_signed_response_alg", text: "ES256, RS256, EdDSA"},
		{name: "ID Token EdDSA", yaml: issuerLine + publicClient("id_token_signed_response_alg: EdDSA #!"), path: "clients[0].id_token_signed_response_alg", text: "keys.eddsa"},
		{name: "scope characters", yaml: issuerLine + publicClient("scopes: [openid, 'a b'] #!"), path: "clients[0].scopes[1]", text: "one scope per entry"},
		{name: "scope twice", yaml: issuerLine + publicClient("scopes: [openid, openid] #!"), path: "clients[0].scopes[1]", text: "same as entry 0"},
		{name: "default scope", yaml: issuerLine + publicClient("scopes: [openid]", "default_scopes: [profile] #!"), path: "clients[0].default_scopes[0]", text: "not one of"},
		{name: "audience empty", yaml: issuerLine + publicClient("audience: [''] #!"), path: "clients[0].audience[0]", text: "visible ASCII"},
		{name: "back-channel", yaml: issuerLine + publicClient("backchannel_logout_uri: http://127.0.0.1/x #!"), path: "clients[0].backchannel_logout_uri", text: "https"},
		{name: "Threat87 wildcard redirect", yaml: issuerLine + client("client_id: a", "type: public", "grant_types: [authorization_code]", "redirect_uris:", "  - https://ok.example/cb", "  - https://*.example/cb #!"), path: "clients[0].redirect_uris[1]", text: "wildcards"},
		{name: "Threat87 http post-logout", yaml: issuerLine + publicClient("post_logout_redirect_uris: ['http://shop.example/'] #!"), path: "clients[0].post_logout_redirect_uris[0]", text: "must be https"},
	})
}

func TestFaultsOfTheEnvironment(t *testing.T) {
	runFaults(t, []faultRow{
		{name: "unknown", yaml: issuerLine, env: []string{"WXIDP_ISSUR=https://x.example"}, path: "WXIDP_ISSUR", text: "did you mean WXIDP_ISSUER?"},
		{name: "unknown, far", yaml: issuerLine, env: []string{"WXIDP_PANTS=1"}, path: "WXIDP_PANTS", text: "sets no key"},
		{name: "list of clients", yaml: issuerLine, env: []string{"WXIDP_CLIENTS=[]"}, path: "WXIDP_CLIENTS", text: "set in the file"},
		{name: "bad duration", yaml: issuerLine + "tokens: {refresh_grace: 5s}\n", env: []string{"WXIDP_TOKENS_REFRESH_GRACE=5"}, path: "WXIDP_TOKENS_REFRESH_GRACE", text: "with its unit"},
		{name: "out of bounds", yaml: issuerLine, env: []string{"WXIDP_TOKENS_REFRESH_GRACE=5m"}, path: "WXIDP_TOKENS_REFRESH_GRACE", text: "0 to 60s"},
		{name: "bad bool", yaml: issuerLine, env: []string{"WXIDP_KEYS_EDDSA=perhaps"}, path: "WXIDP_KEYS_EDDSA", text: "true or false"},
		{name: "bad network", yaml: issuerLine, env: []string{"WXIDP_TRUSTED_PROXIES=10.0.0.0/8,proxy"}, path: "WXIDP_TRUSTED_PROXIES", text: "every entry"},
		{name: "control character", yaml: issuerLine, env: []string{"WXIDP_LISTEN=a\nb"}, path: "WXIDP_LISTEN", text: "control characters"},
	})
}

func TestFaultsOfFileModes(t *testing.T) {
	runFaults(t, []faultRow{
		{name: "Threat87 inline secret in a 0644 file", mode: 0o644, yaml: issuerLine + confidentialClient("client_secret: "+strong+" #!"), path: "clients[0].client_secret", text: "chmod 600"},
		{name: "Threat87 group-readable", mode: 0o604, yaml: issuerLine + "wechat: {apps: [{appid: a, secret: abc}]} #!\n", path: "wechat.apps[0].secret", text: "other users can read"},
		{name: "reference missing", mode: 0o644, yaml: issuerLine + confidentialClient("client_secret: ${NOT_THERE} #!"), path: "clients[0].client_secret", text: "NOT_THERE is missing or empty"},
		{name: "reference empty", env: []string{"EMPTY="}, yaml: issuerLine + confidentialClient("client_secret: ${EMPTY} #!"), path: "clients[0].client_secret", text: "EMPTY is missing or empty"},
		{name: "reference in a longer value", env: []string{"A=b"}, yaml: issuerLine + confidentialClient("client_secret: x${A} #!"), path: "clients[0].client_secret", text: "NAME is all of the value"},
	})
	f := newFolder(t)
	f.write("open", strong, 0o644)
	f.write("empty", "\n", 0o600)
	f.write("spaced", strong+" "+strong+"x", 0o600)
	f.write("large", strings.Repeat("a", 64<<10+1), 0o600)
	if err := os.Mkdir(f.path("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("open", f.path("link-to-open")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"open": "chmod 600", "link-to-open": "chmod 600", "empty": "the file is empty", "large": "too large",
		"folder": "is a directory", "nowhere": "no such file", "/dev/null": "not a regular file",
	} {
		t.Run("secret file "+name, func(t *testing.T) {
			faultRow{
				yaml: issuerLine + confidentialClient("client_secret_file: "+name+" #!"),
				path: "clients[0].client_secret_file", text: want,
			}.run(t, f)
		})
	}
	for name, want := range map[string]string{"open": "chmod 600", "empty": "the file is empty", "spaced": "bearer token cannot have"} {
		t.Run("token file "+name, func(t *testing.T) {
			faultRow{yaml: issuerLine + "admin: {token_file: " + name + "} #!\n", path: "admin.token_file", text: want}.run(t, f)
		})
	}
}

// TestThreat87SecretsOfRoot: a service manager hands secrets to a group by files
// of root, which is accepted; a group that anybody else named is not.
func TestThreat87SecretsOfRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	f := newFolder(t)
	inFile := issuerLine + confidentialClient("client_secret_file: secret #!")
	for _, row := range []struct {
		mode   os.FileMode
		byRoot bool
		good   bool
	}{
		{0o440, true, true}, {0o640, true, true}, {0o600, true, true}, {0o600, false, true}, {0o400, false, true},
		{0o640, false, false}, {0o440, false, false}, {0o660, true, false}, {0o644, true, false}, {0o444, true, false}, {0o650, true, false},
	} {
		owner := 0
		if !row.byRoot {
			owner = 65532
		}
		if err := os.Chown(f.write("secret", strong, row.mode), owner, 65532); err != nil {
			t.Fatal(err)
		}
		_, err := f.load(inFile)
		if good := err == nil; good != row.good {
			t.Errorf("a secret of mode %04o, by root: %v: %v", row.mode, row.byRoot, err)
		}
		if err := os.Chown(f.write("inline.yaml", issuerLine+confidentialClient("client_secret: "+strong), row.mode), owner, 65532); err != nil {
			t.Fatal(err)
		}
		_, err = Load(f.path("inline.yaml"), nil)
		if good := err == nil; good != row.good {
			t.Errorf("a config file of mode %04o, by root: %v: %v", row.mode, row.byRoot, err)
		}
	}
}

func TestFaultsOfTLS(t *testing.T) {
	f := newFolder(t)
	cert, key := certificate(t)
	_, otherKey := certificate(t)
	f.write("cert.pem", cert, 0o644)
	f.write("key.pem", key, 0o600)
	f.write("other.pem", otherKey, 0o600)
	f.write("open.pem", key, 0o644)
	for _, row := range []faultRow{
		{name: "other key", yaml: issuerLine + "tls: {cert_file: cert.pem, key_file: other.pem} #!\n", path: "tls.cert_file", text: "not a certificate and its private key"},
		{name: "open key", yaml: issuerLine + "tls: {cert_file: cert.pem, key_file: open.pem} #!\n", path: "tls.key_file", text: "chmod 600"},
		{name: "no cert", yaml: issuerLine + "tls: {cert_file: nowhere, key_file: key.pem} #!\n", path: "tls.cert_file", text: "no such file"},
	} {
		t.Run(row.name, func(t *testing.T) { row.run(t, f) })
	}
	c := f.mustLoad(issuerLine + "listen: :8443\ntls: {cert_file: cert.pem, key_file: key.pem}\n")
	if !c.TLS.Enabled() || c.TLS.KeyFile != f.path("key.pem") {
		t.Errorf("TLS is %+v", c.TLS)
	}
}

func TestFaultsOfJWKS(t *testing.T) {
	p256, p384 := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P384())
	sig := func(id string, key any) jose.JSONWebKey { return jose.JSONWebKey{KeyID: id, Use: "sig", Key: key} }
	many := make([]jose.JSONWebKey, 17)
	for i := range many {
		many[i] = sig(fmt.Sprint(i), p256.Public())
	}
	for _, row := range []struct{ name, alg, set, want string }{
		{"not JSON", "ES256", "canary", "not a JWK Set"},
		{"a bare key", "ES256", `{"kty":"EC"}`, "not a JWK Set"},
		{"no keys", "ES256", `{"keys":[]}`, "1 to 16"},
		{"many keys", "ES256", jwks(t, many...), "1 to 16"},
		{"private key", "ES256", jwks(t, sig("a", p256)), "private or symmetric"},
		{"private member in capitals", "ES256", strings.Replace(jwks(t, sig("a", p256)), `"d":`, `"D":`, 1), "private or symmetric"},
		{"symmetric key", "ES256", `{"keys":[{"kty":"oct","k":"AAAA","kid":"a","use":"sig"}]}`, "private or symmetric"},
		{"unknown kty", "ES256", `{"keys":[{"kty":"XX","kid":"a","use":"sig"}]}`, "not a valid RSA or EC"},
		{"point off the curve", "ES256", `{"keys":[{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","kid":"a","use":"sig"}]}`, "not a valid RSA or EC"},
		{"Ed25519", "ES256", `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a","use":"sig"}]}`, "neither RSA nor EC"},
		{"no kid", "ES256", jwks(t, sig("", p256.Public())), "no kid"},
		{"kid twice", "ES256", jwks(t, sig("a", p256.Public()), sig("a", p384.Public())), "same kid"},
		{"no use", "ES256", jwks(t, jose.JSONWebKey{KeyID: "a", Key: p256.Public()}), `"use": "sig"`},
		{"use enc", "ES256", jwks(t, jose.JSONWebKey{KeyID: "a", Use: "enc", Key: p256.Public()}), `"use": "sig"`},
		{"small RSA", "RS256", jwks(t, sig("a", publicRSA(1024, 65537))), "2048"},
		{"weak exponent", "RS256", jwks(t, sig("a", publicRSA(2048, 3))), "exponent"},
		{"long kid", "ES256", jwks(t, sig(strings.Repeat("a", 257), p256.Public())), "256"},
		{"RSA for ES256", "ES256", jwks(t, sig("a", publicRSA(2048, 65537))), "fits token_endpoint_auth_signing_alg"},
		{"P-384 for ES256", "ES256", jwks(t, sig("a", p384.Public())), "fits token_endpoint_auth_signing_alg"},
		{"other alg", "RS256", jwks(t, jose.JSONWebKey{KeyID: "a", Use: "sig", Algorithm: "PS256", Key: publicRSA(2048, 65537)}), "fits token_endpoint_auth_signing_alg"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFolder(t)
			f.write("keys.json", row.set, 0o644)
			faultRow{
				yaml: issuerLine + confidentialClient("token_endpoint_auth_method: private_key_jwt", "token_endpoint_auth_signing_alg: "+row.alg, "jwks_file: keys.json #!"),
				path: "clients[0].jwks_file", text: row.want,
			}.run(t, f)
		})
	}
	f := newFolder(t)
	set := jwks(t, sig("a", publicRSA(2048, 65537)), sig("b", p256.Public()))
	f.write("keys.json", set, 0o644)
	f.write("config.yaml", "", 0o600)
	c := f.mustLoad(issuerLine + confidentialClient("token_endpoint_auth_method: private_key_jwt", "jwks_file: keys.json"))
	if got := c.Clients[0]; string(got.JWKS) != set || got.TokenEndpointAuthSigningAlg != "RS256" || len(got.SecretHashes) != 0 {
		t.Errorf("client is %+v", got)
	}
	faultRow{
		yaml: issuerLine + confidentialClient("token_endpoint_auth_method: private_key_jwt", "jwks_file: keys.json", "client_secret: "+strong+" #!"),
		path: "clients[0].client_secret", text: "of no use",
	}.run(t, f)
}

func TestAllFaultsAtOnceInTheOrderOfTheFile(t *testing.T) {
	f := newFolder(t)
	_, err := f.load(`listen: nowhere
tokens:
  access_token_lifetime: forever
clients:
  - client_id: a
    type: public
    grant_types: [client_credentials, authorization_code]
    redirect_uris: [https://ok.example/, "http://x.example/"]
  - client_id: a
    wat: 1
`, "WXIDP_NOPE=1")
	var got []string
	for _, fault := range faultsOf(t, err) {
		got = append(got, fmt.Sprintf("%d %s", fault.Line, fault.Path))
	}
	want := []string{
		"0 issuer", "1 listen", "3 tokens.access_token_lifetime",
		"7 clients[0].grant_types[0]", "8 clients[0].redirect_uris[1]",
		"9 clients[1].client_id", "9 clients[1].type", "9 clients[1].grant_types", "10 clients[1]",
		"0 WXIDP_NOPE",
	}
	wantLines(t, got, want)
	if lines := strings.Split(err.Error(), "\n"); len(lines) != len(want) || !strings.HasPrefix(lines[4], f.path("config.yaml")+":8: clients[0].redirect_uris[1]: ") {
		t.Errorf("printed as\n%v", err)
	}
}

func wantLines(t *testing.T, got, want []string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestManyFaultsPrintBounded(t *testing.T) {
	_, err := newFolder(t).load(issuerLine + "trusted_proxies:\n" + strings.Repeat("  - x\n", 5000))
	if n := len(faultsOf(t, err)); n != 5000 {
		t.Errorf("%d faults", n)
	}
	if text := err.Error(); !strings.HasSuffix(text, "… and 4900 more") {
		t.Errorf("ends with %q", text[len(text)-40:])
	}
}

// TestHostileFilesAreCheap bounds what a file of the largest size can cost.
func TestHostileFilesAreCheap(t *testing.T) {
	for name, text := range map[string]string{
		"nesting":        strings.Repeat("[", maxConfigFile),
		"mappings":       strings.Repeat("{a: ", maxConfigFile/4),
		"unknown keys":   issuerLine + strings.Repeat("lisen: 1\n", 100_000),
		"duplicate keys": issuerLine + strings.Repeat("log: {}\n", 100_000),
		"aliases":        "a: &a [1,1,1,1]\nb: &b [*a,*a,*a,*a]\nc: [" + strings.Repeat("*b,", 100_000) + "*b]\n",
		"too large":      strings.Repeat("#", maxConfigFile+1),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newFolder(t).load(text)
			if len(faultsOf(t, err).Error()) > 64<<10 {
				t.Error("the message is long")
			}
		})
	}
}

// longList is n different YAML entries of 500 characters.
func longList(n int) string {
	var entries []string
	for i := range n {
		entries = append(entries, strings.Repeat(string(rune('a'+i)), 500))
	}
	return strings.Join(entries, ", ")
}
