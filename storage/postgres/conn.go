package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/wxidp/wxidp/storage"
)

// How often an operation is tried that met another one, and one that reads
// over a connection that broke.
const (
	maxConflicts = 12
	maxReads     = 3
)

// SQLSTATEs that say why a statement was refused.
const (
	stateUnique       = "23505" // unique_violation
	stateSerialize    = "40001" // serialization_failure
	stateDeadlock     = "40P01" // deadlock_detected
	stateLockTimeout  = "55P03" // lock_not_available
	stateReadOnly     = "25006" // read_only_sql_transaction
	stateAdminEnds    = "57P01" // admin_shutdown
	stateCrashEnds    = "57P02" // crash_shutdown
	stateStarting     = "57P03" // cannot_connect_now
	stateManyClients  = "53300" // too_many_connections
	stateStatementOld = "0A000" // feature_not_supported: a cached plan is of an older schema
)

// read runs what only reads, on one connection. A broken connection costs a
// new one and another try.
func (s *Store) read(ctx context.Context, fn func(ctx context.Context, c *pgx.Conn) error) error {
	for try := 1; ; try++ {
		err := s.attempt(ctx, false, fn)
		if err == nil || try == maxReads || !(conflict(err) || broken(err)) || ctx.Err() != nil {
			return s.explain(ctx, err)
		}
		pause(try)
	}
}

// readRow reads one row, or returns storage.ErrNotFound.
func (s *Store) readRow(ctx context.Context, sql string, args []any, to ...any) error {
	return s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		err := c.QueryRow(ctx, s.sql(sql), args...).Scan(to...)
		if errors.Is(err, pgx.ErrNoRows) {
			return storage.ErrNotFound
		}
		return err
	})
}

// write runs what may write, on one connection. Once it has one, a cancelled
// context no longer ends it. What met another operation had no effect and is
// tried again. A connection that breaks while it commits leaves it unknown
// whether that was done: such an operation is not tried again.
func (s *Store) write(ctx context.Context, fn func(ctx context.Context, c *pgx.Conn) error) error {
	for try := 1; ; try++ {
		err := s.attempt(ctx, true, fn)
		if err == nil || try == maxConflicts || !(conflict(err) || pgconn.SafeToRetry(err)) || ctx.Err() != nil {
			return s.explain(ctx, err)
		}
		pause(try)
	}
}

// begun is the key under which the context of a write knows when it began.
type begun struct{}

// wrote counts a durable commit that a write, whose context it is, made.
func (s *Store) wrote(ctx context.Context, operations int) {
	s.commits.Add(1)
	s.operations.Add(uint64(operations))
	if at, ok := ctx.Value(begun{}).(time.Time); ok {
		s.onCommit(operations, time.Since(at))
	}
}

func (s *Store) attempt(ctx context.Context, detach bool, fn func(ctx context.Context, c *pgx.Conn) error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	conn, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	run := ctx
	if detach {
		run = context.WithoutCancel(ctx)
		if s.onCommit != nil {
			run = context.WithValue(run, begun{}, time.Now())
		}
	}
	run, cancel := context.WithTimeout(run, s.timeout)
	defer cancel()
	err = fn(run, conn.Conn())
	if conn.Conn().PgConn().TxStatus() != 'I' && !conn.Conn().IsClosed() {
		_, _ = conn.Exec(run, `ROLLBACK`) // where that fails Release closes the connection, which does the same
	}
	return err
}

// beginLocking begins a transaction that locks rows; Store.endIdle must follow.
const beginLocking = `BEGIN ISOLATION LEVEL READ COMMITTED`

// idleIn returns the statement that bounds how long a transaction may wait for
// its client. A node that vanishes with its machine or its network says no
// goodbye: without it the rows would stay locked until TCP has found out, which
// takes hours. It is half of what an operation may take, so that others who
// wait for the rows get them in time. It is said in each transaction because a
// pooler may give each to another session.
func idleIn(timeout time.Duration) string {
	return fmt.Sprintf(`SET LOCAL idle_in_transaction_session_timeout = %d`, max(timeout.Milliseconds()/2, 1))
}

// begin begins a transaction that locks rows.
func (s *Store) begin(ctx context.Context, c *pgx.Conn) error {
	var b pgx.Batch
	b.Queue(beginLocking)
	b.Queue(s.endIdle)
	return c.SendBatch(ctx, &b).Close()
}

func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	wait, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	conn, err := s.pool.Acquire(wait)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case s.closed.Load():
		return nil, storage.ErrClosed
	case wait.Err() != nil:
		return nil, fmt.Errorf("%w: no connection to the database became free within %v, nor could one be made", storage.ErrUnavailable, s.wait)
	}
	return nil, err
}

func (s *Store) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.closed.Load() {
		return storage.ErrClosed
	}
	return nil
}

// pause waits before another try. Whom an operation first met has committed by
// then; later it waits longer each time, and never for as long as others.
func pause(try int) {
	if try > 2 {
		time.Sleep(rand.N(min(time.Millisecond<<try, 100*time.Millisecond)))
	}
}

func sqlState(err error) string {
	var failure *pgconn.PgError
	if errors.As(err, &failure) {
		return failure.Code
	}
	return ""
}

// errAgain means that an operation must begin anew, and has written nothing.
var errAgain = errors.New("storage: met another operation")

// conflict reports whether an operation met another one and had no effect.
func conflict(err error) bool {
	switch sqlState(err) {
	case stateUnique, stateSerialize, stateDeadlock, stateLockTimeout, stateStatementOld:
		return true
	}
	return errors.Is(err, errAgain)
}

// broken reports whether another connection may do better.
func broken(err error) bool {
	switch sqlState(err) {
	case stateAdminEnds, stateCrashEnds:
		return true
	case "":
		return !known(err)
	}
	return false
}

// known reports whether an error is one that callers may see as it is.
func known(err error) bool {
	for _, is := range []error{
		storage.ErrUnavailable, storage.ErrClosed, storage.ErrNotFound, storage.ErrBadCursor, storage.ErrTooLarge,
		context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// explain turns an error of the database into one of the contract.
func (s *Store) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if sqlState(err) == stateReadOnly { // a primary that has become a standby
		s.pool.Reset()
	}
	switch {
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		return ctx.Err()
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: the database took too long", storage.ErrUnavailable)
	case known(err):
		return err
	case conflict(err):
		return fmt.Errorf("%w: too many operations met: %v", storage.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %v", storage.ErrUnavailable, err)
}

// sql returns a statement as it is sent. The tests' clock takes the place of
// the database's there.
func (s *Store) sql(statement string) string {
	if s.clock == nil {
		return statement
	}
	now := s.clock().UTC().Format("'2006-01-02 15:04:05.000000+00'::timestamptz")
	return strings.ReplaceAll(statement, "clock_timestamp()", now)
}

// text returns a string as the database can compare it. One that it cannot
// hold becomes one that nothing is called.
func text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
}

// optional returns nil for the zero time.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// moment returns what a nullable column holds.
func moment(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
