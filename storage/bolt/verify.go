package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
)

// Progress is told how far a step of a long work is, in bytes; total is 0 where
// it is not known.
type Progress func(step string, done, total int64)

func (p Progress) tell(step string, done, total int64) {
	if p != nil {
		p(step, done, total)
	}
}

// Contents are what a backup holds.
type Contents struct {
	TakenAt time.Time // when it was made; zero: it does not say
	Newest  time.Time // when the newest live sign-in in it began; zero: there is none
	Size    int64     // bytes of data
	// Summed: a checksum proves that every byte is as it was written. Without
	// one a changed value may go unnoticed.
	Summed   bool
	Users    int
	Families int // that would be live now
	Logins   int // login sessions that would be live now
}

// verified is a backup that is as it should be.
type verified struct {
	Contents
	sum [sha256.Size]byte // of the data
}

// Verify looks whether a backup can be restored: that it is whole, of a format
// that this program knows, and sealed under a master key of the keyring. It
// changes nothing. Where another process holds the file, or it is no backup, or
// a damaged one, the error says so.
func Verify(ctx context.Context, path string, keyring *seal.Keyring, progress Progress) (Contents, error) {
	v, err := verify(ctx, path, keyring, progress)
	return v.Contents, err
}

func verify(ctx context.Context, path string, keyring *seal.Keyring, progress Progress) (v verified, err error) {
	fail := func(err error) (verified, error) { return verified{}, fmt.Errorf("backup %s: %w", path, err) }
	file, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = file.Close() }() // was only read
	info, err := file.Stat()
	switch {
	case err != nil:
		return fail(err)
	case !info.Mode().IsRegular():
		return fail(errors.New("it is not a regular file"))
	case info.Size() == 0:
		return fail(errors.New("the file is empty"))
	}
	end, err := readTrailer(file, info.Size())
	if err != nil {
		return fail(err)
	}
	v.Size = info.Size()
	if end != nil {
		v.Size -= int64(trailerSize)
	}
	sum := sha256.New()
	if err := copyData(ctx, sum, file, v.Size, func(done int64) { progress.tell("reading the backup", done, v.Size) }); err != nil {
		return fail(err)
	}
	v.sum = [sha256.Size]byte(sum.Sum(nil))
	v.Summed = bytes.Equal(end, trailer(v.Size, sum))
	err = v.look(ctx, path, info.Size(), keyring, progress)
	switch {
	case err == nil:
		return v, nil
	case end != nil && !v.Summed && ctx.Err() == nil: // whatever else is wrong follows from that
		return fail(fmt.Errorf("it is damaged: its checksum is not that of its bytes (%w)", err))
	}
	return fail(err)
}

// readTrailer returns the trailer at the end of a file, or nil if there is none.
func readTrailer(file *os.File, size int64) ([]byte, error) {
	data := size - int64(trailerSize)
	if data < 0 {
		return nil, nil
	}
	b := make([]byte, trailerSize)
	if _, err := file.ReadAt(b, data); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(b, []byte(trailerMagic)) || binary.BigEndian.Uint64(b[len(trailerMagic):]) != uint64(data) {
		return nil, nil
	}
	return b, nil
}

// copyData copies the first size bytes of a file.
func copyData(ctx context.Context, w io.Writer, file *os.File, size int64, progress func(done int64)) error {
	from := io.NewSectionReader(file, 0, size)
	for done := int64(0); done < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(w, from, min(size-done, 1<<20))
		if err != nil {
			return fmt.Errorf("copy the data: %w", err)
		}
		done += n
		progress(done)
	}
	return nil
}

