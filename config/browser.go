package config

import (
	"net/netip"
	"net/url"
	"time"
)

// Values of [Scan.Code].
const (
	ScanCodeLink   = "link"
	ScanCodeWeChat = "wechat"
)

// LoginSessions are the lifetimes of a browser's sign-in at the issuer itself,
// which spares people a second sign-in at the next client: 1m to 8784h.
type LoginSessions struct {
	// IdleLifetime ends a login session that was not used for so long; at
	// most the absolute lifetime. Default 24h.
	IdleLifetime time.Duration `mapstructure:"idle_lifetime"`
	// AbsoluteLifetime ends every login session, however active. Default 336h.
	AbsoluteLifetime time.Duration `mapstructure:"absolute_lifetime"`
	// ScannedLifetime is the absolute lifetime of a login session that began
	// by scanning a code, which a person can be talked into; at most the
	// absolute lifetime. Default 12h.
	ScannedLifetime time.Duration `mapstructure:"scanned_lifetime"`
}

// Scan is signing in with a browser by scanning a code with WeChat, which
// opens the mini-program to approve.
type Scan struct {
	// AppID names the one of wechat.apps that approves. A client of this app
	// needs the scope device.approve for it. Empty: nobody can sign in by
	// scanning.
	AppID string `mapstructure:"appid"`
	// Code is link, a code that wxidp draws of an ordinary link, or wechat, a
	// code fetched from WeChat for every sign-in, which needs no rule for
	// links in the mini-program's console. Default link.
	Code string `mapstructure:"code"`
	// Link is the URL that the rule 扫普通链接二维码打开小程序 in the
	// mini-program's console says, without a query or a slash at its end; the
	// ticket is added as the query parameter t. https; http on loopback where
	// the issuer is. Empty: /scan below the issuer.
	Link string `mapstructure:"link"`
	// Page is the page of the mini-program that a code of the kind wechat
	// opens, such as pages/scan/scan: no slash in front, no query, at most 128
	// bytes. Required with code: wechat.
	Page string `mapstructure:"page"`
	// EnvVersion is the version of the mini-program that a code of the kind
	// wechat opens: release, trial or develop. Default release.
	EnvVersion string `mapstructure:"env_version"`
	// PlaceHeader is the HTTP header in which a proxy of trusted_proxies says
	// the coarse place of a browser, such as a city; who approves is shown it.
	// The proxy must overwrite what browsers send. Empty: the network is shown.
	PlaceHeader string `mapstructure:"place_header"`
	// VerificationFile is the file that the mini-program's console asks to be
	// put on the link's host, with the name it has there: A-Z a-z 0-9 _ - and
	// .txt, at most 1 KiB of plain text. It is served right below the issuer,
	// where WeChat looks for it as long as link is not deeper.
	VerificationFile string `mapstructure:"verification_file"`

	// VerificationName is the base name of VerificationFile.
	VerificationName string `mapstructure:"-"`
	// VerificationBody is the content of VerificationFile, checked.
	VerificationBody []byte `mapstructure:"-"`
}

// Enabled reports whether people can sign in by scanning.
func (s Scan) Enabled() bool { return s.AppID != "" }

// Brand is what the pages look like.
type Brand struct {
	// Name is whose sign-in it is, at most 64 characters. Empty: the issuer's
	// host.
	Name string `mapstructure:"name"`
	// Color is that of buttons and links, as # and six hex digits, in quotes
	// because # begins a comment in YAML. Default #07c160.
	Color string `mapstructure:"color"`
	// LogoFile is an image of at most 256 KiB: SVG, PNG, JPEG or WebP. An SVG
	// must hold no script, nothing that runs one, and no HTML.
	LogoFile string `mapstructure:"logo_file"`
	// PrivacyURI is the privacy policy that pages link to: https, or empty.
	PrivacyURI string `mapstructure:"privacy_uri"`
	// TermsURI are the terms of service that pages link to: https, or empty.
	TermsURI string `mapstructure:"terms_uri"`

	// Logo is the content of LogoFile, checked; nil without one.
	Logo []byte `mapstructure:"-"`
	// LogoType is the media type of Logo.
	LogoType string `mapstructure:"-"`
}

// BackchannelLogout is how clients are told of logouts (OpenID Connect
// Back-Channel Logout 1.0).
type BackchannelLogout struct {
	// AllowedNetworks are networks, in CIDR form, that logout tokens may be
	// sent to beyond public addresses, such as that of your backends. Loopback
	// needs no entry where the issuer is on loopback. Networks so wide that
	// they hold strangers (shorter than /8, or /7 for IPv6) are refused.
	AllowedNetworks []netip.Prefix `mapstructure:"allowed_networks"`
	// Timeout is the limit of one delivery: 100ms to 30s. Default 5s.
	Timeout time.Duration `mapstructure:"timeout"`
}

// OnLoopback reports whether the issuer is on this machine alone, as it is in
// development.
func (c *Config) OnLoopback() bool {
	issuer, err := url.Parse(c.Issuer)
	return err == nil && loopbackHost(issuer.Hostname())
}
