package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
)

const (
	// MaxTokenSize is the longest compact JWS, in bytes, that Sign makes and
	// Verify looks at.
	MaxTokenSize = 16 << 10

	maxHeader  = 1 << 10 // of an encoded JOSE header
	maxShownID = 64      // of a foreign kid in an error
	es256Half  = 32      // r and s of an ES256 signature, RFC 7518 section 3.4
)

var (
	// ErrInvalidToken is in every error of Verify. The text after it is for
	// the log; it holds nothing of the token but a kid, quoted and cut.
	ErrInvalidToken = errors.New("keys: invalid token")
	// ErrNoKey means that Sign has no key for the algorithm: unknown,
	// disabled, or enabled so recently that its first key is not yet
	// published long enough.
	ErrNoKey = errors.New("keys: no signing key")

	errUnknownKID = errors.New("unknown kid")
)

// usualTypes have their headers prepared: access tokens (RFC 9068), ID Tokens,
// Logout Tokens. Others work and cost a little more.
var usualTypes = [...]string{"at+jwt", "JWT", "logout+jwt"}

// b64 is the only spelling accepted: no padding, spare bits zero. CR and LF,
// which it skips, are refused beforehand.
var b64 = base64.RawURLEncoding.Strict()

// signingKey is one private key, ready to sign. It is never changed.
type signingKey struct {
	id, alg string
	signer  crypto.Signer
	headers map[string]string // encoded JOSE headers by typ, for usualTypes
}

func newSigningKey(id, alg string, signer crypto.Signer) *signingKey {
	key := &signingKey{id: id, alg: alg, signer: signer, headers: make(map[string]string, len(usualTypes))}
	for _, typ := range usualTypes {
		key.headers[typ] = key.encodeHeader(typ)
	}
	return key
}

func (k *signingKey) encodeHeader(typ string) string {
	header, err := json.Marshal(struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
		Typ string `json:"typ"`
	}{k.alg, k.id, typ})
	if err != nil {
		panic(err) // strings always encode
	}
	return b64.EncodeToString(header)
}

// Sign returns claims, which must be JSON, as a compact JWS made with the
// current key of alg and with typ in its header. It returns ErrNoKey where alg
// has no current key, and an error if the result would exceed MaxTokenSize.
func (r *Ring) Sign(alg, typ string, claims []byte) (string, error) {
	s := r.snap.Load()
	key := s.current[alg]
	if key == nil {
		return "", fmt.Errorf("%w for alg %.16q now", ErrNoKey, alg)
	}
	header, ok := key.headers[typ]
	if !ok {
		header = key.encodeHeader(typ)
	}
	size := len(header) + 1 + b64.EncodedLen(len(claims)) + 1
	out := make([]byte, 0, size+b64.EncodedLen(key.signatureSize()))
	out = append(out, header...)
	out = append(out, '.')
	out = b64.AppendEncode(out, claims)
	signature, err := key.sign(out)
	if err != nil {
		return "", err
	}
	out = append(out, '.')
	out = b64.AppendEncode(out, signature)
	if len(out) > MaxTokenSize {
		return "", fmt.Errorf("keys: a token of %d bytes exceeds the limit of %d", len(out), MaxTokenSize)
	}
	return string(out), nil
}

func (k *signingKey) signatureSize() int {
	if private, ok := k.signer.(*rsa.PrivateKey); ok {
		return private.Size()
	}
	return 2 * es256Half // Ed25519's too
}

func (k *signingKey) sign(input []byte) ([]byte, error) {
	switch private := k.signer.(type) {
	case *ecdsa.PrivateKey:
		digest := sha256.Sum256(input)
		der, err := ecdsa.SignASN1(rand.Reader, private, digest[:])
		if err != nil {
			return nil, fmt.Errorf("keys: signing with %s key %s failed", k.alg, k.id)
		}
		return fixedSize(der)
	case *rsa.PrivateKey:
		digest := sha256.Sum256(input)
		signature, err := rsa.SignPKCS1v15(nil, private, crypto.SHA256, digest[:])
		if err != nil {
			return nil, fmt.Errorf("keys: signing with %s key %s failed", k.alg, k.id)
		}
		return signature, nil
	case ed25519.PrivateKey:
		return ed25519.Sign(private, input), nil
	}
	return nil, fmt.Errorf("keys: key %s cannot sign", k.id)
}

var errForm = errors.New("keys: an ES256 signature has an unexpected form")

// fixedSize turns the DER of an ES256 signature, a SEQUENCE of two INTEGERs,
// into r and s of 32 bytes each (RFC 7518 section 3.4). Through big.Int it
// would cost a tenth of all that a signature allocates.
func fixedSize(der []byte) ([]byte, error) {
	if len(der) < 2 || der[0] != 0x30 || int(der[1]) != len(der)-2 {
		return nil, errForm
	}
	der = der[2:]
	out := make([]byte, 2*es256Half)
	for _, half := range [][]byte{out[:es256Half], out[es256Half:]} {
		if len(der) < 2 || der[0] != 0x02 || int(der[1]) > len(der)-2 {
			return nil, errForm
		}
		number := der[2 : 2+der[1]]
		der = der[2+der[1]:]
		if len(number) == es256Half+1 && number[0] == 0 {
			number = number[1:] // the sign of a number whose first bit is set
		}
		if len(number) > es256Half {
			return nil, errForm
		}
		copy(half[es256Half-len(number):], number)
	}
	if len(der) != 0 {
		return nil, errForm
	}
	return out, nil
}

