package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/web"
)

func usersImportCommand(flags adminFlags) *cobra.Command {
	run := importRun{}
	var format string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take the users of an earlier system",
		Long: `Take the users of an earlier system from a file; - is standard input. Each line is
a row: a WeChat identity of a user whom the product knows by an id of its own,
or an account with a username and password hash, or both.

  external_id     the product's own id of the user; needed with an openid
  appid           of the mini-program; one of wechat.apps in the configuration
  wechat_openid   the user's openid there; "openid" is taken, too
  unionid         where it is known
  nickname        shown to others (default as of new users)
  picture         https URL (default as of new users)
  username        to sign in with
  password_hash   argon2id or argon2i as a PHC string, or bcrypt; replaced by
                  an argon2id one at the next sign-in

csv has a header line with these names, in any order; ndjson has one object per
line. Rows of one external_id are one user. Whoever signs in with an imported
openid, before the import or after it, is that user; the product finds its id in
the claim external_id.

Rows that cannot be taken are listed by line and the others are taken; the exit
status is 1 then. The same file may be imported again: what is there already
stays as it is, passwords included. After an interruption --from-line goes on
where it was, and adds to the file of --faults.`,
		Example: `  wxidp users import users.csv
  wxidp users import users.ndjson --faults faults.txt
  zcat users.ndjson.gz | wxidp users import -`,
		Args: takes("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			run.name = args[0]
			return importUsers(cmd, flags, &run, format)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "csv or `ndjson` (default: by what the file begins with)")
	cmd.Flags().IntVar(&run.fromLine, "from-line", 1, "skip what is before this `line`")
	cmd.Flags().BoolVar(&run.dryRun, "dry-run", false, "only say what would happen with what is there now")
	cmd.Flags().StringVar(&run.faultsName, "faults", "", "write faults to this `file` instead of standard error")
	cmd.Flags().BoolVar(&run.force, "force", false, "replace what is in the file of --faults")
	return cmd
}

// importSummary is what `wxidp users import --json` prints.
type importSummary struct {
	Rows            int     `json:"rows"`
	Created         int     `json:"created"`
	Linked          int     `json:"linked"`
	Unchanged       int     `json:"unchanged"`
	Faults          int     `json:"faults"`
	UnionIDsNotKept int     `json:"unionids_not_kept"`
	DryRun          bool    `json:"dry_run"`
	Seconds         float64 `json:"seconds"`
	// NextLine is where to go on after an interruption; 0: it was completed.
	NextLine int `json:"next_line,omitempty"`
}

func (s *importSummary) String() string {
	created, linked := "created", "linked"
	if s.DryRun {
		created, linked = "to be created", "to be linked"
	}
	return fmt.Sprintf("%d rows (%.0f/s): %d %s, %d %s, %d unchanged, %d faults",
		s.Rows, float64(s.Rows)/max(s.Seconds, 0.001), s.Created, created, s.Linked, linked, s.Unchanged, s.Faults)
}

// Limits of one batch. The bytes are those of lines; JSON may make six of one.
const (
	importBatch      = storage.MaxImport
	importBatchBytes = web.MaxImportBody / 8
)

// importRun is one import under way.
type importRun struct {
	name       string // of the file
	faultsName string // empty: standard error
	fromLine   int
	dryRun     bool
	force      bool // replace what faultsName has

	client   *adminClient
	in       *accounts.ImportReader
	faults   io.Writer
	progress *progress
	start    time.Time
	summary  importSummary
	settled  int // the last line that needs no second look

	rows  []accounts.ImportRow
	lines []int // of rows
	bad   []lineText
	bytes int
}

type lineText struct {
	line int
	text string
}

func importUsers(cmd *cobra.Command, flags adminFlags, run *importRun, format string) (err error) {
	formats := map[string]accounts.ImportFormat{"": accounts.ImportAny, "csv": accounts.ImportCSV, "ndjson": accounts.ImportNDJSON}
	kind, known := formats[format]
	if !known {
		return errors.New("--format is csv or ndjson")
	}
	if run.fromLine < 1 {
		return errors.New("--from-line: lines are counted from 1")
	}
	if run.force && run.faultsName == "" {
		return errors.New("--force replaces the file of --faults, and there is no --faults")
	}
	if run.client, err = flags.admin(); err != nil {
		return err
	}
	in := cmd.InOrStdin()
	if run.name == "-" {
		run.name = "stdin"
	} else {
		file, err := os.Open(run.name)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // was only read
		in = file
	}
	run.faults = cmd.ErrOrStderr()
	if run.faultsName != "" {
		file, openErr := run.openFaults(in)
		if openErr != nil {
			return openErr
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		run.faults = file
	}
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	run.progress, run.start, run.summary.DryRun = newProgress(cmd.ErrOrStderr()), time.Now(), run.dryRun
	err = run.begin(readUntilDone(ctx, in), kind)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", printable(run.name), err)
	}
	if err == nil {
		err = run.all(ctx)
	}
	run.progress.clear()
	return run.report(cmd, flags, ctx.Err() != nil, err)
}

