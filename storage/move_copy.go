package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"time"
)

// savePositionEvery is how much of a move is at most repeated after it ended
// half-way.
const savePositionEvery = time.Second

func (m *Move) observe(p MoveProgress) {
	if m.Observe != nil {
		m.Observe(p)
	}
}

// count returns how many rows of each kind the source has, and of all.
func (m *Move) count(ctx context.Context) (totals map[RowKind]int64, total int64, err error) {
	totals = make(map[RowKind]int64)
	for _, kind := range RowKinds() {
		if totals[kind], err = m.From.Store.CountRows(ctx, kind); err != nil {
			return nil, 0, fmt.Errorf("count the %s: %w", kind, err)
		}
		total += totals[kind]
	}
	return totals, total, nil
}

// copyAll copies what is behind the destination's position.
func (m *Move) copyAll(ctx context.Context, at *moveState, total int64) error {
	saved := time.Now()
	for _, kind := range RowKinds() {
		if kind < at.Kind {
			continue
		}
		if kind > at.Kind {
			at.Kind, at.After = kind, nil
		}
		m.observe(MoveProgress{MoveCopying, kind, at.Rows, total})
		pages := readPages(ctx, m.From.Store, kind, at.After, m.PageSize)
		for {
			rows, err := pages.next()
			if err == nil && len(rows) > 0 {
				err = insist(ctx, func() error { return m.To.Store.ImportRows(ctx, rows) })
			}
			if err != nil {
				pages.stop()
				return fmt.Errorf("copy %s: %w", kind, err)
			}
			if len(rows) == 0 {
				break
			}
			at.After, at.Rows = rows[len(rows)-1].Key, at.Rows+int64(len(rows))
			m.observe(MoveProgress{MoveCopying, kind, at.Rows, total})
			if time.Since(saved) >= savePositionEvery {
				if err := at.save(ctx, m.To.Store); err != nil {
					pages.stop()
					return err
				}
				saved = time.Now()
			}
		}
	}
	at.Kind, at.After = RowLogout+1, nil
	return at.save(ctx, m.To.Store)
}

// verifyAll reads both ends and compares them row by row.
func (m *Move) verifyAll(ctx context.Context, totals map[RowKind]int64, total int64) (kinds []MovedKind, err error) {
	done := int64(0)
	for _, kind := range RowKinds() {
		moved, err := m.verify(ctx, kind, func(rows int64) {
			m.observe(MoveProgress{MoveVerifying, kind, done + rows, total})
		})
		if err == nil && moved.Rows != totals[kind] {
			err = fmt.Errorf("%w: the source had %d when the move began, and has %d", ErrMismatch, totals[kind], moved.Rows)
		}
		if err != nil {
			return nil, fmt.Errorf("verify the %s: %w", kind, err)
		}
		kinds = append(kinds, moved)
		done += moved.Rows
	}
	return kinds, nil
}

// ErrMismatch means that the ends of a move do not hold the same.
var ErrMismatch = errors.New("the destination does not hold what the source does; empty it and begin anew")

func (m *Move) verify(ctx context.Context, kind RowKind, observe func(rows int64)) (MovedKind, error) {
	source := readPages(ctx, m.From.Store, kind, nil, m.PageSize)
	defer source.stop()
	destination := readPages(ctx, m.To.Store, kind, nil, m.PageSize)
	defer destination.stop()
	moved := MovedKind{Kind: kind}
	sum := sha256.New()
	var left, there []Row // not compared yet
	for {
		var err error
		if len(left) == 0 {
			left, err = source.next()
		}
		if err == nil && len(there) == 0 {
			there, err = destination.next()
		}
		if err != nil {
			return moved, err
		}
		n := min(len(left), len(there))
		for i := range n {
			if err := compare(left[i], there[i]); err != nil {
				return moved, err
			}
			addRow(sum, there[i])
		}
		moved.Rows += int64(n)
		observe(moved.Rows)
		if n == 0 {
			if len(left) > 0 {
				return moved, fmt.Errorf("%w: row %x is missing", ErrMismatch, left[0].Key)
			}
			if len(there) > 0 {
				return moved, fmt.Errorf("%w: there is a row %x too much", ErrMismatch, there[0].Key)
			}
			sum.Sum(moved.Checksum[:0])
			return moved, nil
		}
		left, there = left[n:], there[n:]
	}
}

func compare(want, got Row) error {
	switch bytes.Compare(got.Key, want.Key) {
	case -1:
		return fmt.Errorf("%w: there is a row %x too much", ErrMismatch, got.Key)
	case 1:
		return fmt.Errorf("%w: row %x is missing", ErrMismatch, want.Key)
	}
	if !bytes.Equal(got.Value, want.Value) {
		return fmt.Errorf("%w: row %x differs", ErrMismatch, want.Key)
	}
	return nil
}

func addRow(sum hash.Hash, row Row) {
	var head [16]byte
	binary.BigEndian.PutUint64(head[:8], uint64(len(row.Key)))
	binary.BigEndian.PutUint64(head[8:], uint64(len(row.Value)))
	sum.Write(head[:])
	sum.Write(row.Key)
	sum.Write(row.Value)
}

// pages are the rows of a kind, read ahead by one page.
type pages struct {
	queue  chan page
	cancel context.CancelFunc
	ended  bool // the last page was taken
}

type page struct {
	rows []Row
	last bool
	err  error
}

func readPages(ctx context.Context, from Movable, kind RowKind, after []byte, size int) *pages {
	ctx, cancel := context.WithCancel(ctx)
	p := &pages{queue: make(chan page, 1), cancel: cancel}
	go func() {
		defer close(p.queue)
		for more := true; more; {
			var out page
			out.err = insist(ctx, func() error {
				rows, next, err := from.ExportRows(ctx, kind, after, size)
				if err == nil {
					out.rows, after, out.last = rows, next, next == nil
				}
				return err
			})
			more = out.err == nil && !out.last
			select {
			case p.queue <- out:
			case <-ctx.Done():
				return
			}
		}
	}()
	return p
}

// next returns the next rows; none at the end.
func (p *pages) next() ([]Row, error) {
	for out := range p.queue {
		p.ended = p.ended || out.last
		if out.err != nil || len(out.rows) > 0 {
			return out.rows, out.err
		}
	}
	if !p.ended {
		return nil, context.Canceled // the reader was told to stop, and there is more
	}
	return nil, nil
}

// stop ends the reading and waits for its end.
func (p *pages) stop() {
	p.cancel()
	for range p.queue {
	}
}

// How often a step of a move is tried where a store is away for a moment.
const moveTries = 6

// insist runs a step that may be repeated, again while the store cannot answer
// now: for about half a minute.
func insist(ctx context.Context, step func() error) error {
	for try := 1; ; try++ {
		err := step()
		if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrCorrupt) || try == moveTries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second << (try - 1)):
		}
	}
}
