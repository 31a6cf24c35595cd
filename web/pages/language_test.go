package pages

import (
	"strings"
	"testing"
)

func TestLanguage(t *testing.T) {
	for name, tt := range map[string]struct {
		locales, accept, cookie string
		want                    Lang
	}{
		"nothing":               {"", "", "", Chinese},
		"browser":               {"", "en-GB,en;q=0.9,zh;q=0.8", "", English},
		"browser's best":        {"", "en;q=0.5,zh-TW;q=0.9", "", Chinese},
		"neither":               {"", "fr,de;q=0.5", "", Chinese},
		"second choice":         {"", "fr,en;q=0.5", "", English},
		"client":                {"en", "zh-CN", "", English},
		"client's second":       {"fr-CA en", "zh-CN", "", English},
		"own choice":            {"en", "en", "zh-CN", Chinese},
		"own choice of English": {"zh", "zh", "en", English},
		"no such choice":        {"", "en", "tlh", English},
		"junk":                  {"- x_", ";q=1,,", "\x00", Chinese},
		"too long":              {strings.Repeat("fr ", 100) + "en", "en," + strings.Repeat("x", 300), "", Chinese},
	} {
		if got := Language(tt.locales, tt.accept, tt.cookie); got != tt.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// FuzzLanguage: any wish ends in a language that there is.
func FuzzLanguage(f *testing.F) {
	for _, seed := range [][3]string{{"zh-CN", "", ""}, {"", "zh-CN,zh;q=0.9,en;q=0.8", "en"}, {"fr zh_CN", "en", ""}, {"", "*", ""}, {"x-y-z", ";q=1", "-"}, {"-", "zh;q=0", "zh"}} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, locales, accept, cookie string) {
		if got := Language(locales, accept, cookie); got != Chinese && got != English {
			t.Errorf("%q, %q, %q: %q", locales, accept, cookie, got)
		}
	})
}
