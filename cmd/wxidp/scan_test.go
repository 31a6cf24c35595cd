package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// withScanning adds a web application whose users sign in by scanning.
func withScanning() serverOption {
	return withConfig(func(yaml string) string {
		return "scan: { appid: " + testAppID + " }\n" + withDevices().config(yaml) + `
  - client_id: shop-web
    name: Shop
    type: confidential
    client_secret: canary-Web0f3a9cQx81mVt5Wd0Kz7Rb2Lc9Pn4
    grant_types: [authorization_code]
    redirect_uris: [https://shop.example/callback]
    consent: skip
    scopes: [openid, profile]
    audience: [` + testAudience + `]
`
	})
}

// surfer is a browser at a place of its own, which follows redirects to the
// issuer only.
type surfer struct {
	s    *testServer
	http *http.Client
	home func(*http.Request)
}

func newSurfer(s *testServer, address string) *surfer {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &surfer{s: s, home: from(netip.MustParseAddr(address)), http: &http.Client{
		Jar: jar, Timeout: 20 * time.Second,
		CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			if !strings.HasPrefix(r.URL.String(), s.Issuer+"/") {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}}
}

// get and post return the page, and where a redirect to elsewhere leads.
func (b *surfer) get(target string) (status int, page, elsewhere string) {
	b.s.t.Helper()
	return b.do(http.MethodGet, target, nil)
}

func (b *surfer) post(target string, form url.Values) (status int, page, elsewhere string) {
	b.s.t.Helper()
	return b.do(http.MethodPost, target, form)
}

func (b *surfer) do(method, target string, form url.Values) (int, string, string) {
	b.s.t.Helper()
	r, err := http.NewRequest(method, target, strings.NewReader(form.Encode()))
	if err != nil {
		b.s.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
	b.home(r)
	answer, err := b.http.Do(r)
	if err != nil {
		b.s.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return answer.StatusCode, string(body), answer.Header.Get("Location")
}

// part is what the first group of a pattern matches in a page.
func part(t testing.TB, page, pattern string) string {
	t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(page)
	if found == nil {
		t.Fatalf("no %s in\n%s", pattern, page)
	}
	return found[1]
}

// shownScan is what a person sees on a sign-in page.
type shownScan struct{ base, link, number, csrf string }

func scanOn(t testing.TB, page string) shownScan {
	t.Helper()
	return shownScan{
		base:   part(t, page, `id="scan"[^>]*data-base="([^"]+)"`),
		link:   part(t, page, `id="scan-link"[^>]*href="([^"]+)"`),
		number: part(t, page, `id="scan-number">([0-9]{2})<`),
		csrf:   part(t, page, `name="csrf" value="([^"]+)"`),
	}
}

// authorizeURL is an authorization request of shop-web.
func authorizeURL(s *testServer) (target, verifier string) {
	verifier = strings.Repeat("v", 43)
	sum := sha256.Sum256([]byte(verifier))
	return s.Issuer + "/oauth2/authorize?" + pairs("response_type", "code", "client_id", "shop-web", "redirect_uri", "https://shop.example/callback",
		"scope", "openid", "state", "xyz-0123456789", "nonce", "n-1", "code_challenge_method", "S256",
		"code_challenge", base64.RawURLEncoding.EncodeToString(sum[:])).Encode(), verifier
}

// TestSignInByScanning goes from the web application to its tokens, with the
// mini-program in between.
func TestSignInByScanning(t *testing.T) {
	s := startServer(t, manyPhones(), withScanning())
	token := signIn(s, "ann", "scope", "openid device.approve").str("access_token")
	browser := newSurfer(s, "203.0.113.8")
	target, verifier := authorizeURL(s)
	status, page, _ := browser.get(target)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, page)
	}
	scan := scanOn(t, page)

	// The page listens.
	events, err := http.NewRequest(http.MethodGet, s.Issuer+scan.base+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	browser.home(events)
	stream, err := browser.http.Do(events)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	heard := func() string {
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return text
			}
		}
		return "the end"
	}
	if got := heard(); got != `{"state":"waiting"}` {
		t.Errorf("heard %s", got)
	}
	seen := atDevices(s, "/device/context", pairs("ticket", scan.link), bearer(token))
	if seen.Status != http.StatusOK || seen.str("client_name") != "Shop" || seen.str("browser") != "Firefox, Linux" || seen.str("place") != "203.0.113.*" {
		t.Fatalf("%v", seen)
	}
	if got := heard(); got != `{"state":"scanned"}` {
		t.Errorf("heard %s", got)
	}
	// Nobody can finish before the person agrees.
	if status, page, elsewhere := browser.post(s.Issuer+scan.base+"/finish", pairs("csrf", scan.csrf)); status != http.StatusOK || elsewhere != "" || scanOn(t, page).link != scan.link {
		t.Errorf("finish too early: %d to %q", status, elsewhere)
	}
	if out := atDevices(s, "/device/approve", pairs("ticket", scan.link, "number", scan.number), bearer(token)); out.Status != http.StatusOK {
		t.Fatalf("%v", out)
	}
	if got := heard(); got != `{"state":"approved"}` {
		t.Errorf("heard %s", got)
	}
	if got := heard(); got != "the end" {
		t.Errorf("heard %s", got)
	}

	// Another browser gets nothing of it, even with a page of its own.
	other := newSurfer(s, "203.0.113.9")
	_, page, _ = other.get(target)
	theirs := scanOn(t, page)
	for name, form := range map[string]url.Values{"with a form of its own": pairs("csrf", theirs.csrf), "with the other's form": pairs("csrf", scan.csrf)} {
		if status, _, elsewhere := other.post(s.Issuer+scan.base+"/finish", form); status < 400 || elsewhere != "" {
			t.Errorf("another browser %s: %d to %q", name, status, elsewhere)
		}
	}
	if status, page, _ := other.get(s.Issuer + scan.base + "/state"); status < 400 && strings.Contains(page, "approved") {
		t.Errorf("another browser: %d %s", status, page)
	}

	_, _, elsewhere := browser.post(s.Issuer+scan.base+"/finish", pairs("csrf", scan.csrf))
	back, err := url.Parse(elsewhere)
	if err != nil || !strings.HasPrefix(elsewhere, "https://shop.example/callback?") || back.Query().Get("code") == "" || back.Query().Get("state") != "xyz-0123456789" {
		t.Fatalf("led to %q", elsewhere)
	}
	tokens := s.Token(pairs("grant_type", "authorization_code", "code", back.Query().Get("code"), "redirect_uri", "https://shop.example/callback",
		"code_verifier", verifier), basic("shop-web", "canary-Web0f3a9cQx81mVt5Wd0Kz7Rb2Lc9Pn4"), phone())
	if tokens.Status != http.StatusOK {
		t.Fatalf("%v", tokens)
	}
	id := claims(t, tokens.str("id_token"))
	methods, _ := id["amr"].([]any)
	if len(methods) != 2 || methods[0] != "wechat" || methods[1] != "qr" || id["sub"] != claims(t, token)["sub"] || id["nonce"] != "n-1" {
		t.Errorf("%v", id)
	}
	// What was approved is taken up once: whoever has the form, but not the
	// login session, gets nothing more.
	browser.http.Jar.SetCookies(urlOf(t, s.Issuer), []*http.Cookie{{Name: "wxidp-login", MaxAge: -1, Path: "/"}})
	if status, _, elsewhere := browser.post(s.Issuer+scan.base+"/finish", pairs("csrf", scan.csrf)); elsewhere != "" {
		t.Errorf("finished twice: %d to %q", status, elsewhere)
	}
	if started := s.Logs.Events("login.started"); len(started) != 1 {
		t.Errorf("%v", started)
	}
	if approved := s.Logs.Events("qr.approved"); len(approved) != 1 || approved[0]["client_id"] != "shop-web" {
		t.Errorf("%v", approved)
	}
	noTicketLogged(t, s, scan)
}

