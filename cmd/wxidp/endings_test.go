package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// scanIn signs a mini-program's user in with a browser by scanning, as far as
// the approval; finish takes that up and returns where it leads.
func scanIn(s *testServer, token, address string) (b *surfer, finish func() string) {
	s.t.Helper()
	b = newSurfer(s, address)
	target, _ := authorizeURL(s)
	_, page, _ := b.get(target)
	scan := scanOn(s.t, page)
	for _, form := range []url.Values{pairs("ticket", scan.link), pairs("ticket", scan.link, "number", scan.number)} {
		path := "/device/context"
		if form.Has("number") {
			path = "/device/approve"
		}
		if out := atDevices(s, path, form, bearer(token)); out.Status != http.StatusOK {
			s.t.Fatalf("%s: %v", path, out)
		}
	}
	return b, func() string {
		_, _, elsewhere := b.post(s.Issuer+scan.base+"/finish", pairs("csrf", scan.csrf))
		return elsewhere
	}
}

// deviceApproved returns how to redeem a device code that the user of a token
// has approved.
func deviceApproved(s *testServer, token string) func() answer {
	s.t.Helper()
	asked := atDevices(s, "/oauth2/device_authorization", pairs("client_id", "shop-tv", "scope", "openid profile"))
	form := pairs("ticket", asked.str("user_code"))
	if out := atDevices(s, "/device/context", form, bearer(token)); out.Status != http.StatusOK {
		s.t.Fatalf("%v", out)
	}
	form.Set("number", asked.str("user_code")[5:])
	if out := atDevices(s, "/device/approve", form, bearer(token)); out.Status != http.StatusOK {
		s.t.Fatalf("%v", out)
	}
	return func() answer {
		return s.Token(pairs("grant_type", "urn:ietf:params:oauth:grant-type:device_code", "client_id", "shop-tv", "device_code", asked.str("device_code")), phone())
	}
}

// TestThreat72UnbindEndsWhatItLetIn: a browser and a device that a WeChat user
// let in do not stay when the WeChat user is unbound, nor does what was
// approved and not taken up.
func TestThreat72UnbindEndsWhatItLetIn(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withScanning())
	account := addAccount(s, "ming")
	bound := tryBind(s, "mallory", "ming", testPassword, "scope", "openid profile device.approve")
	token := bound.str("access_token")
	if sub(t, bound) != account {
		t.Fatal("not bound")
	}
	browser, finish := scanIn(s, token, "203.0.113.8")
	if !strings.Contains(finish(), "code=") {
		t.Fatal("the browser is not signed in")
	}
	tv := deviceApproved(s, token)()
	if tv.Status != http.StatusOK {
		t.Fatalf("%v", tv)
	}
	_, late := scanIn(s, token, "203.0.113.9")
	lateDevice := deviceApproved(s, token)

	ctl(s, "users", "unbind", "username:ming", "--all")
	target, _ := authorizeURL(s)
	if _, _, elsewhere := browser.get(target + "&prompt=none"); !strings.Contains(elsewhere, "error=login_required") {
		t.Errorf("the browser is led to %q", elsewhere)
	}
	dead(s, "the mini-program", bound)
	if userInfoOK(s, tv.str("access_token")) {
		t.Error("the device is signed in")
	}
	if elsewhere := late(); strings.Contains(elsewhere, "code=") {
		t.Error("a scan that was approved before signs in")
	}
	refused(t, lateDevice(), http.StatusBadRequest, "invalid_grant")
}

