package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

// Load is a number of clients that live on between the rounds of a scenario.
// What they do follows from the seed; when, from the machine.
type Load struct {
	Rig   *Rig
	Users int           // how many people share the clients
	Pause time.Duration // between two episodes of a client; 0: none
	// Cuts lets clients hang up in the middle of requests.
	Cuts bool
	// Calm leaves out what ends families or users, for measurements.
	Calm bool
	// Through is what clients talk to, such as a balancer; nil: the nodes.
	Through *Node
	workers []*worker
}

// NewLoad makes clients; Prepare lets some of them use a browser.
func NewLoad(r *Rig, workers int, seed uint64) *Load {
	l := &Load{Rig: r, Users: 600, Cuts: true}
	for i := range workers {
		l.workers = append(l.workers, &worker{load: l, rand: newRand(seed, uint64(i))})
	}
	return l
}

// Prepare adds an account for every second client, which it signs in to with a
// browser.
func (l *Load) Prepare(ctx context.Context) error {
	for i, w := range l.workers {
		if i%2 == 1 {
			continue
		}
		name := "account-" + strconv.Itoa(i)
		if err := l.Rig.AddAccount(ctx, l.Rig.Nodes[0], name); err != nil {
			return err
		}
		w.browser = l.Rig.NewBrowser(name)
	}
	return nil
}

// Run lets the clients work until ctx ends, and returns when all have stopped.
func (l *Load) Run(ctx context.Context) {
	var group sync.WaitGroup
	for _, w := range l.workers {
		group.Go(func() {
			for ctx.Err() == nil {
				w.episode()
				pause(ctx, l.Pause)
			}
		})
	}
	group.Wait()
}

// RunFor is Run for a time.
func (l *Load) RunFor(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	l.Run(ctx)
}

