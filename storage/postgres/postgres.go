// Package postgres keeps everything in a PostgreSQL database, which any number
// of nodes share.
//
// The database decides: its clock judges, its unique keys settle races, and
// nothing here relies on more than read-committed isolation. Operations about
// people lock the rows of the users they touch, in the order of their ids,
// before they read the clock and anything else about them. A refresh and a
// sign-in about which nothing is new are one statement each.
package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

var _ storage.Store = (*Store)(nil)

// Options say which database it is and how much of it is used.
type Options struct {
	DSN     secret.String // a URL or key=value pairs, as libpq and pgx read them
	Keyring *seal.Keyring // the master keys
	Logger  *slog.Logger  // nil: silent

	// Moving says that rows are moved and nothing is served: Alone does not take
	// the store for a server.
	Moving bool

	// MaxConns is the size of the connection pool; 0: what the DSN says with
	// pool_max_conns, or else 16.
	MaxConns int
	// Wait is how long an operation waits for a connection; 0: 5 seconds.
	Wait time.Duration
	// Timeout is how long the database may take for one attempt of an
	// operation; 0: 10 seconds.
	Timeout time.Duration

	// OnCommit is told of every durable commit: the number of writing
	// operations in it and how long the database took. It must return at once.
	OnCommit func(operations int, elapsed time.Duration)
}

const (
	defaultMaxConns = 16
	defaultWait     = 5 * time.Second
	defaultTimeout  = 10 * time.Second
)

// Store is a storage.Store on a PostgreSQL database. Open makes it.
type Store struct {
	storage.Edits

	pool    *pgxpool.Pool
	vault   *storage.Vault
	log     *slog.Logger
	serving string // how servers call themselves in this database
	wait    time.Duration
	timeout time.Duration
	endIdle string // a statement, see idleIn

	onCommit func(operations int, elapsed time.Duration) // nil: nobody asks
	clock    func() time.Time                            // of a test, in the place of the database's; nil: none

	closed     atomic.Bool
	commits    atomic.Uint64
	operations atomic.Uint64
	expired    atomic.Uint64
	gcTurn     atomic.Uint32 // where the next DeleteExpired begins
	size       sizeProbe

	families  together[storage.FamilyID, storage.Family]
	accesses  together[storage.AccessCheck, storage.AccessResult]
	rotations together[storage.Rotation, storage.RotateResult]
	claims    together[claim, bool]
	signIns   together[*usualSignIn, storage.SignInResult]
}

// Open connects to the database. It refuses a schema that this program does
// not know and data that was sealed under a master key that is not in the
// keyring. Data that came here with a dump it marks as restored.
func Open(ctx context.Context, opts Options) (*Store, error) { return open(ctx, opts, hooks{}) }

// hooks are what tests put in the place of something.
type hooks struct {
	clock  func() time.Time        // tells the time instead of the database; nil: the database does
	adjust func(c *pgxpool.Config) // nil: nothing to adjust
}

func open(ctx context.Context, opts Options, test hooks) (*Store, error) {
	if opts.Keyring == nil {
		return nil, errors.New("storage: no master key was given")
	}
	config, err := poolConfig(opts)
	if err != nil {
		return nil, err
	}
	serving := config.ConnConfig.RuntimeParams[applicationName]
	if opts.Moving {
		config.ConnConfig.RuntimeParams[applicationName] = movingApplication + rand.Text()[:8]
	}
	s := &Store{serving: serving, log: opts.Logger, wait: opts.Wait, timeout: opts.Timeout, onCommit: opts.OnCommit, clock: test.clock}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.wait <= 0 {
		s.wait = defaultWait
	}
	if s.timeout <= 0 {
		s.timeout = defaultTimeout
	}
	s.endIdle = idleIn(s.timeout)
	s.families.run, s.families.wait, s.families.reads = s.familiesTogether, s.wait, true
	s.accesses.run, s.accesses.wait, s.accesses.reads = s.accessTogether, s.wait, true
	s.rotations.run, s.rotations.wait = s.rotateTogether, s.wait
	s.signIns.run, s.signIns.wait = s.signInTogether, s.wait
	s.claims.run, s.claims.wait = s.claimTogether, s.wait
	if test.adjust != nil {
		test.adjust(config)
	}
	if test.clock != nil { // whose periods a test would live through in no time
		config.HealthCheckPeriod, config.MaxConnLifetime, config.MaxConnIdleTime = 1<<62, 1<<62, 1<<62
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("storage database: %w", err)
	}
	if err := s.start(ctx, opts.Keyring); err != nil {
		return nil, errors.Join(fmt.Errorf("storage database: %w", err), s.Close())
	}
	return s, nil
}

