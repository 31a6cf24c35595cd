package outbound

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestThreat12PublicAddresses(t *testing.T) {
	for text, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "119.29.29.29": true, "172.15.255.255": true, "172.32.0.1": true, "100.63.255.255": true,
		"100.128.0.1": true, "11.0.0.1": true, "192.0.1.1": true, "198.17.255.255": true, "198.20.0.1": true, "223.255.255.255": true,
		"2400:3200::1": true, "2606:4700:4700::1111": true, "2001:4860:4860::8888": true, "2001:200::1": true, "::ffff:8.8.8.8": true,

		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "10.255.255.255": false, "100.64.0.1": false, "100.100.100.200": false,
		"127.0.0.1": false, "127.255.255.254": false, "168.63.129.16": false, "169.254.169.254": false, "169.254.0.23": false,
		"172.16.0.1": false, "172.31.255.255": false, "192.0.0.192": false, "192.0.2.1": false, "192.88.99.1": false, "192.168.0.1": false,
		"198.18.0.1": false, "198.19.255.255": false, "198.51.100.7": false, "203.0.113.9": false, "224.0.0.1": false, "239.255.255.250": false,
		"240.0.0.1": false, "255.255.255.255": false,

		"::": false, "::1": false, "::127.0.0.1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::ffff:169.254.169.254": false,
		"::ffff:0:127.0.0.1": false, "64:ff9b::7f00:1": false, "64:ff9b::808:808": false, "64:ff9b:1::a00:1": false, "100::1": false,
		"2001::1": false, "2001:0:7f00:1::": false, "2001:2::1": false, "2001:10::1": false, "2001:20::1": false, "2001:db8::1": false,
		"2002:7f00:1::": false, "2002:808:808::1": false, "3fff::1": false, "4000::1": false, "5f00::1": false, "fc00::1": false,
		"fd00:ec2::254": false, "fe80::1": false, "fe80::1%eth0": false, "fec0::1": false, "ff02::1": false, "ff0e::1": false,
		"2400:3200::1%eth0": false,
	} {
		if got := Public(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: public is %v", text, got)
		}
	}
	if Public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

// FuzzPublic: whatever the standard library calls special is not public, and
// the IPv6 form of an IPv4 address is judged as the address itself.
func FuzzPublic(f *testing.F) {
	for _, seed := range []string{"\x7f\x00\x00\x01", "\x08\x08\x08\x08", "\x0a\x00\x00\x01", "\x24\x00\x32\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01",
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x7f\x00\x00\x01", "\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			return
		}
		plain := addr.Unmap()
		special := !plain.IsGlobalUnicast() || plain.IsPrivate() || plain.IsLoopback() || plain.IsLinkLocalUnicast() ||
			plain.IsMulticast() || plain.IsInterfaceLocalMulticast() || plain.IsUnspecified()
		if Public(addr) && special {
			t.Errorf("%v is public", addr)
		}
		if Public(addr) != Public(plain) {
			t.Errorf("%v and %v differ", addr, plain)
		}
		if addr.Is4() && Public(addr) != Public(netip.AddrFrom16(addr.As16())) {
			t.Errorf("%v differs from its IPv6 form", addr)
		}
	})
}

// FuzzJudge: only an address that is spelled with its port and may be reached
// gets through.
func FuzzJudge(f *testing.F) {
	f.Add("tcp4", "8.8.8.8:443")
	f.Add("tcp6", "[2400:3200::1]:443")
	f.Add("tcp4", "127.0.0.1:443")
	f.Add("tcp6", "[fe80::1%eth0]:443")
	f.Add("udp4", "8.8.8.8:443")
	f.Add("tcp4", "example.com:443")
	f.Add("tcp4", "0x7f.1:443")
	f.Fuzz(func(t *testing.T, network, address string) {
		err := judge(network, address, Public)
		if err != nil {
			if !errors.Is(err, ErrForbidden) {
				t.Errorf("error %v", err)
			}
			return
		}
		host, _, splitErr := net.SplitHostPort(address)
		ip := net.ParseIP(host)
		if splitErr != nil || ip == nil || !ip.IsGlobalUnicast() || ip.IsPrivate() || !strings.HasPrefix(network, "tcp") {
			t.Errorf("%q %q may be reached", network, address)
		}
	})
}

// listener counts the connections that it gets.
type listener struct {
	net.Listener
	accepted atomic.Int32
}

