package provider

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// TestDeviceFlow is RFC 8628 from end to end, approved by a mini-program.
func TestDeviceFlow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d := newDesk(t)
		ann := d.handset("ann")
		time.Sleep(time.Minute) // the sign-in at the mini-program is a while ago
		device := d.authorizeDevice("tv", "scope", "openid profile openid")
		if len(device.DeviceCode) != 43 || !regexp.MustCompile(`^[`+userCodeAlphabet+`]{4}-[`+userCodeAlphabet+`]{4}$`).MatchString(device.UserCode) ||
			device.VerificationURI != testIssuer+"/device" || device.VerificationURIComplete != testIssuer+"/device?user_code="+device.UserCode ||
			device.ExpiresIn != 600 || device.Interval != 5 {
			t.Errorf("%+v", device)
		}
		_, err := d.poll("tv", device.DeviceCode)
		d.answers("the first poll", err, 400, AuthorizationPending)
		time.Sleep(5 * time.Second)

		view, err := ann.see(device.UserCode)
		if err != nil || view.Kind != ticketDevice || view.ClientName != "TV" || view.ExpiresIn != 595 || !slices.Equal(view.Scopes, []string{"openid", "profile"}) {
			t.Errorf("%+v, %v", view, err)
		}
		checkChoices(t, device.UserCode[5:], view.Choices)
		_, err = d.poll("tv", device.DeviceCode)
		d.answers("a poll meanwhile", err, 400, AuthorizationPending)
		time.Sleep(5 * time.Second)
		d.answers("approval", ann.approve(strings.ToLower(device.UserCode), strings.ToLower(device.UserCode[5:])), 200, "")

		tokens, err := d.poll("tv", device.DeviceCode)
		if err != nil {
			t.Fatal(err)
		}
		if tokens.Subject != ann.subject || tokens.Scope != "openid profile" || tokens.RefreshToken == "" || tokens.IDToken == "" || !d.active(tokens.AccessToken) {
			t.Errorf("%+v", tokens)
		}
		id, _ := storage.ParseFamilyID(tokens.FamilyID)
		family, err := d.store.Family(context.Background(), id)
		if err != nil || !family.LoginID.IsZero() || family.ClientID != "tv" || !slices.Equal(family.AMR, []string{"wechat"}) ||
			!slices.Equal(family.Audience, []string{"api", "films"}) || time.Since(family.AuthTime) < time.Minute {
			t.Errorf("%+v, %v", family, err)
		}
		refreshed, err := d.post(form("grant_type", GrantRefreshToken, "client_id", "tv", "refresh_token", tokens.RefreshToken))
		if err != nil || refreshed.Subject != ann.subject {
			t.Errorf("refresh: %v", err)
		}
		if approved := d.logged.events("qr.approved"); len(approved) != 1 || approved[0]["kind"] != "device" || approved[0]["client_id"] != "tv" {
			t.Errorf("%v", approved)
		}
		// The code has served; who presents it again has stolen it or lost it.
		time.Sleep(5 * time.Second)
		_, err = d.poll("tv", device.DeviceCode)
		d.answers("the code again", err, 400, InvalidGrant)
		if d.active(refreshed.AccessToken) {
			t.Error("a device code that came again left its tokens alive")
		}
	})
}

