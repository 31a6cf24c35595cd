package simulator

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

const (
	testApp    = "wx0123456789abcdef"
	testSecret = "0123456789abcdef0123456789abcdef"
	otherApp   = "wxfedcba9876543210"
)

func newSimulator(t testing.TB, change ...func(*Options)) *Simulator {
	t.Helper()
	o := Options{Seed: "test", Apps: []App{
		{AppID: testApp, Secret: testSecret, OpenPlatform: "main"},
		{AppID: otherApp, Secret: testSecret, OpenPlatform: "main"},
		{AppID: "wxalone", Secret: testSecret},
	}}
	for _, c := range change {
		c(&o)
	}
	return New(o)
}

func mint(t testing.TB, s *Simulator, appid, user string) string {
	t.Helper()
	c, err := s.Login(appid, user)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func do(s *Simulator, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func exchangeQuery(appid, secret, code string) string {
	return url.Values{
		"appid": {appid}, "secret": {secret}, "js_code": {code}, "grant_type": {"authorization_code"},
	}.Encode()
}

// exchange sends a code to code2Session and returns the body.
func exchange(s *Simulator, appid, code string) string {
	r := httptest.NewRequest("GET", PathCode2Session+"?"+exchangeQuery(appid, testSecret, code), nil)
	return do(s, r).Body.String()
}

// errcodeOf returns the errcode of an answer, 0 where there is none.
func errcodeOf(t testing.TB, body string) int {
	t.Helper()
	var e struct{ Errcode int }
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	return e.Errcode
}

func post(s *Simulator, path, body string) *httptest.ResponseRecorder {
	return do(s, httptest.NewRequest("POST", path, strings.NewReader(body)))
}

func get(s *Simulator, target string) *httptest.ResponseRecorder {
	return do(s, httptest.NewRequest("GET", target, nil))
}

var ridForm = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}`)

// blank replaces the rid, so that the rest can be compared byte by byte.
func blank(body string) string { return ridForm.ReplaceAllString(body, "RID") }
