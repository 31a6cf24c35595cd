package web

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/go-chi/chi/v5/middleware"

	"github.com/wxidp/wxidp/internal/limit"
	"github.com/wxidp/wxidp/provider"
)

// recoverPanics answers a panic with a server_error and logs its stack, which
// holds no request data. The panic's value could, unless it is the runtime's.
func (s *Server) recoverPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			reason := recover()
			if reason == nil {
				return
			}
			if reason == http.ErrAbortHandler {
				panic(reason)
			}
			s.Logger.LogAttrs(r.Context(), slog.LevelError, "panic", slog.String("event", "panic"),
				slog.String("detail", panicReason(reason)), slog.String("stack", string(debug.Stack())),
				slog.String("request_id", w.Header().Get(requestIDHeader)))
			s.writeError(w, r, "", errPanic)
		}()
		next.ServeHTTP(w, r)
	})
}

var errPanic = errors.New("panic")

func panicReason(reason any) string {
	if err, ok := reason.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", reason)
}

// clientIP finds the address of the caller: the peer, or what a trusted proxy
// says of it. A proxy that says nothing, or nothing that can be read, is taken
// for the caller itself.
func (s *Server) clientIP() func(http.Handler) http.Handler {
	if len(s.TrustedProxies) == 0 {
		return middleware.ClientIPFromRemoteAddr
	}
	prefixes := make([]string, len(s.TrustedProxies))
	for i, prefix := range s.TrustedProxies {
		prefixes[i] = prefix.String()
	}
	forwarded := middleware.ClientIPFromXFF(prefixes...)
	return func(next http.Handler) http.Handler { return middleware.ClientIPFromRemoteAddr(forwarded(next)) }
}

const requestIDHeader = "X-Request-Id"

// requestIDs makes ids that are unique in a process and unlikely to meet those
// of another.
type requestIDs struct {
	start [8]byte
	count atomic.Uint64
}

func newRequestIDs() *requestIDs {
	ids := new(requestIDs)
	rand.Read(ids.start[:])
	return ids
}

func (ids *requestIDs) next() string {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], binary.BigEndian.Uint64(ids.start[:])+ids.count.Add(1))
	return hex.EncodeToString(raw[:])
}

// warnForwarded says once that somebody forwards requests without being named
// in trusted_proxies: all users then share one address's limits.
func (s *Server) warnForwarded(next http.Handler) http.Handler {
	var once sync.Once
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header["X-Forwarded-For"]) > 0 && !s.trusted(r.RemoteAddr) {
			once.Do(func() {
				s.Logger.Warn("X-Forwarded-For from an address that is not in trusted_proxies is ignored; if it is your proxy, name it there",
					"event", "proxy.untrusted", "ip", remoteIP(r.Context()).String())
			})
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) trusted(remoteAddr string) bool {
	peer, err := netip.ParseAddrPort(remoteAddr)
	return err == nil && slices.ContainsFunc(s.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(peer.Addr().Unmap()) })
}

// identify gives the request an id of our own making and sets the headers that
// every answer has.
func (s *Server) identify(next http.Handler) http.Handler {
	ids := newRequestIDs()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set(requestIDHeader, ids.next())
		header["X-Content-Type-Options"] = valueNoSniff
		if r.TLS != nil {
			header["Strict-Transport-Security"] = valueStrictTransport
		}
		next.ServeHTTP(w, r)
	})
}

// measure counts the answers by route.
func (s *Server) measure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		recorder := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			route := r.Pattern // set by chi
			if route == "" {
				route = "none"
			}
			s.Metrics.request(route, recorder.status, time.Since(start))
		}()
		next.ServeHTTP(recorder, r)
	})
}

type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (w *statusRecorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// limited bounds the requests of one address. What is served from memory is
// not limited: that would only make validators fail.
func (s *Server) limited(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if ok, wait := s.perIP.Allow(subscriber(r)); !ok {
			s.writeError(w, r, "", provider.Limited("requests_per_ip", wait))
			return
		}
		next(w, r)
	}
}

// limitedFailures bounds only the requests of one address that fail: a
// resource server that introspects for all its users comes from one address.
func (s *Server) limitedFailures(handle func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		err := handle(w, r)
		if err == nil {
			return nil
		}
		if ok, wait := s.perIP.Allow(subscriber(r)); !ok {
			return provider.Limited("requests_per_ip", wait)
		}
		return err
	}
}

func subscriber(r *http.Request) string { return limit.Subscriber(remoteIP(r.Context())).String() }

func remoteIP(ctx context.Context) netip.Addr { return middleware.GetClientIPAddr(ctx) }

// endpoint adapts a handler that returns its error.
func (s *Server) endpoint(handle func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := handle(w, r); err != nil {
			s.writeError(w, r, "", err)
		}
	}
}

// form adapts a handler of form posts: the body is a form of bounded size, of
// valid UTF-8 without NUL, and the request has been admitted.
func (s *Server) form(handle func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	admitted := s.admitted(handle)
	return s.endpoint(func(w http.ResponseWriter, r *http.Request) error {
		if err := parseForm(w, r); err != nil {
			return err
		}
		return admitted(w, r)
	})
}

func parseForm(w http.ResponseWriter, r *http.Request) error {
	contentType := r.Header.Get("Content-Type")
	if contentType == "" && r.ContentLength == 0 {
		r.PostForm = make(map[string][]string)
		return nil
	}
	// The one spelling that clients send is not worth a parser run.
	if contentType != "application/x-www-form-urlencoded" {
		media, _, err := mime.ParseMediaType(contentType)
		if err != nil || media != "application/x-www-form-urlencoded" {
			return provider.BadRequest(http.StatusUnsupportedMediaType, "content_type")
		}
	}
	if r.Header.Get("Content-Encoding") != "" {
		return provider.BadRequest(http.StatusUnsupportedMediaType, "content_encoding")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
	if err := r.ParseForm(); err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return provider.BadRequest(http.StatusRequestEntityTooLarge, "body_too_large")
		}
		return provider.BadRequest(http.StatusBadRequest, "form_syntax")
	}
	for name, values := range r.PostForm {
		if !clean(name) {
			return provider.BadRequest(http.StatusBadRequest, "form_characters")
		}
		for _, value := range values {
			if !clean(value) {
				return provider.BadRequest(http.StatusBadRequest, "form_characters")
			}
		}
	}
	return nil
}

func clean(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// request is what the provider gets to see.
func request(w http.ResponseWriter, r *http.Request) provider.Request {
	return provider.Request{HTTP: r, RemoteIP: remoteIP(r.Context()), ID: w.Header().Get(requestIDHeader)}
}
