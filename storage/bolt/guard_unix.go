//go:build unix

package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// guard keeps the file and its folder to their owner.
type guard struct {
	insecure bool
	anyOwner bool // who that is does not matter: root acts for them
}

// makeFolder checks the folder, or makes it with mode 0700.
func (g guard) makeFolder(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return fmt.Errorf("make the folder: %w", err)
		}
		if err := os.Chmod(path, 0o700); err != nil { // a strange umask may have taken bits away
			return fmt.Errorf("make the folder: %w", err)
		}
		if info, err = os.Lstat(path); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if g.insecure {
		if info, err = os.Stat(path); err != nil {
			return err
		}
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("the folder %s is a symbolic link; name the folder itself", path)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", path)
	}
	return g.private("the folder "+path, info, "700")
}

// checkFile reports whether the file is missing, or what is wrong with it.
func (g guard) checkFile(path string) (missing bool, err error) {
	stat := os.Lstat
	if g.insecure {
		stat = os.Stat
	}
	info, err := stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, g.check(info)
}

func (g guard) check(info fs.FileInfo) error {
	if info.Mode()&fs.ModeSymlink != 0 {
		return errors.New("it is a symbolic link; name the file itself")
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	return g.private("the file", info, "600")
}

func (g guard) private(what string, info fs.FileInfo, mode string) error {
	if g.insecure {
		return nil
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("%s is open to others (mode %04o); run chmod %s on it", what, perm, mode)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && !g.anyOwner && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d and this process runs as user %d; run chown on it", what, stat.Uid, os.Geteuid())
	}
	return nil
}

// open opens the file for bbolt. What was opened is checked again, since the
// name could have got another meaning meanwhile.
func (g guard) open(path string, flag int, mode os.FileMode) (*os.File, error) {
	if !g.insecure {
		flag |= syscall.O_NOFOLLOW
	}
	if flag&os.O_CREATE != 0 {
		file, err := os.OpenFile(path, flag|os.O_EXCL, mode)
		if err == nil {
			if err := file.Chmod(mode); err != nil {
				return nil, errors.Join(err, file.Close())
			}
			return file, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		flag &^= os.O_CREATE
	}
	file, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil {
		err = g.check(info)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// actingFor returns the guard of a process that prepares the file for whoever
// owns the folder: root may.
func (g guard) actingFor() guard {
	g.anyOwner = os.Geteuid() == 0
	return g
}

// giveTo gives a file that root made to the owner of the folder.
func giveTo(file *os.File, folder string) error {
	info, err := os.Stat(folder)
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return file.Chown(int(stat.Uid), int(stat.Gid))
}

// syncFolder makes a new file's name durable.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