// openFaults opens the file of --faults to add to it. The list of an earlier
// import is not added to by one from the start, nor the users themselves by any.
func (run *importRun) openFaults(in io.Reader) (*os.File, error) {
	file, err := os.OpenFile(run.faultsName, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := run.checkFaults(file, in); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func (run *importRun) checkFaults(file *os.File, in io.Reader) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if users, ok := in.(*os.File); ok {
		usersInfo, err := users.Stat()
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() && os.SameFile(info, usersInfo) {
			return fmt.Errorf("--faults: %s is the file with the users; name another one", printable(run.faultsName))
		}
	}
	if !run.force && run.fromLine == 1 && info.Size() > 0 {
		return fmt.Errorf("--faults: %s is there already and not empty; name another file, or say --force to replace it", printable(run.faultsName))
	}
	return nil
}

// begin finds the first line to take.
func (run *importRun) begin(in io.Reader, kind accounts.ImportFormat) (err error) {
	run.settled = run.fromLine - 1
	if run.in, err = accounts.NewImportReader(in, kind); err != nil {
		return err
	}
	err = run.in.SkipTo(run.fromLine)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("--from-line %d is past the end: the last line is %d", run.fromLine, run.in.Line())
	}
	if err != nil {
		return err
	}
	run.settled = run.in.Line()
	return run.emptyFaults()
}

// emptyFaults does what --force asks for, once the users can be read.
func (run *importRun) emptyFaults() error {
	if !run.force || run.fromLine > 1 {
		return nil
	}
	info, err := os.Stat(run.faultsName)
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	return os.Truncate(run.faultsName, 0)
}

// report prints the summary, and where to go on if the import was stopped.
func (run *importRun) report(cmd *cobra.Command, flags adminFlags, interrupted bool, stopped error) error {
	run.count()
	if stopped != nil {
		run.summary.NextLine = run.settled + 1
	}
	var err error
	if *flags.json {
		err = printJSON(cmd.OutOrStdout(), run.summary)
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", &run.summary)
	}
	if err != nil {
		return err
	}
	if n := run.summary.UnionIDsNotKept; n > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d row(s) have a unionid that is not kept: their appid names no open_platform in the configuration, so it shares unionids with no other.\n", n)
	}
	if stopped == nil && run.summary.Rows == 0 {
		from := ""
		if run.fromLine > 1 {
			from = fmt.Sprintf(" from line %d on", run.fromLine)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s has no rows%s: nothing was imported.\n", printable(run.name), from)
	}
	goOn := fmt.Sprintf("go on with --from-line %d, or from the start: what was taken stays as it is", run.settled+1)
	switch {
	case stopped != nil && interrupted:
		return errors.New("interrupted; " + goOn)
	case stopped != nil:
		return fmt.Errorf("%w\nstopped; %s", stopped, goOn)
	case run.summary.Faults > 0:
		return fmt.Errorf("%d row(s) were not taken, all others were; put them right and import the file again", run.summary.Faults)
	}
	return nil
}

func (run *importRun) count() { run.summary.Seconds = time.Since(run.start).Seconds() }

// all reads the rest of the file and sends it in batches.
func (run *importRun) all(ctx context.Context) error {
	for {
		row, err := run.in.Next()
		fault, isFault := errors.AsType[*accounts.LineFault](err)
		switch {
		case isFault:
			run.bad = append(run.bad, lineText{run.in.Line(), fault.Text})
		case errors.Is(err, io.EOF):
			return run.send(ctx)
		case err != nil:
			return err
		default:
			run.rows, run.lines = append(run.rows, row), append(run.lines, run.in.Line())
			run.bytes += run.in.LineBytes()
		}
		if len(run.rows)+len(run.bad) >= importBatch || run.bytes >= importBatchBytes {
			if err := run.send(ctx); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// send sends one batch and takes its result into account.
func (run *importRun) send(ctx context.Context) error {
	var result accounts.ImportResult
	if len(run.rows) > 0 {
		in := web.ImportUsersRequest{Rows: run.rows, DryRun: run.dryRun}
		if err := run.client.call(ctx, http.MethodPost, web.AdminUsersImport, in, &result); err != nil {
			return err
		}
	}
	for _, fault := range result.Faults {
		run.bad = append(run.bad, lineText{run.lines[fault.Row], fault.Text})
	}
	slices.SortStableFunc(run.bad, func(a, b lineText) int { return a.line - b.line })
	if len(run.bad) > 0 {
		run.progress.clear()
	}
	var text strings.Builder
	for _, fault := range run.bad {
		fmt.Fprintf(&text, "%s:%d: %s\n", printable(run.name), fault.line, fault.text)
	}
	if _, err := io.WriteString(run.faults, text.String()); err != nil {
		return err
	}
	s := &run.summary
	s.Rows += len(run.rows) + len(run.bad) - len(result.Faults)
	s.Created += result.Created
	s.Linked += result.Linked
	s.Unchanged += result.Unchanged
	s.UnionIDsNotKept += result.UnionIDsNotKept
	s.Faults += len(run.bad)
	run.settled = max(run.settled, run.in.Line())
	run.rows, run.lines, run.bad, run.bytes = run.rows[:0], run.lines[:0], run.bad[:0], 0
	run.count()
	run.progress.show("%s", s)
	return nil
}
