package main

import (
	"context"
	"sync"
)

// refresh presents the newest refresh token that the client knows of.
func (w *worker) refresh(d *device) {
	if d.Refresh == "" {
		w.ask(d)
		return
	}
	w.took(d, w.present(d, d.Refresh))
}

// presented is a refresh with its answer.
type presented struct {
	op     *Op
	tokens Tokens
}

func (w *worker) present(d *device, token string) presented {
	ctx, cancel := w.context()
	defer cancel()
	op, tokens := w.load.Rig.Refresh(ctx, w.node(), d.user, d.client, d.family, token)
	return presented{op, tokens}
}

// took draws the client's conclusions from a refresh of the newest token.
func (w *worker) took(d *device, p presented) {
	switch p.op.Outcome {
	case OK:
		d.follow(p.tokens)
	case Denied:
		w.bury(d)
	default:
		d.pending = true
		w.rest(p.op)
	}
}

// refreshTogether presents one refresh token several times at once, as the
// pages of one mini-program do, and now and then its predecessor.
func (w *worker) refreshTogether(d *device) {
	if d.Refresh == "" {
		w.ask(d)
		return
	}
	var mu sync.Mutex
	var answers []presented
	token := d.Refresh
	w.together(2+w.rand.IntN(4), func() {
		p := w.present(d, token)
		mu.Lock()
		defer mu.Unlock()
		answers = append(answers, p)
	})
	best := answers[0]
	for _, p := range answers {
		if p.op.Outcome == OK {
			best = p
		}
	}
	w.took(d, best)
	if best.op.Outcome == OK && w.chance(30) {
		p := w.present(d, token) // an answer that got lost on the way
		if p.op.Outcome == Denied {
			w.bury(d)
		}
	}
}

// reuse presents a refresh token whose successor was used, as a thief does.
func (w *worker) reuse(d *device) {
	if len(d.older) < 2 {
		w.refresh(d)
		return
	}
	w.present(d, d.older[1])
	w.check(d)
	w.bury(d)
}

// ask shows an access token to a resource server.
func (w *worker) ask(d *device) {
	ctx, cancel := w.context()
	defer cancel()
	if w.chance(60) {
		w.load.Rig.Introspect(ctx, w.node(), d.user, d.client, d.family, d.Access)
	} else {
		w.load.Rig.UserInfo(ctx, w.node(), d.user, d.client, d.family, d.Access)
	}
}

// check asks about a device in every way and hangs up on nobody.
func (w *worker) check(d *device) {
	ctx := context.Background()
	w.load.Rig.Introspect(ctx, w.node(), d.user, d.client, d.family, d.Access)
	if d.Refresh != "" {
		op, tokens := w.load.Rig.Refresh(ctx, w.node(), d.user, d.client, d.family, d.Refresh)
		if op.Outcome == OK {
			d.follow(tokens)
		}
	}
	w.load.Rig.UserInfo(ctx, w.node(), d.user, d.client, d.family, d.Access)
}

// probe checks devices; limit is as in Load.Probe.
func (w *worker) probe(limit int) {
	devices := append(append([]*device(nil), w.over...), w.alive...)
	if limit > 0 && len(devices) > limit {
		newest := devices[len(devices)-limit/2:]
		older := devices[:len(devices)-limit/2]
		w.rand.Shuffle(len(older), func(i, j int) { older[i], older[j] = older[j], older[i] })
		devices = append(append([]*device(nil), newest...), older[:limit-len(newest)]...)
	}
	for _, d := range devices {
		w.check(d)
	}
}

func (w *worker) revoke(d *device) {
	ctx, cancel := w.context()
	defer cancel()
	token := d.Refresh
	if token == "" {
		return
	}
	if w.chance(20) && len(d.older) > 0 {
		token = d.older[0] // any token of the family names it
	}
	w.load.Rig.Revoke(ctx, w.node(), Revoke, d.user, d.client, d.family, token)
	w.check(d)
	w.bury(d)
}

func (w *worker) revokeAccess(d *device) {
	ctx, cancel := w.context()
	defer cancel()
	w.load.Rig.Revoke(ctx, w.node(), RevokeAccess, d.user, d.client, d.family, d.Access)
	w.check(d)
}

// race lets the end of a family meet refreshes of it. Whoever comes first, what
// was acknowledged holds afterwards.
func (w *worker) race(d *device) {
	if d.Refresh == "" {
		return
	}
	var group sync.WaitGroup
	answers := make([]presented, 2)
	for i := range answers {
		group.Go(func() { answers[i] = w.present(d, d.Refresh) })
	}
	group.Go(func() {
		if w.chance(80) {
			w.load.Rig.Revoke(context.Background(), w.node(), Revoke, d.user, d.client, d.family, d.Refresh)
		} else {
			w.load.Rig.Administer(context.Background(), w.node(), EndUser, d.user, d.sub)
		}
	})
	group.Wait()
	for _, p := range answers {
		if p.op.Outcome == OK {
			d.follow(p.tokens)
		}
	}
	w.check(d)
	w.bury(d)
}

// shutOut disables a user, tries to get in nevertheless, and enables the user
// again.
func (w *worker) shutOut(d *device) {
	r := w.load.Rig
	op := r.Administer(context.Background(), w.node(), Disable, d.user, d.sub)
	w.check(d)
	w.bury(d)
	if op.Outcome == OK {
		w.knock(d)
	}
	w.enable(d.user, d.sub)
}

// knock lets the user of a device try to sign in once more.
func (w *worker) knock(d *device) {
	if d.client != miniProgram {
		return // that user has no WeChat
	}
	if code, err := w.load.Rig.Sim.Login(appID, d.user); err == nil {
		w.load.Rig.SignIn(context.Background(), w.node(), d.user, code, "")
	}
}

func (w *worker) enable(user, sub string) {
	op := w.load.Rig.Administer(context.Background(), w.node(), Enable, user, sub)
	if op.Outcome != OK && len(w.shut) < 100 {
		w.shut = append(w.shut, [2]string{user, sub})
		w.rest(op)
	}
}

// endUser ends all sign-ins of a user, while another one may be under way.
func (w *worker) endUser(d *device) {
	var group sync.WaitGroup
	group.Go(func() { w.knock(d) })
	w.load.Rig.Administer(context.Background(), w.node(), EndUser, d.user, d.sub)
	group.Wait()
	w.check(d)
	w.bury(d)
}

// authorize gets an authorization code with the browser and redeems it, now
// and then twice.
func (w *worker) authorize() {
	n := w.node()
	code, op := w.browser.Authorize(context.Background(), n)
	if code == "" {
		w.rest(op)
		return
	}
	redeem := func() presented {
		ctx, cancel := w.context()
		defer cancel()
		op, tokens := w.load.Rig.Redeem(ctx, w.node(), w.browser.User, code)
		return presented{op, tokens}
	}
	times := 1
	if w.chance(35) && !w.load.Calm {
		times = 3
	}
	var mu sync.Mutex
	var won *device
	w.together(times, func() {
		if p := redeem(); p.op.Outcome == OK {
			mu.Lock()
			defer mu.Unlock()
			won = &device{user: w.browser.User, client: webApp, family: p.op.Family, sub: p.op.Sub, Tokens: p.tokens}
		}
	})
	switch {
	case won == nil:
	case times > 1:
		w.check(won) // the losers have ended it
		w.bury(won)
	case w.chance(15) && !w.load.Calm:
		redeem() // a replay
		w.check(won)
		w.bury(won)
	default:
		w.keep(won)
	}
}
