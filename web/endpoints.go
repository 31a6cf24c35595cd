package web

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wxidp/wxidp/provider"
)

// serveRevocation is RFC 7009. Success has an empty body.
func (s *Server) serveRevocation(w http.ResponseWriter, r *http.Request) error {
	if err := s.Provider.Revoke(r.Context(), request(w, r)); err != nil {
		return err
	}
	noStore(w)
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return nil
}

// serveIntrospection is RFC 7662.
func (s *Server) serveIntrospection(w http.ResponseWriter, r *http.Request) error {
	body, err := s.Provider.Introspect(r.Context(), request(w, r))
	return reply(w, body, err)
}

// serveUserInfo is OIDC Core §5.3.
func (s *Server) serveUserInfo(w http.ResponseWriter, r *http.Request) error {
	body, err := s.Provider.UserInfo(r.Context(), request(w, r))
	return reply(w, body, err)
}

// serveAccount lets users change their own profile.
func (s *Server) serveAccount(w http.ResponseWriter, r *http.Request) error {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return provider.BadJSON(http.StatusUnsupportedMediaType, "content_type")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return provider.BadJSON(http.StatusRequestEntityTooLarge, "body_too_large")
	}
	if err != nil {
		return provider.BadJSON(http.StatusBadRequest, "body_unreadable")
	}
	answer, err := s.Provider.UpdateAccount(r.Context(), request(w, r), body)
	return reply(w, answer, err)
}

// serveUnbind lets users remove a WeChat identity from their account.
func (s *Server) serveUnbind(w http.ResponseWriter, r *http.Request) error {
	answer, err := s.Provider.Unbind(r.Context(), request(w, r))
	if err != nil {
		s.writeError(w, r, "unbind.denied", err)
		return nil
	}
	return reply(w, answer, nil)
}

// reply answers with a body that no cache may keep, or returns the error.
func reply(w http.ResponseWriter, body []byte, err error) error {
	if err != nil {
		return err
	}
	noStore(w)
	writeJSON(w, http.StatusOK, body)
	return nil
}

// serveMetadata is OIDC Discovery §4 and RFC 8414 §3.
func (s *Server) serveMetadata(w http.ResponseWriter, r *http.Request) {
	prepared, err := s.currentMetadata()
	if err != nil {
		s.writeError(w, r, "", err)
		return
	}
	serveCached(w, r, prepared.body, prepared.etag, 5*time.Minute)
}

// metadata is a prepared discovery document, good as long as the published
// algorithms are these.
type metadata struct {
	algs []string
	body []byte
	etag string
}

func (s *Server) currentMetadata() (*metadata, error) {
	algs := s.Keys.Algorithms()
	if prepared := s.metadata.Load(); prepared != nil && slices.Equal(prepared.algs, algs) {
		return prepared, nil
	}
	body, err := s.Provider.Metadata()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	prepared := &metadata{algs, body, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
	s.metadata.Store(prepared)
	return prepared, nil
}

// serveJWKS serves the prepared JWK Set (RFC 7517 §5).
func (s *Server) serveJWKS(w http.ResponseWriter, r *http.Request) {
	set := s.Keys.JWKS()
	serveCached(w, r, set.Body, set.ETag, set.MaxAge)
}

// serveCached serves a prepared document that caches may keep.
func serveCached(w http.ResponseWriter, r *http.Request, body []byte, etag string, maxAge time.Duration) {
	header := w.Header()
	header.Set("ETag", etag)
	header.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(maxAge/time.Second)))
	if match := r.Header.Get("If-None-Match"); match != "" && matches(match, etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	writeJSON(w, http.StatusOK, body)
}

// matches is the weak comparison of RFC 9110 §13.1.2.
func matches(ifNoneMatch, etag string) bool {
	for candidate := range strings.SplitSeq(ifNoneMatch, ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == etag {
			return true
		}
	}
	return false
}

// serveHealth says that the process answers; it depends on nothing.
func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	noStore(w)
	writeJSON(w, http.StatusOK, []byte(`{"status":"ok"}`+"\n"))
}

// serveReady says whether this node should get requests. WeChat being down
// does not make it unready: refresh and validation go on.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	noStore(w)
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	switch {
	case s.draining.Load():
		writeJSON(w, http.StatusServiceUnavailable, []byte(`{"status":"draining"}`+"\n"))
	case s.Store.Ping(ctx) != nil:
		writeJSON(w, http.StatusServiceUnavailable, []byte(`{"status":"storage unavailable"}`+"\n"))
	default:
		writeJSON(w, http.StatusOK, []byte(`{"status":"ready"}`+"\n"))
	}
}
