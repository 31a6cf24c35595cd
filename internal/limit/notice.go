package limit

import (
	"encoding/binary"
	"errors"
)

// The bounds of what one node tells in one round.
const (
	maxBody    = 64 << 10 // bytes, before sealing
	maxName    = 64       // bytes of a ledger's name
	maxKeySize = 256      // bytes of a key; longer ones are not told
	maxCount   = 1 << 24  // events of one key
)

// bodyVersion begins a body. A body is sections, each a ledger's name followed
// by entries and an empty key; an entry is a key and a count. Names and keys
// have their length in front, counts are signed varints.
const bodyVersion = 1

var errBody = errors.New("limit: a notice cannot be read")

// body is a notice being written.
type body struct{ data []byte }

func newBody() *body { return &body{data: []byte{bodyVersion}} }

// section appends what ledger has to tell, at most allowance bytes.
func (b *body) section(name string, ledger Ledger, allowance int) {
	limit := len(b.data) + allowance
	entries := 0
	ledger.Tell(func(key string, n int64) bool {
		if key == "" || len(key) > maxKeySize || n == 0 {
			return true
		}
		n = min(max(n, -maxCount), maxCount)
		grown := b.data
		if entries == 0 {
			grown = appendText(grown, name)
		}
		grown = binary.AppendVarint(appendText(grown, key), n)
		if len(grown)+1 > limit {
			return false
		}
		b.data = grown
		entries++
		return true
	})
	if entries > 0 {
		b.data = append(b.data, 0)
	}
}

// empty reports whether there is nothing to tell.
func (b *body) empty() bool { return len(b.data) == 1 }

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// heard is one entry of another node's notice.
type heard struct {
	ledger, key string
	n           int64
}

// parseBody reads a notice whole, or returns errBody.
func parseBody(data []byte) (entries []heard, err error) {
	if len(data) == 0 || len(data) > maxBody || data[0] != bodyVersion {
		return nil, errBody
	}
	r := reader{rest: data[1:]}
	for len(r.rest) > 0 && !r.bad {
		name := r.text(maxName)
		if name == "" {
			return nil, errBody
		}
		for key := r.text(maxKeySize); key != ""; key = r.text(maxKeySize) {
			entries = append(entries, heard{name, key, r.count()})
		}
	}
	if r.bad {
		return nil, errBody
	}
	return entries, nil
}

// reader reads the parts of a body. After a bad one it returns zero values.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) text(most uint64) string {
	n, size := binary.Uvarint(r.rest)
	if r.bad || size <= 0 || n > most || n > uint64(len(r.rest)-size) {
		r.bad = true
		return ""
	}
	s := string(r.rest[size : size+int(n)])
	r.rest = r.rest[size+int(n):]
	return s
}

func (r *reader) count() int64 {
	n, size := binary.Varint(r.rest)
	if r.bad || size <= 0 || n == 0 || n > maxCount || n < -maxCount {
		r.bad = true
		return 0
	}
	r.rest = r.rest[size:]
	return n
}
