package wechat

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/ascii"
	"github.com/wxidp/wxidp/internal/secret"
)

// The settings and pushes of WeChat's own documentation.
const (
	docAppID   = "wxba5fad812f8e6fb9"
	docToken   = "AAAAA"
	docEncrypt = "+qdx1OKCy+5JPCBFWw70tm0fJGb2Jmeia4FCB7kao+/Q5c/ohsOzQHi8khUOb05JCpj0JB4RvQMkUyus8TPxLKJGQqcvZqzDpVzazhZv6JsXUnnR8XGT740XgXZUXQ7vJVnAG+tE8NUd4yFyjPy7GgiaviNrlCTj+l5kdfMuFUPpRSrfMZuMcp3Fn2Pede2IuQrKEYwKSqFIZoNqJ4M8EajAsjLY2km32IIjdf8YL/P50F7mStwntrA2cPDrM1kb6mOcfBgRtWygb3VIYnSeOBrebufAlr7F9mFUPAJGj04="
	docXML     = "D7yzvUNAL930rd28wf21s4hvXhz0L6Uit/p2Di6C5DHyYGpEgdBRnKjBec34JwoQXicwaZC7fOVihW80F4VtsdvE//1vr7oAbqjDv8KenVp+ajKYpJnyQ4zMRhIC+a31fCVOMC03FfzV/QuC94kBP55a+Za3sJgvAn+ZbsNqZI5DkyuzkhQN8OBqCzFhizGmy0xpM0MEA4agpvE+RuNO1rhHTtuJB5yltw1FiYzecSXJ+y/D2r81VkRn2eYjh2ltsoyfbDR7Is6ookXIFxTfyeNyeHxMeT4KN5WpCDmSbTcUYrbBUlkGLJ9n/rU8YOywma6G7aTb7KZKOqCxgfoUlYEZPk4FUL/TK7ShriFDMVCLyjQJ15Ob++agDWtcxhfUfe6HIoIpRW8mKNBQiY/Jd1svvuskA1wLef1RTtzKfMpagSCX/laZINmdnX4zrF6kIaR9P4xQrWXbsTFHTYe0Mg=="
)

var docKey = strings.Repeat("A", 43)

func newReceiver(t testing.TB, appid, token, key string) *EventReceiver {
	t.Helper()
	r, err := NewEventReceiver(appid, secret.New(token), secret.New(key))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// signature is WeChat's, made apart from the code under test.
func signature(parts ...string) string {
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, "")))
	return hex.EncodeToString(sum[:])
}

// sealEvent encrypts a message under docKey; tail is what stands behind it.
func sealEvent(t testing.TB, message, tail string, length int) string {
	t.Helper()
	b := append([]byte("0123456789abcdef"), binary.BigEndian.AppendUint32(nil, uint32(length))...)
	b = append(append(b, message...), tail...)
	n := 32 - len(b)%32
	return sealRaw(t, append(b, bytes.Repeat([]byte{byte(n)}, n)...))
}

func sealRaw(t testing.TB, b []byte) string {
	t.Helper()
	key := make([]byte, 32) // docKey in base64
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	cipher.NewCBCEncrypter(block, key[:16]).CryptBlocks(b, b)
	return base64.StdEncoding.EncodeToString(b)
}

// at moves the clock of a synctest bubble to a Unix time.
func at(seconds int64) { time.Sleep(time.Until(time.Unix(seconds, 0))) }

