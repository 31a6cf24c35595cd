package limit_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/limit"
	"github.com/wxidp/wxidp/internal/limit/limittest"
)

// exchanged is how long a test waits for all nodes to have heard all.
const exchanged = 250 * time.Millisecond

// exchange waits until every node has heard what the others have told.
func exchange() {
	time.Sleep(exchanged)
	synctest.Wait()
}

// nodes returns limiters of n nodes that share a limit.
func nodes(t *testing.T, board *limittest.Board, n int, rate limit.Rate) []*limit.Limiter {
	limiters := make([]*limit.Limiter, n)
	for i := range limiters {
		limiters[i] = limit.New(rate, 1<<12)
		limittest.Node(t, board, nil, func(x *limit.Exchange) { x.Register("requests", limiters[i]) })
	}
	exchange()
	return limiters
}

// all lets key do what it may on all nodes, and returns how much that was.
func all(limiters []*limit.Limiter, key string) (n int) {
	for _, l := range limiters {
		for ok, _ := l.Allow(key); ok; ok, _ = l.Allow(key) {
			n++
		}
	}
	return n
}

// Whoever asks every node all the time gets one burst of each at first, and
// afterwards the rate of one node: what was too much is owed.
func TestLimitsHoldAcrossNodes(t *testing.T) {
	for _, n := range []int{2, 5} {
		for _, rate := range []limit.Rate{
			{PerMinute: 10, Burst: 10}, {PerMinute: 1, Burst: 1}, {PerMinute: 120, Burst: 30}, {PerMinute: 2, Burst: 120},
			{PerMinute: 3000, Burst: 750}, {PerMinute: 30000, Burst: 7500},
		} {
			t.Run(fmt.Sprintf("%d nodes, %d per minute", n, rate.PerMinute), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					limiters := nodes(t, new(limittest.Board), n, rate)
					const minutes = 4
					count, start := 0, time.Now()
					for time.Since(start) < minutes*time.Minute {
						count += all(limiters, "key")
						time.Sleep(10 * time.Millisecond)
					}
					// What two rounds let through, and a rounding on each node.
					slack := n * (1 + rate.PerMinute/300)
					if most := max(n*rate.Burst, rate.Burst+minutes*rate.PerMinute) + slack; count > most {
						t.Errorf("%d in %d minutes, at most %d may be", count, minutes, most)
					}
				})
			})
		}
	}
}

// At a pace beyond the limit, spread over the nodes, no more gets through than
// on one node and what arrives at the others between two exchanges.
func TestOvershootIsOfOneExchange(t *testing.T) {
	for _, n := range []int{2, 5} {
		synctest.Test(t, func(t *testing.T) {
			const pace = 5 * time.Millisecond
			rate := limit.Rate{PerMinute: 600, Burst: 150}
			limiters := nodes(t, new(limittest.Board), n, rate)
			count, start := 0, time.Now()
			for i := 0; time.Since(start) < time.Minute; i++ {
				if ok, _ := limiters[i%n].Allow("key"); ok {
					count++
				}
				time.Sleep(pace)
			}
			// A share of 1/32 of each node's is told late, and an exchange takes 0.2 s at most.
			over := count - rate.PerMinute - rate.Burst
			if most := n*rate.Burst/32 + int(200*time.Millisecond/pace) + n; over > most {
				t.Errorf("%d nodes: %d too many, want at most %d", n, over, most)
			}
		})
	}
}

// Who keeps to the limit is never refused, however the requests are spread.
func TestHonestKeysAreNotRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5
		rate := limit.Rate{PerMinute: 120, Burst: 30}
		limiters := nodes(t, new(limittest.Board), n, rate)
		for i := range 2000 {
			if ok, wait := limiters[i%n].Allow("steady"); !ok {
				t.Fatalf("request %d of 114 a minute is refused for %v", i, wait)
			}
			time.Sleep(time.Minute / 114)
		}
		for i := range 30 {
			if ok, _ := limiters[i%n].Allow("burst"); !ok {
				t.Fatalf("request %d of a burst is refused", i)
			}
		}
		exchange()
		for i, l := range limiters {
			if all([]*limit.Limiter{l}, "burst") > 1 {
				t.Errorf("node %d does not know of the burst", i)
			}
		}
	})
}

// Small use stays at home, so that few keys travel.
func TestSmallUseIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := new(limittest.Board)
		limiters := nodes(t, board, 2, limit.Rate{PerMinute: 3000, Burst: 750})
		for i := range 100 {
			limiters[0].Allow("phone" + strconv.Itoa(i))
		}
		exchange()
		if n := len(board.Notices()); n != 0 {
			t.Errorf("%d notices about keys far from their limit", n)
		}
		for range 30 {
			limiters[0].Allow("office")
		}
		exchange()
		if n := len(board.Notices()); n != 1 {
			t.Errorf("%d notices, want one about a key that uses much", n)
		}
	})
}

