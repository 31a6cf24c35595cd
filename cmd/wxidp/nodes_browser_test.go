package main

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// startWebCluster is startCluster with webClients and the account alice.
func startWebCluster(t testing.TB, n int, options ...serverOption) *cluster {
	t.Helper()
	c := startCluster(t, n, append([]serverOption{appending(webClients)}, options...)...)
	addAccount(c.nodes[0], "alice")
	return c
}

// moved is a page as a balancer would let another node answer for it.
func moved(v visit, to *testServer) visit {
	url := *v.URL
	url.Host = strings.TrimPrefix(to.Issuer, "http://")
	v.URL = &url
	return v
}

// TestNodesBrowser: every step of a sign-in in a browser may come to another
// node.
func TestNodesBrowser(t *testing.T) {
	t.Parallel()
	c := startWebCluster(t, 2)
	a, b := c.nodes[0], c.nodes[1]
	person := newBrowser(a)
	v := person.authorize(shopWeb.request())
	asksFor(t, "begun on one node", v, "signin")
	v = person.password(moved(v, b), "alice", testPassword)
	asksFor(t, "password at another", v, "consent")
	v = person.submit(moved(v, a), "/allow")
	code := v.callback().Get("code")
	tokens := shopWeb.redeem(b, code)
	if tokens.Status != http.StatusOK {
		t.Fatalf("%v: %v", v, tokens)
	}
	verified(c.testServer, shopWeb, tokens.str("id_token"))

	// The login session is known everywhere, and what was agreed to.
	for _, node := range c.nodes {
		person.s = node
		if v := person.authorize(shopWeb.request("prompt", "none")); v.callback().Get("code") == "" {
			t.Errorf("not signed in on both: %v", v)
		}
	}
	// A pushed request is one's at either node, once.
	uri := shopWeb.push(a).str("request_uri")
	person.s = b
	v = person.authorize(pairs("client_id", shopWeb.id, "request_uri", uri))
	if v.callback().Get("code") == "" {
		t.Errorf("a request that was pushed to the other node: %v", v)
	}
	person.s = a
	errorPage(t, "the request_uri again at the other node", person.authorize(pairs("client_id", shopWeb.id, "request_uri", uri)), http.StatusBadRequest)

	// Replay at the other node ends what the code began.
	refused(t, shopWeb.redeem(a, code), http.StatusBadRequest, "invalid_grant")
	for _, node := range c.nodes {
		if userInfoOK(node, tokens.str("access_token")) {
			t.Error("the access token of a replayed code is good")
		}
	}

	// Signed out at one, signed out at both.
	person.s = b
	person.submit(person.open("/account"), "/sign-out")
	for _, node := range c.nodes {
		person.s = node
		if v := person.authorize(shopWeb.request("prompt", "none")); v.callback().Get("error") != "login_required" {
			t.Errorf("signed out on the other node: %v", v)
		}
	}
}

// TestThreat10NodesParallelRedemption: of fifty who present a code at once, at
// two nodes, one gets tokens.
func TestThreat10NodesParallelRedemption(t *testing.T) {
	t.Parallel()
	c := startWebCluster(t, 2, withConfig(func(yaml string) string { return "rate_limits: { disabled: true }\n" + yaml }))
	person := newBrowser(c.nodes[0])
	rounds := 200
	if testing.Short() {
		rounds = 10
	}
	for round := range rounds {
		person.s = c.at(round)
		code := person.code(shopSPA, "alice")
		var won, lost atomic.Int64
		var failed failures
		parallel(50, func(i int) {
			out, err := shopSPA.tryRedeem(c.at(i), code)
			switch {
			case err != nil:
				failed.add(err.Error())
			case out.Status == http.StatusOK:
				won.Add(1)
			case out.Status == http.StatusBadRequest && out.str("error") == "invalid_grant":
				lost.Add(1)
			default:
				failed.add(out.String())
			}
		})
		failed.report(t, fmt.Sprintf("round %d", round))
		if won.Load() != 1 || lost.Load() != 49 {
			t.Fatalf("round %d: %d got tokens, %d were refused", round, won.Load(), lost.Load())
		}
	}
	if n := len(families(c.nodes[0])); n != rounds {
		t.Errorf("%d sign-ins after %d codes", n, rounds)
	}
}

