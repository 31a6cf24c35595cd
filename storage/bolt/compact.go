package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxidp/wxidp/storage"
)

// Compact rewrites the file without its free pages, which may still hold what
// was deleted, and swaps the result in. Everything that was erased before the
// call is gone from the file after it. Reads and writes go on meanwhile, but
// for a short moment at the end. A crash at any point leaves either the old
// file or the new one.
//
// It needs free space for a second file. It must not be called where the
// process may not write to the file's folder.
func (s *Store) Compact(ctx context.Context) error {
	s.maintenance.Lock()
	defer s.maintenance.Unlock()
	c, err := s.startCopy(ctx)
	if err != nil {
		return err
	}
	var old *bbolt.DB
	err = s.committer.between(func() error {
		if err := c.finish(); err != nil {
			return err
		}
		old, err = s.swapIn(c)
		return err
	})
	if old != nil { // nobody uses it any more
		if err := old.Close(); err != nil {
			s.log.Warn("the old data file was not closed properly", "event", "storage.compact", "reason", err.Error())
		}
	}
	return errors.Join(err, c.discard())
}

// Copied returns how many bytes of keys and values the Compact or Backup that
// is under way has copied so far, or the last one copied in all. The file is
// larger than that by its pages' overhead.
func (s *Store) Copied() int64 { return s.copied.Load() }

// Limits of what a copy does in one go.
const (
	copyRows  = 4096    // rows in one transaction
	copyBytes = 4 << 20 // bytes in one transaction
	copyParts = 16      // transactions after which to look for changed rows, which take memory
	fewRows   = 1000    // changed rows for which the writer may wait
	maxRounds = 10      // attempts to come down to them
)

// fileCopy is a second file that is being filled with what the store holds,
// while the writer goes on. It is copied in short transactions: a long one
// would keep pages from being freed, and from growing the mapping. What the
// writer changes meanwhile is noted and copied again, at last while the writer
// waits.
type fileCopy struct {
	store *Store
	path  string
	db    *bbolt.DB
	file  *os.File
	mark  bool // say in it that it is a backup
	done  bool // became the store's own file
}

// rowName names a row in any bucket.
type rowName struct{ bucket, key string }

type copiedRow struct {
	rowName
	value []byte // nil: the row is gone
}

// startCopy makes a copy that lacks few rows, if any.
func (s *Store) startCopy(ctx context.Context) (_ *fileCopy, err error) {
	c := &fileCopy{store: s, path: copyPath(s.path)}
	s.copied.Store(0)
	if err := removeLeftover(s.path); err != nil {
		return nil, fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	if c.db, c.file, err = openDB(c.path, s.guard); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", storage.ErrUnavailable, err), c.discard())
	}
	c.db.NoSync = true // until it is finished
	if err := c.fill(ctx); err != nil {
		return nil, errors.Join(err, c.discard())
	}
	return c, nil
}

func (c *fileCopy) fill(ctx context.Context) error {
	if err := prepare(c.db); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	if _, err := c.changed(); err != nil { // from now on the writer notes
		return err
	}
	for _, bucket := range buckets {
		if err := c.copyBucket(ctx, bucket); err != nil {
			return err
		}
	}
	for range maxRounds {
		n, err := c.catchUp(ctx)
		if err == nil {
			err = c.sync() // so that little is left to do while the writer waits
		}
		if err != nil || n < fewRows {
			return err
		}
	}
	return nil
}

// catchUp copies what was written since the last time. n is how many rows.
func (c *fileCopy) catchUp(ctx context.Context) (n int, err error) {
	rows, err := c.changed()
	if err != nil {
		return 0, err
	}
	return len(rows), c.copyNamed(ctx, rows)
}

func (c *fileCopy) sync() error {
	if err := c.file.Sync(); err != nil {
		return fmt.Errorf("%w: copy the data file: %w", storage.ErrUnavailable, err)
	}
	return nil
}

// changed returns the rows that were written since the last call, and has the
// writer note further ones.
func (c *fileCopy) changed() (rows map[rowName]struct{}, err error) {
	err = c.store.committer.between(func() error {
		rows = c.store.committer.changed
		c.store.committer.changed = make(map[rowName]struct{})
		return nil
	})
	return rows, err
}

