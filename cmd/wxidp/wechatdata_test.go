package main

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/wechat/simulator"
)

// TestWeChatData: what a backend is there for.
func TestWeChatData(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withDataClients(), withDataLimit(1000))
	user := signIn(s, "alice")
	token := user.str("access_token")
	data := openData(s, "alice", simulator.OpenDataUserInfo, 0)

	out := decrypt(s, token, data)
	object, _ := out.JSON["data"].(map[string]any)
	if out.Status != 200 || object["openId"] != s.Sim.OpenID(testAppID, "alice") || object["nickName"] != "微信用户" || len(out.JSON) != 1 ||
		out.Header.Get("Cache-Control") != "no-store" || out.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("decrypt: %v %v", out, out.Header)
	}
	if line := eventOf(s, out, "wechat_data.used"); line["client_id"] != "data-api" || line["operation"] != "decrypt" || line["result"] != "ok" ||
		line["sub"] != claims(t, token)["sub"] {
		t.Errorf("log line %v", line)
	}
	number := openData(s, "alice", simulator.OpenDataPhone, 9*time.Minute)
	country, pure := s.Sim.PhoneNumber("alice")
	object, _ = decrypt(s, token, number).JSON["data"].(map[string]any)
	if object["purePhoneNumber"] != pure || object["countryCode"] != country {
		t.Errorf("phone: %v", object)
	}
	verify := func(rawData, signature string) string {
		t.Helper()
		out := useData(s, "verify-signature", token, "rawData", rawData, "signature", signature)
		return fmt.Sprintf("%d %s", out.Status, bytes.TrimSpace(out.Body))
	}
	if got := verify(data.RawData, data.Signature); got != `200 {"valid":true}` {
		t.Errorf("verify-signature: %s", got)
	}
	for _, forged := range [][2]string{
		{data.RawData + " ", data.Signature}, {data.RawData, strings.ToUpper(data.Signature)}, {data.RawData, "x"}, {"{}", data.Signature},
	} {
		if got := verify(forged[0], forged[1]); got != `200 {"valid":false}` {
			t.Errorf("verify-signature of a forgery: %s", got)
		}
	}
	if out := useData(s, "check-session", token); string(out.Body) != `{"valid":true}`+"\n" {
		t.Errorf("check-session: %v", out)
	}

	before, _ := custody(s, "alice")
	if out := useData(s, "reset-session", token); string(out.Body) != `{"reset":true}`+"\n" {
		t.Fatalf("reset-session: %v", out)
	}
	after, _ := custody(s, "alice")
	if len(before) != 1 || len(after) != 2 || after[1] != before[0] || after[0] == before[0] {
		t.Errorf("%d keys before, %d after the reset", len(before), len(after))
	}
	// What was encrypted before is still readable, and so is what comes now.
	for name, data := range map[string]simulator.OpenData{"old": data, "new": openData(s, "alice", simulator.OpenDataUserInfo, 0)} {
		if out := decrypt(s, token, data); out.Status != 200 {
			t.Errorf("%s data after a reset: %v", name, out)
		}
		if got := verify(data.RawData, data.Signature); got != `200 {"valid":true}` {
			t.Errorf("%s signature after a reset: %s", name, got)
		}
	}
	if out := useData(s, "check-session", token); string(out.Body) != `{"valid":true}`+"\n" {
		t.Errorf("check-session after a reset: %v", out)
	}
}

