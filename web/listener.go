package web

import (
	"net"
	"net/netip"
	"sync"

	"github.com/wxidp/wxidp/internal/limit"
)

// Connection limits of the public listener.
const (
	MaxConnections      = 16384
	MaxConnectionsPerIP = 1024
)

// LimitListener returns l with a limit on open connections, in all and per
// peer address (IPv6: per /64). What is beyond a limit is closed at once, and
// refused is told which limit it was: "total" or "per_ip". Addresses in exempt
// (trusted proxies, which bring everybody) count in all only.
func LimitListener(l net.Listener, total, perIP int, exempt []netip.Prefix, refused func(limit string)) net.Listener {
	return &limitListener{Listener: l, total: total, perIP: perIP, exempt: exempt, refused: refused, byIP: make(map[netip.Addr]int)}
}

type limitListener struct {
	net.Listener
	total, perIP int
	exempt       []netip.Prefix
	refused      func(limit string)

	mu   sync.Mutex
	open int
	byIP map[netip.Addr]int // without exempt addresses
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		ip := peer(conn)
		exempted := l.exempted(ip)
		ip = limit.Subscriber(ip)
		if reached := l.take(ip, exempted); reached != "" {
			_ = conn.Close()
			l.refused(reached)
			continue
		}
		return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { l.release(ip, exempted) })}, nil
	}
}

// take counts a connection, or returns the limit that forbids it.
func (l *limitListener) take(ip netip.Addr, exempted bool) (reached string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.open >= l.total:
		return "total"
	case !exempted && l.byIP[ip] >= l.perIP:
		return "per_ip"
	}
	l.open++
	if !exempted {
		l.byIP[ip]++
	}
	return ""
}

func (l *limitListener) release(ip netip.Addr, exempted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if exempted {
		return
	}
	if l.byIP[ip]--; l.byIP[ip] == 0 {
		delete(l.byIP, ip)
	}
}

func (l *limitListener) exempted(ip netip.Addr) bool {
	for _, prefix := range l.exempt {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}

func peer(conn net.Conn) netip.Addr {
	address, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return address.Addr().Unmap()
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}
