package main

import (
	"context"
	"fmt"
	"sync"
)

// atOnce is how many requests present one credential at the same time.
const atOnce = 4

// runRaces is G12: what may be used once is presented several times at once, at
// two nodes: codes (A10), refresh tokens (A20) and js_codes (A21).
func runRaces(ctx context.Context, t *Trial) error {
	r, _, err := t.NewDatabaseRig(RigOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := r.StartAll(ctx); err != nil {
		return err
	}
	rounds := t.Size(1000, 100_000)
	const clients = 4
	var group sync.WaitGroup
	racers := make([]*racer, clients)
	for i := range racers {
		name := fmt.Sprint("racing-account-", i)
		if err := r.AddAccount(ctx, r.Nodes[0], name); err != nil {
			return err
		}
		racers[i] = &racer{r: r, browser: r.NewBrowser(name)}
		group.Go(func() {
			for n := i; n < rounds && ctx.Err() == nil; n += clients {
				racers[i].round(ctx, n)
			}
		})
	}
	group.Wait()
	won := [3]int{}
	for _, racer := range racers {
		for i, text := range racer.wrong {
			if i < maxShown {
				t.Fail("%s", text)
			}
		}
		for kind, n := range racer.won {
			won[kind] += n
		}
	}
	t.Judge(r, standardRules)
	t.Note("%d js_codes, %d refresh tokens and %d codes, each %d times at once", won[0], won[1], won[2], atOnce)
	return ctx.Err()
}

type racer struct {
	r       *Rig
	browser *Browser
	won     [3]int // rounds that went as they should: js_codes, refresh tokens, codes
	wrong   []string
}

// race presents something at both nodes at once and returns the answers.
func (c *racer) race(present func(n *Node) (*Op, Tokens)) (ok []presented, all []*Op) {
	var mu sync.Mutex
	var group sync.WaitGroup
	for i := range atOnce {
		group.Go(func() {
			op, tokens := present(c.r.Nodes[i%len(c.r.Nodes)])
			mu.Lock()
			defer mu.Unlock()
			all = append(all, op)
			if op.Outcome == OK {
				ok = append(ok, presented{op, tokens})
			}
		})
	}
	group.Wait()
	return ok, all
}

// count notes how a race ended that so many were to win.
func (c *racer) count(kind, winners int, ok []presented, all []*Op) bool {
	if len(ok) != winners {
		c.wrong = append(c.wrong, fmt.Sprintf("R3: %d of %d at once were answered, and %d should be: %v", len(ok), atOnce, winners, all))
		return false
	}
	c.won[kind]++
	return true
}

// round lets one of each be presented several times at once.
func (c *racer) round(ctx context.Context, n int) {
	user := fmt.Sprint("racer-", n%300)
	jsCode, err := c.r.Sim.Login(appID, user)
	if err != nil {
		panic(err) // the app is there
	}
	ok, all := c.race(func(n *Node) (*Op, Tokens) { return c.r.SignIn(ctx, n, user, jsCode, "") })
	if !c.count(0, 1, ok, all) {
		return
	}
	first := ok[0]
	ok, all = c.race(func(n *Node) (*Op, Tokens) {
		return c.r.Refresh(ctx, n, user, miniProgram, first.op.Family, first.tokens.Refresh)
	})
	if c.count(1, atOnce, ok, all) {
		c.r.Introspect(ctx, c.r.Nodes[n%2], user, miniProgram, first.op.Family, ok[0].tokens.Access)
	}
	code, op := c.browser.Authorize(ctx, c.r.Nodes[n%2])
	if code == "" {
		c.wrong = append(c.wrong, fmt.Sprint("no code: ", op))
		return
	}
	ok, all = c.race(func(n *Node) (*Op, Tokens) { return c.r.Redeem(ctx, n, c.browser.User, code) })
	if c.count(2, 1, ok, all) { // and the others have ended it
		won := ok[0]
		c.r.Introspect(ctx, c.r.Nodes[n%2], c.browser.User, webApp, won.op.Family, won.tokens.Access)
	}
}
