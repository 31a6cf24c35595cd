//go:build !unix

package bolt

import (
	"errors"
	"io/fs"
	"os"
)

// guard makes the folder; this system's permissions are not checked.
type guard struct{ insecure bool }

func (guard) makeFolder(path string) error { return os.MkdirAll(path, 0o700) }

func (guard) checkFile(path string) (missing bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	return false, err
}

func (guard) open(path string, flag int, mode os.FileMode) (*os.File, error) {
	return os.OpenFile(path, flag, mode)
}

func (g guard) actingFor() guard { return g }

func giveTo(*os.File, string) error { return nil }

func syncFolder(string) error { return nil }
