package postgres

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/limit"
)

func TestTradeNotices(t *testing.T) {
	s := openStore(t, Options{}, hooks{})
	trade := func(mine limit.Notice, seen map[limit.NodeID]int64) (heard []string) {
		t.Helper()
		others, err := s.TradeNotices(t.Context(), mine, seen)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range others {
			heard = append(heard, fmt.Sprintf("%c%d:%s", n.Node[0], n.Round, n.Body))
		}
		slices.Sort(heard)
		return heard
	}
	a, b, c := limit.NodeID{'a'}, limit.NodeID{'b'}, limit.NodeID{'c'}
	is := func(got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("heard %q, want %q", got, want)
		}
	}
	is(trade(limit.Notice{Node: a, Round: 1}, nil)) // an empty one is not left
	is(trade(limit.Notice{Node: b, Round: 1}, nil))
	is(trade(limit.Notice{Node: a, Round: 1, Body: []byte("one")}, nil))
	is(trade(limit.Notice{Node: a, Round: 1, Body: []byte("again")}, nil))
	is(trade(limit.Notice{Node: a, Round: 2, Body: []byte("two")}, nil))
	is(trade(limit.Notice{Node: b, Round: 1, Body: []byte("b's")}, nil), "a1:one", "a2:two")
	is(trade(limit.Notice{Node: b, Round: 2}, map[limit.NodeID]int64{a: 1}), "a2:two")
	is(trade(limit.Notice{Node: b, Round: 2}, map[limit.NodeID]int64{a: 2, c: 7}))
	is(trade(limit.Notice{Node: c, Round: 1}, map[limit.NodeID]int64{a: 1}), "a2:two", "b1:b's")
	is(trade(limit.Notice{Node: a, Round: 3}, map[limit.NodeID]int64{b: 0}), "b1:b's")
}

// Where there is more than one trade returns, every node's share comes in the
// order of rounds, and all of it comes.
func TestNoticesComeInPortions(t *testing.T) {
	s := openStore(t, Options{}, hooks{})
	const nodes, rounds = 3, 90
	for round := range int64(rounds) {
		for node := range byte(nodes) {
			mine := limit.Notice{Node: limit.NodeID{node + 1}, Round: round + 1, Body: bytes.Repeat([]byte{node}, 3000)}
			if _, err := s.TradeNotices(t.Context(), mine, map[limit.NodeID]int64{{1}: 1000, {2}: 1000, {3}: 1000}); err != nil {
				t.Fatal(err)
			}
		}
	}
	seen := map[limit.NodeID]int64{}
	for trades := 1; ; trades++ {
		others, err := s.TradeNotices(t.Context(), limit.Notice{Node: limit.NodeID{9}, Round: 1}, seen)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range others {
			if n.Round != seen[n.Node]+1 || len(n.Body) != 3000 {
				t.Fatalf("round %d of %v after %d, %d bytes", n.Round, n.Node[0], seen[n.Node], len(n.Body))
			}
			seen[n.Node] = n.Round
		}
		if trades == 1 && len(others) != maxNotices {
			t.Errorf("%d notices in one trade", len(others))
		}
		if len(others) == 0 {
			break
		}
	}
	for node := range byte(nodes) {
		if seen[limit.NodeID{node + 1}] != rounds {
			t.Errorf("heard %v", seen)
		}
	}
}

// A node deletes what it has left, and others what dead nodes have.
func TestNoticesExpire(t *testing.T) {
	now := time.Now()
	s := openStore(t, Options{}, hooks{clock: func() time.Time { return now }})
	leave := func(node byte, round int64) {
		t.Helper()
		if _, err := s.TradeNotices(t.Context(), limit.Notice{Node: limit.NodeID{node}, Round: round, Body: []byte("x")}, nil); err != nil {
			t.Fatal(err)
		}
	}
	count := func() (n int) {
		t.Helper()
		if err := s.readRow(t.Context(), `SELECT count(*) FROM notices`, nil, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	leave('a', 1)
	leave('b', 1)
	now = now.Add(limit.NoticeLife / 2)
	leave('a', 2)
	if n := count(); n != 3 {
		t.Errorf("%d notices are kept, want 3", n)
	}
	now = now.Add(limit.NoticeLife/2 + time.Second)
	leave('a', 3)
	if n := count(); n != 3 {
		t.Errorf("%d notices are kept, want a's second and third and b's", n)
	}
	if deleted, more, err := s.DeleteExpired(t.Context(), 0); err != nil || deleted != 0 || more {
		t.Errorf("DeleteExpired = %d, %v, %v", deleted, more, err)
	}
	if n := count(); n != 2 {
		t.Errorf("%d notices are kept, want a's", n)
	}
}

// Leaving a notice waits for no disk.
func TestNoticesAreVolatile(t *testing.T) {
	s := openStore(t, Options{}, hooks{})
	var persistence string
	err := s.readRow(t.Context(), `SELECT relpersistence::text FROM pg_class WHERE relname = 'notices'`, nil, &persistence)
	if err != nil || persistence != "u" {
		t.Errorf("the table is %q, %v", persistence, err)
	}
	before := s.Stats()
	if _, err := s.TradeNotices(t.Context(), limit.Notice{Node: limit.NodeID{1}, Round: 1, Body: []byte("x")}, nil); err != nil {
		t.Fatal(err)
	}
	if after := s.Stats(); after.Commits != before.Commits {
		t.Error("a notice counts as a durable commit")
	}
}
