package wechat

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wxidp/wxidp/internal/ascii"
	"github.com/wxidp/wxidp/internal/secret"
)

// EventType is WeChat's name of an event.
type EventType string

// The events about what a user let an app know. WeChat sends others to the
// same address, and people's messages too; a receiver acknowledges and ignores
// what it does not know.
const (
	// EventAuthorizationRevoked is a user who withdrew something given to the
	// app: see Event.Revoked. WeChat asks that it be deleted. The user and the
	// openid go on.
	EventAuthorizationRevoked EventType = "user_authorization_revoke"
	// EventAccountCancelled is a user whose WeChat account has come to its end.
	EventAccountCancelled EventType = "user_authorization_cancellation"
	// EventUserInfoModified is a user whose nickname or avatar WeChat has
	// cleared as a risk; the app's copies should go too. It goes to apps that
	// the user gave them to within 30 days.
	EventUserInfoModified EventType = "user_info_modified"
)

// The values of [Event.Revoked] that concern an identity. WeChat has about ten
// more, from car plates to sport data.
const (
	RevokedNicknameAndAvatar = "6"
	RevokedPhone             = "8"
	RevokedEmail             = "16"
	RevokedTypedNickname     = "19" // from the nickname keyboard
	RevokedChosenAvatar      = "20" // from the avatar button
)

// Event is one event. Its strings are WeChat's, bounded and visible ASCII.
type Event struct {
	// Type is empty for what is a message and no event.
	Type  EventType
	AppID string
	// WeChatOpenID is the user. WeChat documents it for the three types above;
	// one integrator reports EventUserInfoModified without. The sender named
	// in a push (FromUserName) is the platform and is not taken for it.
	WeChatOpenID string
	UnionID      string // documented for some kinds of app; may be empty
	CreateTime   time.Time
	Revoked      string // of EventAuthorizationRevoked: one of WeChat's numbers
	// PluginID and OpenPID are of a revocation within a plugin: the plugin's
	// appid and the user's id there. WeChatOpenID then may be empty.
	PluginID, OpenPID string
}

// The errors of [EventReceiver.Open].
var (
	// ErrEventSignature is a push that WeChat did not sign, or not for now.
	ErrEventSignature = errors.New("wechat: the push is not signed with this token, or not within 5 minutes of now")
	// ErrEventBody is a push whose body is malformed, too large, encrypted
	// with another key or of another app.
	ErrEventBody = errors.New("wechat: the body of the push cannot be read, or is not of this app")
)

// MaxEventBody is the longest body of a push taken, in bytes.
const MaxEventBody = 64 << 10

const (
	eventMaxAge  = 5 * time.Minute
	maxNonce     = 64
	eventPadding = 32 // WeChat pads to the size of its key
)

// EventReceiver verifies and opens the message push (消息推送) of one app.
//
// With an EncodingAESKey only encrypted pushes are taken: WeChat's secure
// mode, and the encrypted half of its compatible mode. Without one, pushes are
// plain, and then the signature covers the query but not the body: whoever has
// seen one push can send another body with its query for 5 minutes. Do not let
// plain pushes delete anything.
type EventReceiver struct {
	appID  string
	token  secret.String
	aesKey secret.String // 32 bytes; zero in plain mode
}

// NewEventReceiver returns a receiver for the Token (3 to 32 letters and
// digits) and the EncodingAESKey (43 of them, or none) that are set in the
// app's console.
func NewEventReceiver(appid string, token, encodingAESKey secret.String) (*EventReceiver, error) {
	t := token.Reveal()
	switch {
	case !ascii.Visible(appid, maxID):
		return nil, errors.New("wechat: the appid is empty or not visible ASCII")
	case len(t) < 3 || len(t) > 32 || !alphanumeric(t):
		return nil, errors.New("wechat: the token of the message push is not 3 to 32 letters and digits")
	}
	r := &EventReceiver{appID: appid, token: token}
	if encodingAESKey.IsZero() {
		return r, nil
	}
	k := encodingAESKey.Reveal()
	// Not strict: the last letter carries two bits that are no part of the key.
	key, err := base64.StdEncoding.DecodeString(k + "=")
	if len(k) != 43 || !alphanumeric(k) || err != nil {
		return nil, errors.New("wechat: the EncodingAESKey is not 43 letters and digits")
	}
	r.aesKey = secret.New(string(key))
	return r, nil
}

