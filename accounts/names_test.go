package accounts

import (
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/wxidp/wxidp/storage"
)

func TestCanonicalUsername(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{"alice", "alice"},
		{"Alice", "alice"},
		{" alice\t\n", "alice"},
		{"ａｌｉｃｅ", "alice"}, // full-width
		{"ALİCE", "ali\u0307ce"},
		{"Straße", "strasse"},
		{"ΣΊΣΥΦΟΣ", "σίσυφοσ"},
		{"\u00c5ngstr\u00f6m", "ångström"},
		{"A\u030angstro\u0308m", "ångström"},
		{"\u212bngstr\u00f6m", "ångström"}, // ANGSTROM SIGN
		{"ﬁsh", "fish"},
		{"alice@shop.example", "alice@shop.example"},
		{"+86 138 0000 1234", "+86 138 0000 1234"},
		{"\u3000张三\u3000", "张三"},
		{"张\u3000三", "张 三"},
		{strings.Repeat("x", 128), strings.Repeat("x", 128)},
	} {
		got, err := CanonicalUsername(c.raw)
		if err != nil || got != c.want {
			t.Errorf("%q became %q, %v; want %q", c.raw, got, err, c.want)
		}
	}
	for _, c := range []struct{ raw, reason string }{
		{"", "too_short"},
		{" \t\u3000", "too_short"},
		{strings.Repeat("x", 129), "too_long"},
		{strings.Repeat("张", 43), "too_long"},
		{strings.Repeat("\ufdfa", 20), "too_long"}, // 18 characters each in NFKC
		{strings.Repeat(" ", 2000), "too_long"},
		{"a\xffb", "encoding"},
		{"a\x00b", "character"},
		{"a\nb", "character"},
		{"a\x7fb", "character"},
		{"a\u0085b", "character"},
		{"ali\u200bce", "character"}, // zero width space
		{"ali\u00adce", "character"}, // soft hyphen
		{"\u202eecila", "character"},
		{"a\u2028b", "character"},
		{"a\u1680b", "character"}, // a space that NFKC leaves alone
		{"\ufeffalice", "character"},
		{"a\ufffdb", "character"},
		{"a\ue000b", "character"},
	} {
		_, err := CanonicalUsername(c.raw)
		if e := asError(t, err, InvalidInput); e.Param != "username" || e.Reason != c.reason {
			t.Errorf("%q: %v, want %s", c.raw, e, c.reason)
		}
	}
}

func FuzzCanonicalUsername(f *testing.F) {
	for _, seed := range []string{"Alice", "ａｌｉｃｅ", "ALİCE", "Straße", "\u1e9e", "\u0345\u03b1", "\u00b4x", "x\u00b4",
		"\u2126\u212a\u212b", "\u1fbc", "\ufb03", "\u3000a\u3000", "a\u200db", "\u0390\u1fd3", "\U0001d400"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := CanonicalUsername(raw)
		if err != nil {
			asError(t, err, InvalidInput)
			return
		}
		if name == "" || len(name) > MaxUsername || !utf8.ValidString(name) || strings.TrimSpace(name) != name {
			t.Fatalf("%q became %q", raw, name)
		}
		for what, other := range map[string]string{
			"itself": name, "upper case": strings.ToUpper(name), "NFD": norm.NFD.String(name), "NFKD": norm.NFKD.String(name),
		} {
			if what == "upper case" && norm.NFKC.String(strings.ToLower(other)) != name {
				continue // some characters do not come back from upper case
			}
			again, err := CanonicalUsername(other)
			if err != nil || again != name {
				t.Fatalf("%q became %q, but its %s %q became %q (%v)", raw, name, what, other, again, err)
			}
		}
	})
}

func TestNickname(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{"小明", "小明"},
		{"  Ann  ", "Ann"},
		{"e\u0301", "\u00e9"},
		{"👨‍👩‍👧", "👨‍👩‍👧"}, // joined by zero width joiners
		{"❤️", "❤️"},
		{"मुझे", "मुझे"},
		{"ÅÆ ok", "ÅÆ ok"},
		{"ＡＢＣ", "ＡＢＣ"}, // NFC leaves what people have chosen
		{"<script>", "<script>"},
		{strings.Repeat("名", 64), strings.Repeat("名", 64)},
		{strings.Repeat("e\u0301", 64), strings.Repeat("\u00e9", 64)},
	} {
		got, err := Nickname(c.raw)
		if err != nil || got != c.want {
			t.Errorf("%q became %q, %v; want %q", c.raw, got, err, c.want)
		}
	}
	for _, c := range []struct{ raw, reason string }{
		{"", "too_short"},
		{"   ", "too_short"},
		{"\u200d\u200b", "too_short"},
		{"\u3164", "too_short"}, // HANGUL FILLER
		{"\u2800", "too_short"},
		{"\u0301", "too_short"},
		{"\u200e", "too_short"},
		{strings.Repeat("名", 65), "too_long"},
		{strings.Repeat("x", 5000), "too_long"},
		{"a\xff", "encoding"},
		{"a\nb", "character"},
		{"a\x00b", "character"},
		{"a\x1b[31mb", "character"},
		{"a\u202eb", "character"},
		{"a\u202ab", "character"},
		{"a\u2066b", "character"},
		{"a\u2069b", "character"},
		{"a\u2028b", "character"},
		{"a\ufffeb", "character"},
		{"a\ufeffb", "character"},
		{"a\ufffdb", "character"},
		{"a\ue000b", "character"},
	} {
		_, err := Nickname(c.raw)
		if e := asError(t, err, InvalidInput); e.Param != "nickname" || e.Reason != c.reason {
			t.Errorf("%q: %v, want %s", c.raw, e, c.reason)
		}
	}
}

