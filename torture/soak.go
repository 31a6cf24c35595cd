package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The lifetimes of the soak: so short that what is made and what is removed
// come into balance within it.
const (
	soakAccess = 5 * time.Second
	soakFamily = 20 * time.Second
	soakGrace  = 10 * time.Second
)

// soakWarmUp is how long it takes until as much expires as is made: the memory
// of Idempotency-Keys lasts a minute.
const soakWarmUp = 75 * time.Second

// runSoak is G10: memory, descriptors, goroutines and the size of the data stay
// flat, and what has expired is removed.
func runSoak(ctx context.Context, t *Trial) error {
	length := t.Duration
	if length == 0 {
		length = time.Duration(t.Size(60, 1800)) * time.Second
	}
	r, err := t.NewRig(RigOptions{Config: func(yaml string) string {
		return strings.Replace(yaml, "access_token_lifetime: 6h, refresh_grace: 60s",
			"refresh_grace: 10s, access_token_lifetime: 5s, refresh_token_idle_lifetime: 20s, refresh_token_absolute_lifetime: 20s", 1)
	}})
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // the history is checked by then
	if _, err := r.StartAll(ctx); err != nil {
		return err
	}
	rules := standardRules
	rules.Grace = soakGrace
	rules.AccessLifetime, rules.FamilyLifetime, rules.IdleLifetime = soakAccess, soakFamily, soakFamily
	var samples []resources
	requests := 0
	// Histories of a minute: one of twelve hours would not fit into memory.
	for begin := time.Now(); time.Since(begin) < soakWarmUp+length && ctx.Err() == nil && len(t.failures) == 0; {
		if requests > 0 {
			if err := r.newHistory(); err != nil {
				return err
			}
		}
		load := NewLoad(r, 6, t.Rand.Uint64())
		load.Pause = 4 * time.Millisecond
		working, stop := context.WithTimeout(ctx, min(time.Minute, soakWarmUp+length-time.Since(begin)))
		done := make(chan struct{})
		go func() { load.Run(working); close(done) }()
		for working.Err() == nil {
			pause(working, time.Second)
			now, err := r.Nodes[0].resources(ctx)
			if err != nil {
				stop()
				<-done
				return err
			}
			if time.Since(begin) > soakWarmUp {
				samples = append(samples, now)
			}
		}
		<-done
		stop()
		requests += r.History.Len()
		t.judged(Check(r.History, rules))
	}
	t.judgeLogs(r)
	t.Note("%d requests in %s", requests, (soakWarmUp + length).Round(time.Second))
	t.judgeFlat(samples)
	return t.nothingLeft(ctx, r)
}

// newHistory begins another history while nobody works.
func (r *Rig) newHistory() (err error) {
	if err := r.History.Close(); err != nil {
		return err
	}
	r.History, err = NewHistory(filepath.Join(r.Options.Dir, "history.jsonl"))
	return err
}

// judgeFlat compares the first and the last quarter of the samples.
func (t *Trial) judgeFlat(samples []resources) {
	if len(samples) < 20 {
		t.Fail("only %d samples", len(samples))
		return
	}
	quarter := len(samples) / 4
	kinds := []struct {
		name  string
		value func(resources) float64
		room  float64 // beyond which growth is a failure, as a factor
		unit  float64
	}{
		{"memory in MiB", func(s resources) float64 { return s.resident }, 1.2, 1 << 20},
		{"descriptors", func(s resources) float64 { return s.descriptors }, 1.3, 1},
		{"goroutines", func(s resources) float64 { return s.goroutines }, 1.3, 1},
		{"data in MiB", func(s resources) float64 { return s.stored }, 1.25, 1 << 20},
	}
	for _, kind := range kinds {
		var values []float64
		for _, s := range samples {
			values = append(values, kind.value(s)/kind.unit)
		}
		first, last := median(values[:quarter]), median(values[len(values)-quarter:])
		t.Note("%s %.1f, then %.1f", kind.name, first, last)
		if last > kind.room*first+2 {
			t.Fail("%s grew from %.1f to %.1f", kind.name, first, last)
		}
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// nothingLeft is R8 after everything has expired: the collector leaves nothing.
func (t *Trial) nothingLeft(ctx context.Context, r *Rig) error {
	var census Census
	var err error
	begin := time.Now()
	for time.Since(begin) < soakFamily+collectWithin && ctx.Err() == nil {
		if census, err = r.Census(ctx, r.Nodes[0]); err != nil {
			return err
		}
		if len(census.Families) == 0 {
			t.Note("everything that expired was removed")
			return nil
		}
		pause(ctx, time.Second)
	}
	t.Fail("%d families are kept %s after the last sign-in", len(census.Families), time.Since(begin).Round(time.Second))
	return ctx.Err()
}
