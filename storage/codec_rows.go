package storage

import (
	"encoding/binary"
	"time"
)

// ItemRecord is a single-use item as it is stored.
type ItemRecord struct {
	ExpiresAt time.Time
	Used      bool
	Value     []byte
}

// EncodeItem returns the stored form of a single-use item.
func EncodeItem(i *ItemRecord) []byte {
	b := appendTime(make([]byte, 0, 9+len(i.Value)), i.ExpiresAt)
	return append(appendBool(b, i.Used), i.Value...)
}

// DecodeItem reads what EncodeItem wrote, or returns ErrCorrupt. Value of the
// result is part of data.
func DecodeItem(data []byte) (ItemRecord, error) {
	r := reader{data: data}
	i := ItemRecord{ExpiresAt: r.time(), Used: r.bool()}
	i.Value = r.rest()
	if err := r.end(); err != nil {
		return ItemRecord{}, err
	}
	return i, nil
}

// KeptIdempotency is an idempotency record as it is stored.
type KeptIdempotency struct {
	IdempotencyRecord
	ExpiresAt time.Time
}

// EncodeIdempotency returns the stored form of an idempotency record.
func EncodeIdempotency(k *KeptIdempotency) []byte {
	b := appendTime(make([]byte, 0, 8+len(k.Form)+len(k.FamilyID)), k.ExpiresAt)
	return append(append(b, k.Form[:]...), k.FamilyID[:]...)
}

// DecodeIdempotency reads what EncodeIdempotency wrote, or returns ErrCorrupt.
func DecodeIdempotency(data []byte) (KeptIdempotency, error) {
	r := reader{data: data}
	k := KeptIdempotency{ExpiresAt: r.time()}
	copy(k.Form[:], r.take(len(k.Form)))
	copy(k.FamilyID[:], r.take(len(k.FamilyID)))
	if err := r.end(); err != nil {
		return KeptIdempotency{}, err
	}
	return k, nil
}

// EncodeDenied returns the stored form of a denied jti: until when.
func EncodeDenied(until time.Time) []byte { return appendTime(nil, until) }

// DecodeDenied reads what EncodeDenied wrote, or returns ErrCorrupt.
func DecodeDenied(data []byte) (until time.Time, err error) {
	r := reader{data: data}
	until = r.time()
	return until, r.end()
}

// Document is a versioned document as it is stored.
type Document struct {
	Version uint64
	Value   []byte
}

// EncodeDocument returns the stored form of a versioned document.
func EncodeDocument(d *Document) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(d.Value)), d.Version), d.Value...)
}

// DecodeDocument reads what EncodeDocument wrote, or returns ErrCorrupt. Value
// of the result is part of data.
func DecodeDocument(data []byte) (Document, error) {
	r := reader{data: data}
	d := Document{Version: r.uint64()}
	d.Value = r.rest()
	if err := r.end(); err != nil {
		return Document{}, err
	}
	return d, nil
}

// EncodeState returns the stored form of an expiring document.
func EncodeState(s *State) []byte {
	b := appendTime(make([]byte, 0, 16+len(s.Value)), s.ExpiresAt)
	return append(binary.BigEndian.AppendUint64(b, s.Version), s.Value...)
}

// DecodeState reads what EncodeState wrote, or returns ErrCorrupt. Value of the
// result is part of data.
func DecodeState(data []byte) (State, error) {
	r := reader{data: data}
	s := State{ExpiresAt: r.time(), Version: r.uint64()}
	s.Value = r.rest()
	if err := r.end(); err != nil {
		return State{}, err
	}
	return s, nil
}

// EncodeKeptCode returns the stored form of a code with its KeepUntil.
func EncodeKeptCode(c *CodeRecord) []byte {
	return append(appendTime(nil, c.KeepUntil), EncodeCode(c)...)
}

// DecodeKeptCode reads what EncodeKeptCode wrote, or returns ErrCorrupt.
func DecodeKeptCode(data []byte) (CodeRecord, error) {
	r := reader{data: data}
	until := r.time()
	c, err := DecodeCode(r.rest())
	if err != nil || r.bad {
		return CodeRecord{}, ErrCorrupt
	}
	c.KeepUntil = until
	return c, nil
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// rest reads what is left.
func (r *reader) rest() []byte { return r.take(len(r.data) - r.at) }