func urlOf(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// noTicketLogged checks that no line of the log lets anybody take part.
func noTicketLogged(t *testing.T, s *testServer, scan shownScan) {
	t.Helper()
	if strings.Contains(s.Logs.String(), urlOf(t, scan.link).Query().Get("t")) {
		t.Error("a ticket is logged")
	}
}

// TestThreat57WrongNumberByHTTP: the page of a browser whose code died says so
// and gives another.
func TestThreat57WrongNumberByHTTP(t *testing.T) {
	s := startServer(t, manyPhones(), withScanning())
	token := signIn(s, "ann", "scope", "device.approve").str("access_token")
	browser := newSurfer(s, "198.51.100.8") // another network than the phone's
	target, _ := authorizeURL(s)
	_, page, _ := browser.get(target)
	scan := scanOn(t, page)
	seen := atDevices(s, "/device/context", pairs("ticket", scan.link), bearer(token))
	if seen.JSON["number_entry"] != true || seen.JSON["choices"] != nil || seen.str("warning") != "other_network" {
		t.Errorf("%v", seen)
	}
	refused(t, atDevices(s, "/device/approve", pairs("ticket", scan.link), bearer(token)), http.StatusBadRequest, "invalid_request")
	refused(t, atDevices(s, "/device/approve", pairs("ticket", scan.link, "number", "00"), bearer(token)), http.StatusConflict, "wrong_number")
	if _, state, _ := browser.get(s.Issuer + scan.base + "/state"); state != `{"state":"denied"}`+"\n" {
		t.Errorf("%s", state)
	}
	refused(t, atDevices(s, "/device/approve", pairs("ticket", scan.link, "number", scan.number), bearer(token)), http.StatusConflict, "ticket_used")
	_, page, _ = browser.post(s.Issuer+scan.base+"/scan", pairs("csrf", scan.csrf))
	if next := scanOn(t, page); next.link == scan.link || next.base != scan.base {
		t.Errorf("%+v after %+v", next, scan)
	}
	denied := s.Logs.Events("qr.denied")
	if len(denied) != 1 || denied[0]["reason"] != "wrong_number" || denied[0]["level"] != "WARN" {
		t.Errorf("%v", denied)
	}
}

// TestWeChatCodeOnThePage: the image is WeChat's, and the link while WeChat
// draws none.
func TestWeChatCodeOnThePage(t *testing.T) {
	s := startServer(t, manyPhones(), withScanning(), replacing("scan: { appid: "+testAppID+" }",
		"scan: { appid: "+testAppID+", code: wechat, page: pages/scan/scan }"))
	target, _ := authorizeURL(s)
	_, page, _ := newSurfer(s, "203.0.113.8").get(target)
	image, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(part(t, page, `src="data:image/jpeg;base64,([^"]+)"`), "&#43;", "+"))
	if err != nil {
		t.Fatal(err)
	}
	scene := part(t, string(image), `pages/scan/scan\?scene=([A-Za-z0-9_-]{22})`)
	token := signIn(s, "ann", "scope", "device.approve").str("access_token")
	if seen := atDevices(s, "/device/context", pairs("ticket", scene), bearer(token)); seen.Status != http.StatusOK {
		t.Errorf("%v", seen)
	}
	if out := s.Do(http.MethodPost, s.WeChat.URL+"/control/faults", pairs("kind", "errcode", "errcode", "45009", "endpoint", "/wxa/getwxacodeunlimit")); out.Status != http.StatusOK {
		t.Fatalf("%v", out)
	}
	_, page, _ = newSurfer(s, "203.0.113.8").get(target)
	part(t, page, `src="(data:image/svg\+xml[^"]+|data:image/svg&#43;xml[^"]+)"`)
	if events := s.Logs.Events("qr.link_instead"); len(events) != 1 || events[0]["reason"] != "wechat_quota" {
		t.Errorf("%v", events)
	}
}
