package main

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/wxidp/wxidp/wechat/simulator"
)

// TestThreat74WeChatErrors holds what each of WeChat's error codes becomes: the
// answer for the mini-program's developer, the signal for the operator, and
// that WeChat's own text goes nowhere.
func TestThreat74WeChatErrors(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	const weChatText = "canary-wechat-text of 203.0.113.9"

	type row struct {
		errcode, status int
		code            string
		retryAfter      string
		reason          string // in the body
		alert           bool
		calls           int
	}
	var rows []row
	add := func(status int, code, retryAfter, reason string, alert bool, calls int, errcodes ...int) {
		for _, errcode := range errcodes {
			rows = append(rows, row{errcode, status, code, retryAfter, reason, alert, calls})
		}
	}
	add(400, "invalid_grant", "", "", false, 1, 40029, 40163, 41008, 42003)
	add(400, "access_denied", "", "wechat_risk_user", false, 1, 40226)
	add(400, "access_denied", "", "wechat_user_limited", false, 1, 50002)
	add(503, "temporarily_unavailable", "60", "", true, 1, 45011, 45009)
	add(503, "temporarily_unavailable", "1", "", false, 2, -1)
	add(500, "server_error", "", "", true, 1, 40013, 40125, 41002, 41004, 40164, 40243, 61004,
		89501, 89503, 89506, 89507, 89599, 40001, 48001, 12345)

	for _, row := range rows {
		t.Run(strconv.Itoa(row.errcode), func(t *testing.T) {
			s.Sim.ClearRequests()
			fault := simulator.Fault{Kind: simulator.FaultErrcode, Errcode: row.errcode, Errmsg: weChatText, Count: row.calls}
			inject(t, s, fault)
			out := s.Token(signInForm(s.Code(testAppID, "alice")), phone())
			refused(t, out, row.status, row.code)
			if got := out.Header.Get("Retry-After"); got != row.retryAfter {
				t.Errorf("Retry-After %q, want %q", got, row.retryAfter)
			}
			if got := out.str("reason"); got != row.reason {
				t.Errorf("reason %q, want %q", got, row.reason)
			}
			if row.errcode > 0 && !strings.Contains(out.str("error_description"), strconv.Itoa(row.errcode)) {
				t.Errorf("%v does not name errcode %d", out, row.errcode)
			}
			if n := s.Sim.RequestCount(); n != row.calls {
				t.Errorf("%d calls to WeChat, want %d", n, row.calls)
			}
			line := eventOf(s, out, "token.denied")
			if line["error"] != row.code || line["reason"] == "" || line["client_id"] != testClient {
				t.Errorf("log line %v", line)
			}
			alerts := s.Logs.Events("wechat.error")
			if row.alert && (len(alerts) == 0 || alerts[len(alerts)-1]["errcode"] != float64(row.errcode) || alerts[len(alerts)-1]["level"] != "ERROR") {
				t.Errorf("no alert for errcode %d", row.errcode)
			}
		})
	}
	alerts := 0
	for _, line := range s.Logs.Events("wechat.error") {
		if rid, _ := line["rid"].(string); line["alert"] != nil && rid != "" {
			alerts++
		}
	}
	if alerts != 17 {
		t.Errorf("%d wechat.error alerts with a rid, want 17", alerts)
	}
	for _, canary := range []string{"canary-wechat-text", "203.0.113.9", testAppSecret} {
		if strings.Contains(s.Logs.String(), canary) {
			t.Errorf("the log holds %q", canary)
		}
	}
	if n := countUsers(s); n != 0 {
		t.Errorf("%d users after failures only", n)
	}
}

func inject(t testing.TB, s *testServer, fault simulator.Fault) {
	t.Helper()
	if err := s.Sim.Inject(fault); err != nil {
		t.Fatal(err)
	}
}

