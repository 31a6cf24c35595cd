package wechat

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/wxidp/wxidp/internal/ascii"
)

func TestThreat77OddAnswers(t *testing.T) {
	long := strings.Repeat("o", 129)
	rows := []struct{ name, body, reason string }{
		{"nothing", ``, "not_json"},
		{"html", `<html></html>`, "not_json"},
		{"bom", "\xef\xbb\xbf" + goodAnswer, "not_json"},
		{"truncated", goodAnswer[:len(goodAnswer)-3], "not_json"},
		{"trailing", goodAnswer + `x`, "not_json"},
		{"two objects", goodAnswer + goodAnswer, "not_json"},
		{"array", `[` + goodAnswer + `]`, "not_json"},
		{"null", `null`, "not_json"},
		{"string", `"ok"`, "not_json"},
		{"not utf-8", `{"session_key":"k","openid":"o","x":"` + "\xff" + `"}`, "not_json"},
		{"empty object", `{}`, "no_openid"},
		{"errcode 0 alone", `{"errcode":0,"errmsg":"ok"}`, "no_openid"},
		{"other case", `{"session_key":"k","OpenID":"o"}`, "no_openid"},
		{"openid empty", `{"session_key":"k","openid":""}`, "bad_answer"},
		{"openid array", `{"session_key":"k","openid":["o"]}`, "bad_answer"},
		{"openid object", `{"session_key":"k","openid":{"openid":"o"}}`, "bad_answer"},
		{"openid number", `{"session_key":"k","openid":7}`, "bad_answer"},
		{"openid null", `{"session_key":"k","openid":null}`, "bad_answer"},
		{"openid long", `{"session_key":"k","openid":"` + long + `"}`, "bad_answer"},
		{"openid with a space", `{"session_key":"k","openid":"o o"}`, "bad_answer"},
		{"openid with an escape", `{"session_key":"k","openid":"o\u0000"}`, "bad_answer"},
		{"no key", `{"openid":"o"}`, "no_session_key"},
		{"key empty", `{"openid":"o","session_key":""}`, "bad_answer"},
		{"key number", `{"openid":"o","session_key":1}`, "bad_answer"},
		{"unionid number", `{"openid":"o","session_key":"k","unionid":1}`, "bad_answer"},
		{"unionid null", `{"openid":"o","session_key":"k","unionid":null}`, "bad_answer"},
		{"unionid long", `{"openid":"o","session_key":"k","unionid":"` + long + `"}`, "bad_answer"},
		{"openid twice", `{"openid":"o","session_key":"k","openid":"p"}`, "bad_answer"},
		{"openid twice, escaped", `{"openid":"o","session_key":"k","open\u0069d":"p"}`, "bad_answer"},
		{"foreign member twice", `{"openid":"o","session_key":"k","a":1,"a":1}`, "bad_answer"},
		{"errcode twice", `{"errcode":0,"errcode":40029}`, "bad_answer"},
		{"errcode null", `{"errcode":null,"openid":"o","session_key":"k"}`, "bad_answer"},
		{"errcode float", `{"errcode":40029.0}`, "bad_answer"},
		{"errcode exponent", `{"errcode":4e4}`, "bad_answer"},
		{"errcode word", `{"errcode":"bad"}`, "bad_answer"},
		{"errcode array", `{"errcode":[40029]}`, "bad_answer"},
		{"errcode huge", `{"errcode":99999999999}`, "bad_answer"},
		{"many members", `{` + strings.Repeat(`"a":1,`, 40) + `"b":1}`, "bad_answer"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s, e := parseSession([]byte(row.body))
			if e == nil || e.Kind != Unavailable || e.Reason != row.reason || s.WeChatOpenID != "" {
				t.Errorf("%+v, %+v; want reason %s", s, e, row.reason)
			}
		})
	}
}

func TestGoodAnswers(t *testing.T) {
	for name, body := range map[string]string{
		"plain":       `{"session_key":"k/+==","openid":"o","unionid":"u"}`,
		"white space": " {\n\t\"session_key\" : \"k/+==\" ,\r\n \"openid\":\"o\" , \"unionid\":\"u\"} \n",
		"errcode 0":   `{"errcode":0,"errmsg":"ok","openid":"o","session_key":"k/+==","unionid":"u"}`,
		"escapes":     `{"session_key":"k\/+==","\u006fpenid":"\u006f","unionid":"u","expires_in":7200}`,
		"nested":      `{"x":[1,{"openid":"p"},"]}"],"y":{"session_key":"\"}"},"session_key":"k/+==","openid":"o","unionid":"u","z":[]}`,
	} {
		s, e := parseSession([]byte(body))
		if e != nil || s.WeChatOpenID != "o" || s.SessionKey.Reveal() != "k/+==" || s.UnionID != "u" {
			t.Errorf("%s: %+v, %v", name, s, e)
		}
	}
	if s, e := parseSession([]byte(`{"session_key":"k","openid":"o","unionid":""}`)); e != nil || s.UnionID != "" {
		t.Errorf("an empty unionid: %+v, %v", s, e)
	}
}

