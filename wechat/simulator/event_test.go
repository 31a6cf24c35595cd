package simulator

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// received is a push as its receiver saw it.
type received struct {
	query url.Values
	kind  string
	body  string
}

// receiver answers pushes with 200 success and keeps the last one.
func receiver(t *testing.T) (address string, last *received) {
	t.Helper()
	last = &received{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != "POST" {
			t.Errorf("%s, %v", r.Method, err)
		}
		*last = received{r.URL.Query(), r.Header.Get("Content-Type"), string(body)}
		_, _ = io.WriteString(w, "success")
	}))
	t.Cleanup(server.Close)
	return server.URL + "/push?app=1", last
}

const testAESKey = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"

func TestPlainEvent(t *testing.T) {
	s := newSimulator(t)
	address, last := receiver(t)
	got, err := s.SendEvent(t.Context(), Event{
		URL: address, AppID: testApp, User: "ann", Type: "user_authorization_revoke", RevokeInfo: "8", Token: "tokenA1",
	})
	if err != nil || got != (Receipt{200, "success"}) {
		t.Fatalf("%+v, %v", got, err)
	}
	q := last.query
	if q.Get("app") != "1" || q.Get("signature") != sortedSHA1("tokenA1", q.Get("timestamp"), q.Get("nonce")) || q.Has("msg_signature") {
		t.Errorf("query %v", q)
	}
	var in struct {
		ToUserName, FromUserName, MsgType, Event, OpenID, AppID, RevokeInfo string
		CreateTime                                                          int64
	}
	if err := json.Unmarshal([]byte(last.body), &in); err != nil {
		t.Fatalf("%s: %v", last.body, err)
	}
	if in.OpenID != s.OpenID(testApp, "ann") || in.FromUserName == in.OpenID || in.AppID != testApp || in.Event != "user_authorization_revoke" ||
		in.MsgType != "event" || in.RevokeInfo != "8" || !strings.HasPrefix(in.ToUserName, "gh_") {
		t.Error(last.body)
	}
	if age := time.Since(time.Unix(in.CreateTime, 0)); age < -time.Second || age > time.Minute {
		t.Errorf("sent %v ago", age)
	}
}

func TestEncryptedEvent(t *testing.T) {
	s := newSimulator(t)
	address, last := receiver(t)
	for _, asXML := range []bool{false, true} {
		if _, err := s.SendEvent(t.Context(), Event{
			URL: address, AppID: testApp, User: "ann", Type: "user_info_modified", Token: "tokenA1",
			EncodingAESKey: testAESKey, XML: asXML, Age: 10 * time.Minute,
		}); err != nil {
			t.Fatal(err)
		}
		var outer, inner struct{ Encrypt, Event, OpenID string }
		read, want := json.Unmarshal, "application/json"
		if asXML {
			read, want = xml.Unmarshal, "text/xml"
		}
		if err := read([]byte(last.body), &outer); err != nil || outer.Encrypt == "" || last.kind != want {
			t.Fatalf("%s %s: %v", last.kind, last.body, err)
		}
		q := last.query
		if q.Get("encrypt_type") != "aes" || q.Get("msg_signature") != sortedSHA1("tokenA1", q.Get("timestamp"), q.Get("nonce"), outer.Encrypt) {
			t.Errorf("query %v", q)
		}
		key, err := base64.StdEncoding.DecodeString(testAESKey + "=")
		if err != nil {
			t.Fatal(err)
		}
		plain := unseal(t, key, key[:16], outer.Encrypt)
		n := binary.BigEndian.Uint32(plain[16:20])
		if tail := string(plain[20+n:]); tail != testApp {
			t.Errorf("it ends with %q", tail)
		}
		if err := read(plain[20:20+n], &inner); err != nil || inner.Event != "user_info_modified" || inner.OpenID != s.OpenID(testApp, "ann") {
			t.Errorf("%s: %v", plain[20:20+n], err)
		}
	}
}

func TestControlEvent(t *testing.T) {
	s := newSimulator(t)
	address, last := receiver(t)
	form := func(change ...string) string {
		v := url.Values{"url": {address}, "appid": {testApp}, "user": {"ann"}, "event": {"user_authorization_cancellation"}, "token": {"tokenA1"}}
		for i := 0; i < len(change); i += 2 {
			v.Set(change[i], change[i+1])
		}
		return v.Encode()
	}
	for _, body := range []string{form(), form("data_format", "xml"), form("encoding_aes_key", testAESKey), form("data_format", "json", "age", "1h")} {
		if w := post(s, "/control/event", body); w.Code != 200 || w.Body.String() != `{"status":200,"body":"success"}`+"\n" || last.body == "" {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	if got := post(s, "/control/event?format=text", form()).Body.String(); got != "200\n" {
		t.Error(got)
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	for body, says := range map[string]string{
		form("url", ""):                         "loopback",
		form("url", "https://127.0.0.1/"):       "loopback",
		form("url", "http://192.0.2.1/"):        "loopback",
		form("url", "http://example.com/"):      "loopback",
		form("url", "http://127.0.0.1.nip.io/"): "loopback",
		form("url", "http://a:b@127.0.0.1/"):    "loopback",
		form("url", "http://0.0.0.0:1/"):        "loopback",
		form("url", "file:///etc/passwd"):       "loopback",
		form("url", closed.URL):                 "did not answer",
		form("appid", "wxnone"):                 "no app",
		form("user", ""):                        "user is missing",
		form("event", ""):                       "event is",
		form("event", "<x>"):                    "event is",
		form("revoke_info", "]]>"):              "revoke_info is",
		form("token", "a-b"):                    "token is",
		form("token", ""):                       "token is",
		form("encoding_aes_key", "short"):       "encoding_aes_key is",
		form("data_format", "yaml"):             "data_format is",
		form("openid", "o"):                     "not known here",
	} {
		if w := post(s, "/control/event", body); w.Code != 400 || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
}

func TestAnswersToAnEvent(t *testing.T) {
	s := newSimulator(t)
	var elsewhere int
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer target.Close()
	answers := map[string]func(w http.ResponseWriter, r *http.Request){
		"/403":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) },
		"/redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target.URL, http.StatusFound) },
		"/long":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("你", 100_000)) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer := answers[r.URL.Path]; answer != nil {
			answer(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer server.Close()
	e := Event{AppID: testApp, User: "ann", Type: "user_info_modified", Token: "tokenA1"}
	for path, want := range map[string]int{"/403": 403, "/redirect": 302, "/long": 200} {
		e.URL = server.URL + path
		got, err := s.SendEvent(t.Context(), e)
		if err != nil || got.Status != want || len(got.Body) > 256 {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
	if elsewhere != 0 {
		t.Error("a redirect was followed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	e.URL = server.URL + "/hang?secret=1"
	if _, err := s.SendEvent(ctx, e); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a receiver that hangs: %v", err)
	}
}
