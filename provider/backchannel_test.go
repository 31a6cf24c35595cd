package provider

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/storage"
)

func TestLogoutIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLogoutBench(t)
		defer b.run()()
		alice := b.browser("alice")
		shop, quick, silent := alice.join(webClient), alice.join(quickClient), alice.join(otherClient)
		time.Sleep(time.Second / 2)
		start := time.Now()
		if _, err := alice.end(form("id_token_hint", b.hint(silent, nil))); err != nil {
			t.Fatal(err)
		}
		if time.Since(start) > 0 {
			t.Errorf("the user waited for %v", time.Since(start))
		}
		synctest.Wait()
		for host, family := range map[string]storage.Family{"shop.example": shop, "quick.example": quick} {
			told := b.parties.at(host)
			if len(told) != 1 || told[0].sid != family.ID.String() || !told[0].at.Equal(start) {
				t.Errorf("%s was told %v, want %v at %v", host, told, family.ID, start)
			}
		}
		if n := len(b.parties.told); n != 2 {
			t.Errorf("%d logout tokens", n)
		}
	})
}

// TestSignInsEndOnce: who was told of the end of a sign-in, by its user or by
// an operator, is not told of it again at logout, for which its ID Token still
// speaks.
func TestSignInsEndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLogoutBench(t)
		defer b.run()()
		alice := b.browser("alice")
		byUser, byOperator, last := alice.join(webClient), alice.join(webClient), alice.join(webClient)
		if ended, err := b.EndSignIn(t.Context(), alice.request(), byUser.ID.String()); err != nil || !ended {
			t.Fatal(ended, err)
		}
		if found, err := b.EndFamily(t.Context(), byOperator.ID, "operator"); err != nil || !found {
			t.Fatal(found, err)
		}
		synctest.Wait()
		if told := b.parties.at("shop.example"); len(told) != 2 {
			t.Errorf("told %v", told)
		}
		if out, err := alice.end(form("id_token_hint", b.hint(byUser, nil))); err != nil || out.Confirm != nil || alice.alive() {
			t.Errorf("outcome %+v, error %v", out, err)
		}
		synctest.Wait()
		var sids []string
		for _, told := range b.parties.at("shop.example") {
			sids = append(sids, told.sid)
		}
		want := []string{byUser.ID.String(), byOperator.ID.String(), last.ID.String()}
		slices.Sort(sids)
		slices.Sort(want)
		if !slices.Equal(sids, want) {
			t.Errorf("told of %v, want %v", sids, want)
		}
	})
}

// TestLogoutIsRetried: a client that is away is told again after pauses that
// grow, and given up after a day.
func TestLogoutIsRetried(t *testing.T) {
	for name, answer := range map[string]func(*http.Request) (int, error){
		"5xx":       status(http.StatusServiceUnavailable),
		"not found": status(http.StatusNotFound),
		"redirect":  status(http.StatusTemporaryRedirect),
		"reset":     func(*http.Request) (int, error) { return 0, io.ErrUnexpectedEOF },
		"dial":      func(*http.Request) (int, error) { return 0, &net.OpError{Op: "dial", Err: errors.New("no route")} },
		"timeout":   hang,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newLogoutBench(t)
				b.parties.answer("shop.example", answer)
				stop := b.run()
				defer stop()
				b.queue(webClient, 1)
				start := time.Now()
				time.Sleep(30 * time.Hour)
				told := b.parties.at("shop.example")
				want := []time.Duration{0, 2 * time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 2 * time.Hour}
				if len(told) < len(want) {
					t.Fatalf("told %d times", len(told))
				}
				last := start
				for i, pause := range want {
					if got := told[i].at.Sub(last); got < pause || got > pause+10*time.Second {
						t.Errorf("attempt %d after %v, want %v", i, got, pause)
					}
					last = told[i].at
				}
				if age := told[len(told)-1].at.Sub(start); age > logoutMaxAge {
					t.Errorf("told after %v", age)
				}
				if given, delayed := b.events("logout.given_up"), b.events("logout.delayed"); given != 1 || delayed != len(told) {
					t.Errorf("%d times given up, %d times delayed, %d attempts", given, delayed, len(told))
				}
				stop()
				if n := b.queued(); n != 0 {
					t.Errorf("%d notices are left", n)
				}
				if len(b.parties.told) != len(told) {
					t.Error("somebody else was told, too")
				}
			})
		})
	}
}

func TestLogoutIsToldUntilItArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLogoutBench(t)
		b.parties.answer("shop.example", status(http.StatusBadGateway))
		stop := b.run()
		defer stop()
		b.queue(webClient, 1)
		time.Sleep(time.Minute)
		b.parties.answer("shop.example", status(http.StatusNoContent))
		time.Sleep(time.Hour)
		before := len(b.parties.at("shop.example"))
		time.Sleep(24 * time.Hour)
		if after := len(b.parties.at("shop.example")); after != before || before < 2 {
			t.Errorf("told %d and then %d times", before, after)
		}
		stop()
		if n := b.queued(); n != 0 {
			t.Errorf("%d notices are left", n)
		}
	})
}

func TestLogoutIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLogoutBench(t)
		b.parties.answer("shop.example", status(http.StatusBadRequest))
		stop := b.run()
		defer stop()
		b.queue(webClient, 1)
		time.Sleep(24 * time.Hour)
		if n := len(b.parties.at("shop.example")); n != 1 || b.events("logout.refused") != 1 {
			t.Errorf("told %d times, %d events", n, b.events("logout.refused"))
		}
		stop()
		if n := b.queued(); n != 0 {
			t.Errorf("%d notices are left", n)
		}
	})
}

// TestSlowClientDelaysNobody: not with one notice, and not with more than what
// is looked at together; neither where it answers nothing nor where it is just
// quick enough.
func TestSlowClientDelaysNobody(t *testing.T) {
	slow := func(*http.Request) (int, error) {
		time.Sleep(4 * time.Second)
		return http.StatusOK, nil
	}
	for name, c := range map[string]struct {
		answer  func(*http.Request) (int, error)
		backlog int
		wait    time.Duration // that a quick client may have to
	}{
		"one, no answer": {hang, 1, 0}, "one, slow": {slow, 1, 0}, "many, no answer": {hang, 100, 0}, "many, slow": {slow, 100, 0},
		"pages, no answer": {hang, 3 * storage.MaxPage, 8 * time.Second}, "pages, slow": {slow, 3 * storage.MaxPage, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newLogoutBench(t)
				b.parties.answer("shop.example", c.answer)
				b.queue(webClient, c.backlog)
				stop := b.run()
				defer stop()
				synctest.Wait()
				start := time.Now()
				quick := b.queue(quickClient, 3)
				time.Sleep(20 * time.Second)
				told := b.parties.at("quick.example")
				if len(told) != len(quick) {
					t.Fatalf("the quick client was told %d times", len(told))
				}
				for _, d := range told {
					if waited := d.at.Sub(start); waited > c.wait {
						t.Errorf("the quick client waited for %v", waited)
					}
				}
				stop()
			})
		})
	}
}

// TestClientIsBackAfterABacklog: while a client is away a few of its notices
// are tried, not all; once it is back it gets every one.
func TestClientIsBackAfterABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLogoutBench(t)
		b.parties.answer("shop.example", status(http.StatusServiceUnavailable))
		sids := b.queue(webClient, 500)
		stop := b.run()
		defer stop()
		time.Sleep(10 * time.Minute)
		tried := len(b.parties.at("shop.example"))
		if tried > 10*logoutParallel {
			t.Errorf("%d attempts at a client that is away", tried)
		}
		b.parties.answer("shop.example", nil)
		time.Sleep(3 * time.Hour)
		after := map[string]int{}
		for _, d := range b.parties.at("shop.example")[tried:] {
			after[d.sid]++
		}
		for _, sid := range sids {
			if after[sid] != 1 {
				t.Errorf("%s arrived %d times", sid, after[sid])
			}
		}
		stop()
		if n := b.queued(); n != 0 {
			t.Errorf("%d notices are left", n)
		}
	})
}

func TestLogoutOfARemovedClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLogoutBench(t)
		settings := b.settings().Settings
		settings.Clients = slices.DeleteFunc(slices.Clone(settings.Clients), func(c Client) bool { return c.ID == webClient })
		for i := range settings.Clients {
			settings.Clients[i].BackchannelLogoutURI = ""
		}
		b.queue(webClient, 2)
		b.queue(quickClient, 2)
		if err := b.Reload(settings); err != nil {
			t.Fatal(err)
		}
		stop := b.run()
		defer stop()
		synctest.Wait()
		stop()
		if len(b.parties.told) != 0 {
			t.Errorf("told %v", b.parties.told)
		}
		if n := b.queued(); n != 0 {
			t.Errorf("%d notices are left", n)
		}
	})
}

// TestLogoutsAtShutdown: what is being sent is finished and not sent again; the
// rest is there for who comes next, at once.
func TestLogoutsAtShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLogoutBench(t)
		b.parties.answer("shop.example", func(*http.Request) (int, error) {
			time.Sleep(time.Second)
			return http.StatusOK, nil
		})
		sids := b.queue(webClient, 20)
		stop := b.run()
		defer stop()
		time.Sleep(1500 * time.Millisecond)
		stop()
		before := len(b.parties.at("shop.example"))
		if before != 2*logoutParallel {
			t.Fatalf("%d were sent", before)
		}
		start := time.Now()
		defer b.run()()
		time.Sleep(5 * time.Second)
		count := map[string]int{}
		for _, d := range b.parties.at("shop.example") {
			count[d.sid]++
		}
		for _, sid := range sids {
			if count[sid] != 1 {
				t.Errorf("%s was sent %d times", sid, count[sid])
			}
		}
		if all := b.parties.at("shop.example"); len(all) > before && !all[before].at.Equal(start) {
			t.Errorf("the rest waited for %v", all[before].at.Sub(start))
		}
	})
}

// TestLogoutsOfSeveralNodes: each notice is sent by one of them.
func TestLogoutsOfSeveralNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLogoutBench(t)
		b.parties.answer("shop.example", func(*http.Request) (int, error) {
			time.Sleep(10 * time.Millisecond)
			return http.StatusOK, nil
		})
		sids := b.queue(webClient, 300)
		for range 3 {
			defer b.run()()
		}
		time.Sleep(time.Minute)
		count := map[string]int{}
		for _, d := range b.parties.at("shop.example") {
			count[d.sid]++
		}
		for _, sid := range sids {
			if count[sid] != 1 {
				t.Errorf("%s was sent %d times", sid, count[sid])
			}
		}
	})
}

// TestLogoutOfALostNode: what a node has taken is hidden from others, and due
// again when the node can no longer be at it.
func TestLogoutOfALostNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLogoutBench(t)
		b.queue(webClient, 1)
		lost := &logoutWorker{Provider: b.Provider, busy: map[string]bool{}, troubles: map[string]trouble{}, ended: make(chan logoutBatchEnd)}
		b.parties.answer("shop.example", func(*http.Request) (int, error) {
			time.Sleep(time.Hour) // the node is gone
			return 0, io.ErrUnexpectedEOF
		})
		lost.round(context.Background())
		synctest.Wait()
		if due, err := b.store.DueLogouts(context.Background(), 0); err != nil || len(due) != 0 {
			t.Errorf("%d notices are due while they are being sent, error %v", len(due), err)
		}
		b.parties.answer("shop.example", nil)
		stop := b.run()
		defer stop()
		time.Sleep(10 * time.Minute)
		stop()
		if told := b.parties.at("shop.example"); len(told) != 2 || told[1].at.Sub(told[0].at) < 30*time.Second {
			t.Errorf("told %v", told)
		}
		<-lost.ended
		if n := b.queued(); n != 0 {
			t.Errorf("%d notices are left", n)
		}
	})
}
