package web

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/storage"
)

// Metrics are the counters and histograms of one process, in a registry of
// their own. No label carries an identifier of a person, client or token.
type Metrics struct {
	registry *prometheus.Registry

	tokens       *prometheus.HistogramVec
	requests     *prometheus.HistogramVec
	weChat       *prometheus.HistogramVec
	verifier     *prometheus.HistogramVec
	logouts      *prometheus.HistogramVec
	commits      prometheus.Histogram
	commitSize   prometheus.Histogram
	reloads      *prometheus.CounterVec
	reloadedAt   prometheus.Gauge
	limits       *prometheus.CounterVec
	logins       *prometheus.CounterVec
	connections  *prometheus.CounterVec
	grantTypeSet map[string]bool
}

// latency buckets in seconds, from a lone in-memory answer to a WeChat
// timeout.
var latency = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}

// NewMetrics returns metrics for a server that knows the given grant types;
// others are counted as "unknown".
func NewMetrics(grantTypes []string) *Metrics {
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "wxidp", Name: name, Help: help, Buckets: latency}, labels)
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		tokens:   histogram("token_request_seconds", "Token requests by grant and result (ok, repeated or the OAuth error).", "grant", "result"),
		requests: histogram("http_request_seconds", "Requests of the public listener by route and status.", "route", "status"),
		weChat:   histogram("wechat_request_seconds", "Calls to WeChat by API and outcome (ok, an errcode or a fault).", "api", "outcome"),
		verifier: histogram("verifier_request_seconds", "Calls to the product's account system by outcome (ok, refused or a fault).", "outcome"),
		logouts:  histogram("backchannel_logout_seconds", "Logout tokens sent to clients by outcome (ok, refused or a fault).", "outcome"),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "wxidp", Name: "storage_commit_seconds",
			Help: "Durable commits of the storage.", Buckets: latency}),
		commitSize: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "wxidp", Name: "storage_commit_operations",
			Help: "Operations that shared one durable commit.", Buckets: prometheus.ExponentialBuckets(1, 2, 10)}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "wxidp", Name: "config_reloads_total",
			Help: "Reloads of the configuration by result (applied or refused)."}, []string{"result"}),
		reloadedAt: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "wxidp", Name: "config_applied_timestamp_seconds",
			Help: "When the configuration in force was applied."}),
		limits: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "wxidp", Name: "limited_requests_total",
			Help: "Requests answered with 429, by the limit that was reached."}, []string{"limit"}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "wxidp", Name: "logins_total",
			Help: "Sign-ins of browsers by method (password or scan) and result (ok or the OAuth error)."}, []string{"method", "result"}),
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "wxidp", Name: "refused_connections_total",
			Help: "Connections closed at once, by the limit that was reached (total or per_ip)."}, []string{"limit"}),
		grantTypeSet: make(map[string]bool),
	}
	for _, grantType := range grantTypes {
		m.grantTypeSet[grantType] = true
	}
	m.reloads.WithLabelValues("applied")
	m.reloads.WithLabelValues("refused")
	m.reloadedAt.SetToCurrentTime()
	m.registry.MustRegister(m.tokens, m.requests, m.weChat, m.verifier, m.logouts, m.commits, m.commitSize, m.reloads, m.reloadedAt, m.limits, m.logins, m.connections,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	return m
}

// Watch adds the ages of the signing keys and the storage's own counters.
func (m *Metrics) Watch(ring *keys.Ring, store storage.Store) {
	m.registry.MustRegister(&keyCollector{ring}, &storeCollector{store})
}

// Handler serves the metrics in Prometheus's text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// WeChatCall records one call to WeChat.
func (m *Metrics) WeChatCall(api, outcome string, elapsed time.Duration) {
	m.weChat.WithLabelValues(api, outcome).Observe(elapsed.Seconds())
}

// VerifierCall records one call to the product's account system.
func (m *Metrics) VerifierCall(outcome string, elapsed time.Duration) {
	m.verifier.WithLabelValues(outcome).Observe(elapsed.Seconds())
}

// LogoutSent observes a logout token that was sent to a client.
func (m *Metrics) LogoutSent(outcome string, elapsed time.Duration) {
	m.logouts.WithLabelValues(outcome).Observe(elapsed.Seconds())
}

// Commit records one durable commit.
func (m *Metrics) Commit(operations int, elapsed time.Duration) {
	m.commits.Observe(elapsed.Seconds())
	m.commitSize.Observe(float64(operations))
}

// ReloadApplied records that a changed configuration is in force.
func (m *Metrics) ReloadApplied() {
	m.reloads.WithLabelValues("applied").Inc()
	m.reloadedAt.SetToCurrentTime()
}

// ReloadRefused records that a changed configuration was refused.
func (m *Metrics) ReloadRefused() { m.reloads.WithLabelValues("refused").Inc() }

// ConnectionRefused records a connection beyond a limit of LimitListener.
func (m *Metrics) ConnectionRefused(limit string) { m.connections.WithLabelValues(limit).Inc() }

// limited records a 429, or the 503 of an overload; the names of limits are our own words.
func (m *Metrics) limited(limit string) { m.limits.WithLabelValues(limit).Inc() }

func (m *Metrics) login(method, result string) { m.logins.WithLabelValues(method, result).Inc() }

func (m *Metrics) token(grantType, result string, elapsed time.Duration) {
	if !m.grantTypeSet[grantType] {
		grantType = "unknown"
	}
	m.tokens.WithLabelValues(grantType, result).Observe(elapsed.Seconds())
}

func (m *Metrics) request(route string, status int, elapsed time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Observe(elapsed.Seconds())
}

var (
	keyAge = prometheus.NewDesc("wxidp_key_age_seconds",
		"Time since the current key of an algorithm began to sign.", []string{"alg"}, nil)
	keyNext = prometheus.NewDesc("wxidp_key_next_rotation_seconds",
		"Time until the current key of an algorithm is followed; 0 when overdue.", []string{"alg"}, nil)
	storeSize = prometheus.NewDesc("wxidp_storage_size_bytes", "Size of the data on disk.", nil, nil)
	storeOps  = prometheus.NewDesc("wxidp_storage_operations_total", "Writing operations that were committed.", nil, nil)
	storeGone = prometheus.NewDesc("wxidp_storage_expired_total", "Expired records that were deleted.", nil, nil)
)

type keyCollector struct{ ring *keys.Ring }

func (c *keyCollector) Describe(out chan<- *prometheus.Desc) { out <- keyAge; out <- keyNext }

func (c *keyCollector) Collect(out chan<- prometheus.Metric) {
	for alg, age := range c.ring.Ages() {
		out <- prometheus.MustNewConstMetric(keyAge, prometheus.GaugeValue, age.Current.Seconds(), alg)
		out <- prometheus.MustNewConstMetric(keyNext, prometheus.GaugeValue, age.NextRotation.Seconds(), alg)
	}
}

type storeCollector struct{ store storage.Store }

func (c *storeCollector) Describe(out chan<- *prometheus.Desc) {
	out <- storeSize
	out <- storeOps
	out <- storeGone
}

func (c *storeCollector) Collect(out chan<- prometheus.Metric) {
	stats := c.store.Stats()
	out <- prometheus.MustNewConstMetric(storeSize, prometheus.GaugeValue, float64(stats.SizeBytes))
	out <- prometheus.MustNewConstMetric(storeOps, prometheus.CounterValue, float64(stats.Operations))
	out <- prometheus.MustNewConstMetric(storeGone, prometheus.CounterValue, float64(stats.Expired))
}
