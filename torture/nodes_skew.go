package main

import (
	"context"
	"slices"
	"strings"
	"time"
)

// runSkew is G5 on two nodes: their clocks differ by a minute, and nobody can
// tell.
func runSkew(ctx context.Context, t *Trial) error {
	binary, err := t.ClockBuild(ctx)
	if err != nil {
		return err
	}
	if err := t.skewedLives(ctx, binary); err != nil {
		return err
	}
	return t.skewedKeys(ctx, binary)
}

// skewedRig is two nodes, the second of which is ahead by a time.
func (t *Trial) skewedRig(ctx context.Context, binary, name string, ahead time.Duration, config func(yaml string) string) (*Rig, *database, error) {
	folder, err := t.subFolder(name)
	if err != nil {
		return nil, nil, err
	}
	r, db, err := t.NewDatabaseRig(RigOptions{Dir: folder, Binary: binary, Config: config})
	if err != nil {
		return nil, nil, err
	}
	for i, n := range r.Nodes {
		if err := n.SetClock(time.Duration(i) * ahead); err != nil {
			return nil, nil, err
		}
	}
	_, err = r.StartAll(ctx)
	return r, db, err
}

// skewedLives: a minute apart, with a grace of five seconds. Whatever a node
// judged by its own clock would be too late or too early at once.
func (t *Trial) skewedLives(ctx context.Context, binary string) error {
	const skew, short = time.Minute, 5 * time.Second
	rules := standardRules
	rules.Grace = short
	r, db, err := t.skewedRig(ctx, binary, "lives", skew, func(yaml string) string {
		return strings.Replace(yaml, "refresh_grace: 60s", "refresh_grace: 5s", 1)
	})
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // the history is checked by then
	load := NewLoad(r, 8, t.Rand.Uint64())
	if err := load.Prepare(ctx); err != nil {
		return err
	}
	load.RunFor(ctx, time.Duration(t.Size(12, 300))*time.Second)
	load.Probe(0)
	t.Judge(r, rules)
	if err := t.JudgeCensus(ctx, r, rules); err != nil {
		return err
	}
	guards, err := newGuards(ctx, r)
	if err != nil {
		return err
	}
	// All access tokens are old at one stroke, by the clocks of the nodes.
	for i, n := range r.Nodes {
		if err := n.SetClock(7*time.Hour + time.Duration(i)*skew); err != nil {
			return err
		}
	}
	for i, g := range guards {
		other := r.Nodes[1-i]
		for _, n := range r.Nodes {
			if op := r.Introspect(ctx, n, g.d.user, g.d.client, g.d.family, g.d.Access); op.Outcome != Denied {
				t.Fail("an access token is good an hour after it expired: %s", op)
			}
		}
		g.n = other
		if !g.works(ctx) {
			t.Fail("seven hours later %s refuses a refresh token of %s", other.Name, r.Nodes[i].Name)
		}
		if op := r.Introspect(ctx, r.Nodes[i], g.d.user, g.d.client, g.d.family, g.d.Access); op.Outcome != OK {
			t.Fail("an access token of %s at the other node: %s", other.Name, op)
		}
	}
	return t.connectionsBack(ctx, r, db)
}

// skewedKeys: keys and families live for seconds, so the clocks differ by as
// much as publish_ahead leaves room for: no more than half of it.
func (t *Trial) skewedKeys(ctx context.Context, binary string) error {
	ahead, skew, length := 12*time.Second, 3*time.Second, 45*time.Second
	if t.Long {
		ahead, skew, length = 3*time.Minute, time.Minute, 20*time.Minute
	}
	r, db, err := t.skewedRig(ctx, binary, "keys", skew, shortLives(ahead))
	if err != nil {
		return err
	}
	defer r.Close()
	var validators []*validator
	for i := range 6 {
		validators = append(validators, newValidator(r, func() *Node { return r.Nodes[i%2] }))
	}
	load := NewLoad(r, 4, t.Rand.Uint64())
	load.Pause = 10 * time.Millisecond
	busy, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { load.Run(busy); close(done) }()
	wrong := validateFor(ctx, r, func() *Node { return r.Nodes[int(r.History.Now()/time.Millisecond)%2] }, validators, length)
	stop()
	<-done
	t.judgeRotations(r, validators, wrong, int(length/(ahead+time.Second))-1)
	rules := withShortLives(standardRules)
	rules.Skew = skew + 2*time.Second
	t.Judge(r, rules)
	return t.allCollected(ctx, r, db, shortLife)
}

// expiring are the tables whose rows all go within the lifetimes of a scenario
// that has short ones.
var expiring = []string{"families", "codes", "claims"}

// allCollected waits until nothing is left of what expires.
func (t *Trial) allCollected(ctx context.Context, r *Rig, db *database, lifetime time.Duration) error {
	left := map[string]int{}
	for begin := time.Now(); time.Since(begin) < lifetime+collectWithin && ctx.Err() == nil; pause(ctx, 500*time.Millisecond) {
		for _, table := range expiring {
			var n int
			if err := db.query(ctx, &n, `SELECT count(*) FROM `+table+``); err != nil {
				return err
			}
			left[table] = n
		}
		if left["families"] == 0 {
			break
		}
	}
	t.Note("left: %d families, %d codes, %d claims", left["families"], left["codes"], left["claims"])
	if left["families"] > 0 {
		t.Fail("R8: %d families are kept long after all have expired", left["families"])
	}
	census, err := r.Census(ctx, r.Nodes[0])
	if err != nil {
		return err
	}
	t.judged(slices.DeleteFunc(CheckCensus(r.History, standardRules, census), func(v Violation) bool { return v.Op != nil }))
	return nil
}
