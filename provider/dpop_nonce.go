package provider

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// nonceSlot is how long a nonce of ours is given out; it is good until the end
// of the next slot.
const nonceSlot = 5 * time.Minute

// DPoPNonce returns the nonce for the next proof (RFC 9449 §8), "" where proofs
// need none. It is a MAC of the time, so that nothing is kept and every node
// knows the nonces of the others.
func (p *Provider) DPoPNonce() string {
	if !p.settings().DPoPNonce {
		return ""
	}
	return p.nonceOf(slotNow())
}

func slotNow() int64 { return time.Now().Unix() / int64(nonceSlot/time.Second) }

func (p *Provider) nonceOf(slot int64) string {
	key := p.keys.MACKey().Key
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte("wxidp DPoP nonce\x00"))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(slot)))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// knowsNonce accepts the nonces of this slot and the one before, and of the
// next, which a node whose clock is ahead may have given out.
func (p *Provider) knowsNonce(nonce string) bool {
	now := slotNow()
	for _, slot := range []int64{now, now - 1, now + 1} {
		if hmac.Equal([]byte(nonce), []byte(p.nonceOf(slot))) {
			return true
		}
	}
	return false
}
