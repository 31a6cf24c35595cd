package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func segment(v string) string { return base64.RawURLEncoding.EncodeToString([]byte(v)) }

// keyOf is the current signing key of alg, private half included.
func keyOf(r *Ring, alg string) *signingKey { return r.snap.Load().current[alg] }

// forge makes a compact JWS with any header and a signature that is right for key.
func forge(t testing.TB, key *signingKey, header, payload string) string {
	t.Helper()
	input := segment(header) + "." + segment(payload)
	signature, err := key.sign([]byte(input))
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64.EncodeToString(signature)
}

// refused checks that Verify fails for the reason given, and not by accident.
func refused(t testing.TB, r *Ring, name, token, reason string) {
	t.Helper()
	got, err := r.Verify(token, "JWT", "at+jwt")
	if got != nil || !errors.Is(err, ErrInvalidToken) {
		t.Errorf("%s: accepted, or not an ErrInvalidToken: %v", name, err)
		return
	}
	if !strings.Contains(err.Error(), reason) {
		t.Errorf("%s: error %q, want it to say %q", name, err, reason)
	}
	if len(err.Error()) > 400 || strings.ContainsAny(err.Error(), "\r\n") {
		t.Errorf("%s: error cannot go to a log: %d bytes, %q", name, len(err.Error()), err)
	}
}

func TestSignAndVerify(t *testing.T) {
	r := newWorld(t, defaults()).open(t)
	v := &validator{}
	v.refresh(t, r)
	const claims = `{"iss":"https://id.example.com","name":"小店 <&>"}`
	for _, alg := range []string{ES256, RS256, EdDSA} {
		for _, typ := range []string{"at+jwt", "JWT", "logout+jwt", `own"type<`, ""} {
			token := sign(t, r, alg, typ, claims)
			v.verifies(t, token)
			got, err := r.Verify(token, "other", typ)
			if err != nil {
				t.Fatalf("%s %q: %v", alg, typ, err)
			}
			if string(got.Payload) != claims || got.Alg != alg || got.Type != typ || got.KeyID != current(t, r, alg) {
				t.Errorf("%s %q: got %+v", alg, typ, got)
			}
			for _, wrong := range [][]string{nil, {"other"}, {"Jwt", "AT+JWT", "application/at+jwt"}} {
				if _, err := r.Verify(token, wrong...); !errors.Is(err, ErrInvalidToken) {
					t.Errorf("%s: token of typ %q accepted as %q", alg, typ, wrong)
				}
			}
			raw, _, _ := strings.Cut(token, ".")
			header, err := base64.RawURLEncoding.DecodeString(raw)
			if err != nil {
				t.Fatal(err)
			}
			var members map[string]string
			if err := json.Unmarshal(header, &members); err != nil || len(members) != 3 {
				t.Errorf("header %s: %v", header, err)
			}
		}
	}
	for _, alg := range []string{"", "none", "HS256", "MAC", "es256", "PS256"} {
		if token, err := r.Sign(alg, "JWT", []byte("{}")); !errors.Is(err, ErrNoKey) || token != "" {
			t.Errorf("Sign with alg %q: %q, %v", alg, token, err)
		}
	}
	if _, err := r.Sign(ES256, "JWT", make([]byte, MaxTokenSize)); err == nil {
		t.Error("Sign made a token that Verify would refuse")
	}
}

