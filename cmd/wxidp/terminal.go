package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
)

// printable returns what people have entered with everything escaped that a
// terminal would obey: control characters, and those that turn the direction
// of text around.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
	}
	return b.String()
}

// orDash is what a table shows of a value that may be missing.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s)
}

// progress says how far a long work is: in one line that changes on a terminal,
// in a line every ten seconds elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	every    time.Duration
	last     time.Time
	shown    bool
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, terminal: isTerminal(w), every: 10 * time.Second, last: time.Now()}
	if p.terminal {
		p.every, p.last = 200*time.Millisecond, time.Time{}
	}
	return p
}

// show prints the text of format if it is time to.
func (p *progress) show(format string, args ...any) {
	now := time.Now()
	if now.Sub(p.last) < p.every {
		return
	}
	p.last = now
	text := fmt.Sprintf(format, args...)
	if !p.terminal {
		fmt.Fprintln(p.w, text)
		return
	}
	p.shown = true
	fmt.Fprint(p.w, "\r\x1b[K"+text)
}

// clear removes the line from a terminal, so that something else can be
// printed.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown, p.last = false, time.Time{}
	}
}

// bytesText writes a size for people.
func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}
