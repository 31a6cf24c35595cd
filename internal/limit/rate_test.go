package limit

import (
	"testing"
	"testing/synctest"
)

func TestSetRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Rate{PerMinute: 1, Burst: 1}, 100)
		allowed := func() bool { ok, _ := l.Allow("key"); return ok }
		burst := func() (n int) {
			for n < 10 && allowed() {
				n++
			}
			return n
		}
		if got := burst(); got != 1 {
			t.Fatalf("%d at once, want 1", got)
		}
		l.SetRate(Rate{PerMinute: 1, Burst: 1})
		if allowed() {
			t.Error("the same rate again forgets what was used up")
		}
		l.SetRate(Rate{PerMinute: 100, Burst: 2})
		if got := burst(); got != 2 {
			t.Errorf("%d at once after the limit was raised, want 2", got)
		}
		l.SetRate(Rate{})
		if !allowed() {
			t.Error("a lifted limit does not count at once")
		}
	})
}
