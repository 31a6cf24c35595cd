package storage

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// RestoredRecord is the name of the versioned document that says that the data
// came out of a backup. A store never acts on it by itself: whoever serves the
// data looks at it first, with ReadRestored, and has Settle do what was chosen.
const RestoredRecord = "restored"

// RestoreState says what has become of restored data.
type RestoreState string

// The states of restored data.
const (
	RestorePending  RestoreState = "pending"  // nobody has chosen what is to become of the sign-ins in it
	RestoreSettling RestoreState = "settling" // the choice is being carried out
	RestoreSettled  RestoreState = "settled"
)

// RestoreChoice is what becomes of the sign-ins in restored data. Some of them
// may have been ended since the backup was made.
type RestoreChoice string

// What may become of them. Codes, pushed requests, tickets and authorization
// requests under way end in any case: they are good for one use, which may
// have been made since the backup.
const (
	RestoreRevokeAll RestoreChoice = "revoke-all" // all end: families and login sessions
	RestoreAccept    RestoreChoice = "accept"     // they go on as they were
)

// RevokedForRestore is the reason of families that RestoreRevokeAll ended.
const RevokedForRestore = "restored"

// Restored is the document at RestoredRecord. The zero value says that the data
// never were restored.
type Restored struct {
	State      RestoreState  `json:"state"`
	TakenAt    time.Time     `json:"taken_at,omitzero"`    // when the backup was made; zero: unknown
	RestoredAt time.Time     `json:"restored_at,omitzero"` // when it was restored; zero: unknown
	Choice     RestoreChoice `json:"choice,omitempty"`     // from RestoreSettling on
	SettledAt  time.Time     `json:"settled_at,omitzero"`
	// Summed: the data were written as a file with a checksum at its end, and
	// nothing was changed since.
	Summed bool `json:"summed,omitempty"`
}

// Open reports whether the choice about restored data is not carried out yet.
func (r *Restored) Open() bool { return r.State == RestorePending || r.State == RestoreSettling }

// Encode returns the document as it is stored.
func (r *Restored) Encode() []byte {
	data, err := json.Marshal(r)
	if err != nil {
		panic(err) // impossible: no field of it can fail
	}
	return data
}

// DecodeRestored reads what Encode wrote, or returns ErrCorrupt.
func DecodeRestored(data []byte) (r Restored, err error) {
	if err := json.Unmarshal(data, &r); err != nil {
		return Restored{}, fmt.Errorf("%w: the document about restoring cannot be read", ErrCorrupt)
	}
	switch r.State {
	case RestorePending, RestoreSettled:
	case RestoreSettling:
		if r.Choice != RestoreRevokeAll && r.Choice != RestoreAccept {
			return Restored{}, fmt.Errorf("%w: the document about restoring has an unknown choice", ErrCorrupt)
		}
	default:
		return Restored{}, fmt.Errorf("%w: the document about restoring has an unknown state", ErrCorrupt)
	}
	return r, nil
}

// ReadRestored returns the document at RestoredRecord and its version, 0 where
// there is none.
func ReadRestored(ctx context.Context, records Records) (r Restored, version uint64, err error) {
	data, version, err := records.Record(ctx, RestoredRecord)
	if err != nil || version == 0 {
		return Restored{}, 0, err
	}
	r, err = DecodeRestored(data)
	return r, version, err
}

// MarkRestored says of a store's data that they come out of a backup, so that
// they are not served before there is a choice.
func MarkRestored(ctx context.Context, records Records, takenAt time.Time) error {
	for {
		_, version, err := ReadRestored(ctx, records)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return err
		}
		r := Restored{State: RestorePending, TakenAt: takenAt.UTC(), RestoredAt: time.Now().UTC().Truncate(time.Second)}
		swapped, err := records.SwapRecord(ctx, RestoredRecord, version, r.Encode())
		if err != nil || swapped {
			return err
		}
	}
}

// RestoreStep asks Store.EndRestored for a part of what Settle does.
type RestoreStep struct {
	Version   uint64   // of the document at RestoredRecord; another one there ends the work
	RevokeAll bool     // also families and login sessions
	Notify    []string // clients that are told of the end of login sessions
	Cursor    string   // "": the beginning
	Limit     int
}

// RestoreStepResult is the outcome of Store.EndRestored.
type RestoreStepResult struct {
	Superseded bool // the document has another version, and nothing was done
	RestoreCounts
	Next string // "": all is done
}

// RestoreCounts are what ended when restored data were settled.
type RestoreCounts struct {
	Families int // that were live
	Logins   int // login sessions that had not ended
	Others   int // codes, items, documents and idempotency records
}