func TestEventVectors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t, docAppID, docToken, docKey)
		at(1714036504)
		if err := r.Verify(PushQuery{Timestamp: "1714036504", Nonce: "1514711492", Signature: "f464b24fc39322e44b38aa78f5edd27bd1441696"}); err != nil {
			t.Errorf("the trial of the address: %v", err)
		}

		at(1714037059)
		plain := newReceiver(t, docAppID, docToken, "")
		e, err := plain.Open(PushQuery{Timestamp: "1714037059", Nonce: "486452656", Signature: "899cf89e464efb63f54ddac96b0a0a235f53aa78"},
			[]byte("{\n\"ToUserName\": \"gh_97417a04a28d\",\n\"FromUserName\": \"o9AgO5Kd5ggOC-bXrbNODIiE3bGY\",\n\"CreateTime\": 1714037059,\n\"MsgType\": \"event\",\n\"Event\": \"debug_demo\",\n\"debug_str\": \"hello world\"\n}"))
		if want := (Event{Type: "debug_demo", AppID: docAppID, CreateTime: time.Unix(1714037059, 0)}); err != nil || e != want {
			t.Errorf("plain: %+v, %v", e, err)
		}

		at(1714112445)
		e, err = r.Open(PushQuery{Timestamp: "1714112445", Nonce: "415670741", Signature: "ignored", MsgSignature: "046e02f8204d34f8ba5fa3b1db94908f3df2e9b3"},
			[]byte(`{"ToUserName":"gh_97417a04a28d","Encrypt":"`+docEncrypt+`"}`))
		if want := (Event{Type: "debug_demo", AppID: docAppID, CreateTime: time.Unix(1714112445, 0)}); err != nil || e != want {
			t.Errorf("encrypted: %+v, %v", e, err)
		}

		at(1715943329) // a push to a third-party platform, whose appid it ends with
		third := newReceiver(t, "wx134c8103faa5a59e", docToken, docKey)
		q := PushQuery{Timestamp: "1715943329", Nonce: "1590219412", Signature: "cc0c594499c1634947d5b502f158ee518947db27", MsgSignature: "6c12a4205838198b8fa631b3220723bb07f1015c"}
		body := []byte("<xml>\n    <ToUserName><![CDATA[gh_97417a04a28d]]></ToUserName>\n    <Encrypt><![CDATA[" + docXML + "]]></Encrypt>\n</xml>\n")
		if e, err = third.Open(q, body); err != nil || e.Type != "debug_demo" {
			t.Errorf("encrypted XML: %+v, %v", e, err)
		}
		if _, err = r.Open(q, body); err != ErrEventBody {
			t.Errorf("of another app: %v", err)
		}
	})
}

const (
	revokeXML = `<xml>
<ToUserName><![CDATA[gh_870882ca4b1]]></ToUserName>
<FromUserName><![CDATA[owAqB1v0ahK_Xlc7GshIDdf2yf7E]]></FromUserName>
<CreateTime>1626857200</CreateTime>
<MsgType><![CDATA[event]]></MsgType>
<Event><![CDATA[user_authorization_revoke]]></Event>
<OpenID><![CDATA[owAqB1nqaOYYWl0Ng484G2z5NIwU]]></OpenID>
<AppID><![CDATA[wx13974bf780d3dc89]]></AppID>
<RevokeInfo><![CDATA[8]]></RevokeInfo>
<PluginID><![CDATA[wx13974bf780d3dc80]]></PluginID>
<OpenPID><![CDATA[G7esq5NVzP76HIHoB95t4CVBP6to]]></OpenPID>
</xml>`
	revokeJSON = `{"ToUserName":"gh_870882ca4b1","FromUserName":"oaKk346BaWE-eIn4oSRWbaM9vR7s","CreateTime":"1626857200","MsgType":"Event",` +
		`"Event":"user_authorization_revoke"," OpenID":"owAqB1nqaOYYWl0Ng484G2z5NIwU","AppID":"wx13974bf780d3dc89","RevokeInfo":8,` +
		`"PluginID":"wx13974bf780d3dc80","OpenPID":" G7esq5NVzP76HIHoB95t4CVBP6to"}`
	eventAppID = "wx13974bf780d3dc89"
)

// pushes delivers body plain and encrypted, and returns what came of it.
func pushes(t testing.TB, body string) (plain, encrypted Event, plainErr, encryptedErr error) {
	t.Helper()
	now := strconv.FormatInt(time.Now().Unix(), 10)
	plain, plainErr = newReceiver(t, eventAppID, docToken, "").
		Open(PushQuery{Timestamp: now, Nonce: "7", Signature: signature(docToken, now, "7")}, []byte(body))
	sealed := sealEvent(t, body, eventAppID, len(body))
	outer, err := json.Marshal(map[string]string{"ToUserName": "gh", "Encrypt": sealed})
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(body, "<") {
		outer = []byte("<xml><Encrypt><![CDATA[" + sealed + "]]></Encrypt></xml>")
	}
	encrypted, encryptedErr = newReceiver(t, eventAppID, docToken, docKey).
		Open(PushQuery{Timestamp: now, Nonce: "7", MsgSignature: signature(docToken, now, "7", sealed)}, outer)
	return plain, encrypted, plainErr, encryptedErr
}

