package provider

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // tells upper from lower case and takes no member twice, as go-jose itself

	"github.com/wxidp/wxidp/internal/ascii"
)

// proofSigningAlgs are the JWS algs of proofs.
var proofSigningAlgs = []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, jose.RS256, jose.PS256}

// dpopAlgs returns the JWS algs that a proof may be signed with
// (dpop_signing_alg_values_supported).
func dpopAlgs() []string {
	algs := make([]string, len(proofSigningAlgs))
	for i, alg := range proofSigningAlgs {
		algs[i] = string(alg)
	}
	return algs
}

// DPoPAlgs is the algs parameter of a DPoP challenge (RFC 9449 §7.1).
func DPoPAlgs() string { return strings.Join(dpopAlgs(), " ") }

// typProof is the typ header of a proof.
const typProof = "dpop+jwt"

// proofClaims are what a proof says (RFC 9449 §4.2) and the key that said it.
type proofClaims struct {
	JTI       string   `json:"jti"`
	Method    string   `json:"htm"`
	URI       string   `json:"htu"`
	IssuedAt  *float64 `json:"iat"`
	Expires   *float64 `json:"exp"`
	NotBefore *float64 `json:"nbf"`
	TokenHash string   `json:"ath"`
	Nonce     string   `json:"nonce"`

	jkt string // RFC 7638 SHA-256 thumbprint
}

// parseProof takes a proof apart whose signature is right by the public key in
// its header. What it says is not judged, but jti and iat are there.
func parseProof(proof string) (*proofClaims, error) {
	refuse := func(reason string) error { return fail(InvalidDPoPProof, msgDPoPProof).reason(reason) }
	if len(proof) > maxProof || !oneSpelling(proof) {
		return nil, refuse("dpop_form")
	}
	// This also refuses a key with any private part.
	token, err := jose.ParseSignedCompact(proof, proofSigningAlgs)
	if err != nil {
		return nil, refuse("dpop_form")
	}
	header := token.Signatures[0].Protected
	if typ, _ := header.ExtraHeaders[jose.HeaderType].(string); typ != typProof || header.ExtraHeaders["crit"] != nil {
		return nil, refuse("dpop_header")
	}
	if header.JSONWebKey == nil || !proofKey(header.Algorithm, header.JSONWebKey.Key) {
		return nil, refuse("dpop_key")
	}
	payload, err := token.Verify(header.JSONWebKey.Key)
	if err != nil {
		return nil, refuse("dpop_signature")
	}
	claims := new(proofClaims)
	if err := json.Unmarshal(payload, claims); err != nil || claims.IssuedAt == nil || !ascii.Visible(claims.JTI, maxJTI) {
		return nil, refuse("dpop_claims")
	}
	thumbprint, err := header.JSONWebKey.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, refuse("dpop_key")
	}
	claims.jkt = base64.RawURLEncoding.EncodeToString(thumbprint)
	return claims, nil
}

// proofKey reports whether a key is of the kind and size that alg needs. Larger
// RSA keys than usual would only cost time.
func proofKey(alg string, key any) bool {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}[alg] == key.Curve
	case ed25519.PublicKey:
		return alg == string(jose.EdDSA)
	case *rsa.PublicKey:
		bits := key.N.BitLen()
		return (alg == string(jose.RS256) || alg == string(jose.PS256)) && 2048 <= bits && bits <= 4096
	}
	return false
}

// sameURI compares two http URIs without query and fragment (RFC 9449 §4.3).
func sameURI(a, b string) bool {
	left, ok := normalURI(a)
	right, also := normalURI(b)
	return ok && also && left == right
}

// normalURI is the syntax-based and scheme-based normal form (RFC 3986 §6.2.2,
// §6.2.3) of an http URI without query and fragment.
func normalURI(raw string) (string, bool) {
	uri, err := url.Parse(raw)
	if err != nil || uri.User != nil || uri.Opaque != "" {
		return "", false
	}
	port := map[string]string{"http": ":80", "https": ":443"}[uri.Scheme] // Parse has lowered it
	if port == "" {
		return "", false
	}
	host := strings.ToLower(uri.Host)
	host = strings.TrimSuffix(strings.TrimSuffix(host, port), ":")
	if host == "" {
		return "", false
	}
	path := normalEscapes(uri.EscapedPath())
	if path == "" {
		path = "/"
	}
	uri, err = url.Parse(uri.Scheme + "://" + host + path)
	if err != nil {
		return "", false
	}
	return uri.ResolveReference(uri).String(), true // without dot segments
}

// normalEscapes writes percent-encodings in capitals, and none of characters
// that need none.
func normalEscapes(path string) string {
	if !strings.Contains(path, "%") {
		return path
	}
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] != '%' || i+2 >= len(path) {
			b.WriteByte(path[i])
			continue
		}
		octet, err := url.PathUnescape(path[i : i+3])
		switch {
		case err != nil:
			b.WriteString(path[i : i+3])
		case strings.Trim(octet, "-._~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == "":
			b.WriteString(octet)
		default:
			b.WriteString(strings.ToUpper(path[i : i+3]))
		}
		i += 2
	}
	return b.String()
}
