package web

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// FuzzPreferredLanguage: any wish ends in a language that there is.
func FuzzPreferredLanguage(f *testing.F) {
	for _, seed := range [][2]string{{"zh-CN", ""}, {"", "zh-CN,zh;q=0.9,en;q=0.8"}, {"fr zh_CN", "en"}, {"", "*"}, {"x-y-z", ";q=1"}, {"", "zh;q=0"}, {"-", "-"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, locales, accept string) {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.PostForm = url.Values{"ui_locales": {locales}}
		r.Header["Accept-Language"] = []string{accept}
		if got := preferredLanguage(r); got != "zh" && got != "en" {
			t.Errorf("%q, %q: %q", locales, accept, got)
		}
	})
}
