package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage/postgres"
	"github.com/wxidp/wxidp/storage/postgres/pgtest"
)

// scaleOptions are the flags of "bench scale".
type scaleOptions struct {
	options
	dir      string
	engine   string
	people   int
	families int
	seed     uint64
	wave     int
	parts    []string
}

// scaleParts are what is measured, in this order.
var scaleParts = []string{"sizes", "start", "load", "list", "expiry", "backup"}

const (
	maxPeople   = 50_000_000
	maxFamilies = 50_000_000
	maxWave     = 1_000_000
)

const scaleUsage = `bench scale fills a store with many users and sign-ins and measures the server on it.

The data stays in the folder: a second run with the same -dir measures it again
without loading it. 10 000 000 users with 2 000 000 sign-ins take some 10 GB,
and as much again while they are made. PostgreSQL is started in the folder and
ended with the run.

  bin/bench scale -storage bolt -dir /var/tmp/scale-bolt
  bin/bench scale -storage postgres -dir /var/tmp/scale-pg -users 3000000 -families 600000
  bin/bench scale -storage bolt -dir /var/tmp/scale-few -users 20000 -families 20000   # to compare with
  rm -r /var/tmp/scale-*

`

func parseScaleFlags(args []string) (*scaleOptions, error) {
	flags := flag.NewFlagSet("bench scale", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), scaleUsage)
		flags.PrintDefaults()
	}
	o := &scaleOptions{options: options{warmUp: time.Second, procs: runtime.NumCPU(), patience: 30 * time.Minute}}
	flags.IntVar(&o.people, "users", 10_000_000, "users to make")
	flags.IntVar(&o.families, "families", 2_000_000, "sign-ins to make, more or less")
	flags.StringVar(&o.engine, "storage", engineBolt, "bolt or postgres")
	flags.StringVar(&o.dir, "dir", "", "folder for the data, which stays there")
	flags.StringVar(&o.binary, "wxidp", filepath.Join("bin", "wxidp"), "the server to measure")
	flags.Uint64Var(&o.seed, "seed", 1, "makes the same people again")
	flags.IntVar(&o.wave, "wave", 200_000, "sign-ins that expire at one moment")
	flags.IntVar(&o.conns, "pool", 16, "connections of the server to PostgreSQL")
	flags.StringVar(&o.profile, "profile", "", "write CPU profiles of the server into this folder; they cost the server some CPU")
	seconds := flags.Float64("seconds", 5, "length of each measurement, after a second of warm-up")
	connections := flags.String("connections", "1,8,64", "numbers of connections, with commas")
	parts := flags.String("parts", strings.Join(scaleParts, ","), "what to measure, with commas")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	o.options.seconds = time.Duration(*seconds * float64(time.Second))
	for text := range strings.SplitSeq(*connections, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxConnections {
			return nil, fmt.Errorf("-connections: want numbers from 1 to %d", maxConnections)
		}
		o.connections = append(o.connections, n)
	}
	for part := range strings.SplitSeq(*parts, ",") {
		if part != "" && !slices.Contains(scaleParts, part) {
			return nil, fmt.Errorf("-parts: there are %s", strings.Join(scaleParts, ", "))
		}
		o.parts = append(o.parts, part)
	}
	switch {
	case o.dir == "":
		return nil, errors.New("-dir: name a folder for the data")
	case o.engine != engineBolt && o.engine != enginePostgres:
		return nil, errors.New("-storage: want bolt or postgres")
	case o.people < maxConnections || o.people > maxPeople:
		return nil, fmt.Errorf("-users: want %d to %d", maxConnections, maxPeople)
	case o.families < maxConnections || o.families > maxFamilies:
		return nil, fmt.Errorf("-families: want %d to %d", maxConnections, maxFamilies)
	case o.wave < 0 || o.wave > maxWave:
		return nil, fmt.Errorf("-wave: want 0 to %d", maxWave)
	case *seconds < 0.5 || *seconds > maxSeconds:
		return nil, fmt.Errorf("-seconds: want 0.5 to %d", maxSeconds)
	case o.conns < 1 || o.conns > maxPool:
		return nil, fmt.Errorf("-pool: want 1 to %d", maxPool)
	}
	return o, nil
}

// runScale is "bench scale".
func runScale(ctx context.Context, args []string) (err error) {
	o, err := parseScaleFlags(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o711); err != nil { // PostgreSQL may run as another user
		return err
	}
	var db *database
	if o.engine == enginePostgres {
		if db, err = startKeptDatabase(o); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Stop()) }()
	}
	r := &report{out: os.Stdout, engine: o.engine}
	if err := r.machine(ctx, &o.options, o.dir, db); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(o.dir, sampleFile)); errors.Is(err, os.ErrNotExist) {
		if err := populate(ctx, o, db, r); err != nil {
			return err
		}
	}
	m := &scaleRun{o: o, db: db, report: r}
	if m.sample, err = readSample(o.dir); err != nil {
		return err
	}
	return m.measure(ctx)
}

// databaseSettings are what PostgreSQL gets beside the settings that it comes
// with: memory for a good part of the data, and room between checkpoints.
var databaseSettings = []string{
	"shared_buffers=2GB", "effective_cache_size=6GB", "max_wal_size=4GB", "checkpoint_timeout=15min", "maintenance_work_mem=256MB",
}

func startKeptDatabase(o *scaleOptions) (*database, error) {
	progress("starting PostgreSQL")
	cluster, err := pgtest.StartKept(filepath.Join(o.dir, "pg"), databaseSettings, func(ctx context.Context, dsn string) error {
		_, err := postgres.Migrate(ctx, secret.New(dsn), nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return newDatabase(cluster, o.conns), nil
}
