package pages

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/net/html"
)

// TestTextsAreComplete: each text is there in both languages, takes the same
// arguments in both, and is used.
func TestTextsAreComplete(t *testing.T) {
	used := usedTexts(t)
	verbs := regexp.MustCompile(`%.`)
	for key, text := range texts {
		if strings.TrimSpace(text.zh) == "" || strings.TrimSpace(text.en) == "" {
			t.Errorf("%s is missing in a language", key)
		}
		if !strings.ContainsFunc(text.zh, isHan) || strings.ContainsFunc(text.en, isHan) {
			t.Errorf("%s is in the wrong language", key)
		}
		if zh, en := strings.Join(verbs.FindAllString(text.zh, -1), ""), strings.Join(verbs.FindAllString(text.en, -1), ""); zh != en {
			t.Errorf("%s takes %q in Chinese and %q in English", key, zh, en)
		}
		if !used[key] && !strings.HasPrefix(key, "scope.") && !strings.HasPrefix(key, "claim.") {
			t.Errorf("no page uses %s", key)
		}
	}
	for key := range used {
		if _, ok := texts[key]; !ok {
			t.Errorf("there is no text %s", key)
		}
	}
}

func isHan(r rune) bool { return unicode.Is(unicode.Han, r) }

// usedTexts are the keys that templates name, and those made from the names of
// pages and states.
func usedTexts(t *testing.T) map[string]bool {
	t.Helper()
	used := map[string]bool{}
	for _, state := range []ScanState{ScanWaiting, ScanScanned, ScanApproved, ScanDenied, ScanExpired} {
		used["scan."+string(state)] = true
	}
	call := regexp.MustCompile(`\.T "([^"]+)"`)
	err := fs.WalkDir(templateFiles, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := templateFiles.ReadFile(path)
		for _, match := range call.FindAllStringSubmatch(string(raw), -1) {
			used[match[1]] = true
		}
		if name := strings.TrimSuffix(entry.Name(), ".html"); name != "frame" {
			used[name+".title"] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// TestNothingIsLeftUntranslated reads pages whose views have no words of either
// language: an English page has no Chinese character, a Chinese one no English
// word.
func TestNothingIsLeftUntranslated(t *testing.T) {
	// What a view or the brand says, and names that are the same in Chinese.
	foreign := regexp.MustCompile(`acme|shop|ming|chrome|invalid_request|r-1|ID|OpenID|UnionID|AppID|UTC`)
	word := regexp.MustCompile(`[A-Za-z]{2,}`)
	spoken := []string{"alt", "aria-label", "title", "placeholder", "data-waiting", "data-scanned", "data-approved", "data-denied", "data-expired"}
	eachPage(t, func(t *testing.T, _ *Renderer, _ sample, lang Lang, raw []byte, doc *html.Node) {
		if strings.Contains(string(raw), "%!") {
			t.Error("a text got the wrong arguments")
		}
		check := func(text string) {
			if lang == English && strings.ContainsFunc(text, isHan) {
				t.Errorf("in Chinese: %q", text)
			}
			if lang == Chinese && word.MatchString(foreign.ReplaceAllString(text, "")) {
				t.Errorf("in English: %q", text)
			}
		}
		for n := range doc.Descendants() {
			if n.Type == html.TextNode && (n.Parent == nil || attr(n.Parent, "id") != "language") {
				check(n.Data)
			}
			for _, name := range spoken {
				check(attr(n, name))
			}
		}
	})
}
