package config

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/json"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

const maxJWKSKeys = 16

// curves are the curves of the ES algorithms (RFC 7518 §3.4).
var curves = map[string]string{"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}

// checkJWKS says what is wrong with a client's JWK Set, from which at least
// one key must be able to verify alg. It repeats nothing of the set.
func checkJWKS(data []byte, alg string) (problem, fix string) {
	var raw struct {
		Keys []map[string]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &raw); err != nil || raw.Keys == nil {
		return "the file is not a JWK Set", `it looks like {"keys": [...]}`
	}
	if len(raw.Keys) == 0 || len(raw.Keys) > maxJWKSKeys {
		return "the JWK Set must have 1 to 16 keys", ""
	}
	for _, key := range raw.Keys {
		for member := range key {
			switch strings.ToLower(member) { // as encoding/json matches names
			case "d", "p", "q", "dp", "dq", "qi", "oth", "k":
				return "the JWK Set holds a private or symmetric key", "give the public keys only, and treat that key as exposed"
			}
		}
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(data, &set); err != nil || len(set.Keys) != len(raw.Keys) {
		return "a key of the JWK Set is not a valid RSA or EC public key", "see RFC 7518 §6"
	}
	seen := map[string]bool{}
	verifies := false
	for _, key := range set.Keys {
		if problem, fix := checkJWK(key); problem != "" {
			return problem, fix
		}
		if seen[key.KeyID] {
			return "two keys of the JWK Set have the same kid", ""
		}
		seen[key.KeyID] = true
		verifies = verifies || keyVerifies(key, alg)
	}
	if !verifies {
		return "no key of the JWK Set fits token_endpoint_auth_signing_alg", "RS and PS take an RSA key, ES256 P-256, ES384 P-384, ES512 P-521"
	}
	return "", ""
}

func checkJWK(key jose.JSONWebKey) (problem, fix string) {
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < 2048 || bits > 8192 {
			return "an RSA key of the JWK Set is not of 2048 to 8192 bits", ""
		}
		if public.E < 65537 || public.E%2 == 0 {
			return "an RSA key of the JWK Set has a weak exponent", "65537 (AQAB) is the usual one"
		}
	case *ecdsa.PublicKey: // go-jose checks that the point is on its curve
	default:
		return "a key of the JWK Set is neither RSA nor EC", ""
	}
	switch {
	case !key.Valid():
		return "a key of the JWK Set is not valid", ""
	case key.KeyID == "" || len(key.KeyID) > 256:
		return "a key of the JWK Set has no kid, or one over 256 bytes", "every key needs one"
	case key.Use != "sig":
		return `a key of the JWK Set does not say "use": "sig"`, ""
	}
	return "", ""
}

func keyVerifies(key jose.JSONWebKey, alg string) bool {
	if key.Algorithm != "" && key.Algorithm != alg {
		return false
	}
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case *ecdsa.PublicKey:
		return curves[alg] == public.Curve.Params().Name
	}
	return false
}
