package wechat_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/wechat"
	"github.com/wxidp/wxidp/wechat/simulator"
)

const (
	simApp    = "wx0123456789abcdef"
	simSecret = "canarysecret0123456789abcdef0123"
)

// simulated is the client against the simulator, over real sockets.
func simulated(t *testing.T, change ...func(*wechat.Options)) (*simulator.Simulator, *wechat.Client, *bytes.Buffer) {
	t.Helper()
	sim := simulator.New(simulator.Options{Seed: t.Name(), Apps: []simulator.App{{AppID: simApp, Secret: simSecret, OpenPlatform: "main"}}})
	server := httptest.NewUnstartedServer(sim.Handler())
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	t.Cleanup(server.Close)
	var mu sync.Mutex
	logged := &bytes.Buffer{}
	o := wechat.Options{
		BaseURL: server.URL,
		Timeout: 20 * time.Second,
		Apps:    []wechat.App{{AppID: simApp, Secret: secret.New(simSecret), OpenPlatform: "main"}},
		Logger:  slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return logged.Write(p) }), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&o)
	}
	c, err := wechat.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return sim, c, logged
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestSignInAgainstSimulator(t *testing.T) {
	sim, c, _ := simulated(t)
	code, err := sim.Login(simApp, "ann")
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Code2Session(context.Background(), simApp, code)
	if err != nil {
		t.Fatal(err)
	}
	if s.WeChatOpenID != sim.OpenID(simApp, "ann") || s.UnionID != sim.UnionID("main", "ann") || s.SessionKey.IsZero() {
		t.Errorf("session %+v", s)
	}
	_, err = c.Code2Session(context.Background(), simApp, code)
	var e *wechat.Error
	if !errors.As(err, &e) || e.Kind != wechat.InvalidCode || e.Code != 40163 || e.RID == "" {
		t.Errorf("the same code again: %v", err)
	}
}

// TestThreat73And75FaultsOfSimulator runs the client into each fault. At most
// one request of each code is sent, except after errcode -1.
func TestThreat73And75FaultsOfSimulator(t *testing.T) {
	rows := []struct {
		fault    simulator.Fault
		kind     wechat.Kind
		reason   string
		requests int
	}{
		{simulator.Fault{Kind: simulator.FaultErrcode, Errcode: -1}, wechat.Unavailable, "errcode", 2},
		{simulator.Fault{Kind: simulator.FaultErrcode, Errcode: 40226}, wechat.Denied, "errcode", 1},
		{simulator.Fault{Kind: simulator.FaultErrcode, Errcode: 45011}, wechat.Quota, "errcode", 1},
		{simulator.Fault{Kind: simulator.FaultErrcode, Errcode: 40164, Errmsg: "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist"}, wechat.Misconfigured, "errcode", 1},
		{simulator.Fault{Kind: simulator.FaultErrcode, Errcode: 99999}, wechat.Unknown, "errcode", 1},
		{simulator.Fault{Kind: simulator.FaultDelay, Delay: time.Minute}, wechat.Unavailable, "timeout", 1},
		{simulator.Fault{Kind: simulator.FaultDrip, Interval: 50 * time.Millisecond}, wechat.Unavailable, "timeout", 1},
		{simulator.Fault{Kind: simulator.FaultTruncate}, wechat.Unavailable, "reset", 1},
		{simulator.Fault{Kind: simulator.FaultReset}, wechat.Unavailable, "reset", 1},
		{simulator.Fault{Kind: simulator.FaultDrop}, wechat.Unavailable, "reset", 1},
		{simulator.Fault{Kind: simulator.FaultHang}, wechat.Unavailable, "timeout", 1},
		{simulator.Fault{Kind: simulator.FaultStatus}, wechat.Unavailable, "http_5xx", 1},
		{simulator.Fault{Kind: simulator.FaultHTML}, wechat.Unavailable, "not_json", 1},
		{simulator.Fault{Kind: simulator.FaultRedirect, Location: "http://127.0.0.1:1/"}, wechat.Unavailable, "redirect", 1},
		{simulator.Fault{Kind: simulator.FaultEmpty}, wechat.Unavailable, "not_json", 1},
		{simulator.Fault{Kind: simulator.FaultHuge}, wechat.Unavailable, "too_large", 1},
		{simulator.Fault{Kind: simulator.FaultGzip, Size: 1 << 20}, wechat.Unavailable, "not_json", 1},
		{simulator.Fault{Kind: simulator.FaultBody, Body: `{"errcode":0,"errmsg":"ok"}`}, wechat.Unavailable, "no_openid", 1},
	}
	for _, row := range rows {
		t.Run(fmt.Sprint(row.fault.Kind, row.fault.Errcode), func(t *testing.T) {
			t.Parallel()
			timeout := 20 * time.Second
			if row.reason == "timeout" {
				timeout = time.Second
			}
			sim, c, logged := simulated(t, func(o *wechat.Options) { o.Timeout = timeout })
			// Warm connections, which is where a request may be sent twice.
			for range 3 {
				code, _ := sim.Login(simApp, "ann")
				if _, err := c.Code2Session(context.Background(), simApp, code); err != nil {
					t.Fatal(err)
				}
			}
			if err := sim.Inject(row.fault); err != nil {
				t.Fatal(err)
			}
			code, _ := sim.Login(simApp, "ann")
			sim.ClearRequests()
			start := time.Now()
			_, err := c.Code2Session(context.Background(), simApp, code)
			if d := time.Since(start); row.reason == "timeout" && d > 15*time.Second {
				t.Errorf("it took %v with a deadline of %v", d, timeout)
			}
			var e *wechat.Error
			if !errors.As(err, &e) || e.Kind != row.kind || e.Reason != row.reason || !e.Sent {
				t.Errorf("error %#v", err)
			}
			if got := sim.RequestCount(); got != row.requests {
				t.Errorf("%d requests, want %d", got, row.requests)
			}
			shown := fmt.Sprintf("%v %+v %#v %s", err, err, err, logged)
			for _, canary := range []string{simSecret, code, "203.0.113.7", "js_code"} {
				if strings.Contains(shown, canary) {
					t.Errorf("%q shows in %s", canary, shown)
				}
			}
			sim.ClearFaults()
			code, _ = sim.Login(simApp, "ann")
			if _, err := c.Code2Session(context.Background(), simApp, code); err != nil {
				t.Errorf("after the fault: %v", err)
			}
		})
	}
}

