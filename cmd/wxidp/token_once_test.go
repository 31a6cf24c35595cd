package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxidp/wxidp/wechat/simulator"
)

const (
	// bound is how long a sign-in may take while WeChat is silent: the default
	// timeout of 3 s and what is around it.
	bound = 3200 * time.Millisecond
	// slowest leaves room for a machine that does much else at once.
	slowest = 4 * time.Second
)

// TestThreat75AnswerInTime: with WeChat silent, slow or dripping, a sign-in is
// answered within 3.2 s. A busy machine can only add to that, so the fastest of
// three tries counts.
func TestThreat75AnswerInTime(t *testing.T) {
	t.Parallel()
	for _, fault := range []simulator.Fault{
		{Kind: simulator.FaultHang}, {Kind: simulator.FaultDrip}, {Kind: simulator.FaultDelay, Delay: time.Minute},
	} {
		t.Run(string(fault.Kind), func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			inject(t, s, fault)
			fastest := time.Hour
			for try := 0; try < 3 && fastest > bound; try++ {
				form := signInForm(s.Code(testAppID, "alice"))
				start := time.Now()
				out := s.Token(form)
				fastest = min(fastest, time.Since(start))
				refused(t, out, 503, "temporarily_unavailable")
				if out.Header.Get("Retry-After") == "" {
					t.Error("503 without Retry-After")
				}
			}
			if fastest > bound {
				t.Errorf("answered after %s", fastest)
			}
		})
	}
}

// TestThreat75WeChatFaults: whatever WeChat does on a warm connection, a code is
// sent once, the answer comes in time, and everything else goes on.
func TestThreat75WeChatFaults(t *testing.T) {
	t.Parallel()
	var redirected atomic.Int32
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { redirected.Add(1) }))
	defer target.Close()
	s := startServer(t, manyPhones())
	session := signIn(s, "keeper")
	for i := range 20 {
		// Good calls between the bad ones, so that the breaker stays closed.
		signIn(s, fmt.Sprintf("warm-%d", i))
	}

	faults := []simulator.Fault{
		{Kind: simulator.FaultHang}, {Kind: simulator.FaultDrip}, {Kind: simulator.FaultDelay, Delay: time.Minute},
		{Kind: simulator.FaultReset}, {Kind: simulator.FaultDrop}, {Kind: simulator.FaultTruncate},
		{Kind: simulator.FaultStatus, Status: 500}, {Kind: simulator.FaultStatus, Status: 503}, {Kind: simulator.FaultStatus, Status: 404},
		{Kind: simulator.FaultHTML}, {Kind: simulator.FaultEmpty}, {Kind: simulator.FaultHuge}, {Kind: simulator.FaultGzip},
		{Kind: simulator.FaultRedirect, Location: target.URL + "/?leak"},
	}
	var wait sync.WaitGroup
	codes := make([]string, len(faults))
	for i, fault := range faults {
		codes[i] = s.Code(testAppID, fmt.Sprintf("victim-%d", i))
		before := s.Sim.RequestCount()
		fault.Count = 1
		inject(t, s, fault)
		wait.Go(func() {
			start := time.Now()
			out, err := s.try(http.MethodPost, s.Issuer+"/oauth2/token", signInForm(codes[i]), phone())
			if elapsed := time.Since(start); elapsed > slowest {
				t.Errorf("%s: answered after %s", fault.Kind, elapsed)
			}
			if err != nil || out.Status != 503 || out.str("error") != "temporarily_unavailable" || out.Header.Get("Retry-After") == "" {
				t.Errorf("%s: %v %v", fault.Kind, out, err)
			}
		})
		// The fault must hit this request and no other.
		eventually(t, "WeChat sees the request", func() bool { return s.Sim.RequestCount() > before })
	}
	// Three sign-ins hang now. What does not need WeChat does not notice.
	for range 5 {
		out := refresh(s, session.str("refresh_token"))
		if out.Status != 200 || !userInfoOK(s, out.str("access_token")) {
			t.Fatalf("refresh while WeChat fails: %v", out)
		}
		if introspect(s, out.str("access_token"), basic(testBackend, testBackendKey)).JSON["active"] != true {
			t.Fatal("introspection fails while WeChat does")
		}
		session = out
	}
	wait.Wait()

	// A code that was sent may be spent: it is never sent again.
	for i, code := range codes {
		out := s.Token(signInForm(code), phone())
		refused(t, out, 400, "invalid_grant")
		sent := 0
		for _, request := range s.Sim.Requests() {
			if request.JSCode == code {
				sent++
			}
		}
		if sent != 1 {
			t.Errorf("%s: WeChat saw the code %d times", faults[i].Kind, sent)
		}
	}
	if redirected.Load() != 0 {
		t.Error("a redirect was followed")
	}
	if n := countUsers(s); n != 21 {
		t.Errorf("%d users, want the 21 who got an answer", n)
	}
	if strings.Contains(s.Logs.String(), testAppSecret) {
		t.Error("the AppSecret is in the log")
	}
	signIn(s, "after")
}

// resettingWeChat answers the first request of each connection and resets the
// connection once it has read the second one whole.
type resettingWeChat struct {
	listener net.Listener
	mu       sync.Mutex
	seen     map[string]int // requests by their first line
	resets   int
}

