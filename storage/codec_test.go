package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sampleFamily() Family {
	at := time.Date(2026, 3, 4, 5, 6, 7, 891000, time.UTC)
	return Family{
		ID:             NewFamilyID(),
		UserID:         NewUserID(),
		ClientID:       "shop-mini",
		Identity:       sha256.Sum256([]byte("identity")),
		WeChatAppID:    "wx0123456789abcdef",
		Scope:          []string{"openid", "profile", "orders.read"},
		Audience:       []string{"https://api.shop.example"},
		AuthTime:       at,
		AMR:            []string{"wechat"},
		Secret:         [16]byte{1, 2, 3},
		Generation:     7,
		MACKeyID:       2,
		CreatedAt:      at,
		RotatedAt:      at.Add(time.Hour),
		IdleExpiresAt:  at.Add(720 * time.Hour),
		ExpiresAt:      at.Add(4320 * time.Hour),
		UserEpoch:      3,
		DPoPThumbprint: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
	}
}

func TestFamilyRoundTrip(t *testing.T) {
	revoked := sampleFamily()
	revoked.RevokedAt, revoked.RevokedFor = revoked.CreatedAt.Add(time.Minute), "logout"
	for name, f := range map[string]Family{"full": sampleFamily(), "revoked": revoked, "empty": {}} {
		got, err := DecodeFamily(f.ID, EncodeFamily(&f))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, f) {
			t.Errorf("%s: got %+v, want %+v", name, got, f)
		}
	}
}

// The stored form must never change for a version: files outlive programs.
func TestFamilyFixedForm(t *testing.T) {
	f := sampleFamily()
	f.UserID = "user"
	f.Identity = Digest{31: 1}
	sum := sha256.Sum256(EncodeFamily(&f))
	const want = "57a3f920e95327ee"
	if got := hex.EncodeToString(sum[:8]); got != want {
		t.Errorf("the form of version %d changed: digest starts %s, want %s", familyVersion, got, want)
	}
}

func TestDecodeRefusesDamage(t *testing.T) {
	f := sampleFamily()
	data := EncodeFamily(&f)
	for n := range data {
		if _, err := DecodeFamily(f.ID, data[:n]); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("%d of %d bytes: error %v", n, len(data), err)
		}
	}
	for name, bad := range map[string][]byte{
		"longer":        append(bytes.Clone(data), 0),
		"other version": append([]byte{99}, data[1:]...),
		"empty":         nil,
		"huge length":   {familyVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
	} {
		if _, err := DecodeFamily(f.ID, bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzDecodeFamily(f *testing.F) {
	sample := sampleFamily()
	f.Add(EncodeFamily(&sample))
	f.Add(EncodeFamily(&Family{}))
	f.Add([]byte{familyVersion, 0x80, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		family, err := DecodeFamily(sample.ID, data)
		if err != nil {
			return
		}
		if again := EncodeFamily(&family); !bytes.Equal(again, data) {
			t.Fatalf("two forms of one record:\n%x\n%x", data, again)
		}
	})
}

func FuzzDecodeUser(f *testing.F) {
	f.Add(EncodeUser(&UserRecord{Disabled: true, Epoch: 4, CreatedAt: time.Unix(1, 0), EndedReason: "admin", Key: []byte("key"), Profile: []byte("profile")}))
	f.Add(EncodeUser(&UserRecord{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		user, err := DecodeUser(data)
		if err != nil {
			return
		}
		if again := EncodeUser(&user); !bytes.Equal(again, data) {
			t.Fatalf("two forms of one record:\n%x\n%x", data, again)
		}
	})
}

func FuzzDecodeIdentity(f *testing.F) {
	f.Add(EncodeIdentity(&IdentityRecord{UserID: "u", AppID: "wx1", OpenPlatform: "main", Union: Digest{1}, LinkedAt: time.Unix(9, 0), OpenID: []byte("o"), UnionID: []byte("n")}))
	f.Add(EncodeIdentity(&IdentityRecord{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		identity, err := DecodeIdentity(data)
		if err != nil {
			return
		}
		if again := EncodeIdentity(&identity); !bytes.Equal(again, data) {
			t.Fatalf("two forms of one record:\n%x\n%x", data, again)
		}
	})
}

func TestFamilyIDForm(t *testing.T) {
	id := NewFamilyID()
	got, ok := ParseFamilyID(id.String())
	if !ok || got != id {
		t.Fatalf("ParseFamilyID(%q) = %v, %v", id, got, ok)
	}
	for _, bad := range []string{"", "x", id.String() + "A", id.String()[:21], id.String()[:21] + "_", id.String()[:21] + "\n", id.String()[:20] + "=="} {
		if back, ok := ParseFamilyID(bad); ok && back.String() != bad {
			t.Errorf("%q was read as %q", bad, back)
		}
	}
}

func BenchmarkFamilyEncode(b *testing.B) {
	f := sampleFamily()
	b.ReportAllocs()
	for b.Loop() {
		EncodeFamily(&f)
	}
}

func BenchmarkFamilyDecode(b *testing.B) {
	f := sampleFamily()
	data := EncodeFamily(&f)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeFamily(f.ID, data); err != nil {
			b.Fatal(err)
		}
	}
}

func TestFamilySecretDoesNotPrint(t *testing.T) {
	f := Family{Secret: FamilySecret{0xca, 0xfe, 0xba, 0xbe}}
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{fmt.Sprintf("%v %+v %#v %x %s %d", f, f, f, f.Secret, f.Secret, f.Secret), string(text)} {
		for _, leak := range []string{"cafe", "202 254", "0xca", "yv66"} {
			if strings.Contains(out, leak) {
				t.Errorf("the secret shows in %s", out)
			}
		}
	}
}
