package wechat

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

// WeChat's own sample, and a phone number made for tests.
const (
	sampleAppID = "wx4f4bc4dec97d474b"
	sampleKey   = "tiihtNczf5v6AKRyjwEUhQ=="
	sampleIV    = "r7BXXKkLb8qrSNn05n0qiA=="
	sampleData  = "CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1WT7fJlAC+oNPdbB+3hVbJSRgv+4lGOETKUQz6OYStslQ142dNCuabNPGBzlooOmB231qMM85d2/fV6ChevvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/lmHInNlxuacJXwu0fjpXfz/YqYzBIBzD6WUfTIF9GRHpOn/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4PC7E/r7Z6xNrXd2UIeorGj5Ef7b1pJAYB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns/8wR2SiRS7MNACwTyrGvt9ts8p12PKFdlqYTopNHR1Vf7XjfhQlVsAJdNiKdYmYVoKlaRv85IfVunYzO0IKXsyl7JCUjCpoG20f0a04COwfneQAGGwd5oa+T8yO5hzuyDb/XcxxmK01EpqOyuxINew=="
	samplePlain = `{"openId":"oGZUI0egBJY1zhBYw2KhdUfwVJJE","nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/aSKcBBPpibyKNicHNTMM0qJVh8Kjgiak2AHWr8MHM4WgMEm7GFhsf8OYrySdbvAMvTsw3mo8ibKicsnfN5pRjl1p8HQ/0","unionId":"ocMvos6NjeKLIBqg5Mr9QjxrP1FA","watermark":{"timestamp":1477314187,"appid":"wx4f4bc4dec97d474b"}}`

	madeKey   = "AAECAwQFBgcICQoLDA0ODw=="
	madeIV    = "EBESExQVFhcYGRobHB0eHw=="
	madePlain = `{"phoneNumber":"13800138000","purePhoneNumber":"13800138000","countryCode":"86","watermark":{"timestamp":1700000000,"appid":"wx0123456789abcdef"}}`
	madeData  = "aLhedzo+Z6es5zW+YHo9susiHnaEYeAkbZXA6vB3xXwsEHApbzM53NsvIVPS8sbzE9Tu3cKoosCIaJ9ReH9c7q8xI4AFlJ8HTHrrdVC0WzSFVEG+Q/SUBzVOfvRAiCzg9pRwA0o1X/SBOShf2kiL8wNfdlkWY+I9rsvJLhx38KPligMy/5ajh2WA9GMad7QPJ4mOrRhNln1eQPztHyRiSA=="
)

// seal encrypts plain, already padded, under madeKey and madeIV.
func seal(t testing.TB, padded []byte) string {
	t.Helper()
	key, _ := base64.StdEncoding.DecodeString(madeKey)
	iv, _ := base64.StdEncoding.DecodeString(madeIV)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, len(padded))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, padded)
	return base64.StdEncoding.EncodeToString(out)
}

func pad(plain string) []byte {
	n := aes.BlockSize - len(plain)%aes.BlockSize
	return append([]byte(plain), bytes.Repeat([]byte{byte(n)}, n)...)
}

func TestDecryptVectors(t *testing.T) {
	for _, row := range []struct {
		key, iv, data, appid, plain string
		at                          int64
	}{
		{sampleKey, sampleIV, sampleData, sampleAppID, samplePlain, 1477314187},
		{madeKey, madeIV, madeData, testAppID, madePlain, 1700000000},
	} {
		for age, good := range map[time.Duration]bool{
			0: true, 10 * time.Minute: true, -time.Minute: true,
			10*time.Minute + time.Second: false, -time.Minute - time.Second: false,
		} {
			got, err := Decrypt(secret.New(row.key), row.data, row.iv, row.appid, 10*time.Minute, time.Unix(row.at, 0).Add(age))
			if good && (err != nil || string(got) != row.plain) || !good && (err != ErrOpenData || got != nil) {
				t.Errorf("%s at age %v: %q, %v", row.appid, age, got, err)
			}
		}
	}
}