func (s *Store) start(ctx context.Context, keyring *seal.Keyring) (err error) {
	if err := s.checkSchema(ctx); err != nil {
		return err
	}
	s.warnOfLoss(ctx)
	if s.vault, err = storage.OpenVault(ctx, s, keyring); err != nil {
		return err
	}
	s.Edits = storage.NewEdits(s.vault, s.edit, s.rehearse)
	return s.checkHome(ctx)
}

// warnOfLoss says so where the database acknowledges commits that a crash may
// undo: a revoked sign-in would come back to life.
func (s *Store) warnOfLoss(ctx context.Context) {
	var mode string
	err := s.readRow(ctx, `SELECT coalesce(current_setting('synchronous_commit', true), '')`, nil, &mode)
	if err == nil && mode == "off" {
		s.log.Warn("the database acknowledges commits before they are durable: set synchronous_commit to on", "event", "storage.not_durable")
	}
}

// poolConfig returns the configuration of the pool. Its errors say nothing of
// the DSN, which may hold a password.
func poolConfig(opts Options) (*pgxpool.Config, error) {
	if opts.DSN.IsZero() {
		return nil, errors.New("storage database: no DSN was given")
	}
	config, err := pgxpool.ParseConfig(opts.DSN.Reveal())
	if err != nil {
		return nil, errUnreadableDSN
	}
	switch explicit, err := pgx.ParseConfig(opts.DSN.Reveal()); {
	case opts.MaxConns > 0:
		config.MaxConns = int32(min(opts.MaxConns, 10_000))
	case err == nil && explicit.RuntimeParams["pool_max_conns"] == "":
		config.MaxConns = defaultMaxConns
	}
	switch config.ConnConfig.DefaultQueryExecMode {
	case pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol:
		// Without the types of the parameters nothing here could be sent.
		return nil, errExecMode
	}
	config.MinConns = min(config.MinConns, config.MaxConns)
	if _, set := config.ConnConfig.RuntimeParams[applicationName]; !set {
		config.ConnConfig.RuntimeParams[applicationName] = "wxidp"
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	// Whatever the DSN says: a standby lags, and what was revoked would be good
	// there for a while.
	config.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	return config, nil
}

var errExecMode = errors.New("storage database: the DSN says default_query_exec_mode exec or simple_protocol, which do not work here; " +
	"behind a pooler by transactions that knows no prepared statements use cache_describe")

var errUnreadableDSN = errors.New("storage database: the DSN cannot be read; it is a URL (postgres://user@host/database) or key=value pairs")

// Ping reports whether reads work. It fails, too, where no connection becomes
// free.
func (s *Store) Ping(ctx context.Context) error {
	_, version, err := s.Record(ctx, storage.VaultRecord)
	if err == nil && version == 0 {
		err = storage.ErrCorrupt
	}
	return err
}

// Close refuses new work, waits for what is under way and closes all
// connections. A second Close does nothing.
func (s *Store) Close() error {
	s.closed.Store(true)
	s.pool.Close()
	return nil
}

// sizeAge is for how long the size of the database counts as known.
const sizeAge = 30 * time.Second

// sizeProbe is the size of the database when it was last looked at.
type sizeProbe struct {
	mu    sync.Mutex
	at    time.Time
	bytes int64
}

// Stats returns counters since Open, of this node alone, and the size of the
// database as it was within the last half minute.
func (s *Store) Stats() storage.Stats {
	return storage.Stats{Commits: s.commits.Load(), Operations: s.operations.Load(), Expired: s.expired.Load(), SizeBytes: s.sizeBytes()}
}

func (s *Store) sizeBytes() int64 {
	s.size.mu.Lock()
	defer s.size.mu.Unlock()
	if !s.size.at.IsZero() && time.Since(s.size.at) < sizeAge {
		return s.size.bytes
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.size.at = time.Now() // a database that does not answer is not asked at once again
	_ = s.readRow(ctx, `SELECT pg_database_size(current_database())`, nil, &s.size.bytes)
	return s.size.bytes
}

// Claim takes a volatile claim.
func (s *Store) Claim(ctx context.Context, key storage.Digest, lifetime time.Duration) (taken bool, err error) {
	if err := s.usable(ctx); err != nil {
		return false, err
	}
	in := claim{key, lifetime}
	return s.claims.do(ctx, in, func() (bool, error) { return s.claim(ctx, in) })
}

func (s *Store) claim(ctx context.Context, in claim) (taken bool, err error) {
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tag, err := c.Exec(ctx, s.sql(`INSERT INTO claims AS old (id, expires_at) VALUES ($1, clock_timestamp() + $2::interval)
			ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at WHERE old.expires_at <= clock_timestamp()`), in.key[:], in.lifetime)
		taken = tag.RowsAffected() == 1
		return err
	})
	return taken && err == nil, err
}

// Release gives a claim back.
func (s *Store) Release(ctx context.Context, key storage.Digest) error {
	return s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `DELETE FROM claims WHERE id = $1`, key[:])
		return err
	})
}
