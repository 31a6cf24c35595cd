package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/bolt"
)

// restoreResponse is what `wxidp restore --json` prints.
type restoreResponse struct {
	File          string    `json:"file"`
	TakenAt       time.Time `json:"taken_at,omitzero"`       // the backup's moment
	NewestSignIn  time.Time `json:"newest_sign_in,omitzero"` // of those that are live
	Size          int64     `json:"size"`                    // bytes of data
	Checksum      bool      `json:"checksum"`                // whether it has one
	Users         int       `json:"users"`
	SignIns       int       `json:"sign_ins"`       // that are live
	LoginSessions int       `json:"login_sessions"` // of browsers, that are live
	Restored      string    `json:"restored,omitempty"`
	Kept          string    `json:"kept,omitempty"`
}

// restoreFlags are what `wxidp restore` was asked.
type restoreFlags struct {
	config              *string
	verify, mark, force bool
	json                bool
}

func restoreCommand() *cobra.Command {
	var flags restoreFlags
	cmd := &cobra.Command{
		Use:   "restore [FILE]",
		Short: "Verify a backup and put it in the place of the data",
		Long: `Verify a backup, and put it in the place of storage.bolt.path while no server
runs. It is refused unless it is whole, this program knows its format, and the
configured master key opens it; nothing is changed then. Data that are there are
replaced with --force only, and kept beside under another name. Wherever this is
ended, the data file is either as it was or wholly restored.

--verify stops before anything is changed, and may run beside a server.

What was done since the backup is undone: sign-ins that were ended may be alive
again. So the server then starts only with

  wxidp serve --after-restore=revoke-all    everybody signs in again
  wxidp serve --after-restore=accept        sign-ins go on as of the backup

and asks for that after a plain copy of a backup, too. Of a snapshot of a whole
volume, or of a PostgreSQL database that was taken back to an earlier moment, it
cannot know: stop all servers and say so with --mark, which changes nothing else.
A dump that pg_restore loads into another database is known by itself.`,
		Example: `  wxidp restore /backup/wxidp-2026-11-21.db --verify
  wxidp restore /backup/wxidp-2026-11-21.db --config /etc/wxidp/config.yaml
  wxidp restore --mark`,
		Args: takes("[FILE]"),
	}
	flags.config = configFlag(cmd.Flags())
	cmd.Flags().BoolVar(&flags.verify, "verify", false, "only verify FILE, and say what it holds")
	cmd.Flags().BoolVar(&flags.force, "force", false, "replace the data that are there; they are kept beside")
	cmd.Flags().BoolVar(&flags.mark, "mark", false, "only say that the present data were restored by other means")
	cmd.Flags().BoolVar(&flags.json, "json", false, "print JSON instead of text")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if flags.mark == (len(args) == 1) {
			return errors.New("restore: name the FILE of a backup, or say --mark; see \"wxidp restore --help\"")
		}
		if flags.mark && (flags.verify || flags.force) {
			return errors.New("restore: --mark goes with neither --verify nor --force")
		}
		ctx, stop := untilSignal(cmd.Context())
		defer stop()
		if flags.mark {
			return markRestored(ctx, cmd, *flags.config)
		}
		loaded, err := config.Load(*flags.config, os.Environ())
		if err != nil {
			return err
		}
		keys, err := loaded.MasterKeys()
		if err != nil {
			return err
		}
		keyring, err := seal.ParseKeyring([]byte(keys.Reveal()))
		if err != nil {
			return err
		}
		return restore(ctx, cmd, &flags, loaded.Config, keyring, args[0])
	}
	return cmd
}

