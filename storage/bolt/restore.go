package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
)

// RestoreOptions say what is restored, and where.
type RestoreOptions struct {
	Backup  string // file that Store.Backup wrote, or the data file of a server that has ended
	Path    string // of the data file
	Keyring *seal.Keyring
	// Force restores over data that exist, and keeps them beside.
	Force               bool
	InsecurePermissions bool // as Options has it
	Progress            Progress
}

// RestoreResult is the outcome of Restore.
type RestoreResult struct {
	Contents
	Kept string // where the data that were there are now; "": there were none
}

// ErrDataExist means that there are data already where a backup was to be
// restored.
var ErrDataExist = errors.New("there are data already")

// ErrHeld means that another process holds the data file.
var ErrHeld = errors.New("another process holds the data file")

// Restore puts a backup in the place of the data file, once it has verified it,
// with a document that says so: see storage.RestoredRecord. It refuses while
// another process holds the data file. Whatever happens, and wherever a crash
// ends it, the data file is either as it was or wholly restored; data that were
// there are kept under another name in the same folder.
//
// Where root calls it the file is given to the owner of the folder.
func Restore(ctx context.Context, o RestoreOptions) (res RestoreResult, err error) {
	v, err := verify(ctx, o.Backup, o.Keyring, o.Progress)
	if err != nil {
		return RestoreResult{}, err
	}
	res.Contents = v.Contents
	if res.Kept, err = replaceData(ctx, &o, &v); err != nil {
		return RestoreResult{}, fmt.Errorf("data file %s: %w", o.Path, err)
	}
	return res, nil
}

func replaceData(ctx context.Context, o *RestoreOptions, v *verified) (kept string, err error) {
	guard := guard{insecure: o.InsecurePermissions}.actingFor()
	if err := guard.makeFolder(filepath.Dir(o.Path)); err != nil {
		return "", err
	}
	if _, err := guard.checkFile(o.Path); err != nil {
		return "", err
	}
	target, exist, err := holdTarget(o.Path, guard)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	path, err := realPath(o.Path)
	if err != nil {
		return "", err
	}
	if err := mayReplace(path, target, o, exist); err != nil {
		return "", err
	}
	temporary := copyPath(path) // whoever opens the data file removes it
	if err := removeLeftover(path); err != nil {
		return "", err
	}
	if err := makeRestored(ctx, temporary, o, v, guard); err != nil {
		return "", errors.Join(err, removeLeftover(path), dropEmpty(path, exist))
	}
	if exist {
		kept = path + ".before-restore-" + time.Now().UTC().Format("20060102T150405.000Z")
		err = os.Link(path, kept)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path)) // the old data have their other name before they lose this one
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return "", errors.Join(err, removeLeftover(path), dropEmpty(path, exist))
	}
	return kept, syncFolder(filepath.Dir(path))
}

// holdTarget opens the data file, and locks it so that no server opens it
// meanwhile. Where there is none an empty one is made, which a server takes for
// none. exist says whether there are data.
func holdTarget(path string, guard guard) (file *os.File, exist bool, err error) {
	if file, err = guard.open(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, false, err
	}
	var info fs.FileInfo
	if err = lock(file); errors.Is(err, berrors.ErrTimeout) {
		err = ErrHeld
	}
	if err == nil {
		info, err = file.Stat()
	}
	if err == nil {
		err = checkName(path, file)
	}
	if err == nil && info.Size() == 0 {
		err = giveTo(file, filepath.Dir(path))
	}
	if err != nil {
		return nil, false, errors.Join(err, file.Close())
	}
	return file, info.Size() > 0, nil
}

func mayReplace(path string, target *os.File, o *RestoreOptions, exist bool) error {
	backup, err := os.Stat(o.Backup)
	if err != nil {
		return err
	}
	info, err := target.Stat()
	switch {
	case err != nil:
		return err
	case os.SameFile(backup, info):
		return errors.New("the backup is the data file itself")
	case exist && !o.Force:
		return fmt.Errorf("%w; they are kept under another name where that is forced", ErrDataExist)
	}
	return nil
}

// dropEmpty removes the empty file that holdTarget has made.
func dropEmpty(path string, exist bool) error {
	if exist {
		return nil
	}
	return os.Remove(path)
}

// makeRestored writes the data of the backup to a new file, with the document
// that they are restored, durably.
func makeRestored(ctx context.Context, path string, o *RestoreOptions, v *verified, guard guard) (err error) {
	from, err := os.Open(o.Backup)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // was only read
	file, err := guard.open(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	err = copyData(ctx, io.MultiWriter(file, sum), from, v.Size, func(done int64) { o.Progress.tell("writing the data", done, v.Size) })
	if err == nil && !bytes.Equal(sum.Sum(nil), v.sum[:]) {
		err = errors.New("the backup has changed while it was read")
	}
	if err == nil {
		o.Progress.tell("waiting for the disk", v.Size, v.Size)
		err = errors.Join(giveTo(file, filepath.Dir(path)), file.Sync())
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	db, _, err := openDB(path, guard)
	if err != nil {
		return err
	}
	return errors.Join(markRestored(ctx, db, v.TakenAt), db.Close())
}

func markRestored(ctx context.Context, db *bbolt.DB, takenAt time.Time) error {
	return db.Update(func(tx *bbolt.Tx) error {
		return storage.MarkRestored(ctx, documents{txn{Tx: tx, now: time.Now()}}, takenAt)
	})
}

// documents are those of a transaction that writes.
type documents struct{ txn }

func (d documents) Record(_ context.Context, name string) ([]byte, uint64, error) {
	return getRecord(d.txn, name)
}

func (d documents) SwapRecord(_ context.Context, name string, version uint64, value []byte) (bool, error) {
	return true, put(d.txn, bucketRecords, []byte(name), storage.EncodeDocument(&storage.Document{Version: version + 1, Value: value}))
}
