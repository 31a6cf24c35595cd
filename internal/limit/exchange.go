package limit

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
)

const (
	exchangeEvery = 100 * time.Millisecond
	maxPause      = 2 * time.Second // between rounds that fail
	lastRound     = 2 * time.Second // how long the round at the end may take
	forgetAfter   = time.Minute     // that a node was silent; its notices are gone by then

	purpose = "limits of other nodes"
)

// NodeID names one process that takes part in an exchange, at random.
type NodeID [16]byte

// Notice is what one node tells all others in one round: how often keys were
// let through since the round before. The Body is sealed.
type Notice struct {
	Node  NodeID
	Round int64 // from 1 on, without a gap
	Body  []byte
}

// NoticeLife is for how long a Board has to keep a Notice at least. A node that
// does not look at the Board for longer goes without what was told meanwhile.
const NoticeLife = 10 * time.Second

// Board is where nodes leave notices for each other.
type Board interface {
	// TradeNotices leaves mine unless its Body is empty, and returns notices of
	// nodes other than mine.Node: of each node those of rounds above the one in
	// seen, in the order of rounds, but not necessarily all that there are. To
	// leave a notice that was left before has no effect.
	TradeNotices(ctx context.Context, mine Notice, seen map[NodeID]int64) ([]Notice, error)
}

// Ledger is something that nodes count together. Its methods are called by one
// goroutine.
type Ledger interface {
	// Tell calls take for what other nodes have to know and were not told yet.
	// What take returns true for counts as told; the first false ends the
	// telling. From the first call on a ledger keeps what is to be told.
	Tell(take func(key string, n int64) bool)
	// Hear counts what another node tells. It is never told on.
	Hear(key string, n int64)
}

// Exchange lets limits hold for several nodes together. Every tenth of a
// second a node tells the others how often keys were let through, and charges
// its own limits with what they tell. Only counts travel and never times, so
// nodes' clocks need not agree. A node that cannot reach the others goes on
// with its own counts and tells them later.
type Exchange struct {
	board   Board
	keyring *seal.Keyring
	log     *slog.Logger
	names   []string
	ledgers map[string]Ledger

	mine Notice // not left on the board yet where Body is set; the next one where it is not
	turn int    // whose ledger is first in the next notice
	seen map[NodeID]*neighbour
	fail bool // the last round failed
}

// neighbour is what is known of another node.
type neighbour struct {
	round      int64
	at         time.Time // when it was heard last
	unreadable bool      // a notice of it was, and that was logged
}

// NewExchange returns an Exchange without ledgers.
func NewExchange(board Board, keyring *seal.Keyring, logger *slog.Logger) *Exchange {
	x := &Exchange{
		board: board, keyring: keyring, log: logger,
		ledgers: make(map[string]Ledger), seen: make(map[NodeID]*neighbour),
	}
	x.mine.Round = 1
	rand.Read(x.mine.Node[:])
	return x
}

// Register makes ledger known under a name of at most 64 bytes, by which nodes
// agree on what is the same. It must not be called once Run was.
func (x *Exchange) Register(name string, ledger Ledger) {
	if len(name) == 0 || len(name) > maxName || x.ledgers[name] != nil {
		panic("limit: bad name of a ledger: " + name)
	}
	x.names = append(x.names, name)
	x.ledgers[name] = ledger
}

// Run exchanges counts until ctx ends, and tells a last time what is left then.
func (x *Exchange) Run(ctx context.Context) {
	pause := exchangeEvery
	for {
		err := x.round(ctx)
		if ctx.Err() != nil {
			break
		}
		x.report(err)
		if pause = min(2*pause, maxPause); err == nil {
			pause = exchangeEvery
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastRound)
	defer cancel()
	_ = x.round(last) // where it fails the others go without the last of this node
}

// report logs when sharing ends and when it begins again.
func (x *Exchange) report(err error) {
	switch {
	case err != nil && !x.fail:
		x.log.Warn("this node's limits count alone until the database answers", "event", "limits.alone", "detail", err.Error())
	case err == nil && x.fail:
		x.log.Info("limits are shared with the other nodes again", "event", "limits.shared")
	}
	x.fail = err != nil
}

// round tells what there is to tell and hears what others tell. A notice that
// may not have arrived is told again, the same, until it has.
func (x *Exchange) round(ctx context.Context) error {
	if x.mine.Body == nil {
		x.mine.Body = x.compose()
	}
	rounds := make(map[NodeID]int64, len(x.seen))
	for id, n := range x.seen {
		rounds[id] = n.round
	}
	notices, err := x.board.TradeNotices(ctx, x.mine, rounds)
	if err != nil {
		return err
	}
	if x.mine.Body != nil {
		x.mine.Body = nil
		x.mine.Round++
	}
	now := time.Now()
	for _, n := range notices {
		x.hear(n, now)
	}
	for id, n := range x.seen {
		if now.Sub(n.at) > forgetAfter {
			delete(x.seen, id)
		}
	}
	return nil
}

// compose returns a sealed body, nil where there is nothing to tell. Each
// ledger may have an equal share of it, and what those before it have left of
// theirs.
func (x *Exchange) compose() []byte {
	b := newBody()
	for i := range x.names {
		name := x.names[(x.turn+i)%len(x.names)]
		b.section(name, x.ledgers[name], (maxBody-len(b.data))/(len(x.names)-i))
	}
	x.turn++
	if b.empty() {
		return nil
	}
	return x.keyring.Seal(purpose, x.mine.place(), b.data)
}

// hear counts another node's notice.
func (x *Exchange) hear(n Notice, now time.Time) {
	from := x.seen[n.Node]
	if from == nil {
		from = new(neighbour)
		x.seen[n.Node] = from
	}
	if n.Node == x.mine.Node || n.Round <= from.round {
		return
	}
	from.round, from.at = n.Round, now
	entries, err := x.open(n)
	if err != nil {
		if !from.unreadable {
			x.log.Warn("what another node tells of limits cannot be read; is it another version?", "event", "limits.unreadable",
				"node", hex.EncodeToString(n.Node[:4]), "detail", err.Error())
		}
		from.unreadable = true
		return
	}
	for _, e := range entries {
		if ledger := x.ledgers[e.ledger]; ledger != nil { // else one of a newer version
			ledger.Hear(e.key, e.n)
		}
	}
}

func (x *Exchange) open(n Notice) ([]heard, error) {
	data, err := x.keyring.Open(purpose, n.place(), n.Body)
	if err != nil {
		return nil, err
	}
	return parseBody(data)
}

// place binds a body to its node and round.
func (n Notice) place() []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(n.Node[:]), uint64(n.Round))
}
