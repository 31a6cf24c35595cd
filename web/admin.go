package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/provider"
)

// Paths of the admin API.
const (
	AdminKeys       = "/admin/keys"
	AdminKeysRotate = "/admin/keys/rotate"
	AdminKeysRevoke = "/admin/keys/revoke"
	AdminKeysRewrap = "/admin/keys/rewrap"
)

// RotateKeysRequest asks to rotate the ring of one algorithm; "" means all.
type RotateKeysRequest struct {
	Alg string `json:"alg,omitempty"`
}

// RevokeKeyRequest asks to drop a compromised key.
type RevokeKeyRequest struct {
	ID string `json:"id"`
}

// KeysResponse is the state of the key rings.
type KeysResponse struct {
	Keys []keys.KeyInfo `json:"keys"`
	// Scheduled says when a rotation will happen that could not happen at once
	// without breaking validators; zero otherwise.
	Scheduled time.Time `json:"scheduled,omitzero"`
}

// RewrapResponse counts what was sealed anew under the first master key.
type RewrapResponse struct {
	Keys   int `json:"keys"`
	Values int `json:"values"`
}

// requireAdminToken guards the admin API over TCP. Without a configured token
// the API is not there.
func (s *Server) requireAdminToken(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want := s.adminHash.Load()
		if want == nil {
			writeJSON(w, http.StatusNotFound, []byte(`{"error":"not_found","error_description":"No admin token is configured; use the admin socket."}`+"\n"))
			return
		}
		ip := remoteIP(r.Context()).String()
		guesser := subscriber(r)
		if ok, wait := s.adminFails.Peek(guesser); !ok {
			s.writeError(w, r, "admin.denied", provider.Limited("admin", wait))
			return
		}
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		sum := sha256.Sum256([]byte(token))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(sum[:], want[:]) != 1 {
			s.adminFails.Allow(guesser)
			s.Logger.LogAttrs(r.Context(), slog.LevelWarn, "admin denied", slog.String("event", "admin.denied"), slog.String("ip", ip))
			w.Header().Set("WWW-Authenticate", `Bearer realm="wxidp admin"`)
			writeJSON(w, http.StatusUnauthorized, []byte(`{"error":"invalid_token","error_description":"The admin API needs the admin token."}`+"\n"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) listKeys(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, KeysResponse{Keys: s.Keys.List()})
}

func (s *Server) rotateKeys(w http.ResponseWriter, r *http.Request) error {
	var in RotateKeysRequest
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	known := append(s.Keys.Algorithms(), "MAC")
	if in.Alg != "" && !slices.Contains(known, in.Alg) {
		return answer(w, http.StatusBadRequest, adminError(fmt.Errorf("unknown alg; there are keys for %s", strings.Join(known, ", "))))
	}
	err := s.Keys.Rotate(r.Context(), in.Alg)
	if scheduled, ok := errors.AsType[*keys.ScheduledError](err); ok {
		s.audit(r, "keys.rotate", slog.String("alg", in.Alg), slog.Time("scheduled", scheduled.At))
		return answer(w, http.StatusAccepted, KeysResponse{Keys: s.Keys.List(), Scheduled: scheduled.At})
	}
	if errors.Is(err, keys.ErrNoKey) {
		return answer(w, http.StatusBadRequest, adminError(err))
	}
	if err != nil {
		return err
	}
	s.audit(r, "keys.rotate", slog.String("alg", in.Alg))
	return answer(w, http.StatusOK, KeysResponse{Keys: s.Keys.List()})
}

func (s *Server) revokeKey(w http.ResponseWriter, r *http.Request) error {
	var in RevokeKeyRequest
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	err := s.Keys.Revoke(r.Context(), in.ID)
	if errors.Is(err, keys.ErrUnknownKey) {
		return answer(w, http.StatusNotFound, adminError(err))
	}
	if err != nil {
		return err
	}
	s.audit(r, "keys.revoke", slog.String("kid", cut(in.ID, 64)))
	return answer(w, http.StatusOK, KeysResponse{Keys: s.Keys.List()})
}

// rewrapChunk is how many sealed values one commit re-seals.
const rewrapChunk = 500

func (s *Server) rewrapKeys(w http.ResponseWriter, r *http.Request) error {
	var out RewrapResponse
	var err error
	if out.Keys, err = s.Keys.Rewrap(r.Context()); err != nil {
		return err
	}
	// Millions of users take longer than one write timeout.
	if err := unhurried(w); err != nil {
		return err
	}
	for cursor := ""; ; {
		n, next, err := s.Store.Rewrap(r.Context(), cursor, rewrapChunk)
		if err != nil {
			return err
		}
		out.Values += n
		if next == "" {
			break
		}
		cursor = next
	}
	s.audit(r, "keys.rewrap", slog.Int("keys", out.Keys), slog.Int("values", out.Values))
	return answer(w, http.StatusOK, out)
}

// audit writes the log line of an operator's act.
func (s *Server) audit(r *http.Request, event string, attrs ...slog.Attr) {
	from := "socket"
	if ip := remoteIP(r.Context()); ip.IsValid() {
		from = ip.String()
	}
	attrs = append([]slog.Attr{slog.String("event", "admin."+event), slog.String("from", from)}, attrs...)
	s.Logger.LogAttrs(r.Context(), slog.LevelInfo, "operator acted", attrs...)
}

func adminError(err error) any {
	return map[string]string{"error": "invalid_request", "error_description": err.Error()}
}

func answer(w http.ResponseWriter, status int, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	noStore(w)
	writeJSON(w, status, append(raw, '\n'))
	return nil
}

// readJSON reads a small JSON body; an empty one leaves in as it is.
func readJSON(w http.ResponseWriter, r *http.Request, in any) error {
	return readJSONUpTo(w, r, maxBodyBytes, in)
}

func readJSONUpTo(w http.ResponseWriter, r *http.Request, limit int64, in any) error {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	decoder.DisallowUnknownFields()
	switch err := decoder.Decode(in); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil || decoder.More():
		return provider.BadJSON(http.StatusBadRequest, "json")
	}
	return nil
}
