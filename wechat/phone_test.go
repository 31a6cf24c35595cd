package wechat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	canaryPhone     = "13912345678"
	canaryPhoneCode = "canaryphonecode31968a7f94cc5ee25fafc2aef2773f0bb8c3937b22520eb8"
)

func phoneAnswer(appid string, at time.Time) string {
	return fmt.Sprintf(`{"errcode":0,"errmsg":"ok","phone_info":{"phoneNumber":"%[1]s","purePhoneNumber":"%[1]s","countryCode":"86","watermark":{"timestamp":%d,"appid":"%s"}}}`,
		canaryPhone, at.Unix(), appid)
}

// phoneServer answers stable_token with token 1, 2, 3 … and the rest with its mood.
type phoneServer struct {
	mu     sync.Mutex // guards the fields below
	tokens int
	calls  []string // the access token of each call that is not stable_token's
	answer func(call int, r *http.Request) (*http.Response, error)
	token  func() (*http.Response, error)
}

func (s *phoneServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path == "/cgi-bin/stable_token" {
		s.tokens++
		if s.token != nil {
			return s.token()
		}
		return response(200, fmt.Sprintf(`{"access_token":"%s-%d","expires_in":7200}`, canaryToken, s.tokens)), nil
	}
	s.calls = append(s.calls, strings.TrimPrefix(r.URL.Query().Get("access_token"), canaryToken+"-"))
	return s.answer(len(s.calls), r)
}

// always answers body to every call.
func always(body string) func(int, *http.Request) (*http.Response, error) {
	return func(int, *http.Request) (*http.Response, error) { return response(200, body), nil }
}

func newPhoneClient(t testing.TB, answer func(int, *http.Request) (*http.Response, error)) (*phoneServer, *testClient) {
	s := &phoneServer{answer: answer}
	return s, newClient(t, Options{Transport: s})
}

func phone(c *testClient) (Phone, error) {
	return c.PhoneNumber(context.Background(), testAppID, canaryPhoneCode, testOpenID)
}

// noPhone checks, besides asError, that neither number nor phone code shows.
func noPhone(t testing.TB, c *testClient, err error) *Error {
	t.Helper()
	e := asError(t, c, err)
	shown := fmt.Sprintf("%v %+v %#v %s", err, e, *e, c.logged.String())
	for _, canary := range []string{canaryPhone, canaryPhoneCode, testOpenID} {
		if strings.Contains(shown, canary) {
			t.Errorf("%q shows in %s", canary, shown)
		}
	}
	return e
}

func TestThreat69RequestOfPhoneNumber(t *testing.T) {
	var seen *http.Request
	var body map[string]string
	_, c := newPhoneClient(t, func(_ int, r *http.Request) (*http.Response, error) {
		seen = r
		raw, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(raw, &body) != nil {
			t.Errorf("body %q, %v", raw, err)
		}
		return response(200, phoneAnswer(testAppID, time.Now())), nil
	})
	code := `a"&openid=evil\<` // reaches WeChat as one value
	p, err := c.PhoneNumber(t.Context(), testAppID, code, testOpenID)
	if err != nil {
		t.Fatal(err)
	}
	if p.E164 != "+86"+canaryPhone || p.CountryCode != "86" || p.PureNumber != canaryPhone || p.AppID != testAppID || time.Since(p.Timestamp) > time.Minute {
		t.Errorf("E164 %s of %s at %v", p.E164, p.AppID, p.Timestamp)
	}
	if seen.Method != "POST" || seen.URL.Path != "/wxa/business/getuserphonenumber" || seen.GetBody != nil ||
		seen.Header.Get("Content-Type") != "application/json" || seen.URL.RawQuery != "access_token="+canaryToken+"-1" {
		t.Errorf("%s %s?%s %v", seen.Method, seen.URL.Path, seen.URL.RawQuery, seen.Header)
	}
	if len(body) != 2 || body["code"] != code || body["openid"] != testOpenID {
		t.Errorf("body %q", body)
	}
	if o := c.outcomes(); len(o) != 2 || o[0] != "stable_token ok" || o[1] != "getuserphonenumber ok" {
		t.Errorf("observed %q", o)
	}
	noCanary(t, c, nil)
}

func TestThreat69PhoneOfAnotherAppOrTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			appid  string
			age    time.Duration
			reason string
		}{
			{testAppID, 0, ""},
			{testAppID, 5 * time.Minute, ""},
			{testAppID, -time.Minute, ""},
			{testAppID, 5*time.Minute + time.Second, "watermark_stale"},
			{testAppID, -time.Minute - time.Second, "watermark_future"},
			{"wxfedcba9876543210", 0, "watermark_appid"},
		} {
			s, c := newPhoneClient(t, always(phoneAnswer(row.appid, time.Now().Add(-row.age))))
			p, err := phone(c)
			if row.reason == "" {
				if err != nil || p.E164 == "" {
					t.Errorf("age %v: %v", row.age, err)
				}
				continue
			}
			e := noPhone(t, c, err)
			if e.Kind != InvalidCode || e.Reason != row.reason || !e.Sent || p != (Phone{}) || len(s.calls) != 1 {
				t.Errorf("%s, age %v: %+v, %d calls", row.appid, row.age, e, len(s.calls))
			}
			if !strings.Contains(c.logged.String(), `"level":"WARN"`) {
				t.Errorf("not logged for the operator: %s", c.logged.String())
			}
		}
	})
}

func TestPhoneErrcodes(t *testing.T) {
	for code, kind := range map[int]Kind{
		40029: InvalidCode, 40163: InvalidCode, 40013: InvalidCode, 40003: InvalidCode, 41008: InvalidCode, 42003: InvalidCode,
		45011: Quota, 45009: Quota, 48001: Unknown, 47001: Unknown, 40164: Misconfigured, 12345: Unknown,
	} {
		s, c := newPhoneClient(t, always(fmt.Sprintf(`{"errcode":%d,"errmsg":"%s hint: [WiEBWV0sf-Te2URA] rid: %s"}`, code, canaryErrmsg, testRID)))
		_, err := phone(c)
		e := noPhone(t, c, err)
		if e.Kind != kind || e.Code != code || e.API != "getuserphonenumber" || e.RID != testRID || !e.Sent || len(s.calls) != 1 {
			t.Errorf("%d: %+v, %d calls", code, e, len(s.calls))
		}
	}
	// code2Session keeps its own meaning of 40013.
	_, c := newPhoneClient(t, always(`{"errcode":40013,"errmsg":"invalid appid"}`))
	_, err := exchange(c)
	if e := asError(t, c, err); e.Kind != Misconfigured {
		t.Errorf("40013 of code2Session: %+v", e)
	}
}

// TestThreat76RefusedTokenIsReplacedOnce: WeChat did not look at the code, so
// it may be sent again, but once only.
func TestThreat76RefusedTokenIsReplacedOnce(t *testing.T) {
	for _, code := range []int{40001, 40014, 42001} {
		refused := fmt.Sprintf(`{"errcode":%d,"errmsg":"%s rid: %s"}`, code, canaryErrmsg, testRID)
		s, c := newPhoneClient(t, func(call int, _ *http.Request) (*http.Response, error) {
			if call == 1 {
				return response(200, refused), nil
			}
			return response(200, phoneAnswer(testAppID, time.Now())), nil
		})
		if _, err := phone(c); err != nil || strings.Join(s.calls, " ") != "1 2" {
			t.Errorf("%d: %v, calls with tokens %q", code, err, s.calls)
		}
		if !strings.Contains(c.logged.String(), `"event":"wechat.token_refused"`) {
			t.Errorf("not logged: %s", c.logged.String())
		}
		noCanary(t, c, nil)

		s, c = newPhoneClient(t, always(refused))
		_, err := phone(c)
		e := noPhone(t, c, err)
		if e.Code != code || e.Kind != Unknown || strings.Join(s.calls, " ") != "1 2" || s.tokens != 2 {
			t.Errorf("%d: %+v, calls with tokens %q, %d fetched", code, e, s.calls, s.tokens)
		}
	}
	// Many calls that meet the same refusal fetch one token.
	s, c := newPhoneClient(t, nil)
	s.answer = func(int, *http.Request) (*http.Response, error) {
		if s.calls[len(s.calls)-1] == "1" {
			return response(200, `{"errcode":40001,"errmsg":"x"}`), nil
		}
		return response(200, phoneAnswer(testAppID, time.Now())), nil
	}
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			if _, err := phone(c); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if s.tokens != 2 {
		t.Errorf("%d tokens were fetched, want 2", s.tokens)
	}
}

