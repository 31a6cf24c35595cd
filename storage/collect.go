package storage

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Collect deletes a store's expired records, batch by batch, until ctx ends or
// the store is closed. pause is how long to wait before the next look; while there is a
// backlog it goes on sooner, and leaves the store to others for several times
// as long as each batch took.
func Collect(ctx context.Context, store Store, batch int, pause func() time.Duration, log *slog.Logger) {
	failing := false
	for {
		begin := time.Now()
		_, more, err := store.DeleteExpired(ctx, batch)
		if ctx.Err() != nil || errors.Is(err, ErrClosed) {
			return
		}
		if err != nil && !failing {
			log.Error("expired records could not be deleted", "event", "storage.gc_failed", "detail", err.Error())
		}
		failing = err != nil
		wait := pause()
		if more {
			wait = min(wait, max(4*time.Since(begin), time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// RewrapVault seals the vault's own key in a store under the first master key,
// where it is sealed under another, and returns how many values that were.
func RewrapVault(ctx context.Context, store Store, vault *Vault) (int, error) {
	for {
		sealed, version, err := store.Record(ctx, VaultRecord)
		if err != nil {
			return 0, err
		}
		fresh := vault.RewrapIndexKey(sealed)
		if fresh == nil {
			return 0, nil
		}
		swapped, err := store.SwapRecord(ctx, VaultRecord, version, fresh)
		if err != nil {
			return 0, err
		}
		if swapped {
			return 1, nil
		}
	}
}
