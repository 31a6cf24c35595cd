package bolt

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxidp/wxidp/storage"
)

// A backup is a bbolt file in which the document at storage.RestoredRecord says
// that it is one, so that even a plain copy of it in the place of the data file
// is known for what it is. Behind its pages is a trailer, which bbolt takes no
// notice of:
//
//	magic 16 | bytes before the trailer 8 | SHA-256 of these 32
const (
	trailerMagic = "wxidp backup v1\n"
	trailerSize  = len(trailerMagic) + 8 + sha256.Size
)

// Backup writes a compacted copy of the current state to w: a file that Open
// takes, with the same master key, and Restore verifies. A slow w holds up
// nothing.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	file, size, err := s.backupFile(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // was only read
	sum := sha256.New()
	for left := size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(io.MultiWriter(w, sum), file, min(left, 1<<20))
		if err != nil {
			return fmt.Errorf("%w: write the backup: %w", storage.ErrUnavailable, err)
		}
		left -= n
	}
	if _, err := w.Write(trailer(size, sum)); err != nil {
		return fmt.Errorf("%w: write the backup: %w", storage.ErrUnavailable, err)
	}
	return nil
}

func trailer(size int64, sum hash.Hash) []byte {
	b := append(make([]byte, 0, trailerSize), trailerMagic...)
	return sum.Sum(binary.BigEndian.AppendUint64(b, uint64(size)))
}

// backupFile returns a copy of the data file that has no name any more, and
// how many bytes of it count.
func (s *Store) backupFile(ctx context.Context) (file *os.File, size int64, err error) {
	s.maintenance.Lock()
	defer s.maintenance.Unlock()
	c, err := s.startCopy(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, c.discard()) }()
	c.mark = true
	if err := s.committer.between(c.finish); err != nil {
		return nil, 0, err
	}
	err = c.db.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	if err == nil {
		file, err = os.Open(c.path)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	return file, size, nil
}

// markBackup says in the copy that it is a backup of this moment.
func (c *fileCopy) markBackup() error {
	var version uint64
	err := c.db.View(func(tx *bbolt.Tx) (err error) {
		_, version, err = getRecord(txn{Tx: tx}, storage.RestoredRecord)
		return err
	})
	if err != nil {
		return err
	}
	mark := storage.Restored{State: storage.RestorePending, TakenAt: time.Now().UTC().Truncate(time.Second), Summed: true}
	return c.put([]copiedRow{{
		rowName{string(bucketRecords), storage.RestoredRecord},
		storage.EncodeDocument(&storage.Document{Version: version + 1, Value: mark.Encode()}),
	}})
}
