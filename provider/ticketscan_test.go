package provider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat"
)

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