func TestEvents(t *testing.T) {
	revoke := Event{
		Type: EventAuthorizationRevoked, AppID: eventAppID, WeChatOpenID: "owAqB1nqaOYYWl0Ng484G2z5NIwU",
		CreateTime: time.Unix(1626857200, 0), Revoked: RevokedPhone,
		PluginID: "wx13974bf780d3dc80", OpenPID: "G7esq5NVzP76HIHoB95t4CVBP6to",
	}
	cancelled := Event{Type: EventAccountCancelled, AppID: eventAppID, WeChatOpenID: "o1", UnionID: "u1"}
	modified := Event{Type: EventUserInfoModified, AppID: eventAppID}
	for body, want := range map[string]Event{
		revokeXML:  revoke,
		revokeJSON: revoke,
		`{"MsgType":"event","Event":"user_authorization_cancellation","OpenID":"o1","UnionID":"u1","AppID":"` + eventAppID + `"}`:                               cancelled,
		`<?xml version="1.0" encoding="UTF-8"?><!-- c --><xml><MsgType>event</MsgType><Event>user_info_modified</Event><AppID>` + eventAppID + `</AppID></xml>`: modified,
		`{"MsgType":"text","Event":"user_authorization_cancellation","OpenID":"o1","AppID":"` + eventAppID + `"}`:                                               {AppID: eventAppID},
		`<xml><MsgType>text</MsgType><Content>a &amp; b &#65; 你</Content><a><b><c/>x</b></a></xml>`:                                                             {AppID: eventAppID},
		`{"MsgType":"event","Event":"wxa_media_check","AppID":"other","detail":[{"a":[1]}],"x":null}`:                                                           {Type: "wxa_media_check", AppID: eventAppID},
		`{}`: {AppID: eventAppID},
	} {
		plain, encrypted, err1, err2 := pushes(t, body)
		if err1 != nil || err2 != nil || plain != want || encrypted != want {
			t.Errorf("%s\nplain     %+v, %v\nencrypted %+v, %v", body, plain, err1, encrypted, err2)
		}
	}
}

func TestOddEventBodies(t *testing.T) {
	event := func(more string) string {
		return `{"MsgType":"event","Event":"user_authorization_cancellation","OpenID":"o1","AppID":"` + eventAppID + `"` + more + `}`
	}
	xml := func(more string) string {
		return `<xml><MsgType>event</MsgType><Event>user_authorization_cancellation</Event><OpenID>o1</OpenID><AppID>` + eventAppID + `</AppID>` + more + `</xml>`
	}
	if _, _, err1, err2 := pushes(t, event("")); err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	for _, body := range []string{
		"", " ", "x", "[]", "null", event("")[:20], event("") + "x", "\xef\xbb\xbf" + event(""),
		event(`,"OpenID":"o2"`), event(`," OpenID":"o2"`), event(`,"a":"` + "\xff" + `"`), event(`,"CreateTime":-1`),
		event(`,"CreateTime":"soon"`), event(`,"CreateTime":99999999999999`), event(`,"UnionID":"` + strings.Repeat("u", 129) + `"`),
		event(`,"UnionID":"u u"`), event(`,"UnionID":"u\n\u0000"`),
		strings.Replace(event(""), eventAppID, "wxother", 1), strings.Replace(event(""), `"AppID"`, `"x"`, 1),
		`{` + strings.Repeat(`"a":1,`, 40) + `"b":1}`,
		xml("<OpenID>o2</OpenID>"), xml("")[:40], xml("") + xml(""), xml("") + "x", "x" + xml(""), xml("x"), "<a></a>", "<xml>", "<xml/>x",
		"<xml></a>", "<xml><a></xml></a>",
		strings.Replace(xml(""), "<AppID>", `<AppID xmlns="urn:x">`, 1),
		`<!DOCTYPE xml [<!ENTITY a "` + eventAppID + `">]><xml><MsgType>event</MsgType></xml>`,
		xml("<Nick>&a;</Nick>"), xml("<UnionID>&lol;</UnionID>"),
		`<?xml version="1.0" encoding="gbk"?>` + xml(""),
		xml(strings.Repeat("<a>", 10) + strings.Repeat("</a>", 10)), xml(strings.Repeat("<a/>", 2000)),
		strings.Replace(xml(""), eventAppID, "wxother", 1),
	} {
		plain, encrypted, err1, err2 := pushes(t, body)
		if err1 != ErrEventBody || err2 != ErrEventBody || plain != (Event{}) || encrypted != (Event{}) {
			t.Errorf("%q\nplain     %+v, %v\nencrypted %+v, %v", body, plain, err1, encrypted, err2)
		}
	}
	r := newReceiver(t, eventAppID, docToken, "")
	if _, err := r.Open(PushQuery{}, make([]byte, MaxEventBody+1)); err != ErrEventBody {
		t.Errorf("a huge body: %v", err)
	}
}

func TestEventSignatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at(1700000000)
		body := []byte(revokeXML)
		for name, row := range map[string]struct {
			q    PushQuery
			want error
		}{
			"now":           {PushQuery{Timestamp: "1700000000", Nonce: "n1"}, nil},
			"5 minutes ago": {PushQuery{Timestamp: "1699999700", Nonce: "n1"}, nil},
			"a minute on":   {PushQuery{Timestamp: "1700000060", Nonce: "n1"}, nil},
			"older":         {PushQuery{Timestamp: "1699999699", Nonce: "n1"}, ErrEventSignature},
			"later":         {PushQuery{Timestamp: "1700000061", Nonce: "n1"}, ErrEventSignature},
			"no time":       {PushQuery{Nonce: "n1"}, ErrEventSignature},
			"sign":          {PushQuery{Timestamp: "+170000000", Nonce: "n1"}, ErrEventSignature},
			"11 digits":     {PushQuery{Timestamp: "01700000000", Nonce: "n1"}, ErrEventSignature},
			"no nonce":      {PushQuery{Timestamp: "1700000000"}, ErrEventSignature},
			"odd nonce":     {PushQuery{Timestamp: "1700000000", Nonce: "n 1"}, ErrEventSignature},
			"long nonce":    {PushQuery{Timestamp: "1700000000", Nonce: strings.Repeat("n", 65)}, ErrEventSignature},
		} {
			r := newReceiver(t, eventAppID, docToken, "")
			row.q.Signature = signature(docToken, row.q.Timestamp, row.q.Nonce)
			if _, err := r.Open(row.q, body); err != row.want {
				t.Errorf("%s: %v", name, err)
			}
			if err := r.Verify(row.q); err != row.want {
				t.Errorf("%s: Verify: %v", name, err)
			}
			row.q.Signature = signature("BBBBB", row.q.Timestamp, row.q.Nonce)
			if _, err := r.Open(row.q, body); err != ErrEventSignature {
				t.Errorf("%s with another token: %v", name, err)
			}
			row.q.Signature = ""
			if err := r.Verify(row.q); err != ErrEventSignature {
				t.Errorf("%s without a signature: %v", name, err)
			}
		}
	})
}

func TestEncryptedPushNeedsItsOwnSignature(t *testing.T) {
	r := newReceiver(t, eventAppID, docToken, docKey)
	now := strconv.FormatInt(time.Now().Unix(), 10)
	sealed := sealEvent(t, revokeJSON, eventAppID, len(revokeJSON))
	plain := signature(docToken, now, "7")
	good := PushQuery{Timestamp: now, Nonce: "7", Signature: plain, MsgSignature: signature(docToken, now, "7", sealed)}
	body := func(encrypt string) []byte { return []byte(`{"Encrypt":"` + encrypt + `"}`) }
	if e, err := r.Open(good, body(sealed)); err != nil || e.Type != EventAuthorizationRevoked {
		t.Fatalf("%+v, %v", e, err)
	}
	// What an attacker can do who has seen a plain signature.
	for name, row := range map[string]struct {
		q    PushQuery
		body []byte
		want error
	}{
		"plain body":                      {PushQuery{Timestamp: now, Nonce: "7", Signature: plain}, []byte(revokeJSON), ErrEventBody},
		"plain body, both signatures":     {PushQuery{Timestamp: now, Nonce: "7", Signature: plain, MsgSignature: plain}, []byte(revokeJSON), ErrEventBody},
		"signature for msg_signature":     {PushQuery{Timestamp: now, Nonce: "7", Signature: good.MsgSignature}, body(sealed), ErrEventSignature},
		"another nonce":                   {PushQuery{Timestamp: now, Nonce: "8", Signature: plain, MsgSignature: good.MsgSignature}, body(sealed), ErrEventSignature},
		"another body":                    {good, body(sealEvent(t, revokeJSON, eventAppID, len(revokeJSON)-1)), ErrEventSignature},
		"the same bytes, not so spelt":    {good, body(sealed[:40] + `\n` + sealed[40:]), ErrEventSignature},
		"nothing encrypted":               {good, []byte(`{"Encrypt":""}`), ErrEventBody},
		"something that is no text":       {good, []byte(`{"Encrypt":["` + sealed + `"]}`), ErrEventBody},
		"half of it moved into the nonce": {PushQuery{Timestamp: now, Nonce: "7" + sealed[:4], MsgSignature: good.MsgSignature}, body(sealed[4:]), ErrEventSignature},
	} {
		e, err := r.Open(row.q, row.body)
		if err != row.want || e != (Event{}) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	// Rightly signed, wrongly made.
	whole := len(revokeJSON)
	for name, encrypt := range map[string]string{
		"of another app":   sealEvent(t, revokeJSON, "wxother", whole),
		"of no app":        sealEvent(t, revokeJSON, "", whole),
		"app and more":     sealEvent(t, revokeJSON, eventAppID+"x", whole),
		"length too small": sealEvent(t, revokeJSON, eventAppID, whole-1),
		"length too big":   sealEvent(t, revokeJSON, eventAppID, whole+1),
		"length huge":      sealEvent(t, revokeJSON, eventAppID, 1<<32-1),
		"padding 0":        sealRaw(t, make([]byte, 64)),
		"padding 33":       sealRaw(t, bytes.Repeat([]byte{33}, 64)),
		"padding only":     sealRaw(t, bytes.Repeat([]byte{32}, 32)),
		"one block":        sealRaw(t, bytes.Repeat([]byte{16}, 16)),
		"no block":         "AAAA",
		"not base64":       "%%%%",
	} {
		q := PushQuery{Timestamp: now, Nonce: "7", MsgSignature: signature(docToken, now, "7", encrypt)}
		if e, err := r.Open(q, body(encrypt)); err != ErrEventBody || e != (Event{}) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}

func TestNewEventReceiver(t *testing.T) {
	const canary = "canarytoken"
	for _, row := range []struct{ appid, token, key string }{
		{"", canary, docKey}, {"w x", canary, docKey}, {"wx", "", docKey}, {"wx", "ab", docKey},
		{"wx", strings.Repeat("a", 33), docKey}, {"wx", canary + "-", docKey},
		{"wx", canary, docKey[1:]}, {"wx", canary, docKey + "A"}, {"wx", canary, docKey[1:] + "+"}, {"wx", canary, docKey[1:] + "\n"},
	} {
		r, err := NewEventReceiver(row.appid, secret.New(row.token), secret.New(row.key))
		if err == nil || r != nil {
			t.Errorf("%+v is taken", row)
		} else if strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), docKey[1:]) {
			t.Errorf("a secret shows: %v", err)
		}
	}
	key := "canaryAESkey" + strings.Repeat("B", 31)
	r := newReceiver(t, "wx", canary, key)
	raw, _ := base64.StdEncoding.DecodeString(key + "=")
	shown := fmt.Sprintf("%v %+v %#v", r, *r, *r)
	for _, s := range []string{canary, key, string(raw[:8]), fmt.Sprint(raw[:4])} {
		if strings.Contains(shown, strings.Trim(s, "[]")) {
			t.Errorf("%q shows in %s", s, shown)
		}
	}
}

