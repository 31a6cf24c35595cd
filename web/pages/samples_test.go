package pages

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// sample is a page with a view that shows all its parts, without a word of its
// own language, and the elements that automation finds by id.
type sample struct {
	name   string
	render func(*Renderer, Context) ([]byte, error)
	ids    []string
}

var sampleTime = time.Date(2026, 11, 3, 9, 5, 0, 0, time.FixedZone("", 8*60*60))

func sampleScan(state ScanState) *Scan {
	return &Scan{Image: "data:image/svg+xml;base64,PHN2Zy8+", Link: "weixin://dl/business/?t=1&u=2", Number: "42", ExpiresIn: 90 * time.Second, State: state}
}

// show makes a sample of a method of Renderer.
func show[V any](name string, page func(*Renderer, Context, V) ([]byte, error), view V, ids ...string) sample {
	return sample{name, func(r *Renderer, ctx Context) ([]byte, error) { return page(r, ctx, view) }, ids}
}

func samples() []sample {
	scan := []string{"scan-code", "scan-number", "scan-refresh", "scan-done", "scan-link", "cancel"}
	password := []string{"username", "password", "sign-in", "cancel"}
	all := []sample{
		show("sign in", (*Renderer).SignIn, SignIn{Base: "/signin/7", Client: "shop", LoginHint: "ming", Notice: "1-2-3", Password: true, Scan: sampleScan("")}, slices.Concat(scan, password)...),
		show("sign in by password", (*Renderer).SignIn, SignIn{Base: "/signin/7", Client: "shop", Password: true}, password...),
		show("select account", (*Renderer).SelectAccount, SelectAccount{Base: "/signin/7", Client: "shop", Account: "ming"}, "continue", "switch", "cancel", "account"),
		show("consent", (*Renderer).Consent, Consent{Base: "/signin/7", Client: "shop", Account: "ming", Offline: true,
			Scopes: []ScopeText{{Name: "openid"}, {Name: "profile"}, {Name: "phone"}, {Name: "wechat"}, {Name: "wechat.data"}, {Name: "roles"}, {Name: "external_id"}, {Name: "device.approve"}},
			Claims: []string{"name", "nickname", "picture", "preferred_username", "given_name", "family_name", "middle_name", "profile", "website", "gender",
				"birthdate", "zoneinfo", "locale", "updated_at", "phone_number", "phone_number_verified", "auth_time", "acr", "amr", "roles", "external_id"}}, "allow", "deny", "switch", "account"),
		show("device", (*Renderer).DeviceEntry, DeviceEntry{Action: "/device", Code: "1234-5678", Notice: "1-2-3"}, "user-code", "device-next"),
		show("device approved", (*Renderer).DeviceDone, DeviceDone{Approved: true, Client: "shop"}, "device-done"),
		show("device denied", (*Renderer).DeviceDone, DeviceDone{Client: "shop"}, "device-done"),
		show("sign out", (*Renderer).SignOut, SignOut{Action: "/logout", Fields: []Field{{"state", "s"}}, Client: "shop", Account: "ming"}, "sign-out", "stay", "account"),
		show("signed out", (*Renderer).SignedOut, SignedOut{Client: "shop", ReturnURI: "com.example.shop:/out?a=1&b=2"}, "signed-out", "return"),
		show("signed out by nobody known", (*Renderer).SignedOut, SignedOut{ReturnURI: "https://shop.example/out"}, "signed-out"),
		show("error", (*Renderer).Error, Error{Message: "1-2-3", Code: "invalid_request", RequestID: "r-1"}, "error", "error-code", "request-id"),
		show("form post", (*Renderer).FormPost, FormPost{Action: "https://shop.example/cb", Fields: []Field{{"code", "c"}, {"submit", "s"}}}, "form-post"),
		show("scan landing", (*Renderer).ScanLanding, ScanLanding{}),
		show("empty account", (*Renderer).Account, Account{Name: "ming"}, "account", "sign-out", "sign-out-everywhere"),
		show("account", (*Renderer).Account, Account{Name: "ming", Username: "ming", Phone: "138****1234",
			Identities: []Identity{{"shop", sampleTime}},
			Logins:     []Login{{"L1", "chrome", "192.0.2.0/24", sampleTime, true}, {"L2", "", "", sampleTime, false}},
			SignIns:    []ClientSignIn{{"F1", "shop", sampleTime, sampleTime}, {"F2", "shop", sampleTime, time.Time{}}},
			Consents:   []GrantedConsent{{"shop-id", "shop", []string{"openid", "offline_access"}, sampleTime}}}, "account", "sign-out", "sign-out-everywhere"),
	}
	for _, state := range []ScanState{ScanScanned, ScanApproved, ScanDenied, ScanExpired} {
		all = append(all, show("code "+string(state), (*Renderer).SignIn, SignIn{Base: "/signin/7", Client: "shop", Scan: sampleScan(state)}, scan...))
	}
	return all
}

func sampleContext(lang Lang) Context {
	return Context{Lang: lang, CSRF: "csrf-7", URL: "/here?a=b%26c&lang=fr"}
}

func newRenderer(t *testing.T, prefix string) *Renderer {
	t.Helper()
	r, err := New(prefix, Brand{Name: "acme", PrivacyURI: "https://acme.example/privacy", TermsURI: "https://acme.example/terms"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// eachPage runs a check on every sample in both languages.
func eachPage(t *testing.T, check func(t *testing.T, r *Renderer, s sample, lang Lang, raw []byte, doc *html.Node)) {
	r := newRenderer(t, "/id")
	for _, s := range samples() {
		for _, lang := range []Lang{Chinese, English} {
			t.Run(s.name+"/"+string(lang), func(t *testing.T) {
				raw, err := s.render(r, sampleContext(lang))
				if err != nil {
					t.Fatal(err)
				}
				check(t, r, s, lang, raw, parse(t, raw))
			})
		}
	}
}

func parse(t *testing.T, raw []byte) *html.Node {
	t.Helper()
	doc, err := html.ParseWithOptions(bytes.NewReader(raw), html.ParseOptionEnableScripting(false))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// elements are all elements with one of these names; without names, all.
func elements(doc *html.Node, names ...string) []*html.Node {
	var found []*html.Node
	for n := range doc.Descendants() {
		if n.Type == html.ElementNode && (len(names) == 0 || slices.Contains(names, n.Data)) {
			found = append(found, n)
		}
	}
	return found
}

func byID(doc *html.Node, id string) *html.Node {
	for _, n := range elements(doc) {
		if attr(n, "id") == id {
			return n
		}
	}
	return nil
}

func attr(n *html.Node, name string) string {
	value, _ := lookup(n, name)
	return value
}

func lookup(n *html.Node, name string) (value string, ok bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

// content is the text in an element, with single spaces.
func content(n *html.Node) string {
	var text strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			text.WriteString(d.Data + " ")
		}
	}
	return strings.Join(strings.Fields(text.String()), " ")
}
