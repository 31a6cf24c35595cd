package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wxidp/wxidp/internal/ascii"
)

// maxSocketPath is what fits into the kernel's sockaddr_un, less its NUL.
const maxSocketPath = 107

// year is the longest of most durations.
const year = 8784 * time.Hour

// maxLimit bounds the numbers in rate_limits.
const maxLimit = 10_000_000

var appID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// validate checks everything but the resolving of files and secrets.
func (l *loading) validate(c *Config) {
	if c.Issuer == "" {
		l.add("issuer", "is missing", "set it to the URL clients reach wxidp under, such as https://id.example.com")
	} else if problem, fix := checkIssuer(c.Issuer, c.Insecure.AllowHTTPIssuer); problem != "" {
		l.add("issuer", problem, fix)
	}
	l.validateListeners(c)
	l.validateStorage(c)
	l.validateTokens(c.Tokens, c.Keys)
	l.validateKeys(c.Keys)
	l.validateLoginSessions(c.LoginSessions)
	l.validateWeChat(c.WeChat)
	l.validateScan(c)
	l.validateUsers(c.Users)
	l.validateVerifier(c.Accounts.Verifier)
	l.validateBrand(c.Brand)
	l.validateBackchannelLogout(c.BackchannelLogout)
	l.validateRateLimits(c.RateLimits)
	l.validateClients(c)
	l.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
}

func (l *loading) validateListeners(c *Config) {
	public, ok := l.hostPort("listen", c.Listen)
	if ok && !public && !c.TLS.Enabled() && c.TLS.KeyFile == "" && len(c.TrustedProxies) == 0 && !c.Insecure.AllowHTTPIssuer {
		l.add("listen", "would serve plain HTTP off loopback", "set tls.cert_file and tls.key_file, or name the proxy that serves https in trusted_proxies")
	}
	if c.Admin.Listen != "" {
		local, ok := l.hostPort("admin.listen", c.Admin.Listen)
		switch {
		case ok && !local && c.Admin.TokenFile == "":
			l.add("admin.listen", "is open off loopback without a credential", "set admin.token_file, or listen on 127.0.0.1")
		case ok && c.Admin.Listen == c.Listen && !strings.HasSuffix(c.Listen, ":0"):
			l.add("admin.listen", "is the same as listen", "choose another port: the two must stay apart")
		}
	}
	if len(c.Admin.Socket) > maxSocketPath {
		l.add("admin.socket", "is longer than 107 bytes as a full path, the system's limit", "choose a shorter one, such as /run/wxidp/admin.sock")
	}
	l.networks("trusted_proxies", c.TrustedProxies, "is so wide that any stranger in it could claim any client address", "name the proxy's own network")
}

// networks checks a list of networks that are trusted with something.
func (l *loading) networks(path string, list []netip.Prefix, wide, fix string) {
	for i, p := range list {
		least := 8
		if p.Addr().Is6() {
			least = 7 // fc00::/7, unique local addresses
		}
		switch {
		case !p.IsValid(): // reported where it was read
		case p.Addr().Is4In6():
			l.add(item(path, i), "is an IPv4 network in IPv6 form", "write it as IPv4")
		case p.Bits() < least:
			l.add(item(path, i), wide, fix)
		}
	}
}

// hostPort checks a listen address and reports whether it is on loopback.
func (l *loading) hostPort(path, address string) (loopback, ok bool) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !validPort(port, 0) || host != "" && net.ParseIP(host) == nil && !hostName.MatchString(host) {
		l.add(path, "must be host:port", "write 127.0.0.1:8080, [::1]:8080 or :8080")
		return false, false
	}
	return loopbackHost(host), true
}

func (l *loading) validateStorage(c *Config) {
	switch c.Storage.Driver {
	case DriverBolt:
		if c.Storage.Bolt.Path == "" {
			l.add("storage.bolt.path", "is missing", "")
		}
	case DriverPostgres:
		if c.Storage.Postgres.DSN.IsZero() {
			l.add("storage.postgres.dsn", "is missing", "set it, or dsn_file, to a URL such as postgres://wxidp@db.example.com/wxidp?sslmode=verify-full")
		}
	default:
		l.add("storage.driver", "is not a known driver", "use bolt or postgres")
	}
}

