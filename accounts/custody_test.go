package accounts

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/bolt"
	"github.com/wxidp/wxidp/wechat"
)

// WeChat's own sample of open data.
const (
	sampleApp    = "wx4f4bc4dec97d474b"
	sampleKey    = "tiihtNczf5v6AKRyjwEUhQ=="
	sampleIV     = "r7BXXKkLb8qrSNn05n0qiA=="
	sampleOpenID = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
	sampleTime   = 1477314187
	sampleData   = "CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1WT7fJlAC+oNPdbB+3hVbJSRgv+4lGOETKUQz6OYStslQ142dNCuabNPGBzlooOmB231qMM85d2/fV6ChevvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/lmHInNlxuacJXwu0fjpXfz/YqYzBIBzD6WUfTIF9GRHpOn/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4PC7E/r7Z6xNrXd2UIeorGj5Ef7b1pJAYB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns/8wR2SiRS7MNACwTyrGvt9ts8p12PKFdlqYTopNHR1Vf7XjfhQlVsAJdNiKdYmYVoKlaRv85IfVunYzO0IKXsyl7JCUjCpoG20f0a04COwfneQAGGwd5oa+T8yO5hzuyDb/XcxxmK01EpqOyuxINew=="
	samplePlain  = `{"openId":"oGZUI0egBJY1zhBYw2KhdUfwVJJE","nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/aSKcBBPpibyKNicHNTMM0qJVh8Kjgiak2AHWr8MHM4WgMEm7GFhsf8OYrySdbvAMvTsw3mo8ibKicsnfN5pRjl1p8HQ/0","unionId":"ocMvos6NjeKLIBqg5Mr9QjxrP1FA","watermark":{"timestamp":1477314187,"appid":"wx4f4bc4dec97d474b"}}`

	rawKey       = "HyVFkGl5F5OQWJZZaNzBBg=="
	rawData      = `{"nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/1vZvI39NWFQ9XM4LtQpFrQJ1xlgZxx3w7bQxKARol6503Iuswjjn6nIGBiaycAjAtpujxyzYsrztuuICqIM5ibXQ/0"}`
	rawSignature = "75e81ceda165f4ffa64f4068af58c64b8f54b88c"
)

var sampleHolder = Holder{Identity: storage.Digest{1}, AppID: sampleApp, WeChatOpenID: sampleOpenID}

// heldKeys has the same session_keys in custody for everybody.
type heldKeys struct {
	keys   []string
	err    error // of reads
	putErr error
}

func (h *heldKeys) SessionKeys(context.Context, storage.Digest) (out []storage.SessionKey, err error) {
	for _, key := range h.keys {
		out = append(out, storage.SessionKey{Value: secret.New(key)})
	}
	return out, h.err
}

func (h *heldKeys) PutSessionKey(_ context.Context, _ storage.Digest, key secret.String, lifetime time.Duration) error {
	if lifetime != SessionKeyLifetime {
		return fmt.Errorf("kept for %v", lifetime)
	}
	h.keys = append([]string{key.Reveal()}, h.keys...)
	return h.putErr
}

// sessionWeChat knows which session_key is valid.
type sessionWeChat struct {
	mu    sync.Mutex
	valid string
	err   error
	calls int
}

func (w *sessionWeChat) CheckSession(_ context.Context, _, _ string, key secret.String) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	return key.Reveal() == w.valid && w.err == nil, w.err
}

func (w *sessionWeChat) ResetSession(_ context.Context, _, _ string, key secret.String) (secret.String, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	switch {
	case w.err != nil:
		return secret.String{}, w.err
	case key.Reveal() != w.valid:
		return secret.String{}, &wechat.Error{Kind: wechat.SessionExpired, Code: 87009}
	}
	w.valid = fmt.Sprintf("%022d==", w.calls)
	return secret.New(w.valid), nil
}

// inBubbleAt runs a test at a Unix time.
func inBubbleAt(t *testing.T, seconds int64, do func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Unix(seconds, 0)))
		do(t)
	})
}

