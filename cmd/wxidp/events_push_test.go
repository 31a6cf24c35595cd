package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/wechat/simulator"
)

// rawPush is a push made here, so that it can be wrong in every way.
type rawPush struct {
	appid, token, key, body string
	at                      time.Time
	nonce                   string
}

func (p rawPush) query(parts ...string) url.Values {
	at := strconv.FormatInt(p.at.Unix(), 10)
	sum := func(parts ...string) string {
		slices.Sort(parts)
		sum := sha1.Sum([]byte(strings.Join(parts, "")))
		return hex.EncodeToString(sum[:])
	}
	q := pairs("timestamp", at, "nonce", p.nonce, "signature", sum(p.token, at, p.nonce))
	if len(parts) > 0 {
		q.Set("encrypt_type", "aes")
		q.Set("msg_signature", sum(append(parts, p.token, at, p.nonce)...))
	}
	return q
}

// sealed is the encrypted body, of an app that may be another than the address's.
func (p rawPush) sealed(t testing.TB) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(p.key + "=")
	if err != nil {
		t.Fatal(err)
	}
	b := append([]byte("0123456789abcdef"), binary.BigEndian.AppendUint32(nil, uint32(len(p.body)))...)
	b = append(append(b, p.body...), p.appid...)
	n := 32 - len(b)%32
	b = append(b, bytes.Repeat([]byte{byte(n)}, n)...)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	cipher.NewCBCEncrypter(block, key[:16]).CryptBlocks(b, b)
	return base64.StdEncoding.EncodeToString(b)
}

func (p rawPush) send(s *testServer, q url.Values, body string) (answer, error) {
	return s.try(http.MethodPost, eventsURL(s, testAppID)+"?"+q.Encode(), nil, jsonBody(body), phone())
}

func jsonBody(body string) func(*http.Request) {
	return func(r *http.Request) {
		fresh, err := http.NewRequest(r.Method, r.URL.String(), strings.NewReader(body))
		if err != nil {
			return
		}
		r.Body, r.ContentLength, r.GetBody = fresh.Body, fresh.ContentLength, fresh.GetBody
		r.Header.Set("Content-Type", "application/json")
	}
}

func cancellation(s *testServer, appid, user string) string {
	return fmt.Sprintf(`{"ToUserName":"gh_1","FromUserName":"o1","CreateTime":%d,"MsgType":"event","Event":"user_authorization_cancellation","OpenID":%q,"AppID":%q}`,
		time.Now().Unix(), s.Sim.OpenID(testAppID, user), appid)
}