func (c *RestoreCounts) add(more RestoreCounts) {
	c.Families, c.Logins, c.Others = c.Families+more.Families, c.Logins+more.Logins, c.Others+more.Others
}

// Restores is the part of a Store about data that came out of a backup.
type Restores interface {
	// EndRestored looks at up to Limit records after the cursor and ends what
	// must not come to life again: unused codes, single-use items, expiring
	// documents and idempotency records; of families and login sessions those
	// that are live, where RevokeAll is set.
	EndRestored(ctx context.Context, step RestoreStep) (RestoreStepResult, error)
}

// ErrUndecided means that data came out of a backup and nobody has said what is
// to become of the sign-ins in it.
var ErrUndecided = errors.New("storage: restored data about which nothing was chosen")

// ErrRevokeAllBegun means that some sign-ins of restored data have been ended
// already, so that they cannot all be accepted any more.
var ErrRevokeAllBegun = errors.New("storage: a revocation of all sign-ins has begun and must be finished")

// settleBatch is how many records one step of Settle looks at.
const settleBatch = 500

// Settle carries out a choice about restored data, and returns the document
// with its version as it is then; settled says whether this call did so. Where
// nothing was restored, or all is settled, it does nothing. A choice that an
// earlier call began is carried on where choice is "". Several nodes may
// call it at once: all return when one of them has finished. progress is told of
// every step.
//
// It must end before the first request is served.
func Settle(
	ctx context.Context, store Store, choice RestoreChoice, notify []string, progress func(RestoreCounts),
) (r Restored, counts RestoreCounts, settled bool, err error) {
	for {
		var version uint64
		r, version, err = ReadRestored(ctx, store)
		if err != nil || !r.Open() {
			return r, counts, false, err
		}
		begun := r
		switch {
		case choice == "" && r.State == RestorePending:
			return r, counts, false, ErrUndecided
		case choice == RestoreAccept && r.State == RestoreSettling && r.Choice == RestoreRevokeAll:
			return r, counts, false, ErrRevokeAllBegun
		case choice != "":
			begun.Choice = choice
		}
		begun.State, begun.Summed = RestoreSettling, false
		if begun != r {
			swapped, err := store.SwapRecord(ctx, RestoredRecord, version, begun.Encode())
			if err != nil {
				return r, counts, false, err
			}
			if !swapped {
				continue
			}
			version++
		}
		done, err := settleSteps(ctx, store, version, begun.Choice, notify, &counts, progress)
		if err != nil {
			return begun, counts, false, err
		}
		if !done {
			continue
		}
		r = begun
		r.State, r.SettledAt = RestoreSettled, time.Now().UTC().Truncate(time.Second)
		swapped, err := store.SwapRecord(ctx, RestoredRecord, version, r.Encode())
		if err != nil || swapped {
			return r, counts, err == nil, err
		}
	}
}

// settleSteps ends what must end. done is false where the document has changed
// meanwhile.
func settleSteps(
	ctx context.Context, store Store, version uint64, choice RestoreChoice, notify []string, counts *RestoreCounts, progress func(RestoreCounts),
) (done bool, err error) {
	step := RestoreStep{Version: version, RevokeAll: choice == RestoreRevokeAll, Notify: notify, Limit: settleBatch}
	for {
		res, err := store.EndRestored(ctx, step)
		if err != nil {
			return false, fmt.Errorf("settle restored data: %w", err)
		}
		counts.add(res.RestoreCounts)
		if res.Superseded {
			return false, nil
		}
		if progress != nil {
			progress(*counts)
		}
		if step.Cursor = res.Next; step.Cursor == "" {
			return true, nil
		}
	}
}

// RestoreCursor is a cursor of EndRestored: the kind of records that it has come
// to, and the key of the last one it looked at. An engine numbers the kinds.
func RestoreCursor(kind int, key []byte) string {
	return strconv.Itoa(kind) + "." + base64.RawURLEncoding.EncodeToString(key)
}

// ParseRestoreCursor reads what RestoreCursor wrote, "" as the beginning of kind
// 0, or returns ErrBadCursor.
func ParseRestoreCursor(cursor string, kinds int) (kind int, key []byte, err error) {
	if cursor == "" {
		return 0, nil, nil
	}
	head, tail, _ := strings.Cut(cursor, ".")
	kind, err = strconv.Atoi(head)
	if err == nil {
		key, err = base64.RawURLEncoding.DecodeString(tail)
	}
	if err != nil || kind < 0 || kind >= kinds {
		return 0, nil, ErrBadCursor
	}
	return kind, key, nil
}
