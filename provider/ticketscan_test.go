package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat"
)

// desk is a bench where people can scan, with what it logged.
type desk struct {
	*bench
	logged *lines
}

// lines takes log lines of several goroutines.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// events returns the log lines of an event.
func (l *lines) events(name string) (out []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		var event map[string]any
		if json.Unmarshal([]byte(line), &event) == nil && event["event"] == name {
			out = append(out, event)
		}
	}
	return out
}

func newDesk(t testing.TB, edits ...func(*Settings)) *desk {
	t.Helper()
	d := &desk{logged: new(lines)}
	edits = append([]func(*Settings){func(s *Settings) {
		s.Scan = Scan{AppID: testAppID, Link: testIssuer + "/scan"}
		s.Clients[0].Scopes = append(s.Clients[0].Scopes, ScopeDeviceApprove)
		s.Clients = append(s.Clients,
			Client{ID: "web", Name: "Shop", Public: true, AuthMethod: AuthNone, Scopes: []string{"openid"}, Audience: []string{"api"}},
			Client{ID: "tv", Name: "TV", Public: true, AuthMethod: AuthNone, GrantTypes: []string{GrantDeviceCode, GrantRefreshToken},
				Scopes: []string{"openid", "profile"}, DefaultScopes: []string{"openid"}, Audience: []string{"api", "films"}, IDTokenAlg: "ES256"},
			Client{ID: "radio", Public: true, AuthMethod: AuthNone, GrantTypes: []string{GrantDeviceCode},
				Scopes: []string{"openid"}, DefaultScopes: []string{"openid"}, Audience: []string{"api"}, IDTokenAlg: "ES256"})
	}}, edits...)
	d.bench = newBench(t, edits...)
	d.log = slog.New(slog.NewJSONHandler(d.logged, nil))
	return d
}

// screen is a request of a browser with this cookie.
func screen(cookie string) Request {
	req := request("/signin", nil)
	req.Browser, req.Agent = cookie, "Firefox, Linux"
	return req
}

func from(req Request, address string) Request {
	req.RemoteIP = netip.MustParseAddr(address)
	return req
}

// scan makes a code for the browser.
func (d *desk) scan(cookie string) ScanView {
	d.t.Helper()
	code, err := d.newScan(context.Background(), screen(cookie), d.settings().client("web"), []string{"openid"})
	if err != nil {
		d.t.Fatalf("new code: %v", err)
	}
	return code
}

// handset is a person with the mini-program.
type handset struct {
	d       *desk
	token   string
	subject string
	address string
}

var signIns atomic.Int64

// handset signs a person in at the mini-program.
func (d *desk) handset(person string) *handset {
	d.t.Helper()
	out, err := d.post(form("grant_type", "wechat_jscode", "client_id", testClient, "scope", "openid device.approve",
		"js_code", fmt.Sprintf("%s:%d", person, signIns.Add(1))))
	if err != nil {
		d.t.Fatalf("sign-in: %v", err)
	}
	return &handset{d: d, token: out.AccessToken, subject: out.Subject, address: "192.0.2.9"}
}

func (h *handset) post(path string, nameValue ...string) ([]byte, error) {
	req := from(request(path, form(nameValue...), "Authorization", "Bearer "+h.token), h.address)
	switch path {
	case PathDeviceContext:
		return h.d.DeviceContext(context.Background(), req)
	case PathDeviceApprove:
		return h.d.DeviceApprove(context.Background(), req)
	}
	return h.d.DeviceDeny(context.Background(), req)
}

// see calls the context endpoint.
func (h *handset) see(ticket string) (ticketContext, error) {
	body, err := h.post(PathDeviceContext, "ticket", ticket)
	var view ticketContext
	if err == nil {
		if err := json.Unmarshal(body, &view); err != nil {
			h.d.t.Fatalf("%s: %v", body, err)
		}
	}
	return view, err
}

func (h *handset) approve(ticket, number string) error {
	_, err := h.post(PathDeviceApprove, "ticket", ticket, "number", number)
	return err
}

