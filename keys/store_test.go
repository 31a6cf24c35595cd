package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
)

func TestWrongMasterKeyChangesNothing(t *testing.T) {
	w := newWorld(t, defaults())
	first := w.open(t)
	before, _ := w.store.state()

	w.options.Keyring = newKeyring(t)
	r, err := open(t.Context(), w.options, w.signers)
	if r != nil || !errors.Is(err, seal.ErrUnknownKey) || !strings.Contains(err.Error(), "master key") {
		t.Fatalf("open with another master key = %v", err)
	}
	if after, swaps := w.store.state(); swaps != 1 || !bytes.Equal(before, after) {
		t.Fatal("a wrong master key changed the document")
	}
	for name, options := range map[string]Options{
		"no keyring":  {Store: w.store, Settings: defaults()},
		"no store":    {Keyring: w.options.Keyring, Settings: defaults()},
		"no settings": {Store: &memory{}, Keyring: w.options.Keyring},
	} {
		if r, err := Open(t.Context(), options); r != nil || err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if first.JWKS().ETag == "" {
		t.Error("the ring in force was harmed")
	}
}

func TestRewrap(t *testing.T) {
	oldKey, newKey := seal.GenerateKey(), seal.GenerateKey()
	w := newWorld(t, defaults())
	w.options.Keyring = newKeyring(t, oldKey)
	first := w.open(t)
	token := sign(t, first, ES256, "JWT", "{}")

	w.options.Keyring = newKeyring(t, newKey, oldKey)
	both := w.open(t)
	if n, err := both.Rewrap(t.Context()); n != 8 || err != nil {
		t.Fatalf("Rewrap = %d, %v", n, err)
	}
	if n, err := both.Rewrap(t.Context()); n != 0 || err != nil {
		t.Errorf("second Rewrap = %d, %v", n, err)
	}
	if _, swaps := w.store.state(); swaps != 2 {
		t.Errorf("%d writes", swaps)
	}
	// A node that runs with the old master key goes on.
	if err := first.maintain(t.Context()); err != nil {
		t.Errorf("running node: %v", err)
	}

	w.options.Keyring = newKeyring(t, newKey)
	only := w.open(t)
	if _, err := only.Verify(token, "JWT"); err != nil {
		t.Errorf("after rewrap: %v", err)
	}
	if only.MACKey() != first.MACKey() || only.JWKS().ETag != first.JWKS().ETag {
		t.Error("rewrapping changed the keys")
	}
	w.options.Keyring = newKeyring(t, oldKey)
	if _, err := open(t.Context(), w.options, w.signers); !errors.Is(err, seal.ErrUnknownKey) {
		t.Errorf("open with the retired master key = %v", err)
	}
}

func TestDamagedDocument(t *testing.T) {
	w := newWorld(t, defaults())
	w.open(t)
	good, _ := w.store.state()
	edit := func(change func(d *document)) []byte {
		d, err := decodeDocument(good)
		if err != nil {
			t.Fatal(err)
		}
		change(d)
		raw, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	replace := func(old, new string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("document has no %s: %s", old, good)
		}
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	for name, value := range map[string][]byte{
		"empty":            {},
		"not JSON":         []byte("\x00\x01garbage"),
		"null":             []byte("null"),
		"empty object":     []byte("{}"),
		"truncated":        good[:len(good)/2],
		"trailing":         append(bytes.Clone(good), "{}"...),
		"unknown member":   replace(`"version"`, `"extra":1,"version"`),
		"future version":   replace(`"version":1`, `"version":2`),
		"unknown state":    replace(`"state":"next"`, `"state":"primary"`),
		"unknown alg":      replace(`"alg":"ES256"`, `"alg":"HS256"`),
		"null key":         replace(`"keys":[`, `"keys":[null,`),
		"no keys":          edit(func(d *document) { d.Keys = nil }),
		"two current":      edit(func(d *document) { d.only(ES256, StateNext).State = StateCurrent }),
		"key twice":        edit(func(d *document) { d.Keys = append(d.Keys, d.Keys[0]) }),
		"MAC id too high":  edit(func(d *document) { d.LastMAC = 0 }),
		"odd MAC id":       edit(func(d *document) { d.only(MAC, StateNext).ID = "mac-02" }),
		"signing with MAC": edit(func(d *document) { d.only(MAC, StateNext).Alg = ES256 }),
		"no MAC current":   edit(func(d *document) { d.remove(d.only(MAC, StateCurrent)) }),
		"times":            edit(func(d *document) { d.only(ES256, StateCurrent).SigningAt = time.Time{} }),
		"unsealed":         edit(func(d *document) { d.only(ES256, StateCurrent).Sealed = nil }),
		"flipped bit":      edit(func(d *document) { d.only(ES256, StateCurrent).Sealed[40] ^= 1 }),
		"other version":    edit(func(d *document) { d.only(ES256, StateCurrent).Sealed[0] ^= 1 }),
		"renamed":          edit(func(d *document) { d.only(ES256, StateCurrent).ID = "x" }),
		"sealed swapped": edit(func(d *document) {
			a, b := d.only(ES256, StateCurrent), d.only(ES256, StateNext)
			a.Sealed, b.Sealed = b.Sealed, a.Sealed
		}),
		"key of another alg": edit(func(d *document) {
			a, b := d.only(ES256, StateNext), d.only(EdDSA, StateNext)
			a.Sealed = b.Sealed
		}),
		"sealed for another use": edit(func(d *document) {
			rec := d.only(ES256, StateNext)
			plain, err := rec.open(w.options.Keyring)
			if err != nil {
				t.Fatal(err)
			}
			rec.Sealed = w.options.Keyring.Seal("other", rec.aad(), plain)
		}),
		"not a key": edit(func(d *document) {
			d.only(RS256, StateNext).seal(w.options.Keyring, []byte("canary-plain"))
		}),
		"key under a wrong id": edit(func(d *document) {
			rec := d.only(RS256, StateNext)
			plain, err := rec.open(w.options.Keyring)
			if err != nil {
				t.Fatal(err)
			}
			rec.ID = strings.Repeat("A", 43)
			rec.seal(w.options.Keyring, plain)
		}),
		"short MAC key": edit(func(d *document) { d.only(MAC, StateNext).seal(w.options.Keyring, []byte("short")) }),
	} {
		w.store.set(value)
		r, err := open(t.Context(), w.options, w.signers)
		if r != nil || err == nil {
			t.Errorf("%s: opened", name)
			continue
		}
		if after, _ := w.store.state(); !bytes.Equal(after, value) {
			t.Errorf("%s: the document was changed", name)
		}
		if !strings.HasPrefix(err.Error(), "keys: ") || len(err.Error()) > 300 || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: error %q", name, err)
		}
	}
	w.store.set(good)
	w.open(t)
}

// A key that is smaller than JWKs may be (RFC 7518 section 3.3) is not taken.
func TestWeakStoredKeyIsRefused(t *testing.T) {
	w := newWorld(t, defaults())
	weak := func(alg string) (crypto.Signer, error) {
		if alg == RS256 {
			return rsa.GenerateKey(nil, 1024)
		}
		return newSigner(alg)
	}
	if r, err := open(t.Context(), w.options, weak); r != nil || err == nil {
		t.Error("a ring with a 1024 bit RSA key was made")
	}
	if value, _ := w.store.state(); value != nil {
		t.Error("it was stored")
	}
}

func TestStoreFailures(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		var log syncBuffer
		w := newWorld(t, defaults())
		w.logTo(&log)
		w.options.PollEvery = 5 * time.Minute
		r := w.open(t)
		defer run(t, r)()
		time.Sleep(700 * time.Hour)
		first := current(t, r, ES256)

		outage := errors.New("connection refused")
		for _, tc := range []struct {
			name    string
			breakIt func()
		}{
			{"outage", func() { w.store.fail(outage) }},
			{"damage", func() { w.store.set([]byte("{}")) }},
			{"vanished", func() { w.store.mu.Lock(); w.store.value, w.store.version = nil, 0; w.store.mu.Unlock() }},
		} {
			good, _ := w.store.state()
			etag := r.JWKS().ETag
			tc.breakIt()
			time.Sleep(17 * time.Hour)
			if token := sign(t, r, ES256, "JWT", "{}"); r.JWKS().ETag != etag {
				t.Errorf("%s: the set changed", tc.name)
			} else if _, err := r.Verify(token, "JWT"); err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			if got := r.Staleness(); got < 16*time.Hour {
				t.Errorf("%s: stale for %s only", tc.name, got)
			}
			err := r.Revoke(t.Context(), current(t, r, ES256))
			if err == nil || tc.name == "outage" && !errors.Is(err, outage) {
				t.Errorf("%s: Revoke = %v", tc.name, err)
			}
			w.store.fail(nil)
			w.store.set(good)
			time.Sleep(10 * time.Minute) // longer than any pause between retries
			if got := r.Staleness(); got > 5*time.Minute {
				t.Errorf("%s: stale for %s after it ended", tc.name, got)
			}
		}
		lines := strings.Count(log.String(), `"event":"keys.maintenance_failed"`)
		if lines < 500 || lines > 51*60/3 {
			t.Errorf("%d failures logged in 51 h", lines)
		}
		if current(t, r, ES256) == first {
			t.Error("the rotation that came due meanwhile did not happen")
		}
	})
}

