package web

import (
	"context"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/web/pages"
)

// Public is the handler of the public listener: every route of the issuer.
func (s *Server) Public() http.Handler {
	r := chi.NewRouter()
	s.middleware(r)
	s.health(r)
	s.fallbacks(r)
	// Not a subrouter: chi copies the request and its pattern for one.
	at := func(path string) string { return s.pathPrefix + path }
	get(r, at(provider.PathDiscovery), s.serveMetadata)
	get(r, at(provider.PathJWKS), s.serveJWKS)
	r.Post(at(provider.PathToken), s.limited(s.form(s.serveToken)))
	r.Post(at(provider.PathRevocation), s.limited(s.form(s.serveRevocation)))
	r.Post(at(provider.PathIntrospection), s.form(s.limitedFailures(s.serveIntrospection)))
	get(r, at(provider.PathUserInfo), s.limited(s.endpoint(s.admitted(s.serveUserInfo))))
	r.Post(at(provider.PathUserInfo), s.limited(s.form(s.serveUserInfo)))
	// By POST as well: wx.request knows no PATCH.
	for _, method := range []string{http.MethodPatch, http.MethodPost} {
		r.Method(method, at(provider.PathAccount), s.limited(s.endpoint(s.admitted(s.serveAccount))))
	}
	r.Post(at(provider.PathUnbind), s.limited(s.form(s.serveUnbind)))
	for _, path := range []string{
		provider.PathWeChatDecrypt, provider.PathWeChatVerifySignature, provider.PathWeChatCheckSession, provider.PathWeChatResetSession,
	} {
		r.Post(at(path), s.form(s.limitedFailures(s.serveWeChatData(path))))
	}
	r.Post(at(provider.PathDeviceAuthorization), s.limited(s.form(s.serveDeviceAuthorization)))
	r.Post(at(provider.PathDeviceContext), s.servePhone(s.Provider.DeviceContext))
	r.Post(at(provider.PathDeviceApprove), s.servePhone(s.Provider.DeviceApprove))
	r.Post(at(provider.PathDeviceDeny), s.servePhone(s.Provider.DeviceDeny))
	s.pages(r, at)
	r.Get(at(pathWeChatEvents), s.limited(s.serveEventTrial))
	r.Post(at(pathWeChatEvents), s.limited(s.serveEvent))
	// RFC 8414 §3.1 puts the issuer's path behind the well-known one.
	get(r, provider.PathMetadata+s.pathPrefix, s.serveMetadata)
	return r
}

// pages are the routes of browsers. Those that write something for a GET do
// not answer HEAD.
func (s *Server) pages(r chi.Router, at func(string) string) {
	r.Get(at(provider.PathAuthorize), s.page(s.serveAuthorize))
	r.Post(at(provider.PathAuthorize), s.page(s.servePostedAuthorize))
	r.Post(at(provider.PathPushed), s.limited(s.form(s.servePushed)))
	r.Get(at(pathSignIn), s.page(s.serveSignIn))
	r.Post(at(pathSignIn+"/password"), s.pageForm(s.servePassword))
	r.Post(at(pathSignIn+"/scan"), s.pageForm(s.serveNewScan))
	r.Post(at(pathSignIn+"/finish"), s.pageForm(s.serveFinish))
	r.Get(at(pathSignIn+"/state"), s.limited(s.endpoint(s.serveScanState)))
	r.Get(at(pathSignIn+"/events"), s.limited(s.endpoint(s.serveScanEvents)))
	r.Post(at(pathSignIn+"/allow"), s.personalForm(s.serveAllow))
	r.Post(at(pathSignIn+"/cancel"), s.serveStep(false, s.Provider.Deny))
	for button, do := range map[string]func(context.Context, provider.Request, string) (provider.Next, error){
		"/deny": s.Provider.Deny, "/continue": s.Provider.Continue, "/switch": s.Provider.Switch,
	} {
		r.Post(at(pathSignIn+button), s.serveStep(true, do))
	}
	r.Get(at(provider.PathDeviceVerification), s.page(s.serveDevice))
	r.Post(at(provider.PathDeviceVerification), s.pageForm(s.serveDeviceCode))
	r.Get(at(provider.PathAccount), s.page(s.serveAccountPage))
	for button, do := range map[string]func(context.Context, provider.Request, string) (bool, error){
		"/end-login": s.Provider.EndLogin, "/end-sign-in": s.Provider.EndSignIn, "/revoke-consent": s.Provider.RevokeConsent,
	} {
		r.Post(at(provider.PathAccount+button), s.serveAccountChange(do))
	}
	r.Post(at(provider.PathAccount+"/sign-out"), s.serveSignOut(false))
	r.Post(at(provider.PathAccount+"/sign-out-everywhere"), s.serveSignOut(true))
	r.Get(at(provider.PathEndSession), s.page(s.serveEndSession)) // not by HEAD, which must end nothing
	r.Post(at(provider.PathEndSession), s.page(s.servePostedEndSession))
	r.Post(at(provider.PathEndSessionConfirm), s.pageForm(s.serveEndSessionConfirm))
	get(r, at("/scan"), s.page(s.serveScanLanding))
	get(r, at(pages.AssetsPath+"{name}"), s.serveAsset)
	get(r, "/{name:[A-Za-z0-9_-]+\\.txt}", s.serveVerification)
}

