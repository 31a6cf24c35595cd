package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// clockEnv names the file that a build of ClockBuild reads its skew from, in
// seconds.
const clockEnv = "TORTURE_CLOCK"

// ClockBuild compiles a server whose wall clock can be moved while it runs, by
// Node.SetClock. The monotonic clock goes on as ever, as when a machine's clock
// is set: it is Go's own time package that is patched, because nothing else
// moves the clock of everything in the process at once.
func (t *Trial) ClockBuild(ctx context.Context) (binary string, err error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	return t.buildPatched(ctx, "clock", clockPatches(filepath.Join(strings.TrimSpace(string(root)), "src", "time")))
}

// clockPatches make the wall clock of Go's time package, in that folder,
// movable.
func clockPatches(timePackage string) []patch {
	return []patch{
		{filepath.Join(timePackage, "time.go"), "\tsec, nsec, mono := runtimeNow()\n", "\tsec, nsec, mono := runtimeNow()\n\tsec += skew.Load()\n"},
		{filepath.Join(timePackage, "torture_skew.go"), "", "package time\n\nimport \"sync/atomic\"\n\nvar skew atomic.Int64\n\nfunc SetSkew(seconds int64) { skew.Store(seconds) }\n"},
		{"cmd/wxidp/torture_clock.go", "", `package main

import (
	"os"
	"strconv"
	"time"
)

func init() {
	path := os.Getenv("` + clockEnv + `")
	read := func() {
		if raw, err := os.ReadFile(path); err == nil {
			if seconds, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
				time.SetSkew(seconds)
			}
		}
	}
	read()
	go func() {
		for {
			time.Sleep(5 * time.Millisecond)
			read()
		}
	}()
}
`},
	}
}

// SetClock moves the wall clock of a node that runs a build of ClockBuild, now
// or when it is started, to be ahead of the machine's by a whole number of
// seconds. It waits until a running node has noticed.
func (n *Node) SetClock(ahead time.Duration) error {
	path := filepath.Join(n.Dir, "clock")
	n.Env = append(slices.DeleteFunc(n.Env, func(entry string) bool { return strings.HasPrefix(entry, clockEnv+"=") }), clockEnv+"="+path)
	next := path + ".next"
	if err := os.WriteFile(next, []byte(strconv.FormatInt(int64(ahead/time.Second), 10)), 0o600); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil || !n.Running() {
		return err
	}
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(5 * time.Millisecond) {
		answer, err := n.rig.http.Get("http://" + n.Address + "/healthz")
		if err != nil {
			return err
		}
		answer.Body.Close()
		date, err := http.ParseTime(answer.Header.Get("Date"))
		if err != nil {
			return fmt.Errorf("the Date of an answer: %w", err)
		}
		if off := time.Until(date) - ahead; off > -3*time.Second && off < 3*time.Second {
			return nil
		}
	}
	return fmt.Errorf("the clock of %s does not move: is the server one of ClockBuild?", n.Name)
}

// jumps are where the clock is set, in turn, each ahead of the machine's.
var jumps = []time.Duration{10 * time.Minute, -10 * time.Minute, -24 * time.Hour, 0, 365 * 24 * time.Hour, 0}

// runClock is G5 on one node: the clock jumps while clients work.
func runClock(ctx context.Context, t *Trial) error {
	binary, err := t.ClockBuild(ctx)
	if err != nil {
		return err
	}
	r, err := t.NewRig(RigOptions{Binary: binary, Config: func(yaml string) string {
		return strings.Replace(yaml, "access_token_lifetime: 6h", "access_token_lifetime: 15m", 1)
	}})
	if err != nil {
		return err
	}
	defer r.Close()
	n := r.Nodes[0]
	if err := n.SetClock(0); err != nil {
		return err
	}
	if _, err := n.Start(ctx); err != nil {
		return err
	}
	p := &clockTrial{t, r, n}
	was := time.Duration(0)
	for i, jump := range jumps {
		if err := p.jump(ctx, fmt.Sprint("traveller-", i), was, jump); err != nil {
			return err
		}
		was = jump
	}
	// Whatever was issued at whatever time has an end.
	if err := n.SetClock(3 * 365 * 24 * time.Hour); err != nil {
		return err
	}
	census, err := p.collected(ctx)
	if err != nil {
		return err
	}
	t.Note("%d jumps; %d families are left after three years", len(jumps), len(census.Families))
	if len(census.Families) > 0 {
		t.Fail("after three years there are families: %v", census.Families)
	}
	p.works(ctx, "after three years", "late")
	// The rules about time do not hold of a clock that jumps; the others do.
	t.judged(slices.DeleteFunc(Check(r.History, standardRules), func(v Violation) bool { return v.Rule != "R6" && v.Rule != "R7" }))
	t.judgeLogs(r)
	t.Note("%d requests", r.History.Len())
	return nil
}

type clockTrial struct {
	*Trial
	r *Rig
	n *Node
}

