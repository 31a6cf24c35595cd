package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

const testClient = "shop-mini"

func request(openID string) storage.SignIn {
	return storage.SignIn{
		AppID: "wx0123456789abcdef", WeChatOpenID: openID, NewProfile: storage.Profile{Nickname: "微信用户"},
		Family: storage.Family{ClientID: testClient, Scope: []string{"openid"}, AuthTime: time.Now(), AMR: []string{"wechat"}},
		Idle:   time.Hour, Absolute: 24 * time.Hour,
	}
}

func signIn(t *testing.T, s *Store, in storage.SignIn) storage.SignInResult {
	t.Helper()
	res, err := s.SignIn(t.Context(), in)
	if err != nil || res.Verdict != storage.SignInOK {
		t.Fatalf("SignIn = %+v, %v", res, err)
	}
	return res
}

// parallel runs n calls at once and returns their errors.
func parallel(n int, call func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = call(i) })
	}
	wg.Wait()
	return errs
}

// A pool of two connections serves 64 callers one after the other: nobody holds
// one connection while waiting for another.
func TestSmallPoolServesMany(t *testing.T) {
	s := openStore(t, Options{MaxConns: 2, Wait: 30 * time.Second}, hooks{})
	errs := parallel(64, func(i int) error {
		for round := range 5 {
			in := request(fmt.Sprint("o", (i+round)%8))
			in.UnionID, in.OpenPlatform = fmt.Sprint("u", (i+round)%4), "main"
			in.AppID = fmt.Sprint("wx", (i+round)%8)
			if i%3 == 0 {
				in.SessionKey, in.SessionKeyLifetime = secret.New("key"), time.Hour
			}
			res, err := s.SignIn(t.Context(), in)
			if err != nil || res.Verdict != storage.SignInOK {
				return fmt.Errorf("SignIn = %+v, %w", res.Verdict, err)
			}
			rotated, err := s.Rotate(t.Context(), storage.Rotation{FamilyID: res.Family.ID, ClientID: testClient, Idle: time.Hour})
			if err != nil || rotated.Verdict != storage.RotateOK {
				return fmt.Errorf("Rotate = %+v, %w", rotated.Verdict, err)
			}
			if _, err := s.UpdateProfile(t.Context(), res.UserID, storage.ProfileChange{Nickname: &in.AppID}); err != nil {
				return err
			}
			if _, err := s.Claim(t.Context(), storage.Digest{byte(i), byte(round)}, time.Minute); err != nil {
				return err
			}
		}
		return s.Ping(t.Context())
	})
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	checkRows(t, s)
}

// Where all connections are taken, operations fail after a while, Ping too, and
// work again afterwards.
func TestStuckPool(t *testing.T) {
	s := openStore(t, Options{MaxConns: 2, Wait: 100 * time.Millisecond}, hooks{})
	var taken []*pgxpool.Conn
	for range 2 {
		c, err := s.pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, c)
	}
	if err := s.Ping(t.Context()); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Ping: %v", err)
	}
	if _, err := s.SignIn(t.Context(), request("o1")); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("SignIn: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.User(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("User with a deadline: %v", err)
	}
	for _, c := range taken {
		c.Release()
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// trips counts what is sent to the database, each of it one round trip.
type trips struct{ n atomic.Int64 }

func (t *trips) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	t.n.Add(1)
	return ctx
}
func (t *trips) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (t *trips) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	t.n.Add(1)
	return ctx
}
func (t *trips) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (t *trips) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

func TestRoundTrips(t *testing.T) {
	var sent trips
	s := openStore(t, Options{}, hooks{adjust: func(c *pgxpool.Config) { c.ConnConfig.Tracer = &sent }})
	in := request("o1")
	in.UnionID, in.OpenPlatform = "u1", "main"
	in.Idempotency = &storage.Idempotency{Key: storage.Digest{1}, Lifetime: time.Minute}
	family := signIn(t, s, in).Family
	in.Idempotency.Key = storage.Digest{2}
	generation, other := uint32(0), signIn(t, s, request("o2")).UserID
	for name, row := range map[string]struct {
		want int64
		call func() error
	}{
		"sign-in of a known identity": {1, func() error {
			res, err := s.SignIn(t.Context(), in)
			if err == nil && (res.Verdict != storage.SignInOK || res.UserID != family.UserID) {
				err = fmt.Errorf("%+v", res)
			}
			return err
		}},
		"first sign-in": {5, func() error {
			first := in
			first.WeChatOpenID, first.UnionID, first.Idempotency = "o3", "u3", nil
			res, err := s.SignIn(t.Context(), first)
			if err == nil && res.Verdict != storage.SignInOK {
				err = fmt.Errorf("%+v", res)
			}
			return err
		}},
		"refresh": {1, func() error {
			res, err := s.Rotate(t.Context(), storage.Rotation{FamilyID: family.ID, ClientID: testClient, Generation: generation})
			generation++
			if err == nil && res.Verdict != storage.RotateOK {
				err = fmt.Errorf("%+v", res)
			}
			return err
		}},
		"CheckAccess": {1, func() error {
			_, err := s.CheckAccess(t.Context(), storage.AccessCheck{FamilyID: family.ID, JTI: "jti"})
			return err
		}},
		"CheckAccess of nothing that is kept": {0, func() error {
			_, err := s.CheckAccess(t.Context(), storage.AccessCheck{})
			return err
		}},
		"RevokeUser": {2, func() error { return s.RevokeUser(t.Context(), other, "test") }},
	} {
		before := sent.n.Load()
		if err := row.call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := sent.n.Load() - before; n != row.want {
			t.Errorf("%s took %d round trips, want %d", name, n, row.want)
		}
	}
}