func (h *handset) deny(ticket string) error {
	_, err := h.post(PathDeviceDeny, "ticket", ticket)
	return err
}

// answers checks the HTTP status and code of an error; 200 and "" stand for
// none.
func (d *desk) answers(what string, err error, status int, code Code) {
	d.t.Helper()
	gotStatus, got := http.StatusOK, Code("")
	if err != nil {
		e := AsError(err)
		gotStatus, got = e.Status, e.Code
		if e.Message.EN == "" || e.Message.ZH == "" {
			d.t.Errorf("%s: no text", what)
		}
	}
	if gotStatus != status || got != code {
		d.t.Errorf("%s: %d %q (%v), want %d %q", what, gotStatus, got, err, status, code)
	}
}

// state checks what a browser sees of its code.
func (d *desk) state(cookie string, code ScanView, want ticketState) {
	d.t.Helper()
	view, err := d.scanState(context.Background(), screen(cookie), code.ID)
	if err != nil || view.State != want || view.Number != code.Number || view.Link != code.Link {
		d.t.Errorf("%+v, %v, want %s", view, err, want)
	}
}

func wrongNumber(view ticketContext, number string) string {
	for _, choice := range view.Choices {
		if choice != number {
			return choice
		}
	}
	return "00"
}

// TestThreat57ConfirmationNeedsTheScreen: approving takes what only who sees
// the screen can know, after the phone has shown who asks.
func TestThreat57ConfirmationNeedsTheScreen(t *testing.T) {
	d := newDesk(t)
	ann := d.handset("ann")

	t.Run("context", func(t *testing.T) {
		code := d.scan("b1")
		if time.Until(code.ExpiresAt) > scanLifetime || len(code.Number) != 2 || code.Link != testIssuer+"/scan?t="+code.ID {
			t.Errorf("%+v", code)
		}
		d.answers("approval of what was not shown", ann.approve(code.ID, code.Number), http.StatusConflict, TicketUnseen)
		d.state("b1", code, ticketWaiting)
		view, err := ann.see(code.ID)
		d.answers("context", err, 200, "")
		if view.Kind != ticketScan || view.ClientID != "web" || view.ClientName != "Shop" || view.Browser != "Firefox, Linux" || view.Place != "192.0.2.*" ||
			time.Since(time.Unix(view.StartedAt, 0)) > time.Minute || view.ExpiresIn < 100 || view.ExpiresIn > 120 || !slices.Equal(view.Scopes, []string{"openid"}) ||
			view.NumberEntry || view.Warning != "" {
			t.Errorf("%+v", view)
		}
		checkChoices(t, code.Number, view.Choices)
		d.state("b1", code, ticketScanned)
		again, err := ann.see(code.ID)
		d.answers("context again", err, 200, "")
		if !slices.Equal(view.Choices, again.Choices) {
			t.Error("the choices change from look to look")
		}
	})
	t.Run("without number", func(t *testing.T) {
		code := d.scan("b1")
		_, err := ann.see(code.ID)
		d.answers("context", err, 200, "")
		_, err = ann.post(PathDeviceApprove, "ticket", code.ID)
		d.answers("approval without number", err, 400, InvalidRequest)
		d.answers("approval with an empty number", ann.approve(code.ID, ""), 400, InvalidRequest)
		d.state("b1", code, ticketScanned)
		d.answers("approval", ann.approve(code.ID, code.Number), 200, "")
		d.state("b1", code, ticketApproved)
		by, err := d.finishScan(context.Background(), screen("b1"), code.ID)
		if err != nil || by.ID != ann.subject || !slices.Equal(by.AMR, []string{"wechat", "qr"}) || time.Since(by.authTime()) > time.Minute {
			t.Errorf("%+v, %v", by, err)
		}
		approved := d.logged.events("qr.approved")
		if len(approved) != 1 || approved[0]["sub"] != ann.subject || approved[0]["client_id"] != "web" || approved[0]["by_client_id"] != testClient || approved[0]["kind"] != "scan" {
			t.Errorf("%v", approved)
		}
	})
	t.Run("wrong number", func(t *testing.T) {
		code := d.scan("b1")
		view, err := ann.see(code.ID)
		d.answers("context", err, 200, "")
		d.answers("wrong number", ann.approve(code.ID, wrongNumber(view, code.Number)), http.StatusConflict, WrongNumber)
		d.state("b1", code, ticketDenied)
		d.answers("right number after it", ann.approve(code.ID, code.Number), http.StatusConflict, TicketUsed)
		_, err = ann.see(code.ID)
		d.answers("context after it", err, http.StatusConflict, TicketUsed)
		_, err = d.finishScan(context.Background(), screen("b1"), code.ID)
		d.answers("finish", err, http.StatusConflict, TicketUsed)
		denied := d.logged.events("qr.denied")
		if len(denied) != 1 || denied[0]["reason"] != "wrong_number" || denied[0]["sub"] != ann.subject {
			t.Errorf("%v", denied)
		}
	})
	t.Run("other network", func(t *testing.T) {
		code := d.scan("b1")
		far := *ann
		far.address = "198.51.100.1"
		view, err := far.see(code.ID)
		d.answers("context", err, 200, "")
		if !view.NumberEntry || view.Choices != nil || view.Warning != "other_network" {
			t.Errorf("%+v", view)
		}
		view, err = ann.see(code.ID) // the warning does not go away
		if err != nil || !view.NumberEntry || view.Choices != nil {
			t.Errorf("%+v, %v", view, err)
		}
		d.answers("approval", far.approve(code.ID, code.Number), 200, "")
	})
	t.Run("declined", func(t *testing.T) {
		code := d.scan("b1")
		_, err := ann.see(code.ID)
		d.answers("context", err, 200, "")
		d.answers("denial", ann.deny(code.ID), 200, "")
		d.answers("denial again", ann.deny(code.ID), 200, "")
		d.state("b1", code, ticketDenied)
		d.answers("approval after it", ann.approve(code.ID, code.Number), http.StatusConflict, TicketUsed)
	})
}

