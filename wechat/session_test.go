package wechat

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/wxidp/wxidp/internal/secret"
)

const newCanaryKey = "canarysessionkey56789w=="

func checkSession(c *testClient) (bool, error) {
	return c.CheckSession(context.Background(), testAppID, testOpenID, secret.New(canaryKey))
}

func resetSession(c *testClient) (secret.String, error) {
	return c.ResetSession(context.Background(), testAppID, testOpenID, secret.New(canaryKey))
}

func TestRequestsAboutASession(t *testing.T) {
	var seen *http.Request
	_, c := newPhoneClient(t, func(_ int, r *http.Request) (*http.Response, error) {
		seen = r
		return response(200, `{"errcode":0,"errmsg":"ok","openid":"o+&x","session_key":"`+newCanaryKey+`"}`), nil
	})
	want := map[string]string{
		"access_token": canaryToken + "-1", "openid": "o+&x", "sig_method": "hmac_sha256",
		"signature": "75c022993d64e3ac224c1c9d6f2b4c6eb53f22f6c7aa6be94428577d11d12fd5",
	}
	check := func(path string) {
		t.Helper()
		query := seen.URL.Query()
		if seen.Method != "GET" || seen.URL.Path != path || len(query) != len(want) || seen.GetBody != nil {
			t.Errorf("%s %s?%s", seen.Method, seen.URL.Path, seen.URL.RawQuery)
		}
		for name, value := range want {
			if got := query[name]; len(got) != 1 || got[0] != value {
				t.Errorf("%s is %q, want one %q", name, got, value)
			}
		}
	}
	if valid, err := c.CheckSession(t.Context(), testAppID, "o+&x", secret.New(madeKey)); err != nil || !valid {
		t.Errorf("%v, %v", valid, err)
	}
	check("/wxa/checksession")
	key, err := c.ResetSession(t.Context(), testAppID, "o+&x", secret.New(madeKey))
	if err != nil || key.Reveal() != newCanaryKey {
		t.Errorf("ResetSession: %v", err)
	}
	check("/wxa/resetusersessionkey")
	noCanary(t, c, nil)
}

func TestSessionErrcodes(t *testing.T) {
	for code, row := range map[int]struct {
		kind    Kind
		invalid bool // CheckSession answers false and no error
	}{
		87009: {SessionExpired, true}, 87007: {SessionExpired, true},
		87008: {Unknown, false}, 40003: {Unknown, false}, 40097: {Unknown, false},
		45011: {Quota, false}, -1: {Unavailable, false}, 40013: {Misconfigured, false},
	} {
		body := fmt.Sprintf(`{"errcode":%d,"errmsg":"%s rid: %s"}`, code, canaryErrmsg, testRID)
		_, c := newPhoneClient(t, always(body))
		valid, err := checkSession(c)
		switch {
		case valid:
			t.Errorf("%d: valid", code)
		case row.invalid && err != nil:
			t.Errorf("%d: %v", code, err)
		case !row.invalid:
			if e := asError(t, c, err); e.Kind != row.kind || e.Code != code || e.API != "checksession" {
				t.Errorf("%d: %+v", code, e)
			}
		}
		if o := c.outcomes(); o[1] != fmt.Sprintf("checksession %d", code) {
			t.Errorf("observed %q", o)
		}
		key, err := resetSession(c)
		if e := asError(t, c, err); !key.IsZero() || e.Kind != row.kind || e.Code != code || e.API != "resetusersessionkey" || e.RID != testRID {
			t.Errorf("%d: %+v", code, e)
		}
	}
}

