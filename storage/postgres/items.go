package postgres

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
)

// itemKey gives keys of any length and content one form, apart for each kind.
func itemKey(kind storage.ItemKind, key []byte) []byte {
	sum := sha256.Sum256(append([]byte{byte(kind)}, key...))
	return sum[:]
}

// PutIfAbsent stores a single-use item for lifetime.
func (s *Store) PutIfAbsent(ctx context.Context, kind storage.ItemKind, key, value []byte, lifetime time.Duration) (stored bool, err error) {
	if len(value) > storage.MaxValueSize {
		return false, storage.ErrTooLarge
	}
	id := itemKey(kind, key)
	if lifetime <= 0 { // expired already
		err := s.readRow(ctx, `SELECT NOT EXISTS (SELECT FROM items WHERE id = $1 AND expires_at > clock_timestamp())`, []any{id}, &stored)
		return stored && err == nil, err
	}
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tag, err := c.Exec(ctx, s.sql(`INSERT INTO items AS old (id, used, value, expires_at) VALUES ($1, false, $2, clock_timestamp() + $3::interval)
			ON CONFLICT (id) DO UPDATE SET used = false, value = excluded.value, expires_at = excluded.expires_at
			WHERE old.expires_at <= clock_timestamp()`), id, filled(value), lifetime)
		if stored = err == nil && tag.RowsAffected() == 1; stored {
			s.wrote(ctx, 1)
		}
		return err
	})
	return stored && err == nil, err
}

// filled returns a value that is not NULL.
func filled(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// Consume takes a single-use item. Its key stays taken and its value goes.
func (s *Store) Consume(ctx context.Context, kind storage.ItemKind, key []byte) (value []byte, verdict storage.ConsumeVerdict, err error) {
	id := itemKey(kind, key)
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		value = nil
		err := c.QueryRow(ctx, s.sql(`WITH live AS (SELECT id, value FROM items WHERE id = $1 AND NOT used AND expires_at > clock_timestamp() FOR UPDATE)
			UPDATE items i SET used = true, value = '' FROM live WHERE i.id = live.id RETURNING live.value`), id).Scan(&value)
		if err == nil {
			verdict = storage.ConsumeOK
			s.wrote(ctx, 1)
			return nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		var used bool
		err = c.QueryRow(ctx, s.sql(`SELECT used FROM items WHERE id = $1 AND expires_at > clock_timestamp()`), id).Scan(&used)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			verdict = storage.ConsumeMissing
			return nil
		case err == nil && !used:
			return errAgain // stored since
		}
		verdict = storage.ConsumeUsed
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return value, verdict, nil
}

// maxRecordName is the longest name of a document, in bytes.
const maxRecordName = 256

// Record returns a versioned document.
func (s *Store) Record(ctx context.Context, name string) (value []byte, version uint64, err error) {
	var stored int64
	err = s.readRow(ctx, `SELECT version, value FROM records WHERE name = $1`, []any{text(name)}, &stored, &value)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	return value, uint64(stored), nil
}

// SwapRecord replaces a versioned document if it still has the given version.
func (s *Store) SwapRecord(ctx context.Context, name string, version uint64, value []byte) (swapped bool, err error) {
	if len(value) > storage.MaxValueSize {
		return false, storage.ErrTooLarge
	}
	if name == "" || len(name) > maxRecordName {
		return false, fmt.Errorf("%w: a document's name has 1 to %d bytes", storage.ErrTooLarge, maxRecordName)
	}
	statement, args := `UPDATE records SET version = version + 1, value = $2 WHERE name = $1 AND version = $3`, []any{text(name), filled(value), int64(version)}
	if version == 0 {
		statement, args = `INSERT INTO records (name, version, value) VALUES ($1, 1, $2) ON CONFLICT (name) DO NOTHING`, args[:2]
	}
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tag, err := c.Exec(ctx, statement, args...)
		if swapped = err == nil && tag.RowsAffected() == 1; swapped {
			s.wrote(ctx, 1)
		}
		return err
	})
	return swapped && err == nil, err
}
