package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Scenario is one kind of fault and what must hold under it.
type Scenario struct {
	Name string
	Goal string // in the table of docs/reliability.md
	What string
	Run  func(ctx context.Context, t *Trial) error
}

// scenarios are all of them in the order in which they run.
func scenarios() []Scenario {
	return []Scenario{
		{"kill", "G1", "kill -9 under mixed load", runKill},
		{"power", "G2", "power cuts under mixed load", runPower},
		{"fullfile", "G4", "RLIMIT_FSIZE: no file may grow", runFileSize},
		{"fulldisk", "G4", "a full file system", runFullDisk},
		{"deaddisk", "G4", "a file system that turns read-only with an error", runDeadDisk},
		{"wechat", "G6", "WeChat hangs, lies and breaks off", runWeChat},
		{"reload", "G8", "the configuration changes under load, every fifth time to nonsense", runReload},
		{"overload", "G7", "ten times the clients that use the server to capacity", runOverload},
		{"soak", "G10", "memory, descriptors and data stay flat", runSoak},
		{"clock", "G5", "the clock jumps by minutes, a day and a year", runClock},
		{"model", "G12", "the engines against a reference model, step by step", runModel},
		{"broken", "G1–G2", "servers that are wrong on purpose are caught", runBroken},
		{"pg-restart", "G3", "PostgreSQL crashes and comes back under two nodes", runDatabaseRestart},
		{"pg-faults", "G3", "backends are killed, connections to PostgreSQL cut, slow and silent", runDatabaseFaults},
		{"pg-disk", "G4", "the file system of PostgreSQL is full", runDatabaseDisk},
		{"rolling", "G9", "nodes are restarted and killed behind a balancer", runRolling},
		{"pg-broken", "G3", "servers that are wrong on PostgreSQL are caught", runDatabaseBroken},
		{"background", "G9", "nodes are killed while keys rotate, logouts are told and expired rows deleted", runBackground},
		{"races", "G12", "codes, refresh tokens and js_codes presented several times at once at two nodes", runRaces},
		{"skew", "G5", "two nodes whose clocks differ by a minute", runSkew},
	}
}

// Options are the flags.
type Options struct {
	Binary   string
	Source   string // the folder of the module, for builds that are broken on purpose
	Dir      string
	Seed     uint64
	Long     bool
	Keep     bool
	Duration time.Duration // of the soak; 0: what the column says
	Only     []string
}

// Trial is one run of a scenario.
type Trial struct {
	*Options
	Scenario Scenario
	Folder   string // of this run
	Rand     *rand.Rand

	notes    []string
	failures []string
	skipped  string
	took     time.Duration

	powerLost bool // the present start is the one after a power cut
	cleanups  []func() error
}

// errSkipped ends a scenario that cannot run here.
var errSkipped = errors.New("skipped")

func newTrial(o *Options, s Scenario) (*Trial, error) {
	t := &Trial{Options: o, Scenario: s, Folder: filepath.Join(o.Dir, s.Name), Rand: newRand(o.Seed, streamOf(s.Name))}
	// What an earlier run left would be another history.
	return t, errors.Join(os.RemoveAll(t.Folder), os.MkdirAll(t.Folder, 0o700))
}

// streamOf gives every scenario numbers of its own, whichever others run.
func streamOf(name string) uint64 {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(name)) // never fails
	return sum.Sum64()
}

// Size chooses by the column: that of every merge, or that of a release.
func (t *Trial) Size(gate, long int) int {
	if t.Long {
		return long
	}
	return gate
}

// Note adds a figure to the summary.
func (t *Trial) Note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// Fail notes that something does not hold. The scenario goes on.
func (t *Trial) Fail(format string, args ...any) {
	t.failures = append(t.failures, fmt.Sprintf(format, args...))
}

// Skip says why the scenario cannot run here. Return what it returns.
func (t *Trial) Skip(format string, args ...any) error {
	t.skipped = fmt.Sprintf(format, args...)
	return errSkipped
}

// NewRig is NewRig with what all scenarios have in common.
func (t *Trial) NewRig(o RigOptions) (*Rig, error) {
	if o.Binary == "" {
		o.Binary = t.Binary
	}
	if o.Dir == "" {
		o.Dir = t.Folder
	}
	o.Seed = t.Seed
	return NewRig(o)
}

// cleanup has something undone at the end of the trial, whatever happens in it:
// the last first.
func (t *Trial) cleanup(undo func() error) { t.cleanups = append(t.cleanups, undo) }

// maxShown is how many violations are printed of one run.
const maxShown = 12

// Judge holds the history of a rig to the rules, and its logs to being free of
// panics.
func (t *Trial) Judge(r *Rig, rules Rules) {
	t.judged(Check(r.History, rules))
	t.judgeLogs(r)
	t.Note("%d requests", r.History.Len())
}

// judgeLogs looks for panics and data races.
func (t *Trial) judgeLogs(r *Rig) {
	for _, n := range r.Nodes {
		for _, sign := range []string{`"event":"panic"`, "DATA RACE", "fatal error:", "goroutine 1 ["} {
			if log := n.Log(); strings.Contains(log, sign) {
				i := strings.Index(log, sign)
				t.Fail("the log of %s has %s: %.600s", n.Name, sign, log[max(0, i-200):])
			}
		}
	}
}

// JudgeCensus is R8 by what a running node lists.
func (t *Trial) JudgeCensus(ctx context.Context, r *Rig, rules Rules) error {
	census, err := r.Census(ctx, r.Nodes[0])
	if err != nil {
		return err
	}
	t.judged(CheckCensus(r.History, rules, census))
	t.Note("%s", census)
	return nil
}

func (t *Trial) judged(found []Violation) {
	for i, v := range found {
		if i == maxShown {
			t.Fail("… and %d more violations", len(found)-i)
			break
		}
		t.Fail("%s", v)
	}
}

// run runs the scenario to its end.
func (t *Trial) run(ctx context.Context) {
	begin := time.Now()
	err := t.Scenario.Run(ctx, t)
	if err != nil && !errors.Is(err, errSkipped) {
		t.Fail("%v", err)
	}
	for _, clean := range slices.Backward(t.cleanups) {
		if err := clean(); err != nil {
			t.Fail("cleaning up: %v", err)
		}
	}
	t.took = time.Since(begin)
}