func FuzzNickname(f *testing.F) {
	for _, seed := range []string{"小明", "  Ann ", "e\u0301", "👨‍👩‍👧", "a\u202eb", "\u1100\u1161\u11a8", "\u0f71\u0f72"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := Nickname(raw)
		if err != nil {
			asError(t, err, InvalidInput)
			return
		}
		if n := utf8.RuneCountInString(name); n < 1 || n > MaxNickname || strings.ContainsAny(name, "\x00\n\r\u202e\u2028") {
			t.Fatalf("%q became %q", raw, name)
		}
		if again, err := Nickname(name); err != nil || again != name {
			t.Fatalf("%q became %q, and that %q (%v)", raw, name, again, err)
		}
	})
}

func TestPicture(t *testing.T) {
	long := "https://cdn.example/" + strings.Repeat("x", MaxPicture-len("https://cdn.example/"))
	for _, raw := range []string{
		"", "https://cdn.example/a.png", "HTTPS://cdn.example:8443/a?b=c&d=%E5%B0%8F#e", "https://[2001:db8::1]/x", long,
	} {
		if got, err := Picture(raw); err != nil || got != raw {
			t.Errorf("%q became %q, %v", raw, got, err)
		}
	}
	for _, c := range []struct{ raw, reason string }{
		{long + "x", "too_long"},
		{"http://cdn.example/a.png", "url"},
		{"javascript:alert(1)", "url"},
		{"data:image/png;base64,AAAA", "url"},
		{"//cdn.example/a.png", "url"},
		{"/a.png", "url"},
		{"https:a.png", "url"},
		{"https:///a.png", "url"},
		{"https://:443/a.png", "url"},
		{"https://user@cdn.example/", "url"},
		{"https://user:pw@cdn.example/", "url"},
		{"https://@cdn.example/", "url"},
		{"https://cdn.example/%zz", "url"},
		{"https://cdn.example/小.png", "character"},
		{"https://cdn.example/a b", "character"},
		{" https://cdn.example/", "character"},
		{"https://cdn.example/\n", "character"},
		{"https://cdn.example/\"><script>", "character"},
		{"https:\\\\cdn.example\\", "character"},
	} {
		_, err := Picture(c.raw)
		if e := asError(t, err, InvalidInput); e.Param != "picture" || e.Reason != c.reason {
			t.Errorf("%q: %v, want %s", c.raw, e, c.reason)
		}
	}
}

func FuzzPicture(f *testing.F) {
	f.Add("https://cdn.example/a.png")
	f.Add("https://user@cdn.example/")
	f.Add("https://a@b@c/")
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := Picture(raw)
		if err != nil {
			asError(t, err, InvalidInput)
			return
		}
		if got != raw || raw != "" && !strings.HasPrefix(strings.ToLower(raw), "https://") ||
			strings.ContainsAny(raw, " <>\"\\\n") || len(raw) > MaxPicture {
			t.Fatalf("%q became %q", raw, got)
		}
	})
}

func TestValidateProfile(t *testing.T) {
	str := func(s string) *string { return &s }
	got, err := ValidateProfile(storage.ProfileChange{Nickname: str(" Ann "), Picture: str("")})
	if err != nil || got.Nickname == nil || *got.Nickname != "Ann" || got.Picture == nil || *got.Picture != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := ValidateProfile(storage.ProfileChange{}); err != nil || got != (storage.ProfileChange{}) {
		t.Errorf("nothing became %+v, %v", got, err)
	}
	for param, change := range map[string]storage.ProfileChange{
		"nickname": {Nickname: str(""), Picture: str("https://cdn.example/")},
		"picture":  {Nickname: str("Ann"), Picture: str("http://cdn.example/")},
	} {
		got, err := ValidateProfile(change)
		if e := asError(t, err, InvalidInput); e.Param != param || got != (storage.ProfileChange{}) {
			t.Errorf("%+v, %v", got, e)
		}
	}
}

func TestNewProfile(t *testing.T) {
	d := NewDefaults(storage.Profile{Nickname: "微信用户{n}", Picture: "https://cdn.example/a.png"})
	p := d.NewProfile()
	digits, ok := strings.CutPrefix(p.Nickname, "微信用户")
	if !ok || len(digits) != 4 || strings.Trim(digits, "0123456789") != "" || p.Picture != "https://cdn.example/a.png" {
		t.Errorf("got %+v", p)
	}
	d.SetTemplate(storage.Profile{Nickname: "n"})
	if p := d.NewProfile(); p != (storage.Profile{Nickname: "n"}) {
		t.Errorf("got %+v", p)
	}
}
