package bolt

import (
	"bytes"
	"context"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// PutState stores a document for lifetime.
func (s *Store) PutState(
	ctx context.Context, kind storage.StateKind, key storage.Digest, value []byte, lifetime time.Duration,
) (stored bool, err error) {
	if len(value) > storage.MaxValueSize {
		return false, storage.ErrTooLarge
	}
	name := storage.StateKey(kind, key)
	value = bytes.Clone(value)
	err = s.write(ctx, func(tx txn) (bool, error) {
		_, found, err := getState(tx, name)
		stored = err == nil && !found
		if !stored || lifetime <= 0 { // of none it is expired already
			return false, err
		}
		expires := storage.RoundTime(tx.now.Add(lifetime))
		var w writes
		w.put(tx, bucketStates, name, storage.EncodeState(&storage.State{Value: value, Version: 1, ExpiresAt: expires}))
		w.expire(tx, expires, kindState, name)
		return true, w.err
	})
	return stored && err == nil, err
}

// State returns a document that has not expired.
func (s *Store) State(ctx context.Context, kind storage.StateKind, key storage.Digest) (storage.State, error) {
	var state storage.State
	err := s.read(ctx, func(tx txn) error {
		row, found, err := getState(tx, storage.StateKey(kind, key))
		if err == nil && !found {
			err = storage.ErrNotFound
		}
		if err != nil {
			return err
		}
		row.Value = bytes.Clone(row.Value)
		state = row
		return nil
	})
	return state, err
}

// SwapState replaces the value of a document if it still has the given version.
func (s *Store) SwapState(
	ctx context.Context, kind storage.StateKind, key storage.Digest, version uint64, value []byte,
) (swapped bool, err error) {
	if len(value) > storage.MaxValueSize {
		return false, storage.ErrTooLarge
	}
	name := storage.StateKey(kind, key)
	value = bytes.Clone(value)
	err = s.write(ctx, func(tx txn) (bool, error) {
		swapped = false
		row, found, err := getState(tx, name)
		if err != nil || !found || row.Version != version {
			return false, err
		}
		swapped = true
		return true, put(tx, bucketStates, name, storage.EncodeState(&storage.State{Value: value, Version: version + 1, ExpiresAt: row.ExpiresAt}))
	})
	return swapped && err == nil, err
}

// getState returns a document that has not expired. Its value is borrowed from
// the transaction.
func getState(tx txn, name []byte) (state storage.State, found bool, err error) {
	state, found, err = decoded(tx, bucketStates, name, storage.DecodeState)
	return state, found && tx.now.Before(state.ExpiresAt), err
}
