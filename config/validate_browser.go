package config

import (
	"cmp"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxVerificationFile = 1 << 10   // bytes
	maxLogoFile         = 256 << 10 // bytes
	maxClientURIs       = 32        // entries of a client's list of URLs
)

var (
	verificationName = regexp.MustCompile(`^[A-Za-z0-9_-]+\.txt$`)
	miniProgramPage  = regexp.MustCompile(`^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$`)
	color            = regexp.MustCompile(`^#[0-9A-Fa-f]{6}$`)
	// headerName is within RFC 9110 §5.6.2.
	headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

// headersElsewhere carry credentials or have a meaning already.
var headersElsewhere = []string{"authorization", "cookie", "dpop", "forwarded", "host", "proxy-authorization", "x-forwarded-for"}

// resolveScan fills in the link below the issuer and the verification file.
func (l *loading) resolveScan(s *Scan, issuer string) {
	const key = "scan.verification_file"
	s.Link = cmp.Or(s.Link, issuer+"/scan")
	if s.VerificationFile == "" {
		return
	}
	name := filepath.Base(s.VerificationFile)
	if !verificationName.MatchString(name) {
		l.add(key, "has a name that WeChat would not give", "keep the name it was downloaded with, such as AbCd012345.txt")
		return
	}
	body, ok := l.file(key, s.VerificationFile, maxVerificationFile)
	switch {
	case !ok:
	case strings.TrimSpace(string(body)) == "":
		l.add(key, "the file is empty", "")
	case slices.ContainsFunc(body, func(b byte) bool { return b > '~' || b < ' ' && b != '\n' && b != '\r' }):
		l.add(key, "the file is not one line of plain text", "download it from the mini-program's console")
	default:
		s.VerificationName, s.VerificationBody = name, body
	}
}

// resolveBrand fills in the name and the logo.
func (l *loading) resolveBrand(b *Brand, issuer string) {
	if u, err := url.Parse(issuer); b.Name == "" && err == nil {
		b.Name = u.Hostname()
	}
	if b.LogoFile == "" {
		return
	}
	const key = "brand.logo_file"
	data, ok := l.file(key, b.LogoFile, maxLogoFile)
	if !ok {
		return
	}
	mediaType, problem, fix := checkLogo(data)
	if problem != "" {
		l.add(key, problem, fix)
		return
	}
	b.Logo, b.LogoType = data, mediaType
}

// developmentIssuer reports whether the issuer is http on loopback, so that
// whatever it talks to may be, too.
func developmentIssuer(issuer string) bool {
	u, err := url.Parse(issuer)
	return err == nil && u.Scheme == "http" && loopbackHost(u.Hostname())
}

func (l *loading) validateLoginSessions(s LoginSessions) {
	const path = "login_sessions."
	idle := l.between(path+"idle_lifetime", s.IdleLifetime, time.Minute, year, "1m to 8784h")
	absolute := l.between(path+"absolute_lifetime", s.AbsoluteLifetime, time.Minute, year, "1m to 8784h")
	scanned := l.between(path+"scanned_lifetime", s.ScannedLifetime, time.Minute, year, "1m to 8784h")
	if idle && absolute && s.IdleLifetime > s.AbsoluteLifetime {
		l.add(path+"idle_lifetime", "is longer than absolute_lifetime", "")
	}
	if scanned && absolute && s.ScannedLifetime > s.AbsoluteLifetime {
		l.add(path+"scanned_lifetime", "is longer than absolute_lifetime", "")
	}
}

func (l *loading) validateScan(c *Config) {
	s := c.Scan
	if s.AppID != "" && !slices.ContainsFunc(c.WeChat.Apps, func(app App) bool { return app.AppID == s.AppID }) {
		l.add("scan.appid", "is not the appid of one of wechat.apps", "")
	}
	l.oneOf("scan.code", s.Code, ScanCodeLink, ScanCodeWeChat)
	l.oneOf("scan.env_version", s.EnvVersion, envRelease, envTrial, envDevelop)
	if s.Link != c.Issuer+"/scan" {
		switch u, problem, fix := checkHTTPS(s.Link, developmentIssuer(c.Issuer)); {
		case problem != "":
			l.add("scan.link", problem, fix)
		case u.RawQuery != "" || u.ForceQuery:
			l.add("scan.link", "must have no query", "the ticket becomes its query")
		case strings.HasSuffix(s.Link, "/"):
			l.add("scan.link", "must not end with a slash", "leave it out here and in the mini-program's console")
		}
	}
	switch {
	case s.Page == "" && s.Code == ScanCodeWeChat:
		l.add("scan.page", "is missing, and code: wechat needs it", "name a page of the mini-program, such as pages/scan/scan")
	case s.Page != "" && (len(s.Page) > 128 || !miniProgramPage.MatchString(s.Page)):
		l.add("scan.page", "is not a page of at most 128 bytes without a slash in front or a query", "write it as app.json does: pages/scan/scan")
	}
	switch {
	case s.PlaceHeader == "":
	case !headerName.MatchString(s.PlaceHeader) || slices.Contains(headersElsewhere, strings.ToLower(s.PlaceHeader)):
		l.add("scan.place_header", "is not the name of a header for places", "1 to 64 letters, digits and -, such as X-Client-City")
	case len(c.TrustedProxies) == 0:
		l.add("scan.place_header", "needs trusted_proxies: browsers could write it themselves", "name the proxy that sets it there")
	}
}

func (l *loading) validateBrand(b Brand) {
	if utf8.RuneCountInString(b.Name) > 64 || !utf8.ValidString(b.Name) {
		l.add("brand.name", "is longer than 64 characters", "")
	}
	if !color.MatchString(b.Color) {
		l.add("brand.color", "is not # and six hex digits", `write "#07c160", in quotes`)
	}
	for _, link := range []struct{ key, uri string }{{"brand.privacy_uri", b.PrivacyURI}, {"brand.terms_uri", b.TermsURI}} {
		if link.uri == "" {
			continue
		}
		if _, problem, fix := checkHTTPS(link.uri, false); problem != "" {
			l.add(link.key, problem, fix)
		}
	}
}

func (l *loading) validateBackchannelLogout(b BackchannelLogout) {
	l.networks("backchannel_logout.allowed_networks", b.AllowedNetworks, "is so wide that strangers are in it", "name the network of your backends")
	l.between("backchannel_logout.timeout", b.Timeout, 100*time.Millisecond, 30*time.Second, "100ms to 30s")
}

// validateClientURIs checks all that has to do with a client's browsers.
func (l *loading) validateClientURIs(path string, c *Client, development bool) {
	rules := redirectRules{native: c.Type == ClientPublic, development: development}
	checkRedirect := func(uri string) (problem, fix string) { return checkRedirectURI(uri, rules) }
	l.urls(path+".redirect_uris", c.RedirectURIs, checkRedirect)
	l.urls(path+".post_logout_redirect_uris", c.PostLogoutRedirectURIs, checkRedirect)
	l.urls(path+".cors_origins", c.CORSOrigins, checkOrigin)
	if c.BackchannelLogoutURI != "" {
		if _, problem, fix := checkHTTPS(c.BackchannelLogoutURI, development); problem != "" {
			l.add(path+".backchannel_logout_uri", problem, fix)
		}
	}
	switch code := slices.Contains(c.GrantTypes, GrantAuthorizationCode); {
	case l.bad[path+".grant_types"]:
	case code && len(c.RedirectURIs) == 0:
		l.add(path+".redirect_uris", "is missing, and the grant authorization_code needs it", "list the URLs that browsers return to")
	case !code && len(c.RedirectURIs) > 0:
		l.add(path+".redirect_uris", "is of no use without the grant authorization_code", "add it to grant_types, or remove this")
	case !code && c.RequirePushedAuthorizationRequests:
		l.add(path+".require_pushed_authorization_requests", "is of no use without the grant authorization_code", "")
	}
	if c.Type == ClientPublic && !c.RequirePKCE {
		l.add(path+".require_pkce", "must be true for a public client", "")
	}
	l.oneOf(path+".consent", c.Consent, ConsentAsk, ConsentSkip)
	if d := c.DefaultMaxAge; d < 0 || d%time.Second != 0 || d > year {
		l.add(path+".default_max_age", "must be whole seconds, 1s to 8784h, or 0 for no limit", "")
	}
}

// urls checks a client's list of URLs.
func (l *loading) urls(key string, list []string, check func(string) (problem, fix string)) {
	if len(list) > maxClientURIs {
		l.add(key, "has more than 32 entries", "")
	}
	for i, uri := range list {
		if problem, fix := check(uri); problem != "" {
			l.add(item(key, i), problem, fix)
		}
	}
	l.unique(key, list)
}

// validateClientLifetimes checks the lifetimes that a client has of its own,
// and with those of tokens where it has none.
func (l *loading) validateClientLifetimes(path string, c *Client, t Tokens) {
	own := func(key string, d time.Duration, check func(string, time.Duration) bool) bool {
		return d == 0 || check(path+"."+key, d)
	}
	own("access_token_lifetime", c.AccessTokenLifetime, l.shortLifetime)
	own("id_token_lifetime", c.IDTokenLifetime, l.shortLifetime)
	const idleKey = "refresh_token_idle_lifetime"
	idle := own(idleKey, c.RefreshTokenIdleLifetime, l.longLifetime) && c.RefreshTokenIdleLifetime != 0
	absolute := own("refresh_token_absolute_lifetime", c.RefreshTokenAbsoluteLifetime, l.longLifetime)
	switch {
	case !idle:
	case absolute && c.RefreshTokenIdleLifetime > cmp.Or(c.RefreshTokenAbsoluteLifetime, t.RefreshTokenAbsoluteLifetime):
		l.add(path+"."+idleKey, "is longer than refresh_token_absolute_lifetime", "")
	case c.RefreshTokenIdleLifetime <= t.RefreshGrace:
		l.add(path+"."+idleKey, "is not longer than tokens.refresh_grace", "")
	}
}

// validateSubject checks what the client's `sub`s are made of.
func (l *loading) validateSubject(path string, c *Client, t Tokens) {
	key := path + ".sector_identifier"
	switch {
	case !l.oneOf(path+".subject_type", c.SubjectType, SubjectPublic, SubjectPairwise):
		return
	case c.SubjectType == SubjectPublic:
		if c.SectorIdentifier != "" {
			l.add(key, "is of no use without subject_type: pairwise", "")
		}
		return
	case c.SectorIdentifier == "" && c.Sector() == "":
		l.add(key, "is missing: redirect_uris have not one host that could be it", "name a host of yours, such as shop.example")
	case c.SectorIdentifier != "" && checkSector(c.SectorIdentifier) != "":
		l.add(key, checkSector(c.SectorIdentifier), "write it without scheme, port and path, such as shop.example")
	}
	if saltKey := secretKey("tokens.pairwise_salt", t.PairwiseSaltFile); t.PairwiseSalt.IsZero() && !l.bad[saltKey] {
		l.add(path+".subject_type", "pairwise needs tokens.pairwise_salt", "try: openssl rand -base64 32, and keep it for good")
	}
}

func checkSector(host string) (problem string) {
	u := &url.URL{Scheme: "https", Host: host}
	if problem, _ := checkHost(u); problem != "" || u.Hostname() != host || loopbackHost(host) {
		return "is not a host name in lower case"
	}
	return ""
}
