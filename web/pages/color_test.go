package pages

import (
	"regexp"
	"strings"
	"testing"
)

func TestContrast(t *testing.T) {
	for _, tt := range []struct {
		a, b     string
		from, to float64
	}{
		{"#000", "#fff", 20.99, 21.01}, {"#fff", "#000", 20.99, 21.01}, {"#fff", "#ffffff", 1, 1}, {"#767676", "#fff", 4.53, 4.55}, {"#f00", "#fff", 3.99, 4.01},
	} {
		a, errA := parseColor(tt.a)
		b, errB := parseColor(tt.b)
		if got := contrast(a, b); errA != nil || errB != nil || got < tt.from || got > tt.to {
			t.Errorf("%s on %s: %v", tt.a, tt.b, got)
		}
	}
}

// TestTheBrandsColorStays: a colour that is visible in both modes fills buttons
// as it is.
func TestTheBrandsColorStays(t *testing.T) {
	p, err := newPalette("")
	if err != nil {
		t.Fatal(err)
	}
	if p.accent.String() != "#07c160" || p.dark.accent.String() != "#07c160" {
		t.Errorf("light %v, dark %v", p.accent, p.dark.accent)
	}
}

// FuzzPalette: whatever the brand's colour, text is readable in both modes.
func FuzzPalette(f *testing.F) {
	for _, seed := range []string{"", "#07c160", "#fff", "#000", "#777", "#7f7f7f", "#ffff00", "#00f", "#123456", "#f3f5f4", "#1b211e", "red", "#", "#12", "#1234567", "#ééé"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, color string) {
		light, err := newPalette(color)
		if err != nil {
			return
		}
		text := map[bool]rgb{false: styleColor(t, "ink", 0), true: styleColor(t, "ink", 1)}
		for isDark, p := range map[bool]palette{false: light, true: *light.dark} {
			surfaces := []rgb{styleColor(t, "card", 0), styleColor(t, "page", 0)}
			if isDark {
				surfaces = []rgb{styleColor(t, "card", 1), styleColor(t, "page", 1)}
			}
			pairs := map[string][2]rgb{
				"text on buttons": {p.onAccent, p.accent}, "text on hovered buttons": {p.onAccent, p.hover}, "text on tint": {text[isDark], p.tint},
				"links": {p.link, surfaces[0]}, "links on the page": {p.link, surfaces[1]},
			}
			for name, pair := range pairs {
				if got := contrast(pair[0], pair[1]); got < readable {
					t.Errorf("%q, dark %v: the contrast of %s is %.2f", color, isDark, name, got)
				}
			}
			if contrast(p.accent, surfaces[0]) < 1.9 {
				t.Errorf("%q, dark %v: buttons cannot be seen", color, isDark)
			}
		}
	})
}

// TestTheStylesheetIsReadable checks the colours that do not follow from the
// brand's.
func TestTheStylesheetIsReadable(t *testing.T) {
	for mode, name := range []string{"light", "dark"} {
		for _, pair := range [][2]string{
			{"ink", "page"}, {"ink", "card"}, {"ink", "field"}, {"muted", "page"}, {"muted", "card"},
			{"danger", "card"}, {"danger", "danger-tint"}, {"danger", "page"}, {"warn", "warn-tint"},
		} {
			if got := contrast(styleColor(t, pair[0], mode), styleColor(t, pair[1], mode)); got < readable {
				t.Errorf("%s: %s on %s has a contrast of %.2f", name, pair[0], pair[1], got)
			}
		}
		// WCAG 2.2 §1.4.11: the edge of a field.
		if got := contrast(styleColor(t, "edge", mode), styleColor(t, "card", mode)); got < 3 {
			t.Errorf("%s: the edge of fields has a contrast of %.2f", name, got)
		}
	}
	if styleColor(t, "page", 0) != lightSurface || styleColor(t, "card", 1) != darkSurface {
		t.Error("the palette reckons with other surfaces than the stylesheet's")
	}
}

// TestEveryPropertyIsDefined: a custom property that nobody defines would fall
// back to nothing.
func TestEveryPropertyIsDefined(t *testing.T) {
	r := newRenderer(t, "")
	style, brand := string(r.Assets()[r.links.Style].Body), string(r.Assets()[r.links.Brand].Body)
	for _, match := range regexp.MustCompile(`var\((--[a-z-]+)\)`).FindAllStringSubmatch(style, -1) {
		if !strings.Contains(style, match[1]+":") && !strings.Contains(brand, match[1]+":") {
			t.Errorf("%s is not defined", match[1])
		}
	}
	for _, needed := range []string{"prefers-color-scheme: dark", "prefers-reduced-motion: reduce", ":focus-visible", "color-scheme: light dark"} {
		if !strings.Contains(style, needed) {
			t.Errorf("the stylesheet has no %s", needed)
		}
	}
}

// styleColor is a custom property of the stylesheet: of light mode, which comes
// first, or of dark mode.
func styleColor(t *testing.T, name string, mode int) rgb {
	t.Helper()
	style, err := staticFiles.ReadFile("static/style.css")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^ +--`+name+`: (#[0-9a-f]+);$`).FindAllStringSubmatch(string(style), -1)
	if len(found) != 2 {
		t.Fatalf("--%s is defined %d times", name, len(found))
	}
	color, err := parseColor(found[mode][1])
	if err != nil {
		t.Fatal(err)
	}
	return color
}
