package storage

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync"

	"github.com/wxidp/wxidp/internal/seal"
)

// Digest is a SHA-256 or HMAC-SHA-256 value used as an index key.
type Digest [sha256.Size]byte

// IsZero reports whether the digest is unset.
func (d Digest) IsZero() bool { return d == Digest{} }

// Purposes that sealed values are bound to.
const (
	purposeIndexKey = "index key"
	purposeUserKey  = "user key"
)

// VaultRecord is the name of the versioned document that holds the sealed
// index key.
const VaultRecord = "vault"

// Vault turns personal values into index keys and sealed bytes. Index keys are
// HMACs under a random key that is made once and sealed under the master key;
// values are sealed under one random key per user, which is itself sealed
// under the master key, so that destroying that one key erases the person.
type Vault struct {
	keyring *seal.Keyring
	index   []byte
	macs    sync.Pool // of hash.Hash, keyed with index
}

// Records is the part of a Store that OpenVault needs.
type Records interface {
	Record(ctx context.Context, name string) (value []byte, version uint64, err error)
	SwapRecord(ctx context.Context, name string, version uint64, value []byte) (swapped bool, err error)
}

// OpenVault loads the index key, or makes it where records holds none. A
// master key that does not open it is an error: nothing is ever made anew.
func OpenVault(ctx context.Context, records Records, keyring *seal.Keyring) (*Vault, error) {
	for {
		sealed, version, err := records.Record(ctx, VaultRecord)
		if err != nil {
			return nil, fmt.Errorf("load index key: %w", err)
		}
		if version > 0 {
			index, err := keyring.Open(purposeIndexKey, nil, sealed)
			if errors.Is(err, seal.ErrUnknownKey) {
				return nil, errors.New("the stored data was sealed under another master key; restore that key or name the right one (nothing was changed)")
			}
			if err != nil {
				return nil, fmt.Errorf("open index key: %w", err)
			}
			return &Vault{keyring: keyring, index: index}, nil
		}
		index := make([]byte, seal.KeySize)
		rand.Read(index)
		swapped, err := records.SwapRecord(ctx, VaultRecord, 0, keyring.Seal(purposeIndexKey, nil, index))
		if err != nil {
			return nil, fmt.Errorf("store index key: %w", err)
		}
		if swapped {
			return &Vault{keyring: keyring, index: index}, nil
		}
	}
}

// RewrapIndexKey re-seals the value of VaultRecord under the first master key.
// It returns nil where that is already so.
func (v *Vault) RewrapIndexKey(sealed []byte) []byte {
	if !v.keyring.NeedsRewrap(sealed) {
		return nil
	}
	return v.keyring.Seal(purposeIndexKey, nil, v.index)
}

// OpenIDIndex is the index key of a WeChat identity.
func (v *Vault) OpenIDIndex(appID, weChatOpenID string) Digest {
	return v.digest("wechat openid", appID, weChatOpenID)
}

// UnionIDIndex is the index key of a unionid within one open platform.
func (v *Vault) UnionIDIndex(openPlatform, unionID string) Digest {
	return v.digest("wechat unionid", openPlatform, unionID)
}

// UsernameIndex is the index key of a canonical username.
func (v *Vault) UsernameIndex(username string) Digest { return v.digest("username", username) }

// PhoneIndex is the index key of a phone number in E.164 form.
func (v *Vault) PhoneIndex(e164 string) Digest { return v.digest("phone", e164) }

// ExternalIDIndex is the index key of a user's id in the product's own system.
func (v *Vault) ExternalIDIndex(id string) Digest { return v.digest("external id", id) }

// HandleIndex is the index key of a username, phone number or external id;
// zero for another kind.
func (v *Vault) HandleIndex(kind IndexKind, value string) Digest {
	switch kind {
	case IndexUsername:
		return v.UsernameIndex(value)
	case IndexPhone:
		return v.PhoneIndex(value)
	case IndexExternalID:
		return v.ExternalIDIndex(value)
	}
	return Digest{}
}

func (v *Vault) digest(parts ...string) Digest {
	mac, ok := v.macs.Get().(hash.Hash)
	if !ok {
		mac = hmac.New(sha256.New, v.index)
	}
	defer v.macs.Put(mac)
	mac.Reset()
	message := make([]byte, 0, 128)
	for _, part := range parts {
		message = binary.BigEndian.AppendUint32(message, uint32(len(part)))
		message = append(message, part...)
	}
	mac.Write(message)
	var out Digest
	mac.Sum(out[:0])
	return out
}

// NewUserID returns a random user id of 22 base64url characters, the first of
// which is no hyphen: a command line would take it for a flag. Client ids of
// that form are refused, so that no client's sub can be mistaken for a user's.
func NewUserID() string {
	for {
		var raw [16]byte
		rand.Read(raw[:])
		if id := base64.RawURLEncoding.EncodeToString(raw[:]); id[0] != '-' {
			return id
		}
	}
}

// NewUserKey makes the key of a user and returns it sealed, with a box to use.
func (v *Vault) NewUserKey(userID string) (sealed []byte, box *seal.Box) {
	raw := make([]byte, seal.KeySize)
	rand.Read(raw)
	box, err := seal.NewBox(raw)
	if err != nil {
		panic(err) // only for an impossible key size
	}
	return v.keyring.Seal(purposeUserKey, []byte(userID), raw), box
}

// OpenUserKey opens a user's sealed key.
func (v *Vault) OpenUserKey(userID string, sealed []byte) (*seal.Box, error) {
	raw, err := v.keyring.Open(purposeUserKey, []byte(userID), sealed)
	if err != nil {
		return nil, fmt.Errorf("open user key: %w", err)
	}
	return seal.NewBox(raw)
}

// RewrapUserKey re-seals a user's key under the first master key. It returns
// nil where that is already so.
func (v *Vault) RewrapUserKey(userID string, sealed []byte) ([]byte, error) {
	if !v.keyring.NeedsRewrap(sealed) {
		return nil, nil
	}
	raw, err := v.keyring.Open(purposeUserKey, []byte(userID), sealed)
	if err != nil {
		return nil, fmt.Errorf("open user key: %w", err)
	}
	return v.keyring.Seal(purposeUserKey, []byte(userID), raw), nil
}
