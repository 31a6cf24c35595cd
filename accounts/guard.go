package accounts

import (
	"crypto/sha256"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/wxidp/wxidp/internal/limit"
)

// Sizes of the guard's tables.
const (
	maxGuardKeys  = 1 << 16
	knownPairs    = 1 << 16
	knownPairsFor = 24 * time.Hour
)

// GuardRates are how many wrong passwords are taken within a Window. Zero
// means no limit; what is above 65535 counts as that.
type GuardRates struct {
	PerAccountIP int // for one account from one address (IPv6: /64)
	PerAccount   int // for one account from everywhere
	PerIP        int // from one address for all accounts
	Window       time.Duration
}

// DefaultGuardRates are 10 for an account and address, 100 for an account and
// 300 for an address, which many people behind a carrier may share, in 15
// minutes.
func DefaultGuardRates() GuardRates {
	return GuardRates{PerAccountIP: 10, PerAccount: 100, PerIP: 300, Window: 15 * time.Minute}
}

func (r GuardRates) bounded() GuardRates {
	if r.Window < time.Second {
		r.Window = DefaultGuardRates().Window
	}
	for _, n := range [...]*int{&r.PerAccountIP, &r.PerAccount, &r.PerIP} {
		*n = min(max(*n, 0), math.MaxUint16)
	}
	return r
}

// Guard limits guessing. One Guard stands before every path that takes a
// password. An attempt is counted before its password is looked at, so that
// parallel ones cannot exceed a limit, and taken back if the password was
// right. Counts are kept in memory; a [limit.Exchange] may tell them to the
// guards of other nodes. A Guard is safe for concurrent use; a nil *Guard sets
// no limit.
type Guard struct {
	mu         sync.Mutex // guards the fields below
	rates      GuardRates
	epoch      int       // raised when counting begins anew
	start      time.Time // spans are counted from here, by the monotonic clock
	accountIPs windows
	accounts   windows
	ips        windows

	// known are pairs of account and address with a recent success. The limit
	// by account does not count for them: strangers who use it up cannot shut
	// the owner out.
	known *limit.Recent

	news guardNews
}

// NewGuard returns a Guard with the given rates.
func NewGuard(rates GuardRates) *Guard {
	return &Guard{
		rates:      rates.bounded(),
		start:      time.Now(),
		accountIPs: newWindows(maxGuardKeys),
		accounts:   newWindows(maxGuardKeys),
		ips:        newWindows(maxGuardKeys),
		known:      limit.NewRecent(knownPairsFor, knownPairs),
	}
}

// SetRates changes the rates from now on. With another Window, counting begins
// anew.
func (g *Guard) SetRates(rates GuardRates) {
	rates = rates.bounded()
	g.mu.Lock()
	defer g.mu.Unlock()
	if rates.Window != g.rates.Window {
		g.epoch++
		g.start = time.Now()
		g.accountIPs, g.accounts, g.ips = newWindows(maxGuardKeys), newWindows(maxGuardKeys), newWindows(maxGuardKeys)
		clear(g.news.counts)
	}
	g.rates = rates
}

// Attempt is one password on its way to be checked. It stays counted as wrong
// unless Succeeded or Withdraw is called.
type Attempt struct {
	guard             *Guard // nil: nothing is counted, or not any more
	pair, account, ip windowKey
	knownPair         bool // not counted against the account
	span              int64
	epoch             int
}

// Begin counts one attempt for an account from an address, or refuses it with
// an [*Error] of kind Limited, which is counted nowhere. account is the one
// name that all paths have for the account, such as the user's id; where no
// such account exists, the name that was tried. A zero ip stands for all
// callers without an address.
func (g *Guard) Begin(account string, ip netip.Addr) (*Attempt, error) {
	if g == nil {
		return &Attempt{}, nil
	}
	address := limit.Subscriber(ip).String()
	a := &Attempt{
		guard:   g,
		pair:    keyOf("pair", address, account),
		account: keyOf("account", account),
		ip:      keyOf("ip", address),
	}
	a.knownPair = g.known.Has(string(a.pair[:]))

	g.mu.Lock()
	defer g.mu.Unlock()
	a.epoch, a.span = g.epoch, g.span()
	if err := g.judge(a); err != nil {
		return nil, err
	}
	g.count(countPair, a.pair, a.span)
	g.count(countIP, a.ip, a.span)
	if !a.knownPair {
		g.count(countAccount, a.account, a.span)
	}
	return a, nil
}

func (g *Guard) judge(a *Attempt) error {
	if until, full := g.accountIPs.full(a.pair, g.rates.PerAccountIP, a.span); full {
		return g.limited("account_ip", until)
	}
	if until, full := g.accounts.full(a.account, g.rates.PerAccount, a.span); full && !a.knownPair {
		return g.limited("account", until)
	}
	if until, full := g.ips.full(a.ip, g.rates.PerIP, a.span); full {
		return g.limited("ip", until)
	}
	return nil
}

func (g *Guard) limited(scope string, until int64) error {
	begins := time.Duration(until-spanAt(0, g.spanLength())) * g.spanLength()
	return &Error{Kind: Limited, Scope: scope, RetryAfter: max(begins-time.Since(g.start), time.Millisecond)}
}

func (g *Guard) spanLength() time.Duration { return g.rates.Window / spans }
func (g *Guard) span() int64               { return spanAt(time.Since(g.start), g.spanLength()) }

// Succeeded says that the password was right: the attempt is taken back, and
// the account starts anew for this address.
func (a *Attempt) Succeeded() { a.settle(true) }

// Withdraw says that the password was not looked at: the attempt is taken back.
func (a *Attempt) Withdraw() { a.settle(false) }

func (a *Attempt) settle(success bool) {
	g := a.guard
	if g == nil {
		return
	}
	a.guard = nil
	g.mu.Lock()
	defer g.mu.Unlock()
	if success {
		g.known.Add(string(a.pair[:]))
		g.news.success(a.pair)
	}
	if a.epoch != g.epoch {
		return
	}
	now := g.span()
	g.takeBack(countIP, a.ip, a.span, now)
	if !a.knownPair {
		g.takeBack(countAccount, a.account, a.span, now)
	}
	if success {
		delete(g.accountIPs.entries, a.pair)
	} else {
		g.takeBack(countPair, a.pair, a.span, now)
	}
}

// keyOf makes keys of one size of names of any, and keeps the names out of
// memory.
func keyOf(parts ...string) windowKey {
	h := sha256.New()
	for _, part := range parts {
		h.Write([]byte{byte(len(part) >> 8), byte(len(part))})
		h.Write([]byte(part))
	}
	return windowKey(h.Sum(nil)[:len(windowKey{})])
}
