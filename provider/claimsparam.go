package provider

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/wxidp/wxidp/internal/ascii"
)

// maxRequestedClaims bounds the claims that one request may name.
const maxRequestedClaims = 64

// requestedClaims is what the claims parameter asks for (OIDC Core §5.5).
type requestedClaims struct {
	idToken  []string // names, sorted
	userInfo []string
	subject  string   // the only user who will do; "": anybody
	acr      []string // essential values, of which one must be met; none: any
}

// all returns the names of both places, each once.
func (c requestedClaims) all() []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(c.idToken, c.userInfo))))
}

// claimWish is how a claim is wanted; null is a wish without conditions.
type claimWish struct {
	Essential bool              `json:"essential"`
	Value     json.RawMessage   `json:"value"`
	Values    []json.RawMessage `json:"values"`
}

// words returns the string values that a wish names.
func (w *claimWish) words() []string {
	if w == nil {
		return nil
	}
	var out []string
	for _, raw := range append(slices.Clone(w.Values), w.Value) {
		var word string
		if json.Unmarshal(raw, &word) == nil && word != "" {
			out = append(out, word)
		}
	}
	return out
}

// parseClaimsParam reads the claims parameter. Members and claims that it does
// not know are ignored, as the specification wants it.
func parseClaimsParam(text string) (requestedClaims, error) {
	var out requestedClaims
	if text == "" {
		return out, nil
	}
	malformed := fail(InvalidRequest, msgParamMalformed.with("claims")).reason("claims")
	var wishes struct {
		IDToken  map[string]*claimWish `json:"id_token"`
		UserInfo map[string]*claimWish `json:"userinfo"`
	}
	if len(text) > maxClaimsParam || json.Unmarshal([]byte(text), &wishes) != nil {
		return out, malformed
	}
	if len(wishes.IDToken)+len(wishes.UserInfo) > maxRequestedClaims {
		return out, malformed
	}
	out.idToken = slices.Sorted(maps.Keys(wishes.IDToken))
	out.userInfo = slices.Sorted(maps.Keys(wishes.UserInfo))
	for _, name := range out.all() {
		if !ascii.Visible(name, 128) {
			return out, malformed
		}
	}
	for _, place := range []map[string]*claimWish{wishes.IDToken, wishes.UserInfo} {
		if subjects := place["sub"].words(); len(subjects) > 0 {
			out.subject = subjects[0]
		}
	}
	if acr := wishes.IDToken["acr"]; acr != nil && acr.Essential {
		out.acr = acr.words()
	}
	return out, nil
}