// TestErrorLanguage: descriptions are Chinese where the caller asks for it.
func TestErrorLanguage(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	form := func(more ...string) answer {
		return s.Token(signInForm("not-a-code", more[1:]...), phone(), header("Accept-Language", more[0]))
	}
	s.Token(signInForm("not-a-code"), phone()) // the first is refused by WeChat, the next as replays
	for _, row := range []struct {
		out     answer
		chinese bool
	}{
		{form(""), false},
		{form("en-GB,en;q=0.9"), false},
		{form("zh-CN,zh;q=0.9,en;q=0.8"), true},
		{form("zh"), true},
		{form("zh-Hant-TW"), true},
		{form("fr-FR, zh;q=0.5"), true},
		{form("en, zh;q=0.5"), false},
		{form("zh;q=0.2, en;q=0.9"), false},
		{form("not a language at all ;;;"), false},
		{form(strings.Repeat("zh-CN,", 200)), false},
		{form("", "ui_locales", "zh-CN"), true},
		{form("", "ui_locales", "zh_CN"), true},
		{form("", "ui_locales", "ZH"), true},
		{form("", "ui_locales", "fr zh-CN en"), true},
		{form("", "ui_locales", "en zh-CN"), false},
		{form("zh-CN", "ui_locales", "en"), false},
		{form("zh-CN", "ui_locales", "tlh"), true},
		{form("", "ui_locales", strings.Repeat("zzz ", 10_000)), false},
	} {
		refused(t, row.out, 400, "invalid_grant")
		han := strings.ContainsFunc(row.out.str("error_description"), func(r rune) bool { return unicode.Is(unicode.Han, r) })
		if han != row.chinese {
			t.Errorf("Chinese %v, want %v: %v", han, row.chinese, row.out)
		}
	}
	// A bad token at UserInfo is explained in Chinese too; the header stays ASCII.
	out := s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer("x"), header("Accept-Language", "zh-CN"), phone())
	refused(t, out, 401, "invalid_token")
	for _, c := range []byte(out.Header.Get("WWW-Authenticate")) {
		if c < ' ' || c > '~' {
			t.Fatalf("WWW-Authenticate %q", out.Header.Get("WWW-Authenticate"))
		}
	}
}

// TestThreat77OddAnswers: what is not WeChat's answer creates nobody.
func TestThreat77OddAnswers(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	bodies := []string{
		``, `{}`, `null`, `[]`, `"x"`, `42`, `{`, `<html>`, "\xef\xbb\xbf{\"openid\":\"o1\",\"session_key\":\"k\"}",
		`{"errcode":0}`, `{"errcode":0,"errmsg":"ok"}`, `{"session_key":"k"}`, `{"openid":"o1"}`,
		`{"openid":"","session_key":"k"}`, `{"openid":["o1"],"session_key":"k"}`, `{"openid":1,"session_key":"k"}`,
		`{"openid":"` + strings.Repeat("o", 4096) + `","session_key":"k"}`,
		`{"openid":"o1","openid":"o2","session_key":"k"}`, `{"openid":"o1","session_key":"k"} {}`,
		`{"errcode":[40029]}`, "{\"openid\":\"\xff\xfe\",\"session_key\":\"k\"}",
	}
	for i, body := range bodies {
		// The breaker opens after 20 failures with nothing good between them.
		if i%3 == 0 {
			for j := range 4 {
				signIn(s, "honest-"+strconv.Itoa(j))
			}
		}
		s.Sim.ClearRequests()
		kind := simulator.FaultBody
		if body == "" {
			kind = simulator.FaultEmpty
		}
		inject(t, s, simulator.Fault{Kind: kind, Body: body, Count: 1})
		out := s.Token(signInForm(s.Code(testAppID, "mallory")), phone())
		if out.Status != 503 || out.str("error") != "temporarily_unavailable" || out.Header.Get("Retry-After") != "1" {
			t.Errorf("WeChat says %.60q: %v", body, out)
		}
		if n := s.Sim.RequestCount(); n != 1 {
			t.Errorf("WeChat says %.60q: %d calls", body, n)
		}
	}
	if n := countUsers(s); n != 4 {
		t.Errorf("%d users, want the 4 honest ones", n)
	}
}
