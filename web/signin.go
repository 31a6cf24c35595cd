package web

import (
	"context"
	"encoding/base64"
	"html/template"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/web/pages"
)

// pathSignIn is where interactions are, below the issuer.
const pathSignIn = "/signin/{id}"

func (s *Server) signInPath(id string) string { return s.pathPrefix + "/signin/" + id }

// serveSignIn shows what an interaction asks for: who the person is, which
// account, or consent.
func (s *Server) serveSignIn(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseQuery(r); err != nil {
		return err
	}
	return s.showSignIn(w, r, nil)
}

// showSignIn shows an interaction with what went wrong just before; nil:
// nothing did.
func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request, trouble *provider.Error) error {
	req := s.browserRequest(w, r)
	view, next, err := s.Provider.Interaction(r.Context(), req, chi.URLParam(r, "id"))
	if err != nil || view == nil {
		return s.goOn(w, r, next, err)
	}
	ctx := s.pageContext(w, r, req.Browser, view.Locales)
	ctx.URL = s.signInPath(view.ID)
	if view.Step == provider.StepSignIn {
		ctx.CSRF = csrfToken(req.Browser, "") // whoever signs in with another page meanwhile
	}
	status := http.StatusOK
	notice := ""
	if trouble != nil {
		s.announce(w, trouble)
		status, notice = trouble.Status, trouble.Message.In(string(ctx.Lang))
	}
	body, err := s.stepPage(ctx, view, notice)
	return s.writePage(w, status, body, err)
}

func (s *Server) stepPage(ctx pages.Context, view *provider.InteractionView, notice string) ([]byte, error) {
	site := s.site.Load()
	base := s.signInPath(view.ID)
	switch view.Step {
	case provider.StepSelect:
		return site.SelectAccount(ctx, pages.SelectAccount{Base: base, Client: view.Client, Account: view.Account})
	case provider.StepConsent:
		consent := pages.Consent{Base: base, Client: view.Client, Account: view.Account, Claims: view.Claims, Offline: view.Offline, Terms: view.Terms}
		if view.Device {
			consent.Device = &pages.Device{Code: view.UserCode, Agent: view.Agent, Place: view.Place, Since: view.Since}
		}
		for _, scope := range view.Scope {
			consent.Scopes = append(consent.Scopes, pages.ScopeText{Name: scope})
		}
		return site.Consent(ctx, consent)
	}
	scan, err := scanOf(view.Scan)
	if err != nil {
		return nil, err
	}
	return site.SignIn(ctx, pages.SignIn{
		Base: base, Client: view.Client, LoginHint: view.LoginHint, Notice: notice, Password: true, Scan: scan,
	})
}

func scanOf(view *provider.ScanView) (*pages.Scan, error) {
	if view == nil {
		return nil, nil
	}
	scan := &pages.Scan{
		Link: view.Link, Number: view.Number, ExpiresIn: time.Until(view.ExpiresAt), State: pages.ScanState(view.State),
	}
	if view.Image != nil {
		scan.Image = template.URL("data:" + view.ImageType + ";base64," + base64.StdEncoding.EncodeToString(view.Image))
		return scan, nil
	}
	var err error
	scan.Image, err = pages.QR(view.Link)
	return scan, err
}

// serveStep adapts what a button of an interaction's page does.
func (s *Server) serveStep(personal bool, do func(ctx context.Context, req provider.Request, id string) (provider.Next, error)) http.HandlerFunc {
	return s.anyForm(personal, func(w http.ResponseWriter, r *http.Request) error {
		next, err := do(r.Context(), s.browserRequest(w, r), chi.URLParam(r, "id"))
		return s.goOn(w, r, next, err)
	})
}

// serveAllow takes the consent page's yes.
func (s *Server) serveAllow(w http.ResponseWriter, r *http.Request) error {
	next, err := s.Provider.Allow(r.Context(), s.browserRequest(w, r), chi.URLParam(r, "id"), r.PostForm.Get(pages.TermsField))
	return s.goOn(w, r, next, err)
}

// servePassword signs in by username and password. What is wrong with them is
// said on the same page.
func (s *Server) servePassword(w http.ResponseWriter, r *http.Request) error {
	next, err := s.Provider.SignInWithPassword(r.Context(), s.browserRequest(w, r), chi.URLParam(r, "id"),
		r.PostForm.Get("username"), r.PostForm.Get("password"))
	if err == nil {
		s.Metrics.login("password", "ok")
		return s.goOn(w, r, next, nil)
	}
	refusal := provider.AsError(err)
	if !refusal.Form {
		return s.goOn(w, r, next, err)
	}
	s.Metrics.login("password", string(refusal.Code))
	s.logError(w, r, "login.denied", refusal, nil)
	return s.showSignIn(w, r, refusal)
}

// serveFinish signs in who has approved the shown code on a phone.
func (s *Server) serveFinish(w http.ResponseWriter, r *http.Request) error {
	next, err := s.Provider.FinishScan(r.Context(), s.browserRequest(w, r), chi.URLParam(r, "id"))
	if err == nil && next.Login != "" {
		s.Metrics.login("scan", "ok")
	}
	return s.goOn(w, r, next, err)
}

// serveNewScan shows another code for scanning.
func (s *Server) serveNewScan(w http.ResponseWriter, r *http.Request) error {
	id := chi.URLParam(r, "id")
	if err := s.Provider.RenewScan(r.Context(), s.browserRequest(w, r), id); err != nil {
		return err
	}
	seeOther(w, s.signInPath(id))
	return nil
}

// serveScanState says how the shown code stands.
func (s *Server) serveScanState(w http.ResponseWriter, r *http.Request) error {
	state, err := s.Provider.ScanState(r.Context(), s.browserRequest(w, r), chi.URLParam(r, "id"), "")
	return reply(w, []byte(`{"state":"`+state+`"}`+"\n"), err)
}

// serveScanEvents says by server-sent events how the shown code stands, until
// nothing more can become of it.
func (s *Server) serveScanEvents(w http.ResponseWriter, r *http.Request) error {
	req, id := s.browserRequest(w, r), chi.URLParam(r, "id")
	stream := http.NewResponseController(w)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.drained, cancel)()
	last := ""
	look := r.Context() // the first look; a browser that was refused it would not ask again
	for {
		state, err := s.Provider.ScanState(look, req, id, last)
		if err != nil && last == "" {
			return err
		}
		if err != nil || look.Err() != nil {
			return nil // the browser asks again, maybe another node
		}
		look = ctx
		if last == "" {
			noStore(w)
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("X-Accel-Buffering", "no")
		}
		message := ": still " + state + "\n\n"
		if state != last {
			message = "data: {\"state\":\"" + state + "\"}\n\n"
		}
		last = state
		if err := stream.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := w.Write([]byte(message)); err != nil {
			return nil // the browser is gone
		}
		if err := stream.Flush(); err != nil {
			return nil
		}
		switch pages.ScanState(state) {
		case pages.ScanWaiting, pages.ScanScanned:
		default:
			return nil
		}
	}
}