func (w *resettingWeChat) serve() {
	for {
		conn, err := w.listener.Accept()
		if err != nil {
			return
		}
		go w.serveConn(conn)
	}
}

func (w *resettingWeChat) serveConn(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for first := true; ; first = false {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		w.mu.Lock()
		w.seen[req.URL.Query().Get("js_code")]++
		n := len(w.seen)
		if !first {
			w.resets++
		}
		w.mu.Unlock()
		if !first {
			_ = conn.(*net.TCPConn).SetLinger(0)
			return
		}
		body := fmt.Sprintf(`{"session_key":"canary-key","openid":"o%d"}`, n)
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
}

// TestThreat75WarmConnectionReset: Go's Transport would send a GET again by
// itself when a kept connection breaks. No code is sent twice.
func TestThreat75WarmConnectionReset(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	weChat := &resettingWeChat{listener: listener, seen: map[string]int{}}
	go weChat.serve()
	s := startServer(t, manyPhones(), replacing("base_url: WECHAT", "base_url: http://"+listener.Addr().String()))

	results := map[int]int{}
	for i := range 16 {
		results[s.Token(signInForm(fmt.Sprintf("code-%d", i)), phone()).Status]++
	}
	weChat.mu.Lock()
	defer weChat.mu.Unlock()
	if weChat.resets == 0 || results[503] != weChat.resets || results[200] != 16-weChat.resets {
		t.Errorf("%d resets, answers by status: %v", weChat.resets, results)
	}
	for code, n := range weChat.seen {
		if n != 1 {
			t.Errorf("WeChat saw %s %d times", code, n)
		}
	}
}

// TestClaimReleasedWhenNothingWasSent: a code that could not be sent is as good
// as before.
func TestClaimReleasedWhenNothingWasSent(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	s := startServer(t, manyPhones(), replacing("base_url: WECHAT", "base_url: http://"+address))
	code := s.Code(testAppID, "alice")
	for range 2 {
		refused(t, s.Token(signInForm(code), phone()), 503, "temporarily_unavailable")
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	weChat := &http.Server{Handler: s.Sim.Handler()}
	go func() { _ = weChat.Serve(listener) }()
	defer weChat.Close()
	if out := s.Token(signInForm(code), phone()); out.Status != 200 {
		t.Fatalf("the same code, once WeChat is back: %v", out)
	}
	if n := s.Sim.RequestCount(); n != 1 {
		t.Errorf("%d calls to WeChat", n)
	}
}

// TestClaimReleasedByLimit: wxidp's own budget for WeChat spends no code.
func TestClaimReleasedByLimit(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withConfig(func(yaml string) string {
		return "rate_limits: { wechat_calls_per_app_per_minute: 4, wechat_reserve_percent: 0 }\n" + yaml
	}))
	signIn(s, "alice") // the burst of this budget is one call
	code := s.Code(testAppID, "bob")
	out := s.Token(signInForm(code), phone())
	refused(t, out, 429, "temporarily_unavailable")
	reload(s, "wechat_calls_per_app_per_minute: 4", "wechat_calls_per_app_per_minute: 40000")
	if out := s.Token(signInForm(code), phone()); out.Status != 200 {
		t.Errorf("the same code, later: %v", out)
	}
}

// hangUp sends a token request and closes the connection once WeChat has seen
// the code.
func hangUp(t testing.TB, s *testServer, code string, edits ...func(*http.Request)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	before := s.Sim.RequestCount()
	done := make(chan error, 1)
	go func() {
		_, err := s.try(http.MethodPost, s.Issuer+"/oauth2/token", signInForm(code), append(edits, func(r *http.Request) { *r = *r.WithContext(ctx) })...)
		done <- err
	}()
	eventually(t, "WeChat sees the code", func() bool { return s.Sim.RequestCount() > before })
	cancel()
	if err := <-done; err == nil {
		t.Fatal("the request was answered before the caller hung up")
	}
}

// TestCallerHangsUp: a sign-in whose caller is gone still commits, and an
// Idempotency-Key finds it.
func TestCallerHangsUp(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	key := header("Idempotency-Key", "tap-1")
	code := s.Code(testAppID, "alice")
	inject(t, s, simulator.Fault{Kind: simulator.FaultDelay, Delay: 1500 * time.Millisecond, Count: 1})
	hangUp(t, s, code, key, phone())

	first, second := s.Token(signInForm(code), key, phone()), s.Token(signInForm(code), key, phone())
	if first.Status != 200 || second.Status != 200 || first.str("refresh_token") == "" || first.str("refresh_token") != second.str("refresh_token") {
		t.Fatalf("repeats: %v\n%v", first, second)
	}
	if n := len(families(s)); n != 1 || s.Sim.RequestCount() != 1 || countUsers(s) != 1 {
		t.Errorf("%d families, %d users and %d calls to WeChat", n, countUsers(s), s.Sim.RequestCount())
	}
	// The line of the request that nobody waits for may come last.
	eventually(t, "three lines", func() bool { return len(s.Logs.Events("token.issued")) == 3 })
	results := map[any]int{}
	for _, line := range s.Logs.Events("token.issued") {
		results[line["result"]]++
	}
	if results["ok"] != 1 || results["repeated"] != 2 {
		t.Errorf("results in the log: %v", results)
	}
	if out := refresh(s, first.str("refresh_token")); out.Status != 200 {
		t.Errorf("refresh: %v", out)
	}
}
