package provider

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// Values of the typ header.
const (
	typAccessToken = "at+jwt" // RFC 9068 §2.1
	typIDToken     = "JWT"
)

// accessClaims are the claims of an access token that differ by grant.
type accessClaims struct {
	subject         string
	sid             string // "" for a client's own token
	issued, expires time.Time
	authTime        time.Time // zero: no End-User
	account         map[string]json.RawMessage
}

// accessToken signs a JWT access token (RFC 9068 §2.2) for the session's
// client, scope and audience.
func (p *Provider) accessToken(sess *session, c accessClaims) (string, error) {
	b := make([]byte, 0, 512)
	b = append(b, `{"iss":`...)
	b = appendString(b, p.issuer)
	b = append(b, `,"sub":`...)
	b = appendString(b, c.subject)
	b = append(b, `,"aud":`...)
	b = appendAudience(b, sess.audience)
	b = append(b, `,"client_id":`...)
	b = appendString(b, sess.client.ID)
	b = append(b, `,"scope":`...)
	b = appendString(b, joinScope(sess.scope))
	b = appendTime(b, "iat", c.issued)
	b = appendTime(b, "exp", c.expires)
	b = append(b, `,"jti":"`...)
	var jti [16]byte
	rand.Read(jti[:])
	b = base64.RawURLEncoding.AppendEncode(b, jti[:])
	b = append(b, '"')
	if c.sid != "" {
		b = append(b, `,"sid":`...)
		b = appendString(b, c.sid)
	}
	if !c.authTime.IsZero() {
		b = appendTime(b, "auth_time", c.authTime)
	}
	b = appendConfirmation(b, sess.jkt)
	b = appendClaims(b, c.account)
	return p.keys.Sign(sess.snapshot.AccessTokenSigningAlg, typAccessToken, append(b, '}'))
}

// idToken signs an ID Token (OIDC Core §2) with the client's algorithm. The
// nonce of the sign-in is not repeated by a refresh (§12.2).
func (p *Provider) idToken(sess *session, family storage.Family, accessToken string, c accessClaims) (string, error) {
	b := make([]byte, 0, 512)
	b = append(b, `{"iss":`...)
	b = appendString(b, p.issuer)
	b = append(b, `,"sub":`...)
	b = appendString(b, c.subject)
	b = append(b, `,"aud":`...)
	b = appendString(b, sess.client.ID)
	b = appendTime(b, "iat", c.issued)
	b = appendTime(b, "exp", c.issued.Add(sess.idTokenLifetime()))
	b = appendTime(b, "auth_time", family.AuthTime)
	if sess.nonce != "" && sess.refresh == nil {
		b = append(b, `,"nonce":`...)
		b = appendString(b, sess.nonce)
	}
	if family.ACR != "" {
		b = append(b, `,"acr":`...)
		b = appendString(b, family.ACR)
	}
	if len(family.AMR) > 0 {
		b = append(b, `,"amr":`...)
		b = appendStrings(b, family.AMR)
	}
	b = append(b, `,"at_hash":"`...)
	b = appendTokenHash(b, sess.client.IDTokenAlg, accessToken)
	b = append(b, `","sid":`...)
	b = appendString(b, c.sid)
	b = appendClaims(b, c.account)
	return p.keys.Sign(sess.client.IDTokenAlg, typIDToken, append(b, '}'))
}

// appendConfirmation writes the cnf claim of a token that is bound to a key
// (RFC 9449 §6.1).
func appendConfirmation(b []byte, jkt string) []byte {
	if jkt == "" {
		return b
	}
	b = append(b, `,"cnf":{"jkt":`...)
	b = appendString(b, jkt)
	return append(b, '}')
}

// appendTokenHash writes the left half of the token's hash (OIDC Core
// §3.1.3.6) by the hash function of alg; Ed25519's is SHA-512.
func appendTokenHash(b []byte, alg, token string) []byte {
	if alg == "EdDSA" {
		sum := sha512.Sum512([]byte(token))
		return base64.RawURLEncoding.AppendEncode(b, sum[:sha512.Size/2])
	}
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.AppendEncode(b, sum[:sha256.Size/2])
}

func joinScope(scope []string) string { return strings.Join(scope, " ") }

// appendAudience writes a single audience as a string (RFC 7519 §4.1.3).
func appendAudience(b []byte, audience []string) []byte {
	if len(audience) == 1 {
		return appendString(b, audience[0])
	}
	return appendStrings(b, audience)
}

func appendStrings(b []byte, values []string) []byte {
	b = append(b, '[')
	for i, value := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, value)
	}
	return append(b, ']')
}

func appendTime(b []byte, name string, at time.Time) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return strconv.AppendInt(b, at.Unix(), 10)
}

// appendString writes s as a JSON string.
func appendString(b []byte, s string) []byte {
	for _, c := range []byte(s) {
		if c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic(err) // a string always marshals
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