func restore(ctx context.Context, cmd *cobra.Command, flags *restoreFlags, c *config.Config, keyring *seal.Keyring, file string) error {
	if c.Storage.Driver != config.DriverBolt {
		return errors.New("storage.driver is " + c.Storage.Driver + ": restore such a database by its own means, such as pg_restore; " +
			"if it was taken back to an earlier moment in its place, say so with --mark (docs/backup.md)")
	}
	progress := newProgress(cmd.ErrOrStderr())
	defer progress.clear()
	tell := func(step string, done, total int64) {
		if total == 0 {
			progress.show("%s", step)
			return
		}
		progress.show("%s: %s of %s", step, bytesText(done), bytesText(total))
	}
	var res bolt.RestoreResult
	var err error
	if flags.verify {
		res.Contents, err = bolt.Verify(ctx, file, keyring, tell)
	} else {
		res, err = bolt.Restore(ctx, bolt.RestoreOptions{
			Backup: file, Path: c.Storage.Bolt.Path, Keyring: keyring, Force: flags.force,
			InsecurePermissions: c.Insecure.AllowWorldReadableSecrets, Progress: tell,
		})
	}
	switch {
	case ctx.Err() != nil && err != nil:
		return errors.New("interrupted; nothing was changed")
	case errors.Is(err, bolt.ErrDataExist):
		return fmt.Errorf("there are data at %s already; say --force to replace them, and they are kept beside under another name", c.Storage.Bolt.Path)
	case errors.Is(err, bolt.ErrHeld):
		return fmt.Errorf("a server holds %s; stop it first", c.Storage.Bolt.Path)
	case err != nil:
		return err
	}
	out := restoreResponse{
		File: file, TakenAt: res.TakenAt, NewestSignIn: res.Newest, Size: res.Size, Checksum: res.Summed,
		Users: res.Users, SignIns: res.Families, LoginSessions: res.Logins, Kept: res.Kept,
	}
	if !flags.verify {
		out.Restored = c.Storage.Bolt.Path
	}
	progress.clear()
	if flags.json {
		return printJSON(cmd.OutOrStdout(), out)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), restoredText(&out, startAgain(cmd)))
	return err
}

func restoredText(out *restoreResponse, next string) string {
	var b strings.Builder
	made := "it does not say when it was made"
	if !out.TakenAt.IsZero() {
		made = "made " + when(out.TakenAt)
	}
	fmt.Fprintf(&b, "%s is good: %s, %s.\n", out.File, bytesText(out.Size), made)
	newest := ""
	if !out.NewestSignIn.IsZero() {
		newest = " (the newest of " + when(out.NewestSignIn) + ")"
	}
	fmt.Fprintf(&b, "It holds %d users, %d live sign-ins%s and %d live browser sessions.\n", out.Users, out.SignIns, newest, out.LoginSessions)
	if !out.Checksum {
		b.WriteString("It has no checksum, so it was not written by wxidp backup, or was served since: its pages hang together, but a changed value may go unnoticed.\n")
	}
	if out.Restored == "" {
		return b.String()
	}
	fmt.Fprintf(&b, "Restored to %s.\n", out.Restored)
	if out.Kept != "" {
		fmt.Fprintf(&b, "What was there is kept as %s: delete it when you need it no more.\n", out.Kept)
	}
	b.WriteString(next)
	return b.String()
}

// startAgain says what follows, for the configuration that the command names.
func startAgain(cmd *cobra.Command) string {
	serve := "wxidp serve"
	if flag := cmd.Flags().Lookup("config"); flag.Changed {
		serve += " --config " + flag.Value.String()
	}
	return "Now start the server once with one of\n" +
		"  " + serve + " --after-restore=revoke-all    everybody signs in again\n" +
		"  " + serve + " --after-restore=accept        sign-ins go on, also those that were ended since\n"
}

// markRestored says of the data that the configuration names that they were
// restored. Whoever uses them would not hear of it, so nobody may.
func markRestored(ctx context.Context, cmd *cobra.Command, configPath string) (err error) {
	data, err := (&endOpener{configPath: configPath}).source(ctx, "config")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.close()) }()
	if data.Idle != nil {
		if err := data.Idle(ctx); err != nil {
			return err
		}
	}
	if err := storage.MoveUnfinished(ctx, data.Store); err != nil {
		return err
	}
	if err := storage.MarkRestored(ctx, data.Store, time.Time{}); err != nil {
		return err
	}
	_, err = io.WriteString(cmd.OutOrStdout(), "The data count as restored from a backup.\n"+startAgain(cmd))
	return err
}
