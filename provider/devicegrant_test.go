package provider

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// TestDevicePolls: everything that a poll can meet.
func TestDevicePolls(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d := newDesk(t)
		ann := d.handset("ann")
		device := d.authorizeDevice("tv")

		_, err := d.post(form("grant_type", GrantDeviceCode, "client_id", "tv"))
		d.answers("without a code", err, 400, InvalidRequest)
		_, err = d.poll("tv", storage.NewToken())
		d.answers("an unknown code", err, 400, InvalidGrant)
		_, err = d.poll("radio", device.DeviceCode)
		d.answers("another client", err, 400, InvalidGrant)
		_, err = d.poll(testClient, device.DeviceCode)
		d.answers("a client without the grant", err, 400, UnauthorizedClient)

		_, err = d.poll("tv", device.DeviceCode)
		d.answers("the owner", err, 400, AuthorizationPending)
		_, err = d.poll("tv", device.DeviceCode)
		d.answers("at once again", err, 400, SlowDown)
		time.Sleep(5 * time.Second)
		_, err = d.poll("tv", device.DeviceCode)
		d.answers("after 5 s, when it must be 10", err, 400, SlowDown)
		time.Sleep(10 * time.Second)
		_, err = d.poll("tv", device.DeviceCode)
		d.answers("after 15 s", err, 400, AuthorizationPending)
		d.approveOnPhone(ann, device)
		time.Sleep(14 * time.Second)
		_, err = d.poll("tv", device.DeviceCode)
		d.answers("approved but too soon", err, 400, SlowDown)
		for range 10 {
			_, _ = d.poll("tv", device.DeviceCode)
		}
		time.Sleep(maxPace)
		if _, err = d.poll("tv", device.DeviceCode); err != nil {
			t.Errorf("a device that asked too often never gets in: %v", err)
		}

		device = d.authorizeDevice("tv")
		time.Sleep(deviceLifetime)
		_, err = d.poll("tv", device.DeviceCode)
		d.answers("an expired code", err, 400, ExpiredToken)
		time.Sleep(ticketLinger)
		_, err = d.poll("tv", device.DeviceCode)
		d.answers("long after", err, 400, InvalidGrant)

		ann = d.handset("ann")
		device = d.authorizeDevice("tv")
		d.approveOnPhone(ann, device)
		time.Sleep(deviceLifetime)
		_, err = d.poll("tv", device.DeviceCode)
		d.answers("approved and expired", err, 400, ExpiredToken)

		ann = d.handset("ann")
		device = d.authorizeDevice("tv")
		if _, err := ann.see(device.UserCode); err != nil {
			t.Fatal(err)
		}
		d.answers("a wrong ending", ann.approve(device.UserCode, "BBBB"), http.StatusConflict, WrongNumber)
		_, err = d.poll("tv", device.DeviceCode)
		d.answers("after a wrong ending", err, 400, AccessDenied)

		device = d.authorizeDevice("tv")
		d.approveOnPhone(ann, device)
		d.answers("regret", ann.deny(device.UserCode), 200, "")
		_, err = d.poll("tv", device.DeviceCode)
		d.answers("after regret", err, 400, AccessDenied)

		device = d.authorizeDevice("tv")
		d.approveOnPhone(ann, device)
		if err := d.store.SetUserDisabled(context.Background(), ann.subject, true); err != nil {
			t.Fatal(err)
		}
		_, err = d.poll("tv", device.DeviceCode)
		d.answers("a disabled user", err, 400, InvalidGrant)
	})
}

// TestDeviceCodeServesOnce: of fifty polls at once one gets tokens, which stay
// good, and none meets an error of the server.
func TestDeviceCodeServesOnce(t *testing.T) {
	d := newDesk(t)
	ann := d.handset("ann")
	device := d.authorizeDevice("tv")
	d.approveOnPhone(ann, device)
	var wins atomic.Int64
	var tokens atomic.Pointer[TokenResponse]
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			out, err := d.poll("tv", device.DeviceCode)
			if err == nil {
				wins.Add(1)
				tokens.Store(out)
			} else if e := AsError(err); e.Code != SlowDown {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if wins.Load() != 1 || !d.active(tokens.Load().AccessToken) {
		t.Errorf("%d of 50 got tokens", wins.Load())
	}
	d.answers("denial of what is done", ann.deny(device.UserCode), http.StatusConflict, TicketUsed)
}

// TestDeviceCodeOnManyNodes: nodes do not know each other's pace, and yet one
// poll gets tokens that stay good.
func TestDeviceCodeOnManyNodes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d := newDesk(t)
		device := d.authorizeDevice("tv")
		d.approveOnPhone(d.handset("ann"), device)
		var tokens []*TokenResponse
		for range 10 {
			node := newNode(t, d)
			if out, err := node.poll("tv", device.DeviceCode); err == nil {
				tokens = append(tokens, out)
			} else if AsError(err).Code != SlowDown {
				t.Error(err)
			}
		}
		if len(tokens) != 1 || !d.active(tokens[0].AccessToken) {
			t.Errorf("%d got tokens", len(tokens))
		}
	})
}

// newNode is another Provider on the same store.
func newNode(t *testing.T, d *desk) *desk {
	t.Helper()
	p, err := New(Options{
		Issuer: d.issuer, Store: d.store, Keys: d.ring, Settings: d.settings().Settings, Logger: d.log,
		Codes: d.codes, Passwords: d.passwords, Custody: d.custody,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &desk{bench: &bench{Provider: p, t: t, store: d.store, ring: d.ring}, logged: d.logged}
}

// TestDeviceAfterACrash: a server that fell between marking a ticket as done
// and redeeming it has taken nothing from the device.
func TestDeviceAfterACrash(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d := newDesk(t)
		device := d.authorizeDevice("tv")
		d.approveOnPhone(d.handset("ann"), device)
		if _, err := d.changeTicket(context.Background(), deviceKey(device.DeviceCode), func(t *ticket, now time.Time) error {
			t.finish(now)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		_, err := d.poll("tv", device.DeviceCode)
		d.answers("at once", err, 400, SlowDown)
		time.Sleep(maxPace)
		if out, err := d.poll("tv", device.DeviceCode); err != nil || !d.active(out.AccessToken) {
			t.Errorf("later: %v", err)
		}
	})
}