func TestPhoneIsSentAtMostOnce(t *testing.T) {
	for name, row := range map[string]struct {
		answer func() (*http.Response, error)
		reason string
		sent   bool
		calls  int
	}{
		"reset":      {func() (*http.Response, error) { return nil, errors.New("reset") }, "reset", true, 1},
		"5xx":        {func() (*http.Response, error) { return response(502, ""), nil }, "http_5xx", true, 1},
		"html":       {func() (*http.Response, error) { return response(200, "<html>"), nil }, "not_json", true, 1},
		"40029":      {func() (*http.Response, error) { return response(200, `{"errcode":40029}`), nil }, "errcode", true, 1},
		"empty":      {func() (*http.Response, error) { return response(200, `{}`), nil }, "no_phone", true, 1},
		"busy twice": {func() (*http.Response, error) { return response(200, `{"errcode":-1}`), nil }, "errcode", true, 2},
	} {
		s, c := newPhoneClient(t, func(int, *http.Request) (*http.Response, error) { return row.answer() })
		_, err := phone(c)
		if e := noPhone(t, c, err); e.Reason != row.reason || e.Sent != row.sent || len(s.calls) != row.calls {
			t.Errorf("%s: %+v after %d calls", name, e, len(s.calls))
		}
	}
}

func TestPhoneWithoutAToken(t *testing.T) {
	s, c := newPhoneClient(t, always(`{"errcode":40001}`))
	s.token = func() (*http.Response, error) {
		return response(200, `{"errcode":40125,"errmsg":"`+canaryErrmsg+` rid: `+testRID+`"}`), nil
	}
	_, err := phone(c)
	e := noPhone(t, c, err)
	if e.API != "stable_token" || e.Kind != Misconfigured || e.Code != 40125 || e.Sent || len(s.calls) != 0 {
		t.Errorf("%+v, %d calls", e, len(s.calls))
	}
	if o := c.outcomes(); len(o) != 2 || o[0] != "stable_token 40125" || o[1] != "getuserphonenumber access_token" {
		t.Errorf("observed %q", o)
	}
	if n := strings.Count(c.logged.String(), `"event":"wechat.error"`); n != 1 {
		t.Errorf("%d log lines about one failure", n)
	}

	// Refused, and then there is no other.
	s, c = newPhoneClient(t, always(`{"errcode":40001}`))
	s.token = func() (*http.Response, error) {
		if s.tokens == 1 {
			return response(200, testTokenBody), nil
		}
		return response(502, ""), nil
	}
	_, err = phone(c)
	if e := noPhone(t, c, err); e.API != "stable_token" || e.Kind != Unavailable || !e.Sent || len(s.calls) != 1 {
		t.Errorf("%+v, %d calls", e, len(s.calls))
	}
}

func TestBadPhoneCallsAreNotSent(t *testing.T) {
	s, c := newPhoneClient(t, always(phoneAnswer(testAppID, time.Now())))
	for _, row := range []struct {
		appid, code, openid, reason string
		kind                        Kind
	}{
		{"wxnone", canaryPhoneCode, testOpenID, "unknown_app", Misconfigured},
		{testAppID, "", testOpenID, "phone_code_format", InvalidCode},
		{testAppID, "a b", testOpenID, "phone_code_format", InvalidCode},
		{testAppID, "a\n", testOpenID, "phone_code_format", InvalidCode},
		{testAppID, "码", testOpenID, "phone_code_format", InvalidCode},
		{testAppID, strings.Repeat("a", 257), testOpenID, "phone_code_format", InvalidCode},
		{testAppID, canaryPhoneCode, "", "openid_format", Misconfigured}, // without it WeChat would not check whose code it is
		{testAppID, canaryPhoneCode, strings.Repeat("o", 129), "openid_format", Misconfigured},
	} {
		_, err := c.PhoneNumber(t.Context(), row.appid, row.code, row.openid)
		if e := noPhone(t, c, err); e.Kind != row.kind || e.Reason != row.reason || e.Sent || e.API != "getuserphonenumber" {
			t.Errorf("%+v: %+v", row, e)
		}
	}
	if len(s.calls) != 0 || s.tokens != 0 {
		t.Errorf("%d calls, %d tokens", len(s.calls), s.tokens)
	}
	if _, err := c.PhoneNumber(t.Context(), testAppID, strings.Repeat("a", 256), testOpenID); err != nil {
		t.Error(err)
	}
}