func TestTokenAgainstSimulator(t *testing.T) {
	sim, c, logged := simulated(t)
	ctx := context.Background()
	first, err := c.AccessToken(ctx, simApp)
	if err != nil {
		t.Fatal(err)
	}
	if errcode, appid := sim.CheckToken(first.Reveal()); errcode != 0 || appid != simApp {
		t.Errorf("the token meets %d", errcode)
	}
	again, err := c.AccessToken(ctx, simApp)
	if err != nil || !again.Equal(first) || sim.RequestCount() != 1 {
		t.Errorf("not cached: %v, %d requests", err, sim.RequestCount())
	}
	sim.ExpireTokens(simApp)
	c.InvalidateAccessToken(simApp, first)
	next, err := c.AccessToken(ctx, simApp)
	if err != nil || next.Equal(first) {
		t.Errorf("not renewed: %v", err)
	}
	c.SetApps([]wechat.App{{AppID: simApp, Secret: secret.New("wrong")}})
	_, err = c.AccessToken(ctx, simApp)
	var e *wechat.Error
	if !errors.As(err, &e) || e.Kind != wechat.Misconfigured || e.Code != 40125 || e.RID == "" {
		t.Errorf("the wrong secret: %v", err)
	}
	for _, canary := range []string{simSecret, first.Reveal(), next.Reveal()} {
		if strings.Contains(logged.String(), canary) {
			t.Errorf("a secret is logged: %s", logged)
		}
	}
}

func TestParallelSignInsAgainstSimulator(t *testing.T) {
	sim, c, _ := simulated(t)
	var won atomic.Int32
	var calls sync.WaitGroup
	for i := range 50 {
		user := fmt.Sprint("user", i)
		code, err := sim.Login(simApp, user)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			calls.Go(func() {
				s, err := c.Code2Session(context.Background(), simApp, code)
				var e *wechat.Error
				switch {
				case err == nil && s.WeChatOpenID == sim.OpenID(simApp, user):
					won.Add(1)
				case errors.As(err, &e) && e.Code == 40163:
				default:
					t.Errorf("%+v, %v", s, err)
				}
			})
		}
	}
	calls.Wait()
	if won.Load() != 50 {
		t.Errorf("%d sign-ins, want 50", won.Load())
	}
}
