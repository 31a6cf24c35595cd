package config

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

// defaults is what a file with nothing but issuerLine means.
func (f folder) defaults() *Config {
	c := Default()
	c.Issuer = "https://id.example.com"
	c.Admin.Socket = f.path("data/admin.sock")
	c.Storage.Bolt.Path = f.path("data/wxidp.db")
	c.MasterKeyFile = f.path("data/master.key")
	c.Scan.Link = "https://id.example.com/scan"
	c.Brand.Name = "id.example.com"
	return c
}

func TestDefaultsOfAnEmptyFile(t *testing.T) {
	f := newFolder(t)
	c := f.mustLoad(issuerLine)
	want := f.defaults()
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if c.Log.SlogLevel() != slog.LevelInfo || (Log{Level: "debug"}).SlogLevel() != slog.LevelDebug {
		t.Error("log level is not translated")
	}
}

func TestEveryKeyIsRead(t *testing.T) {
	f := newFolder(t)
	f.write("secrets/app", "abcdef\r\n", 0o400)
	f.write("token", strong+"\n", 0o600)
	f.write("secrets/aes", strings.Repeat("k", 43)+"\n", 0o600)
	f.write("secrets/verifier", strong+"\n", 0o600)
	f.write("secrets/salt", strong+"\n", 0o600)
	f.write("WX_check-1.txt", "abc\n", 0o644)
	f.write("logo", svgStart+"</svg>", 0o644)
	c := f.mustLoad(`
issuer: http://127.0.0.1:9000/id
listen: 0.0.0.0:9000
trusted_proxies: [10.1.2.3/8, "fd00::/8"]
admin: {listen: 0.0.0.0:9001, socket: /run/w.sock, token_file: token}
storage: {driver: bolt, bolt: {path: ../db}, postgres: {dsn: "${DSN}"}}
master_key_file: /etc/wxidp/master.key
tokens:
  access_token_lifetime: 1s
  access_token_signing_alg: EdDSA
  id_token_lifetime: 2s
  refresh_token_idle_lifetime: 3s
  refresh_token_absolute_lifetime: 4s
  refresh_grace: 0
  dpop_nonce: true
  pairwise_salt_file: secrets/salt
keys: {rotate_every: 3s, publish_ahead: 1s, eddsa: true}
login_sessions: {idle_lifetime: 1m, absolute_lifetime: 3m, scanned_lifetime: 2m}
wechat:
  base_url: http://127.0.0.1:8090/
  timeout: 150ms
  apps:
    - {appid: wx1, secret: "${WXIDP_APP_SECRET}", open_platform: main}
    - appid: wx2
      secret_file: secrets/app
      message_push: {token: "${PUSH}", encoding_aes_key_file: secrets/aes}
scan:
  appid: wx1
  code: wechat
  link: http://localhost:9000/s
  page: pages/scan/scan
  env_version: trial
  place_header: X-City
  verification_file: WX_check-1.txt
brand: {name: 店, color: "#00FF7f", logo_file: logo, privacy_uri: "https://x.example/p", terms_uri: "https://x.example/t"}
backchannel_logout: {allowed_networks: [192.0.2.1/24], timeout: 100ms}
accounts: {verifier: {url: "http://127.0.0.1:9/verify", secret_file: secrets/verifier, timeout: 200ms}}
users: {default_nickname: "u{n}", default_picture: "https://x.example/p.png"}
rate_limits:
  disabled: true
  requests_per_ip_per_minute: 1
  sign_ins_per_ip_per_minute: 2
  sign_ins_per_network_per_minute: 3
  sign_ins_per_client_per_minute: 4
  sign_ins_per_user_per_minute: 9
  wechat_calls_per_app_per_minute: 5
  wechat_reserve_percent: 0
  failed_client_auth_per_minute: 7
  introspection_misses_per_minute: 8
  wrong_passwords_per_account_and_ip: 10
  wrong_passwords_per_account: 11
  wrong_passwords_per_ip: 12
  wechat_data_per_user_per_minute: 13
  authorizations_per_ip_per_minute: 16
  scan_codes_per_ip_per_minute: 14
  ticket_misses_per_ip_per_minute: 15
log: {level: warn}
insecure: {allow_http_issuer: true, allow_world_readable_secrets: true}
clients:
  - client_id: app
    type: public
    wechat_appid: wx2
    grant_types: [wechat_jscode, wechat_phone, authorization_code, "urn:ietf:params:oauth:grant-type:device_code"]
    auto_create: false
    scopes: [device.approve]
    require_pushed_authorization_requests: true
    consent: skip
    default_max_age: 1s
    cors_origins: ["https://x.example", "http://localhost:5173"]
    access_token_lifetime: 1m
    id_token_lifetime: 2m
    refresh_token_idle_lifetime: 3m
    refresh_token_absolute_lifetime: 4m
    dpop_bound_access_tokens: true
    subject_type: pairwise
    sector_identifier: x.example
    id_token_signed_response_alg: ES256
    redirect_uris: ["http://127.0.0.1/cb", "http://[::1]:1/cb", "com.example.app:/cb", "https://x.example/cb?a=b", "http://localhost:3000/cb"]
  - client_id: api
    name: API
    type: confidential
    client_secret_hash: sha256$`+strings.Repeat("0", 64)+`
    token_endpoint_auth_method: client_secret_post
    require_pkce: false
    introspection: true
    scopes: [a, b, wechat.data]
    default_scopes: [b]
    audience: [x, "https://y.example"]
    post_logout_redirect_uris: ["https://x.example/"]
    backchannel_logout_uri: http://127.0.0.1:3000/out
`, "WXIDP_APP_SECRET=s3", "PUSH=abc", "DSN=postgres://u:p@h/d")

	secrets := []string{c.Admin.Token.Reveal(), c.Storage.Postgres.DSN.Reveal(), c.WeChat.Apps[0].Secret.Reveal(), c.WeChat.Apps[1].Secret.Reveal(),
		c.WeChat.Apps[1].MessagePush.Token.Reveal(), c.WeChat.Apps[1].MessagePush.EncodingAESKey.Reveal(), c.Accounts.Verifier.Secret.Reveal(), c.Tokens.PairwiseSalt.Reveal()}
	if want := []string{strong, "postgres://u:p@h/d", "s3", "abcdef", "abc", strings.Repeat("k", 43), strong, strong}; !slices.Equal(secrets, want) {
		t.Errorf("secrets are %q", secrets)
	}
	c.Admin.Token, c.Storage.Postgres.DSN, c.WeChat.Apps[0].Secret, c.WeChat.Apps[1].Secret = Default().Admin.Token, Default().Admin.Token, Default().Admin.Token, Default().Admin.Token
	c.Tokens.PairwiseSalt = Default().Admin.Token
	c.WeChat.Apps[1].MessagePush.Token, c.WeChat.Apps[1].MessagePush.EncodingAESKey, c.Accounts.Verifier.Secret = Default().Admin.Token, Default().Admin.Token, Default().Admin.Token
	want := &Config{
		Issuer:         "http://127.0.0.1:9000/id",
		Listen:         "0.0.0.0:9000",
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
		Admin:          Admin{Listen: "0.0.0.0:9001", Socket: "/run/w.sock", TokenFile: f.path("token")},
		Storage:        Storage{Driver: "bolt", Bolt: Bolt{Path: f.path("../db")}},
		MasterKeyFile:  "/etc/wxidp/master.key",
		Tokens: Tokens{AccessTokenLifetime: time.Second, AccessTokenSigningAlg: "EdDSA", IDTokenLifetime: 2 * time.Second,
			RefreshTokenIdleLifetime: 3 * time.Second, RefreshTokenAbsoluteLifetime: 4 * time.Second,
			DPoPNonce: true, PairwiseSaltFile: f.path("secrets/salt")},
		LoginSessions: LoginSessions{IdleLifetime: time.Minute, AbsoluteLifetime: 3 * time.Minute, ScannedLifetime: 2 * time.Minute},
		Scan: Scan{AppID: "wx1", Code: ScanCodeWeChat, Link: "http://localhost:9000/s", Page: "pages/scan/scan", EnvVersion: "trial", PlaceHeader: "X-City",
			VerificationFile: f.path("WX_check-1.txt"), VerificationName: "WX_check-1.txt", VerificationBody: []byte("abc\n")},
		Brand: Brand{Name: "店", Color: "#00FF7f", LogoFile: f.path("logo"), PrivacyURI: "https://x.example/p", TermsURI: "https://x.example/t",
			Logo: []byte(svgStart + "</svg>"), LogoType: "image/svg+xml"},
		BackchannelLogout: BackchannelLogout{AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Timeout: 100 * time.Millisecond},
		Keys:              Keys{RotateEvery: 3 * time.Second, PublishAhead: time.Second, EdDSA: true},
		WeChat: WeChat{BaseURL: "http://127.0.0.1:8090", Timeout: 150 * time.Millisecond, Apps: []App{
			{AppID: "wx1", OpenPlatform: "main"}, {AppID: "wx2", SecretFile: f.path("secrets/app"), MessagePush: MessagePush{EncodingAESKeyFile: f.path("secrets/aes")}}}},
		Accounts: Accounts{Verifier: Verifier{URL: "http://127.0.0.1:9/verify", SecretFile: f.path("secrets/verifier"), Timeout: 200 * time.Millisecond}},
		Users:    Users{DefaultNickname: "u{n}", DefaultPicture: "https://x.example/p.png"},
		RateLimits: RateLimits{Disabled: true, RequestsPerIPPerMinute: 1, SignInsPerIPPerMinute: 2, SignInsPerNetworkPerMinute: 3,
			SignInsPerClientPerMinute: 4, SignInsPerUserPerMinute: 9, WeChatCallsPerAppPerMinute: 5, FailedClientAuthPerMinute: 7, IntrospectionMissesPerMinute: 8,
			WrongPasswordsPerAccountAndIP: 10, WrongPasswordsPerAccount: 11, WrongPasswordsPerIP: 12, WeChatDataPerUserPerMinute: 13,
			AuthorizationsPerIPPerMinute: 16, ScanCodesPerIPPerMinute: 14, TicketMissesPerIPPerMinute: 15},
		Log:      Log{Level: "warn"},
		Insecure: Insecure{AllowHTTPIssuer: true, AllowWorldReadableSecrets: true},
		Clients: []Client{
			{ClientID: "app", Name: "app", Type: ClientPublic, WeChatAppID: "wx2", GrantTypes: []string{GrantWeChatJSCode, GrantWeChatPhone, GrantAuthorizationCode, GrantDeviceCode}, Scopes: []string{ScopeDeviceApprove},
				RequirePushedAuthorizationRequests: true, Consent: ConsentSkip, DefaultMaxAge: time.Second, CORSOrigins: []string{"https://x.example", "http://localhost:5173"},
				AccessTokenLifetime: time.Minute, IDTokenLifetime: 2 * time.Minute, RefreshTokenIdleLifetime: 3 * time.Minute, RefreshTokenAbsoluteLifetime: 4 * time.Minute,
				DPoPBoundAccessTokens: true, SubjectType: SubjectPairwise, SectorIdentifier: "x.example",
				TokenEndpointAuthMethod: AuthNone, RequirePKCE: true, IDTokenSignedResponseAlg: "ES256",
				RedirectURIs: []string{"http://127.0.0.1/cb", "http://[::1]:1/cb", "com.example.app:/cb", "https://x.example/cb?a=b", "http://localhost:3000/cb"}},
			{ClientID: "api", Name: "API", Type: ClientConfidential, AutoCreate: true, Consent: ConsentAsk, SubjectType: SubjectPublic, TokenEndpointAuthMethod: AuthClientSecretPost,
				ClientSecretHash: "sha256$" + strings.Repeat("0", 64), SecretHashes: []string{"sha256$" + strings.Repeat("0", 64)},
				IDTokenSignedResponseAlg: "RS256", Introspection: true, Scopes: []string{"a", "b", "wechat.data"}, DefaultScopes: []string{"b"},
				Audience: []string{"x", "https://y.example"}, PostLogoutRedirectURIs: []string{"https://x.example/"}, BackchannelLogoutURI: "http://127.0.0.1:3000/out"},
		},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%+v\nwant\n%+v", c, want)
	}
	if on := c.Insecure.Enabled(); len(on) != 2 || on[0] != "insecure.allow_http_issuer" || Default().Insecure.Enabled() != nil {
		t.Errorf("insecure switches are %q", on)
	}
}

