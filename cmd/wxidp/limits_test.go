package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// behindProxy trusts the loopback network, from which the tests call.
func behindProxy() serverOption {
	return withConfig(func(yaml string) string { return "trusted_proxies: [127.0.0.0/8]\n" + yaml })
}

func forwardedFor(ip string) func(*http.Request) { return header("X-Forwarded-For", ip) }

func junkForm(n int) map[string][]string {
	return pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", fmt.Sprintf("junk-%d-%032d", n, n))
}

// retryAfter is the header in seconds; a refusal without one fails the test.
func retryAfter(t testing.TB, out answer) int {
	t.Helper()
	seconds, err := strconv.Atoi(out.Header.Get("Retry-After"))
	if err != nil || seconds < 1 {
		t.Errorf("Retry-After %q in %v", out.Header.Get("Retry-After"), out)
	}
	return seconds
}

// TestThreat64FloodFromOneAddress floods the server with junk codes from one address,
// with production defaults: WeChat must not see more of them than the limit,
// and users elsewhere must not notice.
func TestThreat64FloodFromOneAddress(t *testing.T) {
	t.Parallel()
	s := startServer(t, behindProxy())
	const junk = 400
	var limited, refused, honest atomic.Int64
	var failed failures
	var flood sync.WaitGroup
	for worker := range 8 {
		flood.Go(func() {
			for n := worker; n < junk; n += 8 {
				out, err := s.try(http.MethodPost, s.Issuer+"/oauth2/token", junkForm(n), forwardedFor("203.0.113.7"))
				switch {
				case err != nil:
					failed.add(err.Error())
				case out.Status == http.StatusTooManyRequests && out.str("error") == "temporarily_unavailable" && out.Header.Get("Retry-After") != "":
					limited.Add(1)
				case out.Status == http.StatusBadRequest && out.str("error") == "invalid_grant":
					refused.Add(1)
				default:
					failed.add(out.String())
				}
			}
		})
	}
	flood.Go(func() {
		for n := range 10 {
			out, err := s.signIn(testClient, testAppID, fmt.Sprintf("honest-%d", n), forwardedFor("198.51.100.9"))
			if err != nil || out.Status != http.StatusOK {
				failed.add(fmt.Sprintf("honest sign-in: %v, %v", out, err))
				continue
			}
			honest.Add(1)
		}
	})
	flood.Wait()
	failed.report(t, "flood")
	// 120 a minute: 30 at once and two a second, for as long as the flood took.
	if upstream := s.Sim.RequestCount(); int64(upstream) != refused.Load()+honest.Load() || refused.Load() > 120 || refused.Load() < 20 {
		t.Errorf("WeChat saw %d calls: %d junk codes passed, %d were limited, %d honest", upstream, refused.Load(), limited.Load(), honest.Load())
	}
	if limited.Load() < junk/2 {
		t.Errorf("only %d of %d junk codes were limited", limited.Load(), junk)
	}
}

// TestThreat64Reserve uses an app's whole budget up from many networks. Who
// has signed in before still gets through.
func TestThreat64Reserve(t *testing.T) {
	s := startServer(t, behindProxy(), withConfig(func(yaml string) string {
		return "rate_limits: { wechat_calls_per_app_per_minute: 40, wechat_reserve_percent: 20 }\n" + yaml
	}))
	known := "198.51.100.9"
	if out, err := s.signIn(testClient, testAppID, "regular", forwardedFor(known)); err != nil || out.Status != http.StatusOK {
		t.Fatalf("first sign-in: %v, %v", out, err)
	}
	passed, limited := 0, 0
	for n := range 60 {
		out := s.Token(junkForm(n), forwardedFor(fmt.Sprintf("203.0.%d.7", n)))
		switch out.Status {
		case http.StatusBadRequest:
			passed++
		case http.StatusTooManyRequests:
			limited++
		default:
			t.Fatal(out)
		}
	}
	if passed > 20 || limited < 40 {
		t.Errorf("%d junk codes reached WeChat, %d were limited; 32 calls a minute are for strangers, 8 of them at once", passed, limited)
	}
	if out, err := s.signIn(testClient, testAppID, "regular", forwardedFor(known)); err != nil || out.Status != http.StatusOK {
		t.Errorf("who signed in before is locked out: %v, %v", out, err)
	}
	if out, err := s.signIn(testClient, testAppID, "stranger", forwardedFor("192.0.2.77")); err != nil || out.Status != http.StatusTooManyRequests {
		t.Errorf("a stranger while the budget is used up: %v, %v", out, err)
	} else {
		retryAfter(t, out)
	}
	// The other app has a budget of its own.
	if out, err := s.signIn("shop-mini-2", testApp2, "stranger", forwardedFor("192.0.2.77")); err != nil || out.Status != http.StatusOK {
		t.Errorf("another app: %v, %v", out, err)
	}
}

