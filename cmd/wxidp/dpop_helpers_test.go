package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/wxidp/wxidp/provider"
)

// holder holds a key and proves it (RFC 9449), as a client would.
type holder struct {
	t   testing.TB
	alg jose.SignatureAlgorithm
	key crypto.Signer
}

func newHolder(t testing.TB) *holder {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &holder{t, jose.ES256, key}
}

// jwk is the public key.
func (h *holder) jwk() map[string]any {
	h.t.Helper()
	point, err := h.key.Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		h.t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return map[string]any{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}
}

// handmade is a proof with any header, for what libraries refuse to sign.
func (h *holder) handmade(payload string, edit func(header, jwk map[string]any)) string {
	h.t.Helper()
	jwk := h.jwk()
	header := map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}
	edit(header, jwk)
	raw, err := json.Marshal(header)
	if err != nil {
		h.t.Fatal(err)
	}
	input := base64.RawURLEncoding.EncodeToString(raw) + "." + payload
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, h.key.(*ecdsa.PrivateKey), sum[:])
	if err != nil {
		h.t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// thumbprint is the RFC 7638 thumbprint of an EC key, made by hand.
func (h *holder) thumbprint() string {
	h.t.Helper()
	jwk := h.jwk()
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, jwk["x"], jwk["y"]))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// proofParts are what a proof is made of, for tests that spoil some of it.
type proofParts struct {
	options *jose.SignerOptions
	claims  map[string]any
}

// proof makes a proof; edits may spoil it before it is signed.
func (h *holder) proof(method, target string, edits ...func(*proofParts)) string {
	h.t.Helper()
	jti := make([]byte, 16)
	rand.Read(jti)
	parts := &proofParts{
		options: (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"),
		claims: map[string]any{
			"jti": base64.RawURLEncoding.EncodeToString(jti), "htm": method, "htu": target, "iat": time.Now().Unix(),
		},
	}
	for _, edit := range edits {
		edit(parts)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: h.alg, Key: h.key}, parts.options)
	if err != nil {
		h.t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(parts.claims).Serialize()
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}

// claim puts a claim into a proof, nil takes it out.
func claim(name string, value any) func(*proofParts) {
	return func(parts *proofParts) {
		if parts.claims[name] = value; value == nil {
			delete(parts.claims, name)
		}
	}
}

// at is a proof for the token endpoint of a server, as a request edit.
func (h *holder) at(s *testServer, edits ...func(*proofParts)) func(*http.Request) {
	h.t.Helper()
	return header("DPoP", h.proof("POST", s.Issuer+"/oauth2/token", edits...))
}

// show presents an access token with a proof, as a request edit.
func (h *holder) show(token string, edits ...func(*proofParts)) func(*http.Request) {
	return func(r *http.Request) {
		sum := sha256.Sum256([]byte(token))
		edits := append([]func(*proofParts){claim("ath", base64.RawURLEncoding.EncodeToString(sum[:]))}, edits...)
		r.Header.Set("Authorization", "DPoP "+token)
		r.Header.Set("DPoP", h.proof(r.Method, r.URL.String(), edits...))
	}
}

// signIn signs a user in to the default client with a proof.
func (h *holder) signIn(s *testServer, user string, more ...string) answer {
	h.t.Helper()
	out := s.Token(signInForm(s.Code(testAppID, user), more...), h.at(s), phone())
	if out.Status != http.StatusOK {
		h.t.Fatalf("sign-in of %s: %v", user, out)
	}
	return out
}

// resettle changes the provider's settings of a running server.
func resettle(s *testServer, edit func(*provider.Settings)) {
	s.t.Helper()
	settings := providerSettings(s.parts.config.Load())
	edit(&settings)
	if err := s.parts.provider.Reload(settings); err != nil {
		s.t.Fatal(err)
	}
}

// clientOf is the client with this id in the settings.
func clientOf(settings *provider.Settings, id string) *provider.Client {
	for i := range settings.Clients {
		if settings.Clients[i].ID == id {
			return &settings.Clients[i]
		}
	}
	panic("no client " + id)
}