// TestWhoMayApprove: a user with the scope, signed in through WeChat at a
// mini-program's client.
func TestWhoMayApprove(t *testing.T) {
	d := newDesk(t, func(s *Settings) {
		s.Clients = append(s.Clients, Client{ID: "machine", AuthMethod: AuthClientSecretPost, SecretHashes: []string{HashSecret("s")},
			GrantTypes: []string{GrantClientCredentials}, Scopes: []string{ScopeDeviceApprove}, DefaultScopes: []string{ScopeDeviceApprove}})
	})
	code := d.scan("b1")
	without := &handset{d: d, token: d.signIn("ann:nodevice").AccessToken, address: "192.0.2.9"}
	_, err := without.see(code.ID)
	d.answers("without the scope", err, http.StatusForbidden, InsufficientScope)
	machine, err := d.post(form("grant_type", GrantClientCredentials, "client_id", "machine", "client_secret", "s"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = (&handset{d: d, token: machine.AccessToken, address: "192.0.2.9"}).see(code.ID)
	d.answers("a client's own token", err, http.StatusForbidden, InsufficientScope)
	_, err = (&handset{d: d, token: "x", address: "192.0.2.9"}).see(code.ID)
	d.answers("no token at all", err, http.StatusUnauthorized, InvalidToken)
	ann := d.handset("ann")
	for _, path := range []string{PathDeviceContext, PathDeviceApprove, PathDeviceDeny} {
		_, err := ann.post(path, "number", "42")
		d.answers(path+" without ticket", err, 400, InvalidRequest)
	}
	d.state("b1", code, ticketWaiting)

	// A device's tokens are not a phone's, whatever their scope.
	settings := d.settings().Settings
	settings.Clients = slices.Clone(settings.Clients)
	for i := range settings.Clients {
		if settings.Clients[i].ID == "tv" {
			settings.Clients[i].Scopes = append(settings.Clients[i].Scopes, ScopeDeviceApprove)
		}
	}
	if err := d.Reload(settings); err != nil {
		t.Fatal(err)
	}
	device := d.authorizeDevice("tv", "scope", "openid device.approve")
	d.approveOnPhone(ann, device)
	tokens, err := d.poll("tv", device.DeviceCode)
	if err != nil {
		t.Fatal(err)
	}
	_, err = (&handset{d: d, token: tokens.AccessToken, address: "192.0.2.9"}).see(code.ID)
	d.answers("a device's token", err, http.StatusForbidden, AccessDenied)
}

// TestThreat58TicketGuessing: tickets are random, unknown and expired ones
// answer alike, and whoever meets too many is refused before the look-up.
func TestThreat58TicketGuessing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d := newDesk(t, func(s *Settings) { s.TicketMissesPerIPPerMinute = 20 })
		ann, seen := d.handset("ann"), map[string]bool{}
		for range 50 {
			code := d.scan("b1")
			if len(code.ID) != 22 || seen[code.ID] {
				t.Fatalf("id %q", code.ID)
			}
			seen[code.ID] = true
		}
		expired := d.scan("b1")
		time.Sleep(scanLifetime)
		_, unknown := ann.see(newScanID())
		_, late := ann.see(expired.ID)
		if a, b := AsError(unknown), AsError(late); a.Status != http.StatusGone || b.Status != a.Status || b.Code != a.Code || b.Message != a.Message || b.LogReason != a.LogReason {
			t.Errorf("unknown: %v, expired: %v", unknown, late)
		}
		time.Sleep(time.Minute)
		code := d.scan("b1")
		for i := range 20 {
			_, err := ann.see([]string{newScanID(), showUserCode(newUserCode())}[i%2])
			d.answers("a guess", err, http.StatusGone, TicketExpired)
		}
		for _, ticket := range []string{newScanID(), code.ID, "nonsense"} {
			_, err := ann.see(ticket)
			d.answers("one guess too many", err, http.StatusTooManyRequests, TemporarilyUnavailable)
			d.answers("approval", ann.approve(ticket, "42"), http.StatusTooManyRequests, TemporarilyUnavailable)
			d.answers("denial", ann.deny(ticket), http.StatusTooManyRequests, TemporarilyUnavailable)
		}
		elsewhere := *ann // the same person from another address
		elsewhere.address = "198.51.100.7"
		_, err := elsewhere.see(code.ID)
		d.answers("from elsewhere", err, http.StatusTooManyRequests, TemporarilyUnavailable)
		d.state("b1", code, ticketWaiting)
		time.Sleep(3 * time.Second)
		_, err = ann.see(code.ID)
		d.answers("after a while", err, 200, "")

		// A browser asks by its cookie, which stands in no code.
		_, err = d.scanState(context.Background(), screen(code.ID), code.ID)
		d.answers("with the ticket for a cookie", err, http.StatusNotFound, NotFound)
	})
}

