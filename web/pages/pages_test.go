package pages

import (
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

func TestPagesHaveTheElementsThatAutomationFinds(t *testing.T) {
	eachPage(t, func(t *testing.T, _ *Renderer, s sample, _ Lang, _ []byte, doc *html.Node) {
		for _, id := range s.ids {
			if byID(doc, id) == nil {
				t.Errorf("no element has the id %q", id)
			}
		}
		seen := map[string]bool{}
		for _, n := range elements(doc) {
			if id, ok := lookup(n, "id"); ok {
				if seen[id] {
					t.Errorf("two elements have the id %q", id)
				}
				seen[id] = true
			}
		}
	})
}

func TestPagesAreAccessible(t *testing.T) {
	eachPage(t, func(t *testing.T, _ *Renderer, s sample, lang Lang, _ []byte, doc *html.Node) {
		if got := attr(elements(doc, "html")[0], "lang"); got != string(lang) {
			t.Errorf("lang is %q", got)
		}
		for _, name := range []string{"h1", "main", "header", "title", "footer"} {
			if found := elements(doc, name); len(found) != 1 || content(found[0]) == "" {
				t.Errorf("there is not one filled %s", name)
			}
		}
		for _, n := range elements(doc, "input") {
			if attr(n, "type") != "hidden" && !labelled(doc, attr(n, "id")) {
				t.Errorf("input %q has no label", attr(n, "id"))
			}
		}
		for _, n := range elements(doc, "button", "a", "h1", "h2", "label", "dt") {
			if content(n) == "" {
				t.Errorf("a %s without words", n.Data)
			}
		}
		for _, n := range elements(doc, "img") {
			if _, ok := lookup(n, "alt"); !ok {
				t.Error("a picture without a text")
			}
		}
		for _, n := range elements(doc) {
			for _, reference := range []string{"aria-labelledby", "aria-describedby", "for"} {
				for id := range strings.FieldsSeq(attr(n, reference)) {
					if byID(doc, id) == nil {
						t.Errorf("%s names %q, which is not there", reference, id)
					}
				}
			}
		}
		if focused := count(elements(doc), "autofocus"); focused > 1 {
			t.Errorf("%d elements want the focus", focused)
		}
	})
}

func labelled(doc *html.Node, id string) bool {
	for _, label := range elements(doc, "label") {
		if attr(label, "for") == id {
			return true
		}
	}
	return false
}

func count(nodes []*html.Node, attribute string) (n int) {
	for _, node := range nodes {
		if _, ok := lookup(node, attribute); ok {
			n++
		}
	}
	return n
}

// TestPagesKeepToThePolicy: a Content-Security-Policy of 'self' must be enough.
func TestPagesKeepToThePolicy(t *testing.T) {
	eachPage(t, func(t *testing.T, r *Renderer, _ sample, _ Lang, _ []byte, doc *html.Node) {
		assets := r.Assets()
		for _, n := range elements(doc) {
			for _, a := range n.Attr {
				if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
					t.Errorf("<%s> has the attribute %s", n.Data, a.Key)
				}
				if strings.Contains(a.Val, "ZgotmplZ") {
					t.Errorf("<%s %s> was refused by html/template", n.Data, a.Key)
				}
			}
			switch n.Data {
			case "style", "base", "iframe", "object", "embed":
				t.Errorf("there is a <%s>", n.Data)
			case "script":
				if n.FirstChild != nil {
					t.Error("there is an inline script")
				}
				fallthrough
			case "img", "link":
				address := attr(n, "src") + attr(n, "href")
				if _, ok := assets[address]; !ok && !strings.HasPrefix(address, "data:image/") {
					t.Errorf("<%s> loads %q, which is no asset", n.Data, address)
				}
			}
		}
	})
}

func TestFormsCarryTheCSRFToken(t *testing.T) {
	eachPage(t, func(t *testing.T, _ *Renderer, s sample, _ Lang, _ []byte, doc *html.Node) {
		for _, form := range elements(doc, "form") {
			if attr(form, "method") != "post" {
				t.Errorf("a form is sent by %q", attr(form, "method"))
			}
			found := 0
			for _, field := range elements(form, "input") {
				if attr(field, "name") == CSRFField && attr(field, "value") == "csrf-7" {
					found++
				}
			}
			// A token must never leave the issuer.
			outside := strings.Contains(attr(form, "action"), "://")
			if outside && found != 0 || !outside && found != 1 {
				t.Errorf("the form to %q has the token %d times", attr(form, "action"), found)
			}
		}
	})
}

