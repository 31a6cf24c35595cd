package simulator

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestSuccessToTheByte(t *testing.T) {
	s := newSimulator(t)
	key := func(appid string) string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.apps[appid].members["ann"].sessionKey
	}
	r := httptest.NewRequest("GET", PathCode2Session+"?access_token=ignored&"+exchangeQuery(testApp, testSecret, mint(t, s, testApp, "ann")), nil)
	w := do(s, r)
	want := fmt.Sprintf(`{"session_key":"%s","openid":"%s","unionid":"%s"}`, key(testApp), s.OpenID(testApp, "ann"), s.UnionID("main", "ann"))
	if w.Code != 200 || w.Body.String() != want {
		t.Errorf("%d %s, want %s", w.Code, w.Body, want)
	}
	if got := w.Header()["Content-Type"]; len(got) != 1 || got[0] != "text/plain" {
		t.Errorf("Content-Type %q", got)
	}
	body := exchange(s, "wxalone", mint(t, s, "wxalone", "ann"))
	if want := fmt.Sprintf(`{"session_key":"%s","openid":"%s"}`, key("wxalone"), s.OpenID("wxalone", "ann")); body != want {
		t.Errorf("without Open Platform: %s, want %s", body, want)
	}
}

func TestAppOptionsOfSuccess(t *testing.T) {
	rows := []struct{ option, form string }{
		{"legacy_expires_in=true", `^{"session_key":"[^"]+","expires_in":7200,"openid":"o[^"]+"}$`},
		{"errcode_zero=true", `^{"session_key":"[^"]+","openid":"o[^"]+","errcode":0,"errmsg":"ok"}$`},
	}
	for _, row := range rows {
		s := newSimulator(t)
		if w := post(s, "/control/apps", "appid=wxalone&"+row.option); w.Code != 200 {
			t.Fatal(w.Body)
		}
		if body := exchange(s, "wxalone", mint(t, s, "wxalone", "u")); !regexp.MustCompile(row.form).MatchString(body) {
			t.Errorf("%s: %s", row.option, body)
		}
	}
	s := newSimulator(t, func(o *Options) { o.Apps[2].EscapeSlashes = true; o.RotateAfter = 1 })
	for range 200 { // until a key has a slash
		body := exchange(s, "wxalone", mint(t, s, "wxalone", "u"))
		if strings.Contains(body, "/") {
			if !strings.Contains(body, `\/`) || !json.Valid([]byte(body)) {
				t.Errorf("slashes are not escaped: %s", body)
			}
			return
		}
		_ = s.Advance(time.Minute)
	}
	t.Error("no key of 200 had a slash")
}

func TestIdentifiers(t *testing.T) {
	s := newSimulator(t)
	openid, unionid := s.OpenID(testApp, "ann"), s.UnionID("main", "ann")
	code := mint(t, s, testApp, "ann")
	key, err := s.RotateSessionKey(testApp, "ann")
	if err != nil {
		t.Fatal(err)
	}
	for form, value := range map[string]string{
		`^o[A-Za-z0-9_-]{27}$`:     openid,
		`^o[A-Za-z0-9_-]{5}.{22}$`: unionid,
		`^0[a-f][A-Za-z0-9]{30}$`:  code,
		`^[A-Za-z0-9+/]{22}==$`:    key,
		`^\d\d_[A-Za-z0-9_-]{133}$`: func() string {
			_ = s
			return newToken()
		}(),
	} {
		if !regexp.MustCompile(form).MatchString(value) {
			t.Errorf("%q is not of the form %s", value, form)
		}
	}
	if b, err := base64.StdEncoding.DecodeString(key); err != nil || len(b) != 16 {
		t.Errorf("session_key %q: %d bytes, %v", key, len(b), err)
	}
	if bob := s.OpenID(testApp, "bob"); bob == openid || bob[:6] != openid[:6] {
		t.Errorf("openids of one app: %s, %s", openid, bob)
	}
	if other := s.OpenID(otherApp, "ann"); other == openid || other[:6] == openid[:6] {
		t.Errorf("openids of two apps: %s, %s", openid, other)
	}
	if newSimulator(t).OpenID(testApp, "ann") != openid {
		t.Error("the same seed gives another openid")
	}
	if newSimulator(t, func(o *Options) { o.Seed = "other" }).OpenID(testApp, "ann") == openid {
		t.Error("another seed gives the same openid")
	}
}

