package provider

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
)

// subject is the sub claim of a user at a client: the user's id, or a value
// that is the same for all clients of one sector and says nothing to another
// (OIDC Core §8.1).
func (p *Provider) subject(snap *snapshot, client *Client, userID string) string {
	if client.Sector == "" {
		return userID
	}
	h := hmac.New(sha256.New, []byte(snap.PairwiseSalt.Reveal()))
	h.Write([]byte(client.Sector))
	h.Write([]byte{0})
	h.Write([]byte(userID))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)) // 43 characters; a user's id has 22
}
