package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/bolt"
	"github.com/wxidp/wxidp/storage/postgres"
	"github.com/wxidp/wxidp/web"
)

// engine is what a server needs of a storage engine.
type engine interface {
	storage.Store
	RunGC(ctx context.Context, every time.Duration)
	Backup(ctx context.Context, w io.Writer) error
	Compact(ctx context.Context) error
	Copied() int64
}

// openStore opens the engine that the configuration names, unless a move of the
// data keeps it from being served.
func openStore(ctx context.Context, c *config.Config, keyring *seal.Keyring, metrics *web.Metrics, log *slog.Logger) (engine, error) {
	store, err := openEngine(ctx, c, keyring, metrics, log)
	if err != nil {
		return nil, err
	}
	if err := storage.MoveUnfinished(ctx, store); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

func openEngine(ctx context.Context, c *config.Config, keyring *seal.Keyring, metrics *web.Metrics, log *slog.Logger) (engine, error) {
	if c.Storage.Driver == config.DriverPostgres {
		if host := postgres.Unverified(c.Storage.Postgres.DSN); host != "" {
			log.Warn("whoever answers for the database learns its password and what is not sealed; say sslmode=verify-full in the DSN",
				"event", "config.insecure", "switch", "storage.postgres.dsn", "host", host)
		}
		return postgres.Open(ctx, postgres.Options{DSN: c.Storage.Postgres.DSN, Keyring: keyring, Logger: log, OnCommit: metrics.Commit})
	}
	return bolt.Open(ctx, bolt.Options{
		Path:                c.Storage.Bolt.Path,
		Keyring:             keyring,
		Logger:              log,
		OnCommit:            metrics.Commit,
		Fatal:               func(err error) { die(log, err) },
		InsecurePermissions: c.Insecure.AllowWorldReadableSecrets,
	})
}

// How often a server looks whether its data are being moved, and how often in a
// row it must find that they are: a move that finds servers there takes its mark
// away again.
const (
	lookMovedEvery = time.Second
	lookMovedTimes = 5
)

// untilMoved returns an error when the data are moved elsewhere, of which the
// move may not have known that they are served, and nil when ctx ends.
func untilMoved(ctx context.Context, store storage.Records) error {
	for found := 0; ; {
		pause(ctx, lookMovedEvery)
		if ctx.Err() != nil {
			return nil
		}
		err := storage.MoveUnfinished(ctx, store)
		if found++; !errors.Is(err, storage.ErrMoved) {
			found = 0
		}
		if found == lookMovedTimes {
			return err
		}
	}
}

// pollKeysEvery is how soon a node knows what another one did to the signing
// keys. A key that was revoked on one must not be accepted by another for
// longer than a second.
func pollKeysEvery(c *config.Config) time.Duration {
	if c.Storage.Driver == config.DriverPostgres {
		return time.Second
	}
	return keys.DefaultPollEvery
}

// die ends the process after a write error that leaves the state of the data
// file unknown: going on could acknowledge what is not there.
func die(logger *slog.Logger, err error) {
	logger.Error("the storage failed, ending", "event", "storage.fatal", "detail", err.Error())
	os.Exit(1)
}

// collectEvery is the pause between rounds of expiry; a round with a backlog
// goes on by itself.
const collectEvery = 10 * time.Second
