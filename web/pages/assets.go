package pages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"maps"
)

// AssetsPath is where assets are, below the issuer's path.
const AssetsPath = "/assets/"

// Asset is a file that pages name. Its path has a hash of its content, so it
// may be cached for ever.
type Asset struct {
	Body        []byte // not to be changed
	ContentType string
	ETag        string // quoted
}

// links are the URL paths of assets.
type links struct {
	Style, Brand, App, FormPost, Logo, Icon string
}

//go:embed static
var staticFiles embed.FS

// logoTypes are the media types that a logo may have, and their file names'
// endings.
var logoTypes = map[string]string{
	"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp",
}

// Assets returns all assets by URL path, which starts with the issuer's path
// and AssetsPath.
func (r *Renderer) Assets() map[string]Asset { return maps.Clone(r.assets) }

func (r *Renderer) makeAssets() error {
	palette, err := newPalette(r.brand.Color)
	if err != nil {
		return err
	}
	r.assets = make(map[string]Asset)
	for _, file := range []struct {
		name, ending, contentType string
		link                      *string
	}{
		{"style", "css", "text/css; charset=utf-8", &r.links.Style},
		{"app", "js", "text/javascript; charset=utf-8", &r.links.App},
		{"formpost", "js", "text/javascript; charset=utf-8", &r.links.FormPost},
	} {
		body, err := staticFiles.ReadFile("static/" + file.name + "." + file.ending)
		if err != nil {
			return err
		}
		*file.link = r.addAsset(file.name, file.ending, file.contentType, body)
	}
	r.links.Brand = r.addAsset("brand", "css", "text/css; charset=utf-8", palette.stylesheet())

	if r.brand.Logo == nil {
		r.links.Icon = r.addAsset("icon", "svg", "image/svg+xml", palette.icon(initial(r.brand.Name)))
		return nil
	}
	ending, ok := logoTypes[r.brand.LogoType]
	if !ok {
		return fmt.Errorf("a logo of type %q cannot be shown: use SVG, PNG, JPEG or WebP", r.brand.LogoType)
	}
	r.links.Logo = r.addAsset("logo", ending, r.brand.LogoType, bytes.Clone(r.brand.Logo))
	r.links.Icon = r.links.Logo
	return nil
}

func (r *Renderer) addAsset(name, ending, contentType string, body []byte) (path string) {
	sum := sha256.Sum256(body)
	hash := base64.RawURLEncoding.EncodeToString(sum[:12])
	path = r.prefix + AssetsPath + name + "." + hash + "." + ending
	r.assets[path] = Asset{Body: body, ContentType: contentType, ETag: `"` + hash + `"`}
	return path
}

// icon is a picture of one letter.
func (p palette) icon(letter string) []byte {
	return []byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">` +
		`<rect width="64" height="64" rx="16" fill="` + p.accent.String() + `"/>` +
		`<text x="32" y="44" text-anchor="middle" font-family="system-ui,sans-serif" font-size="36" font-weight="600" fill="` + p.onAccent.String() + `">` +
		template.HTMLEscapeString(letter) + `</text></svg>`)
}
