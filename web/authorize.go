package web

import (
	"net/http"
	"net/url"

	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/web/pages"
)

// maxQuery bounds the query of a page, in bytes.
const maxQuery = 12 << 10

// serveAuthorize is the authorization endpoint (RFC 6749 §3.1) for GET.
func (s *Server) serveAuthorize(w http.ResponseWriter, r *http.Request) error {
	params, err := parseQuery(r)
	if err != nil {
		return err
	}
	next, err := s.Provider.Authorize(r.Context(), s.browserRequest(w, r), params)
	return s.goOn(w, r, next, err)
}

// servePostedAuthorize is the authorization endpoint for POST (OIDC Core
// §3.1.2.1). Another site has posted, so the browser has kept its cookies to
// itself: it comes back by GET with them.
func (s *Server) servePostedAuthorize(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	query := r.PostForm.Encode()
	if r.URL.RawQuery != "" || len(query) > maxQuery/2 {
		return provider.BadQuery(http.StatusBadRequest, "authorization_request_too_long")
	}
	seeOther(w, s.pathPrefix+provider.PathAuthorize+"?"+query)
	return nil
}

// parseQuery reads the parameters of a page's URL.
func parseQuery(r *http.Request) (url.Values, error) {
	if len(r.URL.RawQuery) > maxQuery {
		return nil, provider.BadQuery(http.StatusRequestURITooLong, "query_too_long")
	}
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, provider.BadQuery(http.StatusBadRequest, "query_syntax")
	}
	for name, values := range params {
		for _, value := range values {
			if !clean(name) || !clean(value) {
				return nil, provider.BadQuery(http.StatusBadRequest, "query_characters")
			}
		}
	}
	r.Form = params
	return params, nil
}

// goOn sends the browser where the provider says, or returns the error.
func (s *Server) goOn(w http.ResponseWriter, r *http.Request, next provider.Next, err error) error {
	if next.Login != "" {
		s.setCookie(w, cookieLogin, next.Login, next.LoginLifetime)
	}
	switch {
	case err != nil:
		return err
	case next.Response != nil && next.Response.FormPost:
		return s.postBack(w, r, next.Response)
	case next.Response != nil:
		seeOther(w, next.Response.URL())
	case next.Path != "":
		seeOther(w, s.pathPrefix+next.Path)
	case next.Device != "":
		body, err := s.site.Load().DeviceDone(s.pageContext(w, r, s.cookie(r, cookieBrowser), ""),
			pages.DeviceDone{Approved: next.Approved, Client: next.Device})
		return s.writePage(w, http.StatusOK, body, err)
	default:
		seeOther(w, s.signInPath(next.Interaction))
	}
	return nil
}

// postBack answers by a form that submits itself to the client (OAuth 2.0 Form
// Post Response Mode).
func (s *Server) postBack(w http.ResponseWriter, r *http.Request, response *provider.AuthorizationResponse) error {
	view := pages.FormPost{Action: response.RedirectURI}
	for _, param := range response.Params {
		view.Fields = append(view.Fields, pages.Field{Name: param.Name, Value: param.Value})
	}
	ctx := s.pageContext(w, r, "", "")
	ctx.URL = ""
	body, err := s.site.Load().FormPost(ctx, view)
	return s.writePage(w, http.StatusOK, body, err)
}

// servePushed takes pushed authorization requests (RFC 9126).
func (s *Server) servePushed(w http.ResponseWriter, r *http.Request) error {
	body, err := s.Provider.Push(r.Context(), request(w, r))
	if err != nil {
		return err
	}
	noStore(w)
	writeJSON(w, http.StatusCreated, body)
	return nil
}
