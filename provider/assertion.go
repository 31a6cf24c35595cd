package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/wxidp/wxidp/storage"
)

const (
	assertionTypeJWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// maxAssertionLifetime bounds how far ahead a client assertion may expire,
	// and so how long its jti is kept.
	maxAssertionLifetime = time.Hour
	// assertionLeeway is what a client's clock may be off by.
	assertionLeeway = time.Minute
	maxJTI          = 256
)

// assertionClaims are what a client says of itself (RFC 7523 §3). exp, nbf and
// iat are NumericDates, which may have fractions.
type assertionClaims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  audience `json:"aud"`
	Expires   *float64 `json:"exp"`
	NotBefore *float64 `json:"nbf"`
	IssuedAt  *float64 `json:"iat"`
	JTI       string   `json:"jti"`
}

// assertionSubject is the client that an assertion claims to be from, before
// anything of it is proven: "" where it cannot be read.
func assertionSubject(assertion string) string {
	token, err := jose.ParseSignedCompact(assertion, assertionAlgs)
	if err != nil {
		return ""
	}
	var claims assertionClaims
	if json.Unmarshal(token.UnsafePayloadWithoutVerification(), &claims) != nil {
		return ""
	}
	return claims.Subject
}

// verifyAssertion authenticates a client by private_key_jwt (OIDC Core §9) at
// an endpoint. The jti is taken last, once all else is right.
func (p *Provider) verifyAssertion(ctx context.Context, client *Client, form url.Values, endpoint string) error {
	refuse := func(reason string) error { return fail(InvalidClient, msgClientAuth).reason(reason) }
	if form.Get("client_assertion_type") != assertionTypeJWT {
		return refuse("assertion_type")
	}
	if client == nil || client.AuthMethod != AuthPrivateKeyJWT {
		return refuse("assertion_not_expected")
	}
	token, err := jose.ParseSignedCompact(form.Get("client_assertion"), []jose.SignatureAlgorithm{jose.SignatureAlgorithm(client.AuthAlg)})
	if err != nil {
		return refuse("assertion_malformed")
	}
	payload, err := verifyWith(token, client.keys)
	if err != nil {
		return refuse("assertion_signature")
	}
	var claims assertionClaims
	decoder := json.NewDecoder(bytes.NewReader(payload))
	if err := decoder.Decode(&claims); err != nil || decoder.More() {
		return refuse("assertion_claims")
	}
	if claims.Issuer != client.ID || claims.Subject != client.ID {
		return refuse("assertion_issuer")
	}
	accepted := []string{p.issuer, p.issuer + PathToken, endpoint}
	if !slices.ContainsFunc(claims.Audience, func(a string) bool { return slices.Contains(accepted, a) }) {
		return refuse("assertion_audience")
	}
	lifetime, err := claims.lifetime(time.Now())
	if err != nil {
		return err
	}
	if claims.mayPrecede(p.restored, time.Now()) {
		return fail(InvalidClient, msgAssertionRestored).reason("assertion_restored")
	}
	if claims.JTI == "" || len(claims.JTI) > maxJTI {
		return refuse("assertion_jti")
	}
	key := digest("client assertion", client.ID, claims.JTI)
	stored, err := p.store.PutIfAbsent(ctx, storage.ItemClientAssertion, key[:], nil, lifetime+2*assertionLeeway)
	if err != nil {
		return err
	}
	if !stored {
		return fail(InvalidClient, msgAssertionReplayed).reason("assertion_replayed")
	}
	return nil
}

// lifetime judges the times of an assertion and says how long it is still
// good, leeway not counted.
func (c *assertionClaims) lifetime(now time.Time) (time.Duration, error) {
	ahead := func(date *float64) time.Duration {
		seconds := *date - float64(now.UnixNano())/1e9
		// Beyond these bounds every answer is the same, and within them the
		// conversion cannot overflow.
		seconds = math.Max(-1e6, math.Min(seconds, 1e6))
		return time.Duration(seconds * float64(time.Second))
	}
	switch {
	case c.Expires == nil || ahead(c.Expires) <= -assertionLeeway:
		return 0, fail(InvalidClient, msgClientAuth).reason("assertion_expired")
	case ahead(c.Expires) > maxAssertionLifetime:
		return 0, fail(InvalidClient, msgAssertionTooLong).reason("assertion_lifetime")
	case c.NotBefore != nil && ahead(c.NotBefore) > assertionLeeway,
		c.IssuedAt != nil && ahead(c.IssuedAt) > assertionLeeway:
		return 0, fail(InvalidClient, msgClientAuth).reason("assertion_not_yet")
	}
	return max(ahead(c.Expires), 0), nil
}

// mayPrecede reports whether an assertion that is good at now may have been
// used before restored, when data from a backup were put in service that do not
// tell. After the longest life of an assertion none can.
func (c *assertionClaims) mayPrecede(restored, now time.Time) bool {
	if restored.IsZero() || now.Sub(restored) > maxAssertionLifetime+2*assertionLeeway {
		return false
	}
	return c.IssuedAt == nil || *c.IssuedAt < float64(restored.Unix())
}

// verifyWith verifies a JWS with the key that its header names, or with the
// only key there is.
func verifyWith(token *jose.JSONWebSignature, keys *jose.JSONWebKeySet) ([]byte, error) {
	candidates := keys.Keys
	if kid := token.Signatures[0].Protected.KeyID; kid != "" {
		candidates = keys.Key(kid)
	}
	if len(candidates) != 1 {
		return nil, fmt.Errorf("%d keys could have signed it", len(candidates))
	}
	return token.Verify(candidates[0].Key)
}

// parseClientKeys reads a client's JWK Set.
func parseClientKeys(raw []byte) (*jose.JSONWebKeySet, error) {
	keys := new(jose.JSONWebKeySet)
	if err := json.Unmarshal(raw, keys); err != nil {
		return nil, fmt.Errorf("jwks: %w", err)
	}
	for _, key := range keys.Keys {
		if !key.IsPublic() || key.KeyID == "" {
			return nil, errors.New("jwks: every key must be public and have a kid")
		}
	}
	return keys, nil
}

// assertionAlgs are the JWS algs a client assertion may be signed with.
var assertionAlgs = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512,
}

// AssertionAlgs returns the JWS algs a client assertion may be signed with.
func AssertionAlgs() []string {
	algs := make([]string, len(assertionAlgs))
	for i, alg := range assertionAlgs {
		algs[i] = string(alg)
	}
	return algs
}

// oneSpelling reports whether a string has only the characters of a compact
// JWS: decoders skip others.
func oneSpelling(token string) bool {
	return strings.Count(token, ".") == 2 && !strings.ContainsFunc(token, func(c rune) bool {
		return c != '.' && c != '-' && c != '_' && !('0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z')
	})
}
