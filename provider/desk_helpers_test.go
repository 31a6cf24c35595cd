package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// desk is a bench where people can scan, with what it logged.
type desk struct {
	*bench
	logged *lines
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

type deviceGranted struct {
	DeviceCode              string `json:"device_code"`
	UserCode                string `json:"user_code"`
	VerificationURI         string `json:"verification_uri"`
	VerificationURIComplete string `json:"verification_uri_complete"`
	ExpiresIn               int    `json:"expires_in"`
	Interval                int    `json:"interval"`
}

func (d *desk) authorizeDevice(client string, nameValue ...string) deviceGranted {
	d.t.Helper()
	body, err := d.DeviceAuthorization(context.Background(), request(PathDeviceAuthorization, form(append(nameValue, "client_id", client)...)))
	if err != nil {
		d.t.Fatalf("device authorization: %v", err)
	}
	var out deviceGranted
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&out); err != nil {
		d.t.Fatalf("%s: %v", body, err)
	}
	return out
}

func (d *desk) poll(client, deviceCode string) (*TokenResponse, error) {
	return d.post(form("grant_type", GrantDeviceCode, "client_id", client, "device_code", deviceCode))
}

// approveOnPhone scans and approves a device.
func (d *desk) approveOnPhone(h *handset, device deviceGranted) {
	d.t.Helper()
	if _, err := h.see(device.VerificationURIComplete); err != nil {
		d.t.Fatalf("context: %v", err)
	}
	if err := h.approve(device.UserCode, device.UserCode[5:]); err != nil {
		d.t.Fatalf("approval: %v", err)
	}
}

// approveInBrowser is what the page does once a person has typed the code.
func (d *desk) approveInBrowser(h *handset, device deviceGranted) {
	d.t.Helper()
	found, err := d.deviceByUserCode(context.Background(), screen("b1"), strings.ToLower(device.UserCode))
	if err != nil {
		d.t.Fatalf("user code: %v", err)
	}
	by := approver{ID: h.subject, AuthTime: time.Now().Add(-time.Hour).Unix(), AMR: []string{"pwd"}}
	if err := d.approveDevice(context.Background(), screen("b1"), found.Key, by); err != nil {
		d.t.Fatalf("approval: %v", err)
	}
}
