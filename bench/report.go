package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report collects measurements and prints them as Markdown. Of several rounds
// it keeps the one with the least CPU time.
type report struct {
	out         io.Writer
	engine      string
	fsync       time.Duration
	ceilings    ceilings // zero: not measured
	ceilingRows []ceilingRow
	rows        []row
	duels       []duelRow
	mostMemory  int64
}

type ceilingRow struct {
	title  string
	atOnce int
	measured
}

type row struct {
	workload    workload
	connections int
	*result
}

func (r *report) printf(format string, args ...any) { fmt.Fprintf(r.out, format, args...) }

// machine says where the measurement was made.
func (r *report) machine(ctx context.Context, o *options, dir string, db *database) error {
	fsync, slow, err := timeSync(dir)
	if err != nil {
		return err
	}
	r.fsync = fsync
	pinned := "not pinned"
	if o.pin {
		pinned = "pinned: server on one core, load and simulator on another"
	}
	store := "bbolt"
	if db != nil {
		if store, err = db.version(ctx); err != nil {
			return err
		}
		store += fmt.Sprintf(" · %d connections to it", o.conns)
	}
	r.printf("\n## Storage: %s\n\n%s · %s · %d cores · %s · %s · server GOMAXPROCS=%d, %s · best of %d · write of 4 KiB and fdatasync: p50 %d µs, p99 %d µs\n\n",
		r.engine, store, time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.NumCPU(), kernel(), runtime.Version(), o.procs, pinned, o.rounds,
		fsync.Microseconds(), slow.Microseconds())
	return nil
}

// timeSync measures how long the disk under dir takes to make a page durable.
func timeSync(dir string) (p50, p99 time.Duration, err error) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	page := make([]byte, 4<<10)
	taken := make([]time.Duration, 500)
	for i := range taken {
		page[0] = byte(i)
		begin := time.Now()
		if _, err := f.WriteAt(page, int64(i%16)<<12); err != nil {
			return 0, 0, err
		}
		if err := syncFile(f); err != nil {
			return 0, 0, err
		}
		taken[i] = time.Since(begin)
	}
	slices.Sort(taken)
	return taken[len(taken)/2], taken[len(taken)*99/100], nil
}

func (r *report) ceiling(title string, atOnce int, m measured) {
	for i, row := range r.ceilingRows {
		if row.title == title && row.atOnce == atOnce {
			if m.cpuEach() < row.cpuEach() {
				r.ceilingRows[i].measured = m
			}
			return
		}
	}
	r.ceilingRows = append(r.ceilingRows, ceilingRow{title, atOnce, m})
}

func (r *report) workload(w workload, connections int, m *result) {
	for i, row := range r.rows {
		if row.workload.name == w.name && row.connections == connections {
			if m.cpuPerRequest() < row.cpuPerRequest() {
				r.rows[i].result = m
			}
			return
		}
	}
	r.rows = append(r.rows, row{w, connections, m})
}

// print writes all tables.
func (r *report) print() {
	if len(r.ceilingRows) > 0 {
		r.printf("| ceiling | at once | per second | CPU µs each |\n|---|---:|---:|---:|\n")
	}
	for _, row := range r.ceilingRows {
		title := row.title
		if row.Commits > 0 {
			title += fmt.Sprintf(" (%.1f per commit)", float64(row.Count)/float64(row.Commits))
		}
		r.printf("| %s | %d | %.0f | %s |\n", title, row.atOnce, row.perSecond(), micros(row.cpuEach()))
	}
	r.workloads()
	r.ratios()
	r.turns()
	for _, row := range r.rows {
		r.mostMemory = max(r.mostMemory, row.mostMemory)
	}
	r.printf("\nThe most memory that the server ever had: %s MiB\n", mebibytes(r.mostMemory))
}

// workloads writes the table of what was measured.
func (r *report) workloads() {
	r.printf("\n| workload | connections | requests/s | p50 ms | p99 ms | max ms | CPU µs/request | PostgreSQL's | cores busy | memory MiB | commits/request | operations/commit |\n" +
		"|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, row := range r.rows {
		r.row(row)
	}
}

