package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxidp/wxidp/wechat/simulator"
)

// TestNodesEndings: whatever was acknowledged to have ended on one node has
// ended for every request that begins later on another one.
func TestNodesEndings(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	a, b := c.nodes[0], c.nodes[1]
	for _, test := range []struct {
		name string
		end  func(s *testServer, tokens answer)
	}{
		{"its refresh token is revoked", func(s *testServer, tokens answer) {
			if out := revoke(s, tokens.str("refresh_token")); out.Status != http.StatusOK {
				t.Fatal(out)
			}
		}},
		{"the user is disabled", func(s *testServer, tokens answer) { ctl(s, "users", "disable", sub(t, tokens)) }},
		{"the operator ends it", func(s *testServer, tokens answer) {
			ctl(s, "sessions", "revoke", claims(t, tokens.str("access_token"))["sid"].(string))
		}},
		{"the operator ends all of the client", func(s *testServer, _ answer) { ctl(s, "sessions", "revoke", "--client", testClient) }},
		{"the user is erased", func(s *testServer, tokens answer) { ctl(s, "users", "erase", sub(t, tokens), "--yes") }},
	} {
		for i, user := range []string{"alice", "bob"} { // begun on either, ended on the other
			here, there := c.at(i), c.at(i+1)
			first := signIn(here, user)
			signedIn(there, "just begun on the other node", first)
			if !there.Active(first.str("access_token")) {
				t.Fatal("introspection on the other node")
			}
			next := refresh(there, first.str("refresh_token"))
			if next.Status != http.StatusOK {
				t.Fatal(next)
			}
			signedIn(here, "refreshed on the other node", next)
			test.end(here, next)
			dead(there, test.name, next)
			dead(here, test.name, next)
			if test.name == "the user is disabled" {
				ctl(there, "users", "enable", sub(t, next))
			}
		}
	}

	// An access token alone.
	tokens := signIn(a, "carol")
	if out := revoke(a, tokens.str("access_token")); out.Status != http.StatusOK {
		t.Fatal(out)
	}
	if b.Active(tokens.str("access_token")) || userInfoOK(b, tokens.str("access_token")) {
		t.Error("a revoked access token is good on the other node")
	}
	if out := refresh(b, tokens.str("refresh_token")); out.Status != http.StatusOK {
		t.Errorf("its sign-in has ended, too: %v", out)
	}
}

// TestNodesEndingsInARace: revocations on one node, refreshes and requests on
// the other meanwhile.
func TestNodesEndingsInARace(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	for round := range 10 {
		token := signIn(c.at(round), "alice").str("refresh_token")
		acknowledged := make(chan struct{})
		go func() {
			defer close(acknowledged)
			if out, err := c.at(round).try(http.MethodPost, c.at(round).Issuer+"/oauth2/revoke", pairs("client_id", testClient, "token", token), phone()); err != nil || out.Status != http.StatusOK {
				t.Errorf("revocation: %v, %v", out, err)
			}
		}()
		var failed failures
		parallel(8, func(i int) {
			node, last := c.at(i), token
			for over := false; ; {
				select {
				case <-acknowledged:
					over = true
				default:
				}
				out, err := node.try(http.MethodPost, node.Issuer+"/oauth2/token", refreshForm(last), phone())
				switch {
				case err != nil:
					failed.add(err.Error())
					return
				case over && (out.Status != http.StatusBadRequest || out.str("error") != "invalid_grant"):
					failed.add("after the revocation was acknowledged: " + out.String())
					return
				case over:
					return
				case out.Status == http.StatusOK:
					last = out.str("refresh_token")
				}
			}
		})
		failed.report(t, "refreshes during a revocation")
	}
}

