package keys

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

type issued struct {
	token string
	kid   string
	exp   time.Time
}

// model watches the nodes of a world as validators and resource servers do.
type model struct {
	nodes      []*Ring
	validators []*validator
	life       time.Duration
	live       []issued
	rotations  map[string]int
	kids       map[string]string    // last seen current, by alg
	last       map[string]time.Time // when a key was last seen signing
	steps      int
	checks     int
}

func newModel(life time.Duration, nodes ...*Ring) *model {
	m := &model{nodes: nodes, life: life, rotations: map[string]int{}, kids: map[string]string{}, last: map[string]time.Time{}}
	for range 3 {
		m.validators = append(m.validators, &validator{})
	}
	return m
}

// observe checks, at one instant, every token that is not expired and every
// kid that could be met, against every validator's cached set.
func (m *model) observe(t *testing.T, step time.Duration) {
	t.Helper()
	m.steps++
	for i, v := range m.validators {
		// Staggered, so that sets of every age up to max-age are about.
		if m.steps > i*7 {
			v.refresh(t, m.nodes[(m.steps+i)%len(m.nodes)])
		}
	}
	for n, node := range m.nodes {
		for alg, key := range node.snap.Load().current {
			m.meet(t, key.id)
			changed := n == 0 && m.kids[alg] != key.id
			if changed {
				m.rotations[alg]++
				m.kids[alg] = key.id
			}
			// Any kid met is looked up each time; signatures take longer.
			if changed || m.steps%10 == 0 && alg != RS256 || m.steps%100 == 0 {
				token := sign(t, node, alg, "at+jwt", `{"sub":"u"}`)
				m.check(t, token)
				m.live = append(m.live, issued{token, key.id, time.Now().Add(m.life)})
			}
			m.last[key.id] = time.Now()
		}
	}
	for kid, at := range m.last {
		if time.Since(at) >= m.life {
			delete(m.last, kid)
			continue
		}
		m.meet(t, kid)
	}
	m.live = slices.DeleteFunc(m.live, func(i issued) bool {
		if i.exp.After(time.Now().Add(step)) {
			return false
		}
		m.check(t, i.token) // for the last time before it expires
		return true
	})
}

func (m *model) meet(t *testing.T, kid string) {
	t.Helper()
	for _, v := range m.validators {
		if !v.until.IsZero() && !v.knows(kid) {
			t.Fatalf("%v: validator met unknown kid %s", time.Now(), kid)
		}
	}
}

// check verifies token with one validator and one node, each in its turn.
func (m *model) check(t *testing.T, token string) {
	t.Helper()
	m.checks++
	if v := m.validators[m.checks%len(m.validators)]; !v.until.IsZero() {
		v.verifies(t, token)
	}
	node := m.nodes[(m.checks/len(m.validators))%len(m.nodes)]
	if _, err := node.Verify(token, "at+jwt"); err != nil {
		t.Fatalf("%v: a node refuses a live token: %v", time.Now(), err)
	}
}

// within lets d pass, observing every step.
func (m *model) within(t *testing.T, d, step time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(step) {
		m.observe(t, step)
	}
}

func TestThreat36NoValidatorMeetsAnUnknownKid(t *testing.T) {
	rsaPool()
	for _, tc := range []struct {
		name         string
		settings     Settings
		poll         time.Duration
		span, step   time.Duration
		nodes        int
		minRotations int
	}{
		{"a year of defaults", defaults(), time.Hour, 365 * 24 * time.Hour, time.Hour, 1, 12},
		{"lead longer than the signing time",
			Settings{time.Hour, 5 * time.Hour, 3 * time.Hour, 24 * time.Hour, false},
			time.Minute, 60 * time.Hour, 7 * time.Minute, 1, 10},
		{"tokens outlive rotations",
			Settings{30 * time.Minute, 4 * time.Minute, 2 * time.Hour, 24 * time.Hour, true},
			10 * time.Second, 5 * time.Hour, 67 * time.Second, 2, 8},
		{"very short",
			Settings{time.Minute, 2 * time.Second, 50 * time.Second, time.Minute, false},
			time.Second, 30 * time.Minute, time.Second, 2, 28},
		{"three nodes, slow poll",
			Settings{24 * time.Hour, 2 * time.Hour, 15 * time.Minute, 48 * time.Hour, false},
			5 * time.Minute, 15 * 24 * time.Hour, 11 * time.Minute, 3, 13},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tc.settings)
				w.options.PollEvery = tc.poll
				var nodes []*Ring
				for i := range tc.nodes {
					node := w.open(t)
					nodes = append(nodes, node)
					defer run(t, node)()
					time.Sleep(tc.poll * time.Duration(i+1) / 7) // their polls are out of step
				}
				m := newModel(tc.settings.TokenLifetime, nodes...)
				m.within(t, tc.span, tc.step)
				for alg, n := range m.rotations {
					if n-1 < tc.minRotations {
						t.Errorf("%s rotated %d times, want at least %d", alg, n-1, tc.minRotations)
					}
				}
				if n := len(nodes[0].List()); n > 4*(3+int(tc.settings.RefreshLifetime/tc.settings.RotateEvery)+6) {
					t.Errorf("%d keys have piled up", n)
				}
			})
		})
	}
}

