package simulator

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

func classic(t *testing.T, s *Simulator) (value string, left int) {
	t.Helper()
	return tokenIn(t, get(s, PathToken+"?grant_type=client_credential&appid="+testApp+"&secret="+testSecret))
}

func stable(t *testing.T, s *Simulator, more string) (value string, left int) {
	t.Helper()
	return tokenIn(t, post(s, PathStableToken, `{"grant_type":"client_credential","appid":"`+testApp+`","secret":"`+testSecret+`"`+more+`}`))
}

func tokenIn(t *testing.T, w *httptest.ResponseRecorder) (string, int) {
	t.Helper()
	if !regexp.MustCompile(`^{"access_token":"\d\d_[\w-]{133}","expires_in":\d+}$`).MatchString(w.Body.String()) {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json; encoding=utf-8" {
		t.Errorf("Content-Type %q", got)
	}
	var out struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatal(err)
	}
	return out.AccessToken, out.ExpiresIn
}

func wantToken(t *testing.T, s *Simulator, value string, want int) {
	t.Helper()
	if got, _ := s.CheckToken(value); got != want {
		t.Errorf("the token meets %d, want %d", got, want)
	}
}

func TestClassicToken(t *testing.T) {
	s := newSimulator(t)
	first, left := classic(t, s)
	if left != 7200 {
		t.Errorf("expires_in %d", left)
	}
	second, _ := classic(t, s)
	if first == second {
		t.Error("the same token twice")
	}
	wantToken(t, s, first, 0)
	_ = s.Advance(4*time.Minute + 59*time.Second)
	wantToken(t, s, first, 0)
	_ = s.Advance(2 * time.Second)
	wantToken(t, s, first, 40001)
	wantToken(t, s, second, 0)
	_ = s.Advance(2 * time.Hour)
	wantToken(t, s, second, 42001)
	wantToken(t, s, "", 41001)
	wantToken(t, s, "nonsense", 40014)
	wantToken(t, s, newToken(), 40001)
}

func TestStableToken(t *testing.T) {
	s := newSimulator(t)
	first, left := stable(t, s, "")
	if left != 7200 {
		t.Errorf("expires_in %d", left)
	}
	_ = s.Advance(time.Hour)
	same, left := stable(t, s, `,"force_refresh":false`)
	if same != first || left < 3590 || left > 3600 {
		t.Errorf("after an hour: same %v, expires_in %d", same == first, left)
	}
	other, _ := classic(t, s)
	if got, _ := stable(t, s, ""); got != first || got == other {
		t.Error("the two families disturb each other")
	}
	_ = s.Advance(56 * time.Minute)
	second, left := stable(t, s, "")
	if second == first || left != 7200 {
		t.Errorf("in the last five minutes: same %v, expires_in %d", second == first, left)
	}
	_ = s.Advance(4*time.Minute + 59*time.Second)
	wantToken(t, s, first, 0)
	wantToken(t, s, second, 0)
	_ = s.Advance(2 * time.Second)
	wantToken(t, s, first, 40001)

	third, _ := stable(t, s, `,"force_refresh":true`)
	wantToken(t, s, second, 40001)
	wantToken(t, s, third, 0)
	if again, _ := stable(t, s, `,"force_refresh":true`); again != third {
		t.Error("forced twice within 30 s")
	}
	_ = s.Advance(31 * time.Second)
	if again, _ := stable(t, s, `,"force_refresh":true`); again == third {
		t.Error("not forced after 30 s")
	}
	if n := s.ExpireTokens(testApp); n == 0 {
		t.Error("nothing expired")
	}
	if got, left := stable(t, s, ""); left != 7200 {
		t.Errorf("after ExpireTokens: expires_in %d of %v", left, got != "")
	}
}

func TestForcedRefreshesOfADay(t *testing.T) {
	s := newSimulator(t)
	// Begin just after midnight in China, so that the day does not change.
	_ = s.Advance(time.Duration(86400-(time.Now().Unix()+8*3600)%86400+5) * time.Second)
	for range forcesPerDay {
		stable(t, s, `,"force_refresh":true`)
		_ = s.Advance(31 * time.Second)
	}
	w := post(s, PathStableToken, `{"grant_type":"client_credential","appid":"`+testApp+`","secret":"`+testSecret+`","force_refresh":true}`)
	if got := errcodeOf(t, w.Body.String()); got != 45009 {
		t.Errorf("the 21st: %d", got)
	}
	_ = s.Advance(24 * time.Hour)
	stable(t, s, `,"force_refresh":true`)
}