// TestNodesScan: a code that one node shows is scanned and approved at another,
// and the page that waits at the first learns of it.
func TestNodesScan(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withScanning())
	a, b := c.nodes[0], c.nodes[1]
	token := signIn(b, "ann", "scope", "openid device.approve").str("access_token")
	browser := newSurfer(a, "203.0.113.8")
	target, verifier := authorizeURL(a)
	_, page, _ := browser.get(target)
	scan := scanOn(t, page)

	events, err := http.NewRequest(http.MethodGet, a.Issuer+scan.base+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	browser.home(events)
	stream, err := browser.http.Do(events)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	heard := func(want string) {
		t.Helper()
		begin := time.Now()
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if text != `{"state":"`+want+`"}` {
					t.Errorf("heard %s, want %s", text, want)
				}
				took := time.Since(begin)
				t.Logf("the page heard %s after %v", want, took.Round(time.Millisecond))
				if took > 10*time.Second {
					t.Errorf("the page heard %s only when its wait was over", want)
				}
				return
			}
		}
		t.Fatalf("the stream ended before %s", want)
	}
	heard("waiting")
	if seen := atDevices(b, "/device/context", pairs("ticket", scan.link), bearer(token)); seen.Status != http.StatusOK {
		t.Fatal(seen)
	}
	heard("scanned")
	if out := atDevices(b, "/device/approve", pairs("ticket", scan.link, "number", scan.number), bearer(token)); out.Status != http.StatusOK {
		t.Fatal(out)
	}
	heard("approved")

	// Whoever finishes it, at both nodes at once, finishes it once.
	browser.s = b
	_, _, elsewhere := browser.post(b.Issuer+scan.base+"/finish", pairs("csrf", scan.csrf))
	code := part(t, elsewhere, `[?&]code=([^&]+)`)
	tokens := a.Token(pairs("grant_type", "authorization_code", "code", code, "redirect_uri", "https://shop.example/callback",
		"code_verifier", verifier), basic("shop-web", "canary-Web0f3a9cQx81mVt5Wd0Kz7Rb2Lc9Pn4"), phone())
	if tokens.Status != http.StatusOK {
		t.Fatal(tokens)
	}
}

// TestNodesDevice: a device asks one node, its person approves at another, and
// of many polls at both one gets the tokens.
func TestNodesDevice(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withDevices())
	a, b := c.nodes[0], c.nodes[1]
	token := signIn(b, "ann", "scope", "openid device.approve").str("access_token")
	asked := atDevices(a, "/oauth2/device_authorization", pairs("client_id", "shop-tv", "scope", "openid profile"))
	form := pairs("ticket", asked.str("user_code"))
	if out := atDevices(b, "/device/context", form, bearer(token)); out.Status != http.StatusOK {
		t.Fatal(out)
	}
	form.Set("number", asked.str("user_code")[5:])
	if out := atDevices(b, "/device/approve", form, bearer(token)); out.Status != http.StatusOK {
		t.Fatal(out)
	}
	refused(t, atDevices(a, "/device/approve", form, bearer(token)), http.StatusConflict, "ticket_used")
	var won atomic.Int64
	parallel(2, func(i int) {
		out, err := c.at(i).try(http.MethodPost, c.at(i).Issuer+"/oauth2/token", pairs("grant_type", "urn:ietf:params:oauth:grant-type:device_code",
			"client_id", "shop-tv", "device_code", asked.str("device_code")), phone())
		switch {
		case err != nil:
			t.Error(err)
		case out.Status == http.StatusOK:
			won.Add(1)
		case out.Status != http.StatusBadRequest:
			t.Errorf("%v", out)
		}
	})
	if won.Load() != 1 {
		t.Errorf("%d polls got tokens", won.Load())
	}
}
