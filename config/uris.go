package config

import (
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

const maxURI = 2048 // bytes

var (
	hostName      = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	numericLabel  = regexp.MustCompile(`^(0x[0-9a-f]*|[0-9]+)$`)
	privateScheme = regexp.MustCompile(`^[a-z][a-z0-9+-]*(\.[a-z0-9][a-z0-9+-]*)+$`)
)

// checkURI parses an absolute URI and refuses whatever two parsers could read
// differently: other characters, users, encoded or relative path segments.
func checkURI(raw string) (u *url.URL, problem, fix string) {
	if raw == "" || len(raw) > maxURI {
		return nil, "must be an absolute URL of at most 2048 bytes", ""
	}
	for _, char := range []byte(raw) {
		if char <= ' ' || char > '~' || strings.IndexByte("\"<>\\^`{|}", char) >= 0 {
			return nil, "holds a character that URLs cannot have", "encode it with %; write host names in their xn-- form"
		}
	}
	switch {
	case strings.Contains(raw, "*"):
		return nil, "wildcards are not supported", "list every URL in full"
	case strings.Contains(raw, "#"):
		return nil, "must have no fragment", "remove the part from #"
	}
	u, err := url.Parse(raw)
	if err != nil || !u.IsAbs() || !strings.HasPrefix(raw, u.Scheme+":") {
		return nil, "is not an absolute URL", "write it like https://host.example/path"
	}
	if u.User != nil || strings.Contains(u.Host, "@") {
		return nil, "must hold no user or password", "remove the part up to @"
	}
	path := strings.ToLower(u.EscapedPath() + u.Opaque)
	for _, bad := range []string{"%2e", "%2f", "%5c", "%00"} {
		if strings.Contains(path, bad) {
			return nil, "has an encoded . / \\ or NUL in its path", "write the path plainly"
		}
	}
	for segment := range strings.SplitSeq(path, "/") {
		segment, _, _ = strings.Cut(segment, ";") // which some servers cut off
		if segment == "." || segment == ".." {
			return nil, "has . or .. in its path", "write the path they lead to"
		}
	}
	return u, "", ""
}

// checkHost checks host and port of an http or https URL.
func checkHost(u *url.URL) (problem, fix string) {
	host := u.Hostname()
	if u.Opaque != "" || host == "" {
		return "has no host", "write it like https://host.example/path"
	}
	if port := u.Port(); strings.HasSuffix(u.Host, ":") || port != "" && !validPort(port, 1) {
		return "has a port that is not 1 to 65535", ""
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" && ip.String() == host {
		return "", ""
	}
	labels := strings.Split(host, ".")
	if len(host) > 253 || !hostName.MatchString(host) || numericLabel.MatchString(labels[len(labels)-1]) {
		return "has a host that is neither a name in lower case nor an IP address", "no dot at the end, no short forms of addresses"
	}
	return "", ""
}

func validPort(text string, least int) bool {
	n, err := strconv.Atoi(text)
	return err == nil && n >= least && n <= 65535 && strconv.Itoa(n) == text
}

// checkComparedHost checks host and port of a URL that is compared with what
// browsers and clients send, character by character.
func checkComparedHost(u *url.URL) (problem, fix string) {
	if problem, fix := checkHost(u); problem != "" {
		return problem, fix
	}
	if u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80" {
		return "has the default port written out", "leave it out, as browsers do"
	}
	return "", ""
}

// checkOrigin checks the origin of a page as a browser sends it (RFC 6454
// §6.2).
func checkOrigin(raw string) (problem, fix string) {
	u, problem, fix := checkHTTPS(raw, true)
	if problem != "" {
		return problem, fix
	}
	if problem, fix := checkComparedHost(u); problem != "" {
		return problem, fix
	}
	if raw != u.Scheme+"://"+u.Host {
		return "is more than an origin", "write scheme://host or scheme://host:port, without a path or a slash at its end"
	}
	return "", ""
}

