package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sampleBrowserFamily() Family {
	f := sampleFamily()
	f.Identity, f.WeChatAppID = Digest{}, ""
	f.LoginID, f.Offline, f.ACR = LoginID{1, 2}, true, "level1"
	f.IDTokenClaims, f.UserInfoClaims = []string{"nickname"}, []string{"phone_number", "email"}
	return f
}

func sampleLogin() LoginRecord {
	at := time.Date(2026, 3, 4, 5, 6, 7, 891000, time.UTC)
	return LoginRecord{LoginSession: LoginSession{
		ID: LoginID{9}, Token: Digest{1}, UserID: "user", UserEpoch: 3, CreatedAt: at, AuthTime: at.Truncate(time.Second), AMR: []string{"pwd", "otp"},
		IdleExpiresAt: at.Add(time.Hour), ExpiresAt: at.Add(24 * time.Hour), Browser: "Chrome, Windows", Network: "CN",
		Participants: []Participant{{"shop-web", FamilyID{1}}, {"shop-mini", FamilyID{2}}},
	}}
}

func sampleCode() CodeRecord {
	at := time.Date(2026, 3, 4, 5, 6, 7, 891000, time.UTC)
	return CodeRecord{ExpiresAt: at.Add(time.Minute), Grant: Grant{
		UserID: "user", UserEpoch: 2, ClientID: "shop-web", LoginID: LoginID{9}, Offline: true, Scope: []string{"openid"}, Audience: []string{"api"},
		AuthTime: at, AMR: []string{"pwd"}, ACR: "level1", Nonce: "nonce", RedirectURI: "https://shop.example/callback", Challenge: "challenge",
		DPoPThumbprint: "jkt", IDTokenClaims: []string{"nickname"}, UserInfoClaims: []string{"phone_number"},
	}}
}

func sampleConsents() []Consent {
	return []Consent{
		{ClientID: "a", Scope: []string{"openid", "profile"}, Claims: []string{"nickname"}, GrantedAt: time.Unix(1, 0).UTC()},
		{ClientID: "b", GrantedAt: time.Unix(2, 0).UTC()},
	}
}

// dated is a code as IssueCode makes it.
func dated(c CodeRecord) CodeRecord {
	c.Grant.IssuedAt = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	return c
}

// sampleRevoked has a consent that was given anew after a revocation, one that
// never was revoked, and a revocation alone.
func sampleRevoked() []Consent {
	list := append(sampleConsents(), Consent{ClientID: "c", RevokedAt: time.Unix(4, 0).UTC()})
	list[0].RevokedAt = time.Unix(3, 0).UTC()
	return list
}

func sampleLogout() LogoutNotice {
	return LogoutNotice{
		ID: LogoutID{5}, ClientID: "shop-web", UserID: "user", FamilyID: FamilyID{6}, EndedAt: time.Unix(1, 0).UTC(), Attempts: 3, Next: time.Unix(9, 0).UTC(),
	}
}

// What a mini-program's sign-in stores does not grow by what browsers need.
func TestFamilyVersions(t *testing.T) {
	plain := sampleFamily()
	if data := EncodeFamily(&plain); data[0] != familyVersion {
		t.Errorf("a family without a login session has version %d", data[0])
	}
	for name, change := range map[string]func(f *Family){
		"login session":   func(f *Family) { f.LoginID = NewLoginID() },
		"offline":         func(f *Family) { f.Offline = true },
		"acr":             func(f *Family) { f.ACR = "x" },
		"id_token claims": func(f *Family) { f.IDTokenClaims = []string{"x"} },
		"userinfo claims": func(f *Family) { f.UserInfoClaims = []string{"x"} },
		"all":             func(f *Family) { *f = sampleBrowserFamily() },
	} {
		f := sampleFamily()
		change(&f)
		data := EncodeFamily(&f)
		got, err := DecodeFamily(f.ID, data)
		if err != nil || data[0] != browserFamilyVersion || !reflect.DeepEqual(got, f) {
			t.Errorf("%s: version %d, %+v, %v, want %+v", name, data[0], got, err, f)
		}
		for n := range data {
			if _, err := DecodeFamily(f.ID, data[:n]); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s: %d of %d bytes: %v", name, n, len(data), err)
			}
		}
	}
	// One record has one form.
	data := append(EncodeFamily(&plain), make([]byte, 16+4)...)
	data[0] = browserFamilyVersion
	if _, err := DecodeFamily(plain.ID, data); !errors.Is(err, ErrCorrupt) {
		t.Errorf("the second version of what the first has room for: %v", err)
	}
}

