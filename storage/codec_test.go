package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
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
	const want = "bc3c35d09d04c46e"
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
	browser := sampleBrowserFamily()
	f.Add(EncodeFamily(&browser))
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
	f.Add(EncodeUser(&UserRecord{Retired: true, Epoch: 2, EndedAt: time.Unix(2, 0), EndedReason: RevokedForErasure}))
	f.Add(EncodeUser(sampleUser()))
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

// sampleUser is a user record that has everything.
func sampleUser() *UserRecord {
	return &UserRecord{
		CreatedAt: time.Unix(1, 0).UTC(), UpdatedAt: time.Unix(2, 0).UTC(), Disabled: true, Epoch: 3, EndedAt: time.Unix(4, 0).UTC(), EndedReason: "admin",
		Key: []byte("key"), Profile: []byte("profile"), Identities: DigestList(nil).Add(Digest{1}).Add(Digest{2}),
		Username: Handle{Digest{3}, []byte("username")}, Password: []byte("password"),
		Phone: Handle{Digest{4}, []byte("phone")}, PhoneVerifiedAt: time.Unix(5, 0).UTC(),
		ExternalID: Handle{Digest{5}, []byte("external id")}, Attributes: []byte("attributes"),
	}
}

func TestUserRoundTrip(t *testing.T) {
	want := sampleUser()
	data := EncodeUser(want)
	got, err := DecodeUser(data)
	if err != nil || !reflect.DeepEqual(&got, want) {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	clone := got.Clone()
	clear(data)
	if !reflect.DeepEqual(&clone, want) || reflect.DeepEqual(&got, want) {
		t.Errorf("a clone borrows from what it was decoded from: %+v", clone)
	}
	data = EncodeUser(want)
	for n := range data {
		if _, err := DecodeUser(data[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%d of %d bytes: %v", n, len(data), err)
		}
	}
	odd := *want
	odd.Identities = odd.Identities[:33]
	if _, err := DecodeUser(EncodeUser(&odd)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a list of one digest and a byte: %v", err)
	}
}

func TestDigestList(t *testing.T) {
	var l DigestList
	for i := range 3 {
		l = l.Add(Digest{byte(i + 1)})
	}
	less := l.Remove(Digest{2})
	if l.Len() != 3 || less.Len() != 2 || less.At(0) != (Digest{1}) || less.At(1) != (Digest{3}) || l.At(1) != (Digest{2}) || less.Remove(Digest{9}).Len() != 2 {
		t.Errorf("%v, %v", l, less)
	}
}

func TestBare(t *testing.T) {
	bare := UserRecord{Identities: DigestList(nil).Add(Digest{1})}
	if !bare.Bare() {
		t.Error("a user with one identity is not bare")
	}
	for name, change := range map[string]func(u *UserRecord){
		"no identity":    func(u *UserRecord) { u.Identities = nil },
		"two identities": func(u *UserRecord) { u.Identities = u.Identities.Add(Digest{2}) },
		"username":       func(u *UserRecord) { u.Username.Index = Digest{1} },
		"password":       func(u *UserRecord) { u.Password = []byte("x") },
		"phone":          func(u *UserRecord) { u.Phone.Index = Digest{1} },
		"external id":    func(u *UserRecord) { u.ExternalID.Index = Digest{1} },
	} {
		u := bare
		if change(&u); u.Bare() {
			t.Errorf("%s: bare", name)
		}
	}
}

func FuzzDecodeSessionKeys(f *testing.F) {
	f.Add(EncodeSessionKeys(nil))
	f.Add(EncodeSessionKeys([]SessionKeyRecord{{At: time.Unix(1, 0), ExpiresAt: time.Unix(2, 0), Sealed: []byte("one")}, {Sealed: []byte("two")}}))
	f.Add([]byte{sessionKeysVersion, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := DecodeSessionKeys(data)
		if err != nil {
			return
		}
		if again := EncodeSessionKeys(keys); !bytes.Equal(again, data) {
			t.Fatalf("two forms of one record:\n%x\n%x", data, again)
		}
	})
}

func FuzzDecodeClient(f *testing.F) {
	f.Add(EncodeClient(&ClientState{Epoch: 2, EndedAt: time.Unix(1, 0), EndedReason: "leaked"}))
	f.Add(EncodeClient(&ClientState{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		client, err := DecodeClient(data)
		if err != nil {
			return
		}
		if again := EncodeClient(&client); !bytes.Equal(again, data) {
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

func TestNewUserID(t *testing.T) {
	seen := map[string]bool{}
	for range 2000 { // one in 64 would begin with a hyphen
		id := NewUserID()
		if raw, err := base64.RawURLEncoding.Strict().DecodeString(id); err != nil || len(raw) != 16 || id[0] == '-' || seen[id] {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
}