func TestThreat31AlgConfusion(t *testing.T) {
	r := newWorld(t, defaults()).open(t)
	algs := []string{ES256, RS256, EdDSA}
	foreign := []string{"none", "None", "nOnE", "NONE", "", "HS256", "HS384", "HS512", "PS256", "PS384",
		"RS1", "RS384", "RS512", "ES256K", "ES384", "ES512", "Ed25519", "es256", "ES256 ", "dir", "RSA-OAEP", "PBES2-HS256+A128KW"}
	accepted := 0
	for _, own := range algs {
		key := keyOf(r, own)
		head := func(alg string) string {
			return fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, alg, key.id)
		}
		body := segment(`{"sub":"admin"}`)

		// Whatever can be had of the public key, used as an HMAC secret.
		public := key.signer.Public()
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		jwk, err := json.Marshal(jose.JSONWebKey{Key: public, KeyID: key.id, Algorithm: own, Use: "sig"})
		if err != nil {
			t.Fatal(err)
		}
		secrets := [][]byte{der, block, bytes.TrimSpace(block), jwk, r.JWKS().Body, []byte(key.id), {}}
		if rsaKey, ok := public.(*rsa.PublicKey); ok {
			secrets = append(secrets, x509.MarshalPKCS1PublicKey(rsaKey), rsaKey.N.Bytes())
		}
		for _, alg := range append(foreign, algs...) {
			input := segment(head(alg)) + "." + body
			for i, secret := range secrets {
				mac := hmac.New(sha256.New, secret)
				mac.Write([]byte(input))
				reason := "is not one of ours"
				switch {
				case alg == own:
					reason = "signature does not verify"
				case slices.Contains(algs, alg):
					reason = "with a key for"
				}
				refused(t, r, fmt.Sprintf("%s key, alg %q, secret %d", own, alg, i), input+"."+b64.EncodeToString(mac.Sum(nil)), reason)
			}
			refused(t, r, own+" unsigned as "+alg, input+".", "")
			if alg != own {
				refused(t, r, own+" signature as "+alg, forge(t, key, head(alg), `{}`), "")
			}
		}
		// A right signature of one algorithm under the kid of another.
		for _, other := range algs {
			if other != own {
				header := fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, other, keyOf(r, other).id)
				refused(t, r, own+" key for "+other, forge(t, key, header, `{}`), "signature does not verify")
			}
		}
		if _, err := r.Verify(forge(t, key, head(own), `{}`), "JWT"); err == nil {
			accepted++
		}
	}
	if accepted != len(algs) {
		t.Errorf("%d of the honest tokens accepted", accepted)
	}

	// RS256 to PS256: a right PSS signature by the right key.
	key := keyOf(r, RS256)
	input := segment(fmt.Sprintf(`{"alg":"RS256","kid":%q,"typ":"JWT"}`, key.id)) + "." + segment(`{}`)
	digest := sha256.Sum256([]byte(input))
	pss, err := rsa.SignPSS(rand.Reader, key.signer.(*rsa.PrivateKey), crypto.SHA256, digest[:], nil)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, r, "PSS signature", input+"."+b64.EncodeToString(pss), "signature does not verify")
}

func TestES256SignatureForms(t *testing.T) {
	r := newWorld(t, defaults()).open(t)
	key := keyOf(r, ES256)
	token := sign(t, r, ES256, "JWT", `{}`)
	dot := strings.LastIndex(token, ".") + 1
	raw, err := b64.DecodeString(token[dot:])
	if err != nil || len(raw) != 64 {
		t.Fatalf("signature of %d bytes, %v", len(raw), err)
	}
	x, y := new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])
	n := elliptic.P256().Params().N

	// (r, n-s) is as good a signature as (r, s); nothing may be keyed on it.
	twin := append(bytes.Clone(raw[:32]), new(big.Int).Sub(n, y).FillBytes(make([]byte, 32))...)
	if _, err := r.Verify(token[:dot]+b64.EncodeToString(twin), "JWT"); err != nil {
		t.Errorf("twin: %v", err)
	}
	digest := sha256.Sum256([]byte(token[:dot-1]))
	der, err := ecdsa.SignASN1(rand.Reader, key.signer.(*ecdsa.PrivateKey), digest[:])
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 32)
	for name, signature := range map[string][]byte{
		"empty":     {},
		"zero":      make([]byte, 64),
		"r zero":    append(bytes.Clone(zeros), raw[32:]...),
		"s zero":    append(bytes.Clone(raw[:32]), zeros...),
		"s = n":     append(bytes.Clone(raw[:32]), n.Bytes()...),
		"ASN.1":     der,
		"short":     raw[:63],
		"long":      append(bytes.Clone(raw), 0),
		"swapped":   append(bytes.Clone(raw[32:]), raw[:32]...),
		"r + n":     append(new(big.Int).Add(x, n).Bytes(), raw[32:]...),
		"two of it": append(bytes.Clone(raw), raw...),
	} {
		refused(t, r, name, token[:dot]+b64.EncodeToString(signature), "signature does not verify")
	}
}