// Operations that meet in opposite directions all end with a verdict.
func TestOppositeMerges(t *testing.T) {
	s := openStore(t, Options{}, hooks{})
	for round := range 10 {
		a, b := request(fmt.Sprint("a", round)), request(fmt.Sprint("b", round))
		b.AppID = "wxfedcba9876543210"
		x, y := signIn(t, s, a).UserID, signIn(t, s, b).UserID
		begin := time.Now()
		verdicts := make([]storage.MergeVerdict, 16)
		errs := parallel(len(verdicts), func(i int) error {
			from, into := x, y
			if i%2 == 1 {
				from, into = y, x
			}
			res, err := s.Merge(t.Context(), from, into, false)
			verdicts[i] = res.Verdict
			return err
		})
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		merged := 0
		for _, v := range verdicts {
			if v == storage.MergeOK {
				merged++
			} else if v != storage.MergeMissing {
				t.Fatalf("verdict %d", v)
			}
		}
		if merged != 1 {
			t.Fatalf("%d merges of two users, in %v", merged, time.Since(begin))
		}
	}
	checkRows(t, s)
	var deadlocks int
	if err := s.readRow(t.Context(), `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`, nil, &deadlocks); err != nil || deadlocks > 0 {
		t.Errorf("%d deadlocks, %v", deadlocks, err)
	}
}

// When the server ends every connection, what reads goes on over new ones, and
// what writes says at worst that it could not.
func TestConnectionsCut(t *testing.T) {
	s := openStore(t, Options{MaxConns: 4}, hooks{})
	family := signIn(t, s, request("o1")).Family
	cut := func() {
		admin, err := pgx.Connect(t.Context(), s.pool.Config().ConnString())
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = admin.Close(t.Context()) }()
		if _, err := admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
			t.Error(err)
		}
	}
	for range 5 {
		cut()
		if _, err := s.Family(t.Context(), family.ID); err != nil {
			t.Errorf("Family after a cut: %v", err)
		}
	}
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for range 10 {
			cut()
			time.Sleep(10 * time.Millisecond)
		}
	}()
	errs := parallel(8, func(i int) error {
		var mine storage.Family
		for n := 0; ; n++ {
			select {
			case <-stop:
				return nil
			default:
			}
			res, err := s.SignIn(t.Context(), request(fmt.Sprint("o", i)))
			if err == nil {
				mine = res.Family
			} else if !errors.Is(err, storage.ErrUnavailable) {
				return err
			}
			if mine.ID.IsZero() {
				continue
			}
			if access, err := s.CheckAccess(t.Context(), storage.AccessCheck{FamilyID: mine.ID}); err == nil && access.Verdict != storage.AccessActive {
				return fmt.Errorf("an acknowledged sign-in is lost: %+v", access)
			} else if err != nil && !errors.Is(err, storage.ErrUnavailable) {
				return err
			}
		}
	})
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	signIn(t, s, request("o1"))
	checkRows(t, s)
}

// Two nodes that make the vault's key at once, and one that knows another
// master key.
func TestNodesShareTheVault(t *testing.T) {
	dsn := secret.New(cluster.Database(t))
	stores := make([]*Store, 8)
	errs := parallel(len(stores), func(i int) (err error) {
		stores[i], err = Open(t.Context(), Options{DSN: dsn, Keyring: testKeyring(t), MaxConns: 2})
		return err
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	first := signIn(t, stores[0], request("o1"))
	for _, s := range stores {
		if res := signIn(t, s, request("o1")); res.UserID != first.UserID {
			t.Error("the nodes make different keys of one identity")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if s, err := Open(t.Context(), Options{DSN: dsn, Keyring: otherKeyring(t)}); err == nil {
		t.Error("another master key opened the store", s.Close())
	} else if !strings.Contains(err.Error(), "another master key") {
		t.Error(err)
	}
}
