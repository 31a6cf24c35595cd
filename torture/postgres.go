package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage/postgres"
	"github.com/wxidp/wxidp/storage/postgres/pgtest"
)

// poolSize is how many connections a node may hold, so few that clients have to
// wait for them.
const poolSize = 8

// database is a PostgreSQL with the durability that it comes with.
type database struct{ *pgtest.Cluster }

// startDatabase starts a PostgreSQL in the folder base, "" for the system's for
// temporary files, that lives until the end of the trial.
func (t *Trial) startDatabase(base string) (*database, error) {
	cluster, err := pgtest.StartDurable(base, func(ctx context.Context, dsn string) error {
		_, err := postgres.Migrate(ctx, secret.New(dsn), nil)
		return err
	})
	if errors.Is(err, pgtest.ErrMissing) && os.Getenv("CI") != "true" {
		return nil, t.Skip("%v", err)
	}
	if err != nil {
		return nil, err
	}
	t.cleanup(cluster.Stop)
	return &database{cluster}, nil
}

// onDatabase returns the section storage of a node.
func onDatabase(dsn string) string {
	return fmt.Sprintf("storage: { driver: postgres, postgres: { dsn: %q } }\n", fmt.Sprintf("%s pool_max_conns=%d", dsn, poolSize))
}

// NewDatabaseRig is NewRig with two nodes on a PostgreSQL of their own, unless
// the options say otherwise.
func (t *Trial) NewDatabaseRig(o RigOptions) (*Rig, *database, error) {
	db, err := t.startDatabase("")
	if err != nil {
		return nil, nil, err
	}
	if o.Nodes == 0 {
		o.Nodes = 2
	}
	if o.Storage == nil {
		o.Storage = func(*Node) string { return onDatabase(db.DSN()) }
	}
	r, err := t.NewRig(o)
	return r, db, err
}

// query asks the database for one value, past everything that is put between
// it and the nodes.
func (db *database) query(ctx context.Context, to any, sql string, args ...any) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, db.DSN())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	return c.QueryRow(ctx, sql, args...).Scan(to)
}

// connections counts the connections of nodes.
func (db *database) connections(ctx context.Context) (n int, err error) {
	err = db.query(ctx, &n, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	return n, err
}

// connectionsBack waits until no connections are left over.
func (t *Trial) connectionsBack(ctx context.Context, r *Rig, db *database) error {
	limit := poolSize * len(r.Nodes)
	for begin := time.Now(); ; pause(ctx, 200*time.Millisecond) {
		n, err := db.connections(ctx)
		switch {
		case err != nil:
			return err
		case n <= limit:
			t.Note("%d connections of %d", n, limit)
			return nil
		case time.Since(begin) > 15*time.Second:
			t.Fail("%d connections are open, and the pools of the nodes have %d", n, limit)
			return nil
		}
	}
}

// crash ends PostgreSQL as a crash does; Resume must follow.
func (db *database) crash() error { return db.Halt(syscall.SIGQUIT) }

// guard is a client that wants to know when a node works.
type guard struct {
	r *Rig
	n *Node
	d *device
}

// newGuards signs somebody in at each node.
func newGuards(ctx context.Context, r *Rig) (list []*guard, err error) {
	for i, n := range r.Nodes {
		user := fmt.Sprint("guard-", i)
		code, err := r.Sim.Login(appID, user)
		if err != nil {
			return nil, err
		}
		op, tokens := r.SignIn(ctx, n, user, code, "")
		if op.Outcome != OK {
			return nil, fmt.Errorf("%s: %s", user, op)
		}
		list = append(list, &guard{r, n, &device{user: user, client: miniProgram, family: op.Family, sub: op.Sub, Tokens: tokens}})
	}
	return list, nil
}

// works reports whether a refresh succeeds.
func (g *guard) works(ctx context.Context) bool {
	op, tokens := g.r.Refresh(ctx, g.n, g.d.user, g.d.client, g.d.family, g.d.Refresh)
	if op.Outcome == OK {
		g.d.follow(tokens)
	}
	return op.Outcome == OK
}

// working waits until every node is ready and works.
func working(ctx context.Context, guards []*guard, within time.Duration) (time.Duration, error) {
	begin := time.Now()
	for _, g := range guards {
		for !g.n.Ready(ctx) || !g.works(ctx) {
			if time.Since(begin) > within || ctx.Err() != nil {
				return 0, fmt.Errorf("%s does not work %s after the fault", g.n.Name, within)
			}
			pause(ctx, 5*time.Millisecond)
		}
	}
	return time.Since(begin), nil
}

// unready waits until a node says that it is not ready.
func (n *Node) unready(ctx context.Context, within time.Duration) error {
	for begin := time.Now(); n.Ready(ctx); pause(ctx, 10*time.Millisecond) {
		if time.Since(begin) > within {
			return fmt.Errorf("%s says that it is ready for %s, and is not", n.Name, within)
		}
	}
	return nil
}

// warm lets clients work for a while and returns what the nodes hold then.
func warm(ctx context.Context, r *Rig, load *Load, length time.Duration) ([]resources, error) {
	load.RunFor(ctx, length)
	var before []resources
	for _, n := range r.Nodes {
		now, err := n.resources(ctx)
		if err != nil {
			return nil, err
		}
		before = append(before, now)
	}
	return before, nil
}

// allBack checks that nodes and database have given back what they held.
func (t *Trial) allBack(ctx context.Context, r *Rig, db *database, before []resources) error {
	if err := t.connectionsBack(ctx, r, db); err != nil {
		return err
	}
	for i, n := range r.Nodes {
		if err := t.resourcesBack(ctx, n, before[i]); err != nil {
			return err
		}
	}
	return nil
}
