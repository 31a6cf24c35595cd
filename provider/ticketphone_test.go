package provider

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

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