// TestThreat59BrowserBinding: a code serves the browser that asked for it, and
// that one once.
func TestThreat59BrowserBinding(t *testing.T) {
	d := newDesk(t)
	ctx, ann := context.Background(), d.handset("ann")
	code := d.scan("b1")
	foreign := func(when string) {
		t.Helper()
		for _, cookie := range []string{"b2", "", "B1"} {
			_, err := d.scanState(ctx, screen(cookie), code.ID)
			d.answers(when+": state", err, http.StatusNotFound, NotFound)
			_, err = d.showScan(ctx, screen(cookie), code.ID)
			d.answers(when+": code", err, http.StatusNotFound, NotFound)
			_, err = d.waitScan(ctx, screen(cookie), code.ID, ticketWaiting)
			d.answers(when+": wait", err, http.StatusNotFound, NotFound)
			_, err = d.finishScan(ctx, screen(cookie), code.ID)
			d.answers(when+": finish", err, http.StatusNotFound, NotFound)
		}
	}
	foreign("waiting")
	if _, err := ann.see(code.ID); err != nil {
		t.Fatal(err)
	}
	foreign("scanned")
	_, err := d.finishScan(ctx, screen("b1"), code.ID)
	d.answers("finish too early", err, http.StatusConflict, TicketUsed)
	d.answers("approval", ann.approve(code.ID, code.Number), 200, "")
	foreign("approved")

	var wins atomic.Int64
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			by, err := d.finishScan(ctx, screen("b1"), code.ID)
			switch {
			case err == nil && by.ID == ann.subject:
				wins.Add(1)
			case err == nil || AsError(err).Status != http.StatusConflict:
				t.Errorf("%+v, %v", by, err)
			}
		})
	}
	all.Wait()
	if wins.Load() != 1 {
		t.Errorf("%d of 50 finished", wins.Load())
	}
	foreign("done")
	d.state("b1", code, ticketExpired)
	d.answers("denial of what is done", ann.deny(code.ID), http.StatusConflict, TicketUsed)
}

