// Package bolt keeps everything in one bbolt file, for a server of one node.
//
// One goroutine writes. It takes whatever waits, runs it in one transaction
// and makes it durable with one commit, so that concurrent writes share their
// fsyncs and a lone write waits for nobody. Reads see durable data only.
package bolt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
)

var _ storage.Store = (*Store)(nil)

// Options say where the file is and who is told what.
type Options struct {
	Path    string        // of the database file; its folder is made if missing
	Keyring *seal.Keyring // the master keys
	Logger  *slog.Logger  // nil: silent

	// OnCommit is told of every durable commit: the number of writing
	// operations in it and how long it took. It must return at once.
	OnCommit func(operations int, elapsed time.Duration)

	// Fatal is called when a failed write leaves it unknown what the file
	// holds, and when bbolt itself breaks down. The process must end: the store
	// answers storage.ErrUnavailable from then on. Fatal must not wait for
	// operations of the store. The default panics.
	Fatal func(error)

	// InsecurePermissions skips the checks of mode, owner and symbolic links.
	InsecurePermissions bool

	inspectFirst int64 // of a test, in the place of the constant; 0: none
}

// Store is a storage.Store on one bbolt file. Open makes it.
type Store struct {
	storage.Edits

	path        string // without symbolic links
	guard       guard
	maintenance sync.Mutex   // held while the file is copied
	swapping    sync.RWMutex // held by readers of db; only the writer replaces db
	db          *bbolt.DB

	vault      *storage.Vault
	claims     *storage.Claims
	committer  *committer
	log        *slog.Logger
	broken     atomic.Bool // after Fatal
	expired    atomic.Uint64
	background sync.WaitGroup // inspectServed
	copied     atomic.Int64   // bytes of rows in the present or last copy of the file
}

// The buckets. All keys have a fixed form; none holds a personal value.
var (
	bucketMeta        = []byte("meta")             // "format" -> formatVersion
	bucketUsers       = []byte("users")            // user id -> user record
	bucketIdentities  = []byte("identities")       // digest of appid and openid -> identity record
	bucketUnionIDs    = []byte("unionids")         // digest of open platform and unionid -> user id
	bucketUsernames   = []byte("usernames")        // digest of username -> user id
	bucketPhones      = []byte("phones")           // digest of phone number -> user id
	bucketExternalIDs = []byte("external_ids")     // digest of external id -> user id
	bucketSessionKeys = []byte("session_keys")     // digest of appid and openid -> session_keys record
	bucketClients     = []byte("clients")          // client id -> client record
	bucketFamilies    = []byte("families")         // family id -> family
	bucketByUser      = []byte("families_by_user") // shard, family id -> mark of the user
	bucketItems       = []byte("items")            // digest of kind and key -> item
	bucketDenied      = []byte("denied_jtis")      // digest of jti -> expiry
	bucketIdempotency = []byte("idempotency")      // digest -> idempotency row
	bucketRecords     = []byte("records")          // name -> version, value
	bucketExpiry      = []byte("expiry")           // second, kind, key -> nothing

	bucketLogins       = []byte("logins")         // login session id -> login session
	bucketLoginsByUser = []byte("logins_by_user") // shard, login session id -> mark of the user
	bucketLoginTokens  = []byte("login_tokens")   // digest of the cookie's value -> login session id
	bucketCodes        = []byte("codes")          // digest of code -> when to forget it, code record
	bucketConsents     = []byte("consents")       // user id -> consents
	bucketStates       = []byte("states")         // kind, digest of key -> expiry, version, value
	bucketLogouts      = []byte("logouts")        // notice id -> logout notice
	bucketLogoutsDue   = []byte("logouts_due")    // microsecond, notice id -> nothing
)

var buckets = [][]byte{
	bucketMeta, bucketUsers, bucketIdentities, bucketUnionIDs, bucketUsernames, bucketPhones, bucketExternalIDs,
	bucketSessionKeys, bucketClients, bucketFamilies, bucketByUser,
	bucketItems, bucketDenied, bucketIdempotency, bucketRecords, bucketExpiry,
	bucketLogins, bucketLoginsByUser, bucketLoginTokens, bucketCodes, bucketConsents, bucketStates, bucketLogouts, bucketLogoutsDue,
}

// txn is a transaction with the one moment at which it judges everything.
type txn struct {
	*bbolt.Tx
	now     time.Time
	changed map[rowName]struct{} // notes what is written; nil: nobody asks
}

// write runs apply in a shared transaction and returns when it is durable.
// apply must decide everything before its first write and set its results anew
// whenever it is called: a neighbour's failure makes it run again.
func (s *Store) write(ctx context.Context, apply func(tx txn) (wrote bool, err error)) error {
	return s.committer.do(ctx, apply)
}

// read runs fn on a snapshot of what is durable. Values that fn got from the
// transaction must not be used after it.
func (s *Store) read(ctx context.Context, fn func(tx txn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.broken.Load() {
		return fmt.Errorf("%w: the data file is in an unknown state", storage.ErrUnavailable)
	}
	s.swapping.RLock()
	defer s.swapping.RUnlock()
	tx, err := s.db.Begin(false)
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return storage.ErrClosed
	}
	if err != nil {
		return fmt.Errorf("%w: %v", storage.ErrUnavailable, err)
	}
	defer func() { _ = tx.Rollback() }() // cannot fail on an open transaction
	return fn(txn{Tx: tx, now: time.Now()})
}

// Ping reports whether reads work.
func (s *Store) Ping(ctx context.Context) error {
	return s.read(ctx, func(tx txn) error {
		if tx.Bucket(bucketMeta).Get(keyFormat) == nil {
			return storage.ErrCorrupt
		}
		return nil
	})
}

// Stats returns counters since Open, and the size of the file.
func (s *Store) Stats() storage.Stats {
	stats := storage.Stats{
		Commits:    s.committer.commits.Load(),
		Operations: s.committer.operations.Load(),
		Expired:    s.expired.Load(),
	}
	_ = s.read(context.Background(), func(tx txn) error {
		stats.SizeBytes = tx.Size()
		return nil
	})
	return stats
}

// Close refuses new work, finishes what was accepted and closes the file. A
// second Close does nothing.
func (s *Store) Close() error {
	if !s.committer.close() {
		return nil
	}
	if s.broken.Load() {
		return nil // the file is left as it is; only the end of the process frees it
	}
	s.maintenance.Lock() // a copy that was under way ends soon, now that nothing can be written
	defer s.maintenance.Unlock()
	s.background.Wait()
	if err := s.keepFreePages(); err != nil {
		s.log.Warn("the next start will look through the whole data file", "event", "storage.close_slow", "detail", err.Error())
	}
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close the data file: %w", err)
	}
	return nil
}

// Claim takes a volatile claim.
func (s *Store) Claim(ctx context.Context, key storage.Digest, lifetime time.Duration) (bool, error) {
	if err := s.usable(ctx); err != nil {
		return false, err
	}
	return s.claims.Take(key, lifetime), nil
}

// Release gives a claim back.
func (s *Store) Release(ctx context.Context, key storage.Digest) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	s.claims.Release(key)
	return nil
}

func (s *Store) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.committer.closing() {
		return storage.ErrClosed
	}
	return nil
}
