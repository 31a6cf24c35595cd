package web

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// FuzzForwarded: X-Forwarded-For counts from a trusted proxy only, and what
// stands to the left of the first address that is no proxy changes nothing.
func FuzzForwarded(f *testing.F) {
	for _, header := range []string{
		"", "203.0.113.1", "10.9.9.9, 198.51.100.1, 203.0.113.1", "203.0.113.1, unknown", "::ffff:10.0.0.1", "[2001:db8::1]:443", "fe80::1%eth0",
		"203.0.113.1,", ",", " \t, 1.2.3.4 ,\x00", strings.Repeat("10.0.0.1,", 100) + "1.2.3.4", "１.2.3.4", "1.2.3.4\r\nX: y",
	} {
		f.Add(header)
	}
	proxies := netip.MustParsePrefix("10.0.0.0/8")
	s := bareServer(new(bytes.Buffer))
	s.TrustedProxies = []netip.Prefix{proxies}
	var got netip.Addr
	handler := s.router(func(_ http.ResponseWriter, r *http.Request) { got = remoteIP(r.Context()) })
	ask := func(peer, header string) netip.Addr {
		got = netip.Addr{}
		r := httptest.NewRequest(http.MethodGet, "/x", nil)
		r.RemoteAddr, r.Header["X-Forwarded-For"] = peer, []string{header}
		handler.ServeHTTP(httptest.NewRecorder(), r)
		return got
	}
	proxy, stranger := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1")
	f.Fuzz(func(t *testing.T, header string) {
		if ip := ask("192.0.2.1:1", header); ip != stranger {
			t.Fatalf("a stranger who says %q is taken for %v", header, ip)
		}
		ip := ask("10.0.0.1:1", header)
		switch {
		case !ip.IsValid() || ip.Zone() != "" || ip.Is4In6():
			t.Fatalf("%q leads to %v", header, ip)
		case ip != proxy && proxies.Contains(ip):
			t.Fatalf("%q leads to the proxy %v", header, ip)
		case ip != proxy:
			if spoofed := ask("10.0.0.1:1", "198.51.100.9, "+header); spoofed != ip {
				t.Fatalf("%q leads to %v, and to %v with more before it", header, ip, spoofed)
			}
		}
	})
}
