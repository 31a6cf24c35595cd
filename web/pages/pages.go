// Package pages renders every HTML page of the issuer from plain view structs,
// in Chinese and English, and holds the stylesheet, scripts and pictures that
// the pages name. It knows nothing of HTTP, of OAuth or of stores.
//
// Pages need no inline script and no inline style. They work without any
// script, except that a scanned QR code is then confirmed by a button.
package pages

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"path"
	"strings"
)

// CSRFField is the name of the hidden field with Context.CSRF, which every form
// that goes back to the issuer has.
const CSRFField = "csrf"

// TermsField is the name of the hidden field with Consent.Terms.
const TermsField = "terms"

// LangParam is the query parameter that language links add to Context.URL.
const LangParam = "lang"

// Brand is how an issuer presents itself.
type Brand struct {
	Name       string // "": wxidp
	Color      string // #rgb or #rrggbb; "": WeChat's green
	Logo       []byte // nil: the first letter of Name
	LogoType   string // media type of Logo: image/svg+xml, image/png, image/jpeg or image/webp
	PrivacyURI string // "": no link
	TermsURI   string // "": no link
}

// Context is what every page needs besides its view.
type Context struct {
	Lang Lang
	CSRF string // the value of the field CSRFField
	// URL is the page's own address, to which language links add LangParam: a
	// path, with a query where there is one. "": the page has no such links.
	URL string
}

// Renderer makes the pages of one issuer. It is immutable and safe for
// concurrent use; another brand needs another Renderer.
type Renderer struct {
	prefix    string
	brand     Brand
	templates map[string]*template.Template
	assets    map[string]Asset
	links     links
}

//go:embed templates/*.html
var templateFiles embed.FS

// New returns a renderer for an issuer whose URL has this path, "" for most. It
// fails where the brand's colour or logo is unusable.
func New(prefix string, brand Brand) (*Renderer, error) {
	if brand.Name == "" {
		brand.Name = "wxidp"
	}
	r := &Renderer{prefix: strings.TrimSuffix(prefix, "/"), brand: brand}
	if err := r.makeAssets(); err != nil {
		return nil, err
	}
	if err := r.parseTemplates(); err != nil {
		return nil, err
	}
	return r, nil
}

// parseTemplates makes one template for each page, all with the same frame.
func (r *Renderer) parseTemplates() error {
	frame, err := template.New("frame").Funcs(functions).ParseFS(templateFiles, "templates/frame.html")
	if err != nil {
		return err
	}
	files, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return err
	}
	r.templates = make(map[string]*template.Template, len(files))
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".html")
		if name == "frame" {
			continue
		}
		page, err := frame.Clone()
		if err != nil {
			return err
		}
		if r.templates[name], err = page.ParseFS(templateFiles, file); err != nil {
			return err
		}
	}
	return nil
}

// render executes the page of this name, whose document title is the text
// name + ".title".
func (r *Renderer) render(name string, ctx Context, view any) ([]byte, error) {
	var out bytes.Buffer
	p := page{Context: ctx, View: view, name: name, renderer: r}
	if p.Lang != English {
		p.Lang = Chinese
	}
	if err := r.templates[name].ExecuteTemplate(&out, "frame", &p); err != nil {
		return nil, fmt.Errorf("page %s: %w", name, err)
	}
	return out.Bytes(), nil
}
