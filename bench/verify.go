package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// sample picks one answer of sampleEvery for a full check.
type sample struct{ n int }

const sampleEvery = 64

func (s *sample) due() bool {
	s.n++
	return s.n%sampleEvery == 1
}

// tokens are the tokens of an answer, parts of its body; nil: not there.
type tokens struct{ access, refresh, id []byte }

// parseTokens checks the members of a token answer (RFC 6749 §5.1) without
// decoding it.
func parseTokens(status int, body []byte) (*tokens, error) {
	t := &tokens{access: member(body, "access_token"), refresh: member(body, "refresh_token"), id: member(body, "id_token")}
	switch {
	case status != http.StatusOK:
		return nil, fmt.Errorf("status %d: %s", status, body)
	case !isJWS(t.access) || t.id != nil && !isJWS(t.id):
		return nil, fmt.Errorf("no JWS: %s", body)
	case t.refresh != nil && !bytes.HasPrefix(t.refresh, []byte("wxrt_")):
		return nil, fmt.Errorf("no refresh token: %s", body)
	case !bytes.EqualFold(member(body, "token_type"), []byte("Bearer")) || len(member(body, "scope")) == 0 ||
		!bytes.Contains(body, []byte(`"expires_in":`)):
		return nil, fmt.Errorf("a member is missing: %s", body)
	}
	return t, nil
}

// member returns a string member of a flat JSON object, as it is spelled.
func member(body []byte, name string) []byte {
	_, rest, found := bytes.Cut(body, []byte(`"`+name+`":"`))
	value, _, ended := bytes.Cut(rest, []byte(`"`))
	if !found || !ended {
		return nil
	}
	return value
}

func isJWS(token []byte) bool {
	return bytes.HasPrefix(token, []byte("eyJ")) && bytes.Count(token, []byte(".")) == 2
}

// claims are those that both kinds of tokens share, and at_hash.
type claims struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
	Expires int64  `json:"exp"`
	AtHash  string `json:"at_hash"`
}

// verify checks signatures and claims of an answer's tokens with the served
// keys. It returns the subject, which must be sub unless that is "".
func (s *server) verify(t *tokens, sub string) (string, error) {
	access, err := s.verifyJWS(t.access, "at+jwt")
	if err != nil {
		return "", fmt.Errorf("access token: %w", err)
	}
	if sub != "" && access.Subject != sub || access.Subject == "" {
		return "", fmt.Errorf("the subject is %q instead of %q", access.Subject, sub)
	}
	if t.id == nil {
		return access.Subject, nil
	}
	id, err := s.verifyJWS(t.id, "JWT")
	if err != nil {
		return "", fmt.Errorf("ID Token: %w", err)
	}
	sum := sha256.Sum256(t.access)
	if id.Subject != access.Subject || id.AtHash != base64.RawURLEncoding.EncodeToString(sum[:16]) {
		return "", errors.New("the ID Token does not belong to the access token")
	}
	return access.Subject, nil
}

func (s *server) verifyJWS(token []byte, typ string) (*claims, error) {
	jws, err := jose.ParseSignedCompact(string(token), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, err
	}
	header := jws.Signatures[0].Protected
	if got := header.ExtraHeaders[jose.HeaderType]; got != typ {
		return nil, fmt.Errorf("typ is %v", got)
	}
	keys := s.keys.Key(header.KeyID)
	if len(keys) != 1 {
		return nil, fmt.Errorf("kid is %q", header.KeyID)
	}
	payload, err := jws.Verify(keys[0])
	if err != nil {
		return nil, err
	}
	c := new(claims)
	if err := json.Unmarshal(payload, c); err != nil {
		return nil, err
	}
	if c.Issuer != s.issuer || c.Expires <= time.Now().Unix() {
		return nil, fmt.Errorf("iss is %q, exp is %d", c.Issuer, c.Expires)
	}
	return c, nil
}
