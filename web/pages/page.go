package pages

import (
	"fmt"
	"html/template"
	"net/url"
	"slices"
	"strings"
	"time"
)

// page is what templates see: View is the page's own, all else is for any.
type page struct {
	Context
	View     any
	name     string
	renderer *Renderer
}

// functions are what templates may call besides the methods of page.
var functions = template.FuncMap{"href": href}

// href returns an address that a link may lead to, "" for any other. Besides
// the web's schemes these are WeChat's own and private-use ones, which have a
// dot (RFC 8252 §7.1): clients may be apps. html/template lets neither pass.
func href(address string) template.URL {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	switch {
	case u.Scheme == "http", u.Scheme == "https":
		if u.Host == "" {
			return ""
		}
	case u.Scheme == "weixin", strings.Contains(u.Scheme, "."):
	case u.Scheme == "" && u.Host == "" && !strings.Contains(address, `\`):
	default:
		return ""
	}
	return template.URL(address)
}

// T is a text in the page's language, formatted with args.
func (p *page) T(key string, args ...any) (string, error) {
	text, ok := texts[key]
	if !ok {
		return "", fmt.Errorf("there is no text %q", key)
	}
	format := text.zh
	if p.Lang == English {
		format = text.en
	}
	if len(args) == 0 {
		return format, nil
	}
	return fmt.Sprintf(format, args...), nil
}

// Title is the document's title.
func (p *page) Title() (string, error) { return p.T(p.name + ".title") }

// Name is the page's name, for styles.
func (p *page) Name() string { return p.name }

// Wide reports whether the page has two columns where there is room.
func (p *page) Wide() bool {
	v, ok := p.View.(SignIn)
	return ok && v.Password && v.Scan != nil
}

// Brand is the issuer's.
func (p *page) Brand() Brand { return p.renderer.brand }

// Initial stands for a logo where there is none.
func (p *page) Initial() string { return initial(p.renderer.brand.Name) }

// Links are the paths of assets.
func (p *page) Links() links { return p.renderer.links }

// CSRFField is the name of the field with CSRF.
func (p *page) CSRFField() string { return CSRFField }

// OtherLang is the language that the page is not in.
func (p *page) OtherLang() Lang {
	if p.Lang == English {
		return Chinese
	}
	return English
}

// OtherURL is the page's address in the other language.
func (p *page) OtherURL() string {
	address, query, _ := strings.Cut(p.URL, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		values = url.Values{}
	}
	values.Set(LangParam, string(p.OtherLang()))
	return address + "?" + values.Encode()
}

// AccountPath is the path of the account page.
func (p *page) AccountPath() string { return p.renderer.prefix + "/account" }

// Initials is the first letter of somebody's name.
func (p *page) Initials(name string) string { return initial(name) }

// Seconds is a duration in whole seconds, never negative.
func (p *page) Seconds(d time.Duration) int64 { return max(int64(d/time.Second), 0) }

// State is the state of a QR code.
func (p *page) State(s Scan) ScanState {
	if s.State == "" {
		return ScanWaiting
	}
	return s.State
}

// ScanText is what the page says of a QR code in this state.
func (p *page) ScanText(s ScanState) (string, error) { return p.T("scan." + string(s)) }

// moment is a time for machines and for people.
type moment struct{ Machine, Human string }

// Moment is a time as written in the page's language. A script puts it into the
// browser's own zone, so the zone is named.
func (p *page) Moment(t time.Time) moment {
	if t.IsZero() {
		return moment{Human: "–"}
	}
	layout := "2006年1月2日 15:04 (UTC-07:00)"
	if p.Lang == English {
		layout = "2 Jan 2006, 15:04 (UTC-07:00)"
	}
	return moment{t.Format(time.RFC3339), t.Format(layout)}
}

// Scopes completes the texts of scopes; offline_access is among them where the
// client asks for it.
func (p *page) Scopes(v Consent) []ScopeText {
	scopes := slices.Clone(v.Scopes)
	if v.Offline && !slices.ContainsFunc(scopes, func(s ScopeText) bool { return s.Name == offlineAccess }) {
		scopes = append(scopes, ScopeText{Name: offlineAccess})
	}
	for i, scope := range scopes {
		if scope.Title == "" {
			scopes[i].Title = p.ScopeTitle(scope.Name)
			scopes[i].Text = p.named("scope."+scope.Name+".text", scope.Text)
		}
	}
	return scopes
}

const offlineAccess = "offline_access"

// ScopeTitle is what a scope is called, its name where nothing is known.
func (p *page) ScopeTitle(scope string) string { return p.named("scope."+scope, scope) }

// ClaimTitle is what a claim is called, its name where nothing is known.
func (p *page) ClaimTitle(claim string) string { return p.named("claim."+claim, claim) }

func (p *page) named(key, otherwise string) string {
	if known, err := p.T(key); err == nil {
		return known
	}
	return otherwise
}

// initial is the first letter of a name.
func initial(name string) string {
	for _, letter := range strings.TrimSpace(name) {
		return strings.ToUpper(string(letter))
	}
	return ""
}
