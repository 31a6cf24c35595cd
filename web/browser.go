package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/web/pages"
)

// Names of cookies, without the prefix that they have on https.
const (
	cookieLogin    = "wxidp-login"    // the login session
	cookieBrowser  = "wxidp-browser"  // what interactions belong to
	cookieLanguage = "wxidp-language" // what the person has chosen
)

// cookieName is the name of a cookie: with the prefix that makes browsers keep
// it to this very host (RFC 6265bis §4.1.3.2). Browsers take it on https only.
func (s *Server) cookieName(name string) string {
	if s.secure {
		return "__Host-" + name
	}
	return name
}

func (s *Server) cookie(r *http.Request, name string) string {
	cookie, err := r.Cookie(s.cookieName(name))
	if err != nil {
		return ""
	}
	return cookie.Value
}

// setCookie sets a cookie for lifetime; 0 keeps it until the browser is closed,
// and a negative one removes it.
func (s *Server) setCookie(w http.ResponseWriter, name, value string, lifetime time.Duration) {
	cookie := &http.Cookie{
		Name: s.cookieName(name), Value: value, Path: "/", HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteLaxMode,
		MaxAge: int(lifetime / time.Second),
	}
	if lifetime < 0 {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
}

// browserRequest is what the provider gets to see of a browser. One without a
// browser cookie gets it.
func (s *Server) browserRequest(w http.ResponseWriter, r *http.Request) provider.Request {
	req := request(w, r)
	req.Login = s.cookie(r, cookieLogin)
	req.Browser = s.cookie(r, cookieBrowser)
	if !storage.IsToken(req.Browser) {
		req.Browser = storage.NewToken()
		s.setCookie(w, cookieBrowser, req.Browser, 0)
	}
	req.Agent = browserName(r.UserAgent())
	req.Place = s.place(r)
	return req
}

// csrfToken is what forms of the browser's pages have. It follows from a cookie
// that no other site can read or set and, on pages that decide something for
// who is signed in, from the login session: a page that was made for one person
// must not decide for another who has signed in since. login is "" on others.
func csrfToken(browser, login string) string {
	sum := sha256.Sum256([]byte("wxidp csrf\x00" + browser + "\x00" + login))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// ownForm lets only forms of our own pages through: the browser must say so
// where it can, and the token must be the browser's. With personal it must also
// be the login session's.
func (s *Server) ownForm(personal bool, next func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		browser := s.cookie(r, cookieBrowser)
		if !s.sameOrigin(r) || !storage.IsToken(browser) {
			return provider.ForeignForm()
		}
		token := r.PostForm.Get(pages.CSRFField)
		same := func(want string) bool { return subtle.ConstantTimeCompare([]byte(token), []byte(want)) == 1 }
		if same(csrfToken(browser, s.cookie(r, cookieLogin))) || !personal && same(csrfToken(browser, "")) {
			return next(w, r)
		}
		return provider.ForeignForm()
	}
}

// sameOrigin reports whether nothing in the request speaks for another origin.
// With Referrer-Policy: no-referrer browsers send the Origin null for forms; of
// these Sec-Fetch-Site or, in old ones, the token must speak.
func (s *Server) sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	return origin == "" || origin == "null" || origin == s.origin
}

// browserName is a browser and its system as people may recognise them.
func browserName(agent string) string {
	name := firstMention(agent, browsers)
	system := firstMention(agent, systems)
	switch {
	case name == "":
		return system
	case system == "":
		return name
	}
	return name + ", " + system
}

// Names by what User-Agent headers mention, the more particular ones first.
var (
	browsers = [][2]string{
		{"MicroMessenger/", "WeChat"}, {"Edg/", "Edge"}, {"EdgA/", "Edge"}, {"OPR/", "Opera"}, {"SamsungBrowser/", "Samsung Internet"},
		{"QQBrowser/", "QQ Browser"}, {"UCBrowser/", "UC Browser"}, {"HuaweiBrowser/", "Huawei Browser"}, {"MiuiBrowser/", "Mi Browser"},
		{"Firefox/", "Firefox"}, {"FxiOS/", "Firefox"}, {"CriOS/", "Chrome"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}, {"curl/", "curl"},
	}
	systems = [][2]string{
		{"HarmonyOS", "HarmonyOS"}, {"Android", "Android"}, {"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Windows", "Windows"},
		{"Macintosh", "macOS"}, {"CrOS", "ChromeOS"}, {"Linux", "Linux"},
	}
)

func firstMention(agent string, names [][2]string) string {
	for _, name := range names {
		if strings.Contains(agent, name[0]) {
			return name[1]
		}
	}
	return ""
}

// place is where a browser is, as coarsely as the operator's proxy says it; ""
// where nobody says it.
func (s *Server) place(r *http.Request) string {
	header := s.site.Load().placeHeader
	if header == "" || !s.trusted(r.RemoteAddr) {
		return ""
	}
	place, err := url.PathUnescape(r.Header.Get(header))
	if err != nil || !clean(place) {
		return ""
	}
	return cut(strings.TrimSpace(place), 60)
}
