package web

import (
	"context"
	"net/http"

	"github.com/wxidp/wxidp/provider"
)

// serveDeviceAuthorization is RFC 8628 §3.1.
func (s *Server) serveDeviceAuthorization(w http.ResponseWriter, r *http.Request) error {
	req := request(w, r)
	req.Agent, req.Place = browserName(r.UserAgent()), s.place(r)
	body, err := s.Provider.DeviceAuthorization(r.Context(), req)
	return reply(w, body, err)
}

// servePhone adapts one of the provider's answers to a mini-program whose user
// decides about another screen.
func (s *Server) servePhone(answer func(context.Context, provider.Request) ([]byte, error)) http.HandlerFunc {
	return s.limited(s.form(func(w http.ResponseWriter, r *http.Request) error {
		body, err := answer(r.Context(), request(w, r))
		return reply(w, body, err)
	}))
}