func TestRequestsPerAddress(t *testing.T) {
	s := startServer(t, withConfig(func(yaml string) string {
		return "rate_limits: { requests_per_ip_per_minute: 40 }\n" + yaml
	}))
	limited := 0
	for range 30 {
		out := s.Refresh("junk")
		if out.Status == http.StatusTooManyRequests {
			limited++
			if seconds := retryAfter(t, out); seconds > 60 {
				t.Errorf("Retry-After %d s", seconds)
			}
			if out.str("error") != "temporarily_unavailable" || out.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%v %v", out, out.Header)
			}
		}
	}
	if limited < 10 || limited > 20 {
		t.Errorf("%d of 30 requests were limited; 40 a minute, 10 at once", limited)
	}
	if out := s.UserInfo("x"); out.Status != http.StatusTooManyRequests {
		t.Errorf("UserInfo: %v", out)
	}
	// A backend asks for all its users from one address.
	for range 30 {
		if out := s.Introspect("junk"); out.Status != http.StatusOK {
			t.Fatalf("introspection: %v", out)
		}
	}
	if out := s.Do(http.MethodPost, s.Issuer+"/oauth2/introspect", pairs("token", "x"), basic("nobody", "x")); out.Status != http.StatusTooManyRequests {
		t.Errorf("introspection by nobody: %v", out)
	}
	// What comes from memory is free, or validators would fail.
	for range 30 {
		for _, path := range []string{"/.well-known/jwks.json", "/.well-known/openid-configuration", "/healthz"} {
			if out := s.Do(http.MethodGet, s.Issuer+path, nil); out.Status != http.StatusOK {
				t.Fatalf("%s: %v", path, out)
			}
		}
	}
	// Another address has its own bucket.
	req, err := http.NewRequest(http.MethodPost, s.Issuer+"/oauth2/introspect", strings.NewReader("token=x"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	basic(testBackend, testBackendKey)(req)
	resp, err := clientAt("127.0.0.3").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("from another address: %d", resp.StatusCode)
	}
}

// loggedIPs are the addresses in the log lines of refused token requests.
func (s *testServer) loggedIPs() map[string]int {
	ips := make(map[string]int)
	for _, event := range s.Logs.Events("token.denied") {
		ip, _ := event["ip"].(string)
		ips[ip]++
	}
	return ips
}

// TestThreat82UntrustedForwardedFor lies about the address in 1000 ways, and
// the limiter sees one.
func TestThreat82UntrustedForwardedFor(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	passed := 0
	for n := range 1000 {
		ip := fmt.Sprintf("10.%d.%d.%d", n%7, n%250, n%251)
		out := s.Token(junkForm(n), forwardedFor(ip), header("X-Real-Ip", ip), header("Forwarded", "for="+ip), header("X_Forwarded_For", ip), header("True-Client-Ip", ip))
		if out.Status != http.StatusTooManyRequests {
			passed++
		}
	}
	if passed > 150 {
		t.Errorf("%d of 1000 requests with a spoofed address passed a limit of 120 a minute", passed)
	}
	if ips := s.loggedIPs(); len(ips) != 1 || ips["127.0.0.1"] == 0 {
		t.Errorf("addresses in the log: %v", ips)
	}
}

