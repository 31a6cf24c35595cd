package web

import "net/http"

// leave asks for the end of the connection with every answer from Drain on, so
// that when the listeners close few are left on which a balancer could be
// sending a request just then.
func (s *Server) leave(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}
