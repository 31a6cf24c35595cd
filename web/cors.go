package web

import (
	"net/http"

	"github.com/wxidp/wxidp/provider"
)

// crossOrigin lets browser apps read answers (Fetch standard, "CORS
// protocol"): those of the configured clients at the endpoints that such apps
// ask themselves, and everybody where nothing is secret. Nobody's cookies
// count: no answer allows credentials. It answers preflight requests.
func (s *Server) crossOrigin(next http.Handler) http.Handler {
	// Methods by path; "*" stands for every origin.
	type sharing struct {
		origin  string
		methods string
	}
	shared := map[string]sharing{
		s.pathPrefix + provider.PathToken:      {methods: "POST"},
		s.pathPrefix + provider.PathRevocation: {methods: "POST"},
		s.pathPrefix + provider.PathUserInfo:   {methods: "GET, POST"},
		s.pathPrefix + provider.PathPushed:     {methods: "POST"},
		s.pathPrefix + provider.PathDiscovery:  {origin: "*", methods: "GET"},
		s.pathPrefix + provider.PathJWKS:       {origin: "*", methods: "GET"},
		provider.PathMetadata + s.pathPrefix:   {origin: "*", methods: "GET"},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, ok := shared[r.URL.Path]
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		header, origin := w.Header(), at.origin
		if origin == "" {
			header.Add("Vary", "Origin")
			if asking := r.Header["Origin"]; len(asking) == 1 && s.Provider.AllowsOrigin(asking[0]) {
				origin = asking[0]
			}
		}
		preflight := r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
		if origin != "" {
			header.Set("Access-Control-Allow-Origin", origin)
			if preflight {
				header.Set("Access-Control-Allow-Methods", at.methods)
				header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, DPoP, Idempotency-Key")
				header.Set("Access-Control-Max-Age", "600")
			} else {
				header.Set("Access-Control-Expose-Headers", "WWW-Authenticate, DPoP-Nonce, Retry-After, Date, X-Request-Id")
			}
		}
		if preflight {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// dpopNonce gives the nonce for the next proof with every answer to a request
// that has one (RFC 9449 §8.2).
func (s *Server) dpopNonce(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header["Dpop"]) > 0 {
			if nonce := s.Provider.DPoPNonce(); nonce != "" {
				w.Header().Set("DPoP-Nonce", nonce)
			}
		}
		next.ServeHTTP(w, r)
	})
}