func TestFixedSizeSignature(t *testing.T) {
	number := func(b ...byte) []byte { return append([]byte{2, byte(len(b))}, b...) }
	sequence := func(parts ...[]byte) []byte {
		body := bytes.Join(parts, nil)
		return append([]byte{0x30, byte(len(body))}, body...)
	}
	full := bytes.Repeat([]byte{0x7f}, 32)
	high := append([]byte{0}, bytes.Repeat([]byte{0xff}, 32)...)
	got, err := fixedSize(sequence(number(5), number(high...)))
	if want := append(append(make([]byte, 31), 5), high[1:]...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v", got, err)
	}
	for name, der := range map[string][]byte{
		"empty":       {},
		"set":         append([]byte{0x31}, sequence(number(1), number(1))[1:]...),
		"one number":  sequence(number(1)),
		"three":       sequence(number(1), number(1), number(1)),
		"too big":     sequence(number(append([]byte{1}, full...)...), number(1)),
		"overrun":     {0x30, 4, 2, 9, 1, 1},
		"short":       {0x30, 9, 2, 1, 1},
		"not numbers": {0x30, 6, 4, 1, 1, 4, 1, 1},
	} {
		if out, err := fixedSize(der); err == nil {
			t.Errorf("%s: %x", name, out)
		}
	}
	// Short halves turn up in one of 128 signatures.
	r := newWorld(t, defaults()).open(t)
	for range 500 {
		if _, err := r.Verify(sign(t, r, ES256, "JWT", "{}"), "JWT"); err != nil {
			t.Fatal(err)
		}
	}
}

// One token must have one spelling, or what is keyed by its text is bypassed.
func TestOneSpelling(t *testing.T) {
	r := newWorld(t, defaults()).open(t)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for _, alg := range []string{ES256, RS256, EdDSA} {
		token := sign(t, r, alg, "JWT", `{"a":1}`) // 7 bytes: spare bits in the payload too
		parts := strings.Split(token, ".")
		for part := range parts {
			last := parts[part][len(parts[part])-1]
			for _, c := range alphabet {
				if byte(c) == last {
					continue
				}
				other := slices.Clone(parts)
				other[part] = other[part][:len(other[part])-1] + string(c)
				refused(t, r, fmt.Sprintf("%s part %d ending in %c", alg, part, c), strings.Join(other, "."), "")
			}
			for _, extra := range []string{"=", "==", "\n", "\r\n", " ", "A", "+", "/", "\x00", "é"} {
				other := slices.Clone(parts)
				other[part] += extra
				refused(t, r, fmt.Sprintf("%s part %d with %q after", alg, part, extra), strings.Join(other, "."), "")
				other[part] = extra + parts[part]
				refused(t, r, fmt.Sprintf("%s part %d with %q before", alg, part, extra), strings.Join(other, "."), "")
			}
		}
	}
	// The same with a right signature over the odd spelling.
	key := keyOf(r, EdDSA)
	for name, payload := range map[string]string{"line break": "e30\n", "spare bits": "e31", "padding": "e30="} {
		input := key.headers["JWT"] + "." + payload
		signature, err := key.sign([]byte(input))
		if err != nil {
			t.Fatal(err)
		}
		refused(t, r, name, input+"."+b64.EncodeToString(signature), "payload is not canonical")
	}
}