// TestNodesClientRemoved: a change of every node's configuration acts soon.
func TestNodesClientRemoved(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	tokens := signIn(c.nodes[0], "alice")
	before, after := "client_id: "+testClient, "client_id: another-mini"
	for _, node := range c.nodes {
		node.editConfig(before, after)
	}
	soonTrue(t, "the client is gone on all nodes", func() bool {
		for _, node := range c.nodes {
			if userInfoOK(node, tokens.str("access_token")) {
				return false
			}
		}
		return true
	})
	c.reload(after, before)
	for _, node := range c.nodes {
		signedIn(node, "the client is back", tokens)
	}
}

// TestNodesJSCodeOnce: a js_code that several nodes get at once reaches WeChat
// once.
func TestNodesJSCodeOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	for round := range 20 {
		before := c.Sim.RequestCount()
		code := c.Code(testAppID, fmt.Sprintf("user%d", round%3))
		var won atomic.Int64
		var failed failures
		parallel(8, func(i int) {
			node := c.at(i)
			out, err := node.try(http.MethodPost, node.Issuer+"/oauth2/token", signInForm(code), phone())
			switch {
			case err == nil && out.Status == http.StatusOK:
				won.Add(1)
			case err != nil || out.Status != http.StatusBadRequest || out.str("error") != "invalid_grant":
				failed.add(fmt.Sprint(out, err))
			}
		})
		failed.report(t, "one js_code at two nodes")
		if calls := c.Sim.RequestCount() - before; won.Load() != 1 || calls != 1 {
			t.Fatalf("round %d: %d sign-ins, %d calls to WeChat", round, won.Load(), calls)
		}
	}
	if n := countUsers(c.nodes[0]); n != 3 {
		t.Errorf("%d users of three people", n)
	}
}

// TestNodesFirstSignIns: a person who first appears at several nodes at once is
// one user.
func TestNodesFirstSignIns(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	for round := range 10 {
		user := fmt.Sprintf("new%d", round)
		subs := make([]string, 8)
		var failed failures
		parallel(len(subs), func(i int) {
			out, err := c.at(i).signIn(testClient, testAppID, user, phone())
			if err != nil || out.Status != http.StatusOK {
				failed.add(fmt.Sprint(out, err))
				return
			}
			subs[i] = subOf(out.str("access_token"))
		})
		failed.report(t, "first sign-ins at once")
		if distinct(subs) != 1 {
			t.Errorf("one person is %d users", distinct(subs))
		}
	}
}

// TestThreat20NodesParallelRefresh: fifty refreshes of one token at once, at
// two nodes, all succeed with one successor.
func TestThreat20NodesParallelRefresh(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	token := signIn(c.nodes[0], "alice").str("refresh_token")
	for range 5 {
		successors, access := make([]string, 50), make([]string, 50)
		parallel(50, func(i int) {
			node := c.at(i)
			out, err := node.try(http.MethodPost, node.Issuer+"/oauth2/token", refreshForm(token), phone())
			if err != nil || out.Status != http.StatusOK {
				t.Errorf("refresh: %v %v", out, err)
			}
			successors[i], access[i] = out.str("refresh_token"), out.str("access_token")
		})
		if distinct(successors) != 1 || distinct(access) != 50 || successors[0] == token {
			t.Fatalf("%d successors and %d access tokens", distinct(successors), distinct(access))
		}
		for i, accessToken := range access {
			if !userInfoOK(c.at(i+1), accessToken) {
				t.Fatal("an access token of a parallel refresh is inactive on the other node")
			}
		}
		token = successors[0]
	}
	if n := len(c.events("token.reuse_detected")); n != 0 {
		t.Errorf("an honest client was taken for a thief %d times", n)
	}
}

