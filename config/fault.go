package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxPrintedFaults bounds the text of [Faults.Error].
const maxPrintedFaults = 100

// Fault is one thing that is wrong. It never holds a value of the file.
type Fault struct {
	File    string // the config file as it was named, or "environment"
	Line    int    // from 1; 0 where no line is to blame
	Path    string // the key, such as clients[0].redirect_uris[1], or the environment variable
	Problem string // what is wrong
	Fix     string // what would be right; may be empty
}

// String prints the fault on one line: file:line: key: problem; fix.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	b.WriteString(": ")
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Problem)
	if f.Fix != "" {
		b.WriteString("; " + f.Fix)
	}
	return b.String()
}

// Faults is everything that is wrong with a configuration, in the order of
// the file.
type Faults []Fault

// Error prints one fault per line, the first hundred of them.
func (fs Faults) Error() string {
	var b strings.Builder
	for i, f := range fs {
		if i == maxPrintedFaults {
			fmt.Fprintf(&b, "\n… and %d more", len(fs)-i)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(f.String())
	}
	return b.String()
}

// report collects faults and knows which line, or which environment variable,
// a key came from.
type report struct {
	file   string            // the config file as it was named
	lines  map[string]int    // line of each key in the file
	env    map[string]string // variable that set a key
	bad    map[string]bool   // keys whose value could not be read
	faults Faults
}

// add reports a fault of the key at path. A fault of something whose value
// could not even be read only repeats that one, and is dropped.
func (r *report) add(path, problem, fix string) {
	for p := path; p != ""; p = parent(p) {
		if r.bad[p] {
			return
		}
	}
	if name, ok := r.env[path]; ok {
		r.addEnv(name, problem, fix)
		return
	}
	r.addLine(r.line(path), path, problem, fix)
}

func (r *report) addLine(line int, path, problem, fix string) {
	r.faults = append(r.faults, Fault{File: r.file, Line: line, Path: path, Problem: problem, Fix: fix})
}

func (r *report) addEnv(name, problem, fix string) {
	r.faults = append(r.faults, Fault{File: "environment", Path: name, Problem: problem, Fix: fix})
}

// addUnread reports a value that could not be read, and keeps it from being
// blamed for anything else.
func (r *report) addUnread(line int, path, problem, fix string) {
	r.addLine(line, path, problem, fix)
	r.bad[path] = true
}

// line is the line of the key at path, or of the closest key that holds it.
func (r *report) line(path string) int {
	for p := path; p != ""; p = parent(p) {
		if line, ok := r.lines[p]; ok {
			return line
		}
	}
	return 0
}

// has reports whether the file gives a value for the key at path.
func (r *report) has(path string) bool {
	_, ok := r.lines[path]
	return ok
}

// err returns what was reported, sorted, or nil.
func (r *report) err() error {
	if len(r.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(r.faults, func(a, b Fault) int {
		if a.File != b.File { // the file first, then the environment
			if a.File == r.file {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Line, b.Line)
	})
	return r.faults
}

// parent cuts the last element of a path: a.b[1] is in a.b, which is in a.
func parent(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

func item(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
