package pages

import (
	"strings"

	"golang.org/x/text/language"
)

// Lang is a language of the pages, as a BCP 47 tag.
type Lang string

// The languages of the pages.
const (
	Chinese Lang = "zh-CN"
	English Lang = "en"
)

// maxLanguages bounds the lists of languages that are looked at, in bytes.
const maxLanguages = 256

// ParseLang returns the language of a tag such as "zh", "zh-Hant-TW" or
// "en_GB", if pages exist in it.
func ParseLang(tag string) (lang Lang, ok bool) {
	if tag == "" || len(tag) > maxLanguages {
		return "", false
	}
	parsed, err := language.Parse(tag)
	if err != nil {
		return "", false
	}
	return spoken(parsed)
}

// Language is the language for a browser: its own earlier choice (the cookie's
// value), the client's wish (ui_locales, OIDC Core §3.1.2.1), the first language
// of Accept-Language that pages exist in, and Chinese where nothing matches.
func Language(uiLocales, acceptLanguage, cookie string) Lang {
	if lang, ok := ParseLang(cookie); ok {
		return lang
	}
	if len(uiLocales) <= maxLanguages {
		for locale := range strings.FieldsSeq(uiLocales) {
			if lang, ok := ParseLang(locale); ok {
				return lang
			}
		}
	}
	if acceptLanguage != "" && len(acceptLanguage) <= maxLanguages {
		// Tags come by descending quality; there are none where err is set.
		tags, _, _ := language.ParseAcceptLanguage(acceptLanguage)
		for _, tag := range tags {
			if lang, ok := spoken(tag); ok {
				return lang
			}
		}
	}
	return Chinese
}

func spoken(tag language.Tag) (Lang, bool) {
	switch base, _ := tag.Base(); base.String() {
	case "zh":
		return Chinese, true
	case "en":
		return English, true
	}
	return "", false
}
