// Package web is everything that speaks HTTP: the routes in one table
// (routes.go), one file per endpoint, and the one place that writes errors.
package web

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/internal/limit"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/storage"
)

// Options are the parts of a Server. All but TrustedProxies, AdminToken and
// RequestsPerIPPerMinute are required.
type Options struct {
	Issuer   string
	Provider *provider.Provider
	Keys     *keys.Ring
	Store    storage.Store
	Events   *accounts.Events
	Metrics  *Metrics
	Logger   *slog.Logger

	// People, Data and ClientExists (of the configuration in force) are what
	// the admin API works with.
	People       *accounts.Directory
	Data         Data
	ClientExists func(clientID string) bool

	Site Site

	// TrustedProxies may speak for other addresses in X-Forwarded-For. Empty:
	// nobody may.
	TrustedProxies []netip.Prefix
	// RequestsPerIPPerMinute bounds the public endpoints; 0 means no limit.
	RequestsPerIPPerMinute int
	// AdminToken opens the admin API over TCP. Zero: the socket only.
	AdminToken secret.String
}

// Server holds the handlers of all listeners.
type Server struct {
	Options
	pathPrefix string // of the issuer, "" or "/x"
	origin     string // of the issuer (RFC 6454 §6.2)
	secure     bool   // the issuer is on https
	site       atomic.Pointer[site]
	metadata   atomic.Pointer[metadata]
	adminHash  atomic.Pointer[[sha256.Size]byte] // of the admin token; nil: none
	perIP      *limit.Limiter
	adminFails *limit.Limiter
	admission  *admission
	draining   atomic.Bool
	drained    context.Context // ends with Drain
	endStreams context.CancelFunc
}

// New returns a Server.
func New(opts Options) (*Server, error) {
	issuer, err := url.Parse(opts.Issuer)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	s := &Server{
		Options:    opts,
		pathPrefix: strings.TrimSuffix(issuer.EscapedPath(), "/"),
		origin:     issuer.Scheme + "://" + issuer.Host,
		secure:     issuer.Scheme == "https",
		perIP:      limit.New(limit.Rate{}, 1<<17),
		adminFails: limit.New(limit.Rate{PerMinute: 10, Burst: 10}, 1<<12),
		admission:  newAdmission(),
	}
	s.drained, s.endStreams = context.WithCancel(context.Background())
	if _, err := s.currentMetadata(); err != nil {
		return nil, fmt.Errorf("discovery document: %w", err)
	}
	show, err := s.PrepareSite(opts.Site)
	if err != nil {
		return nil, err
	}
	show()
	s.SetAdminToken(opts.AdminToken)
	s.SetRequestLimit(opts.RequestsPerIPPerMinute)
	return s, nil
}

// SetRequestLimit changes the limit per address of the public endpoints, in
// requests per minute; 0 means no limit.
func (s *Server) SetRequestLimit(perMinute int) {
	s.perIP.SetRate(limit.Rate{PerMinute: perMinute, Burst: max(1, perMinute/4)})
}

// ShareLimits makes the limits hold for all nodes of an exchange together.
func (s *Server) ShareLimits(x *limit.Exchange) {
	x.Register("requests_ip", s.perIP)
	x.Register("admin_failures", s.adminFails)
}

// SetAdminToken changes the token of the admin API over TCP; a zero one closes
// the API there.
func (s *Server) SetAdminToken(token secret.String) {
	if token.IsZero() {
		s.adminHash.Store(nil)
		return
	}
	sum := sha256.Sum256([]byte(token.Reveal()))
	s.adminHash.Store(&sum)
}

// Drain makes /readyz fail, so that load balancers stop sending requests
// before the listeners close, and ends what would go on for long.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.endStreams()
}

// Limits of one HTTP connection. A slow client is cut off; the write timeout
// leaves room for the whole request budget of the provider.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 16 << 10
	maxBodyBytes      = 64 << 10
)

// HTTPServer returns a server for handler with those limits.
func HTTPServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(logger.With("event", "http.error").Handler(), slog.LevelDebug),
	}
}
