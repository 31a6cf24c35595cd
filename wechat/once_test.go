package wechat

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// brokenServer is an HTTP server on bare sockets. It counts the requests it
// has read whole, by js_code; after each it does what next says.
type brokenServer struct {
	listener net.Listener
	next     func(conn *net.TCPConn) (goOn bool)

	accepted atomic.Int32
	mu       sync.Mutex // guards next and seen
	seen     map[string]int
}

func newBrokenServer(t *testing.T) *brokenServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &brokenServer{listener: l, seen: map[string]int{}}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			conns.Go(func() { s.serve(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return s
}

func (s *brokenServer) url() string { return "http://" + s.listener.Addr().String() }

func (s *brokenServer) serve(conn *net.TCPConn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.seen[r.URL.Query().Get("js_code")]++
		next := s.next
		s.mu.Unlock()
		if !next(conn) {
			return
		}
	}
}

func (s *brokenServer) then(next func(*net.TCPConn) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = next
}

func (s *brokenServer) count(code string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[code]
}

func writeGood(conn *net.TCPConn) bool {
	_, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(goodAnswer), goodAnswer)
	return err == nil
}

// warm opens n connections to the server and leaves them idle in the client's pool.
func (s *brokenServer) warm(t *testing.T, c *testClient, n int) {
	t.Helper()
	var arrived sync.WaitGroup
	arrived.Add(n)
	s.then(func(conn *net.TCPConn) bool {
		arrived.Done()
		arrived.Wait() // so that all n requests are under way at once
		return writeGood(conn)
	})
	var calls sync.WaitGroup
	for i := range n {
		calls.Go(func() {
			if _, err := c.Code2Session(context.Background(), testAppID, fmt.Sprintf("warm%d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if got := s.accepted.Load(); got != int32(n) {
		t.Fatalf("%d connections, want %d", got, n)
	}
}

// TestThreat75NothingIsSentTwice breaks warm keep-alive connections after the
// request was read, which is where http.Transport sends a plain GET again.
func TestThreat75NothingIsSentTwice(t *testing.T) {
	const n = 8
	breaks := map[string]func(*net.TCPConn) bool{
		"reset": func(conn *net.TCPConn) bool { _ = conn.SetLinger(0); return false },
		"close": func(*net.TCPConn) bool { return false },
		"reset in the status line": func(conn *net.TCPConn) bool {
			_, _ = io.WriteString(conn, "HTTP/1.1 2")
			_ = conn.SetLinger(0)
			return false
		},
		"close in the body": func(conn *net.TCPConn) bool {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
			return false
		},
	}
	for name, next := range breaks {
		t.Run(name, func(t *testing.T) {
			s := newBrokenServer(t)
			c := newClient(t, Options{BaseURL: s.url()})
			s.warm(t, c, n)
			s.then(next)
			var calls sync.WaitGroup
			for i := range n {
				calls.Go(func() {
					code := fmt.Sprintf("cold%d", i)
					_, err := c.Code2Session(context.Background(), testAppID, code)
					if e := asError(t, c, err); e.Reason != "reset" || !e.Sent || e.Kind != Unavailable {
						t.Errorf("error %+v", e)
					}
					if seen := s.count(code); seen != 1 {
						t.Errorf("the server read the request %d times", seen)
					}
				})
			}
			calls.Wait()
			if got := s.accepted.Load(); got != n {
				t.Errorf("%d connections, want the %d warm ones", got, n)
			}
		})
	}
	t.Run("a plain GET is", func(t *testing.T) {
		// Not a demand on net/http, but what shows that the rows above can fail.
		s := newBrokenServer(t)
		c := newClient(t, Options{BaseURL: s.url()})
		s.warm(t, c, n)
		s.then(breaks["reset"])
		req, err := http.NewRequest("GET", s.url()+"/?js_code=plain", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.sender.transport.RoundTrip(req)
		t.Logf("net/http sent a plain GET %d times (%v)", s.count("plain"), err != nil)
	})
}

// TestStaleConnections lets the server close connections at about the moment of
// their next request. Each request reaches it at most once, never after the
// client said that nothing was sent.
func TestStaleConnections(t *testing.T) {
	s := newBrokenServer(t)
	c := newClient(t, Options{BaseURL: s.url()})
	s.then(func(conn *net.TCPConn) bool {
		if !writeGood(conn) {
			return false
		}
		if pause := rand.IntN(4); pause > 0 {
			time.Sleep(time.Duration(pause*100) * time.Microsecond)
			return false
		}
		return true
	})
	var calls sync.WaitGroup
	var failed, unsent atomic.Int32
	for worker := range 4 {
		calls.Go(func() {
			for i := range 250 {
				code := fmt.Sprintf("c%d-%d", worker, i)
				_, err := c.Code2Session(context.Background(), testAppID, code)
				seen := s.count(code)
				var e *Error
				switch {
				case seen > 1:
					t.Errorf("%s reached the server %d times", code, seen)
				case errors.As(err, &e):
					failed.Add(1)
					if !e.Sent {
						unsent.Add(1)
						if e.Reason != reasonBreakerOpen && seen != 0 {
							t.Errorf("%s reached the server, and the error says it was not sent", code)
						}
					}
				case err == nil && seen != 1:
					t.Errorf("%s succeeded with %d requests", code, seen)
				}
				time.Sleep(time.Duration(rand.IntN(400)) * time.Microsecond)
			}
		})
	}
	calls.Wait()
	t.Logf("%d of 1000 failed, %d of them unsent", failed.Load(), unsent.Load())
}

func TestDialFailureIsRepeatedOnce(t *testing.T) {
	s := serve(t, answer200(goodAnswer))
	for name, failures := range map[string]int32{"one": 1, "two": 2, "many": 9} {
		t.Run(name, func(t *testing.T) {
			var dials atomic.Int32
			c := newClient(t, Options{BaseURL: s.URL, Transport: &http.Transport{
				DisableKeepAlives: true,
				DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					if dials.Add(1) <= failures {
						return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
					}
					return (&net.Dialer{}).DialContext(ctx, network, addr)
				},
			}})
			_, err := exchange(c)
			if dials.Load() != 2 {
				t.Errorf("%d dials, want 2", dials.Load())
			}
			if failures == 1 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if e := asError(t, c, err); e.Sent || e.Reason != "dial" || e.Kind != Unavailable || e.RetryAfter != time.Second {
				t.Errorf("error %+v", e)
			}
		})
	}
}

func TestRefusedPortIsNotSent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c := newClient(t, Options{BaseURL: "http://" + l.Addr().String()})
	_, err = exchange(c)
	if e := asError(t, c, err); e.Sent || e.Reason != "dial" {
		t.Errorf("error %+v", e)
	}
}

func TestForeignTransportIsTakenToHaveSent(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		sent bool
	}{
		"other": {errors.New("https://x/?secret=" + canarySecret), true},
		"dial":  {fmt.Errorf("wrapped: %w", &net.OpError{Op: "dial", Err: errors.New("refused")}), false},
		"read":  {&net.OpError{Op: "read", Err: errors.New("reset")}, true},
	} {
		var calls int
		c := newClient(t, Options{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			calls++
			return nil, row.err
		})})
		_, err := exchange(c)
		e := asError(t, c, err)
		if e.Sent != row.sent || (calls == 2) == row.sent {
			t.Errorf("%s: %d calls, error %+v", name, calls, e)
		}
	}
}
