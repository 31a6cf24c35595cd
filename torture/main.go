// Command torture proves that wxidp keeps its promises. It starts real servers
// with WeChat simulated behind them, lets clients work while it kills, fills,
// cuts and overloads what the servers stand on, notes every request with its
// answer, and holds the history to the rules R1 to R8 (docs/reliability.md).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

const usage = `torture proves that wxidp keeps its promises under faults.

  torture -wxidp bin/wxidp                    all scenarios, as CI runs them
  torture -wxidp bin/wxidp -long              as before a release
  torture -wxidp bin/wxidp -only kill,reload  some of them
  torture -wxidp bin/wxidp -seed 42           the same choices again
  torture -check history.jsonl                hold a history that was kept to the rules
  torture -list                               what there is

It ends with 0 where everything held, and with 1 otherwise. The folder of a
failed run is kept: the history, the configuration and the logs.

`

func run(args []string) int {
	o, check, list, err := parseFlags(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "torture:", err)
		return 2
	case list:
		for _, s := range scenarios() {
			fmt.Printf("%-18s %-4s %s\n", s.Name, s.Goal, s.What)
		}
		return 0
	}
	if check != "" {
		err = checkFile(check)
	} else {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = runAll(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		return 1
	}
	return 0
}

func parseFlags(args []string) (o *Options, check string, list bool, err error) {
	o = new(Options)
	flags := flag.NewFlagSet("torture", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&o.Binary, "wxidp", "bin/wxidp", "the server")
	flags.StringVar(&o.Source, "source", ".", "the module's folder, of which servers are built that are broken on purpose")
	flags.StringVar(&o.Dir, "dir", "", "folder for data and histories (default: a temporary one)")
	flags.Uint64Var(&o.Seed, "seed", 0, "of all choices (default: a random one)")
	flags.BoolVar(&o.Long, "long", false, "the sizes of a release, which take hours")
	flags.BoolVar(&o.Keep, "keep", false, "keep the folder although everything held")
	flags.DurationVar(&o.Duration, "duration", 0, "of the soak (default: 1m, with -long 30m)")
	only := flags.String("only", "", "scenarios, separated by commas (default: all)")
	flags.StringVar(&check, "check", "", "a history to check; nothing is started")
	flags.BoolVar(&list, "list", false, "list the scenarios")
	if err := flags.Parse(args); err != nil {
		return nil, "", false, err
	}
	if flags.NArg() > 0 {
		return nil, "", false, fmt.Errorf("unexpected %q; see -h", flags.Arg(0))
	}
	if *only != "" {
		o.Only = strings.Split(*only, ",")
	}
	for _, name := range o.Only {
		if !slices.ContainsFunc(scenarios(), func(s Scenario) bool { return s.Name == name }) {
			return nil, "", false, fmt.Errorf("there is no scenario %q; see -list", name)
		}
	}
	if o.Seed == 0 {
		o.Seed = uint64(rand.Uint32()) + 1 // short enough to be typed
	}
	return o, check, list, nil
}

func checkFile(path string) error {
	h, err := ReadHistory(path)
	if err != nil {
		return err
	}
	found := Check(h, standardRules)
	for _, v := range found {
		fmt.Println(v)
	}
	if len(found) > 0 {
		return fmt.Errorf("%d violations in %d operations", len(found), h.Len())
	}
	fmt.Printf("%d operations, no violation\n", h.Len())
	return nil
}

// runAll runs the scenarios one after the other and sums up.
func runAll(ctx context.Context, o *Options) (err error) {
	if o.Binary, err = filepath.Abs(o.Binary); err != nil {
		return err
	}
	if _, err := os.Stat(o.Binary); err != nil {
		return fmt.Errorf("the server: %w (make build)", err)
	}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "wxidp-torture-"); err != nil {
			return err
		}
	}
	fmt.Printf("seed %d\n", o.Seed)
	var trials []*Trial
	failed := 0
	for _, s := range scenarios() {
		if len(o.Only) > 0 && !slices.Contains(o.Only, s.Name) {
			continue
		}
		t, err := newTrial(o, s)
		if err != nil {
			return err
		}
		trials = append(trials, t)
		t.run(ctx)
		t.print(os.Stdout)
		switch {
		case len(t.failures) > 0:
			failed++
		case !o.Keep:
			if err := os.RemoveAll(t.Folder); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			break
		}
	}
	summarize(os.Stdout, trials)
	if failed > 0 {
		return fmt.Errorf("%d of %d scenarios failed; what they left is in %s", failed, len(trials), o.Dir)
	}
	if err := ctx.Err(); err != nil {
		return errors.New("stopped before the end")
	}
	if o.Keep {
		return nil
	}
	return os.RemoveAll(o.Dir)
}

// repeat is the command that makes the same choices again.
func (t *Trial) repeat() string {
	command := fmt.Sprintf("make torture SEED=%d ONLY=%s", t.Seed, t.Scenario.Name)
	if t.Long {
		command = strings.Replace(command, "torture", "torture-long", 1)
	}
	return command
}

func (t *Trial) verdict() string {
	switch {
	case len(t.failures) > 0:
		return "FAIL"
	case t.skipped != "":
		return "SKIPPED"
	}
	return "ok"
}

// figures are the notes, and why a scenario was skipped.
func (t *Trial) figures() string {
	notes := slices.Clone(t.notes)
	if t.skipped != "" {
		notes = append(notes, t.skipped)
	}
	return strings.Join(notes, "; ")
}

// print tells of one run as soon as it has ended.
func (t *Trial) print(out *os.File) {
	fmt.Fprintf(out, "%-7s %-18s %6.1f s  %s\n", t.verdict(), t.Scenario.Name, t.took.Seconds(), t.figures())
	for _, failure := range t.failures {
		fmt.Fprintf(out, "        %s\n", failure)
	}
	if len(t.failures) > 0 {
		fmt.Fprintf(out, "        seed %d; again: %s\n        kept: %s\n", t.Seed, t.repeat(), t.Folder)
	}
}

func summarize(out *os.File, trials []*Trial) {
	var total time.Duration
	fmt.Fprintf(out, "\n| scenario | goal | result | seconds | figures |\n|---|---|---|---:|---|\n")
	for _, t := range trials {
		total += t.took
		fmt.Fprintf(out, "| %s | %s | %s | %.1f | %s |\n", t.Scenario.Name, t.Scenario.Goal, t.verdict(), t.took.Seconds(), t.figures())
	}
	fmt.Fprintf(out, "| in all | | | %.1f | |\n", total.Seconds())
}
