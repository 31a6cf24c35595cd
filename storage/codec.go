package storage

import (
	"encoding/binary"
	"fmt"
	"time"
)

// ErrCorrupt means that stored bytes are not what this package wrote. It wraps
// ErrUnavailable: the engine holds something, but cannot answer from it.
var ErrCorrupt = fmt.Errorf("%w: a record is damaged", ErrUnavailable)

// Stored times are microseconds since 1970, which is also what PostgreSQL
// keeps. The zero time is 0.

// RoundTime returns t as it reads after having been stored.
func RoundTime(t time.Time) time.Time { return fromMicros(toMicros(t)) }

func toMicros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(t.UnixMicro(), 0)
}

func fromMicros(v int64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.UnixMicro(v).UTC()
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(toMicros(t)))
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

func appendDigest(b []byte, d Digest) []byte {
	if d.IsZero() {
		return append(b, 0)
	}
	return append(append(b, 1), d[:]...)
}

// reader takes a record apart. After the first fault it yields zero values and
// remembers that it failed. It accepts exactly the bytes that the append
// functions write, so every record has one form.
type reader struct {
	data []byte
	text string // the same bytes, where strings are taken from; one allocation for all
	at   int
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.data)-r.at {
		r.bad = true
		return nil
	}
	r.at += n
	return r.data[r.at-n : r.at]
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) bool() bool {
	b := r.byte()
	r.bad = r.bad || b > 1
	return b == 1
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) time() time.Time {
	b := r.take(8)
	if b == nil {
		return time.Time{}
	}
	v := int64(binary.BigEndian.Uint64(b))
	if v < 0 {
		r.bad = true
		return time.Time{}
	}
	return fromMicros(v)
}

// length reads the length of something that takes at least one byte per unit.
func (r *reader) length() int {
	if r.bad {
		return 0
	}
	v, n := binary.Uvarint(r.data[r.at:])
	if n <= 0 || n > 1 && r.data[r.at+n-1] == 0 || v > uint64(len(r.data)-r.at-n) {
		r.bad = true
		return 0
	}
	r.at += n
	return int(v)
}

func (r *reader) bytes() []byte { return r.take(r.length()) }

func (r *reader) string() string {
	n := r.length()
	if r.take(n) == nil {
		return ""
	}
	return r.text[r.at-n : r.at]
}

func (r *reader) strings() []string {
	n := r.length()
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.string()
	}
	return list
}

func (r *reader) digest() (d Digest) {
	if r.bool() {
		copy(d[:], r.take(len(d)))
		r.bad = r.bad || d.IsZero()
	}
	return d
}

func (r *reader) end() error {
	if r.bad || r.at != len(r.data) {
		return ErrCorrupt
	}
	return nil
}