func TestOddAnswersAboutASession(t *testing.T) {
	for body, reason := range map[string]string{
		`{}`:                            "bad_answer", // errcode 0 is what says yes
		`{"errmsg":"ok"}`:               "bad_answer",
		`{"errcode":null}`:              "bad_answer",
		`<html>`:                        "not_json",
		`{"errcode":0,"errcode":87009}`: "bad_answer",
	} {
		_, c := newPhoneClient(t, always(body))
		valid, err := checkSession(c)
		if e := asError(t, c, err); valid || e.Reason != reason || e.Kind != Unavailable {
			t.Errorf("%s: %v, %+v", body, valid, e)
		}
	}
	for body, reason := range map[string]string{
		`{"errcode":0,"errmsg":"ok"}`:                                                  "no_openid",
		`{"errcode":0,"openid":"` + testOpenID + `"}`:                                  "no_session_key",
		`{"errcode":0,"openid":"` + testOpenID + `","session_key":""}`:                 "bad_answer",
		`{"errcode":0,"openid":"oanother","session_key":"` + newCanaryKey + `"}`:       "bad_answer",
		`{"errcode":0,"openid":"` + testOpenID + `","session_key":{"a":1}}`:            "bad_answer",
		`{"errcode":0,"openid":["` + testOpenID + `"],"session_key":"` + canaryKey[1:]: "not_json",
	} {
		_, c := newPhoneClient(t, always(body))
		key, err := resetSession(c)
		if e := asError(t, c, err); !key.IsZero() || e.Reason != reason || e.Kind != Unavailable || !e.Sent {
			t.Errorf("%s: %+v", body, e)
		}
	}
}

func TestBadSessionCallsAreNotSent(t *testing.T) {
	s, c := newPhoneClient(t, always(`{"errcode":0}`))
	key := secret.New(canaryKey)
	for _, row := range []struct {
		appid, openid, reason string
		key                   secret.String
	}{
		{"wxnone", testOpenID, "unknown_app", key},
		{testAppID, "", "openid_format", key},
		{testAppID, "o\n", "openid_format", key},
		{testAppID, testOpenID, "session_key_format", secret.String{}},
		{testAppID, testOpenID, "session_key_format", secret.New("a b")},
	} {
		valid, err := c.CheckSession(t.Context(), row.appid, row.openid, row.key)
		if e := asError(t, c, err); valid || e.Kind != Misconfigured || e.Reason != row.reason || e.Sent {
			t.Errorf("%+v", e)
		}
		_, err = c.ResetSession(t.Context(), row.appid, row.openid, row.key)
		if e := asError(t, c, err); e.Kind != Misconfigured || e.Reason != row.reason || e.Sent {
			t.Errorf("%+v", e)
		}
	}
	if len(s.calls) != 0 {
		t.Errorf("%d calls", len(s.calls))
	}
}

func TestResetIsNotRepeated(t *testing.T) {
	s, c := newPhoneClient(t, func(int, *http.Request) (*http.Response, error) { return response(502, ""), nil })
	_, err := resetSession(c)
	if e := asError(t, c, err); !e.Sent || e.Reason != "http_5xx" || len(s.calls) != 1 {
		t.Errorf("%+v after %d calls", e, len(s.calls))
	}
	if strings.Contains(c.logged.String(), "signature=") {
		t.Error("the query is logged")
	}
}

func FuzzParseReset(f *testing.F) {
	for _, seed := range []string{
		`{"errcode":0,"errmsg":"ok","openid":"o","session_key":"k\/+=="}`, `{"errcode":87009}`, `{"openid":"o"}`, `{}`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		key, e := parseReset(body, "o")
		if e == nil {
			var same struct {
				OpenID     string `json:"openid"`
				SessionKey string `json:"session_key"`
			}
			var members map[string]json.RawMessage
			if json.Unmarshal(body, &members) != nil || json.Unmarshal(members["openid"], &same.OpenID) != nil ||
				json.Unmarshal(members["session_key"], &same.SessionKey) != nil || same.OpenID != "o" || same.SessionKey != key.Reveal() {
				t.Fatalf("taken: %q", body)
			}
		}
		if done := parseDone(body); done == nil && !json.Valid(body) {
			t.Fatalf("taken: %q", body)
		}
	})
}