// TestDeviceApprovedInBrowser: the person types the code at the issuer.
func TestDeviceApprovedInBrowser(t *testing.T) {
	d := newDesk(t)
	ann := d.handset("ann")
	device := d.authorizeDevice("radio", "audience", "api")
	for _, typed := range []string{device.UserCode, strings.ToLower(device.UserCode), strings.ReplaceAll(device.UserCode, "-", ""), " " + device.UserCode + " "} {
		found, err := d.deviceByUserCode(context.Background(), screen("b1"), typed)
		if err != nil || found.Client.ID != "radio" || found.UserCode != device.UserCode || found.Place != "192.0.2.*" || !slices.Equal(found.Scope, []string{"openid"}) ||
			time.Until(found.ExpiresAt) < 9*time.Minute || time.Since(found.StartedAt) > time.Minute {
			t.Errorf("%q: %+v, %v", typed, found, err)
		}
	}
	d.approveInBrowser(ann, device)
	_, err := d.deviceByUserCode(context.Background(), screen("b1"), device.UserCode)
	d.answers("the code again", err, http.StatusNotFound, NotFound)
	tokens, err := d.poll("radio", device.DeviceCode)
	if err != nil || tokens.Subject != ann.subject || tokens.RefreshToken != "" {
		t.Fatalf("%+v, %v", tokens, err)
	}
	id, _ := storage.ParseFamilyID(tokens.FamilyID)
	if family, err := d.store.Family(context.Background(), id); err != nil || !slices.Equal(family.AMR, []string{"pwd"}) || time.Since(family.AuthTime) < time.Hour {
		t.Errorf("%+v, %v", family, err)
	}

	device = d.authorizeDevice("radio")
	found, err := d.deviceByUserCode(context.Background(), screen("b1"), device.UserCode)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.refuseDevice(context.Background(), screen("b1"), found.Key, ann.subject); err != nil {
		t.Fatal(err)
	}
	_, err = d.poll("radio", device.DeviceCode)
	d.answers("after a refusal", err, 400, AccessDenied)
	_, err = d.poll("radio", device.DeviceCode)
	d.answers("and again", err, 400, AccessDenied)

	// A scan cannot be decided as a device.
	code := d.scan("b1")
	err = d.approveDevice(context.Background(), screen("b1"), scanKey(code.ID), approver{ID: ann.subject})
	d.answers("a scan as a device", err, http.StatusGone, TicketExpired)
	d.state("b1", code, ticketWaiting)
}

// TestDeviceAuthorizationRefused: the same checks as at the token endpoint.
func TestDeviceAuthorizationRefused(t *testing.T) {
	d := newDesk(t)
	long := strings.TrimSpace(strings.Repeat("openid ", maxListed+1))
	for name, row := range map[string]struct {
		form   []string
		status int
		code   Code
	}{
		"no client":          {nil, 401, InvalidClient},
		"unknown client":     {[]string{"client_id", "nobody"}, 401, InvalidClient},
		"wrong secret":       {[]string{"client_id", "api", "client_secret", "wrong"}, 401, InvalidClient},
		"grant not allowed":  {[]string{"client_id", testClient}, 400, UnauthorizedClient},
		"foreign scope":      {[]string{"client_id", "tv", "scope", "openid phone"}, 400, InvalidScope},
		"too many scopes":    {[]string{"client_id", "tv", "scope", long}, 400, InvalidScope},
		"foreign audience":   {[]string{"client_id", "tv", "audience", "bank"}, 400, InvalidTarget},
		"foreign resource":   {[]string{"client_id", "tv", "resource", "bank"}, 400, InvalidTarget},
		"too many audiences": {[]string{"client_id", "tv", "audience", long}, 400, InvalidTarget},
		"client_id twice":    {[]string{"client_id", "tv", "client_id", "tv"}, 400, InvalidRequest},
	} {
		_, err := d.DeviceAuthorization(context.Background(), request(PathDeviceAuthorization, form(row.form...)))
		d.answers(name, err, row.status, row.code)
	}
	_, err := d.DeviceAuthorization(context.Background(), request(PathDeviceAuthorization+"?client_id=tv", form("client_id", "tv")))
	d.answers("parameters in the URL", err, 400, InvalidRequest)
}