// TestThreat82TrustedForwardedFor is behind a proxy that appends the address
// it saw: what the client wrote before that counts for nothing.
func TestThreat82TrustedForwardedFor(t *testing.T) {
	t.Parallel()
	s := startServer(t, behindProxy())
	passed := 0
	for n := range 1000 {
		out := s.Token(junkForm(n), forwardedFor(fmt.Sprintf("10.%d.%d.%d, 203.0.113.7", n%7, n%250, n%251)))
		if out.Status != http.StatusTooManyRequests {
			passed++
		}
	}
	if passed > 150 {
		t.Errorf("%d of 1000 requests with a spoofed address passed a limit of 120 a minute", passed)
	}
	if ips := s.loggedIPs(); len(ips) != 1 || ips["203.0.113.7"] == 0 {
		t.Errorf("addresses in the log: %v", ips)
	}

	bad := pairs("grant_type", "wechat_jscode", "client_id", testClient)
	for _, test := range []struct {
		name   string
		edit   func(*http.Request)
		wantIP string
	}{
		{"the right-most that is not a proxy", forwardedFor("203.0.113.1, 203.0.113.2, 127.0.0.9"), "203.0.113.2"},
		{"two headers", func(r *http.Request) {
			r.Header["X-Forwarded-For"] = []string{"203.0.113.3", "203.0.113.4"}
		}, "203.0.113.4"},
		{"IPv4 in IPv6", forwardedFor("::ffff:203.0.113.5"), "203.0.113.5"},
		{"IPv6", forwardedFor("2001:db8::1"), "2001:db8::1"},
		{"an underscore", func(r *http.Request) { r.Header["X_forwarded_for"] = []string{"203.0.113.6"} }, "127.0.0.1"},
		{"nothing", func(*http.Request) {}, "127.0.0.1"},
		{"only proxies", forwardedFor("127.0.0.9, 127.0.0.8"), "127.0.0.1"},
		{"garbage", forwardedFor(`1.2.3.4", "event":"x`), "127.0.0.1"},
	} {
		if out := s.Token(bad, test.edit); out.Status != http.StatusBadRequest {
			t.Fatalf("%s: %v", test.name, out)
		}
		events := s.Logs.Events("token.denied")
		if got := events[len(events)-1]["ip"]; got != test.wantIP {
			t.Errorf("%s: ip %v, want %s", test.name, got, test.wantIP)
		}
	}
}

// TestThreat64IPv6Neighbours: whoever has one IPv6 address has 2^64.
func TestThreat64IPv6Neighbours(t *testing.T) {
	s := startServer(t, behindProxy())
	passed := 0
	for n := range 200 {
		if out := s.Token(junkForm(n), forwardedFor(fmt.Sprintf("2001:db8:1:2:%x::%x", n, n*77))); out.Status != http.StatusTooManyRequests {
			passed++
		}
	}
	if passed > 60 {
		t.Errorf("%d of 200 sign-ins from one /64 passed; 120 a minute, 30 at once", passed)
	}
	if out, err := s.signIn(testClient, testAppID, "neighbour", forwardedFor("2001:db8:1:3::1")); err != nil || out.Status != http.StatusOK {
		t.Errorf("from the next /64: %v, %v", out, err)
	}
	wrong := 0
	for n := range 40 {
		if out := s.Do(http.MethodPost, s.Issuer+"/oauth2/introspect", pairs("token", "x"), basic(testBackend, "wrong"), forwardedFor(fmt.Sprintf("2001:db8:7:7::%x", n+1))); out.Status == http.StatusUnauthorized {
			wrong++
		}
	}
	if wrong > 15 {
		t.Errorf("%d guesses of a client secret from one /64 were looked at; the limit is 10 a minute", wrong)
	}
}
