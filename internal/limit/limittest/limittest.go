// Package limittest has a board for tests of limits that nodes share.
package limittest

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/limit"
	"github.com/wxidp/wxidp/internal/seal"
)

// Board is a limit.Board in memory.
type Board struct {
	mu      sync.Mutex
	notices []kept
	trades  int
	fault   func(trade int) Fault
}

type kept struct {
	limit.Notice
	until time.Time
}

// Fault is what goes wrong with a trade.
type Fault int

// The faults.
const (
	None   Fault = iota
	Lost         // the notice does not arrive
	NoWord       // the notice arrives, but the node does not hear of it
)

// ErrFault is the error of every trade that goes wrong.
var ErrFault = errors.New("limittest: the board does not answer")

// SetFault lets fault decide what goes wrong with trades, which are counted
// from 1 on; nil: nothing.
func (b *Board) SetFault(fault func(trade int) Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = fault
}

// TradeNotices is limit.Board's.
func (b *Board) TradeNotices(ctx context.Context, mine limit.Notice, seen map[limit.NodeID]int64) ([]limit.Notice, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.trades++
	fault := None
	if b.fault != nil {
		fault = b.fault(b.trades)
	}
	if fault == Lost {
		return nil, ErrFault
	}
	now := time.Now()
	b.notices = slices.DeleteFunc(b.notices, func(k kept) bool { return now.After(k.until) })
	known := slices.ContainsFunc(b.notices, func(k kept) bool { return k.Node == mine.Node && k.Round == mine.Round })
	if len(mine.Body) > 0 && !known {
		b.notices = append(b.notices, kept{mine, now.Add(limit.NoticeLife)})
	}
	if fault == NoWord {
		return nil, ErrFault
	}
	var others []limit.Notice
	for _, k := range b.notices {
		if k.Node != mine.Node && k.Round > seen[k.Node] {
			others = append(others, k.Notice)
		}
	}
	slices.SortStableFunc(others, func(a, b limit.Notice) int { return cmp.Compare(a.Round, b.Round) })
	return others, nil
}

// Notices returns what is on the board.
func (b *Board) Notices() (notices []limit.Notice) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range b.notices {
		notices = append(notices, k.Notice)
	}
	return notices
}

// Leave puts a notice on the board.
func (b *Board) Leave(n limit.Notice) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notices = append(b.notices, kept{n, time.Now().Add(limit.NoticeLife)})
}

// Keyring is the nodes' keyring.
func Keyring() *seal.Keyring {
	keyring, err := seal.ParseKeyring([]byte("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n"))
	if err != nil {
		panic(err) // it is a key
	}
	return keyring
}

// Node runs an exchange of what register registers, until stop is called or
// the test ends. Two tenths of a second later it has heard what others had told.
func Node(t testing.TB, board *Board, log *slog.Logger, register func(x *limit.Exchange)) (stop func()) {
	t.Helper()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	x := limit.NewExchange(board, Keyring(), log)
	register(x)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return stop
}
