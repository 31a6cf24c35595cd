package web

import "net/http"

// serveWeChatData lets a backend use WeChat's session_key of a user.
func (s *Server) serveWeChatData(path string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		body, err := s.Provider.UseSessionKey(r.Context(), request(w, r), path)
		return reply(w, body, err)
	}
}
