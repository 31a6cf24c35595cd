package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

// What lives for seconds in runBackground.
const (
	shortLife   = 20 * time.Second
	shortAccess = 10 * time.Second
	shortGrace  = 5 * time.Second
)

// shortLives gives sign-ins and signing keys lives of seconds.
func shortLives(ahead time.Duration) func(yaml string) string {
	return func(yaml string) string {
		return strings.Replace(yaml, "access_token_lifetime: 6h, refresh_grace: 60s",
			fmt.Sprintf("access_token_lifetime: %s, refresh_grace: %s, refresh_token_idle_lifetime: %s, refresh_token_absolute_lifetime: %s",
				shortAccess, shortGrace, shortLife, shortLife), 1) +
			fmt.Sprintf("keys: { rotate_every: %s, publish_ahead: %s }\n", ahead+time.Second, ahead)
	}
}

// withShortLives are the rules that go with shortLives.
func withShortLives(rules Rules) Rules {
	rules.Grace, rules.AccessLifetime, rules.FamilyLifetime, rules.IdleLifetime = shortGrace, shortAccess, shortLife, shortLife
	return rules
}

// runBackground kills nodes while keys rotate, clients are told of logouts and
// what has expired is deleted: the node that is left does it.
func runBackground(ctx context.Context, t *Trial) error {
	told := newTold()
	defer told.Close()
	lives := shortLives(4 * time.Second)
	c, err := t.newCluster(ctx, RigOptions{Config: func(yaml string) string {
		return strings.Replace(lives(yaml), "    consent: skip\n", "    consent: skip\n    backchannel_logout_uri: "+told.URL+"\n", 1)
	}}, 4)
	if err != nil {
		return err
	}
	defer c.Close()
	c.load.Pause = 5 * time.Millisecond
	var quitters []*quitter
	for i := range 3 {
		name := fmt.Sprint("quitter-", i)
		if err := c.AddAccount(ctx, c.Nodes[0], name); err != nil {
			return err
		}
		quitters = append(quitters, &quitter{c: c, browser: c.NewBrowser(name)})
	}
	var validators []*validator
	for range 4 {
		validators = append(validators, newValidator(c.Rig, func() *Node { return c.lb.Node }))
	}
	busy, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	for _, q := range quitters {
		group.Go(func() { q.run(busy) })
	}
	var wrong []string
	group.Go(func() { wrong = validateFor(busy, c.Rig, func() *Node { return c.lb.Node }, validators, time.Hour) })
	err = t.rollingKills(ctx, c, t.Size(10, 200), 2*time.Second)
	stop()
	group.Wait()
	if err != nil {
		return err
	}
	t.judgeRotations(c.Rig, validators, wrong, 1)
	if err := t.judgeNotices(ctx, c, told, quitters); err != nil {
		return err
	}
	rules := withShortLives(sharedRules())
	if err := t.allCollected(ctx, c.Rig, c.db, shortLife); err != nil {
		return err
	}
	t.Judge(c.Rig, rules)
	return t.connectionsBack(ctx, c.Rig, c.db)
}

// told is a client that is told of logouts.
type told struct {
	*httptest.Server
	mu   sync.Mutex
	sids map[string]int
}

func newTold() *told {
	c := &told{sids: map[string]int{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, err := readClaims(r.PostFormValue("logout_token"))
		if err != nil || claims.SID == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sids[claims.SID]++
	}))
	return c
}

// quitter is somebody whose sign-ins the operator ends, one after the other.
type quitter struct {
	c       *cluster
	browser *Browser
	ended   []string // sids
}

func (q *quitter) run(ctx context.Context) {
	n := q.c.lb.Node
	for ; ctx.Err() == nil; pause(ctx, 20*time.Millisecond) {
		code, _ := q.browser.Authorize(context.Background(), n)
		if code == "" {
			continue
		}
		op, _ := q.c.Redeem(context.Background(), n, q.browser.User, code)
		if op.Outcome != OK {
			continue
		}
		// Until it is known that it has happened: whichever of the attempts it
		// was, the client must hear of it.
		for tries := 0; tries < 200; tries++ {
			if end := q.c.Administer(context.Background(), n, EndUser, q.browser.User, op.Sub); end.Outcome == OK {
				q.ended = append(q.ended, op.Family)
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// judgeNotices waits until the client was told of every sign-in that the
// operator ended.
func (t *Trial) judgeNotices(ctx context.Context, c *cluster, client *told, quitters []*quitter) error {
	missing := func() (n, all int) {
		client.mu.Lock()
		defer client.mu.Unlock()
		for _, q := range quitters {
			all += len(q.ended)
			for _, sid := range q.ended {
				if client.sids[sid] == 0 {
					n++
				}
			}
		}
		return n, all
	}
	wait := func(length time.Duration) {
		for begin := time.Now(); time.Since(begin) < length && ctx.Err() == nil; pause(ctx, 100*time.Millisecond) {
			if n, _ := missing(); n == 0 {
				return
			}
		}
	}
	wait(3 * time.Second)
	held, _ := missing()
	if held > 0 && t.Long {
		wait(3 * time.Minute) // until the time is over that the killed nodes had taken for them
	} else if held > 0 {
		// The time that the killed nodes had taken for them goes by.
		for _, sql := range []string{
			`WITH x AS (UPDATE logouts SET next_at = clock_timestamp() RETURNING 1) SELECT count(*) FROM x`,
			`WITH x AS (UPDATE claims SET expires_at = clock_timestamp() RETURNING 1) SELECT count(*) FROM x`,
		} {
			var n int
			if err := c.db.query(ctx, &n, sql); err != nil {
				return err
			}
		}
		wait(20 * time.Second)
	}
	left, all := missing()
	twice := 0
	client.mu.Lock()
	defer client.mu.Unlock()
	for _, n := range client.sids {
		if n > 1 {
			twice++
		}
	}
	t.Note("%d sign-ins ended by the operator: their client was told of all but %d, of %d only after the killed node's time, of %d more than once", all, left, held, twice)
	if left > 0 {
		t.Fail("the client was never told of %d ended sign-ins", left)
	}
	if all < 10 {
		t.Fail("only %d sign-ins were ended: no load", all)
	}
	return nil
}
