package web

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// pipeListener hands out connections whose peer addresses a test chooses.
type pipeListener struct {
	conns chan net.Conn
}

func (l *pipeListener) Accept() (net.Conn, error) {
	conn, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (l *pipeListener) Close() error   { close(l.conns); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

type pipeConn struct {
	net.Conn
	peer net.Addr
}

func (c *pipeConn) RemoteAddr() net.Addr { return c.peer }

// dial offers a connection from ip and returns the caller's end.
func (l *pipeListener) dial(ip string) net.Conn {
	here, there := net.Pipe()
	l.conns <- &pipeConn{there, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 4711))}
	return here
}

// refused reports whether the other side hung up at once.
func refused(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err := conn.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

func TestLimitListener(t *testing.T) {
	inner := &pipeListener{conns: make(chan net.Conn, 16)}
	l := LimitListener(inner, 6, 2, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, func(string) {})
	accept := func() net.Conn {
		t.Helper()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}

	inner.dial("192.0.2.1")
	first := accept()
	inner.dial("192.0.2.1")
	accept()
	third := inner.dial("192.0.2.1")
	inner.dial("192.0.2.2") // accepted in the place of the third
	if got := peer(accept()); got != netip.MustParseAddr("192.0.2.2") {
		t.Errorf("accepted %s", got)
	}
	if !refused(third) {
		t.Error("a third connection of one address was not closed")
	}

	// Closing twice frees one place, not two.
	for range 2 {
		_ = first.Close()
	}
	inner.dial("192.0.2.1")
	accept()
	over := inner.dial("192.0.2.1")

	// The proxy counts in all only: 3 are open, 3 more may be.
	for range 3 {
		inner.dial("10.1.2.3")
		accept()
	}
	if !refused(over) {
		t.Error("closing a connection twice freed two places")
	}
	full := inner.dial("10.1.2.3")
	strange := inner.dial("203.0.113.9")
	if err := inner.Close(); err != nil {
		t.Fatal(err)
	}
	if conn, err := l.Accept(); err == nil {
		t.Errorf("accepted %s beyond the limit in all", conn.RemoteAddr())
	}
	if !refused(full) || !refused(strange) {
		t.Error("a connection beyond the limit in all was not closed")
	}
}

func TestLimitListenerCountsIPv6BySubscriber(t *testing.T) {
	inner := &pipeListener{conns: make(chan net.Conn, 16)}
	l := LimitListener(inner, 100, 2, nil, func(string) {})
	for _, ip := range []string{"2001:db8::1", "2001:db8::2"} {
		inner.dial(ip)
		if _, err := l.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	third := inner.dial("2001:db8:0:0:ffff::3")
	inner.dial("2001:db8:0:1::1")
	conn, err := l.Accept()
	if err != nil || peer(conn) != netip.MustParseAddr("2001:db8:0:1::1") {
		t.Fatalf("accepted %v, %v", conn, err)
	}
	if !refused(third) {
		t.Error("one /64 holds more connections than one address may")
	}
}

// TestLimitListenerForgets opens and closes from many addresses at once;
// afterwards nothing is counted and nothing is kept.
func TestLimitListenerForgets(t *testing.T) {
	inner := &pipeListener{conns: make(chan net.Conn)}
	l := LimitListener(inner, 1000, 1000, nil, func(string) {}).(*limitListener)
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() { inner.dial(netip.AddrFrom4([4]byte{10, 0, byte(i % 50), 1}).String()) })
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() { _ = conn.Close() })
	}
	group.Wait()
	if l.open != 0 || len(l.byIP) != 0 {
		t.Errorf("%d connections and %d addresses are counted after all were closed", l.open, len(l.byIP))
	}
}
