package accounts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat"
)

// SessionKeyLifetime is how long a session_key stays in custody. WeChat does
// not say how long one lasts; after some days without use it does not.
const SessionKeyLifetime = 72 * time.Hour

// openDataMaxAge is how long ago WeChat may have made open data.
const openDataMaxAge = 10 * time.Minute

// The errors of [Custody] beside those of storage and of the WeChat client.
var (
	// ErrOpenData is open data that cannot be used, for whatever reason. No
	// answer may tell the reasons apart; see [wechat.ErrOpenData].
	ErrOpenData = errors.New("accounts: open data that this user's session_key does not open")
	// ErrSessionKeyExpired is a session_key that WeChat itself called expired.
	// Only a new sign-in brings another.
	ErrSessionKeyExpired = errors.New("accounts: WeChat no longer takes the session_key")
	// ErrNoSessionKey is an identity without a session_key in custody: it has
	// been there for too long, or nobody used any when the user signed in.
	ErrNoSessionKey = errors.New("accounts: no session_key is in custody")
)

// CustodyStore is the part of a Store that custody needs.
type CustodyStore interface {
	SessionKeys(ctx context.Context, identity storage.Digest) ([]storage.SessionKey, error)
	PutSessionKey(ctx context.Context, identity storage.Digest, key secret.String, lifetime time.Duration) error
}

// SessionClient is the part of the WeChat client that custody needs.
type SessionClient interface {
	CheckSession(ctx context.Context, appid, weChatOpenID string, sessionKey secret.String) (valid bool, err error)
	ResetSession(ctx context.Context, appid, weChatOpenID string, sessionKey secret.String) (newKey secret.String, err error)
}

// Custody uses WeChat's session_keys for backends, which never see one. It is
// safe for concurrent use.
//
// Whether a failed use is the fault of the data or of a key that WeChat has
// replaced is for WeChat to say; its word on a key is remembered for a few
// seconds, so that failures do not spend its quota.
type Custody struct {
	store    CustodyStore
	weChat   SessionClient
	verdicts verdicts
	resets   stripes
}

// NewCustody returns a Custody.
func NewCustody(store CustodyStore, weChat SessionClient) *Custody {
	return &Custody{store: store, weChat: weChat, verdicts: newVerdicts(), resets: newStripes()}
}

// Holder is a WeChat identity whose session_keys are to be used.
type Holder struct {
	Identity     storage.Digest
	AppID        string
	WeChatOpenID string
}

// Decrypt opens encryptedData with its iv, as a mini-program got them from
// WeChat within the last 10 minutes, and returns the JSON object inside.
// Errors of its own are ErrOpenData, ErrSessionKeyExpired and ErrNoSessionKey.
func (c *Custody) Decrypt(ctx context.Context, holder Holder, encryptedData, iv string) ([]byte, error) {
	keys, err := c.keys(ctx, holder)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	var opened []byte
	// Each key takes all the steps, whichever of them fails.
	for _, key := range keys {
		plain, failed := wechat.Decrypt(key.Value, encryptedData, iv, holder.AppID, openDataMaxAge, now)
		read := plain
		if failed != nil {
			read = foreignData
		}
		if ownData(read, holder.WeChatOpenID) && failed == nil {
			opened = plain
		}
	}
	if opened != nil {
		return opened, nil
	}
	return nil, c.explain(ctx, holder, keys[0].Value, ErrOpenData)
}

// VerifyRawData reports whether signature is WeChat's over rawData for this
// user. Errors of its own are ErrSessionKeyExpired and ErrNoSessionKey.
func (c *Custody) VerifyRawData(ctx context.Context, holder Holder, rawData, signature string) (valid bool, err error) {
	keys, err := c.keys(ctx, holder)
	if err != nil {
		return false, err
	}
	for _, key := range keys {
		valid = wechat.VerifyRawData(key.Value, rawData, signature) || valid
	}
	if valid {
		return true, nil
	}
	return false, c.explain(ctx, holder, keys[0].Value, nil)
}

// Check asks WeChat whether the newest session_key is still the user's. An
// error of its own is ErrNoSessionKey.
func (c *Custody) Check(ctx context.Context, holder Holder) (valid bool, err error) {
	keys, err := c.keys(ctx, holder)
	if err != nil {
		return false, err
	}
	return c.ask(ctx, holder, keys[0].Value)
}

// Reset has WeChat replace the user's session_key and takes the new one into
// custody. ctx should not end before: a new key that is not kept is lost.
// Errors of its own are ErrSessionKeyExpired and ErrNoSessionKey.
func (c *Custody) Reset(ctx context.Context, holder Holder) error {
	// One after the other: each replaces the key that the other would use.
	unlock, err := c.resets.lock(ctx, holder.Identity)
	if err != nil {
		return err
	}
	defer unlock()
	keys, err := c.keys(ctx, holder)
	if err != nil {
		return err
	}
	fresh, err := c.weChat.ResetSession(ctx, holder.AppID, holder.WeChatOpenID, keys[0].Value)
	if e, ok := errors.AsType[*wechat.Error](err); ok && e.Kind == wechat.SessionExpired {
		return ErrSessionKeyExpired
	}
	if err != nil {
		return err
	}
	err = c.store.PutSessionKey(ctx, holder.Identity, fresh, SessionKeyLifetime)
	if errors.Is(err, storage.ErrNotFound) {
		return ErrNoSessionKey // unbound meanwhile
	}
	return err
}

// keys returns the session_keys in custody, at least one, newest first.
func (c *Custody) keys(ctx context.Context, holder Holder) ([]storage.SessionKey, error) {
	keys, err := c.store.SessionKeys(ctx, holder.Identity)
	if err == nil && len(keys) == 0 {
		err = ErrNoSessionKey
	}
	return keys, err
}

// explain returns ErrSessionKeyExpired where WeChat says so of the key, and
// otherwise what went wrong.
func (c *Custody) explain(ctx context.Context, holder Holder, key secret.String, wrong error) error {
	valid, known := c.verdicts.of(holder, key)
	if !known {
		var err error
		if valid, err = c.ask(ctx, holder, key); err != nil {
			return err
		}
	}
	if !valid {
		return ErrSessionKeyExpired
	}
	return wrong
}

func (c *Custody) ask(ctx context.Context, holder Holder, key secret.String) (valid bool, err error) {
	valid, err = c.weChat.CheckSession(ctx, holder.AppID, holder.WeChatOpenID, key)
	if err == nil {
		c.verdicts.remember(holder, key, valid)
	}
	return valid, err
}

// foreignData is looked through where the plaintext cannot be.
var foreignData = []byte(`{"openId":"","nickName":"","gender":0,"language":"","city":"","province":"","country":"","avatarUrl":"","watermark":{}}`)

// ownData reports whether a JSON object names no other openid than the user's.
// Any spelling of the name counts, and each of several: who reads the object
// next may take another than we do.
func ownData(object []byte, weChatOpenID string) bool {
	own := true
	decoder := json.NewDecoder(bytes.NewReader(object))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return false
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return false
		}
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return false
		}
		if text, ok := name.(string); ok && strings.EqualFold(text, "openid") {
			var openID string
			own = json.Unmarshal(value, &openID) == nil && openID == weChatOpenID && own
		}
	}
	return own
}
