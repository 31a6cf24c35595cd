package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
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
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/net/html"
)

// Secrets of the clients that people come from with a browser.
const (
	testWebKey   = "canary-web-Rk2vN8tL4xQ6wP9zB1cF3gH5jK7"
	testOtherKey = "canary-two-Ym5dS1uJ8hE3nV6bX9aC2fG4kL7"
	testNoPKCEKy = "canary-old-Tq7wZ2eR5tY8uI1oP4aS6dF9gH3"
)

// webClients are clients with browsers. All but shop-old require PKCE.
const webClients = `
  - client_id: shop-web
    name: Shop on the web
    type: confidential
    client_secret: ` + testWebKey + `
    grant_types: [authorization_code, refresh_token]
    redirect_uris: [https://shop.example/callback, "https://shop.example/callback?tenant=1"]
    post_logout_redirect_uris: [https://shop.example/]
    id_token_signed_response_alg: RS256
    scopes: [openid, profile, phone, offline_access, orders.read]
    default_scopes: [openid]
    audience: [` + testAudience + `]
  - client_id: other-web
    type: confidential
    client_secret: ` + testOtherKey + `
    token_endpoint_auth_method: client_secret_post
    grant_types: [authorization_code, refresh_token]
    redirect_uris: [https://other.example/cb]
    scopes: [openid, profile, offline_access]
    default_scopes: [openid]
  - client_id: shop-old
    type: confidential
    client_secret: ` + testNoPKCEKy + `
    require_pkce: false
    grant_types: [authorization_code, refresh_token]
    redirect_uris: [https://old.example/cb]
    scopes: [openid, profile, offline_access]
    default_scopes: [openid]
    audience: [` + testAudience + `]
  - client_id: shop-spa
    type: public
    grant_types: [authorization_code, refresh_token]
    redirect_uris: [https://spa.example/cb]
    id_token_signed_response_alg: ES256
    consent: skip
    scopes: [openid, profile, offline_access]
    default_scopes: [openid]
    audience: [` + testAudience + `]
  - client_id: shop-native
    type: public
    grant_types: [authorization_code, refresh_token]
    redirect_uris: ["http://127.0.0.1/cb", "http://[::1]:7000/cb", "com.example.shop:/cb"]
    scopes: [openid, profile, offline_access]
    default_scopes: [openid]
    audience: [` + testAudience + `]
`

// party is a client of webClients, as the test plays it.
type party struct {
	id, secret, redirect string
	post                 bool // client_secret_post
}

var (
	shopWeb    = party{id: "shop-web", secret: testWebKey, redirect: "https://shop.example/callback"}
	otherWeb   = party{id: "other-web", secret: testOtherKey, redirect: "https://other.example/cb", post: true}
	shopOld    = party{id: "shop-old", secret: testNoPKCEKy, redirect: "https://old.example/cb"}
	shopSPA    = party{id: "shop-spa", redirect: "https://spa.example/cb"}
	shopNative = party{id: "shop-native", redirect: "http://127.0.0.1/cb"}
)

// testVerifier is a code_verifier (RFC 7636 §4.1), testChallenge its S256.
const testVerifier = "canary-verifier-0123456789-0123456789-0123456789"

