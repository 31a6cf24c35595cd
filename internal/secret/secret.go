// Package secret holds values that must never be printed.
package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Mask is what every printed form of a secret looks like.
const Mask = "***"

// String is a secret that prints as *** through fmt, encoding/json,
// encoding (TextMarshaler, so also YAML) and log/slog. Reveal is the only way
// to its value, and Equal the only way to compare two.
//
// The value is kept behind a pointer because fmt calls no methods on unexported
// fields: inside one, it prints an address.
type String struct {
	_     [0]func() // == would compare addresses
	value *string
}

// New returns value as a secret.
func New(value string) String {
	if value == "" {
		return String{}
	}
	return String{value: &value}
}

// Reveal returns the value itself. Call it only where the value is sent to
// its rightful receiver or hashed.
func (s String) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return *s.value
}

// IsZero reports whether the secret is empty.
func (s String) IsZero() bool { return s.value == nil }

// Equal reports whether both secrets have the same value. It takes the same
// time wherever two values of one length differ.
func (s String) Equal(other String) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// String returns the mask.
func (s String) String() string { return Mask }

// GoString returns the mask, for %#v.
func (s String) GoString() string { return Mask }

// Format writes the mask for every verb and flag.
func (s String) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Mask)) }

// MarshalText returns the mask.
func (s String) MarshalText() ([]byte, error) { return []byte(Mask), nil }

// MarshalJSON returns the mask as a JSON string.
func (s String) MarshalJSON() ([]byte, error) { return []byte(`"` + Mask + `"`), nil }

// LogValue returns the mask.
func (s String) LogValue() slog.Value { return slog.StringValue(Mask) }
