package main

import (
	"context"
	"slices"
	"time"
)

// backGoal is how soon nodes must work after PostgreSQL takes connections
// again.
const backGoal = 2 * time.Second

// runDatabaseRestart is G3: PostgreSQL crashes and comes back, again and again,
// while clients work on two nodes.
func runDatabaseRestart(ctx context.Context, t *Trial) error {
	r, db, err := t.NewDatabaseRig(RigOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := r.StartAll(ctx); err != nil {
		return err
	}
	load := NewLoad(r, 8, t.Rand.Uint64())
	if err := load.Prepare(ctx); err != nil {
		return err
	}
	guards, err := newGuards(ctx, r)
	if err != nil {
		return err
	}
	before, err := warm(ctx, r, load, time.Second)
	if err != nil {
		return err
	}
	var back []time.Duration
	restarts := t.Size(10, 100)
	for round := range restarts {
		took, err := t.databaseRestart(ctx, r, db, load, guards)
		if err != nil {
			return err
		}
		back = append(back, took)
		load.RunFor(ctx, 300*time.Millisecond) // nothing may fail now
		load.Probe(12)
		if round%10 == 9 && len(Check(r.History, standardRules)) > 0 {
			break
		}
	}
	load.Probe(0)
	if err := t.allBack(ctx, r, db, before); err != nil {
		return err
	}
	if err := t.JudgeCensus(ctx, r, standardRules); err != nil {
		return err
	}
	t.Judge(r, standardRules)
	slices.Sort(back)
	t.Note("%d restarts of PostgreSQL; both nodes work %s after it takes connections, at most %s", len(back),
		back[len(back)/2].Round(time.Millisecond), back[len(back)-1].Round(time.Millisecond))
	if median := back[len(back)/2]; median > backGoal {
		t.Fail("nodes work %s after PostgreSQL takes connections, and the goal is %s", median, backGoal)
	}
	return ctx.Err()
}

// databaseRestart crashes PostgreSQL under load, starts it again and returns
// how long the nodes took from when it was there to when they worked.
func (t *Trial) databaseRestart(ctx context.Context, r *Rig, db *database, load *Load, guards []*guard) (time.Duration, error) {
	busy, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { load.Run(busy); close(done) }()
	defer func() { stop(); <-done }()
	pause(ctx, 200*time.Millisecond+time.Duration(t.Rand.IntN(1000))*time.Millisecond)
	end := r.History.BeginFault("", "PostgreSQL is away", false)
	if err := db.crash(); err != nil {
		return 0, err
	}
	for _, n := range r.Nodes {
		if err := n.unready(ctx, 5*time.Second); err != nil {
			t.Fail("PostgreSQL is away: %v", err)
		}
	}
	pause(ctx, time.Duration(t.Rand.IntN(800))*time.Millisecond)
	if err := db.Resume(); err != nil {
		return 0, err
	}
	took, err := working(ctx, guards, 30*time.Second)
	end()
	return took, err
}
