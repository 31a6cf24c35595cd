package web

import (
	"net/http"

	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/web/pages"
)

// serveEndSession is RP-Initiated Logout 1.0 for GET.
func (s *Server) serveEndSession(w http.ResponseWriter, r *http.Request) error {
	params, err := parseQuery(r)
	if err != nil {
		return err
	}
	req := s.browserRequest(w, r)
	outcome, err := s.Provider.EndSession(r.Context(), req, params)
	return s.showEndSession(w, r, req, outcome, err)
}

// servePostedEndSession is RP-Initiated Logout 1.0 for POST. Another site has
// posted, so the browser has kept its cookies to itself: it comes back by GET
// with them.
func (s *Server) servePostedEndSession(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	query := r.PostForm.Encode()
	if r.URL.RawQuery != "" || len(query) > maxQuery {
		return provider.BadQuery(http.StatusBadRequest, "logout_request_too_long")
	}
	seeOther(w, s.pathPrefix+provider.PathEndSession+"?"+query)
	return nil
}

// serveEndSessionConfirm takes the form of the page that asks.
func (s *Server) serveEndSessionConfirm(w http.ResponseWriter, r *http.Request) error {
	req := s.browserRequest(w, r)
	outcome, err := s.Provider.ConfirmEndSession(r.Context(), req, r.PostForm)
	return s.showEndSession(w, r, req, outcome, err)
}

func (s *Server) showEndSession(w http.ResponseWriter, r *http.Request, req provider.Request, outcome provider.EndSessionOutcome, err error) error {
	switch {
	case err != nil:
		return err
	case outcome.Confirm != nil:
		return s.askEndSession(w, r, req, outcome)
	case outcome.RedirectURI != "":
		s.setCookie(w, cookieLogin, "", -1)
		seeOther(w, outcome.RedirectURI)
		return nil
	}
	return s.showSignedOut(w, r, req, outcome.ClientName, outcome.ReturnURI)
}

// askEndSession asks the person. The page has no links to other languages: its
// address may hold an ID Token.
func (s *Server) askEndSession(w http.ResponseWriter, r *http.Request, req provider.Request, outcome provider.EndSessionOutcome) error {
	view := pages.SignOut{
		Action: s.pathPrefix + provider.PathEndSessionConfirm, Client: outcome.ClientName, Account: outcome.Confirm.Account,
	}
	for _, field := range outcome.Confirm.Fields {
		view.Fields = append(view.Fields, pages.Field{Name: field.Name, Value: field.Value})
	}
	ctx := s.pageContext(w, r, req.Browser, "")
	ctx.URL, ctx.CSRF = "", csrfToken(req.Browser, "") // a field says whose login session it is about
	body, err := s.site.Load().SignOut(ctx, view)
	return s.writePage(w, http.StatusOK, body, err)
}
