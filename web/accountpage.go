package web

import (
	"context"
	"net/http"

	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/web/pages"
)

// serveAccountPage shows people what is kept of them. Who is not signed in
// signs in first.
func (s *Server) serveAccountPage(w http.ResponseWriter, r *http.Request) error {
	params, err := parseQuery(r)
	if err != nil {
		return err
	}
	req := s.browserRequest(w, r)
	account, err := s.Provider.Account(r.Context(), req)
	if err != nil {
		return err
	}
	if account == nil {
		next, err := s.Provider.BeginAccount(r.Context(), req, params)
		return s.goOn(w, r, next, err)
	}
	ctx := s.pageContext(w, r, req.Browser, "")
	body, err := s.site.Load().Account(ctx, accountPage(account))
	return s.writePage(w, http.StatusOK, body, err)
}

func accountPage(account *provider.AccountView) pages.Account {
	page := pages.Account{Name: account.Name, Username: account.Username, Phone: account.Phone}
	for _, identity := range account.Identities {
		page.Identities = append(page.Identities, pages.Identity{App: identity.AppID, LinkedAt: identity.LinkedAt})
	}
	for _, login := range account.Logins {
		page.Logins = append(page.Logins, pages.Login(login))
	}
	for _, signIn := range account.SignIns {
		page.SignIns = append(page.SignIns, pages.ClientSignIn(signIn))
	}
	for _, consent := range account.Consents {
		page.Consents = append(page.Consents, pages.GrantedConsent{
			ClientID: consent.ClientID, Client: consent.Client, Scopes: consent.Scope, Since: consent.Since,
		})
	}
	return page
}

// serveAccountChange adapts a button of the account page, which is shown again
// after it.
func (s *Server) serveAccountChange(do func(ctx context.Context, req provider.Request, id string) (bool, error)) http.HandlerFunc {
	return s.personalForm(func(w http.ResponseWriter, r *http.Request) error {
		if _, err := do(r.Context(), s.browserRequest(w, r), r.PostForm.Get("id")); err != nil {
			return err
		}
		seeOther(w, s.pathPrefix+provider.PathAccount)
		return nil
	})
}

// serveSignOut ends the browser's login session, or all of the user's sign-ins.
func (s *Server) serveSignOut(everywhere bool) http.HandlerFunc {
	return s.personalForm(func(w http.ResponseWriter, r *http.Request) error {
		req := s.browserRequest(w, r)
		if err := s.Provider.SignOut(r.Context(), req, everywhere); err != nil {
			return err
		}
		return s.showSignedOut(w, r, req, "", "")
	})
}

// showSignedOut takes the login session's cookie from the browser and says so.
func (s *Server) showSignedOut(w http.ResponseWriter, r *http.Request, req provider.Request, client, returnURI string) error {
	s.setCookie(w, cookieLogin, "", -1)
	ctx := s.pageContext(w, r, req.Browser, "")
	ctx.URL = ""
	body, err := s.site.Load().SignedOut(ctx, pages.SignedOut{Client: client, ReturnURI: returnURI})
	return s.writePage(w, http.StatusOK, body, err)
}
