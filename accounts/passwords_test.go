package accounts

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

func TestHashAndVerify(t *testing.T) {
	p := NewPasswords(PasswordOptions{})
	encoded := mustHash(t, p, canaryPassword)
	if !strings.HasPrefix(encoded, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("the hash is %q", encoded)
	}
	if err := CheckHash(encoded); err != nil {
		t.Fatal(err)
	}
	match, err := p.Verify(context.Background(), encoded, secret.New(canaryPassword))
	if err != nil || match != (Match{OK: true}) {
		t.Fatalf("the right password: %+v, %v", match, err)
	}
	match, err = p.Verify(context.Background(), encoded, secret.New(canaryPassword+" "))
	if err != nil || match != (Match{}) {
		t.Fatalf("a wrong password: %+v, %v", match, err)
	}
	if encoded == mustHash(t, p, canaryPassword) {
		t.Error("two hashes of one password are the same")
	}
	if n := p.Stats().Hashes; n != 4 {
		t.Errorf("%d hashes were computed, want 4", n)
	}
}

func TestUpgrade(t *testing.T) {
	p := quickPasswords(PasswordOptions{})
	for _, c := range []struct {
		name   string
		params argon2Params
		want   bool
	}{
		{"the same", quickParams, false},
		{"more memory", argon2Params{memory: 128, passes: 1, lanes: 1}, false},
		{"more passes", argon2Params{memory: 64, passes: 3, lanes: 1}, false},
		{"less memory, more passes", argon2Params{memory: 32, passes: 3, lanes: 1}, true},
	} {
		other := NewPasswords(PasswordOptions{})
		other.setParams(c.params)
		match, err := p.Verify(context.Background(), mustHash(t, other, "pw"), secret.New("pw"))
		if err != nil || match != (Match{OK: true, Upgrade: c.want}) {
			t.Errorf("%s: %+v, %v", c.name, match, err)
		}
	}
}

// What cannot be checked costs a hash of our own and never matches.
func TestUnusableHash(t *testing.T) {
	p := quickPasswords(PasswordOptions{})
	var done []hash
	p.work = func(h hash, password []byte) ([]byte, bool) {
		done = append(done, h)
		return nil, true // even if the dummy's key were hit
	}
	for _, encoded := range []string{"", "x", "$2a$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"} {
		match, err := p.Verify(context.Background(), encoded, secret.New("pw"))
		if err != nil || match != (Match{Unusable: true}) {
			t.Errorf("%q: %+v, %v", encoded, match, err)
		}
	}
	for _, h := range done {
		if h.argon2Params != quickParams || h.algorithm != algArgon2id {
			t.Errorf("the work was that of %+v", h.argon2Params)
		}
	}
	if len(done) != 3 {
		t.Errorf("%d hashes were computed, want 3", len(done))
	}
}

func TestThreat54PasswordLength(t *testing.T) {
	p := quickPasswords(PasswordOptions{})
	p.work = func(hash, []byte) ([]byte, bool) { t.Error("hashed"); return nil, false }
	for _, c := range []struct{ password, reason string }{
		{"", "too_short"},
		{strings.Repeat("x", MaxPassword+1), "too_long"},
		{strings.Repeat("密", 43), "too_long"}, // 129 bytes
		{strings.Repeat("x", 1<<20), "too_long"},
	} {
		_, verifyErr := p.Verify(context.Background(), "", secret.New(c.password))
		_, hashErr := p.Hash(context.Background(), secret.New(c.password))
		for _, err := range []error{verifyErr, hashErr} {
			if e := asError(t, err, InvalidInput); e.Param != "password" || e.Reason != c.reason {
				t.Errorf("%d bytes: %v", len(c.password), e)
			}
		}
	}
	p.work = work
	mustHash(t, p, strings.Repeat("x", MaxPassword))
	if n := p.Stats().Hashes; n != 1 {
		t.Errorf("%d hashes, want 1", n)
	}
}

