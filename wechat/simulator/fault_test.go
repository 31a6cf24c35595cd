package simulator

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

func startServer(t *testing.T, s *Simulator) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(s.Handler())
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// fetch sends a code and returns the answer and the error of reading it.
func fetch(t *testing.T, server *httptest.Server, code string, timeout time.Duration) (*http.Response, string, error) {
	t.Helper()
	c := &http.Client{
		Timeout:       timeout,
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := c.Get(server.URL + PathCode2Session + "?" + exchangeQuery(testApp, testSecret, code))
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res, string(body), err
}

// TestFaults sees each fault from outside, and whether the code was spent.
func TestFaults(t *testing.T) {
	timeout := func(err error) bool {
		var e interface{ Timeout() bool }
		return errors.As(err, &e) && e.Timeout()
	}
	rows := []struct {
		fault Fault
		spent bool
		check func(res *http.Response, body string, err error) bool
	}{
		{Fault{Kind: FaultErrcode, Errcode: 45011}, false, func(_ *http.Response, body string, err error) bool {
			return err == nil && blank(body) == `{"errcode":45011,"errmsg":"api minute-quota reach limit, must slower, retry next minute, rid: RID"}`
		}},
		{Fault{Kind: FaultErrcode, Errcode: -1}, false, func(_ *http.Response, body string, err error) bool {
			return err == nil && blank(body) == `{"errcode":-1,"errmsg":"system error, rid: RID"}`
		}},
		{Fault{Kind: FaultErrcode, Errcode: 77777, Errmsg: `say "hi" \ 你`}, false, func(_ *http.Response, body string, err error) bool {
			return err == nil && blank(body) == `{"errcode":77777,"errmsg":"say \"hi\" \\ 你, rid: RID"}`
		}},
		{Fault{Kind: FaultDelay, Delay: 100 * time.Millisecond}, true, func(res *http.Response, body string, err error) bool {
			return err == nil && res.StatusCode == 200 && strings.Contains(body, "openid")
		}},
		{Fault{Kind: FaultDrip, Interval: 50 * time.Millisecond}, true, func(_ *http.Response, body string, err error) bool {
			return timeout(err) && strings.HasPrefix(body, `{"session_`) && len(body) < 60
		}},
		{Fault{Kind: FaultTruncate}, true, func(_ *http.Response, body string, err error) bool {
			return errors.Is(err, io.ErrUnexpectedEOF) && strings.HasPrefix(body, `{"session_key"`)
		}},
		{Fault{Kind: FaultReset}, true, func(_ *http.Response, _ string, err error) bool { return errors.Is(err, syscall.ECONNRESET) }},
		{Fault{Kind: FaultDrop}, false, func(_ *http.Response, _ string, err error) bool { return errors.Is(err, syscall.ECONNRESET) }},
		{Fault{Kind: FaultHang}, false, func(_ *http.Response, _ string, err error) bool { return timeout(err) }},
		{Fault{Kind: FaultStatus}, false, func(res *http.Response, body string, err error) bool {
			return err == nil && res.StatusCode == 502 && body == htmlPage
		}},
		{Fault{Kind: FaultStatus, Status: 503}, false, func(res *http.Response, _ string, err error) bool { return err == nil && res.StatusCode == 503 }},
		{Fault{Kind: FaultHTML}, false, func(res *http.Response, body string, err error) bool {
			return err == nil && res.StatusCode == 200 && body == htmlPage
		}},
		{Fault{Kind: FaultRedirect, Location: "http://127.0.0.1:1/x"}, false, func(res *http.Response, _ string, err error) bool {
			return err == nil && res.StatusCode == 302 && res.Header.Get("Location") == "http://127.0.0.1:1/x"
		}},
		{Fault{Kind: FaultEmpty}, false, func(res *http.Response, body string, err error) bool {
			return err == nil && res.StatusCode == 200 && body == ""
		}},
		{Fault{Kind: FaultHuge}, false, func(res *http.Response, body string, err error) bool {
			return err == nil && res.ContentLength == 100<<20 && len(body) == 1<<20
		}},
		{Fault{Kind: FaultGzip, Size: 1 << 20}, false, func(res *http.Response, body string, err error) bool {
			return err == nil && res.Header.Get("Content-Encoding") == "gzip" && len(body) < 10_000
		}},
		{Fault{Kind: FaultBody, Body: "\xef\xbb\xbf{}"}, false, func(_ *http.Response, body string, err error) bool {
			return err == nil && body == "\xef\xbb\xbf{}"
		}},
	}
	for _, row := range rows {
		t.Run(string(row.fault.Kind), func(t *testing.T) {
			t.Parallel()
			s := newSimulator(t)
			server := startServer(t, s)
			row.fault.Count, row.fault.Endpoint = 1, PathCode2Session
			if err := errors.Join(row.fault.validate(), s.Inject(row.fault)); err != nil {
				t.Fatal(err)
			}
			stable(t, s, "") // another endpoint is not hit
			code := mint(t, s, testApp, "ann")
			limit := 20 * time.Second
			if row.fault.Kind == FaultDrip || row.fault.Kind == FaultHang {
				limit = time.Second
			}
			res, body, err := fetch(t, server, code, limit)
			if !row.check(res, body, err) {
				t.Errorf("%v, %.200q, %v", res, body, err)
			}
			want := map[bool]int{false: 0, true: 40163}[row.spent]
			if got := errcodeOf(t, exchange(s, testApp, code)); got != want {
				t.Errorf("afterwards the code gives %d, want %d", got, want)
			}
			log := s.Requests()
			if len(log) != 3 || log[1].Fault != row.fault.Kind || log[1].JSCode != code || log[1].Status != row.fault.status() {
				t.Errorf("log %+v", log)
			}
		})
	}
}

func TestFaultsQueueAndCount(t *testing.T) {
	s := newSimulator(t)
	for _, f := range []Fault{
		{Kind: FaultErrcode, Errcode: 1, Count: 2},
		{Kind: FaultErrcode, Errcode: 2, Count: 1},
		{Kind: FaultErrcode, Errcode: 3},
	} {
		if err := s.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []int{1, 1, 2, 3, 3, 3} {
		if got := errcodeOf(t, exchange(s, testApp, "x")); got != want {
			t.Errorf("request %d: %d, want %d", i, got, want)
		}
	}
	if n := len(s.Faults()); n != 1 {
		t.Errorf("%d faults are left", n)
	}
	s.ClearFaults()
	if got := errcodeOf(t, exchange(s, testApp, "x")); got != 40029 {
		t.Errorf("after clearing: %d", got)
	}
	for range MaxFaults {
		if err := s.Inject(Fault{Kind: FaultHTML}); err != nil {
			t.Fatal(err)
		}
	}
	if s.Inject(Fault{Kind: FaultHTML}) == nil {
		t.Error("faults are not bounded")
	}
}

// TestFaultOrder: the wrong secret is told before an injected errcode, as the
// real limits come after the check of credentials.
func TestFaultOrder(t *testing.T) {
	s := newSimulator(t)
	if err := s.Inject(Fault{Kind: FaultErrcode, Errcode: 45011}); err != nil {
		t.Fatal(err)
	}
	w := get(s, PathCode2Session+"?"+exchangeQuery(testApp, "bad", "x"))
	if got := errcodeOf(t, w.Body.String()); got != 40125 {
		t.Errorf("%d", got)
	}
}

func TestHangEndsWhenTheCallerGoes(t *testing.T) {
	s := newSimulator(t)
	server := startServer(t, s)
	if err := s.Inject(Fault{Kind: FaultHang, Endpoint: PathStableToken}); err != nil {
		t.Fatal(err)
	}
	// Long enough for the request to arrive, so that there is a handler to end.
	c := &http.Client{Timeout: time.Second}
	_, err := c.Post(server.URL+PathStableToken, "application/json", strings.NewReader(`{}`))
	if err == nil {
		t.Fatal("an answer")
	}
	closed := make(chan struct{})
	go func() { server.Close(); close(closed) }() // waits for handlers
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("the handler still hangs")
	}
}

func TestDelayOutlastsTheTimeoutsOfItsServer(t *testing.T) {
	s := newSimulator(t)
	server := httptest.NewUnstartedServer(s.Handler())
	server.Config.ReadTimeout, server.Config.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	server.Start()
	defer server.Close()
	if err := s.Inject(Fault{Kind: FaultDelay, Delay: 300 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	_, body, err := fetch(t, server, mint(t, s, testApp, "ann"), 20*time.Second)
	if err != nil || !strings.Contains(body, "openid") {
		t.Errorf("%q, %v", body, err)
	}
}

func TestDripGoesOnWithSpaces(t *testing.T) {
	s := newSimulator(t)
	server := startServer(t, s)
	if err := s.Inject(Fault{Kind: FaultDrip, Interval: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	res, err := http.Get(server.URL + PathCode2Session + "?" + exchangeQuery(testApp, testSecret, mint(t, s, testApp, "ann")))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	if _, err := in.ReadString('}'); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if b, err := in.ReadByte(); b != ' ' || err != nil {
			t.Fatalf("%q, %v", b, err)
		}
	}
}
