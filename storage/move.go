package storage

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// MoveRecord is the name of the document that says what a store has to do with
// a move.
const MoveRecord = "move"

// ErrMoved means that a store must not be served because of a move: it is the
// destination of one that is not complete, or its data is or will be elsewhere.
var ErrMoved = errors.New("the data takes part in a move")

// MoveEnd is one end of a move.
type MoveEnd struct {
	Store Movable
	Name  string // what people call it; it is stored and must tell no secret

	// Idle returns an error where somebody else uses the store. nil: the engine
	// lets nobody else in.
	Idle func(ctx context.Context) error
	// Settle is called when all rows are there. nil: there is nothing to do.
	Settle func(ctx context.Context) error
}

// Move copies everything that one store holds to another one, which is empty
// or holds a part of the same move, and verifies it. From its beginning on a
// durable mark keeps either store from being served. In the end the mark of
// the destination goes; that of the source stays.
//
// A move that ended half-way is run again and goes on where it was.
type Move struct {
	From, To MoveEnd
	// Observe is told how far the move is, after every page. nil: nobody asks.
	Observe func(MoveProgress)
	// PageSize is how many rows are moved in one commit; 0: MaxRows.
	PageSize int
}

// MoveProgress says how far a move is.
type MoveProgress struct {
	Stage MoveStage
	Kind  RowKind // that is under way
	Rows  int64   // done in this stage, those before a resumption included
	Total int64   // of the stage
}

// MoveStage is a part of a move.
type MoveStage int

// The stages of a move.
const (
	MoveCopying MoveStage = iota + 1
	MoveVerifying
)

// MoveReport says what was moved.
type MoveReport struct {
	Kinds   []MovedKind
	Resumed bool // an earlier run had begun it
}

// MovedKind is what was moved of one kind, as the destination was read back.
type MovedKind struct {
	Kind     RowKind
	Rows     int64
	Checksum [sha256.Size]byte // of all keys and values in order; the same at both ends
}

// moveState is the content of MoveRecord.
type moveState struct {
	ID    string    `json:"id"` // the same at both ends
	Role  moveRole  `json:"role"`
	Peer  string    `json:"peer"` // the other end's name
	Since time.Time `json:"since"`

	Done bool `json:"done,omitempty"` // of a source: the move is complete

	// Of a destination: up to which row everything is there.
	Kind  RowKind `json:"kind,omitempty"`
	After []byte  `json:"after,omitempty"`
	Rows  int64   `json:"rows,omitempty"`

	version uint64 // of the record
}

type moveRole string

const (
	roleSource      moveRole = "source"
	roleDestination moveRole = "destination"
)

// MoveUnfinished returns an error that wraps ErrMoved, and says what to do,
// where a store must not be served because of a move.
func MoveUnfinished(ctx context.Context, records Records) error {
	state, err := loadMove(ctx, records)
	since := state.Since.Format(time.RFC3339)
	switch {
	case err != nil || state.Role == "":
		return err
	case state.Role == roleDestination:
		return fmt.Errorf("%w: that from %s, begun at %s, is not complete; run wxidp migrate data again, as before", ErrMoved, state.Peer, since)
	case !state.Done:
		return fmt.Errorf("%w: that to %s, begun at %s, is not complete; run wxidp migrate data again, as before, or give it up with wxidp migrate data --undo",
			ErrMoved, state.Peer, since)
	}
	return fmt.Errorf("%w: it was moved to %s, and what is here is of %s; serve it there, or see wxidp migrate data --help for the way back", ErrMoved, state.Peer, since)
}

// UndoMove takes the mark of a move from its source, so that it is served
// again. peer is where the data was moved to, and done whether all of it was:
// whatever was written there since is missing here. It returns ErrNotFound
// where there is no such mark.
func UndoMove(ctx context.Context, records Records) (peer string, done bool, err error) {
	state, err := loadMove(ctx, records)
	switch {
	case err != nil:
		return "", false, err
	case state.Role == roleDestination:
		return "", false, fmt.Errorf("%w: this is the destination of the move from %s; the mark to take away is at the source", ErrMoved, state.Peer)
	case state.Role == "":
		return "", false, ErrNotFound
	}
	peer, done = state.Peer, state.Done
	return peer, done, state.clear(ctx, records)
}

func loadMove(ctx context.Context, records Records) (state moveState, err error) {
	value, version, err := records.Record(ctx, MoveRecord)
	if err != nil {
		return moveState{}, err
	}
	if len(value) > 0 {
		if err := json.Unmarshal(value, &state); err != nil || state.Role != roleSource && state.Role != roleDestination {
			return moveState{}, fmt.Errorf("%w: the record of a move", ErrCorrupt)
		}
	}
	state.version = version
	return state, nil
}

func (s *moveState) save(ctx context.Context, records Records) error {
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return s.swap(ctx, records, value)
}

