package provider

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/wxidp/wxidp/storage"
)

// refreshTokenPrefix makes refresh tokens easy to find for secret scanners.
const refreshTokenPrefix = "wxrt_"

// A refresh token is the prefix and base64url of these bytes, 57 in all, so
// that every string of the right length is the only spelling of its bytes:
//
//	version 1 | family id 16 | generation 4 | MAC key id 4 | MAC 32
const (
	refreshTokenVersion = 1
	refreshTokenHead    = 1 + 16 + 4 + 4
	refreshTokenSize    = refreshTokenHead + sha256.Size
	refreshTokenLength  = len(refreshTokenPrefix) + refreshTokenSize/3*4
)

// parsedRefreshToken is a refresh token taken apart; nothing in it is proven
// before verify.
type parsedRefreshToken struct {
	familyID   storage.FamilyID
	generation uint32
	macKeyID   uint32
	mac        [sha256.Size]byte
}

// parseRefreshToken reads the one spelling of a refresh token.
func parseRefreshToken(token string) (parsedRefreshToken, bool) {
	var t parsedRefreshToken
	encoded, ok := strings.CutPrefix(token, refreshTokenPrefix)
	if !ok || len(token) != refreshTokenLength {
		return t, false
	}
	// The decoder skips line breaks, which would be a second spelling.
	if strings.ContainsAny(encoded, "\r\n") {
		return t, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != refreshTokenSize || raw[0] != refreshTokenVersion {
		return t, false
	}
	copy(t.familyID[:], raw[1:17])
	t.generation = binary.BigEndian.Uint32(raw[17:21])
	t.macKeyID = binary.BigEndian.Uint32(raw[21:25])
	copy(t.mac[:], raw[refreshTokenHead:])
	return t, true
}

// refreshToken is the refresh token of a family's live generation. The same
// family always gives the same token.
func (p *Provider) refreshToken(ctx context.Context, family storage.Family) (string, error) {
	key, ok, err := p.keys.MACKeyLatest(ctx, family.MACKeyID)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", fmt.Errorf("MAC key %d of family %s is gone", family.MACKeyID, family.ID)
	}
	raw := make([]byte, refreshTokenHead, refreshTokenSize)
	raw[0] = refreshTokenVersion
	copy(raw[1:17], family.ID[:])
	binary.BigEndian.PutUint32(raw[17:21], family.Generation)
	binary.BigEndian.PutUint32(raw[21:25], family.MACKeyID)
	mac := refreshTokenMAC(key.Key, raw, family)
	raw = append(raw, mac[:]...)
	return refreshTokenPrefix + base64.RawURLEncoding.EncodeToString(raw), nil
}

// macKeyLives reports whether the key of the family's live refresh token still
// exists. A MAC key outlives every family made with it unless it is revoked,
// which ends those families.
func (p *Provider) macKeyLives(ctx context.Context, family storage.Family) (bool, error) {
	_, ok, err := p.keys.MACKeyLatest(ctx, family.MACKeyID)
	return ok, err
}

// verify reports whether the token was made for this family. It fails where the
// token may be of a key that another node has just made, and the store cannot
// tell.
func (t parsedRefreshToken) verify(ctx context.Context, p *Provider, family storage.Family) (bool, error) {
	key, ok, err := p.keys.MACKeyLatest(ctx, t.macKeyID)
	if err != nil || !ok {
		return false, err
	}
	var head [refreshTokenHead]byte
	head[0] = refreshTokenVersion
	copy(head[1:17], t.familyID[:])
	binary.BigEndian.PutUint32(head[17:21], t.generation)
	binary.BigEndian.PutUint32(head[21:25], t.macKeyID)
	mac := refreshTokenMAC(key.Key, head[:], family)
	return hmac.Equal(mac[:], t.mac[:]), nil
}

// refreshTokenMAC binds the token's head to the family's secret and client.
func refreshTokenMAC(key [32]byte, head []byte, family storage.Family) (sum [sha256.Size]byte) {
	message := make([]byte, 0, 128)
	message = append(message, "wxidp refresh token\x00"...)
	message = append(message, head...)
	message = append(message, family.Secret[:]...)
	message = append(message, family.ClientID...)
	h := hmac.New(sha256.New, key[:])
	h.Write(message)
	h.Sum(sum[:0])
	return sum
}
