package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// What a client knows of a sign-in. An operation whose answer was lost is
// neither done nor undone until a later answer tells.
type fate int

const (
	alive   fate = iota // acknowledged, and not ended by us
	ended               // a revocation was acknowledged
	unknown             // a revocation was sent and its answer lost
)

// device is one sign-in as its client sees it.
type device struct {
	user    string
	sub     string
	access  string
	refresh string // the newest that was acknowledged
	fate    fate
}

// lostSignIn is a sign-in whose answer never came; its client will repeat it.
type lostSignIn struct {
	user, key string
	form      url.Values
}

// fleet is a number of clients with their history, and the checker of what
// the server may and may not answer them.
type fleet struct {
	s      *testServer
	failed *failures

	mu      sync.Mutex // guards the fields below
	devices []*device
	lost    []lostSignIn
	subs    map[string]string // by user: acknowledged once, valid for ever
	done    map[string]int    // acknowledged operations, by kind
}

func newFleet(s *testServer) *fleet {
	return &fleet{s: s, failed: new(failures), subs: make(map[string]string), done: make(map[string]int)}
}

// count notes an acknowledged operation.
func (f *fleet) count(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done[kind]++
}

// add keeps a device for later checks.
func (f *fleet) add(d *device) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.devices = append(f.devices, d)
}

// who checks that a user has one sub, whatever happened in between.
func (f *fleet) who(user, sub string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.subs[user]; known == "" {
		f.subs[user] = sub
	} else if known != sub {
		f.failed.add(fmt.Sprintf("user %s was %s and is %s", user, known, sub))
	}
}

// run lets n clients work until the server is gone.
func (f *fleet) run(n int, seed uint64, stop <-chan struct{}) (wait func()) {
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if !f.client(random) {
					return
				}
			}
		})
	}
	return group.Wait
}

// client lives through one sign-in, refreshing it and perhaps ending it. It
// returns false when the server no longer answers.
func (f *fleet) client(random *rand.Rand) bool {
	// So many that none comes near WeChat's limit of sign-ins for one user.
	d := &device{user: fmt.Sprintf("user-%d", random.IntN(4000))}
	code, err := f.s.Sim.Login(testAppID, d.user)
	if err != nil {
		f.failed.add(err.Error())
		return true
	}
	attempt := lostSignIn{user: d.user, key: code, form: pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", code)}
	out, err := f.try(attempt)
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.lost = append(f.lost, attempt)
		return false
	}
	if out.Status != http.StatusOK {
		f.failed.add("sign-in: " + out.String())
		return true
	}
	f.count("sign-in")
	d.access, d.refresh = out.str("access_token"), out.str("refresh_token")
	d.sub = subOf(d.access)
	f.who(d.user, d.sub)
	defer f.add(d)
	for range random.IntN(6) {
		out, err := f.s.refresh(testClient, d.refresh)
		if err != nil {
			return false // d.refresh is the last one acknowledged
		}
		if out.Status != http.StatusOK {
			f.failed.add("refresh: " + out.String())
			return true
		}
		f.count("refresh")
		d.access, d.refresh = out.str("access_token"), out.str("refresh_token")
		if sub := subOf(d.access); sub != d.sub {
			f.failed.add(fmt.Sprintf("%s refreshed to %s", d.sub, sub))
		}
	}
	if random.IntN(3) > 0 {
		return true
	}
	d.fate = unknown
	out, err = f.s.try(http.MethodPost, f.s.Issuer+"/oauth2/revoke", pairs("client_id", testClient, "token", d.refresh))
	if err != nil {
		return false
	}
	if out.Status != http.StatusOK {
		f.failed.add("revocation: " + out.String())
		return true
	}
	d.fate = ended
	f.count("revocation")
	return true
}

// try sends a sign-in, for the first time or again.
func (f *fleet) try(attempt lostSignIn) (answer, error) {
	return f.s.try(http.MethodPost, f.s.Issuer+"/oauth2/token", attempt.form, header("Idempotency-Key", attempt.key))
}

