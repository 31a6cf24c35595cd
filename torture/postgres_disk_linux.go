package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// databaseDisk is the size of a file system that holds the tables of a small
// PostgreSQL.
const databaseDisk = 160 << 20

// runDatabaseDisk is G4 for PostgreSQL: the file system with its tables is full
// for a while. Its log is elsewhere, as its manual advises: without room for
// that it ends, which is the scenario pg-restart.
func runDatabaseDisk(ctx context.Context, t *Trial) error {
	mount, err := t.memoryDisk(databaseDisk)
	if err != nil {
		return err
	}
	db, err := t.startDatabase(mount)
	if err != nil {
		return err
	}
	if err := t.moveLog(ctx, db); err != nil {
		return err
	}
	r, err := t.NewRig(RigOptions{Storage: func(*Node) string { return onDatabase(db.DSN()) }})
	if err != nil {
		return err
	}
	defer r.Close()
	ballast := filepath.Join(mount, "ballast")
	return t.fullDisk(ctx, r, t.Size(3, 30), func() error { return fillUp(ballast) }, func() error { return os.Remove(ballast) })
}

// moveLog moves the write-ahead log of a PostgreSQL to another file system.
func (t *Trial) moveLog(ctx context.Context, db *database) error {
	if err := db.Halt(syscall.SIGINT); err != nil {
		return err
	}
	folder, err := db.folder()
	if err != nil {
		return err
	}
	elsewhere, err := os.MkdirTemp(memoryFolder(), "wxidp-torture-wal-")
	if err != nil {
		return err
	}
	t.cleanup(func() error { return os.RemoveAll(elsewhere) })
	if err := os.Chmod(elsewhere, 0o755); err != nil {
		return err
	}
	from, to := filepath.Join(folder, "data", "pg_wal"), filepath.Join(elsewhere, "pg_wal")
	if out, err := exec.CommandContext(ctx, "mv", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("mv %s: %w: %s", from, err, out)
	}
	if err := os.Symlink(to, from); err != nil {
		return err
	}
	return db.Resume()
}

// memoryDisk mounts a file system in memory until the end of the trial, in a
// folder that PostgreSQL's user can reach.
func (t *Trial) memoryDisk(size int) (mount string, err error) {
	if mount, err = os.MkdirTemp("", "wxidp-torture-disk-"); err != nil {
		return "", err
	}
	t.cleanup(func() error { return os.Remove(mount) })
	if err := os.Chmod(mount, 0o755); err != nil {
		return "", err
	}
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", size)); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return "", t.Skip("a file system cannot be mounted here: %v", err)
		}
		return "", fmt.Errorf("mount %s: %w", mount, err)
	}
	t.cleanup(func() error { return unix.Unmount(mount, 0) })
	return mount, nil
}

// fillUp writes a file until its file system is full.
func fillUp(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	chunk := make([]byte, 64<<10)
	for written := 0; written < databaseDisk; {
		n, err := file.Write(chunk)
		if written += n; errors.Is(err, unix.ENOSPC) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("%s does not get full", filepath.Dir(path))
}