// TestThreat18NodesGrace: an answer that was lost on one node costs nothing on
// the other, and reuse after the grace ends the sign-in on both.
func TestThreat18NodesGrace(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withConfig(func(yaml string) string { return "tokens: { refresh_grace: 5s }\n" + yaml }))
	a, b := c.nodes[0], c.nodes[1]
	first := signIn(a, "alice")
	lost := refresh(a, first.str("refresh_token"))
	again := refresh(b, first.str("refresh_token"))
	if again.Status != http.StatusOK || again.str("refresh_token") != lost.str("refresh_token") {
		t.Fatalf("repeat on the other node: %v\nfirst: %v", again, lost)
	}
	time.Sleep(5500 * time.Millisecond) // the grace has to pass by the database's clock
	refused(t, refresh(b, first.str("refresh_token")), http.StatusBadRequest, "invalid_grant")
	for _, node := range c.nodes {
		dead(node, "after reuse on the other node", again)
	}
	if events := c.events("token.reuse_detected"); len(events) != 1 {
		t.Errorf("%v", events)
	}
}

// TestNodesIdempotencyKey: a request that is repeated at another node has the
// first one's outcome, also while the first is under way.
func TestNodesIdempotencyKey(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	a, b := c.nodes[0], c.nodes[1]
	form := signInForm(c.Code(testAppID, "alice"))
	first := a.Token(form, header("Idempotency-Key", "tap-1"), phone())
	again := b.Token(form, header("Idempotency-Key", "tap-1"), phone())
	if first.Status != http.StatusOK || again.Status != http.StatusOK || again.str("refresh_token") != first.str("refresh_token") || c.Sim.RequestCount() != 1 {
		t.Errorf("first %v\nagain %v\n%d calls to WeChat", first, again, c.Sim.RequestCount())
	}
	refused(t, b.Token(signInForm("another"), header("Idempotency-Key", "tap-1"), phone()), http.StatusBadRequest, "invalid_request")
	if out := refresh(b, first.str("refresh_token")); out.Status != http.StatusOK {
		t.Fatal(out)
	}
	for _, node := range c.nodes {
		refused(t, node.Token(form, header("Idempotency-Key", "tap-1"), phone()), http.StatusBadRequest, "invalid_grant")
	}

	for round := range 5 { // WeChat takes its time, and all wait for one answer
		inject(t, a, simulator.Fault{Kind: simulator.FaultDelay, Delay: 500 * time.Millisecond, Count: 1})
		before := c.Sim.RequestCount()
		form, key := signInForm(c.Code(testAppID, "bob")), fmt.Sprintf("tap-at-once-%d", round)
		tokens := make([]string, 12)
		parallel(len(tokens), func(i int) {
			node := c.at(i)
			out, err := node.try(http.MethodPost, node.Issuer+"/oauth2/token", form, header("Idempotency-Key", key), phone())
			if err != nil || out.Status != http.StatusOK {
				t.Errorf("one of many at once: %v %v", out, err)
			}
			tokens[i] = out.str("refresh_token")
		})
		if calls := c.Sim.RequestCount() - before; distinct(tokens) != 1 || calls != 1 {
			t.Fatalf("%d refresh tokens, %d calls to WeChat", distinct(tokens), calls)
		}
	}
}

// TestNodesIdempotentRefusal: a refusal is the outcome at every node.
func TestNodesIdempotentRefusal(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	a, b := c.nodes[0], c.nodes[1]
	inject(t, a, simulator.Fault{Kind: simulator.FaultErrcode, Errcode: 40226, Count: 1})
	form := signInForm(c.Code(testAppID, "alice"))
	refused(t, a.Token(form, header("Idempotency-Key", "tap-1"), phone()), http.StatusBadRequest, "access_denied")
	out := b.Token(form, header("Idempotency-Key", "tap-1"), phone())
	refused(t, out, http.StatusBadRequest, "access_denied")
	if zh := b.Token(form, header("Idempotency-Key", "tap-1"), header("Accept-Language", "zh-CN"), phone()); !strings.Contains(zh.str("error_description"), "微信") {
		t.Errorf("%v", zh)
	}
	if c.Sim.RequestCount() != 1 {
		t.Errorf("%d calls to WeChat", c.Sim.RequestCount())
	}
}