// turns sets wxidp against the bare server. A rate is the median of the rounds.
func (r *report) turns() {
	if len(r.duels) == 0 {
		return
	}
	r.printf("\n| workload | connections | wxidp/s | bare server/s | wxidp ÷ bare | in the rounds | wanted | CPU µs, server + PostgreSQL | of the bare server |\n" +
		"|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, row := range r.duels {
		var ratios []float64
		for i := range row.bare {
			ratios = append(ratios, row.wxidp[i].perSecond()/row.bare[i].perSecond())
		}
		wanted := ""
		if row.duel.goal > 0 && row.connections == 64 {
			wanted = fmt.Sprintf("≥ %.1f", row.duel.goal)
		}
		wxidp, bare := median(row.wxidp), median(row.bare)
		r.printf("| %s | %d | %.0f | %.0f | %.2f | %.2f – %.2f | %s | %s + %s | %s + %s |\n", row.duel.workload, row.connections,
			wxidp.perSecond(), bare.perSecond(), wxidp.perSecond()/bare.perSecond(), slices.Min(ratios), slices.Max(ratios), wanted,
			micros(wxidp.cpuPerRequest()), micros(wxidp.databasePerRequest()), micros(bare.cpuPerRequest()), micros(bare.databasePerRequest()))
	}
	r.printf("\nThe bare server does, for")
	for i, d := range allDuels {
		r.printf("%s %s: %s", []string{"", ";"}[min(i, 1)], d.workload, d.what)
	}
	r.printf(".\n")
}

// median returns the result whose rate is the one in the middle.
func median(results []*result) *result {
	sorted := slices.SortedFunc(slices.Values(results), func(a, b *result) int { return cmp.Compare(a.perSecond(), b.perSecond()) })
	return sorted[len(sorted)/2]
}

func (r *report) row(row row) {
	batch := "–"
	if row.commits > 0 {
		batch = fmt.Sprintf("%.1f", row.operations/row.commits)
	}
	note := ""
	if row.exhausted {
		note = " (ended early: no more codes)"
	}
	r.printf("| %s%s | %d | %.0f | %.2f | %.2f | %.2f | %s | %s | %.0f %% | %s | %.3f | %s |\n", row.workload.name, note, row.connections, row.perSecond(),
		millis(row.percentile(.5)), millis(row.percentile(.99)), millis(row.percentile(1)),
		micros(row.cpuPerRequest()), micros(row.databasePerRequest()), 100*(row.cpu+row.database).Seconds()/row.elapsed.Seconds(),
		mebibytes(row.memory), row.commits/float64(row.total), batch)
}

// ratios sets the server's CPU time against the ceilings and says which goals
// were met.
func (r *report) ratios() {
	if r.engine == enginePostgres {
		return
	}
	r.printf("\n| what | measured | wanted |\n|---|---:|---:|\n")
	for _, row := range r.rows {
		name := fmt.Sprintf("%s, %d connections", row.workload.name, row.connections)
		if row.connections > 1 && r.ceilings != (ceilings{}) && row.cpu > 0 {
			floor := row.workload.floor(&r.ceilings)
			wanted := ""
			if row.workload.goal > 0 && row.connections == 64 {
				wanted = fmt.Sprintf("≤ %.1f", row.workload.goal)
			}
			r.printf("| %s: CPU ÷ (%s = %s µs) | %.2f | %s |\n", name, row.workload.what, micros(floor),
				float64(row.cpuPerRequest())/float64(floor), wanted)
		}
		if row.connections > 1 && r.ceilings != (ceilings{}) && row.cpu > 0 && row.workload.inPlace != nil {
			floor := row.workload.inPlace(&r.ceilings)
			r.printf("| %s: CPU ÷ (%s = %s µs) | %.2f | |\n", name, row.workload.inPlaceWhat, micros(floor),
				float64(row.cpuPerRequest())/float64(floor))
		}
		if row.connections == 64 {
			r.printf("| %s: p99 ÷ p50 | %.1f | ≤ 3 |\n", name, float64(row.percentile(.99))/float64(row.percentile(.5)))
		}
		if row.connections == 1 {
			r.printf("| %s: commits per request | %.3f | %s |\n", name, row.commits/float64(row.total),
				strings.TrimSuffix(fmt.Sprintf("%.1f", row.workload.commits), ".0"))
			if row.workload.commits > 0 {
				r.printf("| %s: p50 − p50 of fdatasync, ms | %.2f | ≤ 1 |\n", name, millis(row.percentile(.5)-r.fsync))
			}
		}
	}
}

func micros(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f", float64(d)/float64(time.Microsecond))
}

func mebibytes(n int64) string {
	if n == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f", float64(n)/(1<<20))
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
