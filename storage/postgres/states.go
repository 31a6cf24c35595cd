package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
)

// PutState stores a document for lifetime.
func (s *Store) PutState(
	ctx context.Context, kind storage.StateKind, key storage.Digest, value []byte, lifetime time.Duration,
) (stored bool, err error) {
	if len(value) > storage.MaxValueSize {
		return false, storage.ErrTooLarge
	}
	if lifetime <= 0 { // expired already
		err := s.readRow(ctx, `SELECT NOT EXISTS (SELECT FROM states WHERE kind = $1 AND id = $2 AND expires_at > clock_timestamp())`,
			[]any{int16(kind), key[:]}, &stored)
		return stored && err == nil, err
	}
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tag, err := c.Exec(ctx, s.sql(`INSERT INTO states AS old (kind, id, version, value, expires_at) VALUES ($1, $2, 1, $3, clock_timestamp() + $4::interval)
			ON CONFLICT (kind, id) DO UPDATE SET version = 1, value = excluded.value, expires_at = excluded.expires_at
			WHERE old.expires_at <= clock_timestamp()`), int16(kind), key[:], filled(value), lifetime)
		if stored = err == nil && tag.RowsAffected() == 1; stored {
			s.wrote(ctx, 1)
		}
		return err
	})
	return stored && err == nil, err
}

// State returns a document that has not expired.
func (s *Store) State(ctx context.Context, kind storage.StateKind, key storage.Digest) (storage.State, error) {
	var state storage.State
	var version int64
	err := s.readRow(ctx, `SELECT version, value, expires_at FROM states WHERE kind = $1 AND id = $2 AND expires_at > clock_timestamp()`,
		[]any{int16(kind), key[:]}, &version, &state.Value, &state.ExpiresAt)
	if err != nil {
		return storage.State{}, err
	}
	state.Version, state.ExpiresAt = uint64(version), state.ExpiresAt.UTC()
	return state, nil
}

// SwapState replaces the value of a document if it still has the given version.
func (s *Store) SwapState(
	ctx context.Context, kind storage.StateKind, key storage.Digest, version uint64, value []byte,
) (swapped bool, err error) {
	if len(value) > storage.MaxValueSize {
		return false, storage.ErrTooLarge
	}
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tag, err := c.Exec(ctx, s.sql(`UPDATE states SET version = version + 1, value = $4
			WHERE kind = $1 AND id = $2 AND version = $3 AND expires_at > clock_timestamp()`), int16(kind), key[:], int64(version), filled(value))
		if swapped = err == nil && tag.RowsAffected() == 1; swapped {
			s.wrote(ctx, 1)
		}
		return err
	})
	return swapped && err == nil, err
}