func TestThreat68OfficialVectors(t *testing.T) {
	inBubbleAt(t, sampleTime, func(t *testing.T) {
		weChat := &sessionWeChat{valid: sampleKey}
		for name, keys := range map[string][]string{"newest": {sampleKey, rawKey}, "older": {rawKey, sampleKey}, "only": {sampleKey}} {
			plain, err := NewCustody(&heldKeys{keys: keys}, weChat).Decrypt(t.Context(), sampleHolder, sampleData, sampleIV)
			if err != nil || string(plain) != samplePlain {
				t.Errorf("%s key: %s, %v", name, plain, err)
			}
		}
		for name, keys := range map[string][]string{"newest": {rawKey, sampleKey}, "older": {sampleKey, rawKey}} {
			if valid, err := NewCustody(&heldKeys{keys: keys}, weChat).VerifyRawData(t.Context(), sampleHolder, rawData, rawSignature); !valid || err != nil {
				t.Errorf("%s key: %v, %v", name, valid, err)
			}
		}
		if weChat.calls != 0 {
			t.Errorf("WeChat was asked %d times about what was right", weChat.calls)
		}

		c := NewCustody(&heldKeys{keys: []string{sampleKey, rawKey}}, weChat)
		other := sampleHolder
		other.WeChatOpenID = "oGZUI0egBJY1zhBYw2KhdUfwVJJF"
		if _, err := c.Decrypt(t.Context(), other, sampleData, sampleIV); !errors.Is(err, ErrOpenData) {
			t.Errorf("another openid: %v", err)
		}
		other = sampleHolder
		other.AppID = "wx4f4bc4dec97d474c"
		if _, err := c.Decrypt(t.Context(), other, sampleData, sampleIV); !errors.Is(err, ErrOpenData) {
			t.Errorf("another app: %v", err)
		}
		if valid, err := c.VerifyRawData(t.Context(), sampleHolder, rawData+" ", rawSignature); valid || err != nil {
			t.Errorf("another text: %v, %v", valid, err)
		}
		time.Sleep(10 * time.Minute)
		if _, err := c.Decrypt(t.Context(), sampleHolder, sampleData, sampleIV); err != nil {
			t.Errorf("after 10 minutes: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := c.Decrypt(t.Context(), sampleHolder, sampleData, sampleIV); !errors.Is(err, ErrOpenData) {
			t.Errorf("after more than 10 minutes: %v", err)
		}
	})
}

// TestThreat68Verdicts: what WeChat says of a key counts for some seconds, and
// for that key only.
func TestThreat68Verdicts(t *testing.T) {
	inBubbleAt(t, sampleTime, func(t *testing.T) {
		store, weChat := &heldKeys{keys: []string{rawKey}}, &sessionWeChat{err: &wechat.Error{Kind: wechat.Unavailable}}
		c := NewCustody(store, weChat)
		fails := func(want error, calls int) {
			t.Helper()
			_, err := c.Decrypt(t.Context(), sampleHolder, sampleData, sampleIV)
			if want != nil && !errors.Is(err, want) || want == nil && err != weChat.err {
				t.Errorf("got %v, want %v", err, want)
			}
			if weChat.calls != calls {
				t.Errorf("%d calls to WeChat, want %d", weChat.calls, calls)
			}
		}
		fails(nil, 1)
		fails(nil, 2) // an outage is no verdict
		weChat.err, weChat.valid = nil, rawKey
		fails(ErrOpenData, 3)
		weChat.valid = sampleKey
		fails(ErrOpenData, 3)
		time.Sleep(verdictLife)
		fails(ErrSessionKeyExpired, 4)
		fails(ErrSessionKeyExpired, 4)
		store.keys = []string{craftedKey, rawKey}
		weChat.valid = craftedKey
		fails(ErrOpenData, 5)
		other := sampleHolder
		other.Identity = storage.Digest{2}
		if _, err := c.Decrypt(t.Context(), other, sampleData, sampleIV); !errors.Is(err, ErrOpenData) || weChat.calls != 6 {
			t.Errorf("another identity: %v after %d calls", err, weChat.calls)
		}
		// Who asks for the state gets the present one.
		weChat.valid = ""
		if valid, err := c.Check(t.Context(), sampleHolder); valid || err != nil || weChat.calls != 7 {
			t.Errorf("%v, %v after %d calls", valid, err, weChat.calls)
		}
		fails(ErrSessionKeyExpired, 7)

		store.keys = nil
		for name, err := range map[string]error{
			"Decrypt": func() error { _, err := c.Decrypt(t.Context(), sampleHolder, sampleData, sampleIV); return err }(),
			"Verify":  func() error { _, err := c.VerifyRawData(t.Context(), sampleHolder, rawData, rawSignature); return err }(),
			"Check":   func() error { _, err := c.Check(t.Context(), sampleHolder); return err }(),
			"Reset":   c.Reset(t.Context(), sampleHolder),
		} {
			if !errors.Is(err, ErrNoSessionKey) || weChat.calls != 7 {
				t.Errorf("%s without a key: %v", name, err)
			}
		}
		store.err = storage.ErrUnavailable
		if _, err := c.Decrypt(t.Context(), sampleHolder, sampleData, sampleIV); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("storage: %v", err)
		}
	})
}

