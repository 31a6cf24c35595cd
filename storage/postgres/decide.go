package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
)

// statement is what an operation writes, with its arguments.
type statement struct {
	sql  string
	args []any
}

// judgement decides one operation about people by what it reads through the
// draft and through rows, and adds to rows what is to be written beside the
// draft's changes. Where keep is false nothing is written. It is called more
// than once, and must set its results anew each time.
type judgement func(d *storage.Draft, r *rows) (keep bool, err error)

// maxHolds is how often an operation finds that it touches yet another user
// before it gives way to others.
const maxHolds = 8

// decide runs an operation about people. It is judged on a snapshot first. If
// there is something to write, the users that it touches are locked in the
// order of their ids, and it is judged again by the clock as it is then, on
// rows that only holders of these locks change. Rows that are new are settled
// by their unique keys: who comes second begins anew.
func (s *Store) decide(ctx context.Context, judge judgement) error {
	return s.decideOn(ctx, &rows{}, judge)
}

// decideOn is decide for an operation of which it is known that it looks at
// the keys in expected.
func (s *Store) decideOn(ctx context.Context, expected *rows, judge judgement) error {
	var touched []string
	looked := false
	return s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		r := &rows{ctx: ctx, store: s, conn: c}
		if !looked {
			if err := r.look(expected); err != nil {
				return err
			}
			if changes, err := r.judge(judge); err != nil || len(changes) == 0 {
				return err
			}
			looked, touched = true, r.users()
		}
		for range maxHolds {
			next, err := s.hold(r, touched)
			if err != nil {
				return err
			}
			r = next
			changes, err := r.judge(judge)
			if errors.Is(err, errNotHeld) {
				touched = union(touched, r.users())
				continue
			}
			if err != nil || len(changes) == 0 {
				return err
			}
			if err := r.commit(changes); err != nil {
				return err
			}
			s.wrote(ctx, 1)
			return nil
		}
		return errAgain
	})
}

// edit runs an operation that a draft alone judges.
func (s *Store) edit(ctx context.Context, judge func(d *storage.Draft) error) error {
	return s.decide(ctx, func(d *storage.Draft, _ *rows) (bool, error) { return true, judge(d) })
}

// rehearse judges an operation on one snapshot and writes nothing.
func (s *Store) rehearse(ctx context.Context, judge func(d *storage.Draft) error) error {
	return s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		r := &rows{ctx: ctx, store: s, conn: c}
		if err := r.look(&rows{}); err != nil {
			return err
		}
		return judge(storage.NewDraft(r, s.vault, r.now))
	})
}

// errNotHeld means that a judgement came to a user whose lock is not held.
var errNotHeld = errors.New("storage: another user is touched")

// look begins a transaction that reads one snapshot.
func (r *rows) look(expected *rows) error {
	var b pgx.Batch
	b.Queue(`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`)
	r.queueClock(&b)
	r.prefetch(&b, expected)
	return r.conn.SendBatch(r.ctx, &b).Close()
}

// hold ends what a transaction has seen and begins another one, which holds the
// locks of users and has read again, after it got them, what was seen before.
func (s *Store) hold(seen *rows, users []string) (*rows, error) {
	r := &rows{ctx: seen.ctx, store: s, conn: seen.conn, held: map[string]bool{}}
	slices.Sort(users)
	for _, id := range users {
		r.held[id] = true
	}
	var b pgx.Batch
	if r.conn.PgConn().TxStatus() != 'I' {
		b.Queue(`ROLLBACK`)
	}
	b.Queue(beginLocking)
	b.Queue(s.endIdle)
	if len(users) > 0 {
		b.Queue(`SELECT id, record FROM users WHERE id = ANY($1) ORDER BY id FOR UPDATE`, users).Query(func(found pgx.Rows) error {
			return r.scanUsers(found)
		})
	}
	r.queueClock(&b)
	r.prefetch(&b, seen)
	return r, r.conn.SendBatch(r.ctx, &b).Close()
}

func (r *rows) queueClock(b *pgx.Batch) {
	b.Queue(r.store.sql(`SELECT clock_timestamp()`)).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&r.now)
		r.now = r.now.UTC()
		return err
	})
}

// judge returns what is to be written.
func (r *rows) judge(judge judgement) ([]statement, error) {
	r.extra = nil
	draft := storage.NewDraft(r, r.store.vault, r.now)
	keep, err := judge(draft, r)
	if err != nil || !keep {
		return nil, err
	}
	changes, err := draft.Changes()
	if err != nil {
		return nil, err
	}
	list, err := r.apply(&changes)
	if err != nil {
		return nil, err
	}
	return append(list, r.extra...), nil
}

// commit writes the statements and commits the transaction, in one round trip.
func (r *rows) commit(list []statement) error {
	var b pgx.Batch
	for _, st := range list {
		b.Queue(st.sql, st.args...)
	}
	b.Queue(`COMMIT`)
	return r.conn.SendBatch(r.ctx, &b).Close()
}

func union(a, b []string) []string {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}

// changeUser changes the record of a user who is not retired, where change
// says so, or returns storage.ErrNotFound.
func (s *Store) changeUser(ctx context.Context, id string, change func(now time.Time, u *storage.UserRecord) (bool, error)) error {
	return s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		r, err := s.hold(&rows{ctx: ctx, conn: c}, []string{text(id)})
		if err != nil {
			return err
		}
		user, err := r.liveUser(text(id))
		if err != nil {
			return err
		}
		if changed, err := change(r.now, &user); err != nil || !changed {
			return err
		}
		st, err := putUser(id, storage.EncodeUser(&user))
		if err == nil {
			err = r.commit([]statement{st})
		}
		if err != nil {
			return err
		}
		s.wrote(ctx, 1)
		return nil
	})
}

// corrupt says of which rows a damaged one is.
func corrupt(of string) error { return fmt.Errorf("%w: %s", storage.ErrCorrupt, of) }

// liveUser returns a user, or storage.ErrNotFound where there is none or it is
// retired.
func (r *rows) liveUser(id string) (user storage.UserRecord, err error) {
	data, err := r.UserRow(id)
	if err != nil {
		return user, err
	}
	if data == nil {
		return user, storage.ErrNotFound
	}
	user, err = storage.DecodeUser(data)
	if err == nil && user.Retired {
		err = storage.ErrNotFound
	}
	return user, err
}