func TestClientSecretsBecomeHashes(t *testing.T) {
	sum := sha256.Sum256([]byte(strong))
	hash := "sha256$" + hex.EncodeToString(sum[:])
	other := "sha256$" + strings.Repeat("ab", 32)
	f := newFolder(t)
	f.write("secret", strong+"\n", 0o600)
	for name, row := range map[string]struct {
		lines []string
		want  []string
	}{
		"inline":    {[]string{"client_secret: " + strong}, []string{hash}},
		"reference": {[]string{"client_secret: ${API_SECRET}"}, []string{hash}},
		"file":      {[]string{"client_secret_file: secret"}, []string{hash}},
		"hash":      {[]string{"client_secret_hash: " + other}, []string{other}},
		"several":   {[]string{"client_secrets:", "  - " + strong, "  - ${API_SECRET}", "  - " + other}, []string{hash, hash, other}},
	} {
		t.Run(name, func(t *testing.T) {
			c := f.mustLoad(issuerLine+confidentialClient(row.lines...), "API_SECRET="+strong).Clients[0]
			if !slices.Equal(c.SecretHashes, row.want) {
				t.Errorf("hashes are %q", c.SecretHashes)
			}
			if !c.ClientSecret.IsZero() || c.ClientSecrets != nil {
				t.Error("the plain secret is kept")
			}
			if c.TokenEndpointAuthMethod != AuthClientSecretBasic {
				t.Errorf("method is %q", c.TokenEndpointAuthMethod)
			}
		})
	}
}

