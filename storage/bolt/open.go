package bolt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/wxidp/wxidp/storage"
)

// formatVersion is the layout of the buckets and their keys. Records carry
// versions of their own.
const formatVersion = "1"

var keyFormat = []byte("format")

// lockTimeout is how long Open waits for another process to let go of the file.
const lockTimeout = 200 * time.Millisecond

// Open opens the file, or makes it, and starts the writer. It refuses a file
// that others may read, that another process holds, that is damaged, or that
// was sealed under a master key that is not in the keyring; in none of these
// cases is anything changed.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Keyring == nil {
		return nil, errors.New("storage: no master key was given")
	}
	log := opts.Logger
	if log == nil {
		log = discardLogger()
	}
	db, path, inspected, err := openFile(opts, log)
	if err != nil {
		return nil, fmt.Errorf("storage file %s: %w", opts.Path, err)
	}
	s := &Store{path: path, guard: guard{insecure: opts.InsecurePermissions}, db: db, claims: storage.NewClaims(0), log: log}
	s.committer = startCommitter(&committer{
		db:       db,
		log:      log,
		onCommit: opts.OnCommit,
		broke:    s.breaker(opts, log),
	})
	if s.vault, err = storage.OpenVault(ctx, s, opts.Keyring); err != nil {
		return nil, errors.Join(fmt.Errorf("storage file %s: %w", opts.Path, err), s.Close())
	}
	s.Edits = storage.NewEdits(s.vault, s.edit, s.rehearse)
	if !inspected {
		s.background.Go(s.inspectServed)
	}
	return s, nil
}

// breaker returns what the writer calls when it must give up.
func (s *Store) breaker(opts Options, log *slog.Logger) func(error) {
	return func(err error) {
		s.broken.Store(true)
		log.Error("the state of the data file is unknown; the process must end", "event", "storage.broken", "detail", err.Error())
		err = fmt.Errorf("storage file %s: %w", opts.Path, err)
		if opts.Fatal == nil {
			panic(err)
		}
		opts.Fatal(err)
	}
}

func discardLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }

// openFile returns the file with its buckets made and its format checked, and
// its path without symbolic links. inspected is false where the whole tree is
// still to be read.
func openFile(opts Options, log *slog.Logger) (db *bbolt.DB, path string, inspected bool, err error) {
	guard := guard{insecure: opts.InsecurePermissions}
	folder := filepath.Dir(opts.Path)
	if err := guard.makeFolder(folder); err != nil {
		return nil, "", false, err
	}
	created, err := guard.checkFile(opts.Path)
	if err != nil {
		return nil, "", false, err
	}
	// A damaged page makes bbolt panic, and reading beyond the end of a
	// truncated file is a fault.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("the file is damaged: %v", p)
		}
	}()
	if inspected = created || !opts.inspectLater(guard); !created && inspected {
		if size := fileSize(opts.Path); size > inspectFirst {
			log.Info("the data file is large and was not closed in order: it is read as a whole before it is used", "event", "storage.inspecting", "bytes", size)
		}
		if err := inspect(opts.Path, guard); err != nil {
			return nil, "", false, explain(err)
		}
	}
	db, file, err := openDB(opts.Path, guard)
	if err != nil {
		return nil, "", false, explain(err)
	}
	if path, err = realPath(opts.Path); err == nil {
		err = checkName(path, file)
	}
	if err == nil {
		err = removeLeftover(path)
	}
	if err == nil {
		err = prepare(db)
	}
	if err == nil && created {
		err = syncFolder(folder)
	}
	if err != nil {
		return nil, "", false, errors.Join(err, db.Close())
	}
	return db, path, inspected, nil
}

// inspectLater reports whether the whole tree need not be read before the file
// is served.
func (o *Options) inspectLater(guard guard) bool {
	largest := o.inspectFirst
	if largest == 0 {
		largest = inspectFirst
	}
	return fileSize(o.Path) > largest && closedInOrder(o.Path, guard)
}

// fileSize is 0 for a file that cannot be looked at.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// openDB opens a file for writing, which locks it.
func openDB(path string, guard guard) (db *bbolt.DB, file *os.File, err error) {
	options := bbolt.Options{
		Timeout: lockTimeout,
		OpenFile: func(path string, flag int, mode os.FileMode) (*os.File, error) {
			var err error
			file, err = guard.open(path, flag, mode)
			return file, err
		},
		FreelistType:   bbolt.FreelistMapType,
		NoFreelistSync: true,
		NoStatistics:   true,
	}
	if strconv.IntSize == 64 {
		options.InitialMmapSize = 1 << 30 // so that growing rarely has to wait for readers
	}
	db, err = bbolt.Open(path, 0o600, &options)
	return db, file, err
}

func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// checkName makes sure that an open file, which this process holds the lock
// of, still is the one by its name: another process may have swapped a
// compacted one in before it let go of this.
func checkName(path string, file *os.File) error {
	named, err := os.Stat(path)
	if err != nil {
		return err
	}
	opened, err := file.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(named, opened) {
		return explain(berrors.ErrTimeout)
	}
	return nil
}

func explain(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return errors.New("another process holds the file; only one may use it at a time")
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrChecksum):
		return fmt.Errorf("this is not a wxidp data file, or its beginning is damaged: %w", err)
	}
	return err
}

// prepare makes the buckets of a new file and checks the format of an old one.
func prepare(db *bbolt.DB) error {
	missing := false
	err := db.View(func(tx *bbolt.Tx) (err error) {
		if name, _ := tx.Cursor().First(); name == nil {
			missing = true // a new file
			return nil
		}
		missing, err = checkFormat(tx)
		return err
	})
	if err != nil || !missing {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return fmt.Errorf("make bucket %s: %w", name, err)
			}
		}
		return tx.Bucket(bucketMeta).Put(keyFormat, []byte(formatVersion))
	})
}

// checkFormat refuses what this program did not write, or a newer one did, and
// reports whether buckets are missing.
func checkFormat(tx *bbolt.Tx) (missing bool, err error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return false, errors.New("this is a bbolt file of another program")
	}
	if format := meta.Get(keyFormat); string(format) != formatVersion {
		return false, fmt.Errorf("the file has format %q and this program knows %q", format, formatVersion)
	}
	for _, name := range buckets {
		missing = missing || tx.Bucket(name) == nil
	}
	return missing, nil
}
