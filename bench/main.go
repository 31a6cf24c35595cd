// Command bench measures wxidp from outside: it starts the server and the
// WeChat simulator as processes of their own, loads the server over loopback,
// checks every answer, and sets the server's CPU time per request against what
// the same core needs for the parts that no server can leave out.
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
)

// options are the flags.
type options struct {
	seconds     time.Duration
	warmUp      time.Duration
	connections []int
	workloads   []string
	users       int
	binary      string
	dir         string
	profile     string
	procs       int
	rounds      int
	pin         bool
	ceilings    bool
}

// Bounds of one invocation, so that a slip of the finger stays harmless.
const (
	maxSeconds     = 60
	maxConnections = 200 // wxidp lets no more calls to WeChat run at once
	maxUsers       = 100_000
	maxRounds      = 10
)

func main() {
	os.Exit(run())
}

func run() int {
	if len(os.Args) > 2 && os.Args[1] == "-child" {
		return exitCode(runChild(os.Args[2], os.Args[3:]))
	}
	opts, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return exitCode(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
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
	connections := flags.String("connections", "1,16,64", "numbers of connections, with commas")
	workloads := flags.String("workloads", strings.Join(names, ","), "what to measure, with commas")
	o := &options{warmUp: time.Second}
	flags.IntVar(&o.users, "users", 10_000, "users who signed in before the measurements")
	flags.StringVar(&o.binary, "wxidp", filepath.Join("bin", "wxidp"), "the server to measure")
	flags.StringVar(&o.dir, "dir", "", "folder for the data of the run; default: the system's for temporary files")
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
	slices.Sort(o.connections) // the ceilings that count are those of the most
	switch {
	case *seconds < 0.5 || *seconds > maxSeconds:
		return nil, fmt.Errorf("-seconds: want 0.5 to %d", maxSeconds)
	case o.users < maxConnections || o.users > maxUsers:
		return nil, fmt.Errorf("-users: want %d to %d", maxConnections, maxUsers)
	case o.procs < 1:
		return nil, errors.New("-procs: want at least 1")
	case o.rounds < 1 || o.rounds > maxRounds:
		return nil, fmt.Errorf("-rounds: want 1 to %d", maxRounds)
	}
	return o, nil
}

// measureAll runs everything and prints the report.
func measureAll(ctx context.Context, o *options) (err error) {
	o.pin = o.pin && runtime.NumCPU() >= 2
	if o.pin {
		if err := pinSelf(coreOfLoad); err != nil {
			return fmt.Errorf("pinning: %w (use -pin=false)", err)
		}
		runtime.GOMAXPROCS(1)
	}
	dir, err := os.MkdirTemp(o.dir, "wxidp-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	r := &report{out: os.Stdout}
	if err := r.machine(o, dir); err != nil {
		return err
	}
	s, err := startServer(ctx, o, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	progress("signing in %d users", o.users)
	if err := s.seed(ctx, o.users); err != nil {
		return fmt.Errorf("signing in: %w", err)
	}
	for range o.rounds {
		if err := measureRound(ctx, o, s, r); err != nil {
			return err
		}
	}
	r.print()
	return nil
}

// measureRound measures everything once.
func measureRound(ctx context.Context, o *options, s *server, r *report) error {
	if o.ceilings {
		if err := measureCeilings(ctx, o, s, r); err != nil {
			return err
		}
	}
	for _, w := range allWorkloads {
		if !slices.Contains(o.workloads, w.name) {
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
