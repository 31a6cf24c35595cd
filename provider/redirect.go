package provider

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// redirects reports whether uri is one of the client's redirect URIs, compared
// character by character (RFC 9700 §2.1). For a native client registered with
// a loopback address any port is as good as the registered one (RFC 8252
// §7.3).
func (c *Client) redirects(uri string) bool {
	if slices.Contains(c.RedirectURIs, uri) {
		return true
	}
	wanted, ok := portless(uri)
	if !ok || !c.Public {
		return false
	}
	return slices.ContainsFunc(c.RedirectURIs, func(registered string) bool {
		have, ok := portless(registered)
		return ok && have == wanted
	})
}

// portless returns a plain http URI of a loopback address without its port. It
// cuts the string instead of parsing it: two parsers may disagree about what
// the host is, and here there is nothing to disagree about.
func portless(uri string) (string, bool) {
	for _, host := range []string{"http://127.0.0.1", "http://[::1]"} {
		rest, ok := strings.CutPrefix(uri, host)
		if !ok {
			continue
		}
		if port, found := strings.CutPrefix(rest, ":"); found {
			end := strings.IndexFunc(port, func(r rune) bool { return r < '0' || r > '9' })
			if end < 0 {
				end = len(port)
			}
			if number, err := strconv.ParseUint(port[:end], 10, 16); err != nil || number == 0 {
				return "", false
			}
			rest = port[end:]
		}
		return host + rest, rest == "" || rest[0] == '/' || rest[0] == '?'
	}
	return "", false
}

// The values of response_mode that are served.
const (
	modeQuery    = "query"
	modeFormPost = "form_post" // OAuth 2.0 Form Post Response Mode
)

// Param is one parameter of an authorization response.
type Param struct{ Name, Value string }

// AuthorizationResponse is what a browser takes back to a client (RFC 6749
// §4.1.2).
type AuthorizationResponse struct {
	RedirectURI string
	FormPost    bool // as a form instead of a query
	Params      []Param

	ClientID string // for the log, like what follows
	Error    Code   // "": a code was issued
	Reason   string
	UserID   string
}

// URL is where a response that is not a FormPost sends the browser. What the
// registered redirect URI has for a query stays as it is.
func (r *AuthorizationResponse) URL() string {
	var b strings.Builder
	b.WriteString(r.RedirectURI)
	separator := byte('?')
	if strings.Contains(r.RedirectURI, "?") {
		separator = '&'
	}
	for _, param := range r.Params {
		b.WriteByte(separator)
		separator = '&'
		b.WriteString(param.Name)
		b.WriteByte('=')
		b.WriteString(url.QueryEscape(param.Value))
	}
	return b.String()
}
