package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// cluster is two nodes on a PostgreSQL, a balancer in front, and clients that
// come through it.
type cluster struct {
	*Rig
	db   *database
	lb   *balancer
	load *Load
}

// newCluster starts all of it. Some of the clients talk to the nodes
// themselves where direct is true.
func (t *Trial) newCluster(ctx context.Context, o RigOptions, workers int) (_ *cluster, err error) {
	c := &cluster{}
	if c.lb, err = newBalancer(); err != nil {
		return nil, err
	}
	t.cleanup(func() error { c.lb.Close(); return nil })
	o.Issuer = c.lb.url()
	if c.Rig, c.db, err = t.NewDatabaseRig(o); err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		n.Args = []string{"--drain", "1s"}
	}
	if _, err := c.StartAll(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.lb.serve(c.Rig)
	for _, n := range c.Nodes {
		if err := c.lb.await(ctx, n, true); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	c.load = NewLoad(c.Rig, workers, t.Rand.Uint64())
	c.load.Through = c.lb.Node
	if err := c.load.Prepare(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// probe looks at sign-ins from every node.
func (c *cluster) probe(limit int) {
	c.load.Through = nil
	c.load.Probe(limit)
	c.load.Through = c.lb.Node
}

// start starts a node and waits until the balancer uses it.
func (c *cluster) start(ctx context.Context, n *Node) error {
	if _, err := n.Start(ctx); err != nil {
		return err
	}
	return c.lb.await(ctx, n, true)
}

// runRolling is G9: nodes are restarted one after the other under load, and
// nobody notices; then they are killed, and only what is under way is lost.
func runRolling(ctx context.Context, t *Trial) error {
	c, err := t.newCluster(ctx, RigOptions{}, 8)
	if err != nil {
		return err
	}
	defer c.Close()
	restarts := t.Size(10, 100)
	if err := t.rollingRestarts(ctx, c, restarts); err != nil {
		return err
	}
	c.probe(20)
	if err := t.rollingKills(ctx, c, restarts, 200*time.Millisecond); err != nil {
		return err
	}
	c.probe(0)
	if err := t.connectionsBack(ctx, c.Rig, c.db); err != nil {
		return err
	}
	if err := t.JudgeCensus(ctx, c.Rig, sharedRules()); err != nil {
		return err
	}
	t.Judge(c.Rig, sharedRules())
	return ctx.Err()
}

// sharedRules are standardRules for nodes on PostgreSQL, which may still finish
// what a node that is gone asked of it.
func sharedRules() Rules {
	rules := standardRules
	rules.Settle, rules.Lingers = 20*time.Second, true
	return rules
}

// rollingRestarts ends the nodes in turn with SIGTERM. There is no fault: every
// request must be answered, and with no 5xx at all.
func (t *Trial) rollingRestarts(ctx context.Context, c *cluster, restarts int) error {
	busy, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { c.load.Run(busy); close(done) }()
	defer func() { stop(); <-done }()
	before := c.History.Len()
	var slowest time.Duration
	for i := range restarts {
		n := c.Nodes[i%len(c.Nodes)]
		pause(ctx, 100*time.Millisecond+time.Duration(t.Rand.IntN(300))*time.Millisecond)
		begin := time.Now()
		if err := n.Stop(); err != nil {
			return fmt.Errorf("restart %d: %w\n%s", i+1, err, n.tail())
		}
		slowest = max(slowest, time.Since(begin))
		if err := c.start(ctx, n); err != nil {
			return err
		}
	}
	t.Note("%d restarts with %d requests meanwhile, a node ends within %s", restarts, c.History.Len()-before, slowest.Round(10*time.Millisecond))
	return nil
}

// rollingKills kills the nodes in turn, with a pause and up to 700 ms more
// between two kills.
func (t *Trial) rollingKills(ctx context.Context, c *cluster, kills int, between time.Duration) error {
	lost := 0
	for i := range kills {
		n := c.Nodes[i%len(c.Nodes)]
		busy, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { c.load.Run(busy); close(done) }()
		pause(ctx, between+time.Duration(t.Rand.IntN(700))*time.Millisecond)
		before := c.History.Len()
		end := c.History.BeginFault(c.lb.Name, "kill -9 of "+n.Name, true)
		n.Kill()
		err := c.lb.await(ctx, n, false)
		pause(ctx, 50*time.Millisecond) // for who was sent there just before
		end()
		for _, op := range c.History.snapshot()[before:] {
			if op.Status == 0 && !op.Cut {
				lost++
			}
		}
		pause(ctx, 200*time.Millisecond) // the other one goes on alone
		if err == nil {
			err = c.start(ctx, n)
		}
		stop()
		<-done
		if err != nil {
			return err
		}
		c.probe(8)
	}
	t.Note("%d kills, %d requests lost", kills, lost)
	return nil
}