// repeatLost repeats the sign-ins whose answers were lost. They were done or
// they were not, and stay so.
func (f *fleet) repeatLost() {
	var group sync.WaitGroup
	for _, attempt := range f.lost {
		group.Go(func() { f.repeat(attempt) })
	}
	group.Wait() // on PostgreSQL for seconds: another node might be at work on it
	f.lost = nil
}

func (f *fleet) repeat(attempt lostSignIn) {
	out, err := f.try(attempt)
	if err != nil {
		f.failed.add(err.Error())
		return
	}
	again, err := f.try(attempt)
	switch {
	case err != nil:
		f.failed.add(err.Error())
	case again.Status != out.Status || again.str("refresh_token") != out.str("refresh_token"):
		f.failed.add(fmt.Sprintf("a sign-in repeated twice: %v, then %v", out, again))
	case out.Status == http.StatusOK:
		f.count("repeated sign-in")
		d := &device{user: attempt.user, access: out.str("access_token"), refresh: out.str("refresh_token"), sub: subOf(out.str("access_token"))}
		f.who(d.user, d.sub)
		f.add(d)
	case out.Status != http.StatusBadRequest || out.str("error") != "invalid_grant":
		f.failed.add("repeated sign-in: " + out.String())
	}
}

// check asks the server about devices, and settles what was unknown.
func (f *fleet) check(devices []*device) {
	var group sync.WaitGroup
	work := make(chan *device)
	for range 4 {
		group.Go(func() {
			for d := range work {
				if err := f.checkDevice(d); err != nil {
					f.failed.add(err.Error())
				}
			}
		})
	}
	for _, d := range devices {
		work <- d
	}
	close(work)
	group.Wait()
}

func (f *fleet) checkDevice(d *device) error {
	before, err := f.active(d.access)
	if err != nil {
		return err
	}
	out, err := f.s.refresh(testClient, d.refresh)
	if err != nil {
		return err
	}
	lives := out.Status == http.StatusOK
	if !lives && (out.Status != http.StatusBadRequest || out.str("error") != "invalid_grant") {
		return fmt.Errorf("refresh after a crash: %v", out)
	}
	switch {
	case before != lives:
		return fmt.Errorf("family of %s: introspection says %v, refresh says %v", d.user, before, out)
	case d.fate == alive && !lives:
		return fmt.Errorf("lost: an acknowledged sign-in or refresh of %s: %v", d.user, out)
	case d.fate == ended && lives:
		return fmt.Errorf("revived: an acknowledged revocation of %s is undone", d.user)
	}
	d.fate = ended
	if lives {
		d.fate, d.access, d.refresh = alive, out.str("access_token"), out.str("refresh_token")
	}
	after, err := f.active(d.access)
	if err == nil && after != lives {
		err = fmt.Errorf("family of %s: refresh says %v, introspection then %v", d.user, lives, after)
	}
	return err
}

func (f *fleet) active(token string) (bool, error) {
	out, err := f.s.try(http.MethodPost, f.s.Issuer+"/oauth2/introspect", pairs("token", token), basic(testBackend, testBackendKey))
	if err != nil {
		return false, err
	}
	if out.Status != http.StatusOK {
		return false, fmt.Errorf("introspection: %v", out)
	}
	return out.JSON["active"] == true, nil
}

// subOf reads the sub of a token that the server has just issued.
func subOf(token string) string {
	payload, err := jwtPayload(token)
	if err != nil {
		return err.Error()
	}
	sub, _ := payload["sub"].(string)
	return sub
}

// crashSeed makes the moments of the kills and what clients do; a failing run
// can be repeated as far as the machine allows.
const crashSeed = 20260823