func (k *signingKey) verifies(input, signature []byte) bool {
	switch public := k.signer.Public().(type) {
	case *ecdsa.PublicKey:
		if len(signature) != 2*es256Half {
			return false
		}
		digest := sha256.Sum256(input)
		x := new(big.Int).SetBytes(signature[:es256Half])
		y := new(big.Int).SetBytes(signature[es256Half:])
		return ecdsa.Verify(public, digest[:], x, y)
	case *rsa.PublicKey:
		digest := sha256.Sum256(input)
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(public, input, signature)
	}
	return false
}

// Verified is what a token says whose signature is right.
type Verified struct {
	Alg, KeyID, Type string
	Payload          []byte // not looked at: expiry, issuer and audience are the caller's to judge
}

// Verify checks a compact JWS against the published keys. Its typ must be one
// of typs, spelled the same; its alg must be that of the key its kid names
// (RFC 8725 section 3.1). Every token has exactly one accepted spelling of its
// payload and signature, and its header may hold alg, kid and typ only, each
// once. Every error is an ErrInvalidToken.
func (r *Ring) Verify(token string, typs ...string) (*Verified, error) {
	if len(token) > MaxTokenSize {
		return nil, invalid("longer than %d bytes", MaxTokenSize)
	}
	header, rest, _ := strings.Cut(token, ".")
	payload, encoded, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(encoded, ".") {
		return nil, invalid("not three parts")
	}
	s := r.snap.Load()
	ref, ok := s.headers[header]
	if !ok {
		var err error
		if ref, err = s.parseHeader(header); err != nil {
			return nil, err
		}
	}
	if !slices.Contains(typs, ref.typ) {
		return nil, invalid("typ is not one of %q", typs)
	}
	signature, err := decodeSegment(encoded)
	if err != nil {
		return nil, invalid("signature is not canonical base64url")
	}
	if !ref.key.verifies([]byte(token[:len(header)+1+len(payload)]), signature) {
		return nil, invalid("signature does not verify with %s key %s", ref.key.alg, ref.key.id)
	}
	body, err := decodeSegment(payload)
	if err != nil {
		return nil, invalid("payload is not canonical base64url")
	}
	return &Verified{Alg: ref.key.alg, KeyID: ref.key.id, Type: ref.typ, Payload: body}, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalidToken, fmt.Sprintf(format, args...))
}

func decodeSegment(segment string) ([]byte, error) {
	if strings.ContainsAny(segment, "\r\n") {
		return nil, errors.New("line break")
	}
	return b64.DecodeString(segment)
}

// parseHeader reads a JOSE header that is not spelled as Sign spells it, and
// finds the key it names. It only ever compares kid with those of published
// keys.
func (s *snapshot) parseHeader(encoded string) (headerRef, error) {
	if len(encoded) > maxHeader {
		return headerRef{}, invalid("header longer than %d bytes", maxHeader)
	}
	raw, err := decodeSegment(encoded)
	if err != nil {
		return headerRef{}, invalid("header is not canonical base64url")
	}
	members, err := headerMembers(raw)
	if err != nil {
		return headerRef{}, err
	}
	switch members["alg"] {
	case ES256, RS256, EdDSA:
	default:
		return headerRef{}, invalid("alg %s is not one of ours", shown(members["alg"]))
	}
	key := s.keys[members["kid"]]
	if key == nil {
		return headerRef{}, fmt.Errorf("%w: %w %s", ErrInvalidToken, errUnknownKID, shown(members["kid"]))
	}
	if key.alg != members["alg"] {
		return headerRef{}, invalid("alg %s with a key for %s", members["alg"], key.alg)
	}
	return headerRef{key, members["typ"]}, nil
}

// headerMembers reads a JSON object of the strings alg, kid and typ, each at
// most once. Anything else, such as crit or jwk, is an error as soon as it is met.
func headerMembers(raw []byte) (map[string]string, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, invalid("header is not a JSON object")
	}
	members := make(map[string]string, 3)
	for decoder.More() {
		token, err := decoder.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return nil, invalid("header is not JSON")
		}
		if name != "alg" && name != "kid" && name != "typ" {
			return nil, invalid("header member %s is not allowed", shown(name))
		}
		if _, twice := members[name]; twice {
			return nil, invalid("header member %s is there twice", name)
		}
		token, err = decoder.Token()
		value, ok := token.(string)
		if err != nil || !ok {
			return nil, invalid("header member %s is not a string", name)
		}
		members[name] = value
	}
	if token, err := decoder.Token(); err != nil || token != json.Delim('}') {
		return nil, invalid("header is not JSON")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, invalid("header has something after its JSON object")
	}
	return members, nil
}

// shown is a foreign string as it may appear in a log: cut, quoted and escaped.
func shown(value string) string {
	if len(value) > maxShownID {
		value = value[:maxShownID]
	}
	return fmt.Sprintf("%+q", value)
}
