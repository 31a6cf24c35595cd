package wechat

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

func TestNewRefusesBadOptions(t *testing.T) {
	for _, base := range []string{
		"http://api.weixin.qq.com", "http://192.0.2.1", "http://localhost.example", "ftp://127.0.0.1",
		"api.weixin.qq.com", "https://", "https://u:hunter2@api.weixin.qq.com", "https://h/?a=b", "https://h/#f", "://", "https:h",
	} {
		_, err := New(Options{BaseURL: base})
		if err == nil {
			t.Errorf("base URL %q is taken", base)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error repeats the URL: %v", err)
		}
	}
	for _, base := range []string{"", "https://sh.api.weixin.qq.com/", "http://127.0.0.1:8090", "http://[::1]:1/x/", "http://localhost:8090"} {
		if _, err := New(Options{BaseURL: base}); err != nil {
			t.Errorf("base URL %q: %v", base, err)
		}
	}
	one := App{AppID: "wx1", Secret: secret.New("s")}
	for name, apps := range map[string][]App{
		"twice": {one, one}, "no secret": {{AppID: "wx1"}}, "no appid": {{Secret: secret.New("s")}},
		"spaces": {{AppID: "w x", Secret: secret.New("s")}},
	} {
		if _, err := New(Options{Apps: apps}); err == nil {
			t.Errorf("apps %s: no error", name)
		}
	}
}

func TestRequestOfCode2Session(t *testing.T) {
	var got *http.Request
	c := newClient(t, Options{
		BaseURL: "http://127.0.0.1:1/prefix/",
		Apps:    []App{{AppID: testAppID, Secret: secret.New("a&b=c d")}},
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			got = r
			return response(200, goodAnswer), nil
		}),
	})
	s, err := c.Code2Session(context.Background(), testAppID, "x&appid=evil%26secret=#+")
	if err != nil {
		t.Fatal(err)
	}
	if s.WeChatOpenID != testOpenID || s.SessionKey.Reveal() != canaryKey || s.UnionID != "" {
		t.Errorf("session %+v", s)
	}
	if got.Method != "GET" || got.URL.Path != "/prefix/sns/jscode2session" || got.Header.Get("Referer") != "" {
		t.Errorf("request %s %s %v", got.Method, got.URL.Path, got.Header)
	}
	want := map[string]string{
		"appid": testAppID, "secret": "a&b=c d", "js_code": "x&appid=evil%26secret=#+", "grant_type": "authorization_code",
	}
	query := got.URL.Query()
	if len(query) != len(want) {
		t.Errorf("query has %d parameters", len(query))
	}
	for name, value := range want {
		if v := query[name]; len(v) != 1 || v[0] != value {
			t.Errorf("%s is %q, want one %q", name, v, value)
		}
	}
}

func TestWireFormOfCode2Session(t *testing.T) {
	type seen struct {
		length   int64
		encoding []string
		header   http.Header
	}
	requests := make(chan seen, 1)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests <- seen{r.ContentLength, r.TransferEncoding, r.Header}
		answer200(goodAnswer)(w, r)
	})
	c := newClient(t, Options{BaseURL: s.URL})
	if _, err := exchange(c); err != nil {
		t.Fatal(err)
	}
	r := <-requests
	if r.length != 0 || len(r.encoding) != 0 || len(r.header) != 1 || r.header.Get("User-Agent") != "wxidp" {
		t.Errorf("a GET with nothing but a user agent was expected: %+v", r)
	}
}

func TestThreat63BadCodesAreNotSent(t *testing.T) {
	var calls atomic.Int32
	c := newClient(t, Options{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
		calls.Add(1)
		return response(200, goodAnswer), nil
	})})
	for _, code := range []string{"", "a b", "a\n", "\x00", "é", "a\x7f", strings.Repeat("x", 257)} {
		_, err := c.Code2Session(context.Background(), testAppID, code)
		if e := asError(t, c, err); e.Kind != InvalidCode || e.Sent {
			t.Errorf("code %q: %+v", code, e)
		}
	}
	_, err := c.Code2Session(context.Background(), "wxother", canaryCode)
	if e := asError(t, c, err); e.Kind != Misconfigured || e.Sent {
		t.Errorf("unknown app: %+v", e)
	}
	if calls.Load() != 0 {
		t.Errorf("%d requests were sent", calls.Load())
	}
	if _, err := c.Code2Session(context.Background(), testAppID, strings.Repeat("x", 256)); err != nil {
		t.Errorf("a code of 256 characters: %v", err)
	}
}

