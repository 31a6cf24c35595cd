package simulator

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// OpenDataKind says what a mini-program asked WeChat for.
type OpenDataKind string

// The kinds of open data.
const (
	OpenDataUserInfo OpenDataKind = "userinfo" // wx.getUserInfo: nickname and avatar, which are the same for all today
	OpenDataPhone    OpenDataKind = "phone"    // the old form of the getPhoneNumber button
)

// OpenData is what a mini-program gets. A phone number has no RawData and
// Signature.
type OpenData struct {
	RawData       string `json:"rawData,omitempty"`
	Signature     string `json:"signature,omitempty"`
	EncryptedData string `json:"encryptedData"`
	IV            string `json:"iv"`
}

// rawUserInfo is what WeChat tells of everybody since 2022.
const rawUserInfo = `{"nickName":"微信用户","gender":0,"language":"","city":"","province":"","country":"",` +
	`"avatarUrl":"https://thirdwx.qlogo.cn/mmopen/vi_32/default/132"}`

// OpenData makes open data of a user who has signed in, under the session_key
// he has now. It was made age ago: see its watermark.
func (s *Simulator) OpenData(appid, user string, kind OpenDataKind, age time.Duration) (OpenData, error) {
	if age < 0 || age > maxAdvance {
		return OpenData{}, errors.New("age is 0 to ten years")
	}
	now := s.now().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.known(appid, user)
	if err != nil {
		return OpenData{}, err
	}
	if m.sessionKey == "" || now >= m.expires {
		return OpenData{}, fmt.Errorf("user %q has no session_key in app %s; sign in again", cut(user), appid)
	}
	switch kind {
	case OpenDataPhone:
		return m.seal(appendPhoneInfo(nil, s.phoneOf(user), m.app.AppID, realTime(age)))
	case OpenDataUserInfo:
	default:
		return OpenData{}, errors.New("kind is userinfo or phone")
	}
	b := append([]byte(`{"openId":"`), m.openID...)
	b = append(b, `",`...)
	b = append(b, rawUserInfo[1:len(rawUserInfo)-1]...)
	if p := m.app.OpenPlatform; p != "" {
		b = append(b, `,"unionId":"`...)
		b = append(b, s.unionID(p, user)...)
		b = append(b, '"')
	}
	b = append(b, `,"watermark":`...)
	b = appendWatermark(b, m.app.AppID, realTime(age))
	d, err := m.seal(append(b, '}'))
	if err != nil {
		return OpenData{}, err
	}
	sum := sha1.Sum([]byte(rawUserInfo + m.sessionKey))
	d.RawData, d.Signature = rawUserInfo, hex.EncodeToString(sum[:])
	return d, nil
}

// seal encrypts plain with AES-128-CBC under the session_key.
func (m *member) seal(plain []byte) (OpenData, error) {
	key, err := base64.StdEncoding.DecodeString(m.sessionKey)
	if err != nil {
		return OpenData{}, err
	}
	var iv [aes.BlockSize]byte
	randomBytes(iv[:])
	sealed, err := encryptCBC(key, iv[:], plain, aes.BlockSize)
	if err != nil {
		return OpenData{}, err
	}
	return OpenData{EncryptedData: sealed, IV: base64.StdEncoding.EncodeToString(iv[:])}, nil
}

// encryptCBC pads plain to a multiple of size and returns the ciphertext in base64.
func encryptCBC(key, iv, plain []byte, size int) (string, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", err
	}
	n := size - len(plain)%size
	b := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(b, b)
	return base64.StdEncoding.EncodeToString(b), nil
}

func giveOpenData(s *Simulator, f *form) (result, error) {
	appid, user, kind, age := f.text("appid"), f.text("user"), OpenDataKind(f.text("kind")), f.duration("age")
	if err := f.done(); err != nil {
		return result{}, err
	}
	d, err := s.OpenData(appid, user, kind, age)
	if err != nil {
		return result{}, err
	}
	return result{value: d}, nil
}
