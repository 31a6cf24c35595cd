package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestThreat24GrantSmuggling: a grant_type is one known word that the client
// may use, spelled exactly.
func TestThreat24GrantSmuggling(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), appending("  - { client_id: no-grants, type: confidential, client_secret: canary-0123456789abcdef0123456789abcdef, introspection: true, audience: [x] }\n"))
	ask := func(grantType string, more ...string) answer {
		form := signInForm(s.Code(testAppID, "alice"), more...)
		form.Set("grant_type", grantType)
		return s.Token(form, phone())
	}
	for _, grantType := range []string{
		"password", "implicit", "unknown", "authorization_code wechat_jscode", "wechat_jscode refresh_token", "wechat_jscode wechat_jscode",
		" wechat_jscode", "wechat_jscode ", "wechat_jscode\n", "Wechat_jscode", "WECHAT_JSCODE", "wechat_jscode,refresh_token",
		"urn:ietf:params:oauth:grant-type:token-exchange", strings.Repeat("x", 60_000),
	} {
		refused(t, ask(grantType), 400, "unsupported_grant_type")
	}
	refused(t, ask(""), 400, "invalid_request")
	for _, grantType := range []string{"client_credentials", "authorization_code", "urn:ietf:params:oauth:grant-type:device_code"} {
		refused(t, ask(grantType), 400, "unauthorized_client")
	}
	secret := basic("no-grants", "canary-0123456789abcdef0123456789abcdef")
	for _, grantType := range []string{"client_credentials", "wechat_jscode", "refresh_token"} {
		out := s.Token(pairs("grant_type", grantType, "js_code", "x", "refresh_token", "x", "scope", "openid"), secret, phone())
		refused(t, out, 400, "unauthorized_client")
	}
	for _, grantType := range []string{"wechat_jscode", "refresh_token"} {
		out := s.Token(pairs("grant_type", grantType, "js_code", "x", "refresh_token", "x"), basic(testBackend, testBackendKey), phone())
		refused(t, out, 400, "unauthorized_client")
	}
	for _, name := range []string{"grant_type", "js_code", "client_id", "scope", "nonce", "unknown"} {
		form := signInForm(s.Code(testAppID, "alice"), "scope", "openid", "nonce", "n", "unknown", "1")
		form.Add(name, form.Get(name))
		refused(t, s.Token(form, phone()), 400, "invalid_request")
	}
	// client_credentials speaks for no End-User.
	refused(t, machineToken(s, pairs("scope", "openid"), basic(testBackend, testBackendKey)), 400, "invalid_scope")
	if n := s.Sim.RequestCount(); n != 0 || countUsers(s) != 0 {
		t.Errorf("%d calls to WeChat, %d users", n, countUsers(s))
	}
}

// TestThreat22SignInScope: a sign-in gets what it asks for or nothing.
func TestThreat22SignInScope(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), replacing("    default_scopes: [openid]\n", ""))
	for _, ask := range []string{"admin", "openid admin", "OPENID", "openid,profile", "address", "orders.*", "openid\tprofile",
		strings.Repeat("a ", 30_000), strings.TrimSpace(distinctWords(16_000))} {
		refused(t, s.Token(signInForm(s.Code(testAppID, "alice"), "scope", ask), phone()), 400, "invalid_scope")
	}
	noDefault := pairs("grant_type", "wechat_jscode", "client_id", "shop-mini-2", "js_code", s.Code(testApp2, "alice"))
	refused(t, s.Token(noDefault, phone()), 400, "invalid_scope")
	if n := s.Sim.RequestCount(); n != 0 {
		t.Errorf("%d calls to WeChat for refused scopes", n)
	}
	for ask, got := range map[string]string{"": testDefaultScope, " ": testDefaultScope, "wechat": "wechat", "openid openid": "openid", "profile  openid": "profile openid"} {
		out := signIn(s, "alice", "scope", ask)
		if out.str("scope") != got || (out.str("id_token") != "") != strings.Contains(got, "openid") {
			t.Errorf("scope %q: %v", ask, out)
		}
	}
}

// distinctWords are n different short words.
func distinctWords(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strconv.FormatInt(int64(i), 36) + " ")
	}
	return b.String()
}

