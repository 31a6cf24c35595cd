package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/wxidp/wxidp/keys"
)

// kids are the ids of the keys that a node publishes, sorted.
func kids(t testing.TB, node *testServer) (ids []string) {
	t.Helper()
	out, err := node.try(http.MethodGet, node.Issuer+"/.well-known/jwks.json", nil)
	if err != nil || out.Status != http.StatusOK {
		t.Errorf("JWK Set: %v, %v", out, err)
		return nil
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(out.Body, &set); err != nil {
		t.Error(err)
	}
	for _, key := range set.Keys {
		ids = append(ids, key.KeyID)
	}
	slices.Sort(ids)
	return ids
}

// anyKid is the id of the key that a node signs access tokens with now.
func anyKid(node *testServer) string {
	node.t.Helper()
	out := node.Token(pairs("grant_type", "client_credentials"), basic(testBackend, testBackendKey), phone())
	if out.Status != http.StatusOK {
		node.t.Fatal(out)
	}
	return kid(node.t, out.str("access_token"))
}

// TestNodesFirstStart: nodes that meet an empty database at the same moment
// agree on one set of keys.
func TestNodesFirstStart(t *testing.T) {
	t.Parallel()
	for range 3 {
		c := startCluster(t, 3)
		ids := kids(t, c.nodes[0])
		if len(ids) != 4 {
			t.Errorf("keys %v, want a current and a next one of two rings", ids)
		}
		for _, node := range c.nodes[1:] {
			if got := kids(t, node); !slices.Equal(got, ids) {
				t.Errorf("one publishes %v, another %v", ids, got)
			}
		}
		made := map[string]int{}
		for _, line := range c.events("keys.changed") {
			if line["from"] == "" {
				made[line["alg"].(string)]++
			}
		}
		for alg, n := range made {
			if n != 2 {
				t.Errorf("%d keys of %s were made", n, alg)
			}
		}
		token := signIn(c.nodes[0], "alice")
		for _, node := range c.nodes {
			signedIn(node, "begun on another node", token)
			if token = refresh(node, token.str("refresh_token")); token.Status != http.StatusOK {
				t.Fatal(token)
			}
		}
		for _, node := range c.nodes {
			node.stop()
		}
	}
}

// TestNodesRotate: a rotation that one node is told to make happens once, and
// every node has published the key before any signs with it.
func TestNodesRotate(t *testing.T) {
	t.Parallel()
	const ahead = 4 * time.Second
	c := startCluster(t, 2, withConfig(func(yaml string) string { return "keys: { publish_ahead: " + ahead.String() + " }\n" + yaml }))
	before := anyKid(c.nodes[0])

	// From when on each node publishes what.
	var mu sync.Mutex
	since := []map[string]time.Time{{}, {}}
	stop := make(chan struct{})
	var looking sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); looking.Wait() })
	defer end()
	for i, node := range c.nodes {
		looking.Go(func() {
			for {
				ids, now := kids(t, node), time.Now()
				mu.Lock()
				for _, id := range ids {
					if since[i][id].IsZero() {
						since[i][id] = now
					}
				}
				mu.Unlock()
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	for range 2 { // the second key is made by the first rotation
		ctl(c.nodes[0], "keys", "rotate", "--alg", "ES256")
		met := make([]string, 2)
		within(t, 30*time.Second, "both nodes sign with the next key", func() bool {
			for i, node := range c.nodes {
				id := anyKid(node)
				if met[i] = id; id == before {
					continue
				}
				mu.Lock()
				for other := range since {
					// Half of publish_ahead is the max-age of the JWK Set.
					if first := since[other][id]; first.IsZero() || time.Since(first) < ahead/2 {
						t.Errorf("node %d signs with a key that node %d has published since %v", i, other, first)
					}
				}
				mu.Unlock()
			}
			return met[0] != before && met[0] == met[1]
		})
		before = met[0]
	}
	end()
	promoted := map[string]int{}
	for _, line := range c.events("keys.changed") {
		if line["alg"] == keys.ES256 && line["to"] == keys.StateCurrent {
			promoted[line["kid"].(string)]++
		}
	}
	if len(promoted) != 3 {
		t.Errorf("%d keys became current, want the first and two more", len(promoted))
	}
	for id, n := range promoted {
		if n != 1 {
			t.Errorf("%s became current %d times", id, n)
		}
	}
}

// TestThreat36NodesRotationInRealTime lets keys live for seconds on two nodes,
// before validators that come to either by turns and keep the JWK Set for as
// long as they may.
func TestThreat36NodesRotationInRealTime(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	c := startCluster(t, 2, shortLives())
	validators := make([]*validator, 4)
	for i := range validators {
		validators[i] = &validator{s: c.testServer, kids: make(map[string]bool)}
	}
	until := time.Now().Add(20 * time.Second)
	var failed failures
	var work sync.WaitGroup
	for i := range 4 {
		work.Go(func() {
			time.Sleep(time.Duration(i) * 300 * time.Millisecond) // so that caches are of all ages
			for n := 0; time.Now().Before(until); n++ {
				out, err := c.at(i+n).signIn(testClient, testAppID, fmt.Sprintf("u%d-%d", i, n))
				if err != nil || out.Status != http.StatusOK {
					failed.add(fmt.Sprintf("sign-in: %v, %v", out, err))
					continue
				}
				for _, v := range validators {
					if err := v.verify(out.str("access_token"), testAudience); err != nil {
						failed.add("access token: " + err.Error())
					}
				}
				next, err := c.at(i+n+1).refresh(testClient, out.str("refresh_token"))
				if err != nil || next.Status != http.StatusOK {
					failed.add(fmt.Sprintf("refresh on the other node: %v, %v", next, err))
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	work.Wait()
	failed.report(t, "during rotation")
	promoted := map[any]int{}
	for _, line := range c.events("keys.changed") {
		if line["to"] == keys.StateCurrent {
			promoted[line["kid"]]++
		}
	}
	if len(promoted) < 3+3 {
		t.Errorf("%d keys became current in 20 s", len(promoted))
	}
	for id, n := range promoted {
		if n != 1 {
			t.Errorf("%s became current %d times", id, n)
		}
	}
}

// TestNodesRevokeKey: a compromised key that one node drops is good nowhere
// soon after.
func TestNodesRevokeKey(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	for i := range 2 {
		here, there := c.at(i), c.at(i+1)
		tokens := signIn(there, "alice")
		id := kid(t, tokens.str("access_token"))
		ctl(here, "keys", "revoke", id)
		if userInfoOK(here, tokens.str("access_token")) {
			t.Error("the node that dropped the key accepts it")
		}
		soonTrue(t, "the other node refuses a dropped key", func() bool {
			return !userInfoOK(there, tokens.str("access_token")) && !slices.Contains(kids(t, there), id)
		})
		if fresh := signIn(there, "alice"); kid(t, fresh.str("access_token")) == id {
			t.Error("the other node signs with it")
		} else {
			signedIn(here, "signed by the next key", fresh)
		}
	}
}

// TestDPoPNodes: nonces of one node are good at all, and a proof that one node
// has seen is good at none.
func TestDPoPNodes(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withConfig(func(yaml string) string { return "tokens: { dpop_nonce: true }\n" + yaml }))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{t, jose.ES256, key}
	a, b := c.nodes[0], c.nodes[1]
	asked := a.Token(signInForm(c.Code(testAppID, "alice")), h.at(c.testServer), phone())
	refused(t, asked, http.StatusBadRequest, "use_dpop_nonce")
	nonce := asked.Header.Get("DPoP-Nonce")
	out := b.Token(signInForm(c.Code(testAppID, "alice")), h.at(c.testServer, claim("nonce", nonce)), phone())
	h.bound(out)

	for range 10 {
		proof := h.proof("POST", c.Issuer+"/oauth2/token", claim("nonce", nonce))
		var served atomic.Int32
		parallel(10, func(i int) {
			node := c.at(i)
			out, err := node.try(http.MethodPost, node.Issuer+"/oauth2/token", pairs("grant_type", "client_credentials"),
				basic(testBackend, testBackendKey), header("DPoP", proof), phone())
			switch {
			case err != nil:
				t.Error(err)
			case out.Status == http.StatusOK:
				served.Add(1)
			default:
				refused(t, out, http.StatusBadRequest, "invalid_dpop_proof")
			}
		})
		if served.Load() != 1 {
			t.Fatalf("one proof was served %d times", served.Load())
		}
	}
}