// TestOutageEnds: however long the store was away, what another node did
// meanwhile counts here within PollEvery after it is back.
func TestOutageEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log syncBuffer
		w := newWorld(t, defaults())
		w.logTo(&log)
		w.options.PollEvery = time.Second
		r := w.open(t)
		defer run(t, r)()
		time.Sleep(time.Minute)
		w.store.fail(errors.New("connection refused"))
		time.Sleep(time.Hour)
		if lines := strings.Count(log.String(), `"event":"keys.maintenance_failed"`); lines < 100 || lines > 130 {
			t.Errorf("%d failures logged in an hour", lines)
		}
		w.store.fail(nil)
		time.Sleep(time.Second)
		if got := r.Staleness(); got > time.Second {
			t.Errorf("stale for %s", got)
		}
	})
}

// contended loses every swap to somebody else a number of times.
type contended struct {
	memory
	lose int
}

func (c *contended) SwapRecord(ctx context.Context, name string, version uint64, value []byte) (bool, error) {
	if c.lose != 0 {
		c.lose--
		return false, nil
	}
	return c.memory.SwapRecord(ctx, name, version, value)
}

func TestLostSwaps(t *testing.T) {
	store := &contended{}
	made := 0
	signers := signerSource()
	counting := func(alg string) (crypto.Signer, error) {
		made++
		return signers(alg)
	}
	options := Options{Store: store, Keyring: newKeyring(t), Settings: defaults()}
	store.lose = 10
	r, err := open(t.Context(), options, counting)
	if err != nil {
		t.Fatal(err)
	}
	if made != 6 {
		t.Errorf("%d keys generated for 6; lost swaps must not cost new ones", made)
	}
	store.lose = -1
	if err := r.Revoke(t.Context(), current(t, r, ES256)); !errors.Is(err, errLost) {
		t.Errorf("Revoke that always loses = %v", err)
	}
}
