package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// serializationFailures counts how often the database refused a statement
// because of another transaction.
type serializationFailures struct{ atomic.Int64 }

func (f *serializationFailures) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (f *serializationFailures) TraceQueryEnd(_ context.Context, _ *pgx.Conn, end pgx.TraceQueryEndData) {
	f.see(end.Err)
}

func (f *serializationFailures) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (f *serializationFailures) TraceBatchQuery(_ context.Context, _ *pgx.Conn, query pgx.TraceBatchQueryData) {
	f.see(query.Err)
}

func (f *serializationFailures) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

func (f *serializationFailures) see(err error) {
	if sqlState(err) == stateSerialize {
		f.Add(1)
	}
}

// Where the database serializes what it is not told otherwise, it refuses what
// meets: two nodes try again, and no caller hears of it.
func TestSerializationFailuresAreRetried(t *testing.T) {
	dsn := secret.New(cluster.Database(t))
	var refused serializationFailures
	var nodes []*Store
	for range 2 {
		nodes = append(nodes, openDatabase(t, Options{DSN: dsn}, hooks{adjust: func(c *pgxpool.Config) {
			c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable"
			c.ConnConfig.Tracer = &refused
		}}))
	}
	const callers, enough, mostRounds = 16, 3, 300
	rounds := 0
	for ; rounds < mostRounds && refused.Load() < enough; rounds++ {
		family := signIn(t, nodes[0], request(fmt.Sprint("o", rounds))).Family
		var rotated, repeated atomic.Int32
		errs := parallel(callers, func(i int) error {
			node := nodes[i%len(nodes)]
			if _, err := node.SignIn(t.Context(), request(fmt.Sprint("new", rounds))); err != nil {
				return err
			}
			res, err := node.Rotate(t.Context(), storage.Rotation{FamilyID: family.ID, ClientID: testClient, Grace: time.Minute, Idle: time.Hour})
			switch res.Verdict {
			case storage.RotateOK:
				rotated.Add(1)
			case storage.RotateRepeated:
				repeated.Add(1)
			}
			return err
		})
		if err := errors.Join(errs...); err != nil || rotated.Load() != 1 || repeated.Load() != callers-1 {
			t.Fatalf("%d rotated, %d repeated, %v", rotated.Load(), repeated.Load(), err)
		}
	}
	if refused.Load() == 0 {
		t.Errorf("nothing met in %d rounds, so nothing was tried", rounds)
	}
	t.Logf("%d statements were refused in %d rounds", refused.Load(), rounds)
	checkRows(t, nodes[0])
}
