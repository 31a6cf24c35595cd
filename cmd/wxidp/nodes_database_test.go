package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage/postgres"
	"github.com/wxidp/wxidp/storage/postgres/pgtest"
)

// ownPostgres starts a PostgreSQL that the test may halt, and returns the DSN
// of an empty database in it.
func ownPostgres(t testing.TB) (*pgtest.Cluster, string) {
	t.Helper()
	own, err := pgtest.Start(func(ctx context.Context, dsn string) error {
		_, err := postgres.Migrate(ctx, secret.New(dsn), nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Stop(); err != nil {
			t.Error(err)
		}
	})
	return own, own.Database(t)
}

// connections counts the connections to a database but for the one that asks.
func connections(t testing.TB, dsn string) int {
	t.Helper()
	return query(t, dsn, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
}

// unavailable reports whether an answer says that the server cannot work now
// and when to come again.
func unavailable(out answer) bool {
	return out.Status == http.StatusServiceUnavailable && out.str("error") == "temporarily_unavailable" && out.Header.Get("Retry-After") != ""
}

// TestNodesPoolStuck: while all connections to the database are stuck, nodes
// say so within a second and refuse requests; afterwards all is well.
func TestNodesPoolStuck(t *testing.T) {
	t.Parallel()
	const pool = 4
	c := prepareClusterOn(t, newDatabase(t)+fmt.Sprintf(" pool_max_conns=%d", pool), 2)
	for _, node := range c.nodes {
		node.start()
	}
	tokens := make([]answer, 2)
	for i, node := range c.nodes {
		tokens[i] = signIn(node, fmt.Sprintf("user%d", i))
	}
	dsn, _, _ := strings.Cut(c.dsn, " pool_max_conns")
	locker, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = locker.Close(context.Background()) }()
	for _, sql := range []string{`BEGIN`, `LOCK TABLE families IN ACCESS EXCLUSIVE MODE`} {
		if _, err := locker.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	locked := time.Now()
	answered := make(chan struct{})
	var slowest atomic.Int64
	go func() {
		defer close(answered)
		parallel(4*pool*2, func(i int) {
			begin := time.Now()
			out, err := c.at(i).try(http.MethodPost, c.at(i).Issuer+"/oauth2/token", refreshForm(tokens[i%2].str("refresh_token")), phone())
			if err != nil || !unavailable(out) {
				t.Errorf("while the database is stuck: %v, %v, %v", out, out.Header, err)
			}
			for took, most := int64(time.Since(begin)), slowest.Load(); took > most && !slowest.CompareAndSwap(most, took); most = slowest.Load() {
			}
		})
	}()
	for _, node := range c.nodes {
		within(t, 5*time.Second, "the node is not ready", func() bool {
			out := node.Do(http.MethodGet, node.Issuer+"/readyz", nil)
			return out.Status == http.StatusServiceUnavailable && strings.Contains(string(out.Body), "storage unavailable")
		})
		if out := node.Do(http.MethodGet, node.Issuer+"/healthz", nil); out.Status != http.StatusOK {
			t.Errorf("healthz: %v", out)
		}
		if out := node.Do(http.MethodGet, node.Issuer+"/.well-known/jwks.json", nil); out.Status != http.StatusOK {
			t.Errorf("the JWK Set needs no database: %v", out)
		}
	}
	t.Logf("both nodes said so after %v", time.Since(locked).Round(time.Millisecond))
	select {
	case <-answered:
	case <-time.After(40 * time.Second):
		t.Fatal("requests hang")
	}
	t.Logf("the slowest refusal took %v", time.Duration(slowest.Load()).Round(time.Millisecond))
	if _, err := locker.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	for i, node := range c.nodes {
		soonTrue(t, "the node is ready again", func() bool {
			return node.Do(http.MethodGet, node.Issuer+"/readyz", nil).Status == http.StatusOK
		})
		if out := refresh(node, tokens[i].str("refresh_token")); out.Status != http.StatusOK {
			t.Errorf("after it: %v", out)
		}
	}
	eventually(t, "no connection is left over", func() bool { return connections(t, dsn) <= 2*pool+1 })
}

// TestNodesDatabaseRestart: while PostgreSQL is away, nodes answer 503, and
// soon after it is back all is well, without a new start.
func TestNodesDatabaseRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a PostgreSQL of its own")
	}
	t.Parallel()
	own, dsn := ownPostgres(t)
	c := prepareClusterOn(t, dsn, 2)
	for _, node := range c.nodes {
		node.start()
	}
	var back atomic.Int64 // when PostgreSQL took connections again, in Unix nanoseconds; 0: it is away
	back.Store(time.Now().UnixNano())
	var refusals, latest atomic.Int64
	load := startTraffic(t, 6, c.at, func(out answer, err error) (again bool, failure string) {
		switch {
		case err == nil && out.Status == http.StatusOK:
			return false, ""
		case err != nil || !unavailable(out):
			return false, fmt.Sprint(out, out.Header, err)
		}
		refusals.Add(1)
		if since := back.Load(); since != 0 {
			late := time.Since(time.Unix(0, since))
			for most := latest.Load(); int64(late) > most && !latest.CompareAndSwap(most, int64(late)); most = latest.Load() {
			}
			if late > 8*time.Second {
				return false, fmt.Sprintf("%v after PostgreSQL was back: %v", late, out)
			}
		}
		return true, ""
	})
	for round, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGQUIT} {
		served, refused := load.answers.Load(), refusals.Load()
		eventually(t, "traffic", func() bool { return load.answers.Load() > served+100 })
		refused = refusals.Load()
		latest.Store(0)
		back.Store(0)
		if err := own.Halt(sig); err != nil {
			t.Fatal(err)
		}
		for _, node := range c.nodes {
			within(t, 5*time.Second, "the node is not ready", func() bool {
				return node.Do(http.MethodGet, node.Issuer+"/readyz", nil).Status == http.StatusServiceUnavailable
			})
		}
		eventually(t, "refusals", func() bool { return refusals.Load() > refused+10 })
		if err := own.Resume(); err != nil {
			t.Fatal(err)
		}
		back.Store(time.Now().UnixNano())
		for _, node := range c.nodes {
			soonTrue(t, "the node is ready again", func() bool {
				return node.Do(http.MethodGet, node.Issuer+"/readyz", nil).Status == http.StatusOK
			})
		}
		served = load.answers.Load()
		eventually(t, "traffic", func() bool { return load.answers.Load() > served+200 })
		t.Logf("round %d, %v: %d refusals, the last one %v after PostgreSQL was back", round, sig, refusals.Load()-refused, time.Duration(latest.Load()).Round(time.Millisecond))
	}
	load.stop()
	load.failed.report(t, fmt.Sprintf("%d requests, %d refusals", load.answers.Load(), refusals.Load()))
	if n := connections(t, dsn); n > 2*17 {
		t.Errorf("%d connections of two pools of 16", n)
	}
}