func TestParseToken(t *testing.T) {
	token, life, e := parseToken([]byte(`{"access_token":"90_x","expires_in":7200}`))
	if e != nil || token.Reveal() != "90_x" || life != 2*time.Hour {
		t.Errorf("%v, %v", life, e)
	}
	for body, reason := range map[string]string{
		`{"expires_in":7200}`:                                                     "no_token",
		`{"access_token":"x"}`:                                                    "bad_answer",
		`{"access_token":"","expires_in":7200}`:                                   "bad_answer",
		`{"access_token":"x","expires_in":0}`:                                     "bad_answer",
		`{"access_token":"x","expires_in":-5}`:                                    "bad_answer",
		`{"access_token":"x","expires_in":1e3}`:                                   "bad_answer",
		`{"access_token":"x","expires_in":99999999}`:                              "bad_answer",
		`{"access_token":"` + strings.Repeat("x", 2049) + `","expires_in":7200}`:  "bad_answer",
		`{"access_token":"x","access_token":"y","expires_in":7200}`:               "bad_answer",
		`{"errcode":40125,"errmsg":"invalid appsecret rid: ` + testRID + `"}`:     "errcode",
		`{"access_token":"x","expires_in":7200,"errcode":40001,"errmsg":"other"}`: "errcode",
	} {
		if _, _, e := parseToken([]byte(body)); e == nil || e.Reason != reason {
			t.Errorf("%s: %+v, want %s", body, e, reason)
		}
	}
}

func TestRIDOf(t *testing.T) {
	for text, want := range map[string]string{
		"invalid code, rid: " + testRID:                                testRID,
		"invalid code hint: [WiEBWV0sf-Te2URA] rid: " + testRID:        testRID,
		"code blocked, hints: [ req_id: qEjdmsNre-EYNDhA ]":            "",
		"rid: 623EA70A-74b9b592-3e3d489a":                              "",
		"rid: " + testRID + ` injected","event":"login.ok`:             testRID,
		"rid: 623ea70a-74b9b592 and nothing else, rid: x, rid:" + "  ": "",
	} {
		if got := ridOf(text); got != want {
			t.Errorf("ridOf(%q) = %q, want %q", text, got, want)
		}
	}
}

func FuzzParseSession(f *testing.F) {
	for _, seed := range []string{
		goodAnswer, `{}`, `{"errcode":40029,"errmsg":"invalid code, rid: ` + testRID + `"}`, `{"errcode":"-1"}`,
		`{"a":{"b":[1,"\"]"]},"openid":"o\/","session_key":"k","unionid":""}`, "\xef\xbb\xbf{}", `{"a":1,"a":2}`, `[]`, ` {"x":-1.5e3} `,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s, e := parseSession(body)
		if e != nil {
			if s.WeChatOpenID != "" || s.UnionID != "" || !s.SessionKey.IsZero() {
				t.Fatal("an error and a session")
			}
			return
		}
		// What was taken must be what encoding/json sees, in clean UTF-8.
		var same struct {
			OpenID     string `json:"openid"`
			UnionID    string `json:"unionid"`
			SessionKey string `json:"session_key"`
		}
		var members map[string]json.RawMessage
		if !utf8.Valid(body) || json.Unmarshal(body, &members) != nil {
			t.Fatalf("taken: %q", body)
		}
		for name, into := range map[string]*string{"openid": &same.OpenID, "unionid": &same.UnionID, "session_key": &same.SessionKey} {
			if raw, ok := members[name]; ok && json.Unmarshal(raw, into) != nil {
				t.Fatalf("%s of a wrong type is taken: %q", name, body)
			}
		}
		if s.WeChatOpenID != same.OpenID || s.UnionID != same.UnionID || s.SessionKey.Reveal() != same.SessionKey {
			t.Fatalf("%q is read as %q, %q", body, s.WeChatOpenID, s.UnionID)
		}
		if !ascii.Visible(s.WeChatOpenID, maxID) || s.SessionKey.IsZero() {
			t.Fatalf("%q gives openid %q", body, s.WeChatOpenID)
		}
	})
}

func FuzzParseToken(f *testing.F) {
	for _, seed := range []string{
		testTokenBody, `{"errcode":45009,"errmsg":"x"}`, `{"access_token":"x","expires_in":"7200"}`, `{"access_token":["x"],"expires_in":1}`, `null`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		token, life, e := parseToken(body)
		if e != nil {
			return
		}
		var members map[string]json.RawMessage
		var want string
		if json.Unmarshal(body, &members) != nil || json.Unmarshal(members["access_token"], &want) != nil || want != token.Reveal() {
			t.Fatalf("taken: %q", body)
		}
		if life <= 0 || life > maxTokenLife || !ascii.Visible(want, maxToken) {
			t.Fatalf("%q gives a life of %v", body, life)
		}
	})
}
