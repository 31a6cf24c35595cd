package keys

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A key that another node has just made is found, and one that nobody made
// costs few readings however many ask for it.
func TestLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, defaults())
		here, there := w.open(t), w.open(t)
		for _, alg := range []string{MAC, MAC, ES256, ES256} {
			if err := there.Revoke(t.Context(), current(t, there, alg)); err != nil {
				t.Fatal(err)
			}
		}
		token := sign(t, there, ES256, "JWT", "{}")
		if _, err := here.Verify(token, "JWT"); !errors.Is(err, ErrInvalidToken) {
			t.Fatalf("Verify = %v: the key is known already", err)
		}
		if _, known := here.MACKeyByID(there.MACKey().ID); known {
			t.Fatal("the MAC key is known already")
		}
		if got, err := here.VerifyLatest(t.Context(), token, "JWT"); err != nil || string(got.Payload) != "{}" {
			t.Errorf("VerifyLatest = %+v, %v", got, err)
		}
		if mac, known, err := here.MACKeyLatest(t.Context(), there.MACKey().ID); err != nil || !known || mac != there.MACKey() || here.MACKey() != mac {
			t.Errorf("MACKeyLatest: known %v, %v", known, err)
		}

		reads, begin := w.store.reads(), time.Now()
		var asking sync.WaitGroup
		for range 1000 {
			asking.Go(func() {
				if _, known, err := here.MACKeyLatest(t.Context(), 1<<20); known || err != nil {
					t.Errorf("a key that nobody made: %v, %v", known, err)
				}
			})
		}
		asking.Wait()
		if n := w.store.reads() - reads; n > 2 || time.Since(begin) > 2*lookGap {
			t.Errorf("a thousand at once took %d readings and %v", n, time.Since(begin))
		}
		if _, known, err := here.MACKeyLatest(t.Context(), 1); known || err != nil || w.store.reads()-reads > 2 {
			t.Errorf("a key that is surely gone: %v, %v, %d readings", known, err, w.store.reads()-reads)
		}

		broken := errors.New("broken")
		w.store.fail(broken)
		if _, _, err := here.MACKeyLatest(t.Context(), 1<<20); !errors.Is(err, broken) {
			t.Errorf("where the store fails: %v", err)
		}
		next := inState(t, here, MAC, StateNext)
		id, _ := (&record{ID: next}).macID()
		if _, known, err := here.MACKeyLatest(t.Context(), id); !known || err != nil {
			t.Errorf("a next key where the store fails: %v, %v", known, err)
		}
	})
}
