package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/wechat"
)

// direct hands requests to a handler without a socket, so that a test may run
// in a bubble.
type direct struct{ handler http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.RemoteAddr = "127.0.0.1:4000"
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	return w.Result(), nil
}

// bubbled runs a test of a server without listeners on a clock of its own,
// which jumps while all sleep. Neither is WeChat behind a socket.
func bubbled(t *testing.T, do func(s *testServer, newBrowser func() *browser), options ...serverOption) {
	t.Helper()
	aboutBubbles(t)
	t.Parallel()
	s := prepareServer(t, append([]serverOption{manyPhones(), appending(webClients)}, options...)...)
	synctest.Test(t, func(t *testing.T) {
		loaded, err := config.Load(s.ConfigPath(), nil)
		if err != nil {
			t.Fatal(err)
		}
		s.t = t
		s.parts, err = build(context.Background(), loaded, slog.New(slog.NewJSONHandler(s.Logs, nil)), "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.parts.store.Close(); err != nil {
				t.Error(err)
			}
		}()
		s.parts.weChat, err = wechat.New(wechat.Options{
			BaseURL: loaded.Config.WeChat.BaseURL, Apps: weChatApps(loaded.Config), Transport: direct{s.Sim.Handler()},
		})
		for _, step := range []func(*config.Config) error{s.parts.makeProvider, s.parts.makeWeb} {
			if err == nil {
				err = step(loaded.Config)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		addAccount(s, "alice")
		do(s, func() *browser {
			b := newBrowser(s)
			b.transport = direct{s.parts.web.Public()}
			return b
		})
	})
}

// redeemBy is party.redeem by the transport of a browser.
func (p party) redeemBy(b *browser, code string) answer {
	b.s.t.Helper()
	form := pairs("grant_type", "authorization_code", "code", code, "redirect_uri", p.redirect, "code_verifier", testVerifier)
	edit := p.credentials(form)
	return b.trip(http.MethodPost, b.s.Issuer+"/oauth2/token", form, edit)
}

// TestCodeLifetime: a client has a minute to redeem a code.
func TestCodeLifetime(t *testing.T) {
	bubbled(t, func(s *testServer, newBrowser func() *browser) {
		b := newBrowser()
		inTime, late := b.code(shopSPA, "alice"), b.code(shopSPA, "alice")
		time.Sleep(59 * time.Second)
		if out := shopSPA.redeemBy(b, inTime); out.Status != http.StatusOK {
			s.t.Errorf("after 59 s: %v", out)
		}
		time.Sleep(2 * time.Second)
		refused(s.t, shopSPA.redeemBy(b, late), http.StatusBadRequest, "invalid_grant")
		// That it was used is known for long.
		time.Sleep(20 * time.Minute)
		out := shopSPA.redeemBy(b, inTime)
		refused(s.t, out, http.StatusBadRequest, "invalid_grant")
		eventOf(s, out, "code.reuse_detected")
	})
}

// TestPushedRequestLifetime: a pushed request is there for as long as the
// answer said, by the store's clock.
func TestPushedRequestLifetime(t *testing.T) {
	bubbled(t, func(s *testServer, newBrowser func() *browser) {
		b := newBrowser()
		b.code(shopSPA, "alice")
		push := func() url.Values {
			s.t.Helper()
			out := b.trip(http.MethodPost, s.Issuer+"/oauth2/par", shopSPA.request())
			if out.Status != http.StatusCreated || out.JSON["expires_in"] != 60.0 {
				s.t.Fatal(out)
			}
			return pairs("client_id", shopSPA.id, "request_uri", out.str("request_uri"))
		}
		inTime, late := push(), push()
		time.Sleep(59 * time.Second)
		if v := b.authorize(inTime); !v.callback().Has("code") {
			s.t.Errorf("after 59 s: %v", v)
		}
		time.Sleep(2 * time.Second)
		errorPage(s.t, "after 61 s", b.authorize(late), http.StatusBadRequest)
	})
}

// TestInteractionLifetime: a person has a quarter of an hour to sign in, and
// the request that was pushed need not live as long.
func TestInteractionLifetime(t *testing.T) {
	bubbled(t, func(s *testServer, newBrowser func() *browser) {
		b := newBrowser()
		pushed := b.trip(http.MethodPost, s.Issuer+"/oauth2/par", shopSPA.request())
		slow := b.authorize(pairs("client_id", shopSPA.id, "request_uri", pushed.str("request_uri")))
		late := b.authorize(shopSPA.request())
		time.Sleep(14 * time.Minute)
		if v := b.password(slow, "alice", testPassword); !v.callback().Has("code") {
			s.t.Errorf("after 14 minutes: %v", v)
		}
		time.Sleep(2 * time.Minute)
		errorPage(s.t, "after 16 minutes", b.open(late.URL.Path), http.StatusBadRequest)
		errorPage(s.t, "the form after 16 minutes", b.password(late, "alice", testPassword), http.StatusBadRequest)
	})
}

// TestLoginSessionLifetimes: a login session ends when it was not used for a
// day, and after two weeks however much it was.
func TestLoginSessionLifetimes(t *testing.T) {
	bubbled(t, func(s *testServer, newBrowser func() *browser) {
		signedIn := func(b *browser) bool {
			s.t.Helper()
			return b.authorize(shopSPA.request("prompt", "none")).callback().Has("code")
		}
		idle, busy := newBrowser(), newBrowser()
		idle.code(shopSPA, "alice")
		busy.code(shopSPA, "alice")
		start := time.Now()
		for time.Since(start) < 14*24*time.Hour-13*time.Hour {
			time.Sleep(12 * time.Hour)
			if !signedIn(busy) {
				s.t.Fatalf("a login session that is used ended after %v", time.Since(start))
			}
		}
		if signedIn(idle) {
			s.t.Error("a login session lives although nobody used it")
		}
		time.Sleep(14*24*time.Hour - time.Since(start) + time.Second)
		if signedIn(busy) {
			s.t.Error("a login session lives on after two weeks")
		}

		fresh := newBrowser()
		fresh.code(shopSPA, "alice")
		time.Sleep(24*time.Hour + time.Second)
		if signedIn(fresh) {
			s.t.Error("a login session lives although it was idle for a day")
		}
	})
}

// TestThreat57ScannedLoginIsShorter: a login session that began by scanning
// ends after half a day, even where it is used, and one that began by password
// does not.
func TestThreat57ScannedLoginIsShorter(t *testing.T) {
	bubbled(t, func(s *testServer, newBrowser func() *browser) {
		signedIn := func(b *browser) bool {
			s.t.Helper()
			return b.authorize(shopSPA.request("prompt", "none")).callback().Has("code")
		}
		byPassword, scanned := newBrowser(), newBrowser()
		byPassword.code(shopSPA, "alice")
		byScanning(s, scanned, newBrowser())
		start := time.Now()
		for _, use := range []time.Duration{time.Minute, 6 * time.Hour, 12*time.Hour - time.Second} {
			time.Sleep(use - time.Since(start))
			if !signedIn(scanned) {
				s.t.Fatalf("a scanned login session ended after %v", time.Since(start))
			}
		}
		time.Sleep(2 * time.Second)
		if signedIn(scanned) {
			s.t.Error("a scanned login session lives after half a day")
		}
		if !signedIn(byPassword) {
			s.t.Error("a login session by password ended as early as a scanned one")
		}
		asksFor(s.t, "after half a day", scanned.authorize(shopSPA.request()), "signin")
	}, withDevices(), withConfig(func(yaml string) string { return "scan: { appid: " + testAppID + " }\n" + yaml }))
}

// byScanning signs the user ann in with a browser, by a mini-program.
func byScanning(s *testServer, b, miniProgram *browser) {
	s.t.Helper()
	post := func(path string, form url.Values, edits ...func(*http.Request)) answer {
		s.t.Helper()
		out := miniProgram.trip(http.MethodPost, s.Issuer+path, form, edits...)
		if out.Status != http.StatusOK {
			s.t.Fatalf("%s: %v", path, out)
		}
		return out
	}
	tokens := post("/oauth2/token", pairs("grant_type", "wechat_jscode", "client_id", testClient, "scope", "openid device.approve",
		"js_code", s.Code(testAppID, "ann")))
	access := bearer(tokens.str("access_token"))
	page := b.authorize(shopSPA.request())
	scan := scanOn(s.t, string(page.Body))
	post("/device/context", pairs("ticket", scan.link), access)
	post("/device/approve", pairs("ticket", scan.link, "number", scan.number), access)
	v := b.submit(page, "/finish")
	if !v.callback().Has("code") {
		s.t.Fatalf("approved and yet not signed in: %v", v)
	}
}

// TestMaxAgeToTheSecond: an authentication of exactly max_age is good enough.
func TestMaxAgeToTheSecond(t *testing.T) {
	bubbled(t, func(s *testServer, newBrowser func() *browser) {
		b := newBrowser()
		b.code(shopSPA, "alice")
		time.Sleep(99 * time.Second)
		if v := b.authorize(shopSPA.request("max_age", "100", "prompt", "none")); !v.callback().Has("code") {
			s.t.Errorf("after 99 s: %v", v)
		}
		time.Sleep(2 * time.Second)
		params := shopSPA.request("max_age", "100", "prompt", "none")
		toldClient(s.t, "after 101 s", b.authorize(params), shopSPA, params, "login_required")
	})
}
