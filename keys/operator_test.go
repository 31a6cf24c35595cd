package keys

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRotateByOperator(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, defaults())
		w.options.PollEvery = time.Minute
		a, b := w.open(t), w.open(t)
		defer run(t, a)()
		defer run(t, b)()
		time.Sleep(time.Hour)
		m := newModel(time.Hour, a, b)
		m.within(t, time.Hour, 10*time.Minute)

		// Too early: promised, not done.
		first, second := current(t, a, ES256), inState(t, a, ES256, StateNext)
		err := a.Rotate(t.Context(), ES256)
		var scheduled *ScheduledError
		if !errors.As(err, &scheduled) || !slices.Equal(scheduled.Algs, []string{ES256}) {
			t.Fatalf("Rotate = %v", err)
		}
		if wait := time.Until(scheduled.At); wait < 21*time.Hour || wait > 22*time.Hour {
			t.Errorf("scheduled in %s", wait)
		}
		if got := a.List()[0]; got.ID != first || !got.RetiresAt.Equal(scheduled.At) || got.State != StateCurrent {
			t.Errorf("the list does not tell of it: %+v", got)
		}
		m.within(t, time.Until(scheduled.At).Truncate(10*time.Minute)-10*time.Minute, 10*time.Minute)
		if current(t, b, ES256) != first {
			t.Fatal("rotated before its time")
		}
		m.within(t, 40*time.Minute, time.Minute)
		if current(t, a, ES256) != second || current(t, b, ES256) != second {
			t.Fatal("the scheduled rotation did not happen on both nodes")
		}

		// ES256 has just rotated; the others are ready.
		before := map[string]string{}
		for _, alg := range algorithms {
			before[alg] = current(t, a, alg)
		}
		err = b.Rotate(t.Context(), "")
		if !errors.As(err, &scheduled) || !slices.Equal(scheduled.Algs, []string{ES256}) {
			t.Errorf("Rotate = %v", err)
		}
		for _, alg := range algorithms {
			if changed := current(t, b, alg) != before[alg]; changed != (alg != ES256) {
				t.Errorf("%s: changed at once is %t", alg, changed)
			}
		}
		m.within(t, 26*time.Hour, 10*time.Minute)
		if current(t, a, ES256) == second {
			t.Error("the second scheduled rotation did not happen")
		}

		for _, alg := range []string{"none", "HS256", "es256"} {
			if err := a.Rotate(t.Context(), alg); err == nil {
				t.Errorf("Rotate(%q) succeeded", alg)
			}
		}
	})
}

func TestRotateOfADisabledAlgorithm(t *testing.T) {
	settings := defaults()
	settings.EdDSA = false
	r := newWorld(t, settings).open(t)
	if err := r.Rotate(t.Context(), EdDSA); !errors.Is(err, ErrNoKey) {
		t.Errorf("Rotate = %v", err)
	}
}

func TestThreat36RevokedKeyIsGoneEverywhere(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, defaults())
		var log syncBuffer
		w.logTo(&log)
		w.options.PollEvery = 50 * time.Second
		a, b := w.open(t), w.open(t)
		defer run(t, a)()
		time.Sleep(17 * time.Second)
		defer run(t, b)()
		time.Sleep(25 * time.Hour)
		if err := a.Rotate(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(w.options.PollEvery)

		for _, alg := range []string{ES256, RS256, EdDSA} {
			for _, state := range []string{StatePrevious, StateNext, StateCurrent, StateCurrent} {
				victim, successor := inState(t, a, alg, state), inState(t, a, alg, StateNext)
				key := a.snap.Load().keys[victim]
				token := forge(t, key, `{"alg":"`+alg+`","kid":"`+victim+`","typ":"JWT"}`, `{}`)
				kept := sign(t, a, alg, "JWT", "{}")
				for _, node := range []*Ring{a, b} {
					if _, err := node.Verify(token, "JWT"); err != nil {
						t.Fatal(err)
					}
				}
				if err := a.Revoke(t.Context(), victim); err != nil {
					t.Fatal(err)
				}
				gone := func(name string, node *Ring) {
					refused(t, node, name+" after revoking "+state, token, "unknown kid")
					if strings.Contains(string(node.JWKS().Body), victim) {
						t.Errorf("%s still publishes the revoked %s key", name, state)
					}
					if strings.Contains(sign(t, node, alg, "JWT", "{}"), key.headers["JWT"]) {
						t.Errorf("%s still signs with the revoked key", name)
					}
				}
				gone("the node itself", a)
				if state == StateCurrent && current(t, a, alg) != successor {
					t.Errorf("%s: the next key did not take over", alg)
				}
				if next := inState(t, a, alg, StateNext); next == victim || next == successor && state == StateCurrent {
					t.Errorf("%s: no new next key after revoking %s", alg, state)
				}
				time.Sleep(w.options.PollEvery)
				synctest.Wait()
				gone("the other node", b)
				if a.JWKS().ETag != b.JWKS().ETag {
					t.Error("the nodes serve different sets")
				}
				if state != StateCurrent {
					if _, err := b.Verify(kept, "JWT"); err != nil {
						t.Errorf("revoking the %s key broke another: %v", state, err)
					}
				}
			}
		}
		if got := strings.Count(log.String(), `"event":"keys.revoked"`); got != 12 {
			t.Errorf("%d revocations logged", got)
		}
		// Nothing of it comes back, by restart or by rotation.
		before := len(w.open(t).List())
		if before != len(a.List()) {
			t.Error("a restart changed the list")
		}
	})
}