func TestFormsPostWhereHandlersListen(t *testing.T) {
	want := map[string][]string{
		"sign in":             {"/signin/7/finish", "/signin/7/scan", "/signin/7/password", "/signin/7/cancel"},
		"sign in by password": {"/signin/7/password", "/signin/7/cancel"},
		"select account":      {"/signin/7/continue", "/signin/7/switch", "/signin/7/cancel"},
		"consent":             {"/signin/7/deny", "/signin/7/allow", "/signin/7/switch"},
		"device":              {"/device"},
		"sign out":            {"/logout"},
		"form post":           {"https://shop.example/cb"},
		"account": {"/id/account/end-login", "/id/account/end-login", "/id/account/end-sign-in", "/id/account/end-sign-in",
			"/id/account/revoke-consent", "/id/account/sign-out", "/id/account/sign-out-everywhere"},
	}
	eachPage(t, func(t *testing.T, _ *Renderer, s sample, _ Lang, _ []byte, doc *html.Node) {
		var got []string
		for _, form := range elements(doc, "form") {
			got = append(got, attr(form, "action"))
		}
		if expected, ok := want[s.name]; ok && strings.Join(got, " ") != strings.Join(expected, " ") {
			t.Errorf("got %v, want %v", got, expected)
		}
	})
}

func TestLanguageLinks(t *testing.T) {
	eachPage(t, func(t *testing.T, _ *Renderer, _ sample, lang Lang, _ []byte, doc *html.Node) {
		link := byID(doc, "language")
		if link == nil {
			t.Fatal("there is no link to the other language")
		}
		u, err := url.Parse(attr(link, "href"))
		if err != nil {
			t.Fatal(err)
		}
		other := map[Lang]string{Chinese: "en", English: "zh-CN"}[lang]
		if u.Path != "/here" || u.Query().Get("a") != "b&c" || len(u.Query()[LangParam]) != 1 || u.Query().Get(LangParam) != other {
			t.Errorf("the link leads to %v", u)
		}
	})
	raw, err := newRenderer(t, "").Error(Context{}, Error{Message: "m"})
	if err != nil {
		t.Fatal(err)
	}
	if doc := parse(t, raw); byID(doc, "language") != nil || attr(elements(doc, "html")[0], "lang") != "zh-CN" {
		t.Error("a page without an address has a language link, or no language is not Chinese")
	}
}

func TestSignInFields(t *testing.T) {
	r := newRenderer(t, "")
	for name, tt := range map[string]struct {
		hint    string
		focused string
	}{"nobody known": {"", "username"}, "somebody expected": {"ming", "password"}} {
		t.Run(name, func(t *testing.T) {
			raw, err := r.SignIn(Context{}, SignIn{Base: "/s", Client: "shop", Password: true, LoginHint: tt.hint})
			if err != nil {
				t.Fatal(err)
			}
			doc := parse(t, raw)
			user, password := byID(doc, "username"), byID(doc, "password")
			if attr(user, "value") != tt.hint || attr(user, "autocomplete") != "username" || attr(user, "autocapitalize") != "none" || attr(user, "spellcheck") != "false" {
				t.Errorf("username: %v", user.Attr)
			}
			if attr(password, "autocomplete") != "current-password" || attr(password, "type") != "password" || attr(password, "value") != "" {
				t.Errorf("password: %v", password.Attr)
			}
			if _, ok := lookup(byID(doc, tt.focused), "autofocus"); !ok {
				t.Errorf("%s has not the focus", tt.focused)
			}
			if byID(doc, "scan") != nil {
				t.Error("there is a QR code")
			}
		})
	}
}

func TestNoticesAreAnnounced(t *testing.T) {
	raw, err := newRenderer(t, "").SignIn(Context{}, SignIn{Base: "/s", Password: true, Notice: "wrong"})
	if err != nil {
		t.Fatal(err)
	}
	doc := parse(t, raw)
	notice := byID(doc, "notice")
	if attr(notice, "role") != "alert" || content(notice) != "wrong" || attr(byID(doc, "password"), "aria-describedby") != "notice" {
		t.Errorf("%s", raw)
	}
}