// failures of decrypt that must not be told apart.
func badOpenData(t *testing.T, s *testServer, user, key string) map[string]simulator.OpenData {
	t.Helper()
	now, openID := time.Now().Unix(), s.Sim.OpenID(testAppID, user)
	mark := func(at int64, appid string) string {
		return fmt.Sprintf(`"watermark":{"timestamp":%d,"appid":%q}`, at, appid)
	}
	good := openData(s, user, simulator.OpenDataUserInfo, 0)
	flipped := []byte(good.EncryptedData)
	flipped[4] ^= 'A' ^ 'B'
	return map[string]simulator.OpenData{
		"bad padding":       craft(t, key, strings.Repeat("x", 16), bytes.Repeat([]byte{17}, 16)),
		"padding of zero":   craft(t, key, strings.Repeat("x", 16), make([]byte, 16)),
		"uneven padding":    craft(t, key, strings.Repeat("x", 13), []byte{3, 2, 3}),
		"not JSON":          craft(t, key, `{"openId":`, nil),
		"not an object":     craft(t, key, `["`+openID+`"]`, nil),
		"no watermark":      craft(t, key, `{"openId":"`+openID+`"}`, nil),
		"another app":       craft(t, key, `{"openId":"`+openID+`",`+mark(now, testApp2)+`}`, nil),
		"stale":             openData(s, user, simulator.OpenDataUserInfo, 11*time.Minute),
		"future":            craft(t, key, `{"openId":"`+openID+`",`+mark(now+120, testAppID)+`}`, nil),
		"another openid":    craft(t, key, `{"openId":"`+s.Sim.OpenID(testAppID, "bob")+`",`+mark(now, testAppID)+`}`, nil),
		"openid twice":      craft(t, key, `{"openId":"`+s.Sim.OpenID(testAppID, "bob")+`","openId":"`+openID+`",`+mark(now, testAppID)+`}`, nil),
		"openid in capital": craft(t, key, `{"openId":"`+openID+`","OPENID":"x",`+mark(now, testAppID)+`}`, nil),
		"OpenID before":     craft(t, key, `{"OpenID":"x","openId":"`+openID+`",`+mark(now, testAppID)+`}`, nil),
		"openid no string":  craft(t, key, `{"openId":["`+openID+`"],`+mark(now, testAppID)+`}`, nil),
		"another's key":     craft(t, craftedIV, `{"openId":"`+openID+`",`+mark(now, testAppID)+`}`, nil),
		"changed":           {EncryptedData: string(flipped), IV: good.IV},
		"another iv":        {EncryptedData: good.EncryptedData, IV: craftedIV},
		"short iv":          {EncryptedData: good.EncryptedData, IV: "AAAA"},
		"no base64":         {EncryptedData: "?", IV: "?"},
		"space for plus":    {EncryptedData: strings.Repeat(" ", 64), IV: good.IV},
		"half a block":      {EncryptedData: good.EncryptedData[:len(good.EncryptedData)-4], IV: good.IV},
	}
}

// TestThreat68OneAnswer: whatever is wrong with the data, the answer is the
// same, byte for byte, and WeChat is asked no more than once.
func TestThreat68OneAnswer(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withDataClients(), withDataLimit(1000))
	token := signIn(s, "alice").str("access_token")
	signIn(s, "bob")
	keys, _ := custody(s, "alice")
	var first *answer
	for name, data := range badOpenData(t, s, "alice", keys[0]) {
		out := decrypt(s, token, data)
		refused(t, out, 400, "invalid_request")
		if line := eventOf(s, out, "wechat_data.used"); line["result"] != "open_data" {
			t.Errorf("%s: log line %v", name, line)
		}
		if first == nil {
			first = &out
		}
		if !bytes.Equal(out.Body, first.Body) {
			t.Errorf("%s: %s, another had %s", name, out.Body, first.Body)
		}
		for header := range first.Header {
			if header != "X-Request-Id" && header != "Date" && out.Header.Get(header) != first.Header.Get(header) {
				t.Errorf("%s: header %s is %q, another had %q", name, header, out.Header.Get(header), first.Header.Get(header))
			}
		}
		if len(out.Header) != len(first.Header) {
			t.Errorf("%s: headers %v, another had %v", name, out.Header, first.Header)
		}
	}
	if n := calls(s, simulator.PathCheckSession); n != 1 {
		t.Errorf("WeChat was asked %d times about one key", n)
	}
	if out := decrypt(s, token, openData(s, "alice", simulator.OpenDataUserInfo, 0)); out.Status != 200 {
		t.Errorf("good data: %v", out)
	}
}