// jump moves the clock while clients work, and checks what must hold of what
// was before and of what comes then.
func (p *clockTrial) jump(ctx context.Context, user string, from, to time.Duration) error {
	what := fmt.Sprintf("clock from %s to %s", from, to)
	d := p.signIn(ctx, what, user)
	if d == nil {
		return nil
	}
	first := d.Refresh
	op, tokens := p.r.Refresh(ctx, p.n, user, miniProgram, d.family, first)
	if op.Outcome != OK {
		p.Fail("%s: refresh before it: %s", what, op)
		return nil
	}
	d.follow(tokens)
	load := NewLoad(p.r, 4, p.Rand.Uint64())
	load.Calm, load.Cuts = true, false
	working, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { load.Run(working); close(done) }()
	pause(ctx, 200*time.Millisecond)
	err := p.n.SetClock(to)
	pause(ctx, 500*time.Millisecond)
	stop()
	<-done
	if err != nil {
		return err
	}
	// The refresh token before: by the store's clock.
	moved := to - from
	again, _ := p.r.Refresh(ctx, p.n, user, miniProgram, d.family, first)
	switch {
	case moved <= 0 && (again.Outcome != OK || again.Issued != fingerprint(d.Refresh)):
		p.Fail("%s: a repeat within the grace: %s", what, again)
	case moved > grace && again.Outcome != Denied:
		p.Fail("%s: a repeat after the grace: %s", what, again)
	}
	active := p.r.Introspect(ctx, p.n, user, miniProgram, d.family, d.Access)
	if moved > 0 && active.Outcome != Denied {
		p.Fail("%s: the family lives although its token was reused: %s", what, active)
	}
	if moved <= 0 && active.Outcome != OK {
		p.Fail("%s: an access token that has not expired: %s", what, active)
	}
	p.works(ctx, what, user)
	return nil
}

func (p *clockTrial) signIn(ctx context.Context, what, user string) *device {
	code, err := p.r.Sim.Login(appID, user)
	if err != nil {
		panic(err) // the app is there
	}
	op, tokens := p.r.SignIn(ctx, p.n, user, code, "")
	if op.Outcome != OK {
		p.Fail("%s: sign-in: %s", what, op)
		return nil
	}
	return &device{user: user, client: miniProgram, family: op.Family, sub: op.Sub, Tokens: tokens}
}

// works checks a whole life: sign-in, signature, refresh, revocation.
func (p *clockTrial) works(ctx context.Context, what, user string) {
	d := p.signIn(ctx, what, user)
	if d == nil {
		return
	}
	if err := p.published(ctx, d.Access); err != nil {
		p.Fail("%s: %v", what, err)
	}
	if op := p.r.Introspect(ctx, p.n, user, miniProgram, d.family, d.Access); op.Outcome != OK {
		p.Fail("%s: a fresh access token: %s", what, op)
	}
	if op := p.r.UserInfo(ctx, p.n, user, miniProgram, d.family, d.Access); op.Outcome != OK {
		p.Fail("%s: UserInfo: %s", what, op)
	}
	op, tokens := p.r.Refresh(ctx, p.n, user, miniProgram, d.family, d.Refresh)
	if op.Outcome != OK {
		p.Fail("%s: a fresh refresh token: %s", what, op)
	}
	d.follow(tokens)
	if op := p.r.Revoke(ctx, p.n, Revoke, user, miniProgram, d.family, d.Refresh); op.Outcome != OK {
		p.Fail("%s: revocation: %s", what, op)
	}
	if op := p.r.Introspect(ctx, p.n, user, miniProgram, d.family, d.Access); op.Outcome != Denied {
		p.Fail("%s: a revoked family: %s", what, op)
	}
}

// published checks that the key which signed a token is in the JWK Set.
func (p *clockTrial) published(ctx context.Context, token string) error {
	head, _, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return err
	}
	var header struct{ KID string }
	if err := json.Unmarshal(raw, &header); err != nil {
		return err
	}
	op := &Op{Kind: Other, Node: p.n.Name}
	answer := p.r.send(ctx, p.r.http, op, p.r.url(p.n, "/.well-known/jwks.json"), nil, nil)
	p.r.History.Add(op)
	var set struct{ Keys []struct{ KID string } }
	if err := json.Unmarshal(answer.body, &set); err != nil {
		return err
	}
	for _, key := range set.Keys {
		if key.KID == header.KID {
			return nil
		}
	}
	return fmt.Errorf("the key %s that signs is not among the %d of the JWK Set", header.KID, len(set.Keys))
}

// collected waits until the collector has removed every family.
func (p *clockTrial) collected(ctx context.Context) (census Census, err error) {
	for begin := time.Now(); time.Since(begin) < 30*time.Second; pause(ctx, 500*time.Millisecond) {
		if census, err = p.r.Census(ctx, p.n); err != nil || len(census.Families) == 0 {
			break
		}
	}
	return census, err
}