func TestRevokeMACKeys(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, defaults())
		a := w.open(t)
		defer run(t, a)()
		time.Sleep(time.Minute)
		if err := a.Rotate(t.Context(), MAC); err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			id             string
			current        uint32 // afterwards
			present, never []uint32
		}{
			{"mac-1", 2, []uint32{2, 3}, []uint32{1}},          // previous
			{"mac-3", 2, []uint32{2, 4}, []uint32{1, 3}},       // next
			{"mac-2", 4, []uint32{4, 5}, []uint32{1, 2, 3}},    // current
			{"mac-4", 5, []uint32{5, 6}, []uint32{1, 2, 3, 4}}, // current, next just made
		} {
			if err := a.Revoke(t.Context(), tc.id); err != nil {
				t.Fatal(err)
			}
			if got := a.MACKey(); got.ID != tc.current || got.Key == [32]byte{} {
				t.Errorf("after %s the current key is %d, want %d", tc.id, got.ID, tc.current)
			}
			for _, id := range tc.present {
				if _, ok := a.MACKeyByID(id); !ok {
					t.Errorf("after %s key %d is gone", tc.id, id)
				}
			}
			for _, id := range tc.never {
				if _, ok := a.MACKeyByID(id); ok {
					t.Errorf("after %s key %d is still there", tc.id, id)
				}
			}
		}
		for _, id := range []string{"", "mac-1", "mac-0", "mac-05", "mac-5\n", "nope", strings.Repeat("x", 1<<20)} {
			err := a.Revoke(t.Context(), id)
			if !errors.Is(err, ErrUnknownKey) || len(err.Error()) > 400 {
				t.Errorf("Revoke(%.20q) = %.400v", id, err)
			}
		}
	})
}

func TestListAndAges(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, defaults())
		w.options.PollEvery = time.Minute
		r := w.open(t)
		start := time.Now()
		defer run(t, r)()
		time.Sleep(30 * time.Hour)
		if err := r.Rotate(t.Context(), ES256); err != nil {
			t.Fatal(err)
		}
		rotated := time.Now()
		time.Sleep(10 * time.Minute)
		list := r.List()
		if len(list) != 9 {
			t.Fatalf("%d keys", len(list))
		}
		var es []string
		for _, info := range list[:3] {
			es = append(es, info.Alg+" "+info.State)
		}
		if !slices.Equal(es, []string{"ES256 current", "ES256 next", "ES256 previous"}) {
			t.Errorf("order %v", es)
		}
		now, next, old := list[0], list[1], list[2]
		if !now.SigningSince.Equal(rotated) || !now.RetiresAt.Equal(rotated.Add(720*time.Hour)) ||
			!now.ServedSince.Equal(start) || !now.Created.Equal(start) {
			t.Errorf("current: %+v", now)
		}
		if !next.Created.Equal(rotated) || next.ServedSince.Before(rotated) || !next.SignsFrom.Equal(now.RetiresAt) {
			t.Errorf("next: %+v", next)
		}
		if !old.RetiresAt.Equal(rotated) || old.RemovedAt.Sub(rotated) != time.Hour+time.Minute+2*time.Minute {
			t.Errorf("previous: %+v", old)
		}
		raw, err := json.Marshal(next)
		if err != nil || strings.Contains(string(raw), "0001-01-01") || strings.Contains(string(raw), "signing_since") {
			t.Errorf("%s, %v", raw, err)
		}

		ages := r.Ages()
		if len(ages) != 4 || ages[ES256].Current != 10*time.Minute || ages[RS256].Current != 30*time.Hour+10*time.Minute {
			t.Errorf("ages %v", ages)
		}
		if got := ages[ES256].NextRotation; got != 720*time.Hour-10*time.Minute {
			t.Errorf("next rotation in %s", got)
		}
		if got := r.Staleness(); got > time.Minute {
			t.Errorf("stale for %s", got)
		}
	})
}
