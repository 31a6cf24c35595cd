package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// itemKey gives keys of any length and content one form, apart for each kind.
func itemKey(kind storage.ItemKind, key []byte) storage.Digest {
	return sha256.Sum256(append([]byte{byte(kind)}, key...))
}

// PutIfAbsent stores a single-use item for lifetime.
func (s *Store) PutIfAbsent(ctx context.Context, kind storage.ItemKind, key, value []byte, lifetime time.Duration) (stored bool, err error) {
	if len(value) > storage.MaxValueSize {
		return false, storage.ErrTooLarge
	}
	id := itemKey(kind, key)
	value = bytes.Clone(value)
	err = s.write(ctx, func(tx txn) (bool, error) {
		stored = false
		old, err := getItem(tx, id)
		if err != nil || old != nil && tx.now.Before(old.expires) {
			return false, err
		}
		stored = true
		if lifetime <= 0 {
			return false, nil // expired already
		}
		row := itemRow{expires: storage.RoundTime(tx.now.Add(lifetime)), value: value}
		var w writes
		w.put(tx, bucketItems, id[:], row.encode())
		w.expire(tx, row.expires, kindItem, id[:])
		return true, w.err
	})
	return stored && err == nil, err
}

// Consume takes a single-use item. Its key stays taken and its value goes.
func (s *Store) Consume(ctx context.Context, kind storage.ItemKind, key []byte) (value []byte, verdict storage.ConsumeVerdict, err error) {
	id := itemKey(kind, key)
	err = s.write(ctx, func(tx txn) (bool, error) {
		value, verdict = nil, storage.ConsumeMissing
		item, err := getItem(tx, id)
		if err != nil || item == nil || !tx.now.Before(item.expires) {
			return false, err
		}
		if item.used {
			verdict = storage.ConsumeUsed
			return false, nil
		}
		value, verdict = bytes.Clone(item.value), storage.ConsumeOK
		spent := itemRow{expires: item.expires, used: true}
		return true, put(tx, bucketItems, id[:], spent.encode())
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
	err = s.read(ctx, func(tx txn) error {
		value, version, err = getRecord(tx, name)
		return err
	})
	return value, version, err
}

// SwapRecord replaces a versioned document if it still has the given version.
func (s *Store) SwapRecord(ctx context.Context, name string, version uint64, value []byte) (swapped bool, err error) {
	if len(value) > storage.MaxValueSize {
		return false, storage.ErrTooLarge
	}
	if name == "" || len(name) > maxRecordName {
		return false, fmt.Errorf("%w: a document's name has 1 to %d bytes", storage.ErrTooLarge, maxRecordName)
	}
	data := encodeRecord(version+1, value)
	err = s.write(ctx, func(tx txn) (bool, error) {
		swapped = false
		_, present, err := getRecord(tx, name)
		if err != nil || present != version {
			return false, err
		}
		swapped = true
		return true, put(tx, bucketRecords, []byte(name), data)
	})
	return swapped && err == nil, err
}