// TestThreat68StaleKey: a key is called expired only after WeChat said so.
func TestThreat68StaleKey(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withDataClients(), withDataLimit(1000))
	token := signIn(s, "alice").str("access_token")
	if _, err := s.Sim.RotateSessionKey(testAppID, "alice"); err != nil {
		t.Fatal(err)
	}
	data := openData(s, "alice", simulator.OpenDataUserInfo, 0)
	// WeChat out of reach says nothing about the key.
	if err := s.Sim.Inject(simulator.Fault{Kind: simulator.FaultErrcode, Errcode: -1, Endpoint: simulator.PathCheckSession, Count: 2}); err != nil {
		t.Fatal(err)
	}
	down := decrypt(s, token, data)
	refused(t, down, 503, "temporarily_unavailable")
	retryAfter(t, down)
	if strings.Contains(down.str("error_description"), "wx.login") {
		t.Errorf("%v", down)
	}
	for i := range 2 {
		out := decrypt(s, token, data)
		refused(t, out, 409, "session_key_expired")
		if line := eventOf(s, out, "wechat_data.used"); line["result"] != "session_key_expired" {
			t.Errorf("log line %v", line)
		}
		if n := calls(s, simulator.PathCheckSession); n != 3 {
			t.Errorf("failure %d: WeChat was asked %d times", i, n)
		}
	}
	refused(t, useData(s, "verify-signature", token, "rawData", data.RawData, "signature", data.Signature), 409, "session_key_expired")
	if out := useData(s, "check-session", token); string(out.Body) != `{"valid":false}`+"\n" {
		t.Errorf("check-session: %v", out)
	}
	refused(t, useData(s, "reset-session", token), 409, "session_key_expired")
	// Whatever cannot be decrypted has the same answer.
	refused(t, decrypt(s, token, simulator.OpenData{EncryptedData: "?", IV: "?"}), 409, "session_key_expired")

	// What the answer tells to do helps.
	token = signIn(s, "alice").str("access_token")
	if out := decrypt(s, token, data); out.Status != 200 {
		t.Errorf("after a new sign-in: %v", out)
	}
	if err := s.Sim.ExpireSessionKey(testAppID, "alice"); err != nil {
		t.Fatal(err)
	}
	if out := useData(s, "check-session", token); string(out.Body) != `{"valid":false}`+"\n" {
		t.Errorf("check-session of an expired key: %v", out)
	}
	// WeChat's quota is another trouble than its being down.
	if err := s.Sim.Inject(simulator.Fault{Kind: simulator.FaultErrcode, Errcode: 45011, Endpoint: simulator.PathResetSession, Count: 1}); err != nil {
		t.Fatal(err)
	}
	refused(t, useData(s, "reset-session", token), 503, "temporarily_unavailable")
}