// Without the board each node counts alone; afterwards the others hear what
// still counts. What may have arrived is told again and counts once.
func TestBoardThatFails(t *testing.T) {
	for name, fault := range map[string]limittest.Fault{"lost": limittest.Lost, "no word": limittest.NoWord} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				board := new(limittest.Board)
				var logged bytes.Buffer
				rate := limit.Rate{PerMinute: 1, Burst: 10}
				a, b := limit.New(rate, 100), limit.New(rate, 100)
				limittest.Node(t, board, slog.New(slog.NewTextHandler(&logged, nil)), func(x *limit.Exchange) { x.Register("r", a) })
				limittest.Node(t, board, nil, func(x *limit.Exchange) { x.Register("r", b) })
				exchange()
				board.SetFault(func(int) limittest.Fault { return fault })
				for range 3 {
					a.Allow("key")
				}
				time.Sleep(5 * time.Second)
				if ok, _ := a.Allow("key"); !ok {
					t.Error("a node does not go on by itself")
				}
				board.SetFault(nil)
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if n := all([]*limit.Limiter{b}, "key"); n != 6 {
					t.Errorf("the other lets %d through, want the 6 that are left", n)
				}
				if got := logged.String(); strings.Count(got, "limits.alone") != 1 || strings.Count(got, "limits.shared") != 1 {
					t.Errorf("logged %q", got)
				}
			})
		})
	}
}

// A board that fails now and then loses nothing and repeats nothing.
func TestUnreliableBoard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := new(limittest.Board)
		limiters := nodes(t, board, 3, limit.Rate{PerMinute: 1, Burst: 5000})
		board.SetFault(func(trade int) limittest.Fault { return limittest.Fault(trade * trade % 3) })
		spent := 0
		for i := range 300 {
			for range 10 {
				if ok, _ := limiters[i%3].Allow("key"); ok {
					spent++
				}
			}
			time.Sleep(7 * time.Millisecond)
		}
		board.SetFault(nil)
		time.Sleep(5 * time.Second)
		if n := spent + all(limiters[:1], "key"); n < 5000 || n > 5001 {
			t.Errorf("%d of 5000 were let through in all", n)
		}
	})
}

// A node that ends tells its last; one that starts hears the last ten seconds.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := new(limittest.Board)
		rate := limit.Rate{PerMinute: 1, Burst: 10}
		start := func() (*limit.Limiter, func()) {
			l := limit.New(rate, 100)
			return l, limittest.Node(t, board, nil, func(x *limit.Exchange) { x.Register("r", l) })
		}
		old, stop := start()
		exchange()
		for range 10 {
			old.Allow("key")
		}
		stop()
		time.Sleep(time.Second)
		next, _ := start()
		exchange()
		if n := all([]*limit.Limiter{next}, "key"); n != 0 {
			t.Errorf("a node that takes another's place lets %d through", n)
		}
		time.Sleep(limit.NoticeLife + time.Minute)
		late, _ := start()
		exchange()
		if n := all([]*limit.Limiter{late}, "key"); n != 10 {
			t.Errorf("%d let through after all notices are gone", n)
		}
	})
}

// Under a flood of keys the heaviest are told first, a notice stays below its
// bound, and the rest follows.
func TestFloodOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := new(limittest.Board)
		rate := limit.Rate{PerMinute: 1, Burst: 20}
		a, b, other := limit.New(rate, 1<<17), limit.New(rate, 1<<17), limit.New(rate, 100)
		limittest.Node(t, board, nil, func(x *limit.Exchange) { x.Register("flooded", a); x.Register("other", other) })
		heardOther := limit.New(rate, 100)
		limittest.Node(t, board, nil, func(x *limit.Exchange) { x.Register("flooded", b); x.Register("other", heardOther) })
		exchange()
		const flood = 50_000
		for range 20 {
			a.Allow("heavy")
			other.Allow("key")
		}
		for i := range flood {
			a.Allow(fmt.Sprintf("%0100d", i))
		}
		exchange()
		if ok, _ := b.Allow("heavy"); ok {
			t.Error("the heaviest key was not told first")
		}
		if ok, _ := heardOther.Allow("key"); ok {
			t.Error("one limit's flood keeps another from being told")
		}
		time.Sleep(5 * time.Second)
		told := 0
		for i := range flood {
			if n := all([]*limit.Limiter{b}, fmt.Sprintf("%0100d", i)); n < 20 {
				told++
			}
		}
		if told < 3000 {
			t.Errorf("%d keys of a flood were told in 5 s", told)
		}
		for _, n := range board.Notices() {
			if len(n.Body) > 64<<10+64 {
				t.Errorf("a notice of %d bytes", len(n.Body))
			}
		}
	})
}

// What a key may is another rate's at once, on all nodes.
func TestSetRateOfSharedLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiters := nodes(t, new(limittest.Board), 2, limit.Rate{PerMinute: 1, Burst: 10})
		all(limiters[:1], "key")
		exchange()
		if n := all(limiters, "key"); n != 0 {
			t.Errorf("%d let through beyond the limit", n)
		}
		for _, l := range limiters {
			l.SetRate(limit.Rate{PerMinute: 1, Burst: 12})
		}
		if n := all(limiters[1:], "key"); n != 12 {
			t.Errorf("%d let through at the new rate, want 12", n)
		}
		exchange()
		if n := all(limiters, "key"); n != 0 {
			t.Errorf("%d let through beyond the new limit", n)
		}
		for _, l := range limiters {
			l.SetRate(limit.Rate{})
		}
		limiters[0].Hear("key", 100)
		if ok, _ := limiters[0].Allow("key"); !ok {
			t.Error("refused without a limit")
		}
	})
}

func TestSharedRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := new(limittest.Board)
		const keep = 10 * time.Minute
		a, b := limit.NewRecent(keep, 100), limit.NewRecent(keep, 100)
		for _, r := range []*limit.Recent{a, b} {
			limittest.Node(t, board, nil, func(x *limit.Exchange) { x.Register("known", r) })
		}
		exchange()
		a.Add("key")
		a.Add("key")
		exchange()
		if !b.Has("key") || len(board.Notices()) != 1 {
			t.Errorf("known to the other: %v, after %d notices", b.Has("key"), len(board.Notices()))
		}
		for range 20 { // a key in use stays known everywhere
			time.Sleep(keep / 4)
			a.Add("key")
			exchange()
			if !b.Has("key") {
				t.Fatal("the other has forgotten a key in use")
			}
		}
		time.Sleep(2*keep + time.Second)
		if b.Has("key") {
			t.Error("the other remembers for too long")
		}
	})
}

// Only what a node of the same master key has sealed for its place counts.
func TestForeignNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board, quiet := new(limittest.Board), new(limittest.Board)
		rate := limit.Rate{PerMinute: 1, Burst: 1}
		source := limit.New(rate, 100)
		limittest.Node(t, quiet, nil, func(x *limit.Exchange) { x.Register("r", source); x.Register("newer", limit.NewRecent(time.Hour, 10)) })
		exchange()
		source.Allow("key")
		exchange()
		notices := quiet.Notices()
		if len(notices) != 1 || bytes.Contains(notices[0].Body, []byte("key")) {
			t.Fatalf("%d notices, or one that shows its keys", len(notices))
		}
		var logged bytes.Buffer
		l := limit.New(rate, 100)
		limittest.Node(t, board, slog.New(slog.NewTextHandler(&logged, nil)), func(x *limit.Exchange) { x.Register("r", l) })
		moved := notices[0]
		moved.Round++
		board.Leave(moved)
		moved.Round++
		board.Leave(moved)
		moved.Node[0]++
		board.Leave(moved)
		board.Leave(limit.Notice{Node: limit.NodeID{1}, Round: 1, Body: []byte("junk")})
		exchange()
		if ok, _ := l.Peek("key"); !ok {
			t.Error("a notice counts in another place than its own")
		}
		if n := strings.Count(logged.String(), "limits.unreadable"); n != 3 {
			t.Errorf("%d nodes are logged as unreadable, want 3: %s", n, logged.String())
		}
		notices[0].Node[0] ^= 0 // its own
		other := limit.New(rate, 100)
		fresh := new(limittest.Board)
		fresh.Leave(notices[0])
		limittest.Node(t, fresh, nil, func(x *limit.Exchange) { x.Register("r", other) })
		exchange()
		if ok, _ := other.Peek("key"); ok {
			t.Error("a notice in its place does not count")
		}
	})
}

func TestRegisterRefusesTheSameNameTwice(t *testing.T) {
	x := limit.NewExchange(new(limittest.Board), limittest.Keyring(), slog.New(slog.DiscardHandler))
	x.Register("a", limit.NewRecent(time.Hour, 1))
	defer func() {
		if recover() == nil {
			t.Error("one name for two")
		}
	}()
	x.Register("a", limit.NewRecent(time.Hour, 1))
}

// Requests, reloads and exchanges at the same time.
func TestSharedLimitsUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := new(limittest.Board)
		const rate = 600
		limiters := nodes(t, board, 2, limit.Rate{PerMinute: rate, Burst: 1000})
		recents := make([]*limit.Recent, 2)
		for i := range recents {
			recents[i] = limit.NewRecent(time.Minute, 100)
			limittest.Node(t, board, nil, func(x *limit.Exchange) { x.Register("known", recents[i]) })
		}
		var allowed atomic.Int64
		var work sync.WaitGroup
		for worker := range 8 {
			work.Go(func() {
				for i := range 2000 {
					if ok, _ := limiters[(worker+i)%2].Allow("key"); ok {
						allowed.Add(1)
					}
					limiters[worker%2].Allow(strconv.Itoa(i))
					recents[worker%2].Add(strconv.Itoa(i % 300))
					time.Sleep(time.Millisecond)
				}
			})
		}
		for range 50 {
			time.Sleep(20 * time.Millisecond)
			for _, l := range limiters {
				l.SetRate(limit.Rate{PerMinute: rate, Burst: 1000}) // the same: nothing is forgotten
			}
		}
		work.Wait()
		// 16000 in two seconds: the burst, the rate, and what two rounds of 0.2 s bring.
		if n := allowed.Load(); n < 1000 || n > 1000+rate/30+2*1600 {
			t.Errorf("%d were let through", n)
		}
		exchange()
		if n := all(limiters, "key"); n > 0 {
			t.Errorf("%d more were let through at once", n)
		}
	})
}
