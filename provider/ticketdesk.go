package provider

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/wxidp/wxidp/internal/limit"
	"github.com/wxidp/wxidp/storage"
)

// ticketDesk is what one process remembers of tickets: limits, which it may
// share with other nodes, how often devices ask, and who waits for news. All
// of it may be lost.
type ticketDesk struct {
	codes  *limit.Limiter // codes made, by address
	misses *limit.Limiter // unknown tickets, by address and by user

	mu    sync.Mutex // guards what follows
	paces map[storage.Digest]pace
	swept time.Time // when paces was last rid of old ones
	rooms map[storage.Digest]*room
	waits map[string]int // connections that wait, by address
	all   int            // of them
}

// room is where connections wait for news of one ticket.
type room struct {
	people int
	news   chan struct{} // closed at the next news
}

// pace is how a device asks for one device_code (RFC 8628 §3.5).
type pace struct {
	last     time.Time // when it was last answered
	interval time.Duration
}

// The bounds of a ticketDesk.
const (
	maxPaces         = 1 << 16
	maxPace          = 30 * time.Second
	maxWaits         = 4096 // connections that wait for news of a scan
	maxWaitsPerIP    = 32
	paceTolerance    = 500 * time.Millisecond // what a request may arrive early by the network's doing
	waitPoll         = 2 * time.Second        // after it, news of another node are seen
	maxTicketChanges = 16                     // tries at one change; a ticket changes fewer times in its life
)

func newTicketDesk() *ticketDesk {
	return &ticketDesk{
		codes: limit.New(limit.Rate{}, 1<<16), misses: limit.New(limit.Rate{}, 1<<16),
		paces: make(map[storage.Digest]pace), rooms: make(map[storage.Digest]*room), waits: make(map[string]int),
	}
}

func (d *ticketDesk) setRates(s Settings) {
	d.codes.SetRate(limit.Rate{PerMinute: s.ScanCodesPerIPPerMinute, Burst: s.ScanCodesPerIPPerMinute})
	d.misses.SetRate(limit.Rate{PerMinute: s.TicketMissesPerIPPerMinute, Burst: s.TicketMissesPerIPPerMinute})
}

// tooSoon records that a device asks for a device_code and reports whether it
// should have waited longer.
func (d *ticketDesk) tooSoon(key storage.Digest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	was, known := d.paces[key]
	if known && now.Sub(was.last) < was.interval-paceTolerance {
		was.interval = min(was.interval+deviceInterval, maxPace)
		d.paces[key] = was
		return true
	}
	if !known {
		d.makeRoom(now)
		was.interval = deviceInterval
	}
	was.last = now
	d.paces[key] = was
	return false
}

// makeRoom forgets devices that have not asked for long, and any one where the
// table is full of others.
func (d *ticketDesk) makeRoom(now time.Time) {
	full := len(d.paces) >= maxPaces
	if age := now.Sub(d.swept); age >= maxPace || full && age >= time.Second {
		d.swept = now
		for key, p := range d.paces {
			if now.Sub(p.last) > 2*maxPace {
				delete(d.paces, key)
			}
		}
	}
	for key := range d.paces {
		if len(d.paces) < maxPaces {
			return
		}
		delete(d.paces, key)
	}
}

// enter counts a connection that is going to wait for news of a ticket; ok is
// false where there are too many. Otherwise leave must follow.
func (d *ticketDesk) enter(key storage.Digest, address string) (ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all >= maxWaits || d.waits[address] >= maxWaitsPerIP {
		return false
	}
	d.all++
	d.waits[address]++
	if d.rooms[key] == nil {
		d.rooms[key] = &room{news: make(chan struct{})}
	}
	d.rooms[key].people++
	return true
}

func (d *ticketDesk) leave(key storage.Digest, address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all--
	if d.waits[address]--; d.waits[address] == 0 {
		delete(d.waits, address)
	}
	if d.rooms[key].people--; d.rooms[key].people == 0 {
		delete(d.rooms, key)
	}
}

// news returns a channel that is closed when the ticket changes in this
// process, for who has entered.
func (d *ticketDesk) news(key storage.Digest) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rooms[key].news
}

// tell wakes all who wait for news of the ticket.
func (d *ticketDesk) tell(key storage.Digest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.rooms[key]; r != nil {
		close(r.news)
		r.news = make(chan struct{})
	}
}

// ticket reads a ticket.
func (p *Provider) ticket(ctx context.Context, key storage.Digest) (*ticket, error) {
	state, err := p.store.State(ctx, storage.StateTicket, key)
	if err != nil {
		return nil, err
	}
	return decodeTicket(state.Value)
}

// changeTicket applies change to the ticket as it is and stores what became of
// it, whether change refuses or not: its refusal is returned once that is
// durable. An unknown ticket is ErrNotFound.
func (p *Provider) changeTicket(ctx context.Context, key storage.Digest, change func(t *ticket, now time.Time) error) (*ticket, error) {
	for range maxTicketChanges {
		state, err := p.store.State(ctx, storage.StateTicket, key)
		if err != nil {
			return nil, err
		}
		t, err := decodeTicket(state.Value)
		if err != nil {
			return nil, err
		}
		refusal := change(t, time.Now())
		value, err := t.encode()
		if err != nil {
			return nil, err
		}
		if bytes.Equal(value, state.Value) {
			return t, refusal
		}
		swapped, err := p.store.SwapState(ctx, storage.StateTicket, key, state.Version, value)
		if err != nil {
			return nil, err
		}
		if swapped {
			p.tickets.tell(key)
			return t, refusal
		}
	}
	return nil, errors.New("a ticket changes all the time")
}

// allowMisses refuses whoever has met too many unknown tickets. It comes before
// the look-up: otherwise a guess that hits would still be told from the rest.
func (p *Provider) allowMisses(who ...string) error {
	for _, key := range who {
		if ok, wait := p.tickets.misses.Peek(key); !ok {
			return Limited("ticket_misses", wait)
		}
	}
	return nil
}

// missed counts an unknown ticket and returns refusal.
func (p *Provider) missed(refusal *Error, who ...string) error {
	for _, key := range who {
		if ok, wait := p.tickets.misses.Allow(key); !ok {
			return Limited("ticket_misses", wait)
		}
	}
	return refusal
}

// subscriber is the address of a request as limits count it.
func (r Request) subscriber() string { return limit.Subscriber(r.RemoteIP).String() }

// place is the coarse place of a request, for people.
func (r Request) place() string {
	if r.Place != "" {
		return r.Place
	}
	return coarsePlace(r.RemoteIP)
}
