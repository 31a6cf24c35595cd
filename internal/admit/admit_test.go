package admit

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(2)
		for range 2 {
			if err := g.Enter(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		if err := g.Enter(t.Context()); !errors.Is(err, ErrOverloaded) || time.Since(begin) != patience {
			t.Errorf("a third: %v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := g.Enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one who hangs up: %v", err)
		}
		go func() {
			time.Sleep(20 * time.Millisecond)
			g.Leave()
		}()
		begin = time.Now()
		if err := g.Enter(t.Context()); err != nil || time.Since(begin) != 20*time.Millisecond {
			t.Errorf("after one has left: %v after %v", err, time.Since(begin))
		}
		g.Leave()
		g.Leave()
		if g.busy != 0 || g.waiting.Len() != 0 {
			t.Errorf("%d slots in use, %d waiting", g.busy, g.waiting.Len())
		}
	})
}

// TestOverload: ten times the requests that can be done get the server to
// do as many as it can, each of them soon, and to turn the others away at once.
func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slots, work = 10, 10 * time.Millisecond // 1000 per second
		g := New(slots)
		var mu sync.Mutex
		var done, refused int
		var slowest, slowestRefusal time.Duration
		var group sync.WaitGroup
		begin := time.Now()
		for range 20_000 { // 10000 per second
			time.Sleep(100 * time.Microsecond)
			group.Go(func() {
				came := time.Now()
				err := g.Enter(t.Context())
				if err == nil {
					time.Sleep(work)
					g.Leave()
				}
				mu.Lock()
				defer mu.Unlock()
				late := time.Since(begin) > time.Second // when it is no burst any more
				switch {
				case err == nil:
					done++
					if late {
						slowest = max(slowest, time.Since(came))
					}
				default:
					refused++
					if late {
						slowestRefusal = max(slowestRefusal, time.Since(came))
					}
				}
			})
		}
		group.Wait()
		if done < 1990 || done+refused != 20_000 {
			t.Errorf("%d done and %d refused in %v", done, refused, time.Since(begin))
		}
		if slowest > work+impatience || slowestRefusal > impatience {
			t.Errorf("the slowest took %v, the slowest refusal %v", slowest, slowestRefusal)
		}
	})
}

// TestBurst: what comes at once and can be worked off soon is not turned away.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(10)
		var group sync.WaitGroup
		var failed sync.Map
		for i := range 400 {
			group.Go(func() {
				if err := g.Enter(t.Context()); err != nil {
					failed.Store(i, err)
					return
				}
				time.Sleep(10 * time.Millisecond)
				g.Leave()
			})
		}
		group.Wait()
		failed.Range(func(i, err any) bool { t.Errorf("request %v: %v", i, err); return true })
	})
}