func TestVerdictsAreBounded(t *testing.T) {
	v := newVerdicts()
	for i := range 2 * maxVerdicts {
		v.remember(sampleHolder, secret.New(fmt.Sprint(i)), true)
	}
	if len(v.said) > maxVerdicts {
		t.Errorf("%d verdicts", len(v.said))
	}
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, weChat := &heldKeys{keys: []string{rawKey}}, &sessionWeChat{valid: rawKey}
		c := NewCustody(store, weChat)
		if err := c.Reset(t.Context(), sampleHolder); err != nil || len(store.keys) != 2 || store.keys[0] != weChat.valid {
			t.Errorf("%d keys, %v", len(store.keys), err)
		}
		weChat.valid = sampleKey
		if err := c.Reset(t.Context(), sampleHolder); !errors.Is(err, ErrSessionKeyExpired) {
			t.Errorf("a stale key: %v", err)
		}
		for put, want := range map[error]error{storage.ErrNotFound: ErrNoSessionKey, storage.ErrUnavailable: storage.ErrUnavailable} {
			weChat.valid, store.putErr = store.keys[0], put
			if err := c.Reset(t.Context(), sampleHolder); !errors.Is(err, want) {
				t.Errorf("a new key that cannot be kept: %v, want %v", err, want)
			}
		}
		// Who waits too long for the one before gives up.
		unlock, err := c.resets.lock(t.Context(), sampleHolder.Identity)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Reset(ctx, sampleHolder); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		unlock()
	})
}

// TestThreat67CustodyEnds: after three days a session_key is gone from the
// store, and so is what could use it.
func TestThreat67CustodyEnds(t *testing.T) {
	inBubbleAt(t, sampleTime, func(t *testing.T) {
		keyring, err := seal.ParseKeyring([]byte(seal.GenerateKey()))
		if err != nil {
			t.Fatal(err)
		}
		store, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(t.TempDir(), "data", "wxidp.db"), Keyring: keyring})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}()
		res, err := store.SignIn(t.Context(), storage.SignIn{AppID: sampleApp, WeChatOpenID: sampleOpenID, Absolute: 1000 * time.Hour,
			Family: storage.Family{ClientID: "shop-mini"}, SessionKey: secret.New(sampleKey), SessionKeyLifetime: SessionKeyLifetime})
		if err != nil || res.Verdict != storage.SignInOK {
			t.Fatal(res, err)
		}
		holder := sampleHolder
		holder.Identity = res.Family.Identity
		c := NewCustody(store, &sessionWeChat{valid: sampleKey})
		if plain, err := c.Decrypt(t.Context(), holder, sampleData, sampleIV); err != nil || string(plain) != samplePlain {
			t.Errorf("%s, %v", plain, err)
		}
		time.Sleep(SessionKeyLifetime - time.Second)
		if valid, err := c.Check(t.Context(), holder); !valid || err != nil {
			t.Errorf("within three days: %v, %v", valid, err)
		}
		time.Sleep(time.Second)
		if _, err := c.Check(t.Context(), holder); !errors.Is(err, ErrNoSessionKey) {
			t.Errorf("after three days: %v", err)
		}
	})
}

const craftedKey = "AAECAwQFBgcICQoLDA0ODw=="

// seal16 encrypts under craftedKey with a zero iv.
func seal16(t testing.TB, plain []byte) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(craftedKey)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	n := 16 - len(plain)%16
	b := append(slices.Clone(plain), bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(b, b)
	return base64.StdEncoding.EncodeToString(b)
}

// FuzzOpenData: whatever decrypts is an object of this user and app, and
// nothing panics.
func FuzzOpenData(f *testing.F) {
	for _, members := range []string{
		"", `"openId":"oGZUI0egBJY1zhBYw2KhdUfwVJJE",`, `"openId":"x",`, `"OPENID":"x",`, `"OPENID":"x","openId":"oGZUI0egBJY1zhBYw2KhdUfwVJJE",`, `"a":{"openId":"x"},`, `"openId":null,`, `"openId":1,"openId":[],`,
		`"open\u0049d":"x",`, `"a":[[[[1]]]],`, `"openId":"x"`, `}`, "\xff", `"\ud800":1,`,
	} {
		f.Add([]byte(members))
	}
	c := NewCustody(&heldKeys{keys: []string{craftedKey, rawKey}}, &sessionWeChat{valid: craftedKey})
	iv := base64.StdEncoding.EncodeToString(make([]byte, 16))
	f.Fuzz(func(t *testing.T, members []byte) {
		plain := append([]byte("{"), members...)
		plain = fmt.Appendf(plain, `"watermark":{"timestamp":%d,"appid":%q}}`, time.Now().Unix(), sampleApp)
		out, err := c.Decrypt(t.Context(), sampleHolder, seal16(t, plain), iv)
		if err != nil {
			if !errors.Is(err, ErrOpenData) || err.Error() != ErrOpenData.Error() {
				t.Errorf("error %v", err)
			}
			return
		}
		var object map[string]any
		if !bytes.Equal(out, plain) || json.Unmarshal(out, &object) != nil {
			t.Fatalf("%q from %q", out, plain)
		}
		for name, value := range object {
			if strings.EqualFold(name, "openid") && value != sampleOpenID {
				t.Errorf("openid %v in %q", value, plain)
			}
		}
	})
}