func (l *loading) validateTokens(t Tokens, k Keys) {
	l.shortLifetime("tokens.access_token_lifetime", t.AccessTokenLifetime)
	l.shortLifetime("tokens.id_token_lifetime", t.IDTokenLifetime)
	idle := l.longLifetime("tokens.refresh_token_idle_lifetime", t.RefreshTokenIdleLifetime)
	l.longLifetime("tokens.refresh_token_absolute_lifetime", t.RefreshTokenAbsoluteLifetime)
	if idle && t.RefreshTokenIdleLifetime > t.RefreshTokenAbsoluteLifetime {
		l.add("tokens.refresh_token_idle_lifetime", "is longer than refresh_token_absolute_lifetime", "")
	}
	if l.between("tokens.refresh_grace", t.RefreshGrace, 0, time.Minute, "0 to 60s") && idle && t.RefreshGrace >= t.RefreshTokenIdleLifetime {
		l.add("tokens.refresh_grace", "is not shorter than refresh_token_idle_lifetime", "")
	}
	l.signingAlg("tokens.access_token_signing_alg", t.AccessTokenSigningAlg, k.EdDSA)
	if !t.PairwiseSalt.IsZero() {
		l.strongSecret(secretKey("tokens.pairwise_salt", t.PairwiseSaltFile), t.PairwiseSalt)
	}
}

func (l *loading) shortLifetime(path string, d time.Duration) bool {
	return l.between(path, d, time.Second, 24*time.Hour, "1s to 24h")
}

func (l *loading) longLifetime(path string, d time.Duration) bool {
	return l.between(path, d, time.Second, 43800*time.Hour, "1s to 43800h")
}

func (l *loading) signingAlg(path, alg string, eddsa bool) {
	if alg == algEdDSA && !eddsa {
		l.add(path, "EdDSA needs keys.eddsa: true", "")
		return
	}
	l.oneOf(path, alg, algES256, algRS256, algEdDSA)
}

func (l *loading) validateKeys(k Keys) {
	ahead := l.between("keys.publish_ahead", k.PublishAhead, time.Second, year, "1s to 8784h")
	rotate := l.between("keys.rotate_every", k.RotateEvery, time.Second, year, "1s to 8784h")
	if ahead && rotate && k.RotateEvery <= k.PublishAhead {
		l.add("keys.rotate_every", "is not longer than publish_ahead", "a key must be published for publish_ahead before it signs")
	}
}

func (l *loading) validateWeChat(w WeChat) {
	if u, problem, fix := checkHTTPS(w.BaseURL, true); problem != "" {
		l.add("wechat.base_url", problem, fix)
	} else if u.RawQuery != "" || u.ForceQuery {
		l.add("wechat.base_url", "must have no query", "")
	}
	l.between("wechat.timeout", w.Timeout, 100*time.Millisecond, 10*time.Second, "100ms to 10s")
	first := map[string]int{}
	for i, app := range w.Apps {
		path := item("wechat.apps", i)
		switch before, dup := first[app.AppID]; {
		case app.AppID == "":
			l.add(path+".appid", "is missing", "it is on mp.weixin.qq.com under development settings")
		case !appID.MatchString(app.AppID):
			l.add(path+".appid", "is not 1 to 64 of A-Z a-z 0-9 _ -", "")
		case dup:
			l.add(path+".appid", fmt.Sprintf("is the same as that of wechat.apps[%d]", before), "")
		default:
			first[app.AppID] = i
		}
		l.validateAppSecret(path, app)
		if len(app.OpenPlatform) > 64 {
			l.add(path+".open_platform", "is longer than 64 bytes", "any short name will do")
		}
		l.validateMessagePush(path+".message_push", app.MessagePush)
	}
}

func (l *loading) validateAppSecret(path string, app App) {
	key := secretKey(path+".secret", app.SecretFile)
	text := app.Secret.Reveal()
	switch {
	case text == "":
		l.add(key, "the AppSecret is missing", "set secret: ${NAME} or secret_file")
	case !ascii.Visible(text, 128):
		l.add(key, "the AppSecret is not 1 to 128 visible ASCII characters", "")
	}
}

var (
	pushToken      = regexp.MustCompile(`^[A-Za-z0-9]{3,32}$`)
	encodingAESKey = regexp.MustCompile(`^[A-Za-z0-9]{43}$`)
)

func (l *loading) validateMessagePush(path string, m MessagePush) {
	tokenKey, aesKey := secretKey(path+".token", m.TokenFile), secretKey(path+".encoding_aes_key", m.EncodingAESKeyFile)
	token, key := m.Token.Reveal(), m.EncodingAESKey.Reveal()
	switch {
	case token == "" && key == "":
	case token == "":
		l.add(tokenKey, "is missing, and encoding_aes_key is set", "both stand on mp.weixin.qq.com under 消息推送")
	case key == "":
		l.add(aesKey, "is missing: without encryption a push could be forged", "choose 安全模式 on mp.weixin.qq.com under 消息推送 and copy its EncodingAESKey")
	}
	if token != "" && !pushToken.MatchString(token) {
		l.add(tokenKey, "is not 3 to 32 letters and digits", "")
	}
	if key != "" && !encodingAESKey.MatchString(key) {
		l.add(aesKey, "is not 43 letters and digits", "")
	}
}