func TestNextKeyWaitsUntilItWasServed(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, defaults())
		w.options.PollEvery = time.Minute
		node := w.open(t)
		first, second := current(t, node, ES256), inState(t, node, ES256, StateNext)

		// Nothing serves it: no Run. Opening again and again for longer than
		// RotateEvery must not let the unserved key sign.
		for range 4 {
			time.Sleep(300 * time.Hour)
			node = w.open(t)
			if got := current(t, node, ES256); got != first {
				t.Fatalf("key %s signs without having been served", got)
			}
		}
		stop := run(t, node)
		defer stop()
		m := newModel(time.Hour, node)
		m.within(t, 24*time.Hour-10*time.Minute, 10*time.Minute)
		if got := current(t, node, ES256); got != first {
			t.Fatalf("key %s signs before it was served for PublishAhead", got)
		}
		m.within(t, 20*time.Minute, time.Minute)
		if got := current(t, node, ES256); got != second {
			t.Fatalf("overdue rotation did not happen once the next key was served long enough")
		}
	})
}

func TestDowntime(t *testing.T) {
	rsaPool()
	for _, down := range []time.Duration{time.Minute, time.Hour, 23 * time.Hour, 25 * time.Hour, 60 * 24 * time.Hour} {
		for _, before := range []time.Duration{time.Second, 5 * time.Hour, 719 * time.Hour} {
			t.Run(fmt.Sprintf("up %s, down %s", before, down), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, defaults())
					w.options.PollEvery = 15 * time.Minute
					node := w.open(t)
					stop := run(t, node)
					m := newModel(time.Hour, node)
					m.within(t, before, max(before/40, time.Second))
					stop()
					first := current(t, node, ES256)

					time.Sleep(down)
					node = w.open(t)
					m.nodes = []*Ring{node}
					// What expired meanwhile need not verify; the rest must.
					m.live = slices.DeleteFunc(m.live, func(i issued) bool { return !i.exp.After(time.Now()) })
					stop = run(t, node)
					defer stop()
					m.within(t, 4*time.Hour, 4*time.Minute)

					// A key served before the downtime needs no further waiting.
					rotated, due := current(t, node, ES256) != first, before+down+4*time.Hour > 720*time.Hour
					if due && down > 24*time.Hour && !rotated {
						t.Error("an overdue rotation waits although the next key was served long before")
					}
					if !due && rotated {
						t.Error("rotated before its time")
					}
				})
			})
		}
	}
}

// A crash between making a key and serving it.
func TestKeyMadeButNeverServedBeforeACrash(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, defaults())
		w.options.PollEvery = time.Minute
		node := w.open(t)
		stop := run(t, node)
		m := newModel(time.Hour, node)
		m.within(t, 48*time.Hour, time.Hour)
		stop()
		if err := node.Rotate(t.Context(), ES256); err != nil {
			t.Fatal(err)
		}
		// The new next key is in the store, and nobody has served it. The
		// caches filled just now do not have it.
		second := current(t, node, ES256)
		time.Sleep(730 * time.Hour)
		node = w.open(t)
		m.nodes, m.live = []*Ring{node}, nil
		for i := range m.validators {
			m.validators[i] = &validator{}
		}
		defer run(t, node)()
		m.within(t, 23*time.Hour, 5*time.Minute)
		if got := current(t, node, ES256); got != second {
			t.Fatal("a key signs that was not served for PublishAhead")
		}
		m.within(t, 2*time.Hour, 5*time.Minute)
		if got := current(t, node, ES256); got == second {
			t.Fatal("the overdue rotation did not happen")
		}
	})
}

func TestRotationHappensOnceWithManyNodes(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, defaults())
		w.options.PollEvery = 30 * time.Minute
		var nodes []*Ring
		for range 5 { // all in step: every round is a race
			node := w.open(t)
			nodes = append(nodes, node)
			defer run(t, node)()
		}
		time.Sleep(719 * time.Hour)
		before := len(nodes[0].List())
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		want := nodes[0].List()
		for _, node := range nodes {
			if !slices.Equal(node.List(), want) {
				t.Errorf("nodes differ:\n%+v\n%+v", node.List(), want)
			}
			if node.JWKS().ETag != nodes[0].JWKS().ETag {
				t.Error("nodes serve different JWK Sets")
			}
		}
		// Four rings took one step each: four new keys, and the previous
		// signing keys are still within their hour and a bit.
		states := map[string]int{}
		for _, info := range want {
			states[info.Alg+" "+info.State]++
		}
		for _, alg := range algorithms {
			if states[alg+" current"] != 1 || states[alg+" next"] != 1 || states[alg+" previous"] > 1 {
				t.Errorf("%s: %v", alg, states)
			}
		}
		if before != 8 || inState(t, nodes[0], MAC, StateCurrent) != "mac-2" {
			t.Errorf("%d keys before, MAC %s after", before, inState(t, nodes[0], MAC, StateCurrent))
		}
	})
}

func TestFirstStartRace(t *testing.T) {
	w := newWorld(t, defaults())
	rings := make(chan *Ring)
	for range 6 {
		go func() {
			r, err := open(t.Context(), w.options, w.signers)
			if err != nil {
				t.Error(err)
			}
			rings <- r
		}()
	}
	etags := map[string]bool{}
	for range 6 {
		if r := <-rings; r != nil {
			etags[r.JWKS().ETag] = true
		}
	}
	if _, swaps := w.store.state(); swaps != 1 || len(etags) != 1 {
		t.Errorf("%d documents written, %d sets served; want one", swaps, len(etags))
	}
}