// TestThreat60SwappedUser: who scans decides, once and in time.
func TestThreat60SwappedUser(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d := newDesk(t)
		ann, ben := d.handset("ann"), d.handset("ben")
		open := func(cookie string) ScanView {
			t.Helper()
			code := d.scan(cookie)
			if _, err := ann.see(code.ID); err != nil {
				t.Fatal(err)
			}
			return code
		}
		code := open("b1")
		d.answers("another confirms", ben.approve(code.ID, code.Number), http.StatusConflict, TicketTaken)
		d.state("b1", code, ticketDenied)
		d.answers("the scanner after it", ann.approve(code.ID, code.Number), http.StatusConflict, TicketUsed)

		code = open("b2")
		_, err := ben.see(code.ID)
		d.answers("another scans", err, http.StatusConflict, TicketTaken)
		d.answers("the scanner after it", ann.approve(code.ID, code.Number), http.StatusConflict, TicketUsed)
		if denied := d.logged.events("qr.denied"); len(denied) != 2 || denied[0]["reason"] != "other_user" || denied[0]["sub"] != ben.subject {
			t.Errorf("%v", denied)
		}

		code = open("b3")
		d.answers("approval", ann.approve(code.ID, code.Number), 200, "")
		d.answers("approval again", ann.approve(code.ID, code.Number), http.StatusConflict, TicketUsed)
		d.answers("another after it", ben.approve(code.ID, code.Number), http.StatusConflict, TicketUsed)
		d.state("b3", code, ticketApproved)

		code = open("b4")
		time.Sleep(scanLifetime)
		d.answers("approval after expiry", ann.approve(code.ID, code.Number), http.StatusGone, TicketExpired)
		d.state("b4", code, ticketExpired)
		time.Sleep(ticketLinger)
		d.answers("approval long after", ann.approve(code.ID, code.Number), http.StatusGone, TicketExpired)

		code = open("b5")
		d.answers("approval in time", ann.approve(code.ID, code.Number), 200, "")
		time.Sleep(scanLifetime)
		_, err = d.finishScan(context.Background(), screen("b5"), code.ID)
		d.answers("finish after expiry", err, http.StatusConflict, TicketUsed)

		code = open("b6")
		view, err := d.scanState(context.Background(), screen("b6"), code.ID)
		if shown := fmt.Sprintf("%+v", view); err != nil || strings.Contains(shown, ann.subject) {
			t.Errorf("%s, %v", shown, err)
		}
	})
}