func TestErrorsToTheByte(t *testing.T) {
	s := newSimulator(t)
	for _, u := range []string{"blocked", "frozen"} {
		if err := s.SetRisk(u, Risk(u)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddApp(App{AppID: "wxice", Secret: testSecret, Frozen: true}); err != nil {
		t.Fatal(err)
	}
	used := mint(t, s, testApp, "ann")
	exchange(s, testApp, used)
	good := mint(t, s, testApp, "ann")
	q := func(change ...string) string {
		v, _ := url.ParseQuery(exchangeQuery(testApp, testSecret, good))
		for i := 0; i < len(change); i += 2 {
			v.Set(change[i], change[i+1])
			if change[i+1] == "" {
				v.Del(change[i])
			}
		}
		return v.Encode()
	}
	rows := []struct {
		method, query string
		code          int
		text          string
	}{
		{"POST", q(), 41002, "appid missing"},
		{"GET", q("appid", ""), 41002, "appid missing"},
		{"GET", q("secret", "", "js_code", ""), 41004, "appsecret missing"},
		{"GET", q("js_code", ""), 41008, "missing code"},
		{"GET", q("appid", "wxnone"), 40013, "invalid appid"},
		{"GET", q("secret", "bad"), 40125, "invalid appsecret"},
		{"GET", q("secret", "bad", "js_code", used), 40125, "invalid appsecret"},
		{"GET", q("appid", "wxice"), 40243, "AppSecret frozen"},
		{"GET", q("grant_type", "client_credential"), 40002, "invalid grant_type"},
		{"GET", q("js_code", "the code is a mock one"), 40029, "invalid code"},
		{"GET", q("appid", otherApp), 40029, "invalid code"},
		{"GET", q("js_code", used), 40163, "code been used"},
		{"GET", q("js_code", mint(t, s, testApp, "blocked")), 40226, "code blocked"},
		{"GET", q("js_code", mint(t, s, testApp, "frozen")), 50002, "user limited"},
	}
	for _, row := range rows {
		w := do(s, httptest.NewRequest(row.method, PathCode2Session+"?"+row.query, nil))
		want := fmt.Sprintf(`{"errcode":%d,"errmsg":"%s, rid: RID"}`, row.code, row.text)
		if got := blank(w.Body.String()); w.Code != 200 || got != want || w.Header().Get("Content-Type") != "text/plain" {
			t.Errorf("%s ?%s: %d %s, want %s", row.method, row.query, w.Code, got, want)
		}
	}
	// None of them spent the code, and a missing grant_type is let pass.
	w := get(s, PathCode2Session+"?"+q("grant_type", ""))
	if errcodeOf(t, w.Body.String()) != 0 {
		t.Errorf("the good code: %s", w.Body)
	}
}

func TestRIDHoldsTheTime(t *testing.T) {
	s := newSimulator(t)
	if err := s.Advance(1000 * time.Hour); err != nil {
		t.Fatal(err)
	}
	rid := ridForm.FindString(exchange(s, testApp, "none"))
	seconds, err := strconv.ParseInt(rid[:8], 16, 64)
	if d := s.Now().Unix() - seconds; err != nil || d < 0 || d > 5 {
		t.Errorf("rid %q is %d s off, %v", rid, d, err)
	}
}

func TestOneOfManyParallelExchangesWins(t *testing.T) {
	s := newSimulator(t)
	for range 50 {
		code := mint(t, s, testApp, "ann")
		var won, used atomic.Int32
		var calls sync.WaitGroup
		for range 2 {
			calls.Go(func() {
				switch errcodeOf(t, exchange(s, testApp, code)) {
				case 0:
					won.Add(1)
				case 40163:
					used.Add(1)
				}
			})
		}
		calls.Wait()
		if won.Load() != 1 || used.Load() != 1 {
			t.Fatalf("%d exchanges won, %d met 40163", won.Load(), used.Load())
		}
		_ = s.Advance(time.Minute) // past the user's rate limit
	}
}

func TestLifeOfACode(t *testing.T) {
	for age, want := range map[time.Duration]int{299 * time.Second: 0, 301 * time.Second: 40029} {
		s := newSimulator(t)
		code := mint(t, s, testApp, "ann")
		if err := s.Advance(age); err != nil {
			t.Fatal(err)
		}
		if got := errcodeOf(t, exchange(s, testApp, code)); got != want {
			t.Errorf("after %v: %d, want %d", age, got, want)
		}
	}
	s := newSimulator(t)
	code := mint(t, s, testApp, "ann")
	if n, err := s.ExpireCodes(testApp, "ann"); n != 1 || err != nil {
		t.Errorf("ExpireCodes: %d, %v", n, err)
	}
	if got := errcodeOf(t, exchange(s, testApp, code)); got != 40029 {
		t.Errorf("an expired code: %d", got)
	}
}

func TestRateOfAUser(t *testing.T) {
	s := newSimulator(t)
	_ = s.Advance(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute + time.Second))) // early in a minute
	for i := range 100 {
		appid := []string{testApp, otherApp}[i%2] // counted per user, not per app
		if got := errcodeOf(t, exchange(s, appid, mint(t, s, appid, "ann"))); got != 0 {
			t.Fatalf("call %d: %d", i, got)
		}
	}
	code := mint(t, s, testApp, "ann")
	if got := errcodeOf(t, exchange(s, testApp, code)); got != 45011 {
		t.Errorf("call 101: %d", got)
	}
	if got := errcodeOf(t, exchange(s, testApp, mint(t, s, testApp, "bob"))); got != 0 {
		t.Errorf("another user: %d", got)
	}
	_ = s.Advance(time.Minute)
	if got := errcodeOf(t, exchange(s, testApp, code)); got != 0 {
		t.Errorf("the next minute: %d", got)
	}
}