func challengeFor(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// request is a proper authorization request, in which more sets parameters; an
// empty value takes one away.
func (p party) request(more ...string) url.Values {
	params := pairs("client_id", p.id, "redirect_uri", p.redirect, "response_type", "code", "scope", "openid",
		"state", "st-"+rand.Text(), "nonce", "n-"+rand.Text(),
		"code_challenge", challengeFor(testVerifier), "code_challenge_method", "S256")
	for i := 0; i < len(more); i += 2 {
		params.Set(more[i], more[i+1])
		if more[i+1] == "" {
			params.Del(more[i])
		}
	}
	return params
}

// credentials puts the client's into a form and request.
func (p party) credentials(form url.Values) func(*http.Request) {
	switch {
	case p.secret == "":
		form.Set("client_id", p.id)
	case p.post:
		form.Set("client_id", p.id)
		form.Set("client_secret", p.secret)
	default:
		return basic(p.id, p.secret)
	}
	return func(*http.Request) {}
}

// redeem exchanges a code; more is as in request.
func (p party) redeem(s *testServer, code string, more ...string) answer {
	s.t.Helper()
	out, err := p.tryRedeem(s, code, more...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (p party) tryRedeem(s *testServer, code string, more ...string) (answer, error) {
	form := pairs("grant_type", "authorization_code", "code", code, "redirect_uri", p.redirect, "code_verifier", testVerifier)
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
		if more[i+1] == "" {
			form.Del(more[i])
		}
	}
	return s.try(http.MethodPost, s.Issuer+"/oauth2/token", form, p.credentials(form), phone())
}

// refresh redeems a refresh token of the party.
func (p party) refresh(s *testServer, token string, more ...string) answer {
	s.t.Helper()
	form := pairs(append([]string{"grant_type", "refresh_token", "refresh_token", token}, more...)...)
	edit := p.credentials(form)
	return s.Token(form, edit, phone())
}

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

// twin is another browser with the same cookies, which they share from now on.
func (b *browser) twin() *browser { return &browser{s: b.s, jar: b.jar, edits: b.edits} }

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

// asksFor fails unless the browser is at this page.
func asksFor(t testing.TB, what string, v visit, page string) {
	t.Helper()
	if v.page() != page || v.Status != http.StatusOK {
		t.Fatalf("%s: %v, want the page %s", what, v, page)
	}
}

// errorPage fails unless a person is shown an error and the browser stays.
func errorPage(t testing.TB, what string, v visit, status int) {
	t.Helper()
	if v.Status != status || v.page() != "error" || v.Header.Get("Location") != "" {
		t.Errorf("%s: %v, want an error page with %d", what, v, status)
	}
}

// toldClient fails unless the client is told of this error.
func toldClient(t testing.TB, what string, v visit, p party, params url.Values, code string) {
	t.Helper()
	location := v.leaves()
	if location == nil || v.Status != http.StatusSeeOther || !strings.HasPrefix(location.String(), p.redirect+"?") {
		t.Errorf("%s: %v, want a redirect to %s", what, v, p.redirect)
		return
	}
	got := location.Query()
	if got.Get("error") != code || got.Get("state") != params.Get("state") || got.Has("code") || got.Get("error_description") == "" {
		t.Errorf("%s: %v, want %s", what, got, code)
	}
}

// verified verifies an ID Token as a client's library does and returns its
// claims.
func verified(s *testServer, p party, idToken string) map[string]any {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	provider, err := oidc.NewProvider(ctx, s.Issuer)
	if err != nil {
		s.t.Fatal(err)
	}
	token, err := provider.Verifier(&oidc.Config{ClientID: p.id}).Verify(ctx, idToken)
	if err != nil {
		s.t.Fatalf("ID Token of %s: %v", p.id, err)
	}
	var out map[string]any
	if err := token.Claims(&out); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// pageForm is a form of a page.
type pageForm struct {
	action string
	fields url.Values
}

// form is the page's form whose action ends so.
func (v visit) form(action string) (pageForm, bool) {
	for _, form := range v.forms() {
		if strings.HasSuffix(form.action, action) {
			return form, true
		}
	}
	return pageForm{}, false
}

func (v visit) forms() (forms []pageForm) {
	for node := range v.nodes() {
		switch node.Data {
		case "form":
			forms = append(forms, pageForm{action: attribute(node, "action"), fields: url.Values{}})
		case "input":
			if name := attribute(node, "name"); name != "" && len(forms) > 0 {
				forms[len(forms)-1].fields.Add(name, attribute(node, "value"))
			}
		}
	}
	return forms
}

// page is the kind of page, "" for none.
func (v visit) page() string {
	for node := range v.nodes() {
		if kind, ok := strings.CutPrefix(attribute(node, "class"), "card "); ok && node.Data == "main" {
			return kind
		}
	}
	return ""
}

// text is what stands in the element with an id.
func (v visit) text(id string) string {
	for node := range v.nodes() {
		if attribute(node, "id") == id {
			var text strings.Builder
			for child := range node.Descendants() {
				if child.Type == html.TextNode {
					text.WriteString(child.Data)
				}
			}
			return strings.TrimSpace(text.String())
		}
	}
	return ""
}

// input is the value of the input with an id.
func (v visit) input(id string) string {
	for node := range v.nodes() {
		if node.Data == "input" && attribute(node, "id") == id {
			return attribute(node, "value")
		}
	}
	return ""
}

// nodes are the elements of the page in order.
func (v visit) nodes() func(func(*html.Node) bool) {
	return func(yield func(*html.Node) bool) {
		if !strings.HasPrefix(v.Header.Get("Content-Type"), "text/html") {
			return
		}
		doc, err := html.Parse(strings.NewReader(string(v.Body)))
		if err != nil {
			return
		}
		for node := range doc.Descendants() {
			if node.Type == html.ElementNode && !yield(node) {
				return
			}
		}
	}
}

func attribute(node *html.Node, name string) string {
	for _, attr := range node.Attr {
		if attr.Key == name {
			return attr.Val
		}
	}
	return ""
}
