package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat/simulator"
)

// query returns one number that a database knows.
func query(t testing.TB, dsn, sql string) (n int) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := conn.QueryRow(ctx, sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// told is a client that is told of logouts. It counts them by their sid.
type told struct {
	url  string
	hang chan struct{} // deliveries wait until it is closed; nil: none waits

	mu   sync.Mutex
	sids map[string]int
}

func newTold(t testing.TB, hang chan struct{}) *told {
	t.Helper()
	c := &told{sids: map[string]int{}, hang: hang}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		sid, _ := claims(t, r.PostFormValue("logout_token"))["sid"].(string)
		c.mu.Lock()
		c.sids[sid]++
		c.mu.Unlock()
		if c.hang != nil {
			select {
			case <-c.hang:
			case <-r.Context().Done():
			}
		}
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *told) times(sid string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sids[sid]
}

func (c *told) all() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sids)
}

// client is the YAML of the client.
func (c *told) client(id string) string {
	return `
  - client_id: ` + id + `
    type: public
    grant_types: [authorization_code]
    redirect_uris: [https://shop.example/cb]
    backchannel_logout_uri: ` + c.url + `
    id_token_signed_response_alg: ES256
    scopes: [openid]
    default_scopes: [openid]
    audience: [` + testAudience + `]
`
}

// TestNodesLogouts: while all is well, nodes that share the work tell each
// client of each logout once.
func TestNodesLogouts(t *testing.T) {
	t.Parallel()
	clients := []*told{newTold(t, nil), newTold(t, nil)}
	c := startCluster(t, 2, appending(clients[0].client("logout-0")+clients[1].client("logout-1")))
	const each = 200
	for i := range clients {
		for part := range 4 { // by both nodes
			var notices []storage.LogoutNotice
			for range each / 4 {
				notices = append(notices, storage.LogoutNotice{
					ID: storage.NewLogoutID(), ClientID: fmt.Sprintf("logout-%d", i), UserID: "u", FamilyID: storage.NewFamilyID(), EndedAt: time.Now(),
				})
			}
			if err := c.at(part).parts.store.QueueLogouts(t.Context(), notices); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "all are told", func() bool { return clients[0].all() == each && clients[1].all() == each })
	eventually(t, "the queue is empty", func() bool { return query(t, c.dsn, `SELECT count(*) FROM logouts`) == 0 })
	for i, client := range clients {
		client.mu.Lock()
		for sid, n := range client.sids {
			if n != 1 {
				t.Errorf("client %d was told %d times of %s", i, n, sid)
			}
		}
		client.mu.Unlock()
	}
	shared := 0
	for _, node := range c.nodes {
		if node.metrics()[`wxidp_backchannel_logout_seconds_count{outcome="ok"}`] > 0 {
			shared++
		}
	}
	t.Logf("%d of 2 nodes took part", shared)
}

// TestNodesLogoutSurvivor: a logout that a node was telling of when it was
// killed is told by another one, once the first one's time is over.
func TestNodesLogoutSurvivor(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	release := sync.OnceFunc(func() { close(hang) })
	defer release()
	client := newTold(t, hang)
	c := prepareCluster(t, 2, appending(client.client("logout-web")))
	a, b := c.nodes[0], c.nodes[1]
	b.start()
	sid := newSignedInBrowser(b, "alice").family.ID.String()
	b.stop()

	process := serveChild(t, a)
	ctl(a, "sessions", "revoke", sid)
	eventually(t, "the client is being told", func() bool { return client.times(sid) == 1 })
	process.Kill()
	release()

	b.start()
	time.Sleep(3 * time.Second) // more than a round of b's, which must leave it alone
	if n := client.times(sid); n != 1 {
		t.Errorf("told %d times while the killed node may still be telling", n)
	}
	// The time goes by.
	execute(t, c.dsn, `UPDATE logouts SET next_at = clock_timestamp(); UPDATE claims SET expires_at = clock_timestamp()`)
	eventually(t, "the survivor tells the client", func() bool { return client.times(sid) == 2 })
	eventually(t, "the queue is empty", func() bool { return query(t, c.dsn, `SELECT count(*) FROM logouts`) == 0 })
}

// TestNodesCollect: expired records go while several nodes collect, and when
// one of them is killed over it.
func TestNodesCollect(t *testing.T) {
	t.Parallel()
	c := prepareCluster(t, 2)
	a, b := c.nodes[0], c.nodes[1]
	b.start()
	live := signIn(b, "alice")
	process := serveChild(t, a)
	fill := func() {
		execute(t, c.dsn, `INSERT INTO states (kind, id, version, value, expires_at)
			SELECT 2, decode(md5(i::text) || md5(i::text), 'hex'), 1, '', now() FROM generate_series(1, 20000) i ON CONFLICT DO NOTHING`)
	}
	left := func() int { return query(t, c.dsn, `SELECT count(*) FROM states`) }
	fill()
	within(t, time.Minute, "collecting begins", func() bool { return left() < 20000 })
	process.Kill()
	fill()
	within(t, time.Minute, "the survivor collects", func() bool { return left() == 0 })
	signedIn(b, "what has not expired", live)
}

// TestNodesCustody: session_keys that no client uses any more are forgotten,
// whichever node takes the change first.
func TestNodesCustody(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withDataClients())
	kept := func() int { return query(t, c.dsn, `SELECT count(*) FROM session_keys`) }
	for i := range 6 {
		token := signIn(c.at(i), fmt.Sprintf("user%d", i)).str("access_token")
		data := openData(c.at(i), fmt.Sprintf("user%d", i), simulator.OpenDataUserInfo, 0)
		if out := decrypt(c.at(i+1), token, data); out.Status != http.StatusOK {
			t.Errorf("by the key that the other node keeps: %v", out)
		}
	}
	if n := kept(); n != 6 {
		t.Errorf("%d session_keys of 6 people", n)
	}
	c.reload("scopes: [wechat.data]", "scopes: [other], grant_types: [client_credentials]")
	eventually(t, "the keys are forgotten", func() bool { return kept() == 0 })
	signIn(c.nodes[0], "user1")
	if n := kept(); n != 0 {
		t.Errorf("%d session_keys are kept for nobody", n)
	}
}

// TestNodesPhoneCodeOnce: a phone code that several nodes get at once reaches
// WeChat once.
func TestNodesPhoneCodeOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	for round := range 5 {
		user := fmt.Sprintf("user%d", round)
		code := phoneCode(c.testServer, testAppID, user)
		before := weChatCalls(c.testServer, phonePath)
		subs := make([]string, 6)
		parallel(len(subs), func(i int) {
			form := signInForm(c.Code(testAppID, user), "phone_code", code, "scope", "openid phone")
			out, err := c.at(i).try(http.MethodPost, c.at(i).Issuer+"/oauth2/token", form, phone())
			switch {
			case err != nil:
				t.Error(err)
			case out.Status == http.StatusOK:
				subs[i] = subOf(out.str("access_token"))
			case out.Status != http.StatusBadRequest || out.str("error") != "invalid_grant":
				t.Errorf("%v", out)
			}
		})
		if calls := weChatCalls(c.testServer, phonePath) - before; calls != 1 {
			t.Errorf("%d calls for one number", calls)
		}
		for _, node := range c.nodes {
			info := node.UserInfo(signIn(node, user, "scope", "openid phone").str("access_token"))
			if info.str("phone_number") != number(c.testServer, user) {
				t.Errorf("UserInfo: %v", info)
			}
		}
	}
}
