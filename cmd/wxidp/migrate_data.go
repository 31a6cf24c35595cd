package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/storage"
)

func migrateDataCommand() *cobra.Command {
	var move dataMove
	var undo bool
	cmd := &cobra.Command{
		Use:   "data",
		Short: "Move everything to another storage, such as from a file to PostgreSQL",
		Long: `Copy everything that is kept from one storage to another, read it back, and
compare. No server may run on either meanwhile. Sign-ins go on afterwards: the
signing keys and all refresh tokens move along, and so do users with all they
have. What cannot be served twice is marked: from the beginning on neither
storage is served, and after the end only the new one is.

--from and --to are each one of

  config              the storage of the configuration of --config
  config:FILE         the storage of another configuration
  bolt:FILE           a data file
  postgres:@FILE      a database, whose DSN is in a file that only you can read
  postgres:env:NAME   ... whose DSN is in the environment variable NAME
  postgres:DSN        ... whose DSN has no password: other users of this machine
                      can see command lines

The destination must be empty; a database without a schema is given one. The
master key comes from --config, or from the configuration of config:FILE for
that end; both ends need the same.

A move that was interrupted, however rudely, goes on where it was when the same
command is run again. To give it up, or to serve the source again although its
data was moved, take the mark away with --undo: what was written at the
destination since then is not in the source. To take that along, move back, to
an empty storage.`,
		Example: `  wxidp migrate data --from config --to postgres:@/etc/wxidp/dsn --config /etc/wxidp/config.yaml
  wxidp migrate data --from config --to bolt:data/back.db --config /etc/wxidp/config.yaml
  wxidp migrate data --undo --from bolt:data/wxidp.db`,
		Args: takes(),
	}
	path := configFlag(cmd.Flags())
	cmd.Flags().StringVar(&move.from, "from", "", "`storage` to move from")
	cmd.Flags().StringVar(&move.to, "to", "", "`storage` to move to")
	cmd.Flags().BoolVar(&undo, "undo", false, "only take the mark of a move from the storage of --from")
	cmd.Flags().BoolVar(&move.asJSON, "json", false, "print JSON instead of text")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		move.configPath = *path
		switch {
		case move.from == "":
			return errors.New("migrate data: --from is missing; see \"wxidp migrate data --help\"")
		case undo && move.to != "":
			return errors.New("migrate data: --undo takes the mark from the storage of --from and needs no --to")
		case undo:
			return move.undo(cmd)
		case move.to == "":
			return errors.New("migrate data: --to is missing; see \"wxidp migrate data --help\"")
		}
		return move.run(cmd)
	}
	return cmd
}

// dataMove is a move as the command line asks for it.
type dataMove struct {
	configPath string
	from, to   string
	asJSON     bool
}

// movedData is what `wxidp migrate data --json` prints.
type movedData struct {
	From    string      `json:"from"`
	To      string      `json:"to"`
	Resumed bool        `json:"resumed"`
	Rows    int64       `json:"rows"`
	Seconds float64     `json:"seconds"`
	Kinds   []movedKind `json:"kinds"`
}

type movedKind struct {
	Kind   string `json:"kind"`
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"` // of all rows in order, the same at both ends
}

func (m *dataMove) run(cmd *cobra.Command) (err error) {
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	open := &endOpener{configPath: m.configPath}
	from, err := open.source(ctx, m.from)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	defer func() { err = errors.Join(err, from.close()) }()
	to, err := open.destination(ctx, m.to, from)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	defer func() { err = errors.Join(err, to.close()) }()

	start := time.Now()
	progress := newProgress(cmd.ErrOrStderr())
	progress.show("counting")
	move := storage.Move{From: from.MoveEnd, To: to.MoveEnd, Observe: observeMove(progress)}
	report, err := move.Run(ctx)
	progress.clear()
	switch {
	case err != nil && ctx.Err() != nil:
		return errors.New("interrupted; run the same command again to go on, or see --undo")
	case err != nil:
		return err
	}
	out := movedData{From: from.Name, To: to.Name, Resumed: report.Resumed, Seconds: time.Since(start).Seconds()}
	for _, kind := range report.Kinds {
		out.Rows += kind.Rows
		out.Kinds = append(out.Kinds, movedKind{kind.Kind.String(), kind.Rows, fmt.Sprintf("%x", kind.Checksum)})
	}
	if m.asJSON {
		return printJSON(cmd.OutOrStdout(), out)
	}
	return out.print(cmd.OutOrStdout())
}

func (m *movedData) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WHAT\tROWS\tSHA-256")
	for _, kind := range m.Kinds {
		fmt.Fprintf(table, "%s\t%d\t%.16s…\n", kind.Kind, kind.Rows, kind.SHA256)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `
Moved %d rows from %s
to %s in %.1f s; all were read back and are the same.
Now set "storage" in the configuration to the new one, and start. The old one
stays as it is and is no longer served; remove it when you need no way back.
`, m.Rows, m.From, m.To, m.Seconds)
	return err
}

// observeMove shows how far a move is, how fast it goes, and how long it may
// still take.
func observeMove(progress *progress) func(storage.MoveProgress) {
	var stage storage.MoveStage
	var start time.Time
	var before int64 // rows at start
	return func(p storage.MoveProgress) {
		if p.Stage != stage {
			stage, start, before = p.Stage, time.Now(), p.Rows
		}
		what := "copied"
		if p.Stage == storage.MoveVerifying {
			what = "verified"
		}
		rate := float64(p.Rows-before) / max(time.Since(start).Seconds(), 0.001)
		left := ""
		if rate > 0 {
			left = ", " + (time.Duration(float64(max(p.Total-p.Rows, 0))/rate) * time.Second).String() + " left"
		}
		progress.show("%s: %d of %d rows %s, %.0f/s%s", p.Kind, p.Rows, p.Total, what, rate, left)
	}
}

func (m *dataMove) undo(cmd *cobra.Command) (err error) {
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	from, err := (&endOpener{configPath: m.configPath}).source(ctx, m.from)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	defer func() { err = errors.Join(err, from.close()) }()
	if from.Idle != nil {
		if err := from.Idle(ctx); err != nil {
			return err
		}
	}
	peer, done, err := storage.UndoMove(ctx, from.Store)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return fmt.Errorf("%s bears no mark of a move; it can be served", from.Name)
	case err != nil:
		return err
	}
	text := "The move was not complete; what it has copied there is of no use and may be removed."
	if done {
		text = "Make sure that no server runs on that one any more: what was written there since\nis not here."
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s can be served again. It was marked as moved to\n%s. %s\n", from.Name, peer, text)
	return err
}