// clear takes the mark away. The record stays, empty.
func (s *moveState) clear(ctx context.Context, records Records) error {
	version := s.version
	*s = moveState{version: version}
	return s.swap(ctx, records, nil)
}

func (s *moveState) swap(ctx context.Context, records Records, value []byte) error {
	swapped, err := records.SwapRecord(ctx, MoveRecord, s.version, value)
	if err == nil && !swapped {
		err = fmt.Errorf("%w: another move of this data is under way", ErrMoved)
	}
	if err == nil {
		s.version++
	}
	return err
}

// Run moves. Where it returns an error, it may be run again.
func (m *Move) Run(ctx context.Context) (MoveReport, error) {
	var report MoveReport
	source, destination, err := m.begin(ctx, &report)
	if err != nil {
		return MoveReport{}, err
	}
	totals, total, err := m.count(ctx)
	if err != nil {
		return MoveReport{}, err
	}
	if err := m.copyAll(ctx, &destination, total); err != nil {
		return MoveReport{}, err
	}
	if report.Kinds, err = m.verifyAll(ctx, totals, total); err != nil {
		return MoveReport{}, err
	}
	return report, m.finish(ctx, &source, &destination)
}

// begin marks both ends, or finds them marked.
func (m *Move) begin(ctx context.Context, report *MoveReport) (source, destination moveState, err error) {
	if source, err = loadMove(ctx, m.From.Store); err == nil {
		destination, err = loadMove(ctx, m.To.Store)
	}
	if err != nil {
		return source, destination, err
	}
	switch {
	case source.Role == roleDestination:
		return source, destination, fmt.Errorf("%w: the source is itself the destination of a move from %s that is not complete", ErrMoved, source.Peer)
	case destination.Role == roleSource:
		return source, destination, fmt.Errorf("%w: the destination was itself moved to %s; move to an empty one", ErrMoved, destination.Peer)
	}
	report.Resumed = destination.Role == roleDestination && destination.ID == source.ID
	if report.Resumed {
		return source, destination, m.idle(ctx)
	}
	if source.Done {
		return source, destination, fmt.Errorf("%w: the source has been moved already, to %s", ErrMoved, source.Peer)
	}
	if err := m.wantEmpty(ctx, destination); err != nil {
		return source, destination, err
	}
	id, since := rand.Text(), time.Now().UTC().Truncate(time.Second)
	destination = moveState{ID: id, Role: roleDestination, Peer: m.From.Name, Since: since, Kind: RowRecord, version: destination.version}
	source = moveState{ID: id, Role: roleSource, Peer: m.To.Name, Since: since, version: source.version}
	if err := destination.save(ctx, m.To.Store); err != nil {
		return source, destination, fmt.Errorf("mark the destination: %w", err)
	}
	if err := source.save(ctx, m.From.Store); err != nil {
		return source, destination, fmt.Errorf("mark the source: %w", err)
	}
	if err := m.idle(ctx); err != nil { // looked at now: nobody begins to serve any more
		return source, destination, errors.Join(err, source.clear(ctx, m.From.Store), destination.clear(ctx, m.To.Store))
	}
	return source, destination, nil
}

func (m *Move) idle(ctx context.Context) error {
	for _, end := range []MoveEnd{m.From, m.To} {
		if end.Idle == nil {
			continue
		}
		if err := end.Idle(ctx); err != nil {
			return fmt.Errorf("%s: %w", end.Name, err)
		}
	}
	return nil
}

// wantEmpty returns an error where a store holds anything but what opening it
// has made.
func (m *Move) wantEmpty(ctx context.Context, state moveState) error {
	for _, kind := range RowKinds() {
		rows, _, err := m.To.Store.ExportRows(ctx, kind, nil, 2)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if kind == RowRecord && string(row.Key) == VaultRecord {
				continue
			}
			if state.Role == roleDestination {
				return fmt.Errorf("%w: the destination holds a part of another move, from %s, or its source was served since; empty the destination and begin anew",
					ErrMoved, state.Peer)
			}
			return fmt.Errorf("the destination is not empty: it holds %s; move to an empty one", kind)
		}
	}
	return nil
}

// finish makes the destination the one that is served. The source is marked
// first, so that there is never a moment at which both would be.
func (m *Move) finish(ctx context.Context, source, destination *moveState) error {
	if m.To.Settle != nil {
		if err := m.To.Settle(ctx); err != nil {
			return fmt.Errorf("%s: %w", m.To.Name, err)
		}
	}
	if err := m.idle(ctx); err != nil {
		return err
	}
	if !source.Done {
		source.Done, source.Since = true, time.Now().UTC().Truncate(time.Second)
		if err := source.save(ctx, m.From.Store); err != nil {
			return fmt.Errorf("mark the source: %w", err)
		}
	}
	if err := destination.clear(ctx, m.To.Store); err != nil {
		return fmt.Errorf("everything is moved, but the destination is not yet marked so; run the move again: %w", err)
	}
	return nil
}
