package web

import (
	"net/http"

	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/web/pages"
)

// serveDevice asks for a device's user code (RFC 8628 §3.3).
func (s *Server) serveDevice(w http.ResponseWriter, r *http.Request) error {
	params, err := parseQuery(r)
	if err != nil {
		return err
	}
	req := s.browserRequest(w, r)
	return s.showDevice(w, r, req, cut(params.Get("user_code"), 16), nil)
}

func (s *Server) showDevice(w http.ResponseWriter, r *http.Request, req provider.Request, code string, trouble *provider.Error) error {
	ctx := s.pageContext(w, r, req.Browser, "")
	ctx.CSRF = csrfToken(req.Browser, "") // nothing is decided here for anybody
	view := pages.DeviceEntry{Action: s.pathPrefix + provider.PathDeviceVerification, Code: code}
	status := http.StatusOK
	if trouble != nil {
		s.announce(w, trouble)
		status, view.Notice = trouble.Status, trouble.Message.In(string(ctx.Lang))
	}
	body, err := s.site.Load().DeviceEntry(ctx, view)
	return s.writePage(w, status, body, err)
}

// serveDeviceCode goes on with the user code that was typed.
func (s *Server) serveDeviceCode(w http.ResponseWriter, r *http.Request) error {
	req := s.browserRequest(w, r)
	code := r.PostForm.Get("user_code")
	lang, _ := pages.ParseLang(s.cookie(r, cookieLanguage))
	next, err := s.Provider.BeginDevice(r.Context(), req, code, string(lang))
	if refusal := provider.AsError(err); err != nil && refusal.Status < http.StatusInternalServerError {
		s.logError(w, r, "", refusal, nil)
		return s.showDevice(w, r, req, cut(code, 16), refusal)
	}
	return s.goOn(w, r, next, err)
}

// serveScanLanding is what the link in a code shows where no mini-program opens.
func (s *Server) serveScanLanding(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseQuery(r); err != nil {
		return err
	}
	req := s.browserRequest(w, r)
	body, err := s.site.Load().ScanLanding(s.pageContext(w, r, req.Browser, ""), pages.ScanLanding{})
	return s.writePage(w, http.StatusOK, body, err)
}

// serveVerification serves the file by which WeChat makes sure that the
// operator rules this host.
func (s *Server) serveVerification(w http.ResponseWriter, r *http.Request) {
	site := s.site.Load()
	if site.verification == "" || r.URL.Path != site.verification {
		notFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	noStore(w)
	_, _ = w.Write(site.verifies) // WeChat may be gone; there is nobody else to tell
}