func TestThreat68DecryptHasOneError(t *testing.T) {
	now := time.Unix(1700000000, 0)
	mark := func(appid string, at int64) string {
		return fmt.Sprintf(`{"watermark":{"timestamp":%d,"appid":"%s"}}`, at, appid)
	}
	good := mark(testAppID, 1700000000)
	if _, err := Decrypt(secret.New(madeKey), seal(t, pad(good)), madeIV, testAppID, time.Minute, now); err != nil {
		t.Fatal(err)
	}
	flipped, _ := base64.StdEncoding.DecodeString(madeData)
	flipped[len(flipped)-1] ^= 1
	endingIn := func(end ...byte) string { // a block whose last bytes are end
		b := append(bytes.Repeat([]byte(" "), 2*aes.BlockSize-len(end)), end...)
		return seal(t, b)
	}
	rows := map[string][4]string{ // key, data, iv, appid
		"another key":             {"AAECAwQFBgcICQoLDA0OEA==", madeData, madeIV, testAppID},
		"no key":                  {"", madeData, madeIV, testAppID},
		"short key":               {"AAECAwQFBgcICQoLDA0O", madeData, madeIV, testAppID},
		"24 bytes of key":         {"AAECAwQFBgcICQoLDA0ODwABAgMEBQYH", madeData, madeIV, testAppID},
		"key not canonical":       {"AAECAwQFBgcICQoLDA0ODx==", madeData, madeIV, testAppID},
		"another iv":              {madeKey, madeData, "ABESExQVFhcYGRobHB0eHw==", testAppID},
		"no iv":                   {madeKey, madeData, "", testAppID},
		"iv of 15 bytes":          {madeKey, madeData, "EBESExQVFhcYGRobHB0e", testAppID},
		"iv with a line break":    {madeKey, madeData, "EBESExQVFhcYGRobHB0eHw==\n", testAppID},
		"another app":             {madeKey, madeData, madeIV, "wxfedcba9876543210"},
		"no app":                  {madeKey, seal(t, pad(`{"watermark":{"timestamp":1700000000}}`)), madeIV, ""},
		"nothing":                 {madeKey, "", madeIV, testAppID},
		"not base64":              {madeKey, "%%%%", madeIV, testAppID},
		"+ as space":              {madeKey, strings.ReplaceAll(madeData, "+", " "), madeIV, testAppID},
		"base64url":               {madeKey, strings.NewReplacer("+", "-", "/", "_").Replace(madeData), madeIV, testAppID},
		"without =":               {madeKey, strings.TrimRight(madeData, "="), madeIV, testAppID},
		"line breaks":             {madeKey, madeData[:76] + "\r\n" + madeData[76:], madeIV, testAppID},
		"one byte":                {madeKey, "AA==", madeIV, testAppID},
		"no whole block":          {madeKey, "AAAAAAAAAAAAAAAAAAAAAAA=", madeIV, testAppID},
		"last byte changed":       {madeKey, base64.StdEncoding.EncodeToString(flipped), madeIV, testAppID},
		"more than 64 KiB":        {madeKey, seal(t, pad(`{"a":"`+strings.Repeat("a", 49<<10)+`",`+good[1:])), madeIV, testAppID},
		"padding 0":               {madeKey, endingIn(0), madeIV, testAppID},
		"padding 17":              {madeKey, endingIn(bytes.Repeat([]byte{17}, 17)...), madeIV, testAppID},
		"padding uneven":          {madeKey, endingIn(2, 3, 3), madeIV, testAppID},
		"padding only":            {madeKey, seal(t, bytes.Repeat([]byte{16}, 16)), madeIV, testAppID},
		"no padding":              {madeKey, seal(t, []byte(good+strings.Repeat(" ", 16-len(good)%16))), madeIV, testAppID},
		"not JSON":                {madeKey, seal(t, pad(good[:len(good)-1])), madeIV, testAppID},
		"not UTF-8":               {madeKey, seal(t, pad(`{"a":"`+"\xff"+`",`+good[1:])), madeIV, testAppID},
		"a list":                  {madeKey, seal(t, pad("["+good+"]")), madeIV, testAppID},
		"a string":                {madeKey, seal(t, pad(`"watermark"`)), madeIV, testAppID},
		"watermark twice":         {madeKey, seal(t, pad(good[:len(good)-1]+`,"watermark":{}}`)), madeIV, testAppID},
		"no watermark":            {madeKey, seal(t, pad(`{}`)), madeIV, testAppID},
		"watermark a string":      {madeKey, seal(t, pad(`{"watermark":"`+testAppID+`"}`)), madeIV, testAppID},
		"watermark deeper":        {madeKey, seal(t, pad(`{"x":`+good+`}`)), madeIV, testAppID},
		"watermark of another":    {madeKey, seal(t, pad(mark("wxother", 1700000000))), madeIV, testAppID},
		"watermark without time":  {madeKey, seal(t, pad(`{"watermark":{"appid":"`+testAppID+`"}}`)), madeIV, testAppID},
		"stale":                   {madeKey, seal(t, pad(mark(testAppID, 1700000000-61))), madeIV, testAppID},
		"of the future":           {madeKey, seal(t, pad(mark(testAppID, 1700000000+61))), madeIV, testAppID},
		"of before time":          {madeKey, seal(t, pad(mark(testAppID, -1))), madeIV, testAppID},
		"time out of every range": {madeKey, seal(t, pad(mark(testAppID, 1<<62))), madeIV, testAppID},
	}
	for name, row := range rows {
		got, err := Decrypt(secret.New(row[0]), row[1], row[2], row[3], time.Minute, now)
		if err != ErrOpenData || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// Unpadded text that reads well is refused for its padding alone.
	if _, ok := unpad([]byte(good+strings.Repeat(" ", 16-len(good)%16)), aes.BlockSize); ok != 0 {
		t.Error("spaces are taken for padding")
	}
}

func TestUnpad(t *testing.T) {
	for n := 1; n <= 32; n++ {
		b := append(bytes.Repeat([]byte{0xee}, 64-n), bytes.Repeat([]byte{byte(n)}, n)...)
		for _, limit := range []int{16, 32} {
			got, ok := unpad(b, limit)
			if want := n <= limit; (ok == 1) != want || want && got != 64-n || !want && got != 64 {
				t.Errorf("padding %d, limit %d: %d, %d", n, limit, got, ok)
			}
		}
		if n > 1 {
			b[64-n] ^= 1
			if got, ok := unpad(b, 32); ok != 0 || got != 64 {
				t.Errorf("padding %d with another first byte: %d, %d", n, got, ok)
			}
		}
	}
}

func TestVerifyRawData(t *testing.T) {
	official := `{"nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/1vZvI39NWFQ9XM4LtQpFrQJ1xlgZxx3w7bQxKARol6503Iuswjjn6nIGBiaycAjAtpujxyzYsrztuuICqIM5ibXQ/0"}`
	made := `{"nickName":"微信用户","gender":0,"language":"","city":"","province":"","country":"","avatarUrl":"https://thirdwx.qlogo.cn/mmopen/vi_32/default/132"}`
	const officialKey = "HyVFkGl5F5OQWJZZaNzBBg=="
	for _, row := range []struct {
		key, raw, signature string
		want                bool
	}{
		{officialKey, official, "75e81ceda165f4ffa64f4068af58c64b8f54b88c", true},
		{madeKey, made, "26e1a9aee43d93154f3cf3a501c943341f70a92d", true},
		{madeKey, official, "75e81ceda165f4ffa64f4068af58c64b8f54b88c", false},
		{officialKey, official + " ", "75e81ceda165f4ffa64f4068af58c64b8f54b88c", false},
		{officialKey, official, "75E81CEDA165F4FFA64F4068AF58C64B8F54B88C", false},
		{officialKey, official, "", false},
		{"", "", "da39a3ee5e6b4b0d3255bfef95601890afd80709", false}, // the SHA-1 of nothing
	} {
		if got := VerifyRawData(secret.New(row.key), row.raw, row.signature); got != row.want {
			t.Errorf("%.30s with %s: %v", row.raw, row.signature, got)
		}
	}
}

func TestSignVectors(t *testing.T) {
	for _, row := range []struct{ key, message, want string }{
		{"o0q0otL8aEzpcZL/FT9WsQ==", `{"foo":"bar"}`, "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b"},
		{"o0q0otL8aEzpcZL/FT9WsQ==", "", "46e043c5525c2d817c44be603d30837a808a1d930d038f6fdc3e62a201fed128"},
		{madeKey, "", "75c022993d64e3ac224c1c9d6f2b4c6eb53f22f6c7aa6be94428577d11d12fd5"},
	} {
		if got := sign(secret.New(row.key), []byte(row.message)); got != row.want {
			t.Errorf("%q: %s", row.message, got)
		}
	}
}

func FuzzDecrypt(f *testing.F) {
	f.Add(madeKey, madeData, madeIV)
	f.Add(sampleKey, sampleData, sampleIV)
	f.Add(madeKey, "AAAAAAAAAAAAAAAAAAAAAA==", madeIV)
	f.Add(madeKey, seal(f, bytes.Repeat([]byte{16}, 32)), madeIV)
	f.Add("", "", "\n")
	f.Fuzz(func(t *testing.T, key, data, iv string) {
		for appid, now := range map[string]int64{testAppID: 1700000000, sampleAppID: 1477314187, "": 0} {
			plain, err := Decrypt(secret.New(key), data, iv, appid, time.Hour, time.Unix(now, 0))
			if err != nil {
				if !errors.Is(err, ErrOpenData) || plain != nil {
					t.Fatalf("%q, %v", plain, err)
				}
				continue
			}
			var out struct{ Watermark struct{ AppID string } }
			if json.Unmarshal(plain, &out) != nil || out.Watermark.AppID != appid {
				t.Fatalf("%s: %q", appid, plain)
			}
		}
	})
}
