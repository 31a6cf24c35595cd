package main

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wxidp/wxidp/wechat/simulator"
)

// TestMetrics makes things happen and looks for them.
func TestMetrics(t *testing.T) {
	s := startServer(t, withoutLimits())
	out := s.SignIn("alice")
	again := s.Refresh(out.str("refresh_token"))
	s.Refresh(out.str("refresh_token")) // within the grace
	s.Refresh("nonsense")
	s.Token(pairs("grant_type", "made-up-"+testClient, "client_id", testClient))
	s.Token(pairs("grant_type", "client_credentials"), basic(testBackend, testBackendKey))
	s.Token(pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", "unknown-to-wechat"))
	s.Token(pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", "bad\nform"))
	for _, errcode := range []int{45011, 40226, 99999} {
		if err := s.Sim.Inject(simulator.Fault{Kind: simulator.FaultErrcode, Errcode: errcode, Count: 1}); err != nil {
			t.Fatal(err)
		}
		s.Token(pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", s.Code(testAppID, "bob")))
	}
	s.Introspect(again.str("access_token"))
	s.UserInfo(again.str("access_token"))
	s.Do(http.MethodGet, s.Issuer+"/no/such/path/"+out.str("access_token"), nil)

	samples := s.metrics()
	for name, least := range map[string]float64{
		`wxidp_token_request_seconds_count{grant="wechat_jscode",result="ok"}`:                      1,
		`wxidp_token_request_seconds_count{grant="wechat_jscode",result="invalid_grant"}`:           1,
		`wxidp_token_request_seconds_count{grant="wechat_jscode",result="invalid_request"}`:         1,
		`wxidp_token_request_seconds_count{grant="wechat_jscode",result="access_denied"}`:           1,
		`wxidp_token_request_seconds_count{grant="wechat_jscode",result="temporarily_unavailable"}`: 1,
		`wxidp_token_request_seconds_count{grant="wechat_jscode",result="server_error"}`:            1,
		`wxidp_token_request_seconds_count{grant="refresh_token",result="ok"}`:                      1,
		`wxidp_token_request_seconds_count{grant="refresh_token",result="repeated"}`:                1,
		`wxidp_token_request_seconds_count{grant="refresh_token",result="invalid_grant"}`:           1,
		`wxidp_token_request_seconds_count{grant="client_credentials",result="ok"}`:                 1,
		`wxidp_token_request_seconds_count{grant="unknown",result="unsupported_grant_type"}`:        1,
		`wxidp_wechat_request_seconds_count{api="code2session",outcome="ok"}`:                       1,
		`wxidp_wechat_request_seconds_count{api="code2session",outcome="40029"}`:                    1,
		`wxidp_wechat_request_seconds_count{api="code2session",outcome="45011"}`:                    1,
		`wxidp_wechat_request_seconds_count{api="code2session",outcome="40226"}`:                    1,
		`wxidp_wechat_request_seconds_count{api="code2session",outcome="errcode_other"}`:            1,
		`wxidp_http_request_seconds_count{route="/oauth2/introspect",status="200"}`:                 1,
		`wxidp_http_request_seconds_count{route="/oauth2/userinfo",status="200"}`:                   1,
		`wxidp_http_request_seconds_count{route="none",status="404"}`:                               1,
		`wxidp_storage_commit_seconds_count`:                                                        2,
		`wxidp_storage_commit_operations_count`:                                                     2,
		`wxidp_storage_operations_total`:                                                            2,
		`wxidp_storage_size_bytes`:                                                                  1,
		`wxidp_config_applied_timestamp_seconds`:                                                    1,
		`wxidp_key_next_rotation_seconds{alg="ES256"}`:                                              700 * 3600,
		`wxidp_key_next_rotation_seconds{alg="MAC"}`:                                                700 * 3600,
		`go_goroutines`: 1,
	} {
		if samples[name] < least {
			t.Errorf("%s is %v, want at least %v", name, samples[name], least)
		}
	}
	for _, name := range []string{`wxidp_config_reloads_total{result="applied"}`, `wxidp_config_reloads_total{result="refused"}`, `wxidp_key_age_seconds{alg="ES256"}`, `wxidp_key_age_seconds{alg="RS256"}`, `wxidp_key_age_seconds{alg="MAC"}`} {
		if _, ok := samples[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	// No label names a person, a client or a token.
	text := string(s.Do(http.MethodGet, s.Admin+"/metrics", nil).Body)
	for _, id := range []string{testClient, testBackend, testAppID, out.str("access_token"), s.Introspect(again.str("access_token")).str("sub"), s.Sim.OpenID(testAppID, "alice"), "127.0.0.1"} {
		if strings.Contains(text, id) {
			t.Errorf("%q is in the metrics", id)
		}
	}
}

// TestMetricsStayBounded: no caller can make a new time series.
func TestMetricsStayBounded(t *testing.T) {
	s := startServer(t, withoutLimits())
	scrape := func() int {
		n := 0
		for name := range s.metrics() {
			if strings.HasPrefix(name, "wxidp_") {
				n++
			}
		}
		return n
	}
	var n atomic.Int64
	probe := func() {
		id := strconv.FormatInt(n.Add(1), 10)
		s.Token(pairs("grant_type", "grant-"+id, "client_id", "client-"+id))
		s.Token(pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", "code-"+id))
		s.Do(http.MethodGet, s.Issuer+"/path-"+id, nil)
		s.Do("M"+id, s.Issuer+"/oauth2/token", nil)
		if err := s.Sim.Inject(simulator.Fault{Kind: simulator.FaultErrcode, Errcode: 70000 + int(n.Load()), Count: 1}); err != nil {
			t.Fatal(err)
		}
		s.Token(pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", "again-"+id))
	}
	probe()
	before := scrape()
	for range 40 {
		probe()
	}
	if after := scrape(); after != before {
		t.Errorf("%d time series grew to %d", before, after)
	}
}
