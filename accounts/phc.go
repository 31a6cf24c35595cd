package accounts

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// What a hash from elsewhere may cost at most. A stored hash decides how much
// memory and time a sign-in takes, so that an import must not bring any. One
// check must end within DefaultFailureTime on common hardware: what takes
// longer tells that the account exists.
const (
	maxArgon2Memory  = 256 << 10 // KiB
	maxArgon2Weight  = 256 << 10 // KiB passed over
	maxArgon2Passes  = 16
	maxArgon2Lanes   = 16
	minBcryptCost    = 4
	maxBcryptCost    = 12
	bcryptHashLength = 60
)

const (
	algArgon2id = "argon2id"
	algArgon2i  = "argon2i"
	algBcrypt   = "bcrypt"
)

// argon2Params are the costs of RFC 9106 §3.1.
type argon2Params struct {
	memory uint32 // KiB
	passes uint32
	lanes  uint8
}

// weight is the work of one hash, in KiB passed over.
func (p argon2Params) weight() uint32 { return p.memory * p.passes }

// hash is a parsed password hash.
type hash struct {
	algorithm string
	argon2Params
	salt, key []byte // of argon2
	encoded   string // of bcrypt
}

var errHash = errors.New("accounts: not a password hash that can be checked: argon2id or argon2i as a PHC string " +
	"(v=19, m*t<=262144, t<=16, p<=16), or bcrypt ($2a$, $2b$ or $2y$, cost 4 to 12)")

// CheckHash reports whether a password hash from elsewhere can be stored and
// checked here: argon2id or argon2i as a PHC string of version 19 with at most
// 256 MiB (memory times passes), 16 passes and 16 lanes, or bcrypt ($2a$, $2b$,
// $2y$) of cost 4 to 12. The error does not repeat the hash.
func CheckHash(encoded string) error {
	_, err := parseHash(encoded)
	return err
}

func parseHash(encoded string) (hash, error) {
	if strings.HasPrefix(encoded, "$2") {
		return parseBcrypt(encoded)
	}
	return parseArgon2(encoded)
}

// parseArgon2 reads $argon2id$v=19$m=…,t=…,p=…$salt$key in the one spelling
// that writers of PHC strings agree on.
func parseArgon2(encoded string) (hash, error) {
	if len(encoded) > 512 {
		return hash{}, errHash
	}
	parts := strings.Split(encoded, "$")
	if len(parts) != 6 || parts[0] != "" || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return hash{}, errHash
	}
	h := hash{algorithm: parts[1]}
	if h.algorithm != algArgon2id && h.algorithm != algArgon2i {
		return hash{}, errHash
	}
	costs := strings.Split(parts[3], ",")
	if len(costs) != 3 {
		return hash{}, errHash
	}
	memory, okMemory := cost(costs[0], "m=", maxArgon2Memory)
	passes, okPasses := cost(costs[1], "t=", maxArgon2Passes)
	lanes, okLanes := cost(costs[2], "p=", maxArgon2Lanes)
	if !okMemory || !okPasses || !okLanes || memory < 8*lanes { // RFC 9106 §3.1
		return hash{}, errHash
	}
	h.argon2Params = argon2Params{memory: memory, passes: passes, lanes: uint8(lanes)}
	if h.weight() > maxArgon2Weight {
		return hash{}, errHash
	}
	var okSalt, okKey bool
	h.salt, okSalt = unbase64(parts[4], 8, 64)
	h.key, okKey = unbase64(parts[5], 16, 64)
	if !okSalt || !okKey {
		return hash{}, errHash
	}
	return h, nil
}

// cost reads name and a number of 1 to limit without leading zeros.
func cost(s, name string, limit uint32) (uint32, bool) {
	digits, ok := strings.CutPrefix(s, name)
	if !ok || digits == "" || digits[0] < '1' || digits[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n > uint64(limit) {
		return 0, false
	}
	return uint32(n), true
}

func unbase64(s string, atLeast, atMost int) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") { // which the decoder would skip
		return nil, false
	}
	b, err := base64.RawStdEncoding.Strict().DecodeString(s)
	return b, err == nil && len(b) >= atLeast && len(b) <= atMost
}

// encodePHC writes an argon2id hash as a PHC string.
func encodePHC(p argon2Params, salt, key []byte) string {
	b := make([]byte, 0, 128)
	b = append(b, "$"+algArgon2id+"$v="...)
	b = strconv.AppendInt(b, argon2.Version, 10)
	b = append(b, "$m="...)
	b = strconv.AppendUint(b, uint64(p.memory), 10)
	b = append(b, ",t="...)
	b = strconv.AppendUint(b, uint64(p.passes), 10)
	b = append(b, ",p="...)
	b = strconv.AppendUint(b, uint64(p.lanes), 10)
	b = append(b, '$')
	b = base64.RawStdEncoding.AppendEncode(b, salt)
	b = append(b, '$')
	return string(base64.RawStdEncoding.AppendEncode(b, key))
}

func parseBcrypt(encoded string) (hash, error) {
	if len(encoded) != bcryptHashLength || encoded[3] != '$' || encoded[6] != '$' ||
		strings.IndexByte("aby", encoded[2]) < 0 {
		return hash{}, errHash
	}
	rounds, err := strconv.ParseUint(encoded[4:6], 10, 8)
	if err != nil || rounds < minBcryptCost || rounds > maxBcryptCost {
		return hash{}, errHash
	}
	for _, c := range []byte(encoded[7:]) {
		if c != '.' && c != '/' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return hash{}, errHash
		}
	}
	return hash{algorithm: algBcrypt, encoded: encoded}, nil
}
