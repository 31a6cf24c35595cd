package bolt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxidp/wxidp/storage"
)

const (
	maxQueue = 4096 // operations that may wait; more are refused at once
	maxBatch = 1024 // operations in one transaction
	maxYield = 8    // how often the writer lets others run while its batch grows
)

// How long writes are refused after a full disk, before the next try: a failed
// commit makes bbolt scan the file for its free pages, which must not be all
// that the machine does.
const (
	minFullPause = 20 * time.Millisecond
	maxFullPause = time.Second
)

// committer is the one writer. Operations enter through queue and leave when
// the transaction they were part of is durable or was given up.
type committer struct {
	db       *bbolt.DB
	log      *slog.Logger
	onCommit func(operations int, elapsed time.Duration)
	broke    func(error) // what failed leaves the file unknown
	queue    chan *operation
	control  chan *controlTask
	done     chan struct{} // closed when the writer has ended

	mu     sync.RWMutex // guards closed against sends on queue
	closed bool

	commits    atomic.Uint64
	operations atomic.Uint64

	// Used by the writer alone.
	broken    bool
	fullUntil time.Time            // zero: the disk is not known to be full
	changed   map[rowName]struct{} // rows written since a copy began; nil: there is none
}

// controlTask is work that the writer does between its transactions.
type controlTask struct {
	run  func() error
	err  error
	done chan struct{} // closed when err is final
}

// The states of an operation: taken by the writer, or withdrawn by its caller
// before that.
const (
	opWaiting int32 = iota
	opTaken
	opWithdrawn
)

type operation struct {
	apply func(tx txn) (wrote bool, err error)
	state atomic.Int32
	wrote bool
	err   error
	done  chan struct{} // closed when err is final
}

func startCommitter(c *committer) *committer {
	c.queue = make(chan *operation, maxQueue)
	c.control = make(chan *controlTask)
	c.done = make(chan struct{})
	go c.run()
	return c
}

// do hands apply to the writer and waits for the outcome. Before the writer
// has taken it a cancelled context withdraws it; after that it runs, and do
// waits for its end.
func (c *committer) do(ctx context.Context, apply func(tx txn) (bool, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	op := &operation{apply: apply, done: make(chan struct{})}
	if err := c.enqueue(op); err != nil {
		return err
	}
	select {
	case <-op.done:
	case <-ctx.Done():
		if op.state.CompareAndSwap(opWaiting, opWithdrawn) {
			return ctx.Err()
		}
		<-op.done
	}
	return op.err
}

func (c *committer) enqueue(op *operation) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return storage.ErrClosed
	}
	select {
	case c.queue <- op:
		return nil
	default:
		return fmt.Errorf("%w: too many writes are waiting", storage.ErrUnavailable)
	}
}

func (c *committer) closing() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.closed
}

// close ends the writer after all accepted operations; it reports whether this
// call was the one that did.
func (c *committer) close() bool {
	c.mu.Lock()
	first := !c.closed
	if first {
		c.closed = true
		close(c.queue)
	}
	c.mu.Unlock()
	<-c.done
	return first
}

func (c *committer) run() {
	defer close(c.done)
	batch := make([]*operation, 0, maxBatch)
	for {
		select {
		case op, ok := <-c.queue:
			if !ok {
				return
			}
			batch = c.gather(append(batch[:0], op))
			c.process(batch)
			clear(batch)
		case task := <-c.control:
			if c.broken {
				task.err = fmt.Errorf("%w: the data file is in an unknown state", storage.ErrUnavailable)
			} else {
				task.err = safely(task.run)
			}
			close(task.done)
		}
	}
}

// between has the writer run task while it has no transaction open, and waits
// for it. It returns storage.ErrClosed where the writer has ended.
func (c *committer) between(run func() error) error {
	task := &controlTask{run: run, done: make(chan struct{})}
	select {
	case c.control <- task:
		<-task.done
		return task.err
	case <-c.done:
		return storage.ErrClosed
	}
}

// gather adds to the batch what is waiting. It never waits itself, but yields
// the processor while others keep adding: on a single processor they would
// otherwise not get to run before the commit, and every batch would be tiny.
func (c *committer) gather(batch []*operation) []*operation {
	for range maxYield {
		batch = c.drain(batch)
		if len(batch) == maxBatch {
			break
		}
		runtime.Gosched()
		if len(c.queue) == 0 {
			break
		}
	}
	return batch
}

func (c *committer) drain(batch []*operation) []*operation {
	for len(batch) < maxBatch {
		select {
		case op, ok := <-c.queue:
			if !ok {
				return batch
			}
			batch = append(batch, op)
		default:
			return batch
		}
	}
	return batch
}

// process runs a batch to its end: every operation in it is answered. One that
// breaks its transaction is answered alone, and the others run again.
func (c *committer) process(batch []*operation) {
	live := batch[:0]
	for _, op := range batch {
		if op.state.CompareAndSwap(opWaiting, opTaken) {
			live = append(live, op)
		}
	}
	for len(live) > 0 {
		spoiler, err := c.attempt(live)
		if spoiler < 0 {
			for _, op := range live {
				if err != nil {
					op.err = err
				}
				close(op.done)
			}
			return
		}
		live[spoiler].err = err
		close(live[spoiler].done)
		live = append(live[:spoiler], live[spoiler+1:]...)
	}
}