// middleware is what every request of the public listener goes through.
func (s *Server) middleware(r chi.Router) {
	r.Use(s.leave, s.clientIP(), s.warnForwarded, s.identify, s.measure, s.recoverPanics, s.crossOrigin, s.dpopNonce)
}

// Admin is the handler of the admin listener: health and metrics for anybody
// who reaches it, the admin API with the admin token.
func (s *Server) Admin() http.Handler {
	r := s.adminRouter()
	r.Group(func(r chi.Router) {
		r.Use(s.requireAdminToken)
		s.adminAPI(r)
	})
	return r
}

// AdminSocket is the handler of the admin socket, whose file mode is the
// credential.
func (s *Server) AdminSocket() http.Handler {
	r := s.adminRouter()
	s.adminAPI(r)
	r.HandleFunc("/debug/pprof/", pprof.Index)
	r.HandleFunc("/debug/pprof/{profile}", pprof.Index)
	r.HandleFunc("/debug/pprof/profile", pprof.Profile)
	r.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return r
}

func (s *Server) adminRouter() chi.Router {
	r := chi.NewRouter()
	r.Use(middleware.ClientIPFromRemoteAddr, s.identify, s.recoverPanics)
	s.health(r)
	s.fallbacks(r)
	r.Method(http.MethodGet, "/metrics", s.Metrics.Handler())
	return r
}

func (s *Server) adminAPI(r chi.Router) {
	r.Get(AdminKeys, s.endpoint(s.listKeys))
	r.Post(AdminKeysRotate, s.endpoint(s.rotateKeys))
	r.Post(AdminKeysRevoke, s.endpoint(s.revokeKey))
	r.Post(AdminKeysRewrap, s.endpoint(s.rewrapKeys))
	r.Get(AdminUsers, s.endpoint(s.listUsers))
	r.Post(AdminUsersShow, s.endpoint(s.showUser))
	r.Post(AdminUsersAdd, s.endpoint(s.addUser))
	r.Post(AdminUsersPassword, s.endpoint(s.setUserPassword))
	r.Post(AdminUsersUnbind, s.endpoint(s.unbindUser))
	r.Post(AdminUsersDisable, s.endpoint(s.disableUser))
	r.Post(AdminUsersEnable, s.endpoint(s.enableUser))
	r.Post(AdminUsersErase, s.endpoint(s.eraseUser))
	r.Post(AdminUsersExport, s.endpoint(s.exportUser))
	r.Post(AdminUsersMerge, s.endpoint(s.mergeUsers))
	r.Post(AdminUsersImport, s.endpoint(s.importUsers))
	r.Post(AdminSessions, s.endpoint(s.listSessions))
	r.Post(AdminSessionsRevoke, s.endpoint(s.revokeSessions))
	r.Post(AdminCompact, s.endpoint(s.compactData))
	r.Get(AdminBackup, s.endpoint(s.backupData))
}

func (s *Server) health(r chi.Router) {
	get(r, "/healthz", s.serveHealth)
	get(r, "/readyz", s.serveReady)
}

func (s *Server) fallbacks(r chi.Router) {
	r.NotFound(notFound)
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allowedMethods(r))
		noStore(w)
		writeJSON(w, http.StatusMethodNotAllowed, []byte(`{"error":"invalid_request","error_description":"This path does not answer that method."}`+"\n"))
	})
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	noStore(w)
	writeJSON(w, http.StatusNotFound, []byte(`{"error":"not_found","error_description":"There is nothing at this path."}`+"\n"))
}

// allowedMethods lists the methods that the request's path does answer.
func allowedMethods(r *http.Request) string {
	var methods []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch} {
		if chi.RouteContext(r.Context()).Routes.Match(chi.NewRouteContext(), method, r.URL.Path) {
			methods = append(methods, method)
		}
	}
	return strings.Join(methods, ", ")
}

func get(r chi.Router, path string, handler http.HandlerFunc) {
	r.Get(path, handler)
	r.Head(path, handler)
}