func TestSecretsMayStandInFilesThatOnlyTheOwnerReads(t *testing.T) {
	inline := issuerLine + confidentialClient("client_secret: "+strong)
	hashed := issuerLine + confidentialClient("client_secret_hash: sha256$"+strings.Repeat("a", 64))
	reference := issuerLine + confidentialClient("client_secret: ${S}")
	f := newFolder(t)
	f.write("open", strong, 0o644)
	f.write("mounted/..data/secret", strong, 0o400)
	if err := os.Symlink("..data/secret", f.path("mounted/secret")); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, yaml string
		mode       os.FileMode
	}{
		{"inline 0600", inline, 0o600},
		{"inline 0400", inline, 0o400},
		{"hash 0644", hashed, 0o644},
		{"reference 0644", reference, 0o644},
		{"inline 0644, switched off", inline + "insecure: {allow_world_readable_secrets: true}\n", 0o644},
		{"open file, switched off", issuerLine + confidentialClient("client_secret_file: open") + "insecure: {allow_world_readable_secrets: true}\n", 0o644},
		{"mounted", issuerLine + confidentialClient("client_secret_file: mounted/secret"), 0o644},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := f.write("config.yaml", row.yaml, row.mode)
			if _, err := Load(path, []string{"S=" + strong}); err != nil {
				t.Errorf("refused:\n%v", err)
			}
		})
	}
}

