package simulator

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Event is an event about a user, as WeChat pushes it to the address that is
// set in the app's console.
type Event struct {
	URL   string // http, and of a loopback host
	AppID string
	User  string
	// Type is user_authorization_revoke, user_authorization_cancellation,
	// user_info_modified or any other name.
	Type       string
	RevokeInfo string // what was revoked, a number; may be empty
	Token      string // the console's Token
	// EncodingAESKey is the console's key, 43 letters and digits. Without one
	// the push is plain.
	EncodingAESKey string
	XML            bool          // the body is XML instead of JSON
	Age            time.Duration // how long ago it was sent
}

// Receipt is what the receiver of an event answered.
type Receipt struct {
	Status int    `json:"status"`
	Body   string `json:"body"` // cut to 256 bytes
}

// eventTimeout is how long WeChat waits for an answer.
const eventTimeout = 5 * time.Second

// SendEvent pushes an event and returns the answer. Unlike WeChat it sends
// once.
func (s *Simulator) SendEvent(ctx context.Context, e Event) (Receipt, error) {
	r, err := s.eventRequest(e)
	if err != nil {
		return Receipt{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	dialer := net.Dialer{Control: onlyLoopback}
	client := http.Client{
		Transport:     &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(r.WithContext(ctx))
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // without the URL
		}
		return Receipt{}, fmt.Errorf("the receiver did not answer: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return Receipt{}, errors.New("the receiver broke off its answer")
	}
	return Receipt{res.StatusCode, strings.ToValidUTF8(cut(string(body)), "")}, nil
}

// onlyLoopback keeps a name that only looks like one from leading elsewhere.
func onlyLoopback(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !a.Addr().Unmap().IsLoopback() {
		return errors.New("not a loopback address")
	}
	return nil
}

func (s *Simulator) eventRequest(e Event) (*http.Request, error) {
	u, err := url.Parse(e.URL)
	if err != nil || u.Scheme != "http" || u.User != nil || !isLoopback(u.Hostname()) {
		return nil, errors.New("url is http and of a loopback host")
	}
	if err := s.checkEvent(e); err != nil {
		return nil, err
	}
	at := strconv.FormatInt(realTime(e.Age), 10)
	nonce := strconv.FormatUint(uint64(rand.Uint32()), 10)
	platform := s.id("openid", e.AppID, "\x00platform")
	q := u.Query()
	q.Set("signature", sortedSHA1(e.Token, at, nonce))
	q.Set("timestamp", at)
	q.Set("nonce", nonce)
	q.Set("openid", platform)

	to := "gh_" + hex.EncodeToString([]byte(s.mac("username", e.AppID))[:6])
	members := []pair{
		{"ToUserName", to, true}, {"FromUserName", platform, true}, {"CreateTime", at, false},
		{"MsgType", "event", true}, {"Event", e.Type, true},
		{"OpenID", s.openID(e.AppID, e.User), true}, {"AppID", e.AppID, true},
	}
	if e.RevokeInfo != "" {
		members = append(members, pair{"RevokeInfo", e.RevokeInfo, true})
	}
	body := encodePairs(members, e.XML)
	if e.EncodingAESKey != "" {
		sealed, err := sealEvent(e.EncodingAESKey, e.AppID, body)
		if err != nil {
			return nil, err
		}
		q.Set("encrypt_type", "aes")
		q.Set("msg_signature", sortedSHA1(e.Token, at, nonce, sealed))
		body = encodePairs([]pair{{"ToUserName", to, true}, {"Encrypt", sealed, true}}, e.XML)
	}
	u.RawQuery = q.Encode()
	r, err := http.NewRequest(http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("url cannot be used")
	}
	r.Header.Set("Content-Type", map[bool]string{false: "application/json", true: "text/xml"}[e.XML])
	return r, nil
}

func (s *Simulator) checkEvent(e Event) error {
	s.mu.Lock()
	known := s.apps[e.AppID] != nil
	s.mu.Unlock()
	switch {
	case !known:
		return fmt.Errorf("there is no app %q", cut(e.AppID))
	case len(e.Type) > 64 || !alphanumericOnly(strings.ReplaceAll(e.Type, "_", "")):
		return errors.New("event is a name of up to 64 letters, digits and _")
	case len(e.RevokeInfo) > 64 || e.RevokeInfo != "" && !alphanumericOnly(e.RevokeInfo):
		return errors.New("revoke_info is a number")
	case len(e.Token) < 3 || len(e.Token) > 32 || !alphanumericOnly(e.Token):
		return errors.New("token is 3 to 32 letters and digits")
	case e.EncodingAESKey != "" && (len(e.EncodingAESKey) != 43 || !alphanumericOnly(e.EncodingAESKey)):
		return errors.New("encoding_aes_key is 43 letters and digits")
	case e.Age < -maxAdvance || e.Age > maxAdvance:
		return errors.New("age is at most ten years")
	}
	return checkName("user", e.User)
}

// sealEvent encrypts 16 random bytes, the length of body, body and the appid.
func sealEvent(encodingAESKey, appid string, body []byte) (string, error) {
	key, err := base64.StdEncoding.DecodeString(encodingAESKey + "=")
	if err != nil {
		return "", errors.New("encoding_aes_key is 43 letters and digits")
	}
	b := make([]byte, 16, 20+len(body)+len(appid))
	randomBytes(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(append(b, body...), appid...)
	return encryptCBC(key, key[:16], b, len(key))
}

func sortedSHA1(parts ...string) string {
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, "")))
	return hex.EncodeToString(sum[:])
}

// pair is a member of a push's body; a number is no text.
type pair struct {
	name, value string
	text        bool
}

func encodePairs(members []pair, asXML bool) []byte {
	var b bytes.Buffer
	if asXML {
		b.WriteString("<xml>\n")
		for _, m := range members {
			value := m.value
			if m.text {
				value = "<![CDATA[" + strings.ReplaceAll(value, "]]>", "]]]]><![CDATA[>") + "]]>"
			}
			fmt.Fprintf(&b, "<%s>%s</%[1]s>\n", m.name, value)
		}
		b.WriteString("</xml>")
		return b.Bytes()
	}
	for i, m := range members {
		value := m.value
		if m.text {
			quoted, err := json.Marshal(value)
			if err != nil {
				continue // a string always marshals
			}
			value = string(quoted)
		}
		fmt.Fprintf(&b, `%c"%s":%s`, "{,"[min(i, 1)], m.name, value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

func alphanumericOnly(s string) bool { return s != "" && strings.Trim(s, alphanumeric) == "" }

func pushEvent(s *Simulator, f *form) (result, error) {
	e := Event{
		URL: f.text("url"), AppID: f.text("appid"), User: f.text("user"), Type: f.text("event"),
		RevokeInfo: f.text("revoke_info"), Token: f.text("token"), EncodingAESKey: f.text("encoding_aes_key"),
		Age: f.duration("age"),
	}
	switch f.text("data_format") {
	case "xml":
		e.XML = true
	case "", "json":
	default:
		f.fail("data_format", "is json or xml")
	}
	if err := f.done(); err != nil {
		return result{}, err
	}
	got, err := s.SendEvent(context.Background(), e)
	if err != nil {
		return result{}, err
	}
	return result{value: got, text: strconv.Itoa(got.Status)}, nil
}