func TestQuotaOfClassicToken(t *testing.T) {
	s := newSimulator(t)
	_ = s.Advance(time.Duration(86400-(time.Now().Unix()+8*3600)%86400+5) * time.Second)
	var last string
	for range classicPerDay {
		last, _ = classic(t, s)
	}
	w := get(s, PathToken+"?grant_type=client_credential&appid="+testApp+"&secret="+testSecret)
	if got := blank(w.Body.String()); got != `{"errcode":45009,"errmsg":"reach max api daily quota limit rid: RID"}` {
		t.Error(got)
	}
	wantToken(t, s, last, 0)
}

func TestTokenErrors(t *testing.T) {
	s := newSimulator(t)
	for _, a := range []App{
		{AppID: "wxice", Secret: testSecret, Frozen: true},
		{AppID: "wxlist", Secret: testSecret, IPAllowList: []string{"198.51.100.0/24", "2001:db8::1"}},
		{AppID: "wxhere", Secret: testSecret, IPAllowList: []string{"192.0.2.1"}}, // httptest's address
	} {
		if err := s.AddApp(a); err != nil {
			t.Fatal(err)
		}
	}
	rows := []struct {
		appid, secret, grant string
		want                 string
	}{
		{"", testSecret, "client_credential", `{"errcode":41002,"errmsg":"appid missing rid: RID"}`},
		{testApp, "", "client_credential", `{"errcode":41004,"errmsg":"appsecret missing rid: RID"}`},
		{testApp, testSecret, "", `{"errcode":40002,"errmsg":"invalid grant_type rid: RID"}`},
		{testApp, testSecret, "authorization_code", `{"errcode":40002,"errmsg":"invalid grant_type rid: RID"}`},
		{"wxnone", testSecret, "client_credential", `{"errcode":40013,"errmsg":"invalid appid rid: RID"}`},
		{testApp, "bad", "client_credential", `{"errcode":40125,"errmsg":"invalid appsecret rid: RID"}`},
		{"wxice", testSecret, "client_credential", `{"errcode":40243,"errmsg":"AppSecret frozen rid: RID"}`},
		{"wxlist", testSecret, "client_credential", `{"errcode":40164,"errmsg":"invalid ip 192.0.2.1 ipv6 ::ffff:192.0.2.1, not in whitelist rid: RID"}`},
		{"wxhere", testSecret, "client_credential", ``},
	}
	for _, row := range rows {
		query := fmt.Sprintf("%s?grant_type=%s&appid=%s&secret=%s", PathToken, row.grant, row.appid, row.secret)
		body, err := json.Marshal(map[string]string{"grant_type": row.grant, "appid": row.appid, "secret": row.secret})
		if err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string]string{"classic": get(s, query).Body.String(), "stable": post(s, PathStableToken, string(body)).Body.String()} {
			if row.want == "" && errcodeOf(t, got) != 0 || row.want != "" && blank(got) != row.want {
				t.Errorf("%s of %+v: %s", name, row, got)
			}
		}
	}
	for want, w := range map[int]*httptest.ResponseRecorder{
		43001: post(s, PathToken, ""),
		43002: get(s, PathStableToken),
		44002: post(s, PathStableToken, ""),
		47001: post(s, PathStableToken, "appid="+testApp),
	} {
		if got := errcodeOf(t, w.Body.String()); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
	if err := s.AddApp(App{AppID: "wx", Secret: "s", IPAllowList: []string{"nowhere"}}); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a bad address: %v", err)
	}
}

func TestTokensAreBounded(t *testing.T) {
	s := newSimulator(t)
	first, _ := classic(t, s)
	for range 2 * maxTokens {
		s.tokens.add(testApp, s.now())
	}
	if n := len(s.tokens.byValue); n > maxTokens {
		t.Errorf("%d tokens are kept", n)
	}
	wantToken(t, s, first, 40001)
	if next, left := classic(t, s); next == first || left != 7200 {
		t.Errorf("the next token has %d s", left)
	}
}
