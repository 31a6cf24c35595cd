package seal

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func mustRing(t *testing.T, lines ...string) *Keyring {
	t.Helper()
	ring, err := ParseKeyring([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func TestKeyringOpensOnlyInItsPlace(t *testing.T) {
	ring := mustRing(t, GenerateKey())
	sealed := ring.Seal("phone", []byte("row1"), []byte("13800138000"))
	if bytes.Contains(sealed, []byte("13800138000")) {
		t.Fatal("sealed value shows its content")
	}
	plain, err := ring.Open("phone", []byte("row1"), sealed)
	if err != nil || string(plain) != "13800138000" {
		t.Fatalf("Open = %q, %v", plain, err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"other row":     func() ([]byte, error) { return ring.Open("phone", []byte("row2"), sealed) },
		"other purpose": func() ([]byte, error) { return ring.Open("openid", []byte("row1"), sealed) },
		"shifted bound": func() ([]byte, error) { return ring.Open("phoner", []byte("ow1"), sealed) },
		"truncated":     func() ([]byte, error) { return ring.Open("phone", []byte("row1"), sealed[:20]) },
		"empty":         func() ([]byte, error) { return ring.Open("phone", []byte("row1"), nil) },
	} {
		if _, err := open(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v, want ErrCorrupt", name, err)
		}
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := ring.Open("phone", []byte("row1"), bad); err == nil {
			t.Fatalf("opened with byte %d flipped", i)
		}
	}
}

func TestMasterKeyRotation(t *testing.T) {
	oldKey, newKey := GenerateKey(), GenerateKey()
	sealed := mustRing(t, oldKey).Seal("p", nil, []byte("v"))

	both := mustRing(t, "# the new key seals", newKey, "", oldKey)
	if plain, err := both.Open("p", nil, sealed); err != nil || string(plain) != "v" {
		t.Fatalf("Open = %q, %v", plain, err)
	}
	if !both.NeedsRewrap(sealed) || both.NeedsRewrap(both.Seal("p", nil, nil)) {
		t.Error("NeedsRewrap is wrong")
	}
	if _, err := mustRing(t, newKey).Open("p", nil, sealed); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("error %v, want ErrUnknownKey", err)
	}
}

func TestParseKeyringFaults(t *testing.T) {
	key := GenerateKey()
	for name, text := range map[string]string{
		"empty":     "\n# only a comment\n",
		"short":     "c2hvcnQ=",
		"not b64":   "!!!" + key,
		"duplicate": key + "\n" + key,
	} {
		_, err := ParseKeyring([]byte(text))
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), key) {
			t.Errorf("%s: error shows the key", name)
		}
	}
}

func TestBox(t *testing.T) {
	if _, err := NewBox([]byte("short")); err == nil {
		t.Error("accepted a short key")
	}
	box, err := NewBox(bytes.Repeat([]byte{7}, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	sealed := box.Seal("openid", []byte("user"), []byte("oABC"))
	if plain, err := box.Open("openid", []byte("user"), sealed); err != nil || string(plain) != "oABC" {
		t.Fatalf("Open = %q, %v", plain, err)
	}
	if _, err := box.Open("openid", []byte("other"), sealed); !errors.Is(err, ErrCorrupt) {
		t.Errorf("error %v, want ErrCorrupt", err)
	}
}
