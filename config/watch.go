package config

import (
	"context"
	"os"
	"sync"
	"time"
)

const (
	defaultInterval = 200 * time.Millisecond
	maxInterval     = time.Second
)

// Watcher notices changes of the config file and of the files it names, and
// hands out what can be applied. The last good configuration stays until a
// better one comes.
//
// It polls, by size, times and content. A change is judged once it was the
// same at two polls in a row, so that a file is not taken while it is written
// in place; bad content is reported once.
//
// Set the fields before the first call. The callbacks run one at a time and
// must call neither Reload nor Run.
type Watcher struct {
	Loaded   *Loaded                  // what is in force at the start
	OnReload func(next *Config) error // puts next in force, or says why not
	OnReject func(err error)          // [Faults], *[RestartError] or OnReload's; what was in force stays
	Interval time.Duration            // between polls: at most 1s; 0 stands for 200ms

	mu      sync.Mutex
	current *Loaded
	judged  map[string]fileState // files of the last judgement, good or bad
	pending map[string]fileState // seen at the last poll, different from judged
}

// Run polls until ctx ends and returns its error.
func (w *Watcher) Run(ctx context.Context) error {
	interval := w.Interval
	if interval <= 0 {
		interval = defaultInterval
	}
	ticker := time.NewTicker(min(interval, maxInterval))
	defer ticker.Stop()
	for {
		w.poll()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// Reload loads at once, changed or not, as an operator's signal asks. It
// reports through the callbacks and returns what OnReject was told.
func (w *Watcher) Reload() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin()
	return w.judge()
}

func (w *Watcher) poll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin()
	now := look(w.judged)
	switch {
	case sameStates(now, w.judged):
		w.judged, w.pending = now, nil
	case w.pending == nil || !sameStates(now, w.pending):
		w.pending = now
	default:
		_ = w.judge() // told to OnReject
	}
}

func (w *Watcher) begin() {
	if w.current == nil {
		w.current, w.judged = w.Loaded, w.Loaded.origin().states
	}
}

func (w *Watcher) judge() error {
	w.pending = nil
	next, states, err := load(w.current.Path, w.current.origin().env)
	if err == nil {
		if keys := w.current.Config.RestartDiff(next.Config); len(keys) > 0 {
			err = &RestartError{Keys: keys}
		}
	}
	if err != nil {
		// What a bad file does not get to name is still watched, as a change
		// of it matters again once the file is good.
		w.judged = look(w.current.origin().states)
		for path, state := range states {
			w.judged[path] = state
		}
		if w.OnReject != nil {
			w.OnReject(err)
		}
		return err
	}
	w.judged = states
	if w.OnReload != nil {
		if err := w.OnReload(next.Config); err != nil {
			if w.OnReject != nil {
				w.OnReject(err)
			}
			return err
		}
	}
	w.current = next
	return nil
}

// look returns the present state of the files in before, without reading
// those that surely did not change.
func look(before map[string]fileState) map[string]fileState {
	now := make(map[string]fileState, len(before))
	for path, state := range before {
		now[path] = lookAt(path, state)
	}
	return now
}

func lookAt(path string, before fileState) fileState {
	info, err := os.Stat(path)
	if err != nil {
		return fileState{absent: true, limit: before.limit}
	}
	if before.untouched(info) {
		return before
	}
	_, state, _ := readFile(path, before.limit)
	return state
}

func sameStates(a, b map[string]fileState) bool {
	if len(a) != len(b) {
		return false
	}
	for path, state := range a {
		if other, ok := b[path]; !ok || !state.same(other) {
			return false
		}
	}
	return true
}
