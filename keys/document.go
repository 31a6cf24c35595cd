package keys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

const documentVersion = 1

// The states of a key, in the order it goes through them.
const (
	StateNext     = "next"     // published, not yet signing
	StateCurrent  = "current"  // signing
	StatePrevious = "previous" // still verifying what it signed
)

// algorithms in the order of the JWK Set and of List.
var algorithms = [...]string{ES256, RS256, EdDSA, MAC}

// document is what the store keeps. Only the keys themselves are sealed: who
// writes to the store can delay a rotation or drop a key, but can neither read
// one nor put one of their own in its place.
type document struct {
	Version int `json:"version"`
	// LastMAC is the highest MAC key id ever given; ids are not reused.
	LastMAC uint32 `json:"last_mac"`
	// MaxAge is the longest max-age, in seconds, that a JWK Set still cached
	// somewhere was sent with. Where the settings ask for less, it follows at
	// MaxAgeUntil, when those caches have run out.
	MaxAge      int64     `json:"max_age"`
	MaxAgeUntil time.Time `json:"max_age_until,omitzero"`
	Keys        []*record `json:"keys"`

	first bool // just created: its first keys sign at once
}

type record struct {
	ID     string `json:"id"` // RFC 7638 thumbprint, or mac-N
	Alg    string `json:"alg"`
	State  string `json:"state"`
	Sealed []byte `json:"sealed"` // PKCS #8, or the 32 bytes of a MAC key

	CreatedAt time.Time `json:"created_at"`
	ServedAt  time.Time `json:"served_at,omitzero"`  // a running node was first known to serve it
	SigningAt time.Time `json:"signing_at,omitzero"` // became current
	RetiredAt time.Time `json:"retired_at,omitzero"` // became previous

	// Lifetime is the longest life, in seconds, of what it signed.
	Lifetime int64 `json:"lifetime,omitempty"`
	// Requested is set where an operator wants this current key rotated
	// before its time.
	Requested bool `json:"rotate_requested,omitempty"`
}

func decodeDocument(value []byte) (*document, error) {
	damaged := func(why string) error {
		return fmt.Errorf("keys: the stored key document is damaged (%s); nothing was changed", why)
	}
	var head struct {
		Version int `json:"version"`
	}
	if json.Unmarshal(value, &head) == nil && head.Version != documentVersion {
		return nil, fmt.Errorf("keys: the stored key document has version %d, this program knows version %d; nothing was changed",
			head.Version, documentVersion)
	}
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.DisallowUnknownFields()
	d := new(document)
	if err := decoder.Decode(d); err != nil {
		return nil, damaged("not the expected JSON at byte " + strconv.FormatInt(decoder.InputOffset(), 10))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, damaged("more than one JSON value")
	}
	if why := d.fault(); why != "" {
		return nil, damaged(why)
	}
	return d, nil
}

// fault says what is wrong with the document, or nothing.
func (d *document) fault() string {
	if d.MaxAge < 0 {
		return "negative max_age"
	}
	seen := make(map[string]bool)
	for i, rec := range d.Keys {
		if rec == nil {
			return fmt.Sprintf("key %d is null", i)
		}
		if why := rec.fault(d.LastMAC); why != "" {
			return fmt.Sprintf("key %d: %s", i, why)
		}
		slot := rec.Alg + " " + rec.State
		if seen[rec.ID] || (rec.State != StatePrevious && seen[slot]) {
			return fmt.Sprintf("key %d is there twice, as %s", i, slot)
		}
		seen[rec.ID], seen[slot] = true, true
	}
	return ""
}

func (rec *record) fault(lastMAC uint32) string {
	if !slices.Contains(algorithms[:], rec.Alg) {
		return "unknown alg"
	}
	if id, isMAC := rec.macID(); isMAC != (rec.Alg == MAC) || id > lastMAC || rec.ID == "" {
		return "id does not fit"
	}
	if len(rec.Sealed) == 0 || rec.CreatedAt.IsZero() || rec.Lifetime < 0 {
		return "incomplete"
	}
	signing, retired := !rec.SigningAt.IsZero(), !rec.RetiredAt.IsZero()
	switch rec.State {
	case StateNext:
		if signing || retired {
			return "times do not fit its state"
		}
	case StateCurrent:
		if !signing || retired {
			return "times do not fit its state"
		}
	case StatePrevious:
		if !signing || !retired {
			return "times do not fit its state"
		}
	default:
		return "unknown state"
	}
	return ""
}

// macID is the number in the id of a MAC key. A thumbprint cannot be mistaken
// for one: it is 43 characters long.
func (rec *record) macID() (uint32, bool) {
	digits, ok := strings.CutPrefix(rec.ID, "mac-")
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || id == 0 || macName(uint32(id)) != rec.ID {
		return 0, false
	}
	return uint32(id), true
}

func macName(id uint32) string { return "mac-" + strconv.FormatUint(uint64(id), 10) }

func (d *document) encode() ([]byte, error) {
	if why := d.fault(); why != "" {
		return nil, errors.New("keys: refusing to write a faulty key document: " + why)
	}
	return json.Marshal(d)
}

// clone copies all but the sealed bytes, which are only ever replaced whole.
func (d *document) clone() *document {
	out := *d
	out.Keys = make([]*record, len(d.Keys))
	for i, rec := range d.Keys {
		rec := *rec
		out.Keys[i] = &rec
	}
	return &out
}

func (d *document) byID(id string) *record {
	for _, rec := range d.Keys {
		if rec.ID == id {
			return rec
		}
	}
	return nil
}

// only returns the one key of alg in state, which must be next or current, or nil.
func (d *document) only(alg, state string) *record {
	for _, rec := range d.Keys {
		if rec.Alg == alg && rec.State == state {
			return rec
		}
	}
	return nil
}

func (d *document) remove(rec *record) {
	d.Keys = slices.DeleteFunc(d.Keys, func(other *record) bool { return other == rec })
}

// sorted returns the keys by algorithm, then current, next, previous (the
// latest retired first), so that the JWK Set changes only when its members do.
func (d *document) sorted() []*record {
	states := []string{StateCurrent, StateNext, StatePrevious}
	out := slices.Clone(d.Keys)
	slices.SortStableFunc(out, func(a, b *record) int {
		if by := slices.Index(algorithms[:], a.Alg) - slices.Index(algorithms[:], b.Alg); by != 0 {
			return by
		}
		if by := slices.Index(states, a.State) - slices.Index(states, b.State); by != 0 {
			return by
		}
		return b.RetiredAt.Compare(a.RetiredAt)
	})
	return out
}

// seconds rounds up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
