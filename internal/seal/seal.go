// Package seal encrypts what is kept at rest.
//
// A [Keyring] holds the operator's master keys: the first seals, all open. A
// [Box] seals under one key of its own, such as the key of one user, which is
// itself sealed by the keyring. Both use AES-256-GCM with a random nonce and
// bind the ciphertext to a purpose and to associated data, so that a value
// moved to another row or another use does not open.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// KeySize is the length in bytes of a master key and of a [Box] key.
const KeySize = 32

const (
	keyringVersion = 1
	boxVersion     = 2
	keyIDSize      = 4
)

var (
	// ErrUnknownKey means that a value was sealed by a master key that the
	// keyring does not hold.
	ErrUnknownKey = errors.New("seal: sealed by a master key that is not present")
	// ErrCorrupt means that a value was altered, moved to another place, or
	// is not a sealed value at all.
	ErrCorrupt = errors.New("seal: value does not open")
)

type masterKey struct {
	id  [keyIDSize]byte
	raw []byte
}

// Keyring seals and opens under the operator's master keys. It is safe for
// concurrent use.
type Keyring struct {
	keys []masterKey

	mu    sync.RWMutex
	aeads map[aeadKey]cipher.AEAD // derived per master key and purpose
}

type aeadKey struct {
	id      [keyIDSize]byte
	purpose string
}

// GenerateKey returns a new random master key in the form that [ParseKeyring]
// reads: standard base64 of 32 bytes.
func GenerateKey() string {
	raw := make([]byte, KeySize)
	rand.Read(raw)
	return base64.StdEncoding.EncodeToString(raw)
}

// ParseKeyring reads master keys, one per line, each standard base64 of 32
// bytes. Empty lines and lines starting with # are skipped. The error names
// the line and never its content.
func ParseKeyring(text []byte) (*Keyring, error) {
	ring := &Keyring{aeads: make(map[aeadKey]cipher.AEAD)}
	for i, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(string(line))
		if err != nil || len(raw) != KeySize {
			return nil, fmt.Errorf("master key: line %d is not the base64 of %d bytes", i+1, KeySize)
		}
		key := masterKey{raw: raw}
		sum := sha256.Sum256(append([]byte("wxidp master key id\x00"), raw...))
		copy(key.id[:], sum[:])
		for _, other := range ring.keys {
			if other.id == key.id {
				return nil, fmt.Errorf("master key: line %d repeats an earlier key", i+1)
			}
		}
		ring.keys = append(ring.keys, key)
	}
	if len(ring.keys) == 0 {
		return nil, errors.New("master key: no key found; expected the base64 of 32 bytes")
	}
	return ring, nil
}

// Seal encrypts plaintext under the first master key, bound to purpose and aad.
func (k *Keyring) Seal(purpose string, aad, plaintext []byte) []byte {
	key := k.keys[0]
	out := make([]byte, 0, 1+keyIDSize+12+len(plaintext)+16)
	out = append(out, keyringVersion)
	out = append(out, key.id[:]...)
	return sealTo(out, k.aead(key, purpose), bind(purpose, aad), plaintext)
}

// Open decrypts what [Keyring.Seal] made with the same purpose and aad under
// any of the master keys. It returns [ErrUnknownKey] or [ErrCorrupt].
func (k *Keyring) Open(purpose string, aad, sealed []byte) ([]byte, error) {
	key, rest, err := k.sealer(sealed)
	if err != nil {
		return nil, err
	}
	return openFrom(rest, k.aead(key, purpose), bind(purpose, aad))
}

// NeedsRewrap reports whether sealed was made under another master key than
// the first one.
func (k *Keyring) NeedsRewrap(sealed []byte) bool {
	key, _, err := k.sealer(sealed)
	return err == nil && key.id != k.keys[0].id
}

func (k *Keyring) sealer(sealed []byte) (masterKey, []byte, error) {
	if len(sealed) < 1+keyIDSize || sealed[0] != keyringVersion {
		return masterKey{}, nil, ErrCorrupt
	}
	for _, key := range k.keys {
		if bytes.Equal(key.id[:], sealed[1:1+keyIDSize]) {
			return key, sealed[1+keyIDSize:], nil
		}
	}
	return masterKey{}, nil, ErrUnknownKey
}

func (k *Keyring) aead(key masterKey, purpose string) cipher.AEAD {
	at := aeadKey{key.id, purpose}
	k.mu.RLock()
	aead := k.aeads[at]
	k.mu.RUnlock()
	if aead != nil {
		return aead
	}
	derived, err := hkdf.Key(sha256.New, key.raw, nil, "wxidp/"+purpose, KeySize)
	if err != nil {
		panic(err) // only for impossible lengths
	}
	aead = newAEAD(derived)
	k.mu.Lock()
	k.aeads[at] = aead
	k.mu.Unlock()
	return aead
}

// Box seals under one 32-byte key.
type Box struct{ aead cipher.AEAD }

// NewBox returns a Box over key. It returns an error unless key is 32 bytes.
func NewBox(key []byte) (*Box, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("seal: key of %d bytes, want %d", len(key), KeySize)
	}
	return &Box{newAEAD(key)}, nil
}

// Seal encrypts plaintext, bound to purpose and aad.
func (b *Box) Seal(purpose string, aad, plaintext []byte) []byte {
	out := make([]byte, 0, 1+12+len(plaintext)+16)
	return sealTo(append(out, boxVersion), b.aead, bind(purpose, aad), plaintext)
}

// Open decrypts what [Box.Seal] made with the same purpose and aad. It
// returns [ErrCorrupt] for anything else.
func (b *Box) Open(purpose string, aad, sealed []byte) ([]byte, error) {
	if len(sealed) < 1 || sealed[0] != boxVersion {
		return nil, ErrCorrupt
	}
	return openFrom(sealed[1:], b.aead, bind(purpose, aad))
}

func newAEAD(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for impossible key lengths
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func sealTo(out []byte, aead cipher.AEAD, aad, plaintext []byte) []byte {
	at := len(out)
	out = out[:at+aead.NonceSize()]
	rand.Read(out[at:])
	return aead.Seal(out, out[at:], plaintext, aad)
}

func openFrom(sealed []byte, aead cipher.AEAD, aad []byte) ([]byte, error) {
	if len(sealed) < aead.NonceSize() {
		return nil, ErrCorrupt
	}
	plaintext, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], aad)
	if err != nil {
		return nil, ErrCorrupt
	}
	return plaintext, nil
}

// bind joins purpose and aad so that no two pairs read the same.
func bind(purpose string, aad []byte) []byte {
	out := make([]byte, 0, 4+len(purpose)+len(aad))
	out = binary.BigEndian.AppendUint32(out, uint32(len(purpose)))
	out = append(out, purpose...)
	return append(out, aad...)
}
