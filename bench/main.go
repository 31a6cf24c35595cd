// Command bench measures wxidp from outside: it starts the server and the
// WeChat simulator as processes of their own, loads the server over loopback,
// checks every answer, and sets the server's CPU time per request against what
// the same core needs for the parts that no server can leave out. On PostgreSQL
// it sets refreshes against a bare server that makes as many signatures and
// commits.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wxidp/wxidp/storage/postgres/pgtest"
)

// options are the flags.
type options struct {
	seconds     time.Duration
	warmUp      time.Duration
	connections []int
	workloads   []string
	users       int
	conns       int
	binary      string
	dir         string
	storage     []string
	profile     string
	procs       int
	rounds      int
	pin         bool
	ceilings    bool
	patience    time.Duration // how long the server may take to start
}

// Bounds of one invocation, so that a slip of the finger stays harmless.
const (
	maxSeconds     = 60
	maxConnections = 200 // wxidp lets no more calls to WeChat run at once
	maxUsers       = 100_000
	maxRounds      = 10
	maxPool        = 80 // PostgreSQL comes with room for 100
)

func main() {
	os.Exit(run())
}

func run() int {
	if len(os.Args) > 2 && os.Args[1] == "-child" {
		return exitCode(runChild(os.Args[2], os.Args[3:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "scale" {
		return exitCode(runScale(ctx, os.Args[2:]))
	}
	opts, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return exitCode(err)
	}
	return exitCode(measureAll(ctx, opts))
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1
}

func parseFlags(args []string) (*options, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	names := make([]string, len(allWorkloads))
	for i, w := range allWorkloads {
		names[i] = w.name
	}
	seconds := flags.Float64("seconds", 4, "length of each measurement, after a second of warm-up")
	connections := flags.String("connections", "1,8,64", "numbers of connections, with commas")
	workloads := flags.String("workloads", strings.Join(names, ","), "what to measure, with commas")
	o := &options{warmUp: time.Second, patience: 20 * time.Second}
	flags.IntVar(&o.users, "users", 10_000, "users who signed in before the measurements")
	flags.StringVar(&o.binary, "wxidp", filepath.Join("bin", "wxidp"), "the server to measure")
	flags.StringVar(&o.dir, "dir", "", "folder for the data of the run; default: the system's for temporary files")
	storage := flags.String("storage", "both", "the server's storage: bolt, postgres, or both, one after the other.\n"+
		"postgres starts a PostgreSQL of its own with the settings that it comes with, and ends it; nothing\n"+
		"is pinned then, and a bare server with the same two signatures and one commit of one row on the\n"+
		"same PostgreSQL takes turns with the refreshes")
	flags.IntVar(&o.conns, "pool", 16, "connections to PostgreSQL, of the server and of the bare one")
	flags.StringVar(&o.profile, "profile", "", "write CPU profiles of the server into this folder; they cost the server some CPU")
	flags.IntVar(&o.procs, "procs", 1, "GOMAXPROCS of the server")
	flags.IntVar(&o.rounds, "rounds", 1, "measure everything so often and keep of each number the round with the least CPU time: other work on the machine only ever adds to it")
	flags.BoolVar(&o.pin, "pin", true, "server on the first core, all else on the second")
	flags.BoolVar(&o.ceilings, "ceilings", true, "measure the ceilings too")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	o.seconds = time.Duration(*seconds * float64(time.Second))
	for part := range strings.SplitSeq(*connections, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 || n > maxConnections {
			return nil, fmt.Errorf("-connections: want numbers from 1 to %d", maxConnections)
		}
		o.connections = append(o.connections, n)
	}
	for part := range strings.SplitSeq(*workloads, ",") {
		if !slices.Contains(names, part) {
			return nil, fmt.Errorf("-workloads: there are %s", strings.Join(names, ", "))
		}
		o.workloads = append(o.workloads, part)
	}
	switch *storage {
	case engineBolt, enginePostgres:
		o.storage = []string{*storage}
	case "both":
		o.storage = []string{engineBolt, enginePostgres}
	default:
		return nil, errors.New("-storage: want bolt, postgres or both")
	}
	slices.Sort(o.connections) // the ceilings that count are those of the most
	switch {
	case *seconds < 0.5 || *seconds > maxSeconds:
		return nil, fmt.Errorf("-seconds: want 0.5 to %d", maxSeconds)
	case o.users < maxConnections || o.users > maxUsers:
		return nil, fmt.Errorf("-users: want %d to %d", maxConnections, maxUsers)
	case o.conns < 1 || o.conns > maxPool:
		return nil, fmt.Errorf("-pool: want 1 to %d", maxPool)
	case o.procs < 1:
		return nil, errors.New("-procs: want at least 1")
	case o.rounds < 1 || o.rounds > maxRounds:
		return nil, fmt.Errorf("-rounds: want 1 to %d", maxRounds)
	}
	return o, nil
}

// measureAll measures one storage after the other.
func measureAll(ctx context.Context, o *options) error {
	for _, engine := range o.storage {
		each := *o
		each.pin = o.pin && runtime.NumCPU() >= 2 && engine == engineBolt
		if engine == enginePostgres { // three programs, of which none has a core of its own
			each.procs = runtime.NumCPU()
		}
		err := measureStorage(ctx, &each, engine)
		if errors.Is(err, pgtest.ErrMissing) {
			fmt.Printf("\nSKIPPED: %v: nothing was measured on it\n", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// measureStorage runs everything on one storage and prints the report.
func measureStorage(ctx context.Context, o *options, engine string) (err error) {
	if o.pin {
		undo, err := pinSelf(coreOfLoad)
		if err != nil {
			return fmt.Errorf("pinning: %w (use -pin=false)", err)
		}
		defer undo()
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	dir, err := os.MkdirTemp(o.dir, "wxidp-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	var db *database
	if engine == enginePostgres {
		if db, err = startDatabase(ctx, o.dir, o.conns); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Stop()) }()
	}
	r := &report{out: os.Stdout, engine: engine}
	if err := r.machine(ctx, o, dir, db); err != nil {
		return err
	}
	s, err := startServer(ctx, o, dir, db)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	progress("%s: signing in %d users", engine, o.users)
	if err := s.seed(ctx, o.users); err != nil {
		return fmt.Errorf("signing in: %w", err)
	}
	for range o.rounds {
		if err := measureRound(ctx, o, s, r); err != nil {
			return err
		}
	}
	if db != nil {
		if err := measureDuels(ctx, o, s, r); err != nil {
			return err
		}
	}
	r.print()
	return nil
}

// measureRound measures everything once.
func measureRound(ctx context.Context, o *options, s *server, r *report) error {
	if o.ceilings && s.db == nil {
		if err := measureCeilings(ctx, o, s, r); err != nil {
			return err
		}
	}
	for _, w := range allWorkloads {
		duels := s.db != nil && slices.ContainsFunc(allDuels, func(d duel) bool { return d.workload == w.name })
		if !slices.Contains(o.workloads, w.name) || duels {
			continue
		}
		for _, connections := range o.connections {
			result, err := s.measure(ctx, w, connections)
			if err != nil {
				return fmt.Errorf("%s with %d connections: %w", w.name, connections, err)
			}
			r.workload(w, connections, result)
		}
	}
	return nil
}

// progress tells on stderr what is being done.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+" …\n", args...)
}
