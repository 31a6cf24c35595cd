package main

import (
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
	fsync       time.Duration
	ceilings    ceilings // zero: not measured
	ceilingRows []ceilingRow
	rows        []row
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
func (r *report) machine(o *options, dir string) error {
	fsync, slow, err := timeSync(dir)
	if err != nil {
		return err
	}
	r.fsync = fsync
	pinned := "not pinned"
	if o.pin {
		pinned = "pinned: server on one core, load and simulator on another"
	}
	r.printf("%s · %d cores · %s · %s · server GOMAXPROCS=%d, %s · best of %d · write of 4 KiB and fdatasync: p50 %d µs, p99 %d µs\n\n",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.NumCPU(), kernel(), runtime.Version(), o.procs, pinned, o.rounds,
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
	r.printf("\n| workload | connections | requests/s | p50 ms | p99 ms | max ms | CPU µs/request | core busy | commits/request | operations/commit |\n" +
		"|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, row := range r.rows {
		r.row(row)
	}
	r.ratios()
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
	r.printf("| %s%s | %d | %.0f | %.2f | %.2f | %.2f | %s | %.0f %% | %.3f | %s |\n", row.workload.name, note, row.connections, row.perSecond(),
		millis(row.percentile(.5)), millis(row.percentile(.99)), millis(row.percentile(1)),
		micros(row.cpuPerRequest()), 100*row.cpu.Seconds()/row.elapsed.Seconds(), row.commits/float64(row.total), batch)
}

// ratios sets the server's CPU time against the ceilings and says which goals
// were met.
func (r *report) ratios() {
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

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
