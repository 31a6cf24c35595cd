package main

import (
	"context"
	"slices"
	"time"
)

// runKill is G1: the server is killed at random moments while clients work, and
// must know everything that it has acknowledged.
func runKill(ctx context.Context, t *Trial) error {
	r, err := t.NewRig(RigOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	load := NewLoad(r, 8, t.Rand.Uint64())
	// A median of one second keeps 50 kills within the gate's time.
	return t.killRounds(ctx, r, load, t.Size(50, 1000), func() time.Duration {
		d := 200*time.Millisecond + time.Duration(t.Rand.IntN(1200))*time.Millisecond
		if t.Rand.IntN(10) == 0 {
			d = 3 * time.Second
		}
		return d
	})
}

// killRounds starts the nodes, lets clients work for a while, kills one of the
// nodes, and so on. readyGoal is checked by the median of all starts: single
// ones may meet a busy machine.
func (t *Trial) killRounds(ctx context.Context, r *Rig, load *Load, kills int, length func() time.Duration) error {
	var starts []time.Duration
	up := func(end func()) error {
		took, err := r.StartAll(ctx)
		if err != nil {
			return err
		}
		starts = append(starts, took)
		end()
		return nil
	}
	if err := up(func() {}); err != nil {
		return err
	}
	if err := load.Prepare(ctx); err != nil {
		return err
	}
	round := 0
	for ; round < kills && ctx.Err() == nil; round++ {
		working, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { load.Run(working); close(done) }()
		pause(ctx, length())
		end := r.History.BeginFault("", "kill -9", true)
		for _, n := range r.Nodes {
			n.Kill()
		}
		stop()
		<-done
		if err := up(end); err != nil {
			return err
		}
		load.Probe(12)
		if round%10 == 9 && len(Check(r.History, standardRules)) > 0 {
			break
		}
	}
	load.Probe(0)
	if err := t.JudgeCensus(ctx, r, standardRules); err != nil {
		return err
	}
	t.Judge(r, standardRules)
	slices.Sort(starts)
	median, longest := starts[len(starts)/2], starts[len(starts)-1]
	t.Note("%d kills; ready after %s, at most %s", round, median.Round(time.Millisecond), longest.Round(time.Millisecond))
	if median > readyGoal {
		t.Fail("ready after %s, and the goal is %s", median, readyGoal)
	}
	for _, kind := range []Kind{SignIn, Refresh, Revoke} {
		if n := r.History.Count(kind, OK); n < round {
			t.Fail("only %d acknowledged operations of kind %s: no load", n, kind)
		}
	}
	return ctx.Err()
}

// readyGoal is how soon a killed node must be ready again.
const readyGoal = 2 * time.Second