func TestEnvironmentOverrides(t *testing.T) {
	f := newFolder(t)
	c := f.mustLoad(issuerLine+"listen: 127.0.0.1:1\ntokens: {access_token_lifetime: 5m}\nlog:\n",
		"WXIDP_LISTEN=127.0.0.1:7000",
		"WXIDP_TOKENS_ACCESS_TOKEN_LIFETIME=90s",
		"WXIDP_KEYS_EDDSA=true",
		"WXIDP_RATE_LIMITS_REQUESTS_PER_IP_PER_MINUTE=17",
		"WXIDP_TRUSTED_PROXIES=10.0.0.0/8, 192.168.0.0/16",
		"WXIDP_STORAGE_BOLT_PATH=other.db",
		"WXIDP_BACKCHANNEL_LOGOUT_ALLOWED_NETWORKS=192.168.1.7/16",
		"WXIDP_LOGIN_SESSIONS_IDLE_LIFETIME=1h",
		"WXIDP_STORAGE_POSTGRES_DSN=${literally}",
		"WXIDP_LOG_LEVEL=", // as if it were not set
		"WXIDP_MASTER_KEY=x", "WXIDP_CONFIG=x", "PATH=/bin", "=odd",
		// A Service called wxidp or wxidp-admin puts these into every pod.
		"WXIDP_SERVICE_HOST=10.0.0.1", "WXIDP_SERVICE_PORT=80", "WXIDP_SERVICE_PORT_HTTP=80", "WXIDP_PORT=tcp://10.0.0.1:80",
		"WXIDP_PORT_80_TCP=x", "WXIDP_PORT_80_TCP_PROTO=tcp", "WXIDP_PORT_80_TCP_PORT=80", "WXIDP_PORT_80_TCP_ADDR=10.0.0.1", "WXIDP_ADMIN_SERVICE_HOST=10.0.0.2")
	want := f.defaults()
	want.Listen = "127.0.0.1:7000"
	want.Tokens.AccessTokenLifetime = 90 * time.Second
	want.Keys.EdDSA = true
	want.RateLimits.RequestsPerIPPerMinute = 17
	want.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.0.0/16")}
	want.Storage.Bolt.Path = f.path("other.db")
	want.BackchannelLogout.AllowedNetworks = []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}
	want.LoginSessions.IdleLifetime = time.Hour
	if got := c.Storage.Postgres.DSN.Reveal(); got != "${literally}" {
		t.Errorf("dsn is %q", got)
	}
	want.Storage.Postgres.DSN = c.Storage.Postgres.DSN
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestEveryKeyOutsideListsHasItsVariable(t *testing.T) {
	owners := map[string]string{}
	eachKey(reflect.ValueOf(Default()).Elem(), "", func(path string, v reflect.Value) {
		name := envName(path)
		if owners[name] != "" {
			t.Errorf("%s and %s share %s", path, owners[name], name)
		}
		if envService.MatchString(name) || name == envMasterKey {
			t.Errorf("%s is taken already", name)
		}
		owners[name] = path
	})
	if len(owners) < 60 {
		t.Errorf("only %d keys were found", len(owners))
	}
}

