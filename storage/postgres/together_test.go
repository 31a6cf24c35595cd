package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// occupied is a together whose slots are all taken, by calls that wait for
// release. Its statements settle everything that is positive.
func occupied(t *testing.T, wait time.Duration) (g *together[int, int], release func(), batches *[][]int) {
	t.Helper()
	batches = new([][]int)
	var mu sync.Mutex
	g = &together[int, int]{wait: wait, run: func(_ context.Context, batch []*call[int, int]) error {
		mu.Lock()
		defer mu.Unlock()
		var inputs []int
		for _, c := range batch {
			if inputs = append(inputs, c.in); c.in > 0 {
				c.settle(2*c.in, nil)
			}
		}
		*batches = append(*batches, inputs)
		return nil
	}}
	free := make(chan struct{})
	for range slots {
		go func() {
			if _, err := g.do(context.Background(), 0, func() (int, error) { <-free; return 0, nil }); err != nil {
				t.Error(err)
			}
		}()
	}
	synctest.Wait()
	return g, sync.OnceFunc(func() { close(free) }), batches
}

func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, release, batches := occupied(t, time.Minute)
		var alone atomic.Int32
		for i := -1; i <= 3*maxTogether; i++ {
			go func() {
				got, err := g.do(t.Context(), i, func() (int, error) { alone.Add(1); return 2 * i, nil })
				if err != nil || got != 2*i {
					t.Errorf("%d became %d, %v", i, got, err)
				}
			}()
		}
		synctest.Wait()
		if len(*batches) > 0 {
			t.Errorf("%d statements beside those under way", len(*batches))
		}
		release()
		synctest.Wait()
		total := 0
		for _, batch := range *batches {
			total += len(batch)
			if len(batch) > maxTogether {
				t.Errorf("%d together", len(batch))
			}
		}
		if total != 3*maxTogether+2 || len(*batches) != 4 || alone.Load() != 2 {
			t.Errorf("%d in %d statements, %d alone", total, len(*batches), alone.Load())
		}
		if g.running != 0 || len(g.waiting) != 0 {
			t.Errorf("%d slots are taken, %d wait", g.running, len(g.waiting))
		}
	})
}

func TestTogetherIsLeftBeforeItBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, release, batches := occupied(t, time.Second)
		never := func() (int, error) { t.Error("it ran"); return 0, nil }
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { _, err := g.do(ctx, 7, never); left <- err }()
		synctest.Wait()
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled one: %v", err)
		}
		if _, err := g.do(t.Context(), 8, never); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("one that waited too long: %v", err)
		}
		release()
		synctest.Wait()
		if len(*batches) > 0 {
			t.Errorf("statements with %v", *batches)
		}
	})
}

// What a statement for many takes is what a rotation alone would take; all
// else is left to it.
func TestRotateTogetherTakesTheUsual(t *testing.T) {
	s := openStore(t, Options{}, hooks{})
	family := func(who string) storage.FamilyID { return signIn(t, s, request(who)).Family.ID }
	revoked, disabled, locked := family("revoked"), signIn(t, s, request("disabled")), family("locked")
	if _, err := s.RevokeFamily(t.Context(), revoked, "test"); err != nil {
		t.Fatal(err)
	}
	if err := s.SetUserDisabled(t.Context(), disabled.UserID, true); err != nil {
		t.Fatal(err)
	}
	holder, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Release()
	tx, err := holder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), `SELECT FROM families WHERE id = $1 FOR UPDATE`, [16]byte(locked)); err != nil {
		t.Fatal(err)
	}
	twice := family("twice")
	var batch []*rotateCall
	var names []string
	add := func(name string, in storage.Rotation) {
		if in.ClientID == "" {
			in.ClientID = testClient
		}
		in.Idle, in.MACKeyID = time.Minute, 7
		names, batch = append(names, name), append(batch, &rotateCall{in: in})
	}
	add("usual", storage.Rotation{FamilyID: family("usual")})
	add("revoked", storage.Rotation{FamilyID: revoked})
	add("user disabled", storage.Rotation{FamilyID: disabled.Family.ID})
	add("another client", storage.Rotation{FamilyID: family("client"), ClientID: "other"})
	add("another generation", storage.Rotation{FamilyID: family("generation"), Generation: 1})
	add("missing", storage.Rotation{FamilyID: storage.NewFamilyID()})
	add("locked by somebody", storage.Rotation{FamilyID: locked})
	add("twice", storage.Rotation{FamilyID: twice})
	add("twice, the second", storage.Rotation{FamilyID: twice})
	if err := s.rotateTogether(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for i, c := range batch {
		if want := names[i] == "usual" || names[i] == "twice"; c.settled != want || c.err != nil {
			t.Errorf("%s: settled %v, %v", names[i], c.settled, c.err)
		}
		if f := c.out.Family; c.settled && (c.out.Verdict != storage.RotateOK || f.ID != c.in.FamilyID || f.Generation != 1 ||
			f.MACKeyID != 7 || !f.IdleExpiresAt.Equal(f.RotatedAt.Add(time.Minute))) {
			t.Errorf("%s: %+v", names[i], c.out)
		}
	}
}

