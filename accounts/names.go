package accounts

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/wxidp/wxidp/storage"
)

// The limits of what people enter.
const (
	MaxUsername = 128  // bytes of a canonical username
	MaxNickname = 64   // characters (code points) of a nickname
	MaxPicture  = 2048 // bytes of a picture's URL

	maxRawUsername = 1024 // bytes before canonicalisation
	maxRawNickname = 4096 // bytes
)

// CanonicalUsername returns the form in which usernames are stored, compared
// and counted: without space around it, case-folded and in NFKC, 1 to
// MaxUsername bytes. Two spellings that a person takes for one (case,
// full-width letters) give one form. Control and format characters, and any
// space but U+0020, are refused. The error is an [*Error] of kind InvalidInput.
func CanonicalUsername(raw string) (string, error) {
	switch {
	case len(raw) > maxRawUsername:
		return "", invalid("username", reasonTooLong)
	case !utf8.ValidString(raw):
		return "", invalid("username", reasonEncoding)
	}
	name := strings.TrimSpace(raw)
	// Folding undoes normal form and the other way round; a few rounds reach
	// what neither changes any more.
	for range 8 {
		next := strings.TrimSpace(norm.NFKC.String(cases.Fold().String(norm.NFKC.String(name))))
		if next == name {
			return checkUsername(name)
		}
		name = next
	}
	return "", invalid("username", reasonCharacter)
}

func checkUsername(name string) (string, error) {
	switch {
	case name == "":
		return "", invalid("username", reasonTooShort)
	case len(name) > MaxUsername:
		return "", invalid("username", reasonTooLong)
	}
	for _, r := range name {
		if r != ' ' && (unicode.IsSpace(r) || unicode.Is(unicode.Z, r)) || unicode.Is(unicode.Cf, r) || !storable(r) {
			return "", invalid("username", reasonCharacter)
		}
	}
	return name, nil
}

// Nickname returns a nickname as it is stored: in NFC, without space around
// it, 1 to MaxNickname characters of which one at least can be seen. Control
// characters, line separators and the characters that turn the direction of
// text around are refused: a name must not rearrange the page that shows it.
// The error is an [*Error] of kind InvalidInput.
func Nickname(raw string) (string, error) {
	switch {
	case len(raw) > maxRawNickname:
		return "", invalid("nickname", reasonTooLong)
	case !utf8.ValidString(raw):
		return "", invalid("nickname", reasonEncoding)
	}
	name := norm.NFC.String(strings.TrimSpace(raw))
	if utf8.RuneCountInString(name) > MaxNickname {
		return "", invalid("nickname", reasonTooLong)
	}
	seen := false
	for _, r := range name {
		if turnsText(r) || !storable(r) {
			return "", invalid("nickname", reasonCharacter)
		}
		seen = seen || visible(r)
	}
	if !seen {
		return "", invalid("nickname", reasonTooShort)
	}
	return name, nil
}

// storable reports whether r may stand in a stored name: no control, no line
// or paragraph separator, no private use, no noncharacter, and not what
// decoders put where the encoding was broken.
func storable(r rune) bool {
	return !unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Co, unicode.Noncharacter_Code_Point) &&
		r != utf8.RuneError && r != '\ufeff'
}

// turnsText reports whether r embeds, overrides or isolates a direction of
// writing (Unicode's UAX #9 §2).
func turnsText(r rune) bool {
	return r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

// visible reports whether r alone leaves a mark.
func visible(r rune) bool {
	return !unicode.IsSpace(r) &&
		!unicode.In(r, unicode.Z, unicode.Mn, unicode.Me, unicode.Cf, unicode.Variation_Selector,
			unicode.Other_Default_Ignorable_Code_Point) &&
		r != '\u2800' // BRAILLE PATTERN BLANK
}

// Picture checks the URL of a picture: an absolute https URL without userinfo,
// at most MaxPicture bytes, spelled with the characters of RFC 3986 alone. ""
// is allowed and means none. The error is an [*Error] of kind InvalidInput.
func Picture(raw string) (string, error) {
	if raw == "" {
		return "", nil
	}
	if len(raw) > MaxPicture {
		return "", invalid("picture", reasonTooLong)
	}
	for _, c := range []byte(raw) {
		if c <= ' ' || c > '~' || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			return "", invalid("picture", reasonCharacter)
		}
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Opaque != "" {
		return "", invalid("picture", reasonURL)
	}
	return raw, nil
}

// ValidateProfile returns change as it is to be stored. The error is an
// [*Error] of kind InvalidInput with Param nickname or picture.
func ValidateProfile(change storage.ProfileChange) (storage.ProfileChange, error) {
	var out storage.ProfileChange
	if change.Nickname != nil {
		nickname, err := Nickname(*change.Nickname)
		if err != nil {
			return storage.ProfileChange{}, err
		}
		out.Nickname = &nickname
	}
	if change.Picture != nil {
		picture, err := Picture(*change.Picture)
		if err != nil {
			return storage.ProfileChange{}, err
		}
		out.Picture = &picture
	}
	return out, nil
}