func TestThreat32HeaderTrust(t *testing.T) {
	r := newWorld(t, defaults()).open(t)
	key := keyOf(r, ES256)
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key.signer.Public()})
	if err != nil {
		t.Fatal(err)
	}
	good := fmt.Sprintf(`"alg":"ES256","kid":%q,"typ":"JWT"`, key.id)
	withKid := func(kid string) string {
		encoded, err := json.Marshal(kid)
		if err != nil {
			t.Fatal(err)
		}
		return `{"alg":"ES256","kid":` + string(encoded) + `,"typ":"JWT"}`
	}
	for _, tc := range []struct{ name, header, reason string }{
		{"path as kid", withKid("../../dev/null"), `unknown kid "../../dev/null"`},
		{"SQL as kid", withKid("' OR 1=1 --"), "unknown kid"},
		{"CRLF in kid", withKid("x\r\n{\"event\":\"forged\"}"), `unknown kid "x\r\n`},
		{"terminal escape in kid", withKid("\x1b[2J\u202e"), `\x1b[2J\u202e`},
		{"long kid", withKid(strings.Repeat("k", 600)), `unknown kid "` + strings.Repeat("k", 64) + `"`},
		{"kid of 1 MiB", withKid(strings.Repeat("k", 1<<20)), "longer than"},
		{"kid in the wrong case", withKid(strings.ToUpper(key.id)), "unknown kid"},
		{"kid with a NUL", withKid(key.id + "\x00"), "unknown kid"},
		{"MAC key as kid", withKid("mac-1"), "unknown kid"},
		{"kid of a number", `{"alg":"ES256","kid":1,"typ":"JWT"}`, "not a string"},
		{"kid null", `{"alg":"ES256","kid":null,"typ":"JWT"}`, "not a string"},
		{"no kid", `{"alg":"ES256","typ":"JWT"}`, "unknown kid"},
		{"no alg", fmt.Sprintf(`{"kid":%q,"typ":"JWT"}`, key.id), "not one of ours"},
		{"no typ", fmt.Sprintf(`{"alg":"ES256","kid":%q}`, key.id), "typ is not"},
		{"jwk", `{` + good + `,"jwk":` + string(jwk) + `}`, `member "jwk" is not allowed`},
		{"jku", `{"jku":"http://127.0.0.1:1/x",` + good + `}`, `member "jku" is not allowed`},
		{"x5u", `{"x5u":"file:///etc/passwd",` + good + `}`, `member "x5u" is not allowed`},
		{"x5c", `{"x5c":["AA=="],` + good + `}`, `member "x5c" is not allowed`},
		{"crit", `{` + good + `,"crit":["exp"],"exp":1}`, `member "crit" is not allowed`},
		{"b64", `{` + good + `,"b64":false}`, `member "b64" is not allowed`},
		{"zip", `{` + good + `,"zip":"DEF"}`, `member "zip" is not allowed`},
		{"enc", `{` + good + `,"enc":"A256GCM","p2c":1000000000}`, `member "enc" is not allowed`},
		{"name in another case", `{` + good + `,"Alg":"none"}`, `member "Alg" is not allowed`},
		{"kid twice", `{` + good + `,"kid":"x"}`, "member kid is there twice"},
		{"alg twice", `{"alg":"none",` + good + `}`, "member alg is there twice"},
		{"kid twice, once escaped", `{` + good + `,"\u006bid":"x"}`, "member kid is there twice"},
		{"long member name", `{"` + strings.Repeat("n", 500) + `":1}`, "is not allowed"},
		{"array", `[` + key.id + `]`, "not a JSON object"},
		{"string", `"alg"`, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"empty", ``, "not a JSON object"},
		{"unterminated", `{` + good, "not JSON"},
		{"trailing comma", `{` + good + `,}`, "not JSON"},
		{"trailing value", `{` + good + `}{}`, "something after"},
		{"trailing garbage", `{` + good + `}x`, "something after"},
		{"nested", strings.Repeat(`{"alg":`, 100), "not a string"},
	} {
		refused(t, r, tc.name, forge(t, key, tc.header, `{}`), tc.reason)
	}
	// Spelled differently from how Sign does, but saying the same.
	for _, header := range []string{
		fmt.Sprintf(` { "typ" : "JWT", "kid":%q,"alg":"ES256" } `, key.id),
		fmt.Sprintf(`{"\u0061lg":"ES256","kid":%q,"typ":"JWT"}`, key.id),
	} {
		if _, err := r.Verify(forge(t, key, header, `{}`), "JWT"); err != nil {
			t.Errorf("header %s: %v", header, err)
		}
	}
}

func TestThreat37Bombs(t *testing.T) {
	r := newWorld(t, defaults()).open(t)
	token := sign(t, r, ES256, "JWT", `{}`)
	key := keyOf(r, ES256)
	jsonForm, err := json.Marshal(map[string]string{
		"protected": key.headers["JWT"], "payload": segment(`{}`), "signature": token[strings.LastIndex(token, ".")+1:]})
	if err != nil {
		t.Fatal(err)
	}
	for name, bomb := range map[string]string{
		"million dots":          strings.Repeat(".", 1_000_000),
		"dots within the limit": strings.Repeat(".", MaxTokenSize),
		"token and dots":        token + strings.Repeat(".", 5000),
		"five parts":            token + ".a.b",
		"two parts":             token[:strings.LastIndex(token, ".")],
		"one part":              strings.Repeat("A", MaxTokenSize),
		"empty":                 "",
		"two dots":              "..",
		"JSON serialization":    string(jsonForm),
		"deep header":           segment(strings.Repeat(`{"a":`, 10_000)) + ".e30.AAAA",
		"deep within the limit": segment(strings.Repeat(`[`, maxHeader/2)) + ".e30.AAAA",
		"members":               segment(`{`+strings.Repeat(`"a":1,`, 100)+`"b":1}`) + ".e30.AAAA",
		"big header":            segment(`{"alg":"`+strings.Repeat("E", 11_000)+`"}`) + ".e30.AAAA",
		"big signature":         token + strings.Repeat("A", MaxTokenSize-len(token)),
		"big payload":           key.headers["JWT"] + "." + strings.Repeat("A", MaxTokenSize-400) + ".AAAA",
	} {
		refused(t, r, name, bomb, "")
		const calls = 20
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range calls {
			_, _ = r.Verify(bomb, "JWT")
		}
		runtime.ReadMemStats(&after)
		if got := (after.TotalAlloc - before.TotalAlloc) / calls; got > 128<<10 {
			t.Errorf("%s: %d bytes allocated by one call", name, got)
		}
	}
}