func TestErrcodes(t *testing.T) {
	rows := []struct {
		code    int
		kind    Kind
		after   time.Duration
		outcome string
		level   string
	}{
		{40029, InvalidCode, 0, "40029", "DEBUG"},
		{40163, InvalidCode, 0, "40163", "DEBUG"},
		{41008, InvalidCode, 0, "41008", "DEBUG"},
		{42003, InvalidCode, 0, "42003", "DEBUG"},
		{40226, Denied, 0, "40226", "DEBUG"},
		{50002, Denied, 0, "50002", "DEBUG"},
		{45011, Quota, time.Minute, "45011", "ERROR"},
		{45009, Quota, time.Minute, "45009", "ERROR"},
		{-1, Unavailable, time.Second, "-1", "WARN"},
		{40013, Misconfigured, 0, "40013", "ERROR"},
		{40125, Misconfigured, 0, "40125", "ERROR"},
		{41002, Misconfigured, 0, "41002", "ERROR"},
		{41004, Misconfigured, 0, "41004", "ERROR"},
		{40164, Misconfigured, 0, "40164", "ERROR"},
		{40243, Misconfigured, 0, "40243", "ERROR"},
		{61004, Misconfigured, 0, "61004", "ERROR"},
		{89503, Misconfigured, 0, "89503", "ERROR"},
		{89599, Misconfigured, 0, "errcode_other", "ERROR"},
		{89600, Unknown, 0, "errcode_other", "ERROR"},
		{50004, Unknown, 0, "50004", "ERROR"},
		{12345, Unknown, 0, "errcode_other", "ERROR"},
	}
	for _, row := range rows {
		for _, form := range []string{`{"errcode":%d,"errmsg":"%s, rid: %s"}`, `{"errmsg":"%[2]s rid: %[3]s","errcode":"%[1]d"}`} {
			t.Run(fmt.Sprint(row.code), func(t *testing.T) {
				s := serve(t, answer200(fmt.Sprintf(form, row.code, canaryErrmsg, testRID)))
				c := newClient(t, Options{BaseURL: s.URL})
				_, err := exchange(c)
				e := asError(t, c, err)
				if e.Kind != row.kind || e.Code != row.code || e.RID != testRID || !e.Sent ||
					e.RetryAfter != row.after || e.API != "code2session" || e.Reason != "errcode" {
					t.Errorf("error %+v", e)
				}
				if o := c.outcomes(); len(o) != 1 || o[0] != "code2session "+row.outcome {
					t.Errorf("observed %q", o)
				}
				log := c.logged.String()
				for _, part := range []string{`"level":"` + row.level + `"`, `"event":"wechat.error"`, testRID, fmt.Sprintf(`"errcode":%d`, row.code)} {
					if !strings.Contains(log, part) {
						t.Errorf("the log lacks %s:\n%s", part, log)
					}
				}
				if alert := strings.Contains(log, `"alert":"`+row.kind.String()+`"`); alert != (row.level == "ERROR") {
					t.Errorf("alert %v:\n%s", alert, log)
				}
			})
		}
	}
}

func TestBusyErrcodeIsRepeatedOnce(t *testing.T) {
	for _, second := range []string{goodAnswer, `{"errcode":-1,"errmsg":"system error"}`, `{"errcode":40163,"errmsg":"code been used"}`} {
		var calls atomic.Int32
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1) == 1 {
				answer200(`{"errcode":-1,"errmsg":"system error"}`)(w, r)
				return
			}
			answer200(second)(w, r)
		})
		c := newClient(t, Options{BaseURL: s.URL})
		got, err := exchange(c)
		if calls.Load() != 2 {
			t.Errorf("%d requests, want 2", calls.Load())
		}
		switch second {
		case goodAnswer:
			if err != nil || got.WeChatOpenID != testOpenID {
				t.Errorf("%+v, %v", got, err)
			}
		default:
			if e := asError(t, c, err); !e.Sent || e.Code == 0 {
				t.Errorf("error %+v", e)
			}
		}
	}
}

func TestSetApps(t *testing.T) {
	var secrets []string
	c := newClient(t, Options{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		secrets = append(secrets, r.URL.Query().Get("secret"))
		return response(200, goodAnswer), nil
	})})
	if a, ok := c.App(testAppID); !ok || a.OpenPlatform != "main" {
		t.Errorf("App: %+v, %v", a, ok)
	}
	_, _ = exchange(c)
	before := (*c.apps.Load())[testAppID]
	c.SetApps([]App{{AppID: testAppID, Secret: secret.New("next")}, {AppID: "wx2", Secret: secret.New("s2")}})
	_, _ = exchange(c)
	if len(secrets) != 2 || secrets[1] != "next" {
		t.Error("the new secret is not used")
	}
	if after := (*c.apps.Load())[testAppID]; after.codes != before.codes || after.tokens == before.tokens {
		t.Error("the breaker must stay and the token of the old secret go")
	}
	c.SetApps(nil)
	if _, ok := c.App(testAppID); ok {
		t.Error("a removed app is still there")
	}
	if _, err := exchange(c); err == nil {
		t.Error("a removed app still signs in")
	}
}

func TestCallerGivesUp(t *testing.T) {
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c := newClient(t, Options{BaseURL: s.URL})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Code2Session(ctx, testAppID, canaryCode)
	e := asError(t, c, err)
	if e.Kind != Unavailable || e.Reason != "canceled" || !e.Sent || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %+v", e)
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = c.Code2Session(done, testAppID, canaryCode)
	if e := asError(t, c, err); e.Sent || !errors.Is(err, context.Canceled) {
		t.Errorf("error %+v", e)
	}
}