// TestPhoneDoesNotDisturbSignIn: each API has its own breaker and, but for
// code2Session, they share a limit of what is in flight.
func TestPhoneDoesNotDisturbSignIn(t *testing.T) {
	s, c := newPhoneClient(t, func(_ int, r *http.Request) (*http.Response, error) {
		switch r.URL.Path {
		case "/sns/jscode2session":
			return response(200, goodAnswer), nil
		case "/wxa/checksession":
			return response(200, `{"errcode":0,"errmsg":"ok"}`), nil
		}
		return response(502, ""), nil
	})
	for range 20 {
		_, _ = phone(c)
	}
	if _, err := phone(c); noPhone(t, c, err).Reason != "breaker_open" {
		t.Errorf("the breaker did not open: %v", err)
	}
	if _, err := exchange(c); err != nil {
		t.Errorf("sign-in: %v", err)
	}
	if valid, err := checkSession(c); err != nil || !valid {
		t.Errorf("checksession: %v, %v", valid, err)
	}
	if len(s.calls) != 22 {
		t.Errorf("%d calls", len(s.calls))
	}
	c.SetApps(testApps())
	if _, err := phone(c); noPhone(t, c, err).Reason != "breaker_open" {
		t.Errorf("the breaker does not outlive a reload: %v", err)
	}

	release, arrived := make(chan struct{}), make(chan struct{})
	busy := newClient(t, Options{MaxInFlight: 1, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		switch r.URL.Path {
		case "/cgi-bin/stable_token":
			return response(200, testTokenBody), nil
		case "/sns/jscode2session":
			return response(200, goodAnswer), nil
		}
		close(arrived)
		<-release
		return response(200, phoneAnswer(testAppID, time.Now())), nil
	})})
	var first sync.WaitGroup
	first.Go(func() {
		if _, err := phone(busy); err != nil {
			t.Error(err)
		}
	})
	<-arrived
	_, err := phone(busy)
	if e := noPhone(t, busy, err); e.Reason != "busy" || e.Sent || e.Kind != Unavailable {
		t.Errorf("%+v", e)
	}
	if _, err := exchange(busy); err != nil {
		t.Errorf("sign-in: %v", err)
	}
	close(release)
	first.Wait()
	if busy.beside.Load() != 0 {
		t.Error("a call is still counted")
	}
}

func TestPhoneTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := newPhoneClient(t, func(_ int, r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		start := time.Now()
		_, err := phone(c)
		if e := noPhone(t, c, err); e.Reason != "timeout" || !e.Sent || time.Since(start) != DefaultTimeout {
			t.Errorf("%+v after %v", e, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.PhoneNumber(ctx, testAppID, canaryPhoneCode, testOpenID)
		if e := noPhone(t, c, err); e.Reason != "canceled" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v", e)
		}
	})
}

