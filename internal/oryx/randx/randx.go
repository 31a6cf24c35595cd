// Package randx draws random character sequences.
package randx

import (
	"crypto/rand"
	"math/big"
)

// AlphaUpper is the upper-case Latin alphabet.
var AlphaUpper = []rune("ABCDEFGHIJKLMNOPQRSTUVWXYZ")

// RuneSequence returns length runes drawn uniformly from allowed, using the
// operating system's randomness.
func RuneSequence(length int, allowed []rune) ([]rune, error) {
	seq := make([]rune, length)
	size := big.NewInt(int64(len(allowed)))
	for i := range seq {
		n, err := rand.Int(rand.Reader, size)
		if err != nil {
			return nil, err
		}
		seq[i] = allowed[n.Int64()]
	}
	return seq, nil
}
