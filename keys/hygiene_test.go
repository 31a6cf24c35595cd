package keys

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// secretsOf lists, in every spelling, what must never leave the ring.
func secretsOf(r *Ring) []string {
	var raw [][]byte
	s := r.snap.Load()
	for _, key := range s.keys {
		switch private := key.signer.(type) {
		case *ecdsa.PrivateKey:
			d, err := private.Bytes()
			if err != nil {
				panic(err)
			}
			raw = append(raw, d)
		case *rsa.PrivateKey:
			raw = append(raw, private.D.Bytes(), private.Primes[0].Bytes(), private.Primes[1].Bytes(),
				private.Precomputed.Dp.Bytes(), private.Precomputed.Dq.Bytes(), private.Precomputed.Qinv.Bytes())
		case ed25519.PrivateKey:
			raw = append(raw, private.Seed())
		}
	}
	for _, mac := range s.macs {
		raw = append(raw, mac.Key[:])
	}
	var out []string
	for _, b := range raw {
		b = b[:16] // any part of it is too much
		decimal := strings.Trim(fmt.Sprint(b), "[]")
		out = append(out, string(b), hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)), decimal,
			strings.ReplaceAll(decimal, " ", ","),
			base64.RawURLEncoding.EncodeToString(b[:15]), base64.RawStdEncoding.EncodeToString(b[:15]))
	}
	return out
}

func TestNoPrivateByteLeaves(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, defaults())
		var out syncBuffer
		w.options.Logger = slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug - 100}))
		w.options.PollEvery = time.Minute
		r := w.open(t)
		defer run(t, r)()
		time.Sleep(25 * time.Hour)
		show := func(v any) { fmt.Fprintf(&out, "%v %+v %#v %s\n", v, v, v, v) }
		show(r.Rotate(t.Context(), ""))
		show(r.Revoke(t.Context(), current(t, r, RS256)))
		show(r.Rotate(t.Context(), ES256))
		w.store.fail(errors.New("down"))
		show(r.Revoke(t.Context(), current(t, r, RS256)))
		time.Sleep(10 * time.Minute)
		w.store.fail(nil)

		mac := r.MACKey()
		show(mac)
		show(&mac)
		show(struct{ K MACKey }{mac})
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "mac", mac, "in", struct{ K MACKey }{mac})
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "mac", mac, "in", struct{ K MACKey }{mac})
		for _, v := range []any{r.List(), r.Ages(), r.JWKS(), mac, struct{ K MACKey }{mac}} {
			raw, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = out.Write(raw)
		}
		_, _ = out.Write(r.JWKS().Body)
		stored, _ := w.store.state()
		_, _ = out.Write(stored)
		d, err := decodeDocument(stored)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range d.Keys {
			_, _ = out.Write(rec.Sealed)
		}
		for _, alg := range r.Algorithms() {
			_, err := r.Verify(sign(t, r, alg, "JWT", "{}"), "other")
			show(err)
		}
		text := out.String()
		secrets := secretsOf(r)
		if len(secrets) < 100 || !strings.Contains(text, `"alg":"MAC"`) {
			t.Fatalf("%d spellings to look for", len(secrets))
		}
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("a private byte string got out: %q", s)
			}
		}
	})
}

func TestThreat35JWKSHygiene(t *testing.T) {
	r := newWorld(t, defaults()).open(t)
	doc := r.JWKS()
	var set struct {
		Keys []map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(doc.Body, &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 6 {
		t.Errorf("%d keys", len(set.Keys))
	}
	public := map[string]string{"EC": "crv x y", "RSA": "n e", "OKP": "crv x"}
	for _, jwk := range set.Keys {
		allowed := "kty kid use alg " + public[jwk["kty"]]
		for name := range jwk {
			if !strings.Contains(" "+allowed+" ", " "+name+" ") {
				t.Errorf("%s key has member %s", jwk["kty"], name)
			}
		}
		if len(jwk) != len(strings.Fields(allowed)) || jwk["use"] != "sig" || len(jwk["kid"]) != 43 {
			t.Errorf("incomplete: %v", jwk)
		}
		if jwk["kty"] == "RSA" && len(jwk["n"]) < 342 {
			t.Errorf("RSA key of %d base64 digits", len(jwk["n"]))
		}
	}
	for _, key := range parseSet(t, doc.Body).Keys {
		if !key.Valid() || !key.IsPublic() {
			t.Errorf("go-jose does not take %s as a public key", key.KeyID)
		}
	}
	if doc.MaxAge != time.Hour || !strings.HasPrefix(doc.ETag, `"`) || !strings.HasSuffix(doc.ETag, `"`) || len(doc.ETag) < 20 {
		t.Errorf("max-age %s, ETag %s", doc.MaxAge, doc.ETag)
	}
	if got := testing.AllocsPerRun(100, func() { _ = r.JWKS() }); got != 0 {
		t.Errorf("JWKS allocates %v times", got)
	}
	if again := r.JWKS(); again != doc {
		t.Error("the document is made anew for each request")
	}
	// The same keys make the same set, in any process and after any order of writing.
	if err := r.maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.JWKS().ETag != doc.ETag {
		t.Error("ETag changed although the set did not")
	}
}

// Requests go on while keys come and go.
func TestReadersAndChangesTogether(t *testing.T) {
	w := newWorld(t, defaults())
	w.options.PollEvery = 2 * time.Millisecond
	r := w.open(t)
	defer run(t, r)()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				token, err := r.Sign(ES256, "JWT", []byte("{}"))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := r.Verify(token, "JWT"); err != nil && !strings.Contains(err.Error(), "unknown kid") {
					t.Error(err)
				}
				if mac := r.MACKey(); mac.ID == 0 {
					t.Error("no MAC key")
				}
				_, _, _ = r.JWKS().Body, r.List(), r.Ages()
			}
		})
	}
	settings := defaults()
	for i := range 30 {
		settings.PublishAhead = time.Duration(i+1) * time.Hour / 10
		r.Reload(settings)
		victim := current(t, r, []string{ES256, MAC}[i%2])
		if err := r.Revoke(t.Context(), victim); err != nil {
			t.Error(err)
		}
		if strings.Contains(string(r.JWKS().Body), victim) {
			t.Error("a revoked key is back")
		}
	}
	close(stop)
	wg.Wait()
}
