// Package outbound connects to addresses that are named from outside of the
// code, such as clients' logout URIs, without becoming a way into the network
// that the server stands in. What may be reached is judged when a connection is
// made, after names were resolved.
package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// ErrForbidden is in the error of a connection that was refused because of its
// address. Nothing was sent there.
var ErrForbidden = errors.New("outbound: the address is not a public one and not allowed")

// notPublic are the networks within IPv4 and the global unicast space of IPv6
// that no public service is at (IANA special-purpose address registries).
var notPublic = prefixes(
	"0.0.0.0/8",        // this network
	"10.0.0.0/8",       // private
	"100.64.0.0/10",    // carriers' NAT, and metadata services of clouds
	"127.0.0.0/8",      // loopback
	"168.63.129.16/32", // a cloud's host, as its guests see it
	"169.254.0.0/16",   // link-local, and metadata services of clouds
	"172.16.0.0/12",    // private
	"192.0.0.0/24",     // protocol assignments
	"192.0.2.0/24",     // documentation
	"192.88.99.0/24",   // 6to4 relays
	"192.168.0.0/16",   // private
	"198.18.0.0/15",    // benchmarking
	"198.51.100.0/24",  // documentation
	"203.0.113.0/24",   // documentation
	"224.0.0.0/4",      // multicast
	"240.0.0.0/4",      // reserved, and broadcast
	"2001::/23",        // protocol assignments: Teredo, benchmarking, ORCHID
	"2001:db8::/32",    // documentation
	"2002::/16",        // 6to4, which holds an IPv4 address
	"3fff::/20",        // documentation
)

// globalUnicast is all of IPv6 that is given out. Outside of it are loopback,
// link-local and unique local addresses, multicast, NAT64 and every form that
// holds an IPv4 address but 6to4.
var globalUnicast = netip.MustParsePrefix("2000::/3")

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}

// Public reports whether an address is a public unicast one. An IPv4 address
// in IPv6 form counts as what it is.
func Public(addr netip.Addr) bool {
	if !addr.IsValid() || addr.Zone() != "" {
		return false
	}
	addr = addr.Unmap()
	return (addr.Is4() || globalUnicast.Contains(addr)) && !within(notPublic, addr)
}

func within(networks []netip.Prefix, addr netip.Addr) bool {
	for _, network := range networks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// Options configures a transport. The zero value reaches public addresses only.
type Options struct {
	// Allowed returns networks that may be reached although they are not
	// public. It is asked for every connection. nil: none.
	Allowed func() []netip.Prefix
	// RootCAs verify certificates. nil: the system's.
	RootCAs *x509.CertPool
	// DialTimeout bounds connecting, the TLS handshake apart. 0: the request's
	// own deadline alone.
	DialTimeout time.Duration
	// MaxHeaderBytes bounds the header of an answer. 0: 16 KiB.
	MaxHeaderBytes int64
}

// Transport sends https requests to addresses that may be reached, and http
// ones to loopback addresses that are allowed. It makes a connection for every
// request, so that none outlives what allowed it; it uses no proxy and follows
// no redirect. It is safe for concurrent use.
type Transport struct {
	secure, plain *http.Transport
}

var _ http.RoundTripper = (*Transport)(nil)

// New returns a transport.
func New(o Options) *Transport {
	if o.Allowed == nil {
		o.Allowed = func() []netip.Prefix { return nil }
	}
	if o.MaxHeaderBytes <= 0 {
		o.MaxHeaderBytes = 16 << 10
	}
	allowed := func(addr netip.Addr) bool { return within(o.Allowed(), addr) }
	return &Transport{
		secure: o.transport(func(addr netip.Addr) bool { return Public(addr) || allowed(addr) }),
		plain:  o.transport(func(addr netip.Addr) bool { return addr.IsLoopback() && allowed(addr) }),
	}
}

func (o Options) transport(may func(netip.Addr) bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dialer := &net.Dialer{Timeout: o.DialTimeout, ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
		return judge(network, address, may)
	}}
	return &http.Transport{
		Protocols:              protocols,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: o.MaxHeaderBytes,
	}
}

// judge looks at the address that a socket is about to connect to.
func judge(network, address string, may func(netip.Addr) bool) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" {
		return ErrForbidden
	}
	if addr := target.Addr(); addr.Zone() != "" || !may(addr.Unmap()) {
		return ErrForbidden
	}
	return nil
}

// RoundTrip sends one request. Errors do not hold the URL.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	switch r.URL.Scheme {
	case "https":
		return t.secure.RoundTrip(r)
	case "http":
		return t.plain.RoundTrip(r)
	}
	if r.Body != nil {
		_ = r.Body.Close() // as a RoundTripper must; nothing was read
	}
	return nil, fmt.Errorf("outbound: requests are sent by https, not by %.16q", r.URL.Scheme)
}
