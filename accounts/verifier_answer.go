package accounts

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/wxidp/wxidp/storage"
)

// Bounds of what is taken from a verifier's answer.
const (
	maxVerifierAnswer = 64 << 10 // bytes of the body
	maxAnswerMembers  = 64
	maxAnswerDepth    = 10
	maxExternalID     = 256 // bytes
	maxRoles          = 64
	maxRole           = 128     // bytes
	maxRolesSize      = 2 << 10 // bytes of all roles: tokens carry them, and tokens are headers
	maxClaims         = 32      // members
	maxClaimsSize     = 2 << 10 // bytes of names and JSON values together
)

// claimName is what a claim from outside may be called: a short name or, as
// RFC 7519 §4.2 asks for, one with a domain in it.
var claimName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.:/-]{0,127}$`)

// ownClaims are the claims that say something about the token, or that are
// wxidp's own to make: those of RFC 7519 §4.1, OIDC Core §§2, 3.1.3.6 and
// 5.6.2, RFC 7662 §2.2, RFC 7800, RFC 8417, RFC 8693 §4, RFC 9068 §2.2 and the
// answer's own members.
var ownClaims = map[string]bool{
	"iss": true, "sub": true, "aud": true, "exp": true, "nbf": true, "iat": true, "jti": true,
	"auth_time": true, "nonce": true, "acr": true, "amr": true, "azp": true, "sid": true, "sub_jwk": true,
	"at_hash": true, "c_hash": true, "s_hash": true, "_claim_names": true, "_claim_sources": true,
	"client_id": true, "scope": true, "scp": true, "active": true, "token_type": true, "username": true,
	"cnf": true, "act": true, "may_act": true, "authorization_details": true, "events": true, "toe": true, "txn": true,
	"roles": true, "groups": true, "entitlements": true,
	"name": true, "nickname": true, "picture": true, "updated_at": true,
	"phone_number": true, "phone_number_verified": true,
	"external_id": true,
}

// ownPrefixes begin the names that wxidp keeps for itself.
var ownPrefixes = []string{"wechat_", "wxidp_"}

func claimAllowed(name string) bool {
	// Receivers that match names without regard to case must not be misled either.
	lower := strings.ToLower(name)
	return claimName.MatchString(name) && !ownClaims[lower] &&
		!slices.ContainsFunc(ownPrefixes, func(p string) bool { return strings.HasPrefix(lower, p) })
}

// parseVerified reads a verifier's answer: one JSON object with ok and, where
// that is true, external_id. Other members are ignored. A nickname or picture
// that a user could not have entered is left out, for it is no reason to keep
// somebody out; everything else that is wrong spoils the answer.
func parseVerified(body []byte) (Verified, *Error) {
	if !utf8.Valid(body) || !json.Valid(body) {
		return Verified{}, unavailable(reasonNotJSON)
	}
	members, ok := object(body, maxAnswerMembers)
	if !ok {
		if bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
			return Verified{}, unavailable(reasonBadAnswer)
		}
		return Verified{}, unavailable(reasonNotJSON)
	}
	switch string(members["ok"]) {
	case "true":
	case "false":
		return Verified{}, &Error{Kind: WrongCredentials, Reason: reasonRefused}
	default:
		return Verified{}, unavailable(reasonBadAnswer)
	}
	var v Verified
	v.ExternalID, ok = text(members["external_id"])
	switch {
	case !ok:
		return Verified{}, unavailable(reasonBadAnswer)
	case v.ExternalID == "":
		return Verified{}, unavailable(reasonNoExternalID)
	case len(v.ExternalID) > maxExternalID || !printable(v.ExternalID):
		return Verified{}, unavailable(reasonBadAnswer)
	}
	nickname, okNickname := text(members["nickname"])
	picture, okPicture := text(members["picture"])
	roles, okRoles := parseRoles(members["roles"])
	if !okNickname || !okPicture || !okRoles {
		return Verified{}, unavailable(reasonBadAnswer)
	}
	claims, ok := parseClaims(members["claims"])
	if !ok {
		return Verified{}, unavailable(reasonBadClaims)
	}
	// An error leaves "", which is: not known.
	v.Profile.Nickname, _ = Nickname(nickname)
	v.Profile.Picture, _ = Picture(picture)
	v.Attributes = storage.Attributes{Roles: roles, Claims: claims}
	return v, nil
}

// object returns the members of a JSON object, each as its JSON text, and
// reports false for anything else, for too many members and for one that
// occurs twice: encoding/json takes the last, and other readers the first.
func object(raw []byte, limit int) (map[string]json.RawMessage, bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	members := make(map[string]json.RawMessage)
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, false
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, false
		}
		if _, twice := members[name]; twice || len(members) == limit {
			return nil, false
		}
		members[name] = value
	}
	_, err := d.Token()
	return members, err == nil
}

// text returns a string member; absent and null count as "".
func text(raw json.RawMessage) (string, bool) {
	if absent(raw) {
		return "", true
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// printable reports whether s is free of what may not be in a stored name.
func printable(s string) bool {
	for _, r := range s {
		if !storable(r) || turnsText(r) {
			return false
		}
	}
	return true
}

// parseRoles reads an array of names, each once.
func parseRoles(raw json.RawMessage) ([]string, bool) {
	if absent(raw) {
		return nil, true
	}
	var list []*string
	if err := json.Unmarshal(raw, &list); err != nil || len(list) > maxRoles {
		return nil, false
	}
	var roles []string
	size := 0
	for _, role := range list {
		if role == nil || *role == "" || len(*role) > maxRole || !printable(*role) {
			return nil, false
		}
		if !slices.Contains(roles, *role) {
			roles = append(roles, *role)
			size += len(*role)
		}
	}
	if size > maxRolesSize {
		return nil, false
	}
	return roles, true
}

// parseClaims reads an object of claims. The values are written anew, so that
// no member occurs twice in what tokens will carry. A null is no claim.
func parseClaims(raw json.RawMessage) (map[string]string, bool) {
	if absent(raw) {
		return nil, true
	}
	if depth(raw) > maxAnswerDepth {
		return nil, false
	}
	members, ok := object(raw, maxClaims)
	if !ok {
		return nil, false
	}
	claims, size := make(map[string]string, len(members)), 0
	for name, value := range members {
		if !claimAllowed(name) {
			return nil, false
		}
		if absent(value) {
			continue
		}
		written, ok := rewrite(value)
		if size += len(name) + len(written); !ok || size > maxClaimsSize {
			return nil, false
		}
		claims[name] = written
	}
	if len(claims) == 0 {
		return nil, true
	}
	return claims, true
}

func rewrite(raw json.RawMessage) (string, bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // an id with 19 digits stays what it is
	var value any
	if err := d.Decode(&value); err != nil {
		return "", false
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return "", false
	}
	return strings.TrimSuffix(b.String(), "\n"), true
}

// depth returns how deep arrays and objects are nested in valid JSON.
func depth(raw []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