// TestThreat28DeviceCredentials: none of a device's credentials serves in
// another's place, and each still works in its own.
func TestThreat28DeviceCredentials(t *testing.T) {
	d := newDesk(t, func(s *Settings) {
		for i := range s.Clients {
			if s.Clients[i].ID == "tv" {
				s.Clients[i].GrantTypes = append(s.Clients[i].GrantTypes, GrantAuthorizationCode)
			}
		}
	})
	ann := d.handset("ann")
	device, code := d.authorizeDevice("tv"), d.scan("b1")
	d.approveOnPhone(ann, device)
	for name, err := range map[string]error{
		"device_code as refresh token": second(d.post(form("grant_type", GrantRefreshToken, "client_id", "tv", "refresh_token", device.DeviceCode))),
		"device_code as code":          second(d.post(form("grant_type", GrantAuthorizationCode, "client_id", "tv", "code", device.DeviceCode))),
		"user_code as device_code":     second(d.poll("tv", device.UserCode)),
		"scan as device_code":          second(d.poll("tv", code.ID)),
		"access token as device_code":  second(d.poll("tv", ann.token)),
	} {
		d.answers(name, err, 400, InvalidGrant)
	}
	for name, ticket := range map[string]string{"device_code": device.DeviceCode, "access token": ann.token, "cookie": "b1"} {
		_, err := ann.see(ticket)
		d.answers(name+" as ticket", err, http.StatusGone, TicketExpired)
	}
	_, err := d.scanState(context.Background(), screen("b1"), device.DeviceCode)
	d.answers("device_code as scan", err, http.StatusNotFound, NotFound)
	if d.active(device.DeviceCode) {
		t.Error("device_code as access token")
	}
	if _, err := d.poll("tv", device.DeviceCode); err != nil {
		t.Errorf("the device code in its own place: %v", err)
	}
	if _, err := ann.see(code.ID); err != nil {
		t.Errorf("the scan in its own place: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestThreat58UserCodeGuessing: at the page, too.
func TestThreat58UserCodeGuessing(t *testing.T) {
	d := newDesk(t, func(s *Settings) { s.TicketMissesPerIPPerMinute = 20 })
	device := d.authorizeDevice("tv")
	for i := range 20 {
		_, err := d.deviceByUserCode(context.Background(), screen("b1"), []string{newUserCode(), "nonsense"}[i%2])
		d.answers("a guess", err, http.StatusNotFound, NotFound)
	}
	_, err := d.deviceByUserCode(context.Background(), screen("b2"), device.UserCode)
	d.answers("one guess too many", err, http.StatusTooManyRequests, TemporarilyUnavailable)
	_, err = d.deviceByUserCode(context.Background(), from(screen("b1"), "198.51.100.1"), device.UserCode)
	d.answers("from elsewhere", err, 200, "")
}

// TestDeviceOfARemovedClient: a client that is configured no more gets nothing.
func TestDeviceOfARemovedClient(t *testing.T) {
	d := newDesk(t)
	device := d.authorizeDevice("tv")
	settings := d.settings().Settings
	settings.Clients = slices.DeleteFunc(slices.Clone(settings.Clients), func(c Client) bool { return c.ID == "tv" })
	if err := d.Reload(settings); err != nil {
		t.Fatal(err)
	}
	_, err := d.deviceByUserCode(context.Background(), screen("b1"), device.UserCode)
	d.answers("its user code", err, http.StatusNotFound, NotFound)
	_, err = d.poll("tv", device.DeviceCode)
	d.answers("its poll", err, 401, InvalidClient)
}

// TestPacesStayBounded: devices that ask no more are forgotten, and the table
// never grows beyond its size.
func TestPacesStayBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		desk := newTicketDesk()
		for i := range maxPaces + 100 {
			desk.tooSoon(digest("test", string(rune(i))))
		}
		if len(desk.paces) > maxPaces {
			t.Errorf("%d paces", len(desk.paces))
		}
		time.Sleep(3 * maxPace)
		desk.tooSoon(digest("test"))
		if len(desk.paces) != 1 {
			t.Errorf("%d paces after all went", len(desk.paces))
		}
	})
}