func TestParsePhone(t *testing.T) {
	now := time.Unix(1700000000, 0)
	answer := func(country, pure string) string {
		return `{"errcode":0,"errmsg":"ok","phone_info":{"phoneNumber":"x","purePhoneNumber":` + pure + `,"countryCode":` + country +
			`,"watermark":{"timestamp":1700000000,"appid":"` + testAppID + `"}}}`
	}
	for _, row := range []struct{ country, pure, want string }{
		{`"86"`, `"13800138000"`, "+8613800138000"},
		{`86`, `"13800138000"`, "+8613800138000"}, // as in the documentation
		{`"+852"`, `"9123 4567"`, "+85291234567"},
		{`"1"`, `"212-555-0100"`, "+12125550100"},
		{`"39"`, `"0612345678"`, "+390612345678"}, // Italy keeps its 0
		{`"1"`, `"234"`, "+1234"},
		{`"1"`, `"23"`, ""},
		{`"86"`, `"12345678901234"`, ""}, // 16 digits
		{`"86"`, `"1234567890123"`, "+861234567890123"},
		{`"086"`, `"13800138000"`, ""},
		{`"0"`, `"13800138000"`, ""},
		{`"12345"`, `"1380013800"`, ""},
		{`""`, `"13800138000"`, ""},
		{`"+"`, `"13800138000"`, ""},
		{`"++86"`, `"13800138000"`, ""},
		{`86.0`, `"13800138000"`, ""},
		{`-86`, `"13800138000"`, ""},
		{`true`, `"13800138000"`, ""},
		{`["86"]`, `"13800138000"`, ""},
		{`"86"`, `13800138000`, ""},
		{`"86"`, `""`, ""},
		{`"86"`, `"138****8000"`, ""},
		{`"86"`, `"１３８００１３８０００"`, ""}, // digits of another script
		{`"86"`, `"` + strings.Repeat(" ", 40) + `13800138000"`, ""},
	} {
		p, e := parsePhone([]byte(answer(row.country, row.pure)), testAppID, now)
		if (e == nil) != (row.want != "") || p.E164 != row.want || e != nil && (e.Kind != Unavailable || e.Reason != "bad_answer") {
			t.Errorf("%s %s: %s, %v", row.country, row.pure, p.E164, e)
		}
	}
	good := answer(`"86"`, `"13800138000"`)
	for body, reason := range map[string]string{
		`{"errcode":0,"errmsg":"ok"}`:                                   "no_phone",
		`{"phone_info":"13800138000"}`:                                  "bad_answer",
		`{"phone_info":{}}`:                                             "bad_answer",
		`{"phone_info":[]}`:                                             "bad_answer",
		strings.Replace(good, `"appid"`, `"AppID"`, 1):                  "bad_answer",
		strings.Replace(good, `1700000000`, `"x"`, 1):                   "bad_answer",
		strings.Replace(good, `1700000000`, `-1700000000`, 1):           "bad_answer",
		strings.Replace(good, `1700000000`, `17000000000000`, 1):        "bad_answer",
		strings.Replace(good, `"countryCode"`, `"purePhoneNumber"`, 1):  "bad_answer",
		strings.Replace(good, `{"timestamp"`, `{"appid":"","t"`, 1):     "bad_answer",
		strings.Replace(good, `}}`, `},"watermark":{}}`, 1):             "bad_answer",
		strings.Replace(good, `"errcode":0`, `"errcode":"40029"`, 1):    "errcode",
		strings.Replace(good, `1700000000`, `1799999999`, 1):            "watermark_future",
		strings.Replace(good, `"timestamp":17`, `"timestamp":"17`, 1):   "not_json",
		strings.Replace(good, `1700000000`, `"1699990000"`, 1):          "watermark_stale",
		strings.Replace(good, testAppID, `wx\u0030123456789abcde0`, 1):  "watermark_appid",
		strings.Replace(good, `{"timestamp"`, `{"a":{},"timestamp"`, 1): "",
	} {
		_, e := parsePhone([]byte(body), testAppID, now)
		if got := ""; e != nil || reason != "" {
			if e != nil {
				got = e.Reason
			}
			if got != reason {
				t.Errorf("%s: %q, want %q", body, got, reason)
			}
		}
	}
}

func TestPhonePrintsNothing(t *testing.T) {
	p := Phone{E164: "+86" + canaryPhone, CountryCode: "86", PureNumber: canaryPhone}
	var log syncBuffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "phone", p, "list", []Phone{p}, "in", struct{ P Phone }{p})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "phone", p, "list", []Phone{p}, "in", struct{ P *Phone }{&p})
	js, err := json.Marshal(map[string]any{"a": p, "b": &p})
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf("%v %+v %#v %s %v %s %s", p, p, p, p, &p, js, log.String())
	if strings.Contains(shown, canaryPhone) {
		t.Error(shown)
	}
}

func FuzzParsePhone(f *testing.F) {
	for _, seed := range []string{
		phoneAnswer(testAppID, time.Unix(1700000000, 0)),
		`{"errcode":40029,"errmsg":"invalid code hint: [WiEBWV0sf-Te2URA] rid: ` + testRID + `"}`,
		`{"errcode":0,"phone_info":{"purePhoneNumber":"1 2-3","countryCode":1,"watermark":{"timestamp":"1700000000","appid":"` + testAppID + `"}}}`,
		`{"phone_info":{"watermark":[{}]}}`, `{}`, `[`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, e := parsePhone(body, testAppID, time.Unix(1700000000, 0))
		if e != nil {
			if p != (Phone{}) {
				t.Fatal("an error and a number")
			}
			return
		}
		number, ok := strings.CutPrefix(p.E164, "+")
		if !ok || len(number) < 4 || len(number) > 15 || strings.Trim(number, "0123456789") != "" || number != p.CountryCode+p.PureNumber || p.AppID != testAppID {
			t.Fatalf("%q gives %s", body, p.E164)
		}
	})
}