// TestKilledUnderLoad kills the server with SIGKILL at random moments while
// clients sign in, refresh and revoke, and holds it to everything that it has
// acknowledged.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	s := prepareServer(t, withoutLimits())
	random := rand.New(rand.NewPCG(crashSeed, 0))
	fleet := newFleet(s)
	rounds, budget := 50, 6*time.Minute
	switch {
	case testing.Short():
		rounds = 8
	case testsOnPostgres():
		rounds = 12 // what was lost is repeated for ten seconds in each
	}
	var starts []time.Duration
	begin := time.Now()
	round := 0
	for ; round < rounds && time.Since(begin) < budget; round++ {
		started := time.Now()
		c := serveChild(t, s)
		starts = append(starts, time.Since(started))
		fleet.checkRound(random) // first, while the grace for lost answers lasts
		fleet.repeatLost()
		fleet.failed.report(t, fmt.Sprintf("after kill %d", round))
		if t.Failed() {
			return
		}
		stop := make(chan struct{})
		wait := fleet.run(6, random.Uint64(), stop)
		time.Sleep(200*time.Millisecond + time.Duration(random.IntN(1000))*time.Millisecond)
		c.Kill()
		close(stop)
		wait()
		if t.Failed() {
			return
		}
	}
	serveChild(t, s)
	fleet.checkRound(random)
	fleet.repeatLost()
	random.Shuffle(len(fleet.devices), func(i, j int) { fleet.devices[i], fleet.devices[j] = fleet.devices[j], fleet.devices[i] })
	fleet.check(fleet.devices[:min(len(fleet.devices), 2000)])
	fleet.failed.report(t, "at the end")
	slices.Sort(starts)
	t.Logf("%d kills; acknowledged: %v; ready after %v, at most %v", round, fleet.done, starts[len(starts)/2], starts[len(starts)-1])
	if round < rounds {
		t.Errorf("the time was up after %d of %d kills", round, rounds)
	}
	// The half of all starts: single ones may have met a busy machine.
	if median := starts[len(starts)/2]; median > 3*time.Second {
		t.Errorf("ready after %v", median)
	}
	for _, kind := range []string{"sign-in", "refresh", "revocation"} {
		if fleet.done[kind] < round {
			t.Errorf("only %d acknowledged operations of kind %s: no load", fleet.done[kind], kind)
		}
	}
}

// checkRound checks all that was not yet checked since its last operation, and
// a sample of what was: what was settled must stay so.
func (f *fleet) checkRound(random *rand.Rand) {
	const fresh, sample = 150, 30
	devices := f.devices
	newest := devices[max(0, len(devices)-fresh):]
	check := slices.Clone(newest)
	older := devices[:len(devices)-len(newest)]
	for range min(sample, len(older)) {
		if d := older[random.IntN(len(older))]; !slices.Contains(check, d) {
			check = append(check, d)
		}
	}
	f.check(check)
}

// TestCrashCheckerSeesLies: a server that forgets what it acknowledged, as one
// does that never waits for its disk, must be found out.
func TestCrashCheckerSeesLies(t *testing.T) {
	aboutDataFile(t)
	s := prepareServer(t, withoutLimits())
	fleet := newFleet(s)
	c := serveChild(t, s)
	random := rand.New(rand.NewPCG(crashSeed, 1))
	for len(fleet.devices) < 10 {
		fleet.client(random)
	}
	fleet.check(fleet.devices)
	fleet.failed.report(t, "before the lie")
	c.Kill()
	path := filepath.Join(s.Dir, "data", "wxidp.db")
	earlier, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c = serveChild(t, s)
	for _, d := range fleet.devices {
		if d.fate == alive {
			if out := s.Do(http.MethodPost, s.Issuer+"/oauth2/revoke", pairs("client_id", testClient, "token", d.refresh)); out.Status != http.StatusOK {
				t.Fatal(out)
			}
			d.fate = ended
		}
	}
	for len(fleet.devices) < 25 {
		fleet.client(random)
	}
	c.Kill()
	if err := os.WriteFile(path, earlier, 0o600); err != nil {
		t.Fatal(err)
	}
	serveChild(t, s)
	fleet.check(fleet.devices)
	lost, revived := 0, 0
	for _, text := range fleet.failed.all() {
		if strings.HasPrefix(text, "lost") {
			lost++
		}
		if strings.HasPrefix(text, "revived") {
			revived++
		}
	}
	if lost == 0 || revived == 0 {
		t.Errorf("the checker saw %d lost and %d revived families after the store was put back", lost, revived)
	}
}