// loopbackHost reports whether a host can only be this machine.
func loopbackHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// checkHTTPS checks a URL that must be https, or, where allowed, http on
// loopback.
func checkHTTPS(raw string, httpLoopback bool) (u *url.URL, problem, fix string) {
	u, problem, fix = checkURI(raw)
	if problem != "" {
		return nil, problem, fix
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return nil, "must be https", ""
	}
	if problem, fix := checkHost(u); problem != "" {
		return nil, problem, fix
	}
	if u.Scheme == "http" && !httpLoopback {
		return nil, "must be https", ""
	}
	if u.Scheme == "http" && !loopbackHost(u.Hostname()) {
		return nil, "must be https", "http is for loopback only"
	}
	return u, "", ""
}

// checkIssuer checks an issuer identifier (RFC 8414 §2), of which every
// character counts.
func checkIssuer(raw string, anyHTTP bool) (problem, fix string) {
	u, problem, fix := checkURI(raw)
	if problem != "" {
		return problem, fix
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return "must be an https URL", ""
	}
	if problem, fix := checkHost(u); problem != "" {
		return problem, fix
	}
	switch {
	case u.Scheme == "http" && !anyHTTP && !loopbackHost(u.Hostname()):
		return "must be https, http is for loopback only", "put a TLS proxy in front or set tls (insecure.allow_http_issuer gives the protection up)"
	case u.RawQuery != "" || u.ForceQuery:
		return "must have no query", "remove the part from ?"
	case strings.HasSuffix(raw, "/"):
		return "must not end with a slash", "write it exactly as clients will compare it, without the last /"
	case strings.Contains(u.Path, "//"):
		return "has an empty segment in its path", ""
	case strings.Contains(u.EscapedPath(), "%"):
		return "has an encoded character in its path", "choose a plain path, or none"
	case len(raw) > 255:
		return "is longer than 255 bytes", ""
	}
	return "", ""
}

// redirectRules are what a client's redirection endpoints may be beyond https.
type redirectRules struct {
	native      bool // the forms of apps on a device (RFC 8252 §7)
	development bool // http on loopback, for every kind of client
}

// checkRedirectURI checks a redirection endpoint.
func checkRedirectURI(raw string, rules redirectRules) (problem, fix string) {
	u, problem, fix := checkURI(raw)
	switch {
	case problem != "":
		return problem, fix
	case u.Scheme == "https":
		return checkComparedHost(u)
	case u.Scheme == "http":
		if problem, fix := checkComparedHost(u); problem != "" {
			return problem, fix
		}
		return checkLoopbackRedirect(u.Hostname(), rules)
	case !rules.native:
		return "must be https: a scheme of its own is for public clients, which run on the user's device", ""
	case !privateScheme.MatchString(u.Scheme):
		return "its scheme has no dot", "use a domain you own, reversed: com.example.app:/cb (RFC 8252 §7.1)"
	case !strings.HasPrefix(raw, u.Scheme+":/") || strings.HasPrefix(raw, u.Scheme+"://"):
		return "must have exactly one slash after the scheme", "write com.example.app:/cb"
	}
	return "", ""
}

// checkLoopbackRedirect checks the host of an http redirection endpoint.
func checkLoopbackRedirect(host string, rules redirectRules) (problem, fix string) {
	switch ip := host == "127.0.0.1" || host == "::1"; {
	case rules.development && (ip || host == "localhost"):
	case host == "localhost":
		return "must be https, or http on 127.0.0.1 or [::1] for a public client", "localhost may be another machine's name (RFC 8252 §8.3)"
	case !ip:
		return "must be https", "http is for 127.0.0.1 and [::1] in a public client"
	case !rules.native:
		return "must be https: http on loopback is for public clients, which run on the user's device", "for development, let the issuer be http on loopback, too"
	}
	return "", ""
}
