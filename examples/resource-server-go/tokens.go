package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"
	"github.com/lestrrat-go/jwx/v3/jwt"
)

// clockSkew is how far the issuer's clock may be away.
const clockSkew = 5 * time.Second

var algorithms = []jwa.SignatureAlgorithm{jwa.ES256(), jwa.RS256(), jwa.EdDSA()}

// claims of an access token.
type claims struct {
	Subject  string
	ClientID string
	Scope    string
}

// accessTokens verifies the access tokens (RFC 9068) of one issuer for one audience.
type accessTokens struct {
	keys       *keySet
	validation []jwt.ParseOption
}

func newAccessTokens(issuer, audience string) *accessTokens {
	return &accessTokens{
		keys: &keySet{url: issuer + "/.well-known/jwks.json"},
		validation: []jwt.ParseOption{
			jwt.WithIssuer(issuer),
			jwt.WithAudience(audience),
			jwt.WithAcceptableSkew(clockSkew),
			jwt.WithRequiredClaim(jwt.ExpirationKey),
			jwt.WithRequiredClaim(jwt.SubjectKey),
		},
	}
}

// verify returns the claims of a token. errKeysUnavailable says that the token
// cannot be judged; any other error that it is no good.
func (a *accessTokens) verify(token string) (claims, error) {
	kid, alg, err := inspect(token)
	if err != nil {
		return claims{}, err
	}
	key, err := a.keys.find(kid)
	if err != nil {
		return claims{}, err
	}
	if stated, ok := key.Algorithm(); ok && stated.String() != alg.String() {
		return claims{}, fmt.Errorf("the key %q is not for %s", kid, alg)
	}
	parsed, err := jwt.ParseString(token, append(slices.Clone(a.validation), jwt.WithKey(alg, key))...)
	if err != nil {
		return claims{}, err
	}
	// Bound to a key (RFC 9449): of no use without a proof, which nobody checks here.
	if parsed.Has("cnf") {
		return claims{}, errors.New("the token is bound to a key")
	}
	var c claims
	c.Subject, _ = parsed.Subject()
	if err := parsed.Get("client_id", &c.ClientID); err != nil {
		return claims{}, err
	}
	_ = parsed.Get("scope", &c.Scope) // none where it is absent
	return c, nil
}

// inspect reads the header of a token, before anything is known to be true.
func inspect(token string) (kid string, alg jwa.SignatureAlgorithm, err error) {
	message, err := jws.ParseString(token, jws.WithCompact())
	if err != nil {
		return "", alg, err
	}
	header := message.Signatures()[0].ProtectedHeaders()
	if typ, _ := header.Type(); !strings.EqualFold(typ, "at+jwt") {
		return "", alg, errors.New("not an access token")
	}
	if alg, _ = header.Algorithm(); !slices.Contains(algorithms, alg) {
		return "", alg, errors.New("an algorithm that is not accepted")
	}
	if kid, _ = header.KeyID(); kid == "" {
		return "", alg, errors.New("no kid")
	}
	return kid, alg, nil
}