func alphanumeric(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return s != ""
}

// PushQuery holds the query parameters of a push: timestamp, nonce, signature
// and, of an encrypted one, msg_signature.
type PushQuery struct{ Timestamp, Nonce, Signature, MsgSignature string }

// Verify checks the signature of the request by which WeChat tries the
// address, a GET, and its age of at most 5 minutes. The answer is its
// parameter echostr.
func (r *EventReceiver) Verify(q PushQuery) error {
	if !r.signed(q, q.Signature) {
		return ErrEventSignature
	}
	return nil
}

// Open verifies a push and reads its event. Errors are ErrEventSignature and
// ErrEventBody. The caller refuses a second push with the same timestamp and
// nonce within 5 minutes, and answers "success" at once: after 5 s without an
// answer WeChat sends again, three times (documented for official accounts).
func (r *EventReceiver) Open(q PushQuery, body []byte) (Event, error) {
	if len(body) > MaxEventBody {
		return Event{}, ErrEventBody
	}
	if r.aesKey.IsZero() {
		if err := r.Verify(q); err != nil {
			return Event{}, err
		}
		return r.event(body)
	}
	outer, ok := parsePush(body)
	if !ok || outer.encrypt == "" { // an empty part would leave a signature of the query alone
		return Event{}, ErrEventBody
	}
	// Not q.Signature: that one does not cover the body.
	if !r.signed(q, q.MsgSignature, outer.encrypt) {
		return Event{}, ErrEventSignature
	}
	message, ok := r.decrypt(outer.encrypt)
	if !ok {
		return Event{}, ErrEventBody
	}
	return r.event(message)
}

// signed checks the age and the signature over the token, the time, the nonce
// and the parts: the SHA-1 of all, sorted and joined. Joining loses where one
// ends, so time and nonce are taken in their usual form only.
func (r *EventReceiver) signed(q PushQuery, signature string, parts ...string) bool {
	if len(q.Timestamp) != 10 || !digits(q.Timestamp) || len(q.Nonce) > maxNonce || !alphanumeric(q.Nonce) {
		return false
	}
	parts = append(parts, r.token.Reveal(), q.Timestamp, q.Nonce)
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, "")))
	if subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum[:])), []byte(signature)) != 1 {
		return false
	}
	seconds, err := strconv.ParseInt(q.Timestamp, 10, 64)
	age := time.Since(time.Unix(seconds, 0))
	return err == nil && age <= eventMaxAge && age >= -clockSkew
}

// decrypt opens a message: 16 random bytes, its length in 4, itself, the appid.
func (r *EventReceiver) decrypt(encrypted string) ([]byte, bool) {
	const head = 16 + 4
	b, ok := decodeBase64(encrypted, MaxEventBody)
	if !ok || len(b) < eventPadding || len(b)%aes.BlockSize != 0 {
		return nil, false
	}
	key := []byte(r.aesKey.Reveal())
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, false
	}
	cipher.NewCBCDecrypter(block, key[:aes.BlockSize]).CryptBlocks(b, b)
	n, good := unpad(b, eventPadding)
	if good != 1 || n < head {
		return nil, false
	}
	length := binary.BigEndian.Uint32(b[16:head])
	rest := b[head:n]
	if uint64(length) > uint64(len(rest)) || string(rest[length:]) != r.appID {
		return nil, false
	}
	return rest[:length], true
}

// event reads a plain body.
func (r *EventReceiver) event(body []byte) (Event, error) {
	p, ok := parsePush(body)
	if !ok {
		return Event{}, ErrEventBody
	}
	e := Event{AppID: r.appID, CreateTime: p.createTime}
	if !strings.EqualFold(p.msgType, "event") {
		return e, nil
	}
	e.Type = EventType(p.event)
	switch e.Type {
	case EventAuthorizationRevoked, EventAccountCancelled, EventUserInfoModified:
		// In plain mode this is all that says which app the body is of.
		if p.appID != r.appID {
			return Event{}, ErrEventBody
		}
		e.WeChatOpenID, e.UnionID = p.openID, p.unionID
		e.Revoked, e.PluginID, e.OpenPID = p.revokeInfo, p.pluginID, p.openPID
	}
	return e, nil
}