func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return conn, err
}

func serve(t *testing.T, useTLS bool, handler http.HandlerFunc) (*httptest.Server, *listener) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	counted := &listener{Listener: server.Listener}
	server.Listener = counted
	if useTLS {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server, counted
}

func roots(t *testing.T, server *httptest.Server) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	return pool
}

func send(t *testing.T, transport *Transport, url string) (int, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("a=b"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := transport.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

var loopback = prefixes("127.0.0.0/8", "::1/128")

func TestThreat12NothingReachesLoopback(t *testing.T) {
	server, secure := serve(t, true, func(http.ResponseWriter, *http.Request) {})
	plainServer, plain := serve(t, false, func(http.ResponseWriter, *http.Request) {})
	securePort := strconv.Itoa(server.Listener.Addr().(*net.TCPAddr).Port)
	plainPort := strconv.Itoa(plainServer.Listener.Addr().(*net.TCPAddr).Port)
	transport := New(Options{RootCAs: roots(t, server)})
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "[::ffff:0.0.0.0]"} {
		if status, err := send(t, transport, "https://"+host+":"+securePort+"/"); !errors.Is(err, ErrForbidden) {
			t.Errorf("https to %s: status %d, error %v", host, status, err)
		}
		if status, err := send(t, transport, "http://"+host+":"+plainPort+"/"); !errors.Is(err, ErrForbidden) {
			t.Errorf("http to %s: status %d, error %v", host, status, err)
		}
	}
	for _, url := range []string{"ftp://8.8.8.8/", "file:///etc/hostname", "gopher://8.8.8.8/"} {
		if _, err := send(t, transport, url); err == nil {
			t.Errorf("%s was sent", url)
		}
	}
	if n := secure.accepted.Load() + plain.accepted.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestAllowedNetworks(t *testing.T) {
	server, accepted := serve(t, true, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	var allowed atomic.Pointer[[]netip.Prefix]
	allowed.Store(&loopback)
	transport := New(Options{RootCAs: roots(t, server), Allowed: func() []netip.Prefix { return *allowed.Load() }})
	for range 2 {
		if status, err := send(t, transport, server.URL); err != nil || status != http.StatusNoContent {
			t.Fatalf("status %d, error %v", status, err)
		}
	}
	if n := accepted.accepted.Load(); n != 2 {
		t.Errorf("%d connections for two requests", n)
	}
	allowed.Store(&[]netip.Prefix{})
	if _, err := send(t, transport, server.URL); !errors.Is(err, ErrForbidden) {
		t.Errorf("after the network was taken away: %v", err)
	}
	if n := accepted.accepted.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

func TestCertificatesAreVerified(t *testing.T) {
	server, _ := serve(t, true, func(http.ResponseWriter, *http.Request) { t.Error("a request got through") })
	server.Config.ErrorLog = nil
	transport := New(Options{Allowed: func() []netip.Prefix { return loopback }, RootCAs: x509.NewCertPool()})
	if _, err := send(t, transport, server.URL); err == nil || strings.Contains(err.Error(), server.URL) {
		t.Errorf("error %v", err)
	}
}

// TestPlainIsForLoopback: http goes to loopback where that is allowed, and
// nowhere else, whatever is allowed.
func TestPlainIsForLoopback(t *testing.T) {
	server, _ := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://8.8.8.8/", http.StatusTemporaryRedirect)
	})
	transport := New(Options{Allowed: func() []netip.Prefix { return prefixes("0.0.0.0/0", "::/0") }})
	if status, err := send(t, transport, server.URL); err != nil || status != http.StatusTemporaryRedirect {
		t.Errorf("loopback: status %d, error %v", status, err)
	}
	for _, url := range []string{"http://192.0.2.1/", "http://8.8.8.8/", "http://[2001:db8::1]/"} {
		if _, err := send(t, transport, url); !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if transport.plain.Proxy != nil || transport.secure.Proxy != nil {
		t.Error("a proxy of the environment would be used")
	}
}

func TestBoundedHeader(t *testing.T) {
	server, _ := serve(t, false, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 64<<10))
	})
	transport := New(Options{Allowed: func() []netip.Prefix { return loopback }})
	if status, err := send(t, transport, server.URL); err == nil {
		t.Errorf("status %d for a header of 64 KiB", status)
	}
}