// secretKey is the key under which a secret was given.
func secretKey(path, file string) string {
	if file != "" {
		return path + "_file"
	}
	return path
}

func (l *loading) validateVerifier(v Verifier) {
	const path = "accounts.verifier"
	l.between(path+".timeout", v.Timeout, 100*time.Millisecond, 10*time.Second, "100ms to 10s")
	switch {
	case !v.Enabled() && !v.Secret.IsZero():
		l.add(path+".url", "is missing, and a secret is set", "name the endpoint of your account system, or remove the secret")
	case !v.Enabled():
		return
	case v.Secret.IsZero() && !l.bad[secretKey(path+".secret", v.SecretFile)]:
		l.add(path+".secret", "is missing: it signs the requests", "try: openssl rand -base64 32")
	}
	if v.Enabled() {
		if _, problem, fix := checkHTTPS(v.URL, true); problem != "" {
			l.add(path+".url", problem, fix)
		}
	}
	if !v.Secret.IsZero() {
		l.strongSecret(secretKey(path+".secret", v.SecretFile), v.Secret)
	}
}

func (l *loading) validateUsers(u Users) {
	switch name := u.DefaultNickname; {
	case name == "" || utf8.RuneCountInString(name) > 64 || !utf8.ValidString(name):
		l.add("users.default_nickname", "must be 1 to 64 characters", "")
	case strings.Count(name, "{n}") > 1:
		l.add("users.default_nickname", "holds {n} more than once", "")
	}
	if u.DefaultPicture != "" {
		if _, problem, fix := checkHTTPS(u.DefaultPicture, false); problem != "" {
			l.add("users.default_picture", problem, fix)
		}
	}
}

func (l *loading) validateRateLimits(r RateLimits) {
	for _, limit := range []struct {
		key   string
		value int
	}{
		{"requests_per_ip_per_minute", r.RequestsPerIPPerMinute},
		{"sign_ins_per_ip_per_minute", r.SignInsPerIPPerMinute},
		{"sign_ins_per_network_per_minute", r.SignInsPerNetworkPerMinute},
		{"sign_ins_per_client_per_minute", r.SignInsPerClientPerMinute},
		{"sign_ins_per_user_per_minute", r.SignInsPerUserPerMinute},
		{"wechat_calls_per_app_per_minute", r.WeChatCallsPerAppPerMinute},
		{"failed_client_auth_per_minute", r.FailedClientAuthPerMinute},
		{"introspection_misses_per_minute", r.IntrospectionMissesPerMinute},
		{"wechat_data_per_user_per_minute", r.WeChatDataPerUserPerMinute},
		{"authorizations_per_ip_per_minute", r.AuthorizationsPerIPPerMinute},
		{"scan_codes_per_ip_per_minute", r.ScanCodesPerIPPerMinute},
		{"ticket_misses_per_ip_per_minute", r.TicketMissesPerIPPerMinute},
	} {
		if limit.value < 1 || limit.value > maxLimit {
			l.add("rate_limits."+limit.key, "must be 1 to 10000000", "to lift all limits for a load test, set rate_limits.disabled")
		}
	}
	for _, limit := range []struct {
		key   string
		value int
	}{
		{"wrong_passwords_per_account_and_ip", r.WrongPasswordsPerAccountAndIP},
		{"wrong_passwords_per_account", r.WrongPasswordsPerAccount},
		{"wrong_passwords_per_ip", r.WrongPasswordsPerIP},
	} {
		if limit.value < 1 || limit.value > math.MaxUint16 {
			l.add("rate_limits."+limit.key, "must be 1 to 65535", "to lift all limits for a load test, set rate_limits.disabled")
		}
	}
	if r.WeChatReservePercent < 0 || r.WeChatReservePercent > 90 {
		l.add("rate_limits.wechat_reserve_percent", "must be 0 to 90", "")
	}
}

func (l *loading) between(path string, d, least, most time.Duration, bounds string) bool {
	if d < least || d > most {
		l.add(path, "must be "+bounds, "")
		return false
	}
	return true
}

func (l *loading) oneOf(path, value string, known ...string) bool {
	if !slices.Contains(known, value) {
		l.add(path, "must be one of "+strings.Join(known, ", "), "")
		return false
	}
	return true
}
