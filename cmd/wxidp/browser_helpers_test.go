package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// startWeb starts a server with webClients, the account alice, and browsers at
// addresses of their own.
func startWeb(t testing.TB, options ...serverOption) *testServer {
	t.Helper()
	s := startServer(t, append([]serverOption{manyPhones(), appending(webClients)}, options...)...)
	addAccount(s, "alice")
	return s
}

// browser is a web browser: it keeps cookies and has an address of its own.
type browser struct {
	s     *testServer
	jar   http.CookieJar
	edits []func(*http.Request) // of every request

	transport http.RoundTripper // nil: that of testHTTP
}

func newBrowser(s *testServer, edits ...func(*http.Request)) *browser {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &browser{s: s, jar: jar, edits: append([]func(*http.Request){phone()}, edits...)}
}

// cookies are the browser's for the issuer, by name.
func (b *browser) cookies() map[string]string {
	b.s.t.Helper()
	out := map[string]string{}
	for _, cookie := range b.jar.Cookies(b.url("/")) {
		out[cookie.Name] = cookie.Value
	}
	return out
}

// plant sets a cookie.
func (b *browser) plant(name, value string) {
	b.jar.SetCookies(b.url("/"), []*http.Cookie{{Name: name, Value: value, Path: "/"}})
}

func (b *browser) url(path string) *url.URL {
	b.s.t.Helper()
	u, err := url.Parse(b.s.Issuer + path)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return u
}

// visit is where a browser has come to: a page of the issuer, or a redirect
// that leaves it.
type visit struct {
	answer
	URL   *url.URL // of the page
	Trail []answer // the redirects on the way
}

// leaves is the address outside of the issuer that a redirect leads to; nil for
// a page.
func (v visit) leaves() *url.URL {
	location, err := url.Parse(v.Header.Get("Location"))
	if err != nil || !location.IsAbs() {
		return nil
	}
	return location
}

// callback are the parameters of an authorization response, be it a redirect
// or a form.
func (v visit) callback() url.Values {
	if location := v.leaves(); location != nil {
		return location.Query()
	}
	form, ok := v.form("")
	if !ok || v.page() != "formpost" {
		return url.Values{}
	}
	return form.fields
}

// String is short where the answer is a page.
func (v visit) String() string {
	if v.page() == "" {
		return fmt.Sprintf("%d %s %.300s", v.Status, v.Header.Get("Location"), v.Body)
	}
	return fmt.Sprintf("%d page %s %q", v.Status, v.page(), v.text("error")+v.text("notice"))
}

// trip sends one request and follows nothing.
func (b *browser) trip(method, target string, form url.Values, edits ...func(*http.Request)) answer {
	b.s.t.Helper()
	out, err := b.tryTrip(method, target, form, edits...)
	if err != nil {
		b.s.t.Fatalf("%s %.200s: %v", method, target, err)
	}
	return out
}

func (b *browser) tryTrip(method, target string, form url.Values, edits ...func(*http.Request)) (answer, error) {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, target, body)
	if err != nil {
		return answer{}, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, edit := range append(slices.Clone(b.edits), edits...) {
		edit(req)
	}
	client := *testHTTP
	client.Jar = b.jar
	if b.transport != nil {
		client.Transport = b.transport
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	out := answer{Status: resp.StatusCode, Header: resp.Header, Body: raw}
	if json.Unmarshal(raw, &out.JSON) != nil {
		out.JSON = nil
	}
	return out, err
}

// send sends a request and follows redirects as long as they stay at the
// issuer.
func (b *browser) send(method, target string, form url.Values, edits ...func(*http.Request)) visit {
	b.s.t.Helper()
	at, err := url.Parse(target)
	if err != nil {
		b.s.t.Fatal(err)
	}
	var v visit
	for range 8 {
		v.answer, v.URL = b.trip(method, at.String(), form, edits...), at
		if v.Status < 300 || v.Status > 399 {
			return v
		}
		next, err := at.Parse(v.Header.Get("Location"))
		if err != nil {
			b.s.t.Fatal(err)
		}
		if next.Host != at.Host || next.Scheme != at.Scheme {
			return v
		}
		v.Trail = append(v.Trail, v.answer)
		method, form, at = http.MethodGet, nil, next
	}
	b.s.t.Fatalf("redirects without an end: %v", v)
	return v
}

// open goes to a path of the issuer.
func (b *browser) open(path string, edits ...func(*http.Request)) visit {
	b.s.t.Helper()
	return b.send(http.MethodGet, b.s.Issuer+path, nil, edits...)
}

// authorize goes to the authorization endpoint.
func (b *browser) authorize(params url.Values, edits ...func(*http.Request)) visit {
	b.s.t.Helper()
	return b.open("/oauth2/authorize?"+params.Encode(), edits...)
}

// submit sends the page's form whose action ends so, with more fields.
func (b *browser) submit(v visit, action string, more ...string) visit {
	b.s.t.Helper()
	form, ok := v.form(action)
	if !ok {
		b.s.t.Fatalf("no form %q on %v", action, v)
	}
	fields := maps.Clone(form.fields)
	for i := 0; i < len(more); i += 2 {
		fields.Set(more[i], more[i+1])
	}
	target, err := v.URL.Parse(form.action)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return b.send(http.MethodPost, target.String(), fields, header("Origin", "null"), header("Sec-Fetch-Site", "same-origin"))
}

// password fills in the sign-in form.
func (b *browser) password(v visit, username, password string) visit {
	b.s.t.Helper()
	return b.submit(v, "/password", "username", username, "password", password)
}

// through answers whatever pages ask, as a user with testPassword who agrees to
// everything, until the browser is back at the client.
func (b *browser) through(v visit, username string) visit {
	b.s.t.Helper()
	for range 5 {
		switch v.page() {
		case "signin":
			v = b.password(v, username, testPassword)
		case "select":
			v = b.submit(v, "/continue")
		case "consent":
			v = b.submit(v, "/allow")
		default:
			return v
		}
	}
	b.s.t.Fatalf("pages without an end: %v", v)
	return v
}

// code signs a user in at a client and returns the authorization code.
func (b *browser) code(p party, username string, more ...string) string {
	b.s.t.Helper()
	v := b.through(b.authorize(p.request(more...)), username)
	code := v.callback().Get("code")
	if code == "" {
		b.s.t.Fatalf("no code for %s at %s: %v", username, p.id, v)
	}
	return code
}

// tokens signs a user in at a client and redeems the code.
func (b *browser) tokens(p party, username string, more ...string) answer {
	b.s.t.Helper()
	verifier := []string{}
	if i := slices.Index(more, "code_challenge"); i >= 0 && more[i+1] == "" {
		verifier = []string{"code_verifier", ""}
	}
	out := p.redeem(b.s, b.code(p, username, more...), verifier...)
	if out.Status != http.StatusOK {
		b.s.t.Fatalf("redemption at %s: %v", p.id, out)
	}
	return out
}
