package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"runtime/debug"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxidp/wxidp/storage"
)

// inspectFirst is the size up to which a file is always read as a whole before
// anything relies on it. Of a larger one that was closed in order this is done
// while it is served: it would take longer than people wait for a restart.
const inspectFirst = 256 << 20

// inspect reads the whole tree of a file once, before anything relies on it.
func inspect(path string, guard guard) error {
	if info, err := os.Stat(path); err != nil {
		return err
	} else if info.Size() == 0 {
		return nil // made, and ended before its first write
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout, OpenFile: guard.open, NoStatistics: true})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // nothing was written
	stop := make(chan struct{})
	defer close(stop)
	go readAhead(path, guard, stop)
	return db.View(func(tx *bbolt.Tx) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("the file is damaged: it has %d bytes and should have %d", info.Size(), tx.Size())
		}
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(_, _ []byte) error { return nil })
		})
	})
}

// readAhead reads a large file from its beginning to its end, so that its pages
// are in memory when they are asked for: in the order of the tree a disk would
// need ten times as long. Errors are left to those who read for real.
func readAhead(path string, guard guard, stop <-chan struct{}) {
	if fileSize(path) < inspectFirst {
		return
	}
	file, err := guard.open(path, os.O_RDONLY, 0)
	if err != nil {
		return
	}
	defer func() { _ = file.Close() }() // it was only read
	readPlainly(file)
	for part := make([]byte, 4<<20); err == nil; {
		select {
		case <-stop:
			return
		default:
		}
		_, err = file.Read(part)
	}
}

// inspectRows is how many rows inspectServed reads in one transaction.
const inspectRows = 10_000

// inspectServed reads the whole tree while it is served, a few rows at a time,
// and gives the store up where a page is damaged.
func (s *Store) inspectServed() {
	debug.SetPanicOnFault(true) // for this goroutine
	begin := time.Now()
	for _, bucket := range buckets {
		for after, more := []byte(nil), true; more; {
			start := time.Now()
			var err error
			if after, more, err = s.inspectPart(bucket, after); err != nil {
				if errors.Is(err, errDamaged) {
					_ = s.committer.between(func() error { return s.committer.breakDown(err) }) // it fails only where all ends anyway
				}
				return
			}
			select {
			case <-s.committer.done:
				return
			case <-time.After(max(4*time.Since(start), time.Millisecond)): // the disk is there for others
			}
		}
	}
	s.log.Info("the data file was read as a whole and is in order", "event", "storage.inspected", "seconds", int(time.Since(begin).Seconds()))
}

var errDamaged = errors.New("the data file is damaged")

func (s *Store) inspectPart(bucket, after []byte) (last []byte, more bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	err = s.read(context.Background(), func(tx txn) error {
		cursor := tx.Bucket(bucket).Cursor()
		key, _ := cursor.Seek(after)
		for n := 0; key != nil; n++ {
			if n == inspectRows {
				last, more = bytes.Clone(key), true
				return nil
			}
			key, _ = cursor.Next()
		}
		return nil
	})
	return last, more, err
}

// keepFreePages writes down which pages are free, so that the next start need
// not look through all pages for them. No other commit does: it would make
// each one longer.
func (s *Store) keepFreePages() error {
	if s.committer.commits.Load() == 0 || !s.committer.fullUntil.IsZero() {
		return nil
	}
	return safely(func() error {
		s.db.NoFreelistSync = false
		return s.db.Update(func(*bbolt.Tx) error { return nil })
	})
}

// The places in a page of bbolt's, from its beginning, of what says how the
// file ended.
const (
	metaSize     = 16 + 64
	metaMagic    = 0xED0CDAED
	metaFreelist = 16 + 32
	metaPages    = 16 + 40
	metaTxID     = 16 + 48
	metaSum      = 16 + 56
	noFreelist   = 1<<64 - 1
)

// closedInOrder reports whether keepFreePages was the last that was done to a
// file. In doubt it was not.
func closedInOrder(path string, guard guard) bool {
	file, err := guard.open(path, os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }() // it was only read
	first, err := readMeta(file, 0)
	if err != nil {
		return false
	}
	second, err := readMeta(file, int64(first.pageSize))
	if err != nil {
		return false
	}
	if second.txID > first.txID {
		first = second
	}
	return first.freelist != noFreelist && uint64(fileSize(path)) >= first.pages*uint64(first.pageSize)
}

type metaPage struct {
	pageSize              uint32
	freelist, pages, txID uint64
}

func readMeta(from io.ReaderAt, at int64) (m metaPage, err error) {
	page := make([]byte, metaSize)
	if _, err := from.ReadAt(page, at); err != nil {
		return m, err
	}
	order := binary.NativeEndian
	sum := fnv.New64a()
	_, _ = sum.Write(page[16:metaSum]) // a hash takes everything
	if order.Uint32(page[16:]) != metaMagic || order.Uint64(page[metaSum:]) != sum.Sum64() {
		return m, storage.ErrCorrupt
	}
	return metaPage{
		pageSize: order.Uint32(page[24:]), freelist: order.Uint64(page[metaFreelist:]),
		pages: order.Uint64(page[metaPages:]), txID: order.Uint64(page[metaTxID:]),
	}, nil
}