// The stored forms must never change for a version: files outlive programs.
func TestLoginFixedForms(t *testing.T) {
	family, login, code, notice := sampleBrowserFamily(), sampleLogin(), sampleCode(), sampleLogout()
	family.UserID = "user"
	datedCode := dated(code)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"family":           {EncodeFamily(&family), "ead14a9e39d25096"},
		"login":            {EncodeLogin(&login), "8193e1dd61a536ee"},
		"code":             {EncodeCode(&code), "50e2be7b69f549c2"},
		"consents":         {EncodeConsents(sampleConsents()), "bb6f7698a90ab136"},
		"dated code":       {EncodeCode(&datedCode), "ca506d10d0bf89fd"},
		"revoked consents": {EncodeConsents(sampleRevoked()), "2cddffe9ce2f4f15"},
		"logout":           {EncodeLogout(&notice), "5f92da14660cea75"},
	} {
		sum := sha256.Sum256(c.data)
		if got := hex.EncodeToString(sum[:8]); got != c.want {
			t.Errorf("the form of a %s changed: digest starts %s, want %s", name, got, c.want)
		}
	}
}

func TestLoginRoundTrips(t *testing.T) {
	login, code, notice := sampleLogin(), sampleCode(), sampleLogout()
	ended := login
	ended.End(login.ExpiresAt, nil)
	used := code
	used.Used, used.FamilyID = true, FamilyID{7}
	roundTrip(t, "login", login, EncodeLogin(&login), func(data []byte) (LoginRecord, error) { return DecodeLogin(login.ID, data) })
	roundTrip(t, "ended login", ended, EncodeLogin(&ended), func(data []byte) (LoginRecord, error) { return DecodeLogin(login.ID, data) })
	roundTrip(t, "code", code, EncodeCode(&code), DecodeCode)
	roundTrip(t, "used code", used, EncodeCode(&used), DecodeCode)
	datedCode := dated(used)
	roundTrip(t, "dated code", datedCode, EncodeCode(&datedCode), DecodeCode)
	roundTrip(t, "empty code", CodeRecord{}, EncodeCode(&CodeRecord{}), DecodeCode)
	roundTrip(t, "consents", sampleConsents(), EncodeConsents(sampleConsents()), DecodeConsents)
	roundTrip(t, "revoked consents", sampleRevoked(), EncodeConsents(sampleRevoked()), DecodeConsents)
	roundTrip(t, "logout", notice, EncodeLogout(&notice), func(data []byte) (LogoutNotice, error) { return DecodeLogout(notice.ID, data) })

	crowd := login
	crowd.Participants = make([]Participant, MaxParticipants+1)
	if _, err := DecodeLogin(crowd.ID, EncodeLogin(&crowd)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("too many participants: %v", err)
	}
	if _, err := DecodeConsents(EncodeConsents(make([]Consent, MaxConsents+1))); !errors.Is(err, ErrCorrupt) {
		t.Errorf("too many consents: %v", err)
	}
}