// TestThreat60ParallelConfirmations: of many approvals one counts.
func TestThreat60ParallelConfirmations(t *testing.T) {
	d := newDesk(t)
	ann := d.handset("ann")
	code := d.scan("b1")
	if _, err := ann.see(code.ID); err != nil {
		t.Fatal(err)
	}
	var wins atomic.Int64
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if err := ann.approve(code.ID, code.Number); err == nil {
				wins.Add(1)
			} else if e := AsError(err); e.Code != TicketUsed {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if wins.Load() != 1 || len(d.logged.events("qr.approved")) != 1 {
		t.Errorf("%d approvals, %v", wins.Load(), d.logged.events("qr.approved"))
	}
	// Of two people who scan at once, none gets in.
	code = d.scan("b2")
	people := []*handset{ann, d.handset("ben")}
	for range 10 {
		for _, person := range people {
			all.Go(func() { _, _ = person.see(code.ID) })
		}
	}
	all.Wait()
	d.state("b2", code, ticketDenied)
}

// TestThreat61QRFlood: codes are limited by address, and so are connections
// that wait.
func TestThreat61QRFlood(t *testing.T) {
	d := newDesk(t, func(s *Settings) { s.ScanCodesPerIPPerMinute = 20 })
	ctx, web := context.Background(), d.settings().client("web")
	for i := range 20 {
		if _, err := d.newScan(ctx, screen(fmt.Sprintf("b%d", i)), web, nil); err != nil {
			t.Fatalf("code %d: %v", i, err)
		}
	}
	_, err := d.newScan(ctx, screen("b-next"), web, nil)
	d.answers("a code too many", err, http.StatusTooManyRequests, TemporarilyUnavailable)
	if AsError(err).RetryAfter <= 0 {
		t.Error("no Retry-After")
	}
	code, err := d.newScan(ctx, from(screen("b1"), "198.51.100.1"), web, nil)
	d.answers("from elsewhere", err, 200, "")

	for range 20 {
		d.authorizeDevice("tv")
	}
	_, err = d.DeviceAuthorization(ctx, request(PathDeviceAuthorization, form("client_id", "tv")))
	d.answers("a device too many", err, http.StatusTooManyRequests, TemporarilyUnavailable)

	waiting, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for range maxWaitsPerIP {
		all.Go(func() { _, _ = d.waitScan(waiting, from(screen("b1"), "198.51.100.1"), code.ID, ticketWaiting) })
	}
	full := func() bool {
		d.tickets.mu.Lock()
		defer d.tickets.mu.Unlock()
		return d.tickets.all == maxWaitsPerIP
	}
	for deadline := time.Now().Add(10 * time.Second); !full(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("they do not wait")
		}
	}
	_, err = d.waitScan(ctx, from(screen("b1"), "198.51.100.1"), code.ID, ticketWaiting)
	d.answers("a connection too many", err, http.StatusTooManyRequests, TemporarilyUnavailable)
	cancel()
	all.Wait()
	if d.tickets.all != 0 || len(d.tickets.waits) != 0 || len(d.tickets.rooms) != 0 {
		t.Errorf("left behind: %d, %v, %v", d.tickets.all, d.tickets.waits, d.tickets.rooms)
	}
}

// TestWaitScan: news of this process come at once, those of another within 2 s,
// and no wait lasts for more than 15 s.
func TestWaitScan(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d := newDesk(t)
		ann, ctx := d.handset("ann"), context.Background()
		wait := func(code ScanView, last ticketState) (ticketState, time.Duration) {
			t.Helper()
			start := time.Now()
			view, err := d.waitScan(ctx, screen("b1"), code.ID, last)
			if err != nil {
				t.Fatal(err)
			}
			return view.State, time.Since(start)
		}
		code := d.scan("b1")
		if state, took := wait(code, ""); state != ticketWaiting || took != 0 {
			t.Errorf("%s after %v", state, took)
		}
		if state, took := wait(code, ticketWaiting); state != ticketWaiting || took != maxScanWait {
			t.Errorf("%s after %v", state, took)
		}
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if state, took := wait(code, ticketWaiting); state != ticketScanned || took != 1234*time.Millisecond {
					t.Errorf("%s after %v", state, took)
				}
			})
		}
		time.Sleep(1234 * time.Millisecond)
		if _, err := ann.see(code.ID); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		all.Go(func() {
			if state, took := wait(code, ticketScanned); state != ticketApproved || took < time.Second || took > time.Second+waitPoll {
				t.Errorf("%s after %v", state, took)
			}
		})
		time.Sleep(time.Second)
		away := *ann
		away.d = newNode(t, d)
		d.answers("approval", away.approve(code.ID, code.Number), 200, "")
		all.Wait()

		code = d.scan("b1")
		time.Sleep(scanLifetime - 10*time.Second)
		if state, took := wait(code, ticketWaiting); state != ticketExpired || took > 10*time.Second+waitPoll {
			t.Errorf("%s after %v", state, took)
		}
		code = d.scan("b1")
		stopped, cancel := context.WithCancel(ctx)
		all.Go(func() {
			if _, err := d.waitScan(stopped, screen("b1"), code.ID, ticketWaiting); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		cancel()
		all.Wait()
	})
}