// TestThreat23ConsentRevokedBeforeRedemption: what the user took back, or an
// operator ended, does not come back with a code that was on its way.
func TestThreat23ConsentRevokedBeforeRedemption(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	const scope = "openid profile offline_access"
	code := b.code(shopWeb, "alice", "scope", scope)
	b.submit(b.open("/account"), "/revoke-consent")
	if out := shopWeb.redeem(s, code); out.Status != http.StatusBadRequest || out.str("error") != "invalid_grant" {
		t.Errorf("after the consent was revoked: %v", out)
	}
	asksFor(t, "the next time", b.authorize(shopWeb.request("scope", scope)), "consent")
	tokens := b.tokens(shopWeb, "alice", "scope", scope)
	if tokens.str("refresh_token") == "" {
		t.Errorf("after a new consent: %v", tokens)
	}

	code = b.code(shopWeb, "alice", "scope", scope)
	other := b.code(otherWeb, "alice")
	ctl(s, "sessions", "revoke", "--client", "shop-web")
	if out := shopWeb.redeem(s, code); out.Status != http.StatusBadRequest || out.str("error") != "invalid_grant" {
		t.Errorf("after the client's sign-ins were ended: %v", out)
	}
	if out := otherWeb.redeem(s, other); out.Status != http.StatusOK {
		t.Errorf("at another client: %v", out)
	}
	b.tokens(shopWeb, "alice", "scope", scope)
}

// TestThreat23DeviceAfterRevocation: a device code that was approved before its
// client's sign-ins were ended gets nothing.
func TestThreat23DeviceAfterRevocation(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withDevices())
	token := signIn(s, "ann", "scope", "openid device.approve").str("access_token")
	before := deviceApproved(s, token)
	ctl(s, "sessions", "revoke", "--client", "shop-tv")
	refused(t, before(), http.StatusBadRequest, "invalid_grant")
	time.Sleep(5 * time.Millisecond) // times of approval are milliseconds
	if out := deviceApproved(s, token)(); out.Status != http.StatusOK {
		t.Errorf("approved afterwards: %v", out)
	}
}

// TestNewestSignInIsShown: no number of older sign-ins hides a stranger's from
// the account page, and taking a consent back reaches that one, too.
func TestNewestSignInIsShown(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	const scope = "openid profile offline_access"
	id := verified(s, shopWeb, b.tokens(shopWeb, "alice", "scope", scope).str("id_token"))["sub"].(string)
	parallel(8, func(w int) {
		for i := range 130 {
			res, err := s.parts.store.Redeem(context.Background(), storage.Redemption{
				Code: storage.Digest{1, byte(i), byte(w)}, ClientID: "shop-spa", Idle: time.Hour, Absolute: time.Hour, Remember: time.Hour,
				Grant: &storage.Grant{UserID: id, ClientID: "shop-spa", Scope: []string{"openid"}, Audience: []string{testAudience}},
			})
			if err != nil || res.Verdict != storage.RedeemOK {
				t.Error(res.Verdict, err)
			}
		}
	})
	last := newBrowser(s).tokens(shopWeb, "alice", "scope", scope)
	page := string(b.open("/account").Body)
	at, older := strings.Index(page, verified(s, shopWeb, last.str("id_token"))["sid"].(string)), strings.Index(page, "shop-spa")
	if at < 0 || older >= 0 && older < at {
		t.Errorf("the newest sign-in is at %d of the page, another at %d", at, older)
	}
	b.submit(b.open("/account"), "/revoke-consent")
	if userInfoOK(s, last.str("access_token")) {
		t.Error("the newest sign-in outlives the consent")
	}
}

// TestConsentStaysSmall: claims without end that were asked for do not keep a
// user from agreeing to anything else.
func TestConsentStaysSmall(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	b := newBrowser(s)
	var id string
	for i := range 12 {
		claims := map[string]any{}
		for j := range 60 {
			claims[fmt.Sprintf("%03d-%02d-%s", i, j, strings.Repeat("x", 110))] = nil
		}
		raw, err := json.Marshal(map[string]any{"userinfo": claims})
		if err != nil {
			t.Fatal(err)
		}
		tokens := b.tokens(shopWeb, "alice", "prompt", "consent", "claims", string(raw))
		id = verified(s, shopWeb, tokens.str("id_token"))["sub"].(string)
	}
	list, err := s.parts.store.Consents(t.Context(), id)
	if err != nil || len(list) != 1 || len(storage.EncodeConsents(list)) > 2*storage.MaxConsentSize {
		t.Fatalf("%d consents of %d bytes, %v", len(list), len(storage.EncodeConsents(list)), err)
	}
	if v := b.through(b.authorize(shopWeb.request()), "alice"); !v.callback().Has("code") {
		t.Errorf("the scopes are asked for again: %v", v)
	}
	b.tokens(otherWeb, "alice")
}