// roundTrip holds that decode reads data, of which it keeps nothing, and
// nothing shorter, longer or of another version.
func roundTrip[T any](t *testing.T, name string, want T, data []byte, decode func([]byte) (T, error)) {
	t.Helper()
	for n := range data {
		if _, err := decode(data[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%s: %d of %d bytes: %v", name, n, len(data), err)
		}
	}
	for what, bad := range map[string][]byte{"longer": append(bytes.Clone(data), 0), "other version": append([]byte{99}, data[1:]...)} {
		if _, err := decode(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %s: %v", name, what, err)
		}
	}
	got, err := decode(data)
	clear(data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
	}
}

// The later versions are written only where there is something that the first
// ones have no room for.
func TestCodeAndConsentVersions(t *testing.T) {
	code := sampleCode()
	later := dated(code)
	for name, c := range map[string]struct {
		data   []byte
		want   byte
		decode func([]byte) error
	}{
		"code":     {EncodeCode(&code), codeVersion, func(b []byte) error { _, err := DecodeCode(b); return err }},
		"consents": {EncodeConsents(sampleConsents()), consentVersion, func(b []byte) error { _, err := DecodeConsents(b); return err }},
	} {
		if c.data[0] != c.want {
			t.Errorf("%s: version %d", name, c.data[0])
		}
		c.data[0]++
		if err := c.decode(append(c.data, make([]byte, 8)...)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: a later version with nothing of its own: %v", name, err)
		}
	}
	if data := EncodeCode(&later); data[0] != datedCodeVersion {
		t.Errorf("version %d", data[0])
	}
	data := EncodeConsents(sampleRevoked())
	for client, want := range map[string]time.Time{"a": time.Unix(3, 0), "b": {}, "c": time.Unix(4, 0), "d": {}} {
		if got, err := ConsentRevokedAt(data, client); err != nil || !got.Equal(want) {
			t.Errorf("%s was revoked at %v, %v", client, got, err)
		}
	}
	for _, none := range [][]byte{nil, EncodeConsents(sampleConsents())} {
		if got, err := ConsentRevokedAt(none, "a"); err != nil || !got.IsZero() {
			t.Errorf("revoked at %v, %v", got, err)
		}
	}
	if _, err := ConsentRevokedAt(data[:len(data)-1], "a"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged row: %v", err)
	}
}

func FuzzDecodeLogin(f *testing.F) {
	login := sampleLogin()
	f.Add(EncodeLogin(&login))
	f.Add(EncodeLogin(&LoginRecord{EndedAt: time.Unix(1, 0)}))
	f.Add([]byte{loginVersion})
	f.Fuzz(func(t *testing.T, data []byte) {
		if login, err := DecodeLogin(LoginID{}, data); err == nil && !bytes.Equal(EncodeLogin(&login), data) {
			t.Fatalf("two forms of one record:\n%x\n%x", data, EncodeLogin(&login))
		}
	})
}

func FuzzDecodeCode(f *testing.F) {
	code := sampleCode()
	f.Add(EncodeCode(&code))
	code.Used, code.FamilyID = true, FamilyID{1}
	f.Add(EncodeCode(&code))
	f.Add(EncodeCode(&CodeRecord{}))
	code = dated(code)
	f.Add(EncodeCode(&code))
	f.Fuzz(func(t *testing.T, data []byte) {
		if code, err := DecodeCode(data); err == nil && !bytes.Equal(EncodeCode(&code), data) {
			t.Fatalf("two forms of one record:\n%x\n%x", data, EncodeCode(&code))
		}
	})
}

func FuzzDecodeConsents(f *testing.F) {
	f.Add(EncodeConsents(sampleConsents()))
	f.Add(EncodeConsents(nil))
	f.Add(EncodeConsents(sampleRevoked()))
	f.Fuzz(func(t *testing.T, data []byte) {
		if list, err := DecodeConsents(data); err == nil && !bytes.Equal(EncodeConsents(list), data) {
			t.Fatalf("two forms of one record:\n%x\n%x", data, EncodeConsents(list))
		}
	})
}

func FuzzDecodeLogout(f *testing.F) {
	notice := sampleLogout()
	f.Add(EncodeLogout(&notice))
	f.Add(EncodeLogout(&LogoutNotice{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if notice, err := DecodeLogout(LogoutID{}, data); err == nil && !bytes.Equal(EncodeLogout(&notice), data) {
			t.Fatalf("two forms of one record:\n%x\n%x", data, EncodeLogout(&notice))
		}
	})
}

func TestLoginIDForm(t *testing.T) {
	id := NewLoginID()
	if got, ok := ParseLoginID(id.String()); !ok || got != id || id.IsZero() {
		t.Errorf("ParseLoginID(%q) = %v, %v", id, got, ok)
	}
	if _, ok := ParseLoginID("x"); ok {
		t.Error("x was read as an id")
	}
}

func TestTokenForm(t *testing.T) {
	token := NewToken()
	if len(token) != 43 || token == NewToken() || !IsToken(token) {
		t.Errorf("token %q", token)
	}
	zeros := strings.Repeat("A", 43)
	if !IsToken(zeros) {
		t.Error("zeros are no token")
	}
	for name, s := range map[string]string{
		"empty": "", "short": zeros[1:], "long": zeros + "A", "padded": zeros + "=", "another spelling of the same bits": zeros[1:] + "B",
		"base64 of the other alphabet": zeros[1:] + "/", "line break": zeros[:40] + "\n" + zeros[40:], "space": zeros[2:] + " A",
	} {
		if IsToken(s) {
			t.Errorf("%s: %q is a token", name, s)
		}
	}
}
