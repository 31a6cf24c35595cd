package accounts

import (
	"math"
	"time"
)

// spans is how many equal spans of time a window is counted in. One more is
// kept, so that an event counts for a whole window, wherever in its span it
// happened, and for a span longer at most.
const spans = 15

// window counts the events of one key.
type window struct {
	newest int64 // number of the newest span
	counts [spans + 1]uint16
}

// advance forgets what has left the window by the time of the given span.
func (w *window) advance(span int64) {
	if span-w.newest > spans {
		*w = window{newest: span}
		return
	}
	for w.newest < span {
		w.newest++
		w.counts[w.newest%(spans+1)] = 0
	}
}

func (w *window) total() int {
	n := 0
	for _, c := range w.counts {
		n += int(c)
	}
	return n
}

// below returns the span at whose beginning fewer than limit events count.
func (w *window) below(limit int) int64 {
	n := w.total()
	for span := w.newest - spans; span <= w.newest; span++ {
		if n < limit {
			return span + spans
		}
		n -= int(w.counts[span%(spans+1)])
	}
	return w.newest + spans + 1
}

// windows is a bounded table of windows. Its user locks it.
type windows struct {
	maxKeys int
	entries map[windowKey]window
}

type windowKey [16]byte

func newWindows(maxKeys int) windows {
	return windows{maxKeys: maxKeys, entries: make(map[windowKey]window)}
}

// full reports whether key has used up limit (0: none) and, where it has, at
// the beginning of which span it has not any more.
func (t *windows) full(key windowKey, limit int, span int64) (until int64, full bool) {
	w, known := t.entries[key]
	if limit <= 0 || !known {
		return 0, false
	}
	w.advance(span)
	if w.total() < limit {
		return 0, false
	}
	return w.below(limit), true
}

// add counts n events of key.
func (t *windows) add(key windowKey, n int, span int64) {
	w, known := t.entries[key]
	if !known {
		if len(t.entries) >= t.maxKeys {
			t.evict(span)
		}
		w.newest = span
	}
	w.advance(span)
	c := &w.counts[span%(spans+1)]
	*c += uint16(min(n, math.MaxUint16-int(*c)))
	t.entries[key] = w
}

// remove takes back an event that add counted in the given span, and reports
// whether it still counted.
func (t *windows) remove(key windowKey, added, span int64) bool {
	w, known := t.entries[key]
	if !known {
		return false
	}
	w.advance(span)
	c := &w.counts[added%(spans+1)]
	if span-added > spans || *c == 0 {
		return false
	}
	*c--
	t.put(key, w)
	return true
}

// removeNewest takes back n events of key, the newest ones first.
func (t *windows) removeNewest(key windowKey, n int, span int64) {
	w, known := t.entries[key]
	if !known {
		return
	}
	w.advance(span)
	for at := w.newest; at >= w.newest-spans; at-- {
		c := &w.counts[at%(spans+1)]
		taken := min(n, int(*c))
		*c -= uint16(taken)
		n -= taken
	}
	t.put(key, w)
}

// put stores what is left of a key's window.
func (t *windows) put(key windowKey, w window) {
	if w.total() == 0 {
		delete(t.entries, key)
		return
	}
	t.entries[key] = w
}

// total is how many events of key count.
func (t *windows) total(key windowKey, span int64) int {
	w := t.entries[key]
	w.advance(span)
	return w.total()
}

// evict makes room for one key. Of a sample it drops what has expired, or else
// the key with the fewest events: a flood of new keys then pushes out itself
// and not the keys that are close to their limit.
func (t *windows) evict(span int64) {
	const sample = 16
	var least windowKey
	fewest, seen, dropped := 0, 0, false
	for key, w := range t.entries {
		w.advance(span)
		n := w.total()
		if n == 0 {
			delete(t.entries, key)
			dropped = true
		} else if seen == 0 || n < fewest {
			least, fewest = key, n
		}
		if seen++; seen == sample {
			break
		}
	}
	if !dropped {
		delete(t.entries, least)
	}
}

// spanAt is the number of the span at elapsed since the start of counting. It
// begins high enough that no number is ever negative.
func spanAt(elapsed, length time.Duration) int64 { return int64(elapsed/length) + spans + 1 }