// Probe lets every client repeat what was left unanswered and ask about up to
// limit of its sign-ins, the newest and a sample of the others, without
// anybody doing anything else; 0 stands for all.
func (l *Load) Probe(limit int) {
	var group sync.WaitGroup
	for _, w := range l.workers {
		group.Go(func() {
			w.settle()
			w.probe(limit)
		})
	}
	group.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// device is a sign-in as its owner sees it.
type device struct {
	user, client, family, sub string
	Tokens
	older   []string // refresh tokens before Refresh, newest first
	pending bool     // the last refresh was left unanswered
}

func (d *device) follow(t Tokens) {
	if t.Refresh != d.Refresh && d.Refresh != "" {
		d.older = append([]string{d.Refresh}, d.older[:min(len(d.older), 3)]...)
	}
	d.Tokens, d.pending = t, false
}

// attempt is a sign-in whose answer was lost.
type attempt struct{ user, code, key string }

type worker struct {
	load    *Load
	rand    *rand.Rand
	browser *Browser // nil: none
	alive   []*device
	over    []*device   // ended, as far as the client knows
	lost    []attempt   // to be repeated
	shut    [][2]string // users to enable again, with their subs
}

const (
	keptAlive = 60
	keptOver  = 40
)

func (w *worker) node() *Node {
	if w.load.Through != nil {
		return w.load.Through
	}
	return w.load.Rig.Nodes[w.rand.IntN(len(w.load.Rig.Nodes))]
}

func (w *worker) chance(percent int) bool { return w.rand.IntN(100) < percent }

// context is that of one request: now and then the client hangs up.
func (w *worker) context() (context.Context, context.CancelFunc) {
	if w.load.Cuts && w.chance(5) {
		return context.WithTimeout(context.Background(), time.Duration(w.rand.IntN(6000))*time.Microsecond)
	}
	return context.WithCancel(context.Background())
}

// episode is one thing that a client does, of a few requests.
func (w *worker) episode() {
	if len(w.lost)+len(w.shut) > 0 {
		w.settle()
	}
	for _, d := range w.alive {
		if d.pending {
			w.refresh(d)
			return
		}
	}
	dice := w.rand.IntN(100)
	switch {
	case len(w.alive) < 3 || dice < 22:
		w.signIn()
	case dice < 50:
		w.refresh(w.pick())
	case dice < 56:
		w.refreshTogether(w.pick())
	case dice < 66:
		w.ask(w.pick())
	case dice < 76 && w.browser != nil:
		w.authorize()
	case w.load.Calm:
		w.refresh(w.pick())
	case dice < 80:
		w.reuse(w.pick())
	case dice < 84:
		w.revoke(w.pick())
	case dice < 90:
		w.race(w.pick())
	case dice < 93:
		w.revokeAccess(w.pick())
	case dice < 95:
		w.shutOut(w.pick())
	case dice < 97:
		w.endUser(w.pick())
	case len(w.over) > 0:
		w.check(w.over[w.rand.IntN(len(w.over))])
	}
}

// pick chooses one of the newest devices, or of all.
func (w *worker) pick() *device {
	n := len(w.alive)
	if w.chance(70) {
		return w.alive[n-1-w.rand.IntN(min(n, 8))]
	}
	return w.alive[w.rand.IntN(n)]
}

func (w *worker) keep(d *device) {
	w.alive = append(w.alive, d)
	if len(w.alive) > keptAlive {
		w.alive = w.alive[1:]
	}
}

// bury moves a device to those that have ended.
func (w *worker) bury(d *device) {
	for i, other := range w.alive {
		if other == d {
			w.alive = append(w.alive[:i:i], w.alive[i+1:]...)
		}
	}
	w.over = append(w.over, d)
	if len(w.over) > keptOver {
		w.over = w.over[1:]
	}
}

func (w *worker) signIn() {
	user := fmt.Sprintf("user-%d", w.rand.IntN(w.load.Users))
	code, err := w.load.Rig.Sim.Login(appID, user)
	if err != nil {
		panic(err) // the app is there
	}
	key := ""
	if w.chance(75) {
		key = "key-" + code
	}
	w.attempt(attempt{user, code, key})
	if key != "" && w.chance(15) {
		w.together(2, func() { w.try(attempt{user, code, key}) })
	}
}

func (w *worker) try(a attempt) (*Op, Tokens) {
	ctx, cancel := w.context()
	defer cancel()
	return w.load.Rig.SignIn(ctx, w.node(), a.user, a.code, a.key)
}

// attempt tries to sign in. What is left unanswered is repeated later where it
// has a key.
func (w *worker) attempt(a attempt) *device {
	op, tokens := w.try(a)
	switch {
	case op.Outcome == OK:
		d := &device{user: a.user, client: miniProgram, family: op.Family, sub: op.Sub, Tokens: tokens}
		w.keep(d)
		return d
	case op.Outcome == Unknown && a.key != "" && len(w.lost) < 100:
		w.lost = append(w.lost, a)
		w.rest(op)
	}
	return nil
}

// rest keeps a client from spinning while there is no server.
func (w *worker) rest(op *Op) {
	if op.Status == 0 && !op.Cut {
		time.Sleep(5 * time.Millisecond)
	} else if op.Status >= 500 || op.Status == 429 {
		time.Sleep(2 * time.Millisecond)
	}
}

// settle repeats what was left unanswered, and lets users in again.
func (w *worker) settle() {
	lost, shut := w.lost, w.shut
	w.lost, w.shut = nil, nil
	for _, a := range lost {
		w.attempt(a)
	}
	for _, user := range shut {
		w.enable(user[0], user[1])
	}
	for _, d := range append([]*device(nil), w.alive...) {
		if d.pending {
			w.refresh(d)
		}
	}
}

// together runs an action n times at once. It must not change the client.
func (w *worker) together(n int, action func()) {
	var group sync.WaitGroup
	for range n {
		group.Go(action)
	}
	group.Wait()
}

// lockedSource lets several goroutines draw from one sequence.
type lockedSource struct {
	mu  sync.Mutex
	src *rand.PCG
}

func (s *lockedSource) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.src.Uint64()
}

func newRand(seed, stream uint64) *rand.Rand {
	return rand.New(&lockedSource{src: rand.NewPCG(seed, stream)})
}
