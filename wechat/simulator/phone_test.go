package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func phoneCode(t testing.TB, s *Simulator, appid, user string) string {
	t.Helper()
	c, err := s.PhoneCode(appid, user)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sendPhoneCode sends a phone code with a token of testApp and returns the body.
func sendPhoneCode(t testing.TB, s *Simulator, token, code, openid string) string {
	t.Helper()
	in := map[string]string{"code": code}
	if openid != "" {
		in["openid"] = openid
	}
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	return post(s, PathPhoneNumber+"?access_token="+token, string(body)).Body.String()
}

func TestPhoneToTheByte(t *testing.T) {
	s := newSimulator(t)
	token, _ := stable(t, s, "")
	if err := s.SetPhone("ann", "86", "13800138000"); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPhone("bob", "852", "91234567"); err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{
		"ann": `"phoneNumber":"13800138000","purePhoneNumber":"13800138000","countryCode":"86"`,
		"bob": `"phoneNumber":"+85291234567","purePhoneNumber":"91234567","countryCode":"852"`,
	} {
		code := phoneCode(t, s, testApp, user)
		if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(code) {
			t.Errorf("code %q", code)
		}
		before := time.Now().Unix()
		w := post(s, PathPhoneNumber+"?access_token="+token, `{"code":"`+code+`","openid":"`+s.OpenID(testApp, user)+`"}`)
		got := regexp.MustCompile(`"timestamp":\d+`).ReplaceAllString(w.Body.String(), "AT")
		if got != `{"errcode":0,"errmsg":"ok","phone_info":{`+want+`,"watermark":{AT,"appid":"`+testApp+`"}}}` || w.Code != 200 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if ct := w.Header().Get("Content-Type"); ct != "application/json; encoding=utf-8" {
			t.Errorf("Content-Type %q", ct)
		}
		var out struct {
			Phone struct{ Watermark struct{ Timestamp int64 } } `json:"phone_info"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || out.Phone.Watermark.Timestamp < before-1 || out.Phone.Watermark.Timestamp > before+60 {
			t.Errorf("timestamp %d at %d", out.Phone.Watermark.Timestamp, before)
		}
	}
}

func TestPhoneErrorsToTheByte(t *testing.T) {
	s := newSimulator(t)
	old, _ := classic(t, s)
	s.ExpireTokens(testApp)
	token, _ := stable(t, s, "")
	code := func() string { return phoneCode(t, s, testApp, "ann") }
	used := code()
	sendPhoneCode(t, s, token, used, "")
	foreign := phoneCode(t, s, otherApp, "ann")
	good := code()
	ask := func(token, body string) *http.Request {
		return httptest.NewRequest("POST", PathPhoneNumber+token, strings.NewReader(body))
	}
	hint := func(code int, text string) string {
		return fmt.Sprintf(`{"errcode":%d,"errmsg":"%s hint: [HINT] rid: RID"}`, code, text)
	}
	plain := func(code int, text string) string {
		return fmt.Sprintf(`{"errcode":%d,"errmsg":"%s rid: RID"}`, code, text)
	}
	q := "?access_token=" + token
	hints := regexp.MustCompile(`[0-9A-Za-z]{9}-[0-9A-Za-z]{6}`)
	for _, row := range []struct {
		name string
		r    *http.Request
		want string
	}{
		{"GET", httptest.NewRequest("GET", PathPhoneNumber+q, nil), plain(43002, "require POST method")},
		{"no token", ask("", `{"code":"`+good+`"}`), plain(41001, "access_token missing")},
		{"malformed token", ask("?access_token=x", `{"code":"`+good+`"}`), plain(40014, "invalid access_token")},
		{"unknown token", ask("?access_token="+newToken(), `{"code":"`+good+`"}`), plain(40001, staleToken)},
		{"expired token", ask("?access_token="+old, `{"code":"`+good+`"}`), plain(42001, "access_token expired")},
		{"token before body", ask("", ``), plain(41001, "access_token missing")},
		{"no body", ask(q, ``), plain(44002, "empty post data")},
		{"a form", ask(q, `code=`+good), plain(47001, "data format error")},
		{"code a number", ask(q, `{"code":5}`), plain(47001, "data format error")},
		{"huge", ask(q, `{"code":"`+strings.Repeat("x", maxBody)+`"}`), plain(47001, "data format error")},
		{"no code", ask(q, `{}`), hint(41008, "missing code")},
		{"unknown code", ask(q, `{"code":"x"}`), hint(40029, "invalid code")},
		{"a js_code", ask(q, `{"code":"`+mint(t, s, testApp, "ann")+`"}`), hint(40029, "invalid code")},
		{"used code", ask(q, `{"code":"`+used+`"}`), hint(40029, "invalid code")},
		{"of another app", ask(q, `{"code":"`+foreign+`"}`), hint(40013, "invalid appid")},
		{"of another user", ask(q, `{"code":"`+good+`","openid":"`+s.OpenID(testApp, "bob")+`"}`), hint(40029, "invalid code")},
		{"openid of another app", ask(q, `{"code":"`+good+`","openid":"`+s.OpenID(otherApp, "ann")+`"}`), hint(40029, "invalid code")},
	} {
		w := do(s, row.r)
		if got := hints.ReplaceAllString(blank(w.Body.String()), "HINT"); got != row.want || w.Code != 200 {
			t.Errorf("%s: %d %s, want %s", row.name, w.Code, w.Body, row.want)
		}
	}
	// None of them spent the code, nor that of the other app.
	if got := errcodeOf(t, sendPhoneCode(t, s, token, good, "")); got != 0 {
		t.Errorf("the good code: %d", got)
	}
	// A js_code and a phone code are two things.
	if got := errcodeOf(t, exchange(s, testApp, code())); got != 40029 {
		t.Errorf("a phone code at code2Session: %d", got)
	}
}

func TestLifeOfAPhoneCode(t *testing.T) {
	for age, want := range map[time.Duration]int{299 * time.Second: 0, 301 * time.Second: 40029} {
		s := newSimulator(t)
		code := phoneCode(t, s, testApp, "ann")
		_ = s.Advance(age)
		token, _ := stable(t, s, "")
		body := sendPhoneCode(t, s, token, code, "")
		if got := errcodeOf(t, body); got != want {
			t.Errorf("after %v: %d, want %d", age, got, want)
		}
		if want != 0 {
			continue
		}
		// The watermark is of the clock that the backend has, and shows the age.
		var out struct {
			Phone struct{ Watermark struct{ Timestamp int64 } } `json:"phone_info"`
		}
		if err := json.Unmarshal([]byte(body), &out); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(time.Unix(out.Phone.Watermark.Timestamp, 0)) - age; d < -time.Second || d > time.Minute {
			t.Errorf("the watermark is %v off", d)
		}
	}
	s := newSimulator(t)
	token, _ := stable(t, s, "")
	code := phoneCode(t, s, testApp, "ann")
	if n, err := s.ExpireCodes(testApp, "ann"); n != 1 || err != nil {
		t.Errorf("ExpireCodes: %d, %v", n, err)
	}
	if got := errcodeOf(t, sendPhoneCode(t, s, token, code, "")); got != 40029 {
		t.Errorf("an expired code: %d", got)
	}
}

func TestOneOfManyParallelPhoneExchangesWins(t *testing.T) {
	s := newSimulator(t)
	token, _ := stable(t, s, "")
	for range 50 {
		code := phoneCode(t, s, testApp, "ann")
		var won atomic.Int32
		var calls sync.WaitGroup
		for range 3 {
			calls.Go(func() {
				if errcodeOf(t, sendPhoneCode(t, s, token, code, "")) == 0 {
					won.Add(1)
				}
			})
		}
		calls.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d exchanges won", won.Load())
		}
	}
}

func TestPhonesOfUsers(t *testing.T) {
	s := newSimulator(t)
	seen := map[string]string{}
	for i := range 500 {
		user := fmt.Sprint("user", i)
		country, number := s.PhoneNumber(user)
		if country != "86" || !regexp.MustCompile(`^1[3-9]\d{9}$`).MatchString(number) {
			t.Fatalf("%s has %s %s", user, country, number)
		}
		if other := seen[number]; other != "" {
			t.Errorf("%s and %s have one number", user, other)
		}
		seen[number] = user
	}
	_, first := s.PhoneNumber("ann")
	if _, again := newSimulator(t).PhoneNumber("ann"); again != first {
		t.Error("the same seed gives another number")
	}
	if _, other := newSimulator(t, func(o *Options) { o.Seed = "other" }).PhoneNumber("ann"); other == first {
		t.Error("another seed gives the same number")
	}
	for _, row := range [][2]string{{"86", ""}, {"", "13800138000"}, {"086", "1"}, {"86", "+1"}, {"86", "12345678901234"}, {"12345", "123"}, {"1", "23"}} {
		if s.SetPhone("ann", row[0], row[1]) == nil {
			t.Errorf("%q is taken", row)
		}
	}
	// The number is that of the tap, not of the exchange.
	token, _ := stable(t, s, "")
	code := phoneCode(t, s, testApp, "ann")
	if err := s.SetPhone("ann", "86", "13800138000"); err != nil {
		t.Fatal(err)
	}
	if body := sendPhoneCode(t, s, token, code, ""); !strings.Contains(body, first) {
		t.Errorf("%s, want %s", body, first)
	}
	if got := get(s, "/control/identity?user=ann&appid="+testApp).Body.String(); !strings.Contains(got, `"phone":"+8613800138000"`) {
		t.Errorf("identity: %s", got)
	}
	s.Reset()
	if _, number := s.PhoneNumber("ann"); number != first {
		t.Errorf("after a reset: %s", number)
	}
}

func TestControlPhone(t *testing.T) {
	s := newSimulator(t)
	token, _ := stable(t, s, "")
	var out struct{ Code string }
	w := post(s, "/control/phone", `{"appid":"`+testApp+`","user":"ann","phone":"91234567","country_code":"852"}`)
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if body := sendPhoneCode(t, s, token, out.Code, ""); !strings.Contains(body, `"phoneNumber":"+85291234567"`) {
		t.Error(body)
	}
	code := strings.TrimSpace(post(s, "/control/phone?format=text", "user=ann&appid="+testApp+"&phone=13800138000").Body.String())
	if body := sendPhoneCode(t, s, token, code, ""); !strings.Contains(body, `"phoneNumber":"13800138000"`) {
		t.Error(body)
	}
	for body, says := range map[string]string{
		"user=ann&appid=wxnone":                              "no app",
		"user=ann&appid=" + testApp + "&phone=x":             "phone is digits",
		"user=ann&appid=" + testApp + "&country_code=86":     "goes with phone",
		"appid=" + testApp:                                   "user is missing",
		"user=ann&appid=" + testApp + "&phone=1&phone=2":     "given twice",
		"user=ann&appid=" + testApp + "&number=13800138000":  "not known here",
		"user=%00&appid=" + testApp + "&phone=13800138000":   "cannot be printed",
		"user=ann&appid=" + testApp + "&phone=%2B8613800138": "phone is digits",
	} {
		if w := post(s, "/control/phone", body); w.Code != 400 || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
}

// TestFaultsOfPhone sees which faults spend the code, and what the log keeps.
func TestFaultsOfPhone(t *testing.T) {
	for kind, want := range map[FaultKind]int{FaultErrcode: 0, FaultHTML: 0, FaultBody: 0, FaultDrop: 0, FaultTruncate: 40029, FaultReset: 40029} {
		s := newSimulator(t)
		server := startServer(t, s)
		token, _ := stable(t, s, "")
		if err := s.Inject(Fault{Kind: kind, Errcode: 45011, Count: 1, Endpoint: PathPhoneNumber}); err != nil {
			t.Fatal(err)
		}
		code := phoneCode(t, s, testApp, "ann")
		res, err := http.Post(server.URL+PathPhoneNumber+"?access_token="+token, "application/json", strings.NewReader(`{"code":"`+code+`"}`))
		if err == nil {
			res.Body.Close()
		}
		log := s.Requests()
		last := log[len(log)-1]
		if last.Path != PathPhoneNumber || last.PhoneCode != code || last.AppID != testApp || last.Fault != kind {
			t.Errorf("%s: entry %+v", kind, last)
		}
		if got := errcodeOf(t, sendPhoneCode(t, s, token, code, "")); got != want {
			t.Errorf("after %s the code gives %d, want %d", kind, got, want)
		}
		w := get(s, "/control/requests?format=text&phone_code="+code)
		if got := strings.TrimSpace(w.Body.String()); got != "2" {
			t.Errorf("%s: %s requests with the code", kind, got)
		}
	}
}

func TestPhoneCodesAreBounded(t *testing.T) {
	s := newSimulator(t)
	token, _ := stable(t, s, "")
	first := phoneCode(t, s, testApp, "ann")
	for range MaxCodes {
		phoneCode(t, s, testApp, "ann")
	}
	if len(s.phones.items) > MaxCodes {
		t.Errorf("%d codes", len(s.phones.items))
	}
	if got := errcodeOf(t, sendPhoneCode(t, s, token, first, "")); got != 40029 {
		t.Errorf("the forgotten code: %d", got)
	}
}

func FuzzPhoneRequest(f *testing.F) {
	for _, seed := range []string{`{"code":"x","openid":"o"}`, `{"code":"\ud800\"\u0000"}`, `{"code":[]}`, `code=x`, ``, `{"a":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := newSimulator(t)
		token, _ := stable(t, s, "")
		if w := post(s, PathPhoneNumber+"?access_token="+token, string(body)); w.Code != 200 || errcodeOf(t, w.Body.String()) == 0 {
			t.Fatalf("%q: %d %s", body, w.Code, w.Body)
		}
		if w := get(s, "/control/requests"); !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%q: %s", body, w.Body)
		}
	})
}
