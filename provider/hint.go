package provider

import (
	"encoding/json"

	"github.com/wxidp/wxidp/storage"
)

// maxHint is the length of the longest id_token_hint that is looked at.
const maxHint = 16 << 10

// idTokenHint is an ID Token of ours that came back as a hint: what it says of
// whom it was for. It may have expired long ago.
type idTokenHint struct {
	clientID string
	subject  string
	familyID storage.FamilyID
}

// readHint reads an id_token_hint (OIDC Core §3.1.2.1). Nothing but an ID Token
// that one of our published keys signed is one.
func (p *Provider) readHint(token string) (*idTokenHint, bool) {
	if len(token) > maxHint {
		return nil, false
	}
	verified, err := p.keys.Verify(token, typIDToken)
	if err != nil {
		return nil, false
	}
	var claims struct {
		Issuer   string   `json:"iss"`
		Subject  string   `json:"sub"`
		Audience audience `json:"aud"`
		SID      string   `json:"sid"`
	}
	if json.Unmarshal(verified.Payload, &claims) != nil || claims.Issuer != p.issuer || claims.Subject == "" || len(claims.Audience) != 1 {
		return nil, false
	}
	hint := &idTokenHint{clientID: claims.Audience[0], subject: claims.Subject}
	var ok bool
	hint.familyID, ok = storage.ParseFamilyID(claims.SID)
	return hint, ok
}