func TestLongestLifetimes(t *testing.T) {
	c := Default()
	if token, refresh := c.LongestTokenLifetime(), c.LongestRefreshLifetime(); token != time.Hour || refresh != 4320*time.Hour {
		t.Errorf("without clients: %s, %s", token, refresh)
	}
	c.Clients = []Client{{AccessTokenLifetime: 3 * time.Hour, RefreshTokenAbsoluteLifetime: time.Hour}, {IDTokenLifetime: 2 * time.Hour, RefreshTokenAbsoluteLifetime: 5000 * time.Hour}}
	if token, refresh := c.LongestTokenLifetime(), c.LongestRefreshLifetime(); token != 3*time.Hour || refresh != 5000*time.Hour {
		t.Errorf("with clients: %s, %s", token, refresh)
	}
}

func TestMasterKeys(t *testing.T) {
	f := newFolder(t)
	loaded, err := f.load(issuerLine + "master_key_file: master.key\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loaded.MasterKeys(); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("missing file: %v", err)
	}
	f.write("master.key", "canary\nsecond\n", 0o644)
	if _, err := loaded.MasterKeys(); err == nil || !strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), "canary") {
		t.Errorf("open file: %v", err)
	}
	f.write("master.key", "canary\nsecond\n", 0o600)
	if keys, err := loaded.MasterKeys(); err != nil || keys.Reveal() != "canary\nsecond" {
		t.Errorf("keys are %q, %v", keys.Reveal(), err)
	}
	loaded, err = f.load(issuerLine+"master_key_file: ''\n", "WXIDP_MASTER_KEY=from-env")
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := loaded.MasterKeys(); err != nil || keys.Reveal() != "from-env" {
		t.Errorf("keys are %q, %v", keys.Reveal(), err)
	}
	loaded, err = f.load(issuerLine + "master_key_file: ''\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loaded.MasterKeys(); err == nil {
		t.Error("no master key was accepted")
	}
}

func TestRestartDiff(t *testing.T) {
	was := Default()
	if keys := was.RestartDiff(Default()); keys != nil {
		t.Errorf("unchanged: %q", keys)
	}
	live := Default()
	live.Tokens.RefreshGrace = 0
	live.Clients = []Client{{ClientID: "a"}}
	live.Log.Level = "debug"
	live.Keys.EdDSA = true
	live.LoginSessions.IdleLifetime, live.Scan.AppID, live.Brand.Color, live.BackchannelLogout.Timeout = 1, "a", "a", 1
	live.Tokens.PairwiseSalt = secret.New(strong) // the first one
	if keys := was.RestartDiff(live); keys != nil {
		t.Errorf("live keys: %q", keys)
	}
	next := Default()
	next.Issuer, next.Listen, next.TLS.CertFile, next.TLS.KeyFile = "a", "a", "a", "a"
	next.Admin = Admin{Listen: "a", Socket: "a", TokenFile: "a"}
	next.Storage = Storage{Driver: "a", Bolt: Bolt{Path: "a"}}
	next.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	was.Tokens.PairwiseSalt = secret.New(strong)
	next.MasterKeyFile, next.WeChat.BaseURL, next.WeChat.Timeout = "a", "a", 1
	want := "issuer listen tls.cert_file tls.key_file trusted_proxies admin.listen admin.socket admin.token_file storage.driver storage.bolt.path master_key_file tokens.pairwise_salt wechat.base_url wechat.timeout"
	if got := strings.Join(was.RestartDiff(next), " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
