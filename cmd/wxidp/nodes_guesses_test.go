package main

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/wxidp/wxidp/web"
	"github.com/wxidp/wxidp/wechat/simulator"
)

// TestThreat53NodesGuessing: whoever guesses a password at several nodes by
// turns gets hardly more attempts than at one, and its owner gets in.
func TestThreat53NodesGuessing(t *testing.T) {
	t.Parallel()
	c := startWebCluster(t, 2)
	thief := header("X-Forwarded-For", "203.0.113.66")
	guess := func(node *testServer, i int) answer {
		return node.Token(signInForm(c.Code(testAppID, fmt.Sprintf("thief%d", i)), "username", "alice", "password", "guess"), thief)
	}
	judged := 0
	for i := range 40 {
		switch out := guess(c.at(i), i); {
		case out.Status == http.StatusTooManyRequests:
		case out.Status == http.StatusBadRequest && out.str("error") == "invalid_grant":
			judged++
		default:
			t.Fatalf("guess %d: %v", i, out)
		}
		time.Sleep(30 * time.Millisecond) // faster guesses come before the news of the other node
	}
	// 10 for an account and address, and what each node lets through before
	// it hears of the other.
	if judged < 10 || judged > 20 {
		t.Errorf("%d guesses were judged", judged)
	}
	soonTrue(t, "both nodes refuse", func() bool {
		return guess(c.nodes[0], 100).Status == http.StatusTooManyRequests && guess(c.nodes[1], 101).Status == http.StatusTooManyRequests
	})
	for i, node := range c.nodes {
		person := newBrowser(node)
		person.edits = append(person.edits, from(netip.MustParseAddr(fmt.Sprintf("203.0.113.%d", 70+i))))
		asksFor(t, "the owner, from elsewhere", person.password(person.authorize(shopWeb.request()), "alice", testPassword), "consent")
	}
}

// heard waits until a node has heard what another one tells now: whoever fails
// too often at the admin API of one is refused by the other, even with the
// right token.
func heard(from, to *testServer) {
	from.t.Helper()
	for range 10 {
		from.Do(http.MethodGet, from.Admin+web.AdminKeys, nil, bearer("wrong"))
	}
	eventually(from.t, "a node has heard of the other", func() bool {
		return to.Do(http.MethodGet, to.Admin+web.AdminKeys, nil, bearer(testAdminToken)).Status == http.StatusTooManyRequests
	})
}

// TestNodesEvents: an event that WeChat pushes to either node acts on both, and
// one that a node has done is not done again by another.
func TestNodesEvents(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withPush())
	for i := range 2 {
		tokens := signIn(c.at(i+1), "alice")
		if got := event(c.at(i), "alice", "user_authorization_revoke", "1"); got != (simulator.Receipt{Status: 200, Body: "success"}) {
			t.Fatalf("%+v", got)
		}
		dead(c.at(i+1), "after an event at the other node", tokens)
	}

	signIn(c.nodes[0], "bob")
	push := rawPush{appid: testAppID, token: pushToken, key: pushKey, body: cancellation(c.testServer, testAppID, "bob"), at: time.Now(), nonce: "n1"}
	sealed := push.sealed(t)
	send := func(node *testServer) {
		t.Helper()
		if out, err := push.send(node, push.query(sealed), `{"Encrypt":"`+sealed+`"}`); err != nil || out.Status != http.StatusOK || string(out.Body) != "success" {
			t.Fatal(out, err)
		}
	}
	send(c.nodes[0])
	heard(c.nodes[0], c.nodes[1])
	tokens := signIn(c.nodes[0], "bob")
	send(c.nodes[1])
	if !c.nodes[0].Active(tokens.str("access_token")) {
		t.Error("a push that one node has done, replayed to another, ended a later sign-in")
	}
}