// TestEventsRefused: nobody but WeChat, and nothing but what it encrypted for
// this app just now, ends or erases anything.
func TestEventsRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withPush())
	token := signIn(s, "alice").str("access_token")
	good := rawPush{appid: testAppID, token: pushToken, key: pushKey, body: cancellation(s, testAppID, "alice"), at: time.Now(), nonce: "123456"}
	with := func(edit func(*rawPush)) rawPush { p := good; edit(&p); return p }
	sealed := good.sealed(t)
	wrap := func(encrypt string) string { return `{"ToUserName":"gh_1","Encrypt":"` + encrypt + `"}` }
	changed := []byte(sealed)
	changed[100] ^= 'A' ^ 'B'
	for name, c := range map[string]struct {
		query  url.Values
		body   string
		status int
	}{
		"unsigned":          {url.Values{}, wrap(sealed), 403},
		"another token":     {with(func(p *rawPush) { p.token = pushToken2 }).query(sealed), wrap(sealed), 403},
		"only the query":    {good.query(), wrap(sealed), 403},
		"another body":      {good.query("x"), wrap(sealed), 403},
		"changed body":      {good.query(sealed), wrap(string(changed)), 403},
		"old":               {with(func(p *rawPush) { p.at = p.at.Add(-6 * time.Minute) }).query(sealed), wrap(sealed), 403},
		"of the future":     {with(func(p *rawPush) { p.at = p.at.Add(3 * time.Minute) }).query(sealed), wrap(sealed), 403},
		"plain":             {good.query(), good.body, 400},
		"plain and signed":  {good.query(good.body), good.body, 400},
		"both":              {good.query(), strings.TrimSuffix(good.body, "}") + `,"Encrypt":""}`, 400},
		"another app's":     {good.query(with(func(p *rawPush) { p.appid = testApp2 }).sealed(t)), wrap(with(func(p *rawPush) { p.appid = testApp2 }).sealed(t)), 400},
		"another app's key": {good.query(with(func(p *rawPush) { p.key = pushKey2 }).sealed(t)), wrap(with(func(p *rawPush) { p.key = pushKey2 }).sealed(t)), 400},
		"another app inside": {good.query(with(func(p *rawPush) { p.body = cancellation(s, testApp2, "alice") }).sealed(t)),
			wrap(with(func(p *rawPush) { p.body = cancellation(s, testApp2, "alice") }).sealed(t)), 400},
		"empty":     {good.query(sealed), "", 400},
		"not JSON":  {good.query(sealed), "<", 400},
		"too large": {good.query(sealed), wrap(strings.Repeat("A", 70_000)), 400},
	} {
		out, err := good.send(s, c.query, c.body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		code := map[int]string{403: "access_denied", 400: "invalid_request"}[c.status]
		if refused(t, out, c.status, code); t.Failed() {
			t.Fatal(name)
		}
		if line := eventOf(s, out, "wechat.event_refused"); line["appid"] != testAppID {
			t.Errorf("%s: log line %v", name, line)
		}
	}
	// Twice the same parameter, and the address of the other app.
	twice := good.query(sealed)
	twice.Add("nonce", "123456")
	if out, err := good.send(s, twice, wrap(sealed)); err != nil || out.Status != 403 {
		t.Errorf("a parameter twice: %v, %v", out, err)
	}
	if got := event(s, "alice", "user_authorization_cancellation", "", func(e *simulator.Event) { e.URL = eventsURL(s, testApp2) }); got.Status != 403 {
		t.Errorf("pushed to another app's address: %+v", got)
	}
	if !s.Active(token) || len(s.Logs.Events("wechat.event")) != 0 {
		t.Fatal("a push that was refused had an effect")
	}
	for _, appid := range []string{"wxnobody", "..%2f", "%00", strings.Repeat("x", 5000)} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if out := s.Do(method, eventsURL(s, appid)+"?"+good.query(sealed).Encode(), nil, phone()); out.Status != 404 {
				t.Errorf("%s of app %.20s: %v", method, appid, out)
			}
		}
	}
	if out, err := good.send(s, good.query(sealed), wrap(sealed)); err != nil || out.Status != 200 || string(out.Body) != "success" ||
		out.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("the good push: %v, %v", out, err)
	}
	if s.Active(token) {
		t.Error("the good push had no effect")
	}
	if strings.Contains(s.Logs.String(), s.Sim.OpenID(testAppID, "alice")) || strings.Contains(s.Logs.String(), pushToken) {
		t.Error("the log holds an openid or the token")
	}
}

// TestEventReplayed: a push that was done is acknowledged and not done again.
func TestEventReplayed(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withPush())
	signIn(s, "alice")
	push := rawPush{appid: testAppID, token: pushToken, key: pushKey, body: cancellation(s, testAppID, "alice"), at: time.Now(), nonce: "n1"}
	sealed := push.sealed(t)
	send := func() {
		t.Helper()
		if out, err := push.send(s, push.query(sealed), `{"Encrypt":"`+sealed+`"}`); err != nil || out.Status != 200 || string(out.Body) != "success" {
			t.Fatal(out, err)
		}
	}
	send()
	token := signIn(s, "alice").str("access_token")
	send()
	if !s.Active(token) {
		t.Error("a replayed push ended a later sign-in")
	}
	lines := s.Logs.Events("wechat.event")
	if len(lines) != 2 || lines[0]["action"] != "user_erased" || lines[1]["action"] != "repeated" {
		t.Errorf("log lines %v", lines)
	}
	push.nonce = "n2"
	send()
	if s.Active(token) {
		t.Error("another push had no effect")
	}
}

// TestEventTrial: the request by which the console tries the address.
func TestEventTrial(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withPush())
	try := func(token, echo string, at time.Time) answer {
		q := rawPush{token: token, at: at, nonce: "1514711492"}.query()
		q.Set("echostr", echo)
		return s.Do(http.MethodGet, eventsURL(s, testAppID)+"?"+q.Encode(), nil, phone())
	}
	out := try(pushToken, "4375120948345356249", time.Now())
	if out.Status != 200 || string(out.Body) != "4375120948345356249" || out.Header.Get("Content-Type") != "text/plain; charset=utf-8" ||
		out.Header.Get("X-Content-Type-Options") != "nosniff" || out.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v %v", out, out.Header)
	}
	refused(t, try(pushToken2, "1", time.Now()), 403, "access_denied")
	refused(t, try(pushToken, "1", time.Now().Add(-6*time.Minute)), 403, "access_denied")
	for _, echo := range []string{"", "a b", "a\nb", "\x00", "微信", strings.Repeat("1", 300)} {
		refused(t, try(pushToken, echo, time.Now()), 400, "invalid_request")
	}
}
