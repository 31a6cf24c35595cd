package web

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/wxidp/wxidp/provider"
)

// serveToken is the token endpoint (RFC 6749 §3.2).
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) error {
	start := time.Now()
	answer, err := s.Provider.Token(r.Context(), request(w, r))
	elapsed := time.Since(start)
	if err != nil {
		refusal := provider.AsError(err)
		s.Metrics.token(answer.GrantType, string(refusal.Code), elapsed)
		event := "token.denied"
		if refusal.Code == provider.AuthorizationPending || refusal.Code == provider.SlowDown {
			event = "" // devices ask every few seconds (RFC 8628 §3.5)
		}
		s.writeError(w, r, event, refusal,
			slog.String("grant_type", answer.GrantType), slog.String("client_id", answer.ClientID))
		return nil
	}
	result := "ok"
	if answer.Repeated {
		result = "repeated"
	}
	s.Metrics.token(answer.GrantType, result, elapsed)
	s.Logger.LogAttrs(r.Context(), slog.LevelInfo, "tokens issued",
		slog.String("event", "token.issued"),
		slog.String("request_id", w.Header().Get(requestIDHeader)),
		slog.String("ip", remoteIP(r.Context()).String()),
		slog.String("grant_type", answer.GrantType),
		slog.String("client_id", answer.ClientID),
		slog.String("sub", answer.Subject),
		slog.String("sid", answer.FamilyID),
		slog.String("result", result),
		slog.Bool("new_user", answer.NewUser))
	noStore(w)
	writeJSON(w, http.StatusOK, answer.JSON())
	return nil
}

// noStore forbids caches to keep an answer (RFC 6749 §5.1).
func noStore(w http.ResponseWriter) {
	header := w.Header()
	header["Cache-Control"] = valueNoStore
	header["Pragma"] = valueNoCache
}
