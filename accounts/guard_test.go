package accounts

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)})
}

// fail makes n wrong attempts and returns how many were let through.
func fail(g *Guard, account string, ip netip.Addr, n int) int {
	let := 0
	for range n {
		if _, err := g.Begin(account, ip); err == nil {
			let++
		}
	}
	return let
}

func TestThreat53GuessingByAccountAndAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(DefaultGuardRates())
		if n := fail(g, "u1", homeIP, 50); n != 10 {
			t.Fatalf("%d of 50 attempts were let through, want 10", n)
		}
		_, err := g.Begin("u1", homeIP)
		e := asError(t, err, Limited)
		if e.Scope != "account_ip" || e.RetryAfter < 15*time.Minute || e.RetryAfter > 16*time.Minute {
			t.Fatalf("%+v", e)
		}
		if n := fail(g, "u1", address(1), 1) + fail(g, "u2", homeIP, 1); n != 2 {
			t.Error("another address or account pays for it")
		}
		time.Sleep(14*time.Minute + 59*time.Second)
		if fail(g, "u1", homeIP, 1) != 0 {
			t.Error("the block ended before the window did")
		}
		time.Sleep(time.Minute + time.Second)
		if n := fail(g, "u1", homeIP, 50); n != 10 {
			t.Errorf("%d attempts after the block, want 10", n)
		}
	})
}

// The announced wait is true to the moment.
func TestThreat53RetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(DefaultGuardRates())
		time.Sleep(7*time.Minute + 13*time.Second)
		fail(g, "u", homeIP, 4)
		time.Sleep(5 * time.Minute)
		fail(g, "u", homeIP, 6)
		_, err := g.Begin("u", homeIP)
		wait := asError(t, err, Limited).RetryAfter
		time.Sleep(wait - time.Millisecond)
		if fail(g, "u", homeIP, 1) != 0 {
			t.Error("let through before the wait was over")
		}
		time.Sleep(time.Millisecond)
		if n := fail(g, "u", homeIP, 9); n != 4 {
			t.Errorf("%d let through after the wait, want the 4 that left the window", n)
		}
	})
}

func TestThreat53GuessingByAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(DefaultGuardRates())
		// The owner has signed in from home within a day.
		a, err := g.Begin("u", homeIP)
		if err != nil {
			t.Fatal(err)
		}
		a.Succeeded()
		let := 0
		for i := range 300 {
			let += fail(g, "u", address(i), 1)
		}
		if let != 100 {
			t.Errorf("%d guesses from 300 addresses were let through, want 100", let)
		}
		_, err = g.Begin("u", address(1000))
		if e := asError(t, err, Limited); e.Scope != "account" {
			t.Errorf("%+v", e)
		}
		if a, err = g.Begin("u", homeIP); err != nil {
			t.Error("the flood shuts out the owner's own address")
		} else {
			a.Succeeded()
		}
		if n := fail(g, "u", homeIP, 50); n != 10 {
			t.Errorf("%d guesses from the owner's address, want 10", n)
		}
		time.Sleep(49 * time.Hour)
		for i := range 300 {
			fail(g, "u", address(i), 1)
		}
		if fail(g, "u", homeIP, 1) != 0 {
			t.Error("a success of two days ago still speaks for an address")
		}
	})
}

func TestThreat53GuessingByAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(DefaultGuardRates())
		let := 0
		for i := range 1000 { // one password, many accounts; many addresses of one subscriber
			ip := netip.MustParseAddr("2001:db8:1:2::" + strconv.FormatInt(int64(i+1), 16))
			let += fail(g, "u"+strconv.Itoa(i), ip, 1)
		}
		if let != 300 {
			t.Errorf("%d let through, want 300", let)
		}
		_, err := g.Begin("fresh", netip.MustParseAddr("2001:db8:1:2:ffff::"))
		if e := asError(t, err, Limited); e.Scope != "ip" {
			t.Errorf("%+v", e)
		}
		if fail(g, "fresh", netip.MustParseAddr("2001:db8:1:3::1"), 1) != 1 {
			t.Error("the neighbour pays for it")
		}
	})
}

func TestThreat53ParallelGuesses(t *testing.T) {
	g := NewGuard(DefaultGuardRates())
	var let atomic.Int64
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { let.Add(int64(fail(g, "u", homeIP, 1))) })
	}
	wg.Wait()
	if let.Load() != 10 {
		t.Errorf("%d parallel guesses were let through, want 10", let.Load())
	}
}

func TestAttemptOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := func(g *Guard) *Attempt {
			a, err := g.Begin("u", homeIP)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		g := NewGuard(GuardRates{PerAccountIP: 5, PerAccount: 7, PerIP: 8, Window: time.Minute})
		for range 50 { // what was not judged does not count, in whatever span it ends
			a := begin(g)
			time.Sleep(3 * time.Second)
			a.Withdraw()
			a.Withdraw() // no matter
			a.Succeeded()
		}
		if len(g.accountIPs.entries)+len(g.accounts.entries)+len(g.ips.entries) != 0 {
			t.Error("withdrawn attempts left something behind")
		}
		fail(g, "u", homeIP, 4)
		begin(g).Succeeded() // clears the pair; account and address keep their 4
		if n := fail(g, "u", homeIP, 9); n != 4 {
			t.Errorf("%d let through, want the 4 that the address has left", n)
		}
		for range 3 { // the account's 4 and 3 more
			if fail(g, "u", address(1), 1) != 1 {
				t.Error("a success took more from the account's count than its own attempt")
			}
		}
		if fail(g, "u", address(2), 1) != 0 {
			t.Error("the account's count is lower than its failures")
		}

		late := begin(NewGuard(GuardRates{}))
		g2 := late.guard
		g2.SetRates(GuardRates{PerAccountIP: 1, Window: time.Hour})
		late.Withdraw() // of a count that is no more
		if n := fail(g2, "u", homeIP, 3); n != 1 {
			t.Errorf("%d let through, want 1", n)
		}
	})
}

func TestSetGuardRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(DefaultGuardRates())
		fail(g, "u", homeIP, 10)
		rates := DefaultGuardRates()
		rates.PerAccountIP = 12
		g.SetRates(rates)
		if n := fail(g, "u", homeIP, 5); n != 2 {
			t.Errorf("%d more let through, want 2", n)
		}
		rates.PerAccountIP = 3
		g.SetRates(rates)
		if fail(g, "u", homeIP, 1) != 0 {
			t.Error("a lower limit does not count at once")
		}
		g.SetRates(GuardRates{})
		if n := fail(g, "u", homeIP, 1000); n != 1000 {
			t.Errorf("%d of 1000 let through without a limit", n)
		}
		var none *Guard
		a, err := none.Begin("u", homeIP)
		if err != nil {
			t.Fatal(err)
		}
		a.Succeeded()
		a.Withdraw()
	})
}

// A flood of new names neither outgrows the table nor pushes out the account
// that is blocked.
func TestThreat53TableStaysBounded(t *testing.T) {
	w := newWindows(1000)
	blocked := keyOf("blocked")
	for range 10 {
		w.add(blocked, 1, 100)
	}
	for i := range 50_000 {
		w.add(keyOf(strconv.Itoa(i)), 1, 100)
	}
	if len(w.entries) > 1000 {
		t.Errorf("%d keys are kept", len(w.entries))
	}
	if _, full := w.full(blocked, 10, 100); !full {
		t.Error("the blocked key was pushed out")
	}
	for i := range 2000 { // all of the flood has expired
		w.add(keyOf("new", strconv.Itoa(i)), 1, 200)
	}
	if len(w.entries) > 1000 {
		t.Errorf("%d keys are kept", len(w.entries))
	}
}

// A window against a list of all events.
func TestWindowAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const limit = 7
	table, key := newWindows(4), keyOf("k")
	var added []int64 // spans of the events that count
	within := func(span int64) (n int) {
		for _, s := range added {
			if span-s <= spans {
				n++
			}
		}
		return n
	}
	span := spanAt(0, time.Minute)
	for range 20_000 {
		if rng.IntN(3) == 0 {
			span += rng.Int64N(1 + rng.Int64N(20))
		}
		until, full := table.full(key, limit, span)
		if want := within(span) >= limit; full != want {
			t.Fatalf("full is %v, want %v", full, want)
		}
		if full {
			if within(until) >= limit || within(until-1) < limit {
				t.Fatalf("until %d is wrong at %d: %v", until, span, added)
			}
		} else {
			table.add(key, 1, span)
			added = append(added, span)
		}
		if rng.IntN(4) == 0 && len(added) > 0 {
			i := rng.IntN(len(added))
			table.remove(key, added[i], span)
			added = append(added[:i], added[i+1:]...)
		}
		added = added[max(0, len(added)-4*limit):] // older ones count no more
	}
}
