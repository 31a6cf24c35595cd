//go:build !unix || solaris || illumos || aix

package bolt

import (
	"errors"
	"os"

	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// lock looks whether another process holds the lock that bbolt takes on a file.
func lock(file *os.File) error {
	if info, err := file.Stat(); err != nil || info.Size() == 0 {
		return err // bbolt would fill it
	}
	db, err := bbolt.Open(file.Name(), 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if errors.Is(err, berrors.ErrTimeout) {
		return err
	}
	if err == nil {
		return db.Close()
	}
	return nil // damaged, but nobody holds it
}