// TestScanStates: the script and the stylesheet read what the server rendered.
func TestScanStates(t *testing.T) {
	r := newRenderer(t, "")
	for state, words := range map[ScanState]string{
		"": "Scan with WeChat on your phone", ScanWaiting: "Scan with WeChat on your phone", ScanScanned: "Scanned. Now confirm on your phone",
		ScanApproved: "Confirmed. Signing you in…", ScanDenied: "Not confirmed: declined on the phone, or a wrong number was chosen there", ScanExpired: "The code has expired",
	} {
		raw, err := r.SignIn(Context{Lang: English}, SignIn{Base: "/s", Scan: sampleScan(state)})
		if err != nil {
			t.Fatal(err)
		}
		doc := parse(t, raw)
		scan, status := byID(doc, "scan"), byID(doc, "scan-status")
		if state == "" {
			state = ScanWaiting
		}
		if attr(scan, "data-state") != string(state) || attr(scan, "data-base") != "/s" || attr(scan, "data-seconds") != "90" {
			t.Errorf("%s: %v", state, scan.Attr)
		}
		if content(status) != words || attr(status, "data-"+string(state)) != words || attr(status, "role") != "status" {
			t.Errorf("%s: %q, %v", state, content(status), status.Attr)
		}
		if attr(byID(doc, "scan-link"), "href") != "weixin://dl/business/?t=1&u=2" || content(byID(doc, "scan-number")) != "42" ||
			attr(byID(doc, "scan-code"), "src") != "data:image/svg+xml;base64,PHN2Zy8+" {
			t.Errorf("%s: %s", state, raw)
		}
	}
	if _, err := r.SignIn(Context{}, SignIn{Scan: &Scan{State: "stolen"}}); err == nil {
		t.Error("an unknown state was rendered")
	}
}

func TestConsentNamesEachScopeOnce(t *testing.T) {
	r := newRenderer(t, "")
	for name, tt := range map[string]struct {
		view Consent
		want string
	}{
		"known":             {Consent{Scopes: []ScopeText{{Name: "roles"}}}, "roles: See your roles The roles that you have here"},
		"unknown":           {Consent{Scopes: []ScopeText{{Name: "orders:read"}}}, "orders:read: orders:read"},
		"the operator's":    {Consent{Scopes: []ScopeText{{Name: "roles", Title: "Title"}, {Name: "x", Title: "T", Text: "text"}}}, "roles: Title, x: T text"},
		"offline":           {Consent{Offline: true}, "offline_access: Keep access while you are away Until you sign out there or take it back"},
		"offline by scope":  {Consent{Offline: true, Scopes: []ScopeText{{Name: "offline_access", Title: "Stay"}}}, "offline_access: Stay"},
		"nothing whatever":  {Consent{}, ""},
		"a name of a text":  {Consent{Scopes: []ScopeText{{Name: ""}}}, ": "},
		"no format of ours": {Consent{Scopes: []ScopeText{{Name: "%s%d"}}}, "%s%d: %s%d"},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := r.Consent(Context{Lang: English}, tt.view)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, item := range elements(parse(t, raw), "li") {
				got = append(got, attr(item, "data-scope")+": "+content(item))
			}
			if strings.Join(got, ", ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSignOutFields(t *testing.T) {
	raw, err := newRenderer(t, "/id").SignOut(Context{CSRF: "c"}, SignOut{Action: "/logout", Fields: []Field{{"id_token_hint", "a.b"}, {"state", "x&y"}}})
	if err != nil {
		t.Fatal(err)
	}
	doc := parse(t, raw)
	got := url.Values{}
	for _, field := range elements(doc, "input") {
		got.Add(attr(field, "name"), attr(field, "value"))
	}
	if got.Encode() != "csrf=c&id_token_hint=a.b&state=x%26y" {
		t.Errorf("fields: %v", got)
	}
	if attr(byID(doc, "stay"), "href") != "/id/account" {
		t.Errorf("stay leads to %q", attr(byID(doc, "stay"), "href"))
	}
}

func TestTimesNameTheirZone(t *testing.T) {
	for lang, want := range map[Lang]string{Chinese: "2026年11月3日 09:05 (UTC+08:00)", English: "3 Nov 2026, 09:05 (UTC+08:00)"} {
		p := page{Context: Context{Lang: lang}}
		if got := p.Moment(sampleTime); got.Human != want || got.Machine != "2026-11-03T09:05:00+08:00" {
			t.Errorf("%s: %+v", lang, got)
		}
	}
}
