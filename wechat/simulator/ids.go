package simulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"time"
)

// The random values here only have to differ from each other, so they come from
// math/rand: nothing in a simulator is worth guessing.

const alphanumeric = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// newJSCode returns 32 alphanumeric characters, beginning 0a to 0f.
func newJSCode() string {
	var b [32]byte
	b[0], b[1] = '0', "abcdef"[rand.IntN(6)]
	for i := 2; i < len(b); {
		// Ten characters from one number: 62^10 < 2^64.
		for n, j := rand.Uint64(), 0; j < 10; j++ {
			b[i] = alphanumeric[n%62]
			n /= 62
			i++
		}
	}
	return string(b[:])
}

// newPhoneCode returns 64 lower-case hex digits.
func newPhoneCode() string {
	var b [32]byte
	randomBytes(b[:])
	return hex.EncodeToString(b[:])
}

// appendHint appends 9 and 6 alphanumeric characters, as some errors have
// before the rid.
func appendHint(b []byte) []byte {
	for i, n := 0, rand.Uint64(); i < 15; i++ {
		if i == 8 {
			n = rand.Uint64()
		}
		if i == 9 {
			b = append(b, '-')
		}
		b = append(b, alphanumeric[n%62])
		n /= 62
	}
	return b
}

// newSessionKey returns 16 random bytes in base64: 24 characters.
func newSessionKey() string {
	var b [16]byte
	randomBytes(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

// newToken returns 136 characters of the shape NN_ and base64url.
func newToken() string {
	var b [102]byte
	randomBytes(b[:])
	return "90_" + base64.RawURLEncoding.EncodeToString(b[:])[:133]
}

func randomBytes(b []byte) {
	var word [8]byte
	for len(b) > 0 {
		binary.LittleEndian.PutUint64(word[:], rand.Uint64())
		b = b[copy(b, word[:]):]
	}
}

// appendRID appends three groups of 8 hex digits; the first is the time.
func appendRID(b []byte, now time.Time) []byte {
	b = appendHex32(b, uint32(now.Unix()))
	n := rand.Uint64()
	b = appendHex32(append(b, '-'), uint32(n>>32))
	return appendHex32(append(b, '-'), uint32(n))
}

func appendHex32(b []byte, n uint32) []byte {
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, digits[n>>shift&15])
	}
	return b
}

// openID is o and 27 characters; the ids of one app begin alike.
func (s *Simulator) openID(appid, user string) string { return s.id("openid", appid, user) }

// unionID is o and 27 characters; the ids of one account begin alike.
func (s *Simulator) unionID(platform, user string) string { return s.id("unionid", platform, user) }

func (s *Simulator) id(kind, scope, user string) string {
	return "o" + s.mac(kind, scope)[:5] + s.mac(kind, scope, user)[:22]
}

// mac is the base64url form of a MAC over the parts, each with its length.
func (s *Simulator) mac(parts ...string) string {
	h := hmac.New(sha256.New, s.seed)
	for _, p := range parts {
		h.Write([]byte(strconv.Itoa(len(p)) + ":" + p))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// codeTable holds codes, up to MaxCodes.
type codeTable struct {
	items map[string]code
	queue codeQueue
}

func newCodeTable() codeTable { return codeTable{items: map[string]code{}} }

// add drops expired codes, a few per call, and then adds c, which was created now.
func (t *codeTable) add(text string, c code) {
	for range 64 {
		oldest, ok := t.queue.front()
		if !ok || len(t.items) < MaxCodes && c.created-t.items[oldest].created <= int64(codeLife) {
			break
		}
		delete(t.items, oldest)
		t.queue.pop()
	}
	t.items[text] = c
	t.queue.push(text)
}

// codeQueue holds codes or tokens, oldest first.
type codeQueue struct {
	items []string
	head  int
}

func (q *codeQueue) push(c string) { q.items = append(q.items, c) }

func (q *codeQueue) front() (string, bool) {
	if q.head == len(q.items) {
		return "", false
	}
	return q.items[q.head], true
}

// pop moves the rest down once half of the slice is unused, so that the cost
// per item stays constant and the slice bounded.
func (q *codeQueue) pop() {
	q.items[q.head] = ""
	q.head++
	if q.head > 1024 && q.head*2 > len(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
}