// attempt runs the operations in one transaction and commits it if one of them
// wrote. spoiler is the index of an operation that failed with err after it
// may have written, so that the transaction was rolled back; otherwise it is
// -1 and err, if not nil, is the outcome of all.
func (c *committer) attempt(ops []*operation) (spoiler int, err error) {
	if c.broken {
		return -1, fmt.Errorf("%w: the data file is in an unknown state", storage.ErrUnavailable)
	}
	begin := time.Now()
	if begin.Before(c.fullUntil) {
		return -1, fmt.Errorf("%w: the disk is full", storage.ErrUnavailable)
	}
	tx, err := c.db.Begin(true)
	if err != nil {
		return -1, c.breakDown(fmt.Errorf("begin: %w", err))
	}
	// Ids grow with time, and a page that is full to the middle stays so.
	for _, name := range [][]byte{bucketFamilies, bucketByUser, bucketExpiry} {
		tx.Bucket(name).FillPercent = 0.9
	}
	wrote := 0
	for i, op := range ops {
		safe := op.run(txn{tx, begin, c.changed})
		if !safe {
			_ = tx.Rollback() // cannot fail on an open transaction
			c.log.Error("a storage operation failed half-way and was undone", "event", "storage.operation_failed", "detail", op.err.Error())
			return i, op.err
		}
		if op.wrote {
			wrote++
		}
	}
	if wrote == 0 {
		_ = tx.Rollback()
		return -1, nil
	}
	if err := c.commit(tx); err != nil {
		return -1, err
	}
	c.commits.Add(1)
	c.operations.Add(uint64(wrote))
	if c.onCommit != nil {
		c.onCommit(wrote, time.Since(begin))
	}
	return -1, nil
}

// run applies the operation. safe is false where it failed after it may have
// written.
func (op *operation) run(tx txn) (safe bool) {
	defer func() {
		if p := recover(); p != nil {
			// The panic's value could hold anything, so it is not passed on.
			op.err = fmt.Errorf("%w: an operation panicked (%T): %s", storage.ErrUnavailable, p, firstFrames(debug.Stack()))
			safe = false
		}
	}()
	op.wrote, op.err = op.apply(tx)
	return op.err == nil || !op.wrote
}

// firstFrames returns the names of the functions that panicked.
func firstFrames(stack []byte) string {
	var names []string
	for line := range strings.Lines(string(stack)) {
		if strings.HasPrefix(line, "github.com/") || strings.HasPrefix(line, "go.etcd.io/") {
			name, _, _ := strings.Cut(line, "(0x")
			names = append(names, strings.TrimSpace(name))
		}
	}
	return strings.Join(names[:min(len(names), 6)], " < ")
}

// commit makes the transaction durable or leaves the file as it was before.
func (c *committer) commit(tx *bbolt.Tx) error {
	id := tx.ID()
	begin := time.Now()
	err := safely(tx.Commit)
	if err == nil {
		if !c.fullUntil.IsZero() {
			c.fullUntil = time.Time{}
			c.log.Info("writes work again", "event", "storage.recovered")
		}
		return nil
	}
	return c.failed(id, begin, err)
}

// failed decides what becomes of the store after the commit of the transaction
// with this id, begun at begin, ended with err.
func (c *committer) failed(id int, begin time.Time, err error) error {
	if !diskFull(err) || c.visible() != id-1 {
		return c.breakDown(fmt.Errorf("commit: %w", err))
	}
	if c.fullUntil.IsZero() {
		c.log.Error("the disk is full; reads go on, writes are refused", "event", "storage.full", "detail", err.Error())
	}
	now := time.Now()
	c.fullUntil = now.Add(min(max(3*now.Sub(begin), minFullPause), maxFullPause))
	return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
}

// safely runs what calls bbolt, which panics where it finds a damaged page.
func safely(run func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: bbolt panicked: %v", storage.ErrUnavailable, p)
		}
	}()
	return run()
}

// visible returns the id of the newest transaction that a reader sees, or -1.
//
// bbolt writes the new pages, syncs them, writes the page that points to them
// and syncs that. As long as the last page was not written the file holds the
// transaction before, whatever became of the pages nothing points to. Once it
// was written a reader sees the new transaction, durable or not.
func (c *committer) visible() int {
	tx, err := c.db.Begin(false)
	if err != nil {
		return -1
	}
	defer func() { _ = tx.Rollback() }()
	return tx.ID()
}

// diskFull reports whether a commit failed because nothing more can be stored,
// which passes. bbolt turns some of these errors into text.
func diskFull(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EFBIG, syscall.EDQUOT, syscall.EROFS} {
		if errors.Is(err, errno) || strings.HasPrefix(err.Error(), "file ") && strings.HasSuffix(err.Error(), errno.Error()) {
			return true
		}
	}
	return false
}

// breakDown gives the store up.
func (c *committer) breakDown(err error) error {
	c.broken = true
	c.broke(err)
	return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
}