// What a statement for many takes is what a sign-in alone would take.
func TestSignInTogetherTakesTheUsual(t *testing.T) {
	s := openStore(t, Options{}, hooks{})
	known := signIn(t, s, request("known"))
	disabled := signIn(t, s, request("disabled"))
	if err := s.SetUserDisabled(t.Context(), disabled.UserID, true); err != nil {
		t.Fatal(err)
	}
	keyed := func(who string, key byte) storage.SignIn {
		in := request(who)
		in.Idempotency = &storage.Idempotency{Key: storage.Digest{key}, Form: storage.Digest{key}, Lifetime: time.Minute}
		return in
	}
	signIn(t, s, keyed("known", 1))
	platform := request("known")
	platform.UnionID, platform.OpenPlatform = "u1", "main"
	rows := []struct {
		name string
		in   storage.SignIn
		want bool
	}{
		{"without a key", request("known"), true},
		{"once more", request("known"), true},
		{"with a new key", keyed("known", 2), true},
		{"with the same key", keyed("known", 2), false},
		{"with a key that was used", keyed("known", 1), false},
		{"with a key, and unknown", keyed("unknown", 3), false},
		{"disabled", request("disabled"), false},
		{"unknown", request("unknown"), false},
		{"new unionid", platform, false},
	}
	var batch []*signInCall
	for _, row := range rows {
		c, err := s.vault.PrepareSignIn(row.in)
		if err != nil {
			t.Fatal(err)
		}
		in, err := s.prepareUsual(c)
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, &signInCall{in: in})
	}
	if err := s.signInTogether(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for i, c := range batch {
		if c.settled != rows[i].want || c.err != nil {
			t.Errorf("%s: settled %v, %v", rows[i].name, c.settled, c.err)
		}
		if !c.settled {
			continue
		}
		f, err := s.Family(t.Context(), c.in.family.ID)
		if err != nil || c.out.UserID != known.UserID || f.UserID != known.UserID || !f.ExpiresAt.Equal(c.out.Family.ExpiresAt) {
			t.Errorf("%s: %+v, stored %+v, %v", rows[i].name, c.out, f, err)
		}
	}
	for key, want := range map[byte]bool{1: true, 2: true, 3: false} {
		rec, ok, err := s.Idempotency(t.Context(), storage.Digest{key})
		if err != nil || ok != want || ok && rec.Form != (storage.Digest{key}) {
			t.Errorf("key %d: %+v, %v, %v", key, rec, ok, err)
		}
	}
	checkRows(t, s)
}

// Of many who present one token at once, one rotates it.
func TestOneTokenInManyHands(t *testing.T) {
	s := openStore(t, Options{}, hooks{})
	family := signIn(t, s, request("o1")).Family
	var rotated, repeated atomic.Int32
	errs := parallel(100, func(int) error {
		res, err := s.Rotate(t.Context(), storage.Rotation{FamilyID: family.ID, ClientID: testClient, Grace: time.Minute, Idle: time.Hour})
		switch res.Verdict {
		case storage.RotateOK:
			rotated.Add(1)
		case storage.RotateRepeated:
			repeated.Add(1)
		}
		return err
	})
	if err := errors.Join(errs...); err != nil || rotated.Load() != 1 || repeated.Load() != 99 {
		t.Errorf("%d rotated, %d repeated, %v", rotated.Load(), repeated.Load(), err)
	}
}

// Of what comes at the same time many share a commit.
func TestManyShareACommit(t *testing.T) {
	var told atomic.Int64
	s := openStore(t, Options{MaxConns: 4, OnCommit: func(operations int, elapsed time.Duration) {
		told.Add(int64(operations))
		if elapsed <= 0 {
			t.Errorf("a commit that took %v", elapsed)
		}
	}}, hooks{})
	const people = 128
	results := make([]storage.SignInResult, people)
	signInAll := func(i int) (err error) {
		if results[i], err = s.SignIn(t.Context(), request(fmt.Sprint("o", i))); err == nil && results[i].Verdict != storage.SignInOK {
			err = fmt.Errorf("verdict %v", results[i].Verdict)
		}
		return err
	}
	if err := errors.Join(parallel(people, signInAll)...); err != nil {
		t.Fatal(err)
	}
	first := make([]storage.SignInResult, people)
	copy(first, results)
	before, toldBefore := s.Stats(), told.Load()
	if err := errors.Join(parallel(people, signInAll)...); err != nil {
		t.Fatal(err)
	}
	errs := parallel(people, func(i int) error {
		res, err := s.Rotate(t.Context(), storage.Rotation{FamilyID: results[i].Family.ID, ClientID: testClient, Idle: time.Hour})
		if err == nil && (res.Verdict != storage.RotateOK || res.Family.ID != results[i].Family.ID || res.Family.UserID != first[i].UserID) {
			err = fmt.Errorf("family %s of %s: %+v", results[i].Family.ID, first[i].UserID, res)
		}
		return err
	})
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	after := s.Stats()
	if operations := after.Operations - before.Operations; operations != 2*people || uint64(told.Load()-toldBefore) != operations {
		t.Errorf("%d operations, %d told of", operations, told.Load()-toldBefore)
	}
	if commits := after.Commits - before.Commits; commits > people {
		t.Errorf("%d operations took %d commits", 2*people, commits)
	}
	for i := range people {
		if results[i].UserID != first[i].UserID {
			t.Errorf("%d is another one", i)
		}
		f, err := s.Family(t.Context(), results[i].Family.ID)
		if err != nil || f.Generation != 1 || f.UserID != first[i].UserID {
			t.Errorf("family of %d: %+v, %v", i, f, err)
		}
	}
	checkRows(t, s)
}