func TestBurnOn40029(t *testing.T) {
	for burn, want := range map[bool]int{false: 0, true: 40163} {
		s := newSimulator(t, func(o *Options) { o.Apps[1].BurnOn40029 = burn })
		code := mint(t, s, testApp, "ann")
		if got := errcodeOf(t, exchange(s, otherApp, code)); got != 40029 {
			t.Errorf("another app: %d", got)
		}
		if got := errcodeOf(t, exchange(s, testApp, code)); got != want {
			t.Errorf("burn %v: %d, want %d", burn, got, want)
		}
	}
}

func TestStrictGrantType(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Apps[0].StrictGrantType = true })
	w := get(s, PathCode2Session+"?appid="+testApp+"&secret="+testSecret+"&js_code="+mint(t, s, testApp, "ann"))
	if got := errcodeOf(t, w.Body.String()); got != 40002 {
		t.Errorf("without grant_type: %d", got)
	}
}

func sessionKey(t *testing.T, s *Simulator, appid, user string) string {
	t.Helper()
	var out struct {
		SessionKey string `json:"session_key"`
	}
	if err := json.Unmarshal([]byte(exchange(s, appid, mint(t, s, appid, user))), &out); err != nil || out.SessionKey == "" {
		t.Fatalf("no session_key: %v", err)
	}
	return out.SessionKey
}

func TestRotationOfSessionKey(t *testing.T) {
	s := newSimulator(t)
	first := sessionKey(t, s, testApp, "ann")
	_ = s.Advance(50 * time.Second)
	if sessionKey(t, s, testApp, "ann") != first {
		t.Error("rotated within a minute")
	}
	if sessionKey(t, s, otherApp, "ann") == first || sessionKey(t, s, testApp, "bob") == first {
		t.Error("two members share a key")
	}
	_ = s.Advance(20 * time.Second)
	second := sessionKey(t, s, testApp, "ann")
	if second == first {
		t.Error("not rotated after a minute")
	}
	third, err := s.RotateSessionKey(testApp, "ann")
	if err != nil || third == second || sessionKey(t, s, testApp, "ann") != third {
		t.Errorf("RotateSessionKey: %v", err)
	}

	// The code of before a rotation gives the key of after: the race that makes
	// encrypted data unreadable.
	early := mint(t, s, testApp, "ann")
	fourth, _ := s.RotateSessionKey(testApp, "ann")
	if !strings.Contains(exchange(s, testApp, early), fourth) {
		t.Error("an exchange gives an old key")
	}

	s = newSimulator(t, func(o *Options) { o.RotateAfter = -1 })
	first = sessionKey(t, s, testApp, "ann")
	for range 5 { // use prolongs it
		_ = s.Advance(2 * 24 * time.Hour)
		if sessionKey(t, s, testApp, "ann") != first {
			t.Fatal("rotated although rotation is off")
		}
	}
	_ = s.Advance(4 * 24 * time.Hour)
	if sessionKey(t, s, testApp, "ann") == first {
		t.Error("an expired key goes on")
	}
	second = sessionKey(t, s, testApp, "ann")
	if err := s.ExpireSessionKey(testApp, "ann"); err != nil || sessionKey(t, s, testApp, "ann") == second {
		t.Errorf("ExpireSessionKey: %v", err)
	}
	for _, err := range []error{s.ExpireSessionKey(testApp, "none"), s.ExpireSessionKey("none", "ann")} {
		if err == nil {
			t.Error("no error for somebody unknown")
		}
	}
}

func TestUnionIDAppearsLater(t *testing.T) {
	s := newSimulator(t)
	if strings.Contains(exchange(s, "wxalone", mint(t, s, "wxalone", "ann")), "unionid") {
		t.Error("a unionid without Open Platform")
	}
	if w := post(s, "/control/apps", `{"appid":"wxalone","open_platform":"main"}`); w.Code != 200 {
		t.Fatal(w.Body)
	}
	if !strings.Contains(exchange(s, "wxalone", mint(t, s, "wxalone", "ann")), s.UnionID("main", "ann")) {
		t.Error("no unionid after the app was bound")
	}
	if w := post(s, "/control/apps", "appid=wxalone&open_platform=other"); w.Code != 200 {
		t.Fatal(w.Body)
	}
	if !strings.Contains(exchange(s, "wxalone", mint(t, s, "wxalone", "ann")), s.UnionID("other", "ann")) {
		t.Error("no other unionid after the app moved")
	}
}
