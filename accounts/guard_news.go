package accounts

import (
	"math"

	"github.com/wxidp/wxidp/internal/limit"
)

var _ limit.Ledger = (*Guard)(nil)

// What the guards of other nodes are told begins with one of these, and a
// windowKey follows.
const (
	countPair    = 'p' // attempts for an account from an address
	countAccount = 'a' // attempts for an account
	countIP      = 'i' // attempts from an address
	successPair  = 's' // a success for an account from an address
)

// maxGuardNews bounds what is kept to be told, of each kind: more than people
// can be signed in or refused between two exchanges. While the others cannot be
// reached, what exceeds it is not told.
const maxGuardNews = 1 << 14

// guardNews is what the guards of other nodes are to be told. An attempt is
// told as soon as it is counted, because many may be under way at once, and
// taken back there, too, when its password was right.
type guardNews struct {
	kept      bool               // somebody asks
	successes map[windowKey]bool // told before counts, which may be younger
	counts    map[guardCount]int // never 0
}

type guardCount struct {
	kind byte
	key  windowKey
}

func (k guardCount) String() string { return string(append([]byte{k.kind}, k.key[:]...)) }

func (n *guardNews) add(count guardCount, events int) {
	if !n.kept {
		return
	}
	sum := n.counts[count] + events
	if sum == 0 {
		delete(n.counts, count)
	} else if len(n.counts) < maxGuardNews || sum != events {
		n.counts[count] = sum
	}
}

// success replaces what is to be told of the pair.
func (n *guardNews) success(pair windowKey) {
	if !n.kept {
		return
	}
	delete(n.counts, guardCount{countPair, pair})
	if len(n.successes) < maxGuardNews {
		n.successes[pair] = true
	}
}

// table returns the counts of one kind, nil for none.
func (g *Guard) table(kind byte) *windows {
	switch kind {
	case countPair:
		return &g.accountIPs
	case countAccount:
		return &g.accounts
	case countIP:
		return &g.ips
	}
	return nil
}

// count counts an attempt of this node.
func (g *Guard) count(kind byte, key windowKey, span int64) {
	g.table(kind).add(key, 1, span)
	g.news.add(guardCount{kind, key}, 1)
}

// takeBack takes back an attempt of this node that was counted in span added.
func (g *Guard) takeBack(kind byte, key windowKey, added, span int64) {
	if g.table(kind).remove(key, added, span) {
		g.news.add(guardCount{kind, key}, -1)
	}
}

// Tell hands out what the guards of other nodes have to know: successes, and
// how counts have changed. It is limit.Ledger's.
func (g *Guard) Tell(take func(key string, n int64) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.news.kept {
		g.news = guardNews{kept: true, successes: make(map[windowKey]bool), counts: make(map[guardCount]int)}
	}
	for pair := range g.news.successes {
		if !take(guardCount{successPair, pair}.String(), 1) {
			return
		}
		delete(g.news.successes, pair)
	}
	span := g.span()
	for count, n := range g.news.counts {
		// Of what waited long, some may count no longer.
		if n = min(n, g.table(count.kind).total(count.key, span)); n != 0 && !take(count.String(), int64(n)) {
			return
		}
		delete(g.news.counts, count)
	}
}

// Hear counts what the guard of another node tells: at present, whenever it
// was. It is limit.Ledger's.
func (g *Guard) Hear(key string, n int64) {
	if len(key) != 1+len(windowKey{}) {
		return
	}
	kind, at := key[0], windowKey([]byte(key[1:]))
	g.mu.Lock()
	defer g.mu.Unlock()
	if kind == successPair {
		g.known.Add(string(at[:]))
		delete(g.accountIPs.entries, at)
		return
	}
	counts := g.table(kind)
	switch {
	case counts == nil || n == 0:
	case n > 0:
		counts.add(at, int(min(n, math.MaxUint16)), g.span())
	default:
		counts.removeNewest(at, int(min(-n, math.MaxUint16*(spans+1))), g.span())
	}
}
