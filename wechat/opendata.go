package wechat

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/wxidp/wxidp/internal/secret"
)

// MaxOpenData is the longest encryptedData or rawData taken, in bytes as given.
const MaxOpenData = 64 << 10

// ErrOpenData is the one error of [Decrypt]. Why it failed is not told, to
// nobody: AES-CBC without a MAC gives its plaintext away to whoever learns
// which changed ciphertexts have a good padding.
var ErrOpenData = errors.New("wechat: open data cannot be decrypted with this session_key, or is not of this app, or not of now")

// Decrypt opens encryptedData that a mini-program has from WeChat, with the iv
// that came with it (both in exact standard base64), and returns the JSON
// object inside. The object's watermark must name appid and a time at most
// maxAge before now, nor more than a minute after it. Every failure is
// ErrOpenData, and all take the same steps.
//
// Nothing proves that the data is of the user whose session_key this is but
// that it decrypts: an openId inside must be compared by the caller.
func Decrypt(sessionKey secret.String, encryptedData, iv, appid string, maxAge time.Duration, now time.Time) ([]byte, error) {
	key, okKey := decodeBlock(sessionKey.Reveal())
	vector, okIV := decodeBlock(iv)
	plain, okData := decodeCiphertext(encryptedData)

	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, ErrOpenData // cannot be: the key has 16 bytes
	}
	cipher.NewCBCDecrypter(block, vector[:]).CryptBlocks(plain, plain)
	n, okPadding := unpad(plain, aes.BlockSize)
	okMark := watermarked(plain[:n], appid, maxAge, now)

	if okKey&okIV&okData&okPadding&okMark != 1 {
		clear(plain)
		return nil, ErrOpenData
	}
	return plain[:n:n], nil
}

// VerifyRawData reports whether signature is WeChat's over rawData, the exact
// text that the mini-program got with it, for this session_key.
func VerifyRawData(sessionKey secret.String, rawData, signature string) bool {
	if sessionKey.IsZero() || len(rawData) > MaxOpenData {
		return false
	}
	sum := sha1.Sum([]byte(rawData + sessionKey.Reveal()))
	return subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum[:])), []byte(signature)) == 1
}

// decodeBlock decodes 16 bytes; ok is 1 or 0.
func decodeBlock(text string) (block [16]byte, ok int) {
	b, good := decodeBase64(text, 24)
	if !good || len(b) != len(block) {
		return block, 0
	}
	return [16]byte(b), 1
}

// decodeCiphertext returns a block of zeros for what is none, so that the
// following steps have something to work on.
func decodeCiphertext(text string) (blocks []byte, ok int) {
	b, good := decodeBase64(text, MaxOpenData)
	if !good || len(b) == 0 || len(b)%aes.BlockSize != 0 {
		return make([]byte, aes.BlockSize), 0
	}
	return b, 1
}

// decodeBase64 takes the one spelling of the bytes only. The package's own
// decoder passes over line breaks.
func decodeBase64(text string, limit int) ([]byte, bool) {
	if len(text) > limit {
		return nil, false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	return b, err == nil && base64.StdEncoding.EncodedLen(len(b)) == len(text)
}

// unpad returns the length of b, which holds at least one block, without its
// PKCS#7 padding of up to limit bytes, and 1; or the whole length and 0. It
// takes as long whatever b holds.
func unpad(b []byte, limit int) (n, ok int) {
	last := b[len(b)-1]
	pad := int(last)
	ok = subtle.ConstantTimeLessOrEq(1, pad) & subtle.ConstantTimeLessOrEq(pad, limit)
	for i := 1; i <= limit; i++ {
		inside := subtle.ConstantTimeLessOrEq(i, pad)
		same := subtle.ConstantTimeByteEq(b[len(b)-i], last)
		ok &= subtle.ConstantTimeSelect(inside, same, 1)
	}
	return subtle.ConstantTimeSelect(ok, len(b)-pad, len(b)), ok
}

// decoy is looked through where the plaintext cannot be.
var decoy = []byte(`{"phoneNumber":"","purePhoneNumber":"","countryCode":"","watermark":{"timestamp":0,"appid":""}}`)

// watermarked returns 1 where plain is a JSON object with a watermark of
// appid and not older than maxAge, else 0.
func watermarked(plain []byte, appid string, maxAge time.Duration, now time.Time) int {
	object := plain
	if !utf8.Valid(plain) || !json.Valid(plain) || !isObject(plain) {
		object = decoy
	}
	var outer value
	var mark watermark
	s := scanner{rest: object}
	s.space()
	ok := bit(s.object(func(name string, v value) {
		if name == "watermark" {
			outer = v
		}
	}))
	ok &= bit(outer.members(mark.take))
	at, good := mark.timestamp.time()
	age := now.Sub(at)
	ok &= bit(good) & bit(age <= maxAge) & bit(age >= -clockSkew) & bit(mark.appID.kind == '"')
	return ok & subtle.ConstantTimeCompare([]byte(mark.appID.text), []byte(appid))
}

func isObject(valid []byte) bool {
	s := scanner{rest: valid}
	s.space()
	return s.rest[0] == '{'
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