// look reads what the file holds. bbolt panics where it finds a damaged page,
// and reading beyond the end of a truncated file is a fault.
func (v *verified) look(ctx context.Context, path string, size int64, keyring *seal.Keyring, progress Progress) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it is damaged: %v", p)
		}
	}()
	options := bbolt.Options{ReadOnly: true, Timeout: lockTimeout, NoStatistics: true}
	if strconv.IntSize == 64 {
		// A row of a damaged page may seem to lie anywhere in the 12 GiB behind
		// it. With them in the mapping that is a fault, and not other memory.
		options.InitialMmapSize = int(size) + 13<<30
	}
	db, err := bbolt.Open(path, 0o600, &options)
	if errors.Is(err, berrors.ErrTimeout) {
		return errors.New("another process holds it, so it is the data file of a running server; make a backup of that with wxidp backup")
	}
	if err != nil {
		return explain(err)
	}
	defer func() { _ = db.Close() }() // nothing was written
	return db.View(func(tx *bbolt.Tx) error {
		if v.Size < tx.Size() {
			return fmt.Errorf("it was cut off: it has %d bytes of data and should have %d", v.Size, tx.Size())
		}
		missing, err := checkFormat(tx)
		if err != nil {
			return err
		}
		if missing {
			return errors.New("it is damaged, or of a program that is too old: parts are missing")
		}
		records := readOnly{txn{Tx: tx, now: time.Now()}}
		mark, _, err := storage.ReadRestored(ctx, records)
		if err != nil {
			return err
		}
		if mark.Open() {
			v.TakenAt = mark.TakenAt
		}
		// The checksum of a backup that was served since counts no more; what is
		// left of it may still be there.
		if mark.Summed && !v.Summed || mark.State == storage.RestorePending && v.Size < size && !v.Summed {
			return errors.New("its end is missing, or it was changed after it was written")
		}
		if _, err := storage.OpenVault(ctx, records, keyring); err != nil {
			return err
		}
		return v.count(ctx, records.txn, progress)
	})
}

// fits looks whether a row is where it should be: behind the one before, and
// where its key leads to. All its bytes are read, for a wrong length goes beyond
// the file. bbolt's own check would do so in a goroutine of its own, where that
// ends the process.
func fits(bucket *bbolt.Bucket, before, key, value []byte) error {
	_, _ = crc32.ChecksumIEEE(key), crc32.ChecksumIEEE(value)
	if before != nil && bytes.Compare(before, key) >= 0 || !bytes.Equal(bucket.Get(key), value) {
		return errors.New("it is damaged: its rows are not in order")
	}
	return nil
}

// count reads every row, and decodes those of people and of their sign-ins.
func (v *verified) count(ctx context.Context, tx txn, progress Progress) error {
	done, n := int64(0), 0
	return tx.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
		look := v.counters()[string(name)]
		var before []byte
		return bucket.ForEach(func(key, value []byte) error {
			if !v.Summed {
				if err := fits(bucket, before, key, value); err != nil {
					return err
				}
				before = key
			}
			done += int64(len(key) + len(value))
			if n++; n%4096 == 0 {
				if err := ctx.Err(); err != nil {
					return err
				}
				progress.tell("looking at the records", done, v.Size)
			}
			if look == nil {
				return nil
			}
			if err := look(tx, key, value); err != nil {
				return fmt.Errorf("it is damaged: a record in %s cannot be read", name)
			}
			return nil
		})
	})
}

// counters look at rows of the buckets that are counted.
func (v *verified) counters() map[string]func(tx txn, key, value []byte) error {
	return map[string]func(tx txn, key, value []byte) error{
		string(bucketUsers): func(_ txn, _, value []byte) error {
			user, err := storage.DecodeUser(value)
			if err == nil && !user.Retired {
				v.Users++
			}
			return err
		},
		string(bucketFamilies): func(tx txn, key, value []byte) error {
			if len(key) != len(storage.FamilyID{}) {
				return storage.ErrCorrupt
			}
			family, err := storage.DecodeFamily(storage.FamilyID(key), value)
			if err != nil || family.ExpiredAt(tx.now) {
				return err
			}
			parties, err := getParties(tx, &family)
			if seen := parties.Overlay(family); err == nil && seen.RevokedAt.IsZero() {
				v.Families++
				if family.CreatedAt.After(v.Newest) {
					v.Newest = family.CreatedAt
				}
			}
			return err
		},
		string(bucketLogins): func(tx txn, key, value []byte) error {
			if len(key) != len(storage.LoginID{}) {
				return storage.ErrCorrupt
			}
			login, err := storage.DecodeLogin(storage.LoginID(key), value)
			if err != nil || !login.StateAt(tx.now).EndedAt.IsZero() {
				return err
			}
			user, err := getUserState(tx, login.UserID)
			if err == nil && login.LiveAt(user, tx.now) {
				v.Logins++
			}
			return err
		},
	}
}

// readOnly are the documents of a file that is not to be changed.
type readOnly struct{ txn }

func (r readOnly) Record(_ context.Context, name string) ([]byte, uint64, error) {
	return getRecord(r.txn, name)
}

func (r readOnly) SwapRecord(context.Context, string, uint64, []byte) (bool, error) {
	return false, errors.New("the vault is missing: this is not the whole of a server's data")
}
