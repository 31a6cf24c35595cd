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
		old, found, err := getItem(tx, id)
		if err != nil || found && tx.now.Before(old.ExpiresAt) {
			return false, err
		}
		stored = true
		if lifetime <= 0 {
			return false, nil // expired already
		}
		item := storage.ItemRecord{ExpiresAt: storage.RoundTime(tx.now.Add(lifetime)), Value: value}
		var w writes
		w.put(tx, bucketItems, id[:], storage.EncodeItem(&item))
		w.expire(tx, item.ExpiresAt, kindItem, id[:])
		return true, w.err
	})
	return stored && err == nil, err
}

// Consume takes a single-use item. Its key stays taken and its value goes.
func (s *Store) Consume(ctx context.Context, kind storage.ItemKind, key []byte) (value []byte, verdict storage.ConsumeVerdict, err error) {
	id := itemKey(kind, key)
	err = s.write(ctx, func(tx txn) (bool, error) {
		value, verdict = nil, storage.ConsumeMissing
		item, found, err := getItem(tx, id)
		if err != nil || !found || !tx.now.Before(item.ExpiresAt) {
			return false, err
		}
		if item.Used {
			verdict = storage.ConsumeUsed
			return false, nil
		}
		value, verdict = bytes.Clone(item.Value), storage.ConsumeOK
		spent := storage.ItemRecord{ExpiresAt: item.ExpiresAt, Used: true}
		return true, put(tx, bucketItems, id[:], storage.EncodeItem(&spent))
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
	data := storage.EncodeDocument(&storage.Document{Version: version + 1, Value: value})
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
