package keys

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func FuzzVerify(f *testing.F) {
	r := newWorld(f, defaults()).open(f)
	for _, alg := range []string{ES256, RS256, EdDSA} {
		token := sign(f, r, alg, "JWT", `{"sub":"u"}`)
		f.Add(token)
		f.Add(token + ".")
		f.Add(strings.Replace(token, ".", "..", 1))
		f.Add(forge(f, keyOf(r, alg), `{ "alg":"`+alg+`","kid":"`+keyOf(r, alg).id+`","typ":"JWT"}`, `{}`))
		f.Add(forge(f, keyOf(r, alg), `{"alg":"none","kid":"`+keyOf(r, alg).id+`","crit":["exp"]}`, `{}`))
	}
	for _, seed := range []string{"", ".", "..", "...", "e30.e30.", "\n.\n.\n", `{"payload":"e30","protected":"e30","signature":""}`,
		segment(`{"alg":1}`) + ".e30.AA", segment(`[[[[`) + ".e30.AA", segment(`{"kid":"\ud800"}`) + ".e30.AA"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		got, err := r.Verify(token, "JWT")
		if err != nil {
			if got != nil || !errors.Is(err, ErrInvalidToken) || len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\r\n\x1b") {
				t.Fatalf("%v, %q", got, err)
			}
			return
		}
		// Nothing gets in that go-jose would not let in with the same key.
		jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(got.Alg)})
		if err != nil {
			t.Fatalf("accepted what go-jose cannot parse: %v", err)
		}
		payload, err := jws.Verify(r.snap.Load().keys[got.KeyID].signer.Public())
		if err != nil || string(payload) != string(got.Payload) {
			t.Fatalf("accepted what go-jose refuses: %v", err)
		}
	})
}

func FuzzDecodeDocument(f *testing.F) {
	w := newWorld(f, defaults())
	w.open(f)
	good, _ := w.store.state()
	f.Add(good)
	f.Add([]byte(`{"version":1,"last_mac":0,"max_age":0,"keys":[null]}`))
	f.Add([]byte(`{"version":1,"keys":[{"id":"mac-1","alg":"MAC"}]}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, value []byte) {
		d, err := decodeDocument(value)
		if err != nil {
			return
		}
		// What is accepted can be written back and reads the same.
		once, err := d.encode()
		if err != nil {
			t.Skip() // such as a year that RFC 3339 cannot spell
		}
		again, err := decodeDocument(once)
		if err != nil {
			t.Fatal(err)
		}
		twice, err := again.encode()
		if err != nil || string(twice) != string(once) {
			t.Fatalf("%v\n%s\n%s", err, once, twice)
		}
	})
}
