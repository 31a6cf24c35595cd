package simulator

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// unseal decrypts a ciphertext and takes off its padding.
func unseal(t testing.TB, key, iv []byte, sealed string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(sealed)
	block, err2 := aes.NewCipher(key)
	if err != nil || err2 != nil || len(b) == 0 || len(b)%16 != 0 {
		t.Fatal(err, err2, len(b))
	}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(b, b)
	return b[:len(b)-int(b[len(b)-1])]
}

func openOpenData(t testing.TB, sessionKey string, d OpenData) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(sessionKey)
	iv, err2 := base64.StdEncoding.DecodeString(d.IV)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	return string(unseal(t, key, iv, d.EncryptedData))
}

func TestOpenData(t *testing.T) {
	s := newSimulator(t)
	key := sessionKey(t, s, testApp, "ann")
	d, err := s.OpenData(testApp, "ann", OpenDataUserInfo, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out struct {
		OpenID, UnionID, NickName string
		Watermark                 struct {
			Timestamp int64
			AppID     string
		}
	}
	plain := openOpenData(t, key, d)
	if err := json.Unmarshal([]byte(plain), &out); err != nil || !strings.HasPrefix(plain, `{"openId":"`) {
		t.Fatalf("%s: %v", plain, err)
	}
	if out.OpenID != s.OpenID(testApp, "ann") || out.UnionID != s.UnionID("main", "ann") || out.NickName != "微信用户" || out.Watermark.AppID != testApp {
		t.Error(plain)
	}
	if age := time.Since(time.Unix(out.Watermark.Timestamp, 0)); age < -time.Second || age > time.Minute {
		t.Errorf("made %v ago", age)
	}
	if !json.Valid([]byte(d.RawData)) || d.Signature != sortedSHA1(d.RawData+key) {
		t.Errorf("%s is signed %s", d.RawData, d.Signature)
	}

	// In a sign-in after the key changed, old data opens no more.
	d, err = s.OpenData(testApp, "ann", OpenDataPhone, 10*time.Minute)
	if err != nil || d.RawData != "" || d.Signature != "" {
		t.Fatalf("%+v, %v", d, err)
	}
	country, number := s.PhoneNumber("ann")
	plain = openOpenData(t, key, d)
	want := fmt.Sprintf(`{"phoneNumber":"%[1]s","purePhoneNumber":"%[1]s","countryCode":"%s","watermark":{"timestamp":%d,"appid":"%s"}}`,
		number, country, time.Now().Add(-10*time.Minute).Unix(), testApp)
	if cutAt := strings.Index(want, `"timestamp"`); plain[:cutAt] != want[:cutAt] || len(plain) != len(want) {
		t.Errorf("%s, want %s", plain, want)
	}
	again, err := s.OpenData(testApp, "ann", OpenDataPhone, 10*time.Minute)
	if err != nil || again.IV == d.IV {
		t.Errorf("the same iv twice, %v", err)
	}
	if _, err := s.RotateSessionKey(testApp, "ann"); err != nil {
		t.Fatal(err)
	}
	other := sessionKey(t, s, testApp, "ann")
	if rotated, err := s.OpenData(testApp, "ann", OpenDataPhone, 0); err != nil || !json.Valid([]byte(openOpenData(t, other, rotated))) {
		t.Errorf("after a rotation: %v", err)
	}
}

func TestControlOpenData(t *testing.T) {
	s := newSimulator(t)
	key := sessionKey(t, s, testApp, "ann")
	w := post(s, "/control/opendata", "appid="+testApp+"&user=ann&kind=phone&age=10m")
	var d map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || len(d) != 2 || w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if plain := openOpenData(t, key, OpenData{EncryptedData: d["encryptedData"], IV: d["iv"]}); !strings.Contains(plain, "purePhoneNumber") {
		t.Error(plain)
	}
	w = post(s, "/control/opendata", "appid="+testApp+"&user=ann&kind=userinfo")
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || len(d) != 4 || d["signature"] == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for body, says := range map[string]string{
		"user=ann&kind=phone&appid=wxnone":                 "no app",
		"user=none&kind=phone&appid=" + testApp:            "never signed in",
		"user=ann&kind=share&appid=" + testApp:             "kind is userinfo or phone",
		"user=ann&appid=" + testApp:                        "kind is userinfo or phone",
		"user=ann&kind=phone&age=-1s&appid=" + testApp:     "age is",
		"user=ann&kind=phone&age=soon&appid=" + testApp:    "age is a duration",
		"user=ann&kind=phone&iv=AAAA&appid=" + testApp:     "not known here",
		"user=ann&kind=phone&format=text&appid=" + testApp: "no text form",
	} {
		if w := post(s, "/control/opendata", body); w.Code != 400 || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	if err := s.ExpireSessionKey(testApp, "ann"); err != nil {
		t.Fatal(err)
	}
	if w := post(s, "/control/opendata", "user=ann&kind=phone&appid="+testApp); w.Code != 400 || !strings.Contains(w.Body.String(), "sign in again") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	phoneCode(t, s, testApp, "bob") // a member without a session_key
	if w := post(s, "/control/opendata", "user=bob&kind=phone&appid="+testApp); w.Code != 400 || !strings.Contains(w.Body.String(), "sign in again") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