// TestThreat68WhoMayUse: a backend with the right, for a user of its own.
func TestThreat68WhoMayUse(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withDataClients(), withBackends(), withDataLimit(1000))
	user := signIn(s, "alice")
	token := user.str("access_token")
	data := openData(s, "alice", simulator.OpenDataUserInfo, 0)
	params := map[string][]string{
		"decrypt":          {"encryptedData", data.EncryptedData, "iv", data.IV},
		"verify-signature": {"rawData", data.RawData, "signature", data.Signature},
		"check-session":    nil,
		"reset-session":    nil,
	}
	revoked := signIn(s, "carol").str("refresh_token")
	gone := s.Token(refreshForm(revoked), phone())
	revoke(s, gone.str("refresh_token"))
	machine := machineToken(s, pairs(), basic(testBackend, testBackendKey)).str("access_token")

	for operation, more := range params {
		ask := func(as func(*http.Request), token string, extra ...string) answer {
			t.Helper()
			return useDataAs(s, operation, as, append(append([]string{"access_token", token}, more...), extra...)...)
		}
		nobody := func(*http.Request) {}
		for name, out := range map[string]answer{
			"nobody":         ask(nobody, token),
			"public client":  ask(nobody, token, "client_id", testClient),
			"bearer":         ask(bearer(token), token),
			"wrong secret":   ask(basic("data-api", "wrong"), token),
			"unknown client": ask(basic("nobody", "wrong"), token),
		} {
			if refused(t, out, 401, "invalid_client"); len(eventOf(s, out, "wechat_data.denied")) == 0 {
				t.Errorf("%s: %s", operation, name)
			}
		}
		denied := ask(basic(testBackend, testBackendKey), token)
		refused(t, denied, 403, "access_denied")
		if line := eventOf(s, denied, "wechat_data.denied"); line["client_id"] != testBackend || line["reason"] != "no_right" {
			t.Errorf("log line %v", line)
		}

		good := basic("data-api", dataClientKey)
		unknown := ask(good, "unknown")
		mismatch := ask(basic("data-stock", dataClientKey), token)
		for name, out := range map[string]answer{
			"unknown": unknown, "for another audience": mismatch, "refresh token": ask(good, user.str("refresh_token")),
			"ID token": ask(good, user.str("id_token")), "machine's": ask(good, machine), "revoked": ask(good, gone.str("access_token")),
			"changed": ask(good, token+"A"), "unknown to another": ask(basic("data-stock", dataClientKey), "unknown"),
		} {
			if refused(t, out, 400, "invalid_token"); !bytes.Equal(out.Body, unknown.Body) || out.Header.Get("WWW-Authenticate") != "" {
				t.Errorf("%s with a token that is %s: %v %v", operation, name, out, out.Header)
			}
		}
		if line := eventOf(s, mismatch, "wechat_data.audience_mismatch"); line["client_id"] != "data-stock" {
			t.Errorf("log line %v", line)
		}
		if out := ask(basic("data-both", dataClientKey), token); out.Status != 200 {
			t.Errorf("%s by a backend of both audiences: %v", operation, out)
		}
		form := pairs(append([]string{"access_token", token}, more...)...)
		for name := range form {
			short := pairs(append([]string{"access_token", token}, more...)...)
			short.Del(name)
			refused(t, s.Do(http.MethodPost, s.Issuer+"/wechat/"+operation, short, good, phone()), 400, "invalid_request")
			short[name] = []string{"a", "b"}
			refused(t, s.Do(http.MethodPost, s.Issuer+"/wechat/"+operation, short, good, phone()), 400, "invalid_request")
		}
		refused(t, s.Do(http.MethodPost, s.Issuer+"/wechat/"+operation+"?access_token="+token, form, good, phone()), 400, "invalid_request")
		if out := s.Do(http.MethodGet, s.Issuer+"/wechat/"+operation, nil, good, phone()); out.Status != 405 {
			t.Errorf("GET: %v", out)
		}
		if out := s.Do(http.MethodPost, s.Issuer+"/wechat/"+operation, nil, good, header("Content-Type", "application/json"), phone()); out.Status != 415 {
			t.Errorf("JSON: %v", out)
		}
	}
	// Bob's token with Alice's data.
	refused(t, decrypt(s, signIn(s, "bob").str("access_token"), data), 400, "invalid_request")
	// The right is gone with the scope.
	reload(s, "scopes: [wechat.data], audience: ["+testAudience+"]", "scopes: [x], grant_types: [client_credentials], audience: ["+testAudience+"]")
	refused(t, useData(s, "check-session", token), 403, "access_denied")
}

// TestThreat68Limit: 10 uses a minute by user, whatever they are and whoever
// asks.
func TestThreat68Limit(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withDataClients())
	token := signIn(s, "alice").str("access_token")
	bad := simulator.OpenData{EncryptedData: "?", IV: "?"}
	for i := range 10 {
		as := []string{"data-api", "data-both"}[i%2]
		if out := useDataAs(s, "decrypt", basic(as, dataClientKey), "access_token", token, "encryptedData", "?", "iv", "?"); out.Status != 400 {
			t.Fatal(out)
		}
	}
	seen := s.Sim.RequestCount()
	for _, out := range []answer{
		decrypt(s, token, bad), decrypt(s, token, openData(s, "alice", simulator.OpenDataUserInfo, 0)),
		useData(s, "verify-signature", token, "rawData", "x", "signature", "y"), useData(s, "check-session", token), useData(s, "reset-session", token),
		decrypt(s, signIn(s, "alice").str("access_token"), bad),
	} {
		refused(t, out, 429, "temporarily_unavailable")
		retryAfter(t, out)
	}
	if n := s.Sim.RequestCount() - seen; n != 1 { // the sign-in
		t.Errorf("%d calls to WeChat beyond the limit", n)
	}
	if out := useData(s, "check-session", signIn(s, "bob").str("access_token")); out.Status != 200 {
		t.Errorf("another user: %v", out)
	}
	if s.metrics()[`wxidp_limited_requests_total{limit="wechat_data"}`] != 6 {
		t.Error("the limit is not counted")
	}
}
