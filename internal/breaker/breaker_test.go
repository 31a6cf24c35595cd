package breaker

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

var (
	errDown     = errors.New("down")
	errCanceled = errors.New("canceled")
)

func TestOpensProbesAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var states []string
		b := New(Options{
			Failed:   func(err error) bool { return errors.Is(err, errDown) },
			Excluded: func(err error) bool { return errors.Is(err, errCanceled) },
			Changed: func(level slog.Level, state string) {
				states = append(states, level.String()+" "+state)
			},
		})
		calls := 0
		run := func(err error) (bool, time.Duration) {
			return b.Run(func() error { calls++; return err })
		}
		// Answers given on purpose are successes, and who gave up says nothing.
		for range MinCalls {
			run(errors.New("refused on purpose"))
			run(errCanceled)
		}
		time.Sleep(Window + time.Second)
		for range MinCalls {
			if refused, _ := run(errDown); refused {
				t.Fatal("opened too early")
			}
		}
		before := calls
		refused, wait := run(nil)
		if !refused || calls != before || wait <= 0 || wait > Probe {
			t.Fatalf("open: refused %v, wait %v, %d calls more", refused, wait, calls-before)
		}
		time.Sleep(Probe + time.Millisecond)
		if refused, _ := run(errDown); refused {
			t.Fatal("no probe was let through")
		}
		if refused, _ := run(nil); !refused {
			t.Fatal("a failed probe closed the breaker")
		}
		time.Sleep(Probe + time.Millisecond)
		run(nil)
		if refused, _ := run(nil); refused {
			t.Fatal("a good probe did not close the breaker")
		}
		if states[0] != "ERROR open" || states[len(states)-1] != "INFO closed" {
			t.Errorf("states: %q", states)
		}
	})
}

func TestOneProbeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Options{
			Failed: func(error) bool { return true }, Excluded: func(error) bool { return false },
			Changed: func(slog.Level, string) {},
		})
		for range MinCalls {
			b.Run(func() error { return errDown })
		}
		time.Sleep(Probe + time.Millisecond)
		b.Run(func() error {
			if refused, wait := b.Run(func() error { return nil }); !refused || wait != 0 {
				t.Errorf("beside a probe: refused %v, wait %v", refused, wait)
			}
			return nil
		})
	})
}
