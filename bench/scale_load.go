package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/bolt"
	"github.com/wxidp/wxidp/storage/postgres"
	"github.com/wxidp/wxidp/wechat/simulator"
)

// maxSampled is how many users at most can be refreshed and signed in.
const maxSampled = 200_000

// openedStore is a store that nobody serves.
type openedStore struct {
	wholeStore
	keyring *seal.Keyring
}

type wholeStore interface {
	storage.Store
	storage.Movable
}

// openStore opens the store under a folder, or in db.
func openStore(ctx context.Context, dir string, db *database) (*openedStore, error) {
	text, err := os.ReadFile(filepath.Join(dir, masterKeyFile))
	if err != nil {
		return nil, err
	}
	keyring, err := seal.ParseKeyring(text)
	if err != nil {
		return nil, err
	}
	if db != nil {
		s, err := postgres.Open(ctx, postgres.Options{DSN: secret.New(db.dsn), Keyring: keyring, Timeout: 5 * time.Minute})
		if err != nil {
			return nil, err
		}
		return &openedStore{s, keyring}, nil
	}
	s, err := bolt.Open(ctx, bolt.Options{Path: filepath.Join(dir, boltFile), Keyring: keyring})
	if err != nil {
		return nil, err
	}
	return &openedStore{s, keyring}, nil
}

// populate fills an empty store with people and sign-ins.
func populate(ctx context.Context, o *scaleOptions, db *database, out *report) (err error) {
	if err := writeMasterKey(o.dir); err != nil {
		return err
	}
	store, err := openStore(ctx, o.dir, db)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if n, err := store.CountRows(ctx, storage.RowUser); err != nil || n > 0 {
		return errors.Join(err, fmt.Errorf("the store in %s has %d users but no %s: an earlier run was broken off; remove the folder", o.dir, n, sampleFile))
	}
	p := &population{
		weChat: simulator.New(simulator.Options{Seed: simulatorSeed, Apps: []simulator.App{{AppID: appID, Secret: appSecret, OpenPlatform: openPlatform}}}),
		seed:   o.seed, now: time.Now(), sampled: min(o.people, o.families, maxSampled),
	}
	p.families = float64(o.families-p.sampled) / float64(max(o.people, 1))
	if p.vault, err = storage.OpenVault(ctx, store, store.keyring); err != nil {
		return err
	}
	if p.mac, err = openRing(ctx, store, keys.Options{Keyring: store.keyring}); err != nil {
		return err
	}
	begin := time.Now()
	heap, sample, err := generate(ctx, o, p)
	if err != nil {
		return err
	}
	made := time.Since(begin)
	progress("made %d users in %s, %.0f per second", o.people, made.Round(time.Second), float64(o.people)/made.Seconds())
	rows, err := importAll(ctx, store, heap)
	if err != nil {
		return err
	}
	total := time.Since(begin)
	out.printf("Loaded %d users in %s (%.0f users per second): %s to make them, %s to import %d rows (%.0f rows per second).\n\n", o.people,
		total.Round(time.Second), float64(o.people)/total.Seconds(), made.Round(time.Second), (total - made).Round(time.Second), rows, float64(rows)/(total-made).Seconds())
	return writeSample(o.dir, sample)
}

// peopleChunk is how many users a worker makes before it says so.
const peopleChunk = 1000

// generate makes everybody's rows on all processors.
func generate(ctx context.Context, o *scaleOptions, p *population) (*spill, []sampledUser, error) {
	dir, err := os.MkdirTemp(o.dir, "spill-")
	if err != nil {
		return nil, nil, err
	}
	to := &spill{dir: dir, began: p.now.Add(-absoluteLifetime - 24*time.Hour), parts: map[part]*os.File{}}
	sample := make([]sampledUser, p.sampled)
	var next, done atomic.Int64
	line := newCounter("making users", int64(o.people))
	group, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			w := to.writer()
			for {
				first := int(next.Add(peopleChunk)) - peopleChunk
				if first >= o.people || ctx.Err() != nil {
					return errors.Join(ctx.Err(), w.end())
				}
				last := min(first+peopleChunk, o.people)
				for i := first; i < last; i++ {
					known, err := p.person(i, w.put)
					if err != nil {
						return err
					}
					if known != nil {
						sample[i] = *known
					}
				}
				line.show(done.Add(int64(last - first)))
			}
		})
	}
	return to, sample, group.Wait()
}

// importers is how many batches are on their way into the store at once.
const importers = 2

// importAll imports everything in the order of kinds and keys.
func importAll(ctx context.Context, store storage.Movable, from *spill) (total int64, err error) {
	group, ctx := errgroup.WithContext(ctx)
	batches := make(chan []storage.Row, importers)
	var done atomic.Int64
	line := newCounter("importing rows", 0)
	group.Go(func() error {
		defer close(batches)
		for _, at := range from.sorted() {
			rows, err := from.take(at)
			if err != nil {
				return err
			}
			for len(rows) > 0 {
				n := min(len(rows), storage.MaxRows)
				select {
				case batches <- rows[:n]:
				case <-ctx.Done():
					return ctx.Err()
				}
				rows = rows[n:]
			}
		}
		return os.Remove(from.dir)
	})
	for range importers {
		group.Go(func() error {
			for batch := range batches {
				if err := store.ImportRows(ctx, batch); err != nil {
					return err
				}
				line.show(done.Add(int64(len(batch))))
			}
			return nil
		})
	}
	err = group.Wait()
	return done.Load(), err
}

// counter tells on stderr how far long work has come, every few seconds.
type counter struct {
	what  string
	of    int64 // 0: not known
	begin time.Time
	mu    sync.Mutex
	shown time.Time
}

func newCounter(what string, of int64) *counter {
	now := time.Now()
	return &counter{what: what, of: of, begin: now, shown: now}
}

const counterPause = 5 * time.Second

func (c *counter) show(done int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.shown) < counterPause {
		return
	}
	c.shown = time.Now()
	of := ""
	if c.of > 0 {
		of = fmt.Sprintf(" of %d", c.of)
	}
	fmt.Fprintf(os.Stderr, "%s: %d%s, %.0f per second\n", c.what, done, of, float64(done)/time.Since(c.begin).Seconds())
}

// The files of a run beside the configuration.
const (
	configFile    = "config.yaml"
	masterKeyFile = "master.key"
	boltFile      = "data/wxidp.db"
	sampleFile    = "sample.json"
)

func writeMasterKey(dir string) error {
	path := filepath.Join(dir, masterKeyFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return os.WriteFile(path, []byte(seal.GenerateKey()+"\n"), 0o600)
}

// writeSample keeps the newest refresh tokens for the next run.
func writeSample(dir string, sample []sampledUser) error {
	text, err := json.Marshal(sample)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, sampleFile)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func readSample(dir string) (sample []sampledUser, err error) {
	text, err := os.ReadFile(filepath.Join(dir, sampleFile))
	if err != nil {
		return nil, err
	}
	return sample, json.Unmarshal(text, &sample)
}
