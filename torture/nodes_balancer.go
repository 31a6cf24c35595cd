package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// balancer hands connections to nodes in turn, as long as they say that they
// are ready. It knows nothing of HTTP beyond /readyz, and nothing that a client
// has sent is sent again.
type balancer struct {
	// Node is what clients see: its address is the balancer's, and what is
	// administered goes to a node that is ready.
	*Node
	listener net.Listener
	stop     context.CancelFunc
	group    sync.WaitGroup

	mu        sync.Mutex // guards the fields below
	upstreams []*upstream
	turn      int
	open      map[net.Conn]bool
	closed    bool
}

// upstream is a node as the balancer sees it.
type upstream struct {
	*Node
	ready bool
}

const (
	lookEvery    = 20 * time.Millisecond // at /readyz
	dialUpstream = time.Second
)

// newBalancer listens; the nodes are those of Serve.
func newBalancer() (*balancer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	given.Store(listener.Addr().String(), true)
	return &balancer{listener: listener, open: map[net.Conn]bool{}, stop: func() {}}, nil
}

func (b *balancer) url() string { return "http://" + b.listener.Addr().String() }

// serve begins to hand connections to the nodes of a rig.
func (b *balancer) serve(r *Rig) {
	b.Node = &Node{Name: "balancer", Address: b.listener.Addr().String(), rig: r}
	// A new connection for each request: a node that ends closes its socket.
	b.Node.admin = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			to := b.next(nil)
			if to == nil {
				return nil, fmt.Errorf("the balancer has no node")
			}
			return new(net.Dialer).DialContext(ctx, "unix", to.Socket())
		},
	}}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	for _, n := range r.Nodes {
		to := &upstream{Node: n}
		b.upstreams = append(b.upstreams, to)
		b.group.Go(func() { b.watch(ctx, to) })
	}
	b.group.Go(b.accept)
}

// watch asks a node again and again whether it is ready, each time on a
// connection of its own.
func (b *balancer) watch(ctx context.Context, to *upstream) {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for ; ctx.Err() == nil; pause(ctx, lookEvery) {
		answer, err := client.Get("http://" + to.Address + "/readyz")
		if err == nil {
			answer.Body.Close()
		}
		b.mu.Lock()
		to.ready = err == nil && answer.StatusCode == http.StatusOK
		b.mu.Unlock()
	}
}

// isReady reports whether a node gets connections.
func (b *balancer) isReady(n *Node) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, to := range b.upstreams {
		if to.Node == n {
			return to.ready
		}
	}
	return false
}

// await waits until the balancer has found a node ready, or not ready.
func (b *balancer) await(ctx context.Context, n *Node, ready bool) error {
	for begin := time.Now(); b.isReady(n) != ready; pause(ctx, 5*time.Millisecond) {
		if time.Since(begin) > 20*time.Second || ctx.Err() != nil {
			return fmt.Errorf("the balancer does not see that %s is ready: %v", n.Name, ready)
		}
	}
	return nil
}

// next is the next node in turn that is ready and is not the one that refused.
func (b *balancer) next(not *upstream) *upstream {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.upstreams {
		b.turn = (b.turn + 1) % len(b.upstreams)
		if to := b.upstreams[b.turn]; to.ready && to != not {
			return to
		}
	}
	return nil
}

func (b *balancer) accept() {
	for {
		client, err := b.listener.Accept()
		if err != nil {
			return // closed
		}
		b.group.Go(func() { b.carry(client) })
	}
}

// carry connects a client to a node: to another one where the first refuses.
func (b *balancer) carry(client net.Conn) {
	defer client.Close()
	to := b.next(nil)
	for range 2 {
		if to == nil {
			return
		}
		node, err := net.DialTimeout("tcp", to.Address, dialUpstream)
		if err == nil {
			if b.hold(client, node) {
				join(client, node)
				b.release(client, node)
			}
			return
		}
		to = b.next(to)
	}
}

// join copies in both directions until both have ended.
func join(a, b net.Conn) {
	var group sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		group.Go(func() {
			_, _ = io.Copy(pair[0], pair[1]) // whichever side broke, the other is told
			if half, ok := pair[0].(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
		})
	}
	group.Wait()
}

func (b *balancer) hold(conns ...net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range conns {
		if b.closed {
			c.Close()
			continue
		}
		b.open[c] = true
	}
	return !b.closed
}

func (b *balancer) release(conns ...net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range conns {
		c.Close()
		delete(b.open, c)
	}
}

// Close cuts all connections and waits for what is under way.
func (b *balancer) Close() {
	b.stop()
	b.listener.Close()
	b.mu.Lock()
	b.closed = true
	for c := range b.open {
		c.Close()
	}
	b.mu.Unlock()
	b.group.Wait()
}
