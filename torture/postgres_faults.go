package main

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// Within which a request must be answered, whatever the way to PostgreSQL does:
// five seconds of waiting for a connection and ten for each of two operations,
// and what a busy machine adds.
const answerWithin = 30 * time.Second

// runDatabaseFaults is G3: backends are ended and killed, and the ways from two
// nodes to PostgreSQL are cut, slow and silent, each by itself, while clients
// work. A node whose way is good goes on as if nothing had happened.
func runDatabaseFaults(ctx context.Context, t *Trial) error {
	db, err := t.startDatabase("")
	if err != nil {
		return err
	}
	f := &faults{Trial: t, db: db}
	storage := map[string]string{}
	for i := range 2 {
		w, err := db.newWire(t.Rand.IntN)
		if err != nil {
			return err
		}
		t.cleanup(w.Close)
		f.wires = append(f.wires, w)
		storage[fmt.Sprintf("node-%d", i+1)] = onDatabase(w.dsn(db))
	}
	if f.r, err = t.NewRig(RigOptions{Nodes: 2, Storage: func(n *Node) string { return storage[n.Name] }}); err != nil {
		return err
	}
	defer f.r.Close()
	if _, err := f.r.StartAll(ctx); err != nil {
		return err
	}
	f.load = NewLoad(f.r, 8, t.Rand.Uint64())
	if err := f.load.Prepare(ctx); err != nil {
		return err
	}
	if f.guards, err = newGuards(ctx, f.r); err != nil {
		return err
	}
	before, err := warm(ctx, f.r, f.load, time.Second)
	if err != nil {
		return err
	}
	if err := f.all(ctx); err != nil {
		return err
	}
	f.load.Probe(0)
	if err := t.allBack(ctx, f.r, db, before); err != nil {
		return err
	}
	rules := sharedRules()
	if err := t.JudgeCensus(ctx, f.r, rules); err != nil {
		return err
	}
	t.Judge(f.r, rules)
	f.judgeWaits()
	return ctx.Err()
}

type faults struct {
	*Trial
	r       *Rig
	db      *database
	wires   []*wire
	load    *Load
	guards  []*guard
	slowest time.Duration // until nodes worked again
}

// all runs every kind of fault a number of times, in an order that the seed
// chooses.
func (f *faults) all(ctx context.Context) error {
	kinds := []func(ctx context.Context) error{f.terminate, f.killBackend, f.slow, f.broken, f.reset, f.blackHole, f.blackHole}
	for range f.Size(1, 20) {
		for _, i := range f.Rand.Perm(len(kinds)) {
			if err := kinds[i](ctx); err != nil {
				return err
			}
			f.load.Probe(8)
		}
	}
	if err := f.longHole(ctx); err != nil {
		return err
	}
	cut := 0
	for _, w := range f.wires {
		cut += w.cut
	}
	f.Note("%d connections cut; nodes work at most %s after a fault", cut, f.slowest.Round(time.Millisecond))
	return nil
}

// under runs what a fault does while clients work, until the nodes work again.
// The fault is one of a node, or of both where n is nil.
func (f *faults) under(ctx context.Context, n *Node, what string, do func() error) error {
	busy, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { f.load.Run(busy); close(done) }()
	defer func() { stop(); <-done }()
	pause(ctx, 200*time.Millisecond)
	name := ""
	if n != nil {
		name = n.Name
	}
	end := f.r.History.BeginFault(name, what, false)
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	took, err := working(ctx, f.guards, 30*time.Second)
	f.slowest = max(f.slowest, took)
	pause(ctx, 100*time.Millisecond) // other connections of the pool are found broken
	end()
	pause(ctx, 300*time.Millisecond) // and now nothing may fail
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// some chooses a node with its wire.
func (f *faults) some() (*Node, *wire) {
	i := f.Rand.IntN(len(f.wires))
	return f.r.Nodes[i], f.wires[i]
}

// terminate ends backends in an orderly way, as an administrator does.
func (f *faults) terminate(ctx context.Context) error {
	return f.under(ctx, nil, "backends are ended", func() error {
		for range 5 {
			var n int
			if err := f.db.query(ctx, &n, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
				WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.7`); err != nil {
				return err
			}
			pause(ctx, time.Duration(f.Rand.IntN(200))*time.Millisecond)
		}
		return nil
	})
}

// killBackend kills one backend, at which PostgreSQL ends all others and
// recovers as from a crash.
func (f *faults) killBackend(ctx context.Context) error {
	return f.under(ctx, nil, "a backend is killed", func() error {
		var pid int
		if err := f.db.query(ctx, &pid, `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
			AND backend_type = 'client backend' ORDER BY random() LIMIT 1`); err != nil {
			return err
		}
		return syscall.Kill(pid, syscall.SIGKILL)
	})
}

// slow is no fault: everything takes longer.
func (f *faults) slow(ctx context.Context) error {
	n, w := f.some()
	busy, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	w.Slow(time.Duration(10+f.Rand.IntN(40)) * time.Millisecond)
	f.load.Run(busy)
	if !n.Ready(ctx) {
		f.Fail("%s is not ready because PostgreSQL is slow", n.Name)
	}
	w.Slow(0)
	return nil
}

// broken breaks connections in the middle of messages, also in those that
// commit, before and after they are done.
func (f *faults) broken(ctx context.Context) error {
	n, w := f.some()
	return f.under(ctx, n, "connections break", func() error {
		w.Break(5)
		pause(ctx, 1500*time.Millisecond)
		w.Break(0)
		return nil
	})
}

// reset breaks all connections of a node at once.
func (f *faults) reset(ctx context.Context) error {
	n, w := f.some()
	return f.under(ctx, n, "all connections break", func() error {
		for range 3 {
			w.Reset()
			pause(ctx, time.Duration(f.Rand.IntN(200))*time.Millisecond)
		}
		return nil
	})
}

// blackHole lets nothing through for a while.
func (f *faults) blackHole(ctx context.Context) error {
	n, w := f.some()
	return f.under(ctx, n, "nothing arrives", func() error {
		end := w.Silence()
		defer func() { end(f.Rand.IntN(2) == 0) }()
		if err := n.unready(ctx, 4*time.Second); err != nil {
			f.Fail("nothing arrives: %v", err)
		}
		pause(ctx, time.Duration(f.Rand.IntN(1500))*time.Millisecond)
		return nil
	})
}

// longHole lets nothing through for longer than any request may wait. The other
// node must go on.
func (f *faults) longHole(ctx context.Context) error {
	n, w := f.some()
	return f.under(ctx, n, "nothing arrives for long", func() error {
		end := w.Silence()
		defer end(true)
		pause(ctx, 22*time.Second)
		return nil
	})
}

// judgeWaits checks that no request hung.
func (f *faults) judgeWaits() {
	waits := f.r.latencies(func(op *Op) bool { return !op.Cut }, 0, 1<<62)
	slices.Sort(waits)
	if len(waits) == 0 {
		return
	}
	longest := waits[len(waits)-1]
	f.Note("the longest answer took %s", longest.Round(10*time.Millisecond))
	if longest > answerWithin {
		f.Fail("a request took %s", longest)
	}
}