func FuzzOpenEvent(f *testing.F) {
	for _, seed := range []string{
		revokeXML, revokeJSON, `{}`, `<xml/>`, `<xml><a>&#x41;</a><b><![CDATA[x]]></b></xml>`, `<!DOCTYPE a><xml></xml>`,
		`{"Encrypt":"` + docEncrypt + `"}`, `{"Event":{},"MsgType":"event","x":[1,{"a":"]"}]}`,
	} {
		f.Add([]byte(seed), []byte(seed))
	}
	f.Fuzz(func(t *testing.T, body, sealed []byte) {
		now := strconv.FormatInt(time.Now().Unix(), 10)
		check := func(e Event, err error) {
			switch {
			case err != nil && (err != ErrEventBody && err != ErrEventSignature || e != Event{}):
				t.Fatalf("%+v, %v", e, err)
			case err != nil:
				return
			case e.AppID != eventAppID:
				t.Fatalf("an event of %s", e.AppID)
			}
			for _, s := range []string{string(e.Type), e.WeChatOpenID, e.UnionID, e.Revoked, e.PluginID, e.OpenPID} {
				if s != "" && !ascii.Visible(s, maxID) {
					t.Fatalf("%+v", e)
				}
			}
		}
		plain := newReceiver(t, eventAppID, docToken, "")
		check(plain.Open(PushQuery{Timestamp: now, Nonce: "7", Signature: signature(docToken, now, "7")}, body))
		// The same bytes as body of an encrypted push, and as what was encrypted.
		r := newReceiver(t, eventAppID, docToken, docKey)
		check(r.Open(PushQuery{Timestamp: now, Nonce: "7", MsgSignature: signature(docToken, now, "7")}, body))
		encrypt := sealEvent(t, string(sealed), eventAppID, len(sealed))
		check(r.Open(PushQuery{Timestamp: now, Nonce: "7", MsgSignature: signature(docToken, now, "7", encrypt)}, []byte(`{"Encrypt":"`+encrypt+`"}`)))
		encrypt = sealRaw(t, append(append([]byte(nil), sealed...), make([]byte, 32-len(sealed)%32)...))
		check(r.Open(PushQuery{Timestamp: now, Nonce: "7", MsgSignature: signature(docToken, now, "7", encrypt)}, []byte(`{"Encrypt":"`+encrypt+`"}`)))
	})
}