// TestThreat79OddRequests: what is no small plain form is refused before
// anything looks at it, at every form endpoint.
func TestThreat79OddRequests(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	gzipped := new(bytes.Buffer)
	z := gzip.NewWriter(gzipped)
	_, _ = z.Write([]byte("grant_type=wechat_jscode"))
	_ = z.Close()
	const form = "application/x-www-form-urlencoded"
	valid := signInForm("x").Encode()
	multipart := "--b\r\nContent-Disposition: form-data; name=\"grant_type\"\r\n\r\nwechat_jscode\r\n--b--\r\n"
	asJSON, _ := json.Marshal(map[string]string{"grant_type": "wechat_jscode", "client_id": testClient, "js_code": "x"})

	type row struct {
		name, contentType, encoding, body string
		status                            int
	}
	rows := []row{
		{"no content type", "", "", valid, 415},
		{"JSON", "application/json", "", string(asJSON), 415},
		{"multipart", "multipart/form-data; boundary=b", "", multipart, 415},
		{"big multipart", "multipart/form-data; boundary=b", "", strings.Repeat("a", 1<<20), 415},
		{"text", "text/plain", "", valid, 415},
		{"prefix", form + "x", "", valid, 415},
		{"two types", form + ", text/plain", "", valid, 415},
		{"gzip", form, "gzip", gzipped.String(), 415},
		{"identity", form, "identity", valid, 415},
		{"1 MiB", form, "", "a=" + strings.Repeat("a", 1<<20), 413},
		{"10 MiB", form, "", "a=" + strings.Repeat("a", 10<<20), 413},
		{"one byte too many", form, "", valid + "&p=" + strings.Repeat("a", 64<<10-len(valid)-2), 413},
		{"100000 parameters", form, "", strings.Repeat("a&", 100_000), 413},
		{"20000 parameters", form, "", distinctParameters(20_000), 413},
		{"12000 names", form, "", distinctParameters(12_000), 400},
		{"twice 30000", form, "", strings.Repeat("a&", 30_000), 400},
		{"NUL", form, "", valid + "&x=a%00b", 400},
		{"raw NUL", form, "", valid + "&x=a\x00b", 400},
		{"NUL in a name", form, "", valid + "&x%00=1", 400},
		{"invalid UTF-8", form, "", valid + "&x=%ff%fe", 400},
		{"raw invalid UTF-8", form, "", valid + "&x=\xc3\x28", 400},
		{"surrogate", form, "", valid + "&x=%ed%a0%80", 400},
		{"broken escape", form, "", valid + "&x=%zz", 400},
		{"cut escape", form, "", valid + "&x=%a", 400},
		{"semicolon", form, "", strings.ReplaceAll(valid, "&", ";"), 400},
		{"empty", form, "", "", 400},
	}
	before, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/oauth2/token", "/oauth2/revoke", "/oauth2/introspect"} {
		for _, row := range rows {
			if row.name == "empty" && path != "/oauth2/token" {
				continue // there the client is missing first
			}
			out, err := s.try(http.MethodPost, s.Issuer+path, nil, phone(), header("Content-Type", row.contentType), func(r *http.Request) {
				if row.contentType == "" {
					r.Header.Del("Content-Type")
				}
				if row.encoding != "" {
					r.Header.Set("Content-Encoding", row.encoding)
				}
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(row.body)), int64(len(row.body))
			})
			if err != nil {
				// The server may close a connection that goes on sending.
				if row.status != 413 && len(row.body) < 1<<20 {
					t.Errorf("%s %s: %v", path, row.name, err)
				}
				continue
			}
			if out.Status != row.status || out.str("error") != "invalid_request" || out.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s: %v, want %d", path, row.name, out, row.status)
			}
		}
	}
	for _, entry := range newEntries(t, before) {
		if strings.HasPrefix(entry, "multipart-") {
			t.Errorf("a temporary file was written: %s", entry)
		}
	}
	// Without a length, in chunks.
	out, err := s.try(http.MethodPost, s.Issuer+"/oauth2/token", nil, phone(), header("Content-Type", form), func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader(valid), strings.NewReader("&p="+strings.Repeat("a", 1<<18)))), -1
	})
	if err == nil && out.Status != 413 {
		t.Errorf("chunks: %v", out)
	}
	// What is odd but right.
	for _, contentType := range []string{form, form + "; charset=UTF-8", "Application/X-WWW-Form-URLencoded"} {
		if out := s.Token(signInForm(s.Code(testAppID, "alice")), phone(), header("Content-Type", contentType)); out.Status != 200 {
			t.Errorf("%s: %v", contentType, out)
		}
	}
	// Headers beyond 16 KiB.
	big, err := s.try(http.MethodPost, s.Issuer+"/oauth2/token", signInForm("x"), header("X-Big", strings.Repeat("a", 1<<20)))
	if err == nil && big.Status != 431 {
		t.Errorf("1 MiB of header: %v", big)
	}
	if len(s.Logs.Events("panic")) != 0 {
		t.Error("a handler panicked")
	}
}

func distinctParameters(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strconv.FormatInt(int64(i), 36) + "&")
	}
	return b.String()
}

func newEntries(t testing.TB, before []os.DirEntry) (names []string) {
	t.Helper()
	was := map[string]bool{}
	for _, entry := range before {
		was[entry.Name()] = true
	}
	after, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range after {
		if !was[entry.Name()] {
			names = append(names, entry.Name())
		}
	}
	return names
}

// TestMethods: each path answers its methods and names them to others.
func TestMethods(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	allowed := map[string]string{
		"/oauth2/token": "POST", "/oauth2/revoke": "POST", "/oauth2/introspect": "POST", "/oauth2/userinfo": "GET HEAD POST",
		"/.well-known/jwks.json": "GET HEAD", "/.well-known/openid-configuration": "GET HEAD", "/.well-known/oauth-authorization-server": "GET HEAD",
	}
	for path, methods := range allowed {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"} {
			out := s.Do(method, s.Issuer+path, nil, phone())
			if is405, want := out.Status == 405, !strings.Contains(" "+methods+" ", " "+method+" "); is405 != want {
				t.Errorf("%s %s: %d", method, path, out.Status)
			}
			if out.Status != 405 {
				continue
			}
			if got := strings.ReplaceAll(out.Header.Get("Allow"), ",", ""); got != methods {
				t.Errorf("%s %s: Allow %q, want %q", method, path, got, methods)
			}
			if method != "HEAD" {
				refused(t, out, 405, "invalid_request")
			}
		}
	}
	for _, path := range []string{"/", "/oauth2", "/oauth2/", "/oauth2/token/", "/oauth2/Token", "/oauth2//token", "//oauth2/token", "/oauth2/token/x",
		"/admin/keys", "/metrics", "/debug/pprof/", "/%61dmin/keys", "/.well-known/", "/oauth2/token;x", "/oauth2/../admin/keys"} {
		out := s.Do(http.MethodPost, s.Issuer+path, signInForm("x"), phone())
		if out.Status != 404 || out.str("error") != "not_found" || out.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("POST %s: %v", path, out)
		}
	}
}
