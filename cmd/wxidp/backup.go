package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/web"
)

// backupResponse is what `wxidp backup --json` prints.
type backupResponse struct {
	File string `json:"file"`
	Size int64  `json:"size"` // bytes
}

func backupCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a backup of the running server's data",
		Long: `Write a copy of the data of the running server as of one moment, readable by its
owner only. The server goes on meanwhile. The file appears when it is complete.

"wxidp restore FILE" verifies it and puts it in place. Keep the master key too,
and in another place: without it a backup is of no use.

This is for storage.driver: bolt. A PostgreSQL database is backed up by its own
means, such as pg_dump.`,
		Example: `  wxidp backup /backup/wxidp-$(date +%F).db --config /etc/wxidp/config.yaml`,
		Args:    takes("FILE"),
	}
	flags := newAdminFlags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE if it exists")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := flags.admin()
		if err != nil {
			return err
		}
		start := time.Now()
		ctx, stop := untilSignal(cmd.Context())
		defer stop()
		size, err := backup(ctx, client, args[0], force, newProgress(cmd.ErrOrStderr()))
		if err != nil {
			return err
		}
		return flags.done(cmd, backupResponse{args[0], size}, "Wrote %s to %s (%.1f s).\n",
			bytesText(size), args[0], time.Since(start).Seconds())
	}
	return cmd
}

// backup writes to a temporary file beside path and renames it at the end. No
// power cut leaves a part of it under the name.
func backup(ctx context.Context, client *adminClient, path string, force bool, progress *progress) (size int64, err error) {
	if err := mayWrite(path, force); err != nil {
		return 0, err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".wxidp-backup-*") // mode 0600
	if err != nil {
		return 0, err
	}
	size, err = receiveBackup(ctx, client, file, progress)
	if err != nil && ctx.Err() != nil {
		err = errors.New("interrupted; no backup was written")
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = mayWrite(path, force)
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return 0, errors.Join(err, os.Remove(file.Name()))
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return 0, fmt.Errorf("%s is written, but its name may not outlive a power cut: %w", path, err)
	}
	return size, nil
}

// receiveBackup writes what the server sends, durably.
func receiveBackup(ctx context.Context, client *adminClient, file *os.File, progress *progress) (size int64, err error) {
	defer progress.clear()
	progress.show("the server copies its data")
	body, err := client.open(ctx, http.MethodGet, web.AdminBackup, nil)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	for {
		n, err := io.CopyN(file, body, 1<<20)
		size += n
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("the backup is not complete: %w", err)
		}
		progress.show("%s written", bytesText(size))
	}
	if size == 0 {
		return 0, errors.New("the server sent nothing")
	}
	return size, file.Sync()
}

func mayWrite(path string, force bool) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a folder; name a file", path)
	case !force:
		return fmt.Errorf("%s exists; say --force to replace it", path)
	}
	return nil
}
