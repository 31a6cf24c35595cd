package accounts

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/limit"
	"github.com/wxidp/wxidp/internal/limit/limittest"
)

// guards returns the guards of n nodes that tell each other.
func guards(t *testing.T, board *limittest.Board, n int, rates GuardRates) []*Guard {
	all := make([]*Guard, n)
	for i := range all {
		all[i] = NewGuard(rates)
		limittest.Node(t, board, nil, func(x *limit.Exchange) { x.Register("passwords", all[i]) })
	}
	exchange()
	return all
}

// exchange waits until every node has heard what the others have told.
func exchange() {
	time.Sleep(250 * time.Millisecond)
	synctest.Wait()
}

func begin(t *testing.T, g *Guard, account string) *Attempt {
	t.Helper()
	a, err := g.Begin(account, homeIP)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Who guesses at several nodes gets one budget, and what fits between two
// exchanges.
func TestThreat53GuessingAcrossNodes(t *testing.T) {
	for _, n := range []int{2, 5} {
		synctest.Test(t, func(t *testing.T) {
			nodes := guards(t, new(limittest.Board), n, DefaultGuardRates())
			let := 0
			for i := range 200 { // each guess takes a hash's time
				let += fail(nodes[i%n], "u", homeIP, 1)
				time.Sleep(50 * time.Millisecond)
			}
			if let < 10 || let > 10+4 {
				t.Errorf("%d nodes: %d guesses from one address were let through, want 10 and at most 4 of one exchange", n, let)
			}
			let = 0
			for i := range 2000 {
				let += fail(nodes[i%n], "v", address(i), 1)
				time.Sleep(20 * time.Millisecond)
			}
			if let < 100 || let > 100+10 {
				t.Errorf("%d nodes: %d guesses at one account were let through, want 100 and at most 10 of one exchange", n, let)
			}
			let = 0
			for i := range 2000 {
				let += fail(nodes[i%n], "w"+strconv.Itoa(i), address(9999), 1)
				time.Sleep(20 * time.Millisecond)
			}
			if let < 300 || let > 300+10 {
				t.Errorf("%d nodes: %d guesses from one address were let through, want 300 and at most 10 of one exchange", n, let)
			}
			// At once everywhere: each node's own budget, and nothing afterwards.
			let = 0
			for range 100 {
				for _, g := range nodes {
					let += fail(g, "x", address(7), 20)
				}
				time.Sleep(time.Second)
			}
			if let > 10*n {
				t.Errorf("%d nodes: %d guesses at once, want at most %d", n, let, 10*n)
			}
		})
	}
}

// Right passwords use up nothing anywhere, whether the others heard of the
// attempt meanwhile or not.
func TestSuccessesAcrossNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := guards(t, new(limittest.Board), 3, GuardRates{PerAccountIP: 3, PerAccount: 4, PerIP: 5, Window: time.Minute})
		for i := range 60 {
			a := begin(t, nodes[i%3], "u")
			time.Sleep(time.Duration(i%5) * 60 * time.Millisecond)
			if i%2 == 0 {
				a.Succeeded()
			} else {
				a.Withdraw()
			}
			time.Sleep(250 * time.Millisecond)
		}
		exchange()
		for i, g := range nodes {
			if n := len(g.accountIPs.entries) + len(g.accounts.entries) + len(g.ips.entries); n != 0 {
				t.Errorf("node %d still counts %d of them", i, n)
			}
		}
	})
}

// A success lets the account start anew for the address, and speaks for it, on
// every node.
func TestSuccessSpeaksOnEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := guards(t, new(limittest.Board), 2, DefaultGuardRates())
		fail(nodes[0], "u", homeIP, 5)
		fail(nodes[1], "u", homeIP, 4)
		exchange()
		begin(t, nodes[0], "u").Succeeded()
		fail(nodes[0], "u", homeIP, 1) // after the success, and told with it
		exchange()
		if n := fail(nodes[1], "u", homeIP, 20); n != 9 {
			t.Errorf("%d more wrong ones after a success elsewhere, want 9", n)
		}
		for i := range 300 {
			fail(nodes[0], "u", address(i), 1)
		}
		exchange()
		if fail(nodes[1], "u", address(1000), 1) != 0 {
			t.Error("the flood does not count elsewhere")
		}
		begin(t, nodes[0], "v").Succeeded()
		exchange()
		for i := range 300 {
			fail(nodes[0], "v", address(i), 1)
		}
		exchange()
		begin(t, nodes[1], "v").Succeeded() // where it never succeeded before
	})
}