// copyBucket copies a bucket in the order of its keys.
func (c *fileCopy) copyBucket(ctx context.Context, bucket []byte) error {
	var after []byte
	for part := 1; ; part++ {
		if err := c.store.usable(ctx); err != nil {
			return err // Close waits for this
		}
		if part%copyParts == 0 {
			if _, err := c.catchUp(ctx); err != nil {
				return err
			}
		}
		var rows []copiedRow
		err := c.store.read(ctx, func(tx txn) error {
			cursor := tx.Bucket(bucket).Cursor()
			key, value := cursor.First()
			if after != nil {
				if key, value = cursor.Seek(after); string(key) == string(after) {
					key, value = cursor.Next()
				}
			}
			for size := 0; key != nil && len(rows) < copyRows && size < copyBytes; key, value = cursor.Next() {
				rows = append(rows, copyOf(string(bucket), string(key), value))
				size += len(key) + len(value)
			}
			return nil
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := c.put(rows); err != nil {
			return err
		}
		after = []byte(rows[len(rows)-1].key)
	}
}

// copyNamed copies the present state of some rows.
func (c *fileCopy) copyNamed(ctx context.Context, names map[rowName]struct{}) error {
	pending := make([]rowName, 0, len(names))
	for name := range names {
		pending = append(pending, name)
	}
	for len(pending) > 0 {
		var rows []copiedRow
		err := c.store.read(ctx, func(tx txn) error {
			for size := 0; len(rows) < len(pending) && len(rows) < copyRows && size < copyBytes; {
				name := pending[len(rows)]
				value := tx.Bucket([]byte(name.bucket)).Get([]byte(name.key))
				rows = append(rows, copyOf(name.bucket, name.key, value))
				size += len(value)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := c.put(rows); err != nil {
			return err
		}
		pending = pending[len(rows):]
	}
	return nil
}

func copyOf(bucket, key string, value []byte) copiedRow {
	row := copiedRow{rowName: rowName{bucket, key}}
	if value != nil {
		row.value = append(make([]byte, 0, len(value)), value...)
	}
	return row
}

func (c *fileCopy) put(rows []copiedRow) error {
	err := safely(func() error {
		return c.db.Update(func(tx *bbolt.Tx) error {
			for _, row := range rows {
				bucket := tx.Bucket([]byte(row.bucket))
				bucket.FillPercent = 0.9 // keys come in order
				var err error
				if row.value == nil {
					err = bucket.Delete([]byte(row.key))
				} else {
					err = bucket.Put([]byte(row.key), row.value)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("%w: copy the data file: %w", storage.ErrUnavailable, err)
	}
	for _, row := range rows {
		c.store.copied.Add(int64(len(row.key) + len(row.value)))
	}
	return nil
}

// finish makes the copy complete and durable. It runs between transactions.
func (c *fileCopy) finish() error {
	rows := c.store.committer.changed
	c.store.committer.changed = nil
	if err := c.copyNamed(context.Background(), rows); err != nil {
		return err
	}
	if c.mark {
		if err := c.markBackup(); err != nil {
			return err
		}
	}
	c.db.NoSync = false
	return c.sync()
}

// discard removes a copy that was not swapped in.
func (c *fileCopy) discard() error {
	if c.done {
		return nil
	}
	// A writer that has ended notes nothing any more.
	_ = c.store.committer.between(func() error {
		c.store.committer.changed = nil
		return nil
	})
	var err error
	if c.db != nil {
		err = c.db.Close()
	}
	if err = errors.Join(err, removeLeftover(c.store.path)); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	return nil
}

// swapIn puts a finished copy in the place of the store's file and returns the
// old one. It runs between transactions. The copy was locked when it was made
// and stays so; whoever gets hold of the old file finds, in Open, that it is
// not the one by that name.
func (s *Store) swapIn(c *fileCopy) (old *bbolt.DB, err error) {
	if err := os.Rename(c.path, s.path); err != nil {
		return nil, fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	c.done = true
	if err := syncFolder(filepath.Dir(s.path)); err != nil {
		// After a crash the name could mean the old file again, without what is
		// written from now on.
		err = s.committer.breakDown(fmt.Errorf("sync the folder: %w", err))
		return nil, errors.Join(err, c.db.Close())
	}
	s.swapping.Lock() // waits for readers
	defer s.swapping.Unlock()
	old, s.db, s.committer.db = s.db, c.db, c.db
	return old, nil
}

// copyPath is where the copy of a data file is made.
func copyPath(path string) string { return path + ".compact" }

// removeLeftover removes what an earlier process may have left there.
func removeLeftover(path string) error {
	if err := os.Remove(copyPath(path)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