// painter is a QRCodeMaker.
type painter struct {
	asked []wechat.QRCodeRequest
	fails bool
}

func (p *painter) UnlimitedQRCode(_ context.Context, appid string, in wechat.QRCodeRequest) (wechat.QRCode, error) {
	p.asked = append(p.asked, in)
	if p.fails || appid != testAppID {
		return wechat.QRCode{}, &wechat.Error{Kind: wechat.Unavailable, API: "getwxacodeunlimit", Reason: "timeout"}
	}
	return wechat.QRCode{Image: []byte("code of " + in.Scene), MediaType: "image/jpeg"}, nil
}

// TestWeChatCode: WeChat draws the ticket; where it cannot, the link serves.
func TestWeChatCode(t *testing.T) {
	d := newDesk(t, func(s *Settings) {
		s.Scan.WeChatCode, s.Scan.Page, s.Scan.EnvVersion, s.ScanCodesPerIPPerMinute = true, "pages/scan/scan", "trial", 3
	})
	brush := new(painter)
	d.qrCodes = brush
	code := d.scan("b1")
	if string(code.Image) != "code of "+code.ID || code.ImageType != "image/jpeg" || len(code.ID) > 32 ||
		brush.asked[0] != (wechat.QRCodeRequest{Scene: code.ID, Page: "pages/scan/scan", EnvVersion: "trial"}) {
		t.Errorf("%+v, asked %+v", code, brush.asked)
	}
	shown, err := d.showScan(context.Background(), screen("b1"), code.ID)
	if err != nil || !bytes.Equal(shown.Image, code.Image) {
		t.Errorf("%+v, %v", shown, err)
	}
	brush.fails = true
	code = d.scan("b2")
	if code.Image != nil || code.Link == "" {
		t.Errorf("%+v", code)
	}
	if events := d.logged.events("qr.link_instead"); len(events) != 1 || events[0]["reason"] != "wechat_timeout" || events[0]["wechat_appid"] != testAppID {
		t.Errorf("%v", events)
	}
	// Nobody has WeChat draw codes beyond the limit by reloading a page.
	brush.fails, brush.asked = false, nil
	for range 3 {
		if shown, err := d.showScan(context.Background(), screen("b2"), code.ID); err != nil || shown.Image != nil {
			t.Errorf("%+v, %v", shown, err)
		}
	}
	if len(brush.asked) != 0 {
		t.Errorf("asked %+v", brush.asked)
	}
}

// TestScanIsOff: without an app nobody scans.
func TestScanIsOff(t *testing.T) {
	d := newDesk(t, func(s *Settings) { s.Scan = Scan{} })
	_, err := d.newScan(context.Background(), screen("b1"), nil, nil)
	d.answers("a code", err, 400, InvalidRequest)
}

// TestOwnPagesScan: the issuer's own pages have no client.
func TestOwnPagesScan(t *testing.T) {
	d := newDesk(t, func(s *Settings) { s.Scan.Link = "https://shop.example/app" })
	code, err := d.newScan(context.Background(), screen("b1"), nil, nil)
	if err != nil || code.Link != "https://shop.example/app?t="+code.ID {
		t.Fatalf("%+v, %v", code, err)
	}
	view, err := d.handset("ann").see(code.Link)
	if err != nil || view.ClientID != "" || view.ClientName != "id.example.com" || view.Scopes == nil {
		t.Errorf("%+v, %v", view, err)
	}
}

// TestCorruptTicket: what the store has is not taken on trust.
func TestCorruptTicket(t *testing.T) {
	d := newDesk(t)
	id := newScanID()
	if _, err := d.store.PutState(context.Background(), storage.StateTicket, scanKey(id), []byte(`{}`), time.Minute); err != nil {
		t.Fatal(err)
	}
	_, err := d.handset("ann").see(id)
	d.answers("context", err, http.StatusInternalServerError, ServerError)
}
