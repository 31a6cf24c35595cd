package main

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// withDevices lets shop-mini approve devices and adds a television.
func withDevices() serverOption {
	return withConfig(func(yaml string) string {
		yaml = strings.Replace(yaml, "scopes: [openid, profile, phone, wechat, roles, external_id, orders.read]",
			"scopes: [openid, profile, phone, wechat, roles, external_id, orders.read, device.approve]", 1)
		return yaml + `
  - client_id: shop-tv
    name: Shop TV
    type: public
    grant_types: ["urn:ietf:params:oauth:grant-type:device_code", refresh_token]
    id_token_signed_response_alg: ES256
    scopes: [openid, profile]
    default_scopes: [openid]
    audience: [` + testAudience + `]
`
	})
}

// atDevices posts from one place, where device and phone are.
func atDevices(s *testServer, path string, form url.Values, edits ...func(*http.Request)) answer {
	s.t.Helper()
	home := from(netip.MustParseAddr("203.0.113.7"))
	return s.Do(http.MethodPost, s.Issuer+path, form, append([]func(*http.Request){home}, edits...)...)
}

// TestDeviceFlow is RFC 8628 with a mini-program for the second screen.
func TestDeviceFlow(t *testing.T) {
	s := startServer(t, manyPhones(), withDevices())
	asked := atDevices(s, "/oauth2/device_authorization", pairs("client_id", "shop-tv", "scope", "openid profile"), header("User-Agent", "Mozilla/5.0 (Linux; Android 12) Chrome/120"))
	if asked.Status != http.StatusOK || asked.Header.Get("Cache-Control") != "no-store" || asked.str("verification_uri") != s.Issuer+"/device" {
		t.Fatalf("%v", asked)
	}
	poll := func() answer {
		return s.Token(pairs("grant_type", "urn:ietf:params:oauth:grant-type:device_code", "client_id", "shop-tv", "device_code", asked.str("device_code")), phone())
	}
	refused(t, poll(), http.StatusBadRequest, "authorization_pending")
	refused(t, poll(), http.StatusBadRequest, "slow_down")
	if n := len(s.Logs.Events("token.denied")); n != 0 {
		t.Errorf("%d log lines about a device that waits", n)
	}
	token := signIn(s, "ann", "scope", "openid device.approve").str("access_token")
	ticket := "ticket=" + url.QueryEscape(asked.str("verification_uri_complete"))
	form, err := url.ParseQuery(ticket)
	if err != nil {
		t.Fatal(err)
	}
	seen := atDevices(s, "/device/context", form, bearer(token))
	if seen.Status != http.StatusOK || seen.str("kind") != "device" || seen.str("client_name") != "Shop TV" || seen.str("browser") != "Chrome, Android" || seen.JSON["number_entry"] != false {
		t.Fatalf("%v", seen)
	}
	refused(t, atDevices(s, "/device/approve", form, bearer(token)), http.StatusBadRequest, "invalid_request")
	form.Set("number", asked.str("user_code")[5:])
	if out := atDevices(s, "/device/approve", form, bearer(token)); out.Status != http.StatusOK || out.JSON["approved"] != true || out.str("client_name") != "Shop TV" {
		t.Fatalf("%v", out)
	}
	refused(t, atDevices(s, "/device/approve", form, bearer(token)), http.StatusConflict, "ticket_used")

	// The page of the issuer knows the code, too, and that it has been used.
	page := s.Do(http.MethodGet, asked.str("verification_uri_complete"), nil, phone())
	if page.Status != http.StatusOK || !strings.Contains(string(page.Body), asked.str("user_code")) {
		t.Errorf("%v", page)
	}
}

// TestDeviceDenied: the person turns the device down.
func TestDeviceDenied(t *testing.T) {
	s := startServer(t, manyPhones(), withDevices())
	asked := atDevices(s, "/oauth2/device_authorization", pairs("client_id", "shop-tv"))
	token := signIn(s, "ann", "scope", "device.approve").str("access_token")
	form := pairs("ticket", strings.ToLower(asked.str("user_code")))
	if out := atDevices(s, "/device/deny", form, bearer(token)); out.Status != http.StatusOK || out.JSON["approved"] != false {
		t.Errorf("%v", out)
	}
	refused(t, s.Token(pairs("grant_type", "urn:ietf:params:oauth:grant-type:device_code", "client_id", "shop-tv", "device_code", asked.str("device_code")), phone()),
		http.StatusBadRequest, "access_denied")
	if denied := s.Logs.Events("qr.denied"); len(denied) != 1 || denied[0]["reason"] != "declined" {
		t.Errorf("%v", denied)
	}
}

// TestThreat58TicketGuessingByHTTP: a phone that guesses is stopped, with the
// limits of production.
func TestThreat58TicketGuessingByHTTP(t *testing.T) {
	s := startServer(t, manyPhones(), withDevices())
	token := signIn(s, "eve", "scope", "device.approve").str("access_token")
	for range 20 {
		refused(t, atDevices(s, "/device/context", pairs("ticket", "BCDF-GHJK"), bearer(token)), http.StatusGone, "ticket_expired")
	}
	out := atDevices(s, "/device/context", pairs("ticket", "BCDF-GHJK"), bearer(token))
	refused(t, out, http.StatusTooManyRequests, "temporarily_unavailable")
	if out.Header.Get("Retry-After") == "" {
		t.Errorf("%v", out.Header)
	}
}

// TestDeviceEndpointsRefuse: what is no such request.
func TestDeviceEndpointsRefuse(t *testing.T) {
	s := startServer(t, manyPhones(), withDevices())
	for _, path := range []string{"/device/context", "/device/approve", "/device/deny"} {
		refused(t, atDevices(s, path, pairs("ticket", "BCDF-GHJK")), http.StatusUnauthorized, "invalid_token")
		refused(t, atDevices(s, path, pairs("ticket", "BCDF-GHJK"), bearer(signIn(s, "ann").str("access_token"))), http.StatusForbidden, "insufficient_scope")
		if out := s.Do(http.MethodGet, s.Issuer+path, nil, phone()); out.Status != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %v", path, out)
		}
	}
	refused(t, atDevices(s, "/oauth2/device_authorization", pairs("client_id", testClient)), http.StatusBadRequest, "unauthorized_client")
}
