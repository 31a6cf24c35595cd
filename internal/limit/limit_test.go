package limit

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestBurstThenRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Rate{PerMinute: 60, Burst: 5}, 1000)
		for i := range 5 {
			if ok, _ := l.Allow("a"); !ok {
				t.Fatalf("event %d of the burst was refused", i)
			}
		}
		ok, wait := l.Allow("a")
		if ok || wait <= 0 || wait > time.Second {
			t.Fatalf("after the burst: %v, wait %v", ok, wait)
		}
		if ok, _ := l.Allow("b"); !ok {
			t.Fatal("another key pays for the first")
		}
		time.Sleep(wait)
		if ok, _ := l.Peek("a"); !ok {
			t.Fatal("Peek refuses after the announced wait")
		}
		if ok, _ := l.Allow("a"); !ok {
			t.Fatal("Allow refuses after the announced wait")
		}
		if ok, _ := l.Allow("a"); ok {
			t.Fatal("a second event got through")
		}
		l.SetRate(Rate{})
		if ok, _ := l.Allow("a"); !ok {
			t.Fatal("rate 0 must mean no limit")
		}
	})
}

func TestTableStaysBounded(t *testing.T) {
	l := New(Rate{PerMinute: 1, Burst: 1}, 640)
	for i := range 50_000 {
		l.Allow(strconv.Itoa(i))
	}
	total := 0
	for i := range l.shards {
		total += len(l.shards[i].keys)
	}
	if total > 640 {
		t.Fatalf("%d keys are kept, limit 640", total)
	}
}

func TestConcurrentEventsShareOneBudget(t *testing.T) {
	l := New(Rate{PerMinute: 1, Burst: 10}, 100)
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if ok, _ := l.Allow("k"); ok {
				allowed.Add(1)
			}
		})
	}
	wg.Wait()
	if n := allowed.Load(); n != 10 {
		t.Fatalf("%d events were allowed, want 10", n)
	}
}

func TestRecentForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecent(time.Minute, 100)
		r.Add("a")
		time.Sleep(59 * time.Second)
		if !r.Has("a") {
			t.Fatal("forgot too early")
		}
		time.Sleep(3 * time.Minute)
		if r.Has("a") {
			t.Fatal("remembers too long")
		}
		for i := range 10_000 {
			r.Add(strconv.Itoa(i))
		}
		if n := len(r.current) + len(r.previous); n > 200 {
			t.Fatalf("%d keys are kept, limit 200", n)
		}
	})
}
