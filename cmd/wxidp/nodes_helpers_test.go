package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// cluster is several servers of one issuer on one database, with a balancer in
// front. Each has listeners, a socket and a folder of its own.
type cluster struct {
	*testServer // what clients see: requests to it go through the balancer
	nodes       []*testServer
	balancer    *balancer
	dsn         string
}

// startCluster starts n nodes at once and ends them with the test.
func startCluster(t testing.TB, n int, options ...serverOption) *cluster {
	t.Helper()
	c := prepareCluster(t, n, options...)
	parallel(n, func(i int) { c.nodes[i].start() })
	if t.Failed() {
		t.FailNow() // a node did not start
	}
	for _, node := range c.nodes {
		c.balancer.add(node)
	}
	return c
}

// prepareCluster makes all that n nodes need and starts none.
func prepareCluster(t testing.TB, n int, options ...serverOption) *cluster {
	t.Helper()
	return prepareClusterOn(t, newDatabase(t), n, options...)
}

func prepareClusterOn(t testing.TB, dsn string, n int, options ...serverOption) *cluster {
	t.Helper()
	c := &cluster{dsn: dsn, balancer: newBalancer(t)}
	options = append(slices.Clone(options), manyPhones(), withConfig(func(yaml string) string {
		storage := "storage: { driver: postgres, postgres: { dsn_file: secrets/dsn } }"
		return strings.NewReplacer("issuer: ISSUER", "issuer: "+c.balancer.url, "STORAGE", storage).Replace(yaml)
	}))
	for i := range n {
		if i > 0 { // the others know the first one's WeChat
			options = append(slices.Clone(options), replacing("WECHAT", c.nodes[0].WeChat.URL))
		}
		node := prepareServer(t, options...)
		node.writeFile("secrets/dsn", dsn+"\n")
		if i > 0 {
			key, err := os.ReadFile(filepath.Join(c.nodes[0].Dir, "data", "master.key"))
			if err != nil {
				t.Fatal(err)
			}
			node.writeFile("data/master.key", string(key))
			node.Sim, node.WeChat = c.nodes[0].Sim, c.nodes[0].WeChat
		}
		c.nodes = append(c.nodes, node)
	}
	front := *c.nodes[0]
	front.Issuer = c.balancer.url
	c.testServer = &front
	return c
}

// reload changes the configuration of every node as an operator would who
// writes the files one after the other, and waits until all have taken it.
func (c *cluster) reload(oldnew ...string) {
	c.t.Helper()
	before := make([]int, len(c.nodes))
	for i, node := range c.nodes {
		before[i] = len(node.Logs.Events("config.applied"))
		node.editConfig(oldnew...)
	}
	for i, node := range c.nodes {
		eventually(c.t, "a node takes the changed configuration", func() bool {
			return len(node.Logs.Events("config.applied")) > before[i]
		})
	}
}

// events are the log lines of all nodes with this event.
func (c *cluster) events(name string) (lines []map[string]any) {
	for _, node := range c.nodes {
		lines = append(lines, node.Logs.Events(name)...)
	}
	return lines
}

// at is the node for the i-th of several requests.
func (c *cluster) at(i int) *testServer { return c.nodes[i%len(c.nodes)] }

// soonTrue polls until ok, fails after some seconds, and logs how long it took.
func soonTrue(t testing.TB, what string, ok func() bool) {
	t.Helper()
	t.Logf("%s after %v", what, within(t, 10*time.Second, what, ok).Round(time.Millisecond))
}

// balancer hands requests to its nodes in turn, as long as they say that they
// are ready. A request that fails is not tried at another one.
type balancer struct {
	url string

	mu    sync.Mutex
	nodes []*backend
	turn  int
	kept  *http.Transport // connections to nodes
}

// backend is a node as its balancer sees it.
type backend struct {
	proxy *httputil.ReverseProxy
	ready bool
}

// lookEvery is the pause between two looks at /readyz.
const lookEvery = 50 * time.Millisecond

func newBalancer(t testing.TB) *balancer {
	t.Helper()
	b := &balancer{kept: &http.Transport{MaxIdleConnsPerHost: 128}}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	t.Cleanup(b.kept.CloseIdleConnections)
	b.url = server.URL
	return b
}

// add lets a node serve from when it is ready until the test ends.
func (b *balancer) add(node *testServer) {
	node.t.Helper()
	base, err := url.Parse(node.Issuer)
	if err != nil {
		node.t.Fatal(err)
	}
	to := &backend{proxy: &httputil.ReverseProxy{
		Transport: b.kept,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(base)
			r.Out.Host = r.In.Host
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "the balancer: "+err.Error(), http.StatusBadGateway)
		},
		FlushInterval: -1,
	}}
	b.mu.Lock()
	b.nodes = append(b.nodes, to)
	b.mu.Unlock()
	ready := func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return to.ready
	}
	ctx, stop := context.WithCancel(context.Background())
	var looking sync.WaitGroup
	looking.Go(func() {
		for ctx.Err() == nil {
			out, err := node.try(http.MethodGet, node.Issuer+"/readyz", nil, header("Connection", "close"))
			b.mu.Lock()
			to.ready = err == nil && out.Status == http.StatusOK
			b.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(lookEvery):
			}
		}
	})
	node.t.Cleanup(func() { stop(); looking.Wait() })
	eventually(node.t, "the balancer has found the node ready", ready)
}

// readyNodes counts the nodes that get requests.
func (b *balancer) readyNodes() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, node := range b.nodes {
		if node.ready {
			n++
		}
	}
	return n
}

func (b *balancer) next() *backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.nodes {
		b.turn = (b.turn + 1) % len(b.nodes)
		if b.nodes[b.turn].ready {
			return b.nodes[b.turn]
		}
	}
	return nil
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	to := b.next()
	if to == nil {
		http.Error(w, "the balancer: no node is ready", http.StatusBadGateway)
		return
	}
	to.proxy.ServeHTTP(w, r)
}