// While the others cannot be reached a guard counts alone; what still counts
// later is told then.
func TestGuardWithoutTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := new(limittest.Board)
		nodes := guards(t, board, 2, DefaultGuardRates())
		board.SetFault(func(int) limittest.Fault { return limittest.Lost })
		fail(nodes[0], "old", homeIP, 10)
		time.Sleep(20 * time.Minute)
		if n := fail(nodes[0], "new", homeIP, 20) + fail(nodes[1], "new", homeIP, 20); n != 20 {
			t.Errorf("%d let through by two that count alone, want 20", n)
		}
		board.SetFault(nil)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if total := nodes[1].accountIPs.total(keyOf("pair", homeIP.String(), "new"), nodes[1].span()); total != 20 {
			t.Errorf("%d count on the other node, want 20", total)
		}
		let := 0
		for i := range 300 {
			let += fail(nodes[1], "other"+strconv.Itoa(i), homeIP, 1)
		}
		if let != 300-20-10 { // the 10 were on their way when the board failed
			t.Errorf("%d more let through from the address, want 270", let)
		}
	})
}

// Whatever is heard, a guard's tables stay bounded and sound.
func TestGuardHears(t *testing.T) {
	g := NewGuard(DefaultGuardRates())
	rng := rand.New(rand.NewPCG(3, 4))
	kinds := "pais?\x00"
	for i := range 200_000 {
		key := keyOf("k", strconv.Itoa(rng.IntN(100_000)))
		g.Hear(string(kinds[i%len(kinds)])+string(key[:]), rng.Int64()>>rng.IntN(63))
		g.Hear(string(key[:rng.IntN(16)]), 1)
	}
	for _, table := range []windows{g.accountIPs, g.accounts, g.ips} {
		if len(table.entries) == 0 || len(table.entries) > maxGuardKeys {
			t.Errorf("%d keys are kept", len(table.entries))
		}
	}
	key := keyOf("ip", homeIP.String())
	hear := func(n int64) int { g.Hear("i"+string(key[:]), n); return g.ips.total(key, g.span()) }
	for _, step := range []struct {
		n    int64
		want int
	}{{5, 5}, {-2, 3}, {0, 3}, {-9, 0}, {-1, 0}, {1 << 40, 65535}, {1, 65535}, {-1 << 40, 0}, {7, 7}} {
		if got := hear(step.n); got != step.want {
			t.Errorf("%d after %+d, want %d", got, step.n, step.want)
		}
	}
}

// What is kept to be told is bounded while nobody takes it.
func TestGuardNewsAreBounded(t *testing.T) {
	g := NewGuard(GuardRates{})
	g.Tell(func(string, int64) bool { return false })
	for i := range 3 * maxGuardNews {
		a, err := g.Begin("u"+strconv.Itoa(i), address(i))
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			a.Succeeded()
		}
	}
	if len(g.news.counts) > maxGuardNews || len(g.news.successes) > maxGuardNews {
		t.Errorf("%d and %d are kept", len(g.news.counts), len(g.news.successes))
	}
	var told int
	g.Tell(func(string, int64) bool { told++; return true })
	if told == 0 || len(g.news.counts)+len(g.news.successes) != 0 {
		t.Errorf("%d told, %d left", told, len(g.news.counts)+len(g.news.successes))
	}
}

// Taking back the newest events first, against a list of all.
func TestRemoveNewest(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	table, key := newWindows(4), keyOf("k")
	var added []int64
	span := spanAt(0, time.Minute)
	for range 20_000 {
		span += rng.Int64N(1 + rng.Int64N(6))
		for len(added) > 0 && span-added[0] > spans {
			added = added[1:]
		}
		if n := 1 + rng.IntN(4); rng.IntN(3) > 0 {
			table.add(key, n, span)
			for range n {
				added = append(added, span)
			}
		} else {
			table.removeNewest(key, n, span)
			added = added[:max(0, len(added)-n)]
		}
		if got := table.total(key, span); got != len(added) {
			t.Fatalf("%d count, want %d", got, len(added))
		}
	}
}

// Attempts that end in every way on several nodes at once, against what must
// be left: the wrong ones.
func TestGuardsUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := guards(t, new(limittest.Board), 3, GuardRates{Window: time.Hour})
		var wrong atomic.Int64
		var work sync.WaitGroup
		for worker := range 12 {
			work.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(worker), 1))
				for range 300 {
					// From no address with a success, or not every attempt would count.
					a, err := nodes[rng.IntN(3)].Begin("u", address(worker))
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
					if rng.IntN(2) == 0 {
						a.Withdraw()
					} else {
						wrong.Add(1)
					}
				}
			})
		}
		work.Wait()
		exchange()
		for i, g := range nodes {
			if n := g.accounts.total(keyOf("account", "u"), g.span()); n != int(wrong.Load()) {
				t.Errorf("node %d counts %d wrong ones of %d", i, n, wrong.Load())
			}
		}
	})
}
