package web

import (
	"net/http"
	"strconv"
	"time"

	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/web/pages"
)

// Site is how the pages look and what the issuer's host serves beside them. A
// reload may change it.
type Site struct {
	Brand pages.Brand
	// PlaceHeader is where a trusted proxy says the coarse place of a browser;
	// "": nobody says it.
	PlaceHeader string
	// VerificationName and VerificationBody are a file that WeChat wants to
	// find at the root of the host; "": none.
	VerificationName string
	VerificationBody []byte
}

// site is a prepared Site.
type site struct {
	*pages.Renderer
	assets       map[string]pages.Asset
	placeHeader  string
	verification string // path; "": none
	verifies     []byte
}

// PrepareSite checks a site without showing it. apply, which cannot fail, does.
func (s *Server) PrepareSite(in Site) (apply func(), err error) {
	renderer, err := pages.New(s.pathPrefix, in.Brand)
	if err != nil {
		return nil, err
	}
	next := &site{Renderer: renderer, assets: renderer.Assets(), placeHeader: in.PlaceHeader, verifies: in.VerificationBody}
	if in.VerificationName != "" {
		next.verification = "/" + in.VerificationName
	}
	return func() {
		if old := s.site.Load(); old != nil {
			next.keep(old.assets)
		}
		s.site.Store(next)
	}, nil
}

// keep goes on serving the assets of pages that browsers have open. Those of
// more than one site before are dropped.
func (s *site) keep(old map[string]pages.Asset) {
	if len(old) > 4*len(s.assets) {
		return
	}
	for path, asset := range old {
		if _, ok := s.assets[path]; !ok {
			s.assets[path] = asset
		}
	}
}

// serveAsset serves what pages name. The name has a hash, so that what it
// stands for never changes.
func (s *Server) serveAsset(w http.ResponseWriter, r *http.Request) {
	asset, ok := s.site.Load().assets[r.URL.Path]
	if !ok {
		notFound(w, r)
		return
	}
	header := w.Header()
	header.Set("Cache-Control", "public, max-age=31536000, immutable")
	header.Set("ETag", asset.ETag)
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox") // an SVG that is opened by itself
	if match := r.Header.Get("If-None-Match"); match != "" && matches(match, asset.ETag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Type", asset.ContentType)
	header.Set("Content-Length", strconv.Itoa(len(asset.Body)))
	_, _ = w.Write(asset.Body) // the browser may be gone; there is nobody else to tell
}

// contentSecurityPolicy has no form-action: browsers apply it to the redirects
// that follow a form, too, and a sign-in ends with one to the client.
const contentSecurityPolicy = "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; " +
	"connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"

// pageHeaders are what every page and every redirect between pages has.
func pageHeaders(w http.ResponseWriter) {
	header := w.Header()
	noStore(w)
	header.Set("Content-Security-Policy", contentSecurityPolicy)
	header.Set("X-Frame-Options", "DENY")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=()")
}

// pageContext is what every page needs, in the language of the browser's
// choice, the client's wish or the browser's setting, in this order.
func (s *Server) pageContext(w http.ResponseWriter, r *http.Request, browser, locales string) pages.Context {
	chosen := s.cookie(r, cookieLanguage)
	if lang, ok := pages.ParseLang(r.URL.Query().Get(pages.LangParam)); ok {
		chosen = string(lang)
		s.setCookie(w, cookieLanguage, chosen, 365*24*time.Hour)
	}
	if locales == "" {
		locales = r.Form.Get("ui_locales")
	}
	return pages.Context{
		Lang: pages.Language(locales, r.Header.Get("Accept-Language"), chosen),
		CSRF: csrfToken(browser, s.cookie(r, cookieLogin)),
		URL:  r.URL.Path,
	}
}

// writePage answers with a page, or with the error that kept it from being
// made.
func (s *Server) writePage(w http.ResponseWriter, status int, body []byte, err error) error {
	if err != nil {
		return err
	}
	pageHeaders(w)
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the browser may be gone; there is nobody else to tell
	return nil
}

// seeOther sends the browser to a URL by GET, whatever it came by (RFC 9700
// §4.12).
func seeOther(w http.ResponseWriter, url string) {
	pageHeaders(w)
	w.Header().Set("Location", url)
	w.WriteHeader(http.StatusSeeOther)
}

// page adapts a handler of pages: its error is shown to a person. It logs as
// writeError does.
func (s *Server) page(handle func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if ok, wait := s.perIP.Allow(subscriber(r)); !ok {
			s.writePageError(w, r, provider.Limited("requests_per_ip", wait))
			return
		}
		if err := handle(w, r); err != nil {
			s.writePageError(w, r, err)
		}
	}
}

// pageForm is page for form posts of our own pages.
func (s *Server) pageForm(handle func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return s.anyForm(false, handle)
}

// personalForm is pageForm for what is decided for who is signed in.
func (s *Server) personalForm(handle func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return s.anyForm(true, handle)
}

func (s *Server) anyForm(personal bool, handle func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return s.page(func(w http.ResponseWriter, r *http.Request) error {
		if err := parseForm(w, r); err != nil {
			return err
		}
		return s.ownForm(personal, handle)(w, r)
	})
}

// writePageError shows an error to the person in front of the browser.
func (s *Server) writePageError(w http.ResponseWriter, r *http.Request, err error) {
	e := provider.AsError(err)
	s.logError(w, r, "", e, nil)
	s.announce(w, e)
	ctx := s.pageContext(w, r, "", "")
	ctx.URL = "" // what failed is not to be repeated in another language
	body, renderErr := s.site.Load().Error(ctx, pages.Error{
		Message: e.Message.In(string(ctx.Lang)), Code: string(e.Code), RequestID: w.Header().Get(requestIDHeader),
	})
	if renderErr != nil {
		s.writeError(w, r, "", renderErr)
		return
	}
	_ = s.writePage(w, e.Status, body, nil) // there is no error to return
}
