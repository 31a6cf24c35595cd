package pages

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestAssetsAreNamedByTheirContent(t *testing.T) {
	green := newRenderer(t, "/id").Assets()
	blue, err := New("/id/", Brand{Name: "acme", Color: "#00f", Logo: []byte("<svg/>"), LogoType: "image/svg+xml"})
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`^/id/assets/([a-z]+)\.[A-Za-z0-9_-]{16}\.(css|js|svg)$`)
	kinds := map[string]string{}
	for _, assets := range []map[string]Asset{green, blue.Assets()} {
		for path, asset := range assets {
			match := name.FindStringSubmatch(path)
			if match == nil {
				t.Errorf("asset %q", path)
				continue
			}
			kinds[match[1]] = asset.ContentType
			if !strings.Contains(path, strings.Trim(asset.ETag, `"`)) || len(asset.ETag) != 18 || len(asset.Body) == 0 {
				t.Errorf("%s: ETag %s, %d bytes", path, asset.ETag, len(asset.Body))
			}
		}
	}
	want := map[string]string{"style": "text/css; charset=utf-8", "brand": "text/css; charset=utf-8", "app": "text/javascript; charset=utf-8",
		"formpost": "text/javascript; charset=utf-8", "icon": "image/svg+xml", "logo": "image/svg+xml"}
	if !maps.Equal(kinds, want) {
		t.Errorf("kinds: %v", kinds)
	}
	shared := 0
	for path := range blue.Assets() {
		if _, ok := green[path]; ok {
			shared++
		}
	}
	if shared != 3 {
		t.Errorf("%d assets are the same for another brand, want style and two scripts", shared)
	}
}

func TestAssetsLoadNothingElse(t *testing.T) {
	for path, asset := range newRenderer(t, "").Assets() {
		for _, foreign := range []string{"url(", "@import", "http:", "https:", "eval(", "innerHTML"} {
			if bytes.Contains(bytes.ReplaceAll(asset.Body, []byte("http://www.w3.org/2000/svg"), nil), []byte(foreign)) {
				t.Errorf("%s has %q", path, foreign)
			}
		}
	}
}

func TestTheIconIsWellFormed(t *testing.T) {
	for _, name := range []string{"acme", "云", "<b>", "&", ""} {
		r, err := New("", Brand{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		decoder := xml.NewDecoder(bytes.NewReader(r.Assets()[r.links.Icon].Body))
		for {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%q: %v", name, err)
			}
		}
	}
}

func TestUnusableBrands(t *testing.T) {
	for name, brand := range map[string]Brand{
		"no colour":      {Color: "green"},
		"four digits":    {Color: "#1234"},
		"no digits":      {Color: "#gggggg"},
		"CSS":            {Color: "#fff;}body{display:none"},
		"logo of GIF":    {Logo: []byte("GIF89a"), LogoType: "image/gif"},
		"logo of a page": {Logo: []byte("<html>"), LogoType: "text/html"},
	} {
		if _, err := New("", brand); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLogoReplacesTheInitial(t *testing.T) {
	logo := []byte("\x89PNG")
	r, err := New("", Brand{Name: "acme", Logo: logo, LogoType: "image/png"})
	if err != nil {
		t.Fatal(err)
	}
	logo[0] = 'x'
	raw, err := r.ScanLanding(Context{}, ScanLanding{})
	if err != nil {
		t.Fatal(err)
	}
	pictures := elements(parse(t, raw), "img")
	if len(pictures) != 1 || string(r.Assets()[attr(pictures[0], "src")].Body) != "\x89PNG" || bytes.Contains(raw, []byte(`logo initial`)) {
		t.Errorf("%s", raw)
	}
}

// TestQR reads the drawing back: it must have a quiet zone of four modules and
// finder patterns in three corners. What it says is the library's.
func TestQR(t *testing.T) {
	for _, text := range []string{"https://login.example.com/s/Zx8mTq3v1nq0KcYwB5pXeA", "12345", "微信", strings.Repeat("x", 2000)} {
		address, err := QR(text)
		if err != nil {
			t.Fatal(err)
		}
		encoded, ok := strings.CutPrefix(string(address), "data:image/svg+xml;base64,")
		svg, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil {
			t.Fatalf("%v: %s", err, address)
		}
		dark, size := modules(t, svg)
		finder := []string{"#######", "#.....#", "#.###.#", "#.###.#", "#.###.#", "#.....#", "#######"}
		for _, corner := range [][2]int{{4, 4}, {size - 11, 4}, {4, size - 11}} {
			for y, row := range finder {
				for x, module := range row {
					if dark[[2]int{corner[0] + x, corner[1] + y}] != (module == '#') {
						t.Fatalf("no finder pattern at %v of %q", corner, text)
					}
				}
			}
		}
		for at := range dark {
			if min(at[0], at[1]) < 4 || max(at[0], at[1]) >= size-4 {
				t.Fatalf("%q: the quiet zone is dark at %v", text, at)
			}
		}
	}
	if _, err := QR(strings.Repeat("x", 3000)); err == nil {
		t.Error("a text of 3000 bytes fits into a QR code")
	}
}

func modules(t *testing.T, svg []byte) (dark map[[2]int]bool, size int) {
	t.Helper()
	var drawing struct {
		ViewBox string `xml:"viewBox,attr"`
		Paths   []struct {
			Fill string `xml:"fill,attr"`
			D    string `xml:"d,attr"`
		} `xml:"path"`
	}
	if err := xml.Unmarshal(svg, &drawing); err != nil {
		t.Fatal(err)
	}
	bounds := integers(drawing.ViewBox)
	if len(drawing.Paths) != 2 || drawing.Paths[0].Fill != "#fff" || !slices.Equal(integers(drawing.Paths[0].D), []int{0, 0, bounds[2], bounds[2], 0}) {
		t.Fatalf("no white ground: %s", svg[:200])
	}
	dark = map[[2]int]bool{}
	for run := range strings.SplitSeq(strings.TrimSuffix(drawing.Paths[1].D, "z"), "z") {
		n := integers(run)
		for x := range n[2] {
			dark[[2]int{n[0] + x, n[1]}] = true
		}
	}
	return dark, bounds[2]
}

// integers are the numbers in a path, without signs.
func integers(s string) []int {
	var out []int
	for _, digits := range regexp.MustCompile(`\d+`).FindAllString(s, -1) {
		n := 0
		for _, d := range digits {
			n = n*10 + int(d-'0')
		}
		out = append(out, n)
	}
	return out
}
