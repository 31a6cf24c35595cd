package provider

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// prover makes proofs for the token endpoint.
func prover(t testing.TB) func(edits ...func(map[string]any)) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{EmbedJWK: true}).WithType(typProof))
	if err != nil {
		t.Fatal(err)
	}
	return func(edits ...func(map[string]any)) string {
		claims := map[string]any{"jti": rand.Text(), "htm": http.MethodPost, "htu": testIssuer + PathToken, "iat": time.Now().Unix()}
		for _, edit := range edits {
			edit(claims)
		}
		proof, err := jwt.Signed(signer).Claims(claims).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return proof
	}
}

func put(name string, value any) func(map[string]any) {
	return func(claims map[string]any) { claims[name] = value }
}

func (b *bench) prove(proof string) error {
	_, err := b.dpopProof(context.Background(), request(PathToken, nil, "DPoP", proof), http.MethodPost, testIssuer+PathToken, "")
	return err
}

// reason checks why a proof is refused, "" for one that is taken.
func (b *bench) reason(err error, want string) {
	b.t.Helper()
	got := ""
	if err != nil {
		got = AsError(err).LogReason
	}
	if got != want {
		b.t.Errorf("reason %q, want %q", got, want)
	}
}

// TestDPoPTimes: a proof is good for a minute, and for clocks that are ten
// seconds ahead; its jti is taken for as long.
func TestDPoPTimes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, make := newBench(t), prover(t)
		now := time.Now().Unix()
		for offset, want := range map[int64]string{-61: "dpop_time", -60: "", 0: "", 10: "", 11: "dpop_time"} {
			b.reason(b.prove(make(put("iat", now+offset))), want)
		}
		b.reason(b.prove(make(put("iat", float64(now)+10.5))), "dpop_time")
		b.reason(b.prove(make(put("exp", now-9))), "")
		b.reason(b.prove(make(put("exp", now-10))), "dpop_time")
		b.reason(b.prove(make(put("nbf", now+10))), "")
		b.reason(b.prove(make(put("nbf", now+11))), "dpop_time")

		early := make(put("iat", now+10))
		b.reason(b.prove(early), "")
		for range 7 { // to the end of its time
			b.reason(b.prove(early), "dpop_replayed")
			time.Sleep(10 * time.Second)
		}
		b.reason(b.prove(early), "dpop_replayed")
		time.Sleep(time.Second)
		b.reason(b.prove(early), "dpop_time")
	})
}

// TestDPoPNonceSlots: a nonce is good for five to ten minutes.
func TestDPoPNonceSlots(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, make := newBench(t, func(s *Settings) { s.DPoPNonce = true }), prover(t)
		time.Sleep(time.Until(time.Now().Truncate(nonceSlot).Add(nonceSlot))) // a slot begins
		nonce := b.DPoPNonce()
		with := func(nonce string) error { return b.prove(make(put("nonce", nonce))) }
		b.reason(b.prove(make()), "dpop_nonce")
		b.reason(with(nonce), "")
		b.reason(with(b.nonceOf(slotNow()+1)), "") // of a node that is ahead
		b.reason(with(b.nonceOf(slotNow()+2)), "dpop_nonce")
		time.Sleep(nonceSlot)
		if b.DPoPNonce() == nonce {
			t.Error("the nonce does not change")
		}
		b.reason(with(nonce), "")
		time.Sleep(nonceSlot)
		b.reason(with(nonce), "dpop_nonce")
	})
}

// TestSameURI: the equalities of RFC 3986 §6.2.2 and §6.2.3, and no others.
func TestSameURI(t *testing.T) {
	const ours = "https://id.example.com/x/oauth2/token"
	for uri, want := range map[string]bool{
		ours: true, ours + "?a=b": true, ours + "#f": true, "HTTPS://ID.Example.COM/x/oauth2/token": true, "https://id.example.com:443/x/oauth2/token": true,
		"https://id.example.com:/x/oauth2/token": true, "https://id.example.com/x/%6Fauth2/token": true, "https://id.example.com/y/../x/./oauth2/token": true,
		"https://id.example.com/%78/%2e/oauth2/token": true,

		"": false, "/x/oauth2/token": false, "//id.example.com/x/oauth2/token": false, "http://id.example.com/x/oauth2/token": false,
		"https://id.example.com:444/x/oauth2/token": false, "https://id.example.com:80/x/oauth2/token": false, "https://id.example.com/x/oauth2/token/": false,
		"https://id.example.com/x/oauth2//token": false, "https://id.example.com//x/oauth2/token": false, "https://id.example.com/x/oauth2%2Ftoken": false,
		"https://id.example.com/X/oauth2/token": false, "https://id.example.com/oauth2/token": false, "https://id.example.com/x/oauth2/token%20": false,
		"https://u@id.example.com/x/oauth2/token": false, "https://id.example.com@evil.example/x/oauth2/token": false, "https://id.example.com.evil.example/x/oauth2/token": false,
		"https:id.example.com/x/oauth2/token": false, "https://id.example.com./x/oauth2/token": false, "https://id.example.com/x/oauth2/token%": false,
	} {
		if got := sameURI(uri, ours); got != want {
			t.Errorf("%s: %v", uri, got)
		}
	}
	for a, b := range map[string]string{
		"https://h": "https://h/", "https://h/%c3%a9": "https://h/%C3%A9", "https://[::1]:443/a": "https://[::1]/a", "http://h:80/%7Ea": "http://h/~a",
	} {
		if !sameURI(a, b) {
			t.Errorf("%s and %s", a, b)
		}
	}
}

// FuzzNormalURI: the normal form is its own normal form.
func FuzzNormalURI(f *testing.F) {
	for _, seed := range []string{"https://h/a/../b", "http://H:80", "https://h/%2e%2E/%zz", "https://[::1]:443/%41?x#y", "https://h/%25%32%66", "", "https://h:/..//"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		once, ok := normalURI(raw)
		if !ok {
			return
		}
		if strings.ContainsAny(once, "?#@") {
			t.Errorf("%q: %q", raw, once)
		}
		if twice, ok := normalURI(once); !ok || twice != once {
			t.Errorf("%q: %q, then %q", raw, once, twice)
		}
	})
}

// FuzzParseProof: what parses is signed by the key that it names, and nothing
// can be changed in it.
func FuzzParseProof(f *testing.F) {
	proof := prover(f)()
	parts := strings.Split(proof, ".")
	want, err := parseProof(proof)
	if err != nil {
		f.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	for _, seed := range []string{
		proof, "", "..", parts[0] + "." + parts[1] + ".", parts[0] + ".." + parts[2], proof + "A", proof + ".", "e30.e30.e30",
		b64([]byte(`{"alg":"none","typ":"dpop+jwt"}`)) + "." + parts[1] + ".", b64([]byte(`{"alg":"ES256","typ":"dpop+jwt","jwk":null}`)) + "." + parts[1] + "." + parts[2],
		b64([]byte(`{"alg":"RS256","typ":"dpop+jwt","jwk":{"kty":"RSA","n":"AQ","e":"AQAB"}}`)) + "." + parts[1] + "." + parts[2],
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseProof(text)
		if err != nil {
			if e := AsError(err); e.Code != InvalidDPoPProof || e.LogReason == "" || strings.Contains(e.Error(), "eyJ") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		// The last character of a signature has bits that mean nothing.
		if i, j := strings.LastIndexByte(text, '.'), len(parts[0])+1+len(parts[1]); got.jkt == want.jkt && text[:i] != proof[:j] {
			t.Errorf("accepted %q by the same key", text)
		}
	})
}
