package storage

import (
	"encoding/binary"
	"fmt"
	"time"
)

const (
	sessionKeysVersion = 1
	clientVersion      = 1
)

// maxSessionKeys is how many session_keys an identity has in custody: the
// current one, and the one before it, under which a mini-program may have
// encrypted something that is still on its way.
const maxSessionKeys = 2

// SessionKeyRecord is one session_key in custody as it is stored.
type SessionKeyRecord struct {
	At        time.Time // when it was taken into custody
	ExpiresAt time.Time
	Sealed    []byte // under the user's key, bound to the identity
}

// EncodeSessionKeys returns the stored form of an identity's session_keys,
// newest first.
func EncodeSessionKeys(keys []SessionKeyRecord) []byte {
	b := make([]byte, 0, 2+len(keys)*96)
	b = append(b, sessionKeysVersion, byte(len(keys)))
	for _, k := range keys {
		b = appendTime(b, k.At)
		b = appendTime(b, k.ExpiresAt)
		b = appendBytes(b, k.Sealed)
	}
	return b
}

// DecodeSessionKeys reads what EncodeSessionKeys wrote, or returns ErrCorrupt.
// Sealed values of the result are parts of data.
func DecodeSessionKeys(data []byte) ([]SessionKeyRecord, error) {
	r := reader{data: data}
	r.bad = r.byte() != sessionKeysVersion
	n := int(r.byte())
	if r.bad || n > maxSessionKeys {
		return nil, ErrCorrupt
	}
	keys := make([]SessionKeyRecord, n)
	for i := range keys {
		keys[i] = SessionKeyRecord{At: r.time(), ExpiresAt: r.time(), Sealed: r.bytes()}
	}
	return keys, r.end()
}

// ExpireSessionKeys drops what has expired from an identity's session_keys.
// next is when to look again; it is zero where none is left.
func ExpireSessionKeys(keys []SessionKeyRecord, now time.Time) (left []SessionKeyRecord, next time.Time) {
	left = make([]SessionKeyRecord, 0, len(keys))
	for _, k := range keys {
		if !now.Before(k.ExpiresAt) {
			continue
		}
		left = append(left, k)
		if next.IsZero() || k.ExpiresAt.Before(next) {
			next = k.ExpiresAt
		}
	}
	return left, next
}

// ClientState is what a judgement needs to know of a family's client. A client
// whose families were never ended has no record and the zero state.
type ClientState struct {
	Epoch       uint32
	EndedAt     time.Time
	EndedReason string
}

// EndFamilies raises the epoch, which ends all families that the client has.
func (c *ClientState) EndFamilies(now time.Time, reason string) error {
	if c.Epoch+1 == 0 {
		return fmt.Errorf("%w: the client's epoch cannot be raised further", ErrUnavailable)
	}
	c.Epoch++
	c.EndedAt, c.EndedReason = RoundTime(now), reason
	return nil
}

// EncodeClient returns the stored form of a client's state.
func EncodeClient(c *ClientState) []byte {
	b := make([]byte, 0, 16+len(c.EndedReason))
	b = append(b, clientVersion)
	b = binary.BigEndian.AppendUint32(b, c.Epoch)
	b = appendTime(b, c.EndedAt)
	return appendString(b, c.EndedReason)
}

// DecodeClient reads what EncodeClient wrote, or returns ErrCorrupt.
func DecodeClient(data []byte) (ClientState, error) {
	r := reader{data: data}
	r.bad = r.byte() != clientVersion
	c := ClientState{Epoch: r.uint32(), EndedAt: r.time()}
	c.EndedReason = string(r.bytes())
	if err := r.end(); err != nil {
		return ClientState{}, err
	}
	return c, nil
}