// Of 300 passwords at once, as many are hashed as there are slots, as many
// wait as the queue takes, and the rest is refused at once.
func TestThreat54HashExhaustion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slots, queue, callers = 2, 10, 300
		const each = 42 * time.Millisecond
		p := quickPasswords(PasswordOptions{Slots: slots, Queue: queue})
		var running, most atomic.Int64
		p.work = func(hash, []byte) ([]byte, bool) {
			n := running.Add(1)
			for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
			}
			time.Sleep(each)
			running.Add(-1)
			return nil, true
		}
		encoded := encodePHC(quickParams, make([]byte, 16), make([]byte, 32))
		var done, busy atomic.Int64
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				start := time.Now()
				_, err := p.Verify(context.Background(), encoded, secret.New("pw"))
				if err == nil {
					done.Add(1)
					return
				}
				busy.Add(1)
				if e := asError(t, err, Busy); e.RetryAfter <= 0 {
					t.Error("no RetryAfter")
				}
				if waited := time.Since(start); waited != 0 {
					t.Errorf("refused after %v", waited)
				}
			})
		}
		took := elapsed(wg.Wait)
		if done.Load() != slots+queue || busy.Load() != callers-slots-queue {
			t.Errorf("%d were checked and %d refused", done.Load(), busy.Load())
		}
		if most.Load() != slots {
			t.Errorf("%d hashes ran at once, want %d", most.Load(), slots)
		}
		if want := each * (slots + queue) / slots; took != want {
			t.Errorf("took %v, want %v", took, want)
		}
		if s := p.Stats(); s != (PasswordStats{Hashes: slots + queue, Refused: callers - slots - queue}) {
			t.Errorf("stats are %+v", s)
		}
	})
}

// Imported hashes that need much memory are computed one at a time. Few wait
// for that, and nobody else does, even where there is one slot only.
func TestThreat54HeavyHashes(t *testing.T) {
	for _, slots := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			p := quickPasswords(PasswordOptions{Slots: slots, Queue: 1})
			unblock := make(chan struct{})
			var heavy atomic.Int64
			p.work = func(h hash, _ []byte) ([]byte, bool) {
				if h.memory <= quickParams.memory {
					time.Sleep(42 * time.Millisecond)
					return nil, true
				}
				if heavy.Add(1) > 1 {
					t.Error("two heavy hashes at once")
				}
				<-unblock
				heavy.Add(-1)
				return nil, true
			}
			verify := func(memory uint32) error {
				encoded := encodePHC(argon2Params{memory: memory, passes: 1, lanes: 1}, make([]byte, 16), make([]byte, 32))
				_, err := p.Verify(context.Background(), encoded, secret.New("pw"))
				return err
			}
			var wg sync.WaitGroup
			for range 1 + heavyQueue {
				wg.Go(func() {
					if err := verify(maxArgon2Memory); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			took := elapsed(func() {
				if e := asError(t, verify(maxArgon2Memory), Busy); e.RetryAfter <= 0 {
					t.Errorf("%+v", e)
				}
			})
			if took != 0 {
				t.Errorf("one too many was refused after %v", took)
			}
			// All slots and the queue are there for the others.
			took = elapsed(func() {
				var others sync.WaitGroup
				for range slots + 1 {
					others.Go(func() {
						if err := verify(quickParams.memory); err != nil {
							t.Error(err)
						}
					})
				}
				others.Wait()
			})
			if took != 2*42*time.Millisecond {
				t.Errorf("with %d slots, others took %v", slots, took)
			}
			if s := p.Stats(); s.Pending != 1+heavyQueue || s.Refused != 1 {
				t.Errorf("stats are %+v", s)
			}
			close(unblock)
			wg.Wait()
			if s := p.Stats(); s != (PasswordStats{Hashes: uint64(slots + 2 + heavyQueue), Refused: 1}) {
				t.Errorf("at the end, stats are %+v", s)
			}
		})
	}
}

func TestVerifyGivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := quickPasswords(PasswordOptions{Slots: 1, Queue: 5})
		block := make(chan struct{})
		p.work = func(hash, []byte) ([]byte, bool) { <-block; return nil, true }
		go func() { _, _ = p.Hash(context.Background(), secret.New("pw")) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := p.Verify(ctx, "", secret.New("pw")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if n := p.Stats().Pending; n != 1 {
			t.Errorf("%d are pending, want the one that hashes", n)
		}
		close(block)
		synctest.Wait()
		if _, err := p.Verify(ctx, "", secret.New("pw")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a context that has ended: %v", err)
		}
		if s := p.Stats(); s.Pending != 0 || s.Hashes != 1 {
			t.Errorf("stats are %+v", s)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	p := NewPasswords(PasswordOptions{})
	encoded := mustHash(b, p, "pw")
	for b.Loop() {
		if _, err := p.Verify(context.Background(), encoded, secret.New("pw")); err != nil {
			b.Fatal(err)
		}
	}
}
