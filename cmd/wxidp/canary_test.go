package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// What the canary WeChat says of a user. None of it may be found in clear
// anywhere but in an answer to the client it belongs to.
const (
	canarySessionKey = "Y2FuYXJ5LXNlc3Mta2V5IQ==" // base64 of 16 bytes, as WeChat's is
	canaryOpenID     = "oCANARYopenid7Jq0Vx3Zt5Wd1K8"
	canaryUnionID    = "oCANARYunionid4Rb6Lm2Pn9Hs1C"
	canaryErrmsg     = "canary-errmsg rid: 5f0a-canary hints"
)

// canaryWeChat answers code2Session as the beginning of the js_code asks.
type canaryWeChat struct {
	mu    sync.Mutex
	calls map[string]int // by the same beginning
}

func (c *canaryWeChat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind, _, _ := strings.Cut(r.URL.Query().Get("js_code"), "~")
	c.mu.Lock()
	c.calls[kind]++
	c.mu.Unlock()
	success := fmt.Sprintf(`{"openid":%q,"session_key":%q,"unionid":%q}`, canaryOpenID, canarySessionKey, canaryUnionID)
	switch kind {
	case "ok":
		_, _ = io.WriteString(w, success)
	case "html":
		_, _ = io.WriteString(w, "<html>"+success+r.URL.String()+"</html>")
	case "empty":
	case "no_openid":
		_, _ = fmt.Fprintf(w, `{"session_key":%q}`, canarySessionKey)
	case "twice":
		_, _ = fmt.Fprintf(w, `{"openid":"a","openid":%q,"session_key":%q}`, canaryOpenID, canarySessionKey)
	case "wrong_type":
		_, _ = fmt.Fprintf(w, `{"openid":[%q],"session_key":{"x":%q}}`, canaryOpenID, canarySessionKey)
	case "long":
		_, _ = fmt.Fprintf(w, `{"openid":%q,"session_key":%q}`, strings.Repeat(canaryOpenID, 200), canarySessionKey)
	case "truncated":
		w.Header().Set("Content-Length", "500")
		_, _ = io.WriteString(w, success[:len(success)-3])
	case "status":
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, success+r.URL.String())
	case "redirect":
		http.Redirect(w, r, "/elsewhere?"+r.URL.RawQuery, http.StatusFound)
	case "hang":
		<-r.Context().Done()
	case "huge":
		_, _ = io.WriteString(w, strings.Repeat(success, 2000))
	case "reset":
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
	default: // an errcode
		_, _ = fmt.Fprintf(w, `{"errcode":%s,"errmsg":%q}`, kind, canaryErrmsg+" "+r.URL.String())
	}
}

func (c *canaryWeChat) count(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[kind]
}

// spellings are the forms in which a secret could be found.
func spellings(secret string) [][]byte {
	out := [][]byte{
		[]byte(secret), []byte(url.QueryEscape(secret)), []byte(url.PathEscape(secret)),
		[]byte(hex.EncodeToString([]byte(secret))), []byte(strings.ToUpper(hex.EncodeToString([]byte(secret)))),
	}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		// At each of the three places that it may have in what was encoded,
		// without the characters that its neighbours share.
		for shift := range 3 {
			text := encoding.EncodeToString(append(make([]byte, shift), secret...))
			out = append(out, []byte(text[(shift*8+5)/6:len(text)-2]))
		}
	}
	return out
}

// canaries is a list of secrets by name.
type canaries map[string]string

// absent fails the test where one of the secrets is in what.
func (c canaries) absent(t testing.TB, where string, what []byte) {
	t.Helper()
	for name, secret := range c {
		if len(secret) < 8 {
			t.Fatalf("canary %s is %q", name, secret)
		}
		for i, spelling := range spellings(secret) {
			if at := bytes.Index(what, spelling); at >= 0 {
				t.Errorf("%s is in %s (spelling %d): …%.200q", name, where, i, what[max(0, at-80):])
				break
			}
		}
	}
}

func (c canaries) with(more canaries) canaries {
	all := canaries{}
	for _, list := range []canaries{c, more} {
		for name, secret := range list {
			all[name] = secret
		}
	}
	return all
}

// TestSpellings: a grep that finds nothing must be able to find something.
func TestSpellings(t *testing.T) {
	const secret = "canary?secret+with/odd=bytes"
	for _, text := range []string{
		secret, url.QueryEscape(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret),
		base64.StdEncoding.EncodeToString([]byte("id:" + secret)), base64.URLEncoding.EncodeToString([]byte("x" + secret + "y")),
		base64.StdEncoding.EncodeToString([]byte("xy" + secret)),
	} {
		found := false
		for _, spelling := range spellings(secret) {
			found = found || bytes.Contains([]byte("before "+text+" after"), spelling)
		}
		if !found {
			t.Errorf("not found in %s", text)
		}
	}
}

// TestThreat84Canaries runs everything that can go wrong with unique values in
// every field, and then looks for them in everything that leaves the server or
// stays on its disk.
func TestThreat84Canaries(t *testing.T) {
	weChat := &canaryWeChat{calls: make(map[string]int)}
	s := startServer(t, withWeChat(weChat), withoutLimits(), replacing("  base_url: WECHAT", "  timeout: 300ms\n  base_url: WECHAT"),
		withConfig(func(yaml string) string { return "log: { level: debug }\n" + yaml }))
	masterKey, err := os.ReadFile(filepath.Join(s.Dir, "data", "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(masterKey)))
	if err != nil {
		t.Fatal(err)
	}
	server := canaries{ // nobody may ever see these
		"AppSecret": testAppSecret, "second AppSecret": testApp2Secret, "client secret": testBackendKey, "admin token": testAdminToken,
		"master key": strings.TrimSpace(string(masterKey)), "master key bytes": string(rawKey),
		"session_key": canarySessionKey, "errmsg": canaryErrmsg[:20],
	}
	person := canaries{"openid": canaryOpenID, "unionid": canaryUnionID}
	tokens := canaries{}
	inputs := canaries{}
	var answers bytes.Buffer // of everything
	var refusals bytes.Buffer
	send := func(method, target string, form url.Values, edits ...func(*http.Request)) answer {
		t.Helper()
		out := s.Do(method, target, form, edits...)
		fmt.Fprintf(&answers, "%d %v\n%s\n", out.Status, out.Header, out.Body)
		if out.Status >= 400 {
			fmt.Fprintf(&refusals, "%d %v\n%s\n", out.Status, out.Header, out.Body)
		}
		return out
	}
	token := func(form url.Values, edits ...func(*http.Request)) answer {
		t.Helper()
		return send(http.MethodPost, s.Issuer+"/oauth2/token", form, edits...)
	}
	codes := 0
	code := func(kind string) string {
		codes++
		value := fmt.Sprintf("%s~canary-js-code-%04d-Tq7Zx", kind, codes)
		inputs[fmt.Sprintf("js_code %d", codes)] = value[len(kind)+1:]
		return value
	}
	signIn := func(kind string, scope string) answer {
		t.Helper()
		return token(pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", code(kind), "scope", scope))
	}
	keep := func(out answer) answer {
		for _, name := range []string{"access_token", "refresh_token", "id_token"} {
			if value := out.str(name); value != "" {
				tokens[fmt.Sprintf("%s %d", name, len(tokens))] = value
			}
		}
		return out
	}

	// Sign-ins and refreshes that succeed, and all ways in which WeChat fails.
	first := keep(signIn("ok", "openid profile wechat orders.read"))
	if first.Status != http.StatusOK {
		t.Fatal(first)
	}
	for _, kind := range []string{
		"html", "empty", "no_openid", "twice", "wrong_type", "long", "truncated", "status", "redirect", "hang", "huge", "reset",
		"-1", "40029", "40163", "40226", "45011", "40013", "40125", "40164", "99999", "41002",
	} {
		if out := signIn(kind, "openid"); out.Status < 400 {
			t.Errorf("WeChat fault %s: %v", kind, out)
		}
		if weChat.count(kind) == 0 {
			t.Errorf("WeChat fault %s never happened", kind)
		}
		keep(signIn("ok", "openid")) // keeps the breaker closed
		keep(signIn("ok", "openid"))
	}
	second := keep(token(pairs("grant_type", "refresh_token", "client_id", testClient, "refresh_token", first.str("refresh_token"))))
	if second.Status != http.StatusOK {
		t.Fatal(second)
	}
	if info := send(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(second.str("access_token"))); info.str("wechat_openid") != canaryOpenID {
		t.Errorf("UserInfo does not give the openid to its own client: %v", info)
	}
	send(http.MethodPost, s.Issuer+"/oauth2/introspect", pairs("token", second.str("access_token")), basic(testBackend, testBackendKey))
	keep(token(pairs("grant_type", "client_credentials"), basic(testBackend, testBackendKey)))
	// Reuse, after its successor was used.
	third := keep(token(pairs("grant_type", "refresh_token", "client_id", testClient, "refresh_token", second.str("refresh_token"))))
	token(pairs("grant_type", "refresh_token", "client_id", testClient, "refresh_token", first.str("refresh_token")))
	send(http.MethodPost, s.Issuer+"/oauth2/revoke", pairs("client_id", testClient, "token", third.str("refresh_token")))
	// A good token of another client, and secrets in the wrong places.
	token(pairs("grant_type", "refresh_token", "client_id", "shop-mini-2", "refresh_token", keep(signIn("ok", "openid")).str("refresh_token")))
	token(pairs("grant_type", "client_credentials", "client_id", testBackend, "client_secret", testBackendKey))
	token(pairs("grant_type", "client_credentials", "client_id", testClient, "client_secret", testBackendKey))
	token(pairs("grant_type", "client_credentials"), basic(testClient, testBackendKey))
	token(pairs("grant_type", "client_credentials"), basic(testBackendKey, testBackend))
	send(http.MethodPost, s.Issuer+"/oauth2/token?client_secret="+testBackendKey+"&refresh_token="+third.str("refresh_token"), pairs("grant_type", "refresh_token"))

	canary := func(field string) string {
		value := fmt.Sprintf("canary-%s-%d-Qe4Rt", strings.ReplaceAll(field, "_", "-"), len(inputs))
		inputs[field] = value
		return value
	}
	poison := func(*http.Request) {}
	for _, name := range []string{"User-Agent", "Cookie", "X-Forwarded-For", "Referer", "Origin", "X-Request-Id", "Accept-Language", "Idempotency-Key", "Traceparent"} {
		before, value := poison, canary("header "+name)
		value = strings.ReplaceAll(value, " ", "-")
		inputs["header "+name] = value
		poison = func(r *http.Request) { before(r); r.Header.Set(name, value) }
	}
	form := url.Values{}
	for _, name := range []string{
		"client_id", "client_secret", "client_assertion", "client_assertion_type", "refresh_token", "js_code", "scope", "audience", "resource",
		"nonce", "code", "code_verifier", "username", "password", "token", "access_token", "ui_locales", "state", "redirect_uri",
	} {
		form.Set(name, canary(name))
	}
	for _, grant := range []string{"wechat_jscode", "refresh_token", "client_credentials", "password", canary("grant_type")} {
		form.Set("grant_type", grant)
		token(form, poison)
		for _, drop := range []string{"client_assertion", "client_secret"} {
			partial := url.Values{}
			for name, values := range form {
				if !strings.HasPrefix(name, drop) {
					partial[name] = values
				}
			}
			token(partial, poison)
			partial.Set("client_id", testClient)
			token(partial, poison)
		}
		token(form, poison, basic(canary("Basic user "+grant), canary("Basic password "+grant)))
		token(form, poison, header("Authorization", "Digest "+canary("Digest "+grant)))
		for _, name := range []string{"js_code", "refresh_token", "scope", "resource", "nonce"} {
			token(pairs("grant_type", grant, "client_id", testClient, name, canary(name+" alone "+grant)+"\x01\n"), poison)
			token(pairs("grant_type", grant, "client_id", testClient, name, inputs[name]+"%zz", name, inputs[name]), poison)
		}
	}
	for _, path := range []string{"/oauth2/introspect", "/oauth2/revoke", "/oauth2/userinfo", "/nothing/" + canary("path"), "/admin/keys", "/.well-known/jwks.json"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut} {
			send(method, s.Issuer+path, nil, poison, bearer(canary("Bearer "+method+path)))
			send(method, s.Issuer+path+"?access_token="+canary("query "+method+path), form, poison)
			send(method, s.Issuer+path, form, poison, basic(testBackend, canary("Basic "+method+path)))
			send(method, s.Issuer+path, pairs("token", canary("token "+method+path), "access_token", canary("body token "+method+path)), basic(testBackend, testBackendKey))
		}
	}
	jws := strings.Split(third.str("access_token"), ".")
	for _, forged := range []string{jws[0] + "." + jws[1] + "." + canary("signature"), canary("header part") + "." + jws[1] + "." + jws[2], "wxrt_" + canary("refresh token body")} {
		send(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(forged))
		send(http.MethodPost, s.Issuer+"/oauth2/revoke", pairs("client_id", testClient, "token", forged))
	}

	// The operator's side: wrong tokens, bad bodies, bad files.
	send(http.MethodGet, s.Admin+"/admin/keys", nil, bearer(canary("admin bearer")))
	for _, body := range []string{`{"id":"` + canary("key id") + `"}`, `{"` + canary("member") + `":1}`, canary("no JSON")} {
		out := s.overSocket(http.MethodPost, "/admin/keys/revoke", body)
		fmt.Fprintf(&answers, "%d %s\n", out.Status, out.Body)
	}
	delete(inputs, "key id") // the operator reads what key was not found
	good := s.Config()
	for i, bad := range []string{good + "    bogus: " + canary("bogus key"), good + "\n\t" + canary("no YAML"), strings.Replace(good, testBackendKey, "short"+canary("short secret")[:9], 1)} {
		s.WriteConfig(bad)
		within(t, reloadBound, "the bad file is refused", func() bool { _, refused := s.reloads(); return refused > float64(i) })
	}
	delete(inputs, "short secret")
	s.WriteConfig(good)
	list := send(http.MethodGet, s.Admin+"/admin/keys", nil, bearer(testAdminToken))
	metrics := send(http.MethodGet, s.Admin+"/metrics", nil)
	goroutines := s.overSocket(http.MethodGet, "/debug/pprof/goroutine?debug=2", "")

	// WeChat out of reach: the dialler's errors hold the URL.
	s.WeChat.CloseClientConnections()
	s.WeChat.Close()
	if out := signIn("ok", "openid"); out.Status != http.StatusServiceUnavailable {
		t.Errorf("WeChat out of reach: %v", out)
	}
	s.stop()

	logs := []byte(s.Logs.String())
	if n := checkLogLines(t, string(logs)); n < 200 {
		t.Errorf("only %d log lines", n)
	}
	everything := server.with(person).with(tokens).with(inputs)
	everything.absent(t, "the log", logs)
	everything.absent(t, "the metrics", metrics.Body)
	everything.absent(t, "the list of keys", list.Body)
	everything.absent(t, "the goroutine dump", goroutines.Body)
	server.absent(t, "the answers", answers.Bytes())
	person.with(inputs).absent(t, "the refusals", refusals.Bytes())

	data := s.storedBytes()
	for name, value := range tokens {
		if raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(value, "wxrt_")); strings.HasPrefix(value, "wxrt_") && err == nil {
			everything[name+" MAC"] = string(raw[len(raw)-32:])
		}
	}
	if !bytes.Contains(data, []byte("signing-keys")) || !bytes.Contains(logs, []byte(testClient)) {
		t.Error("the log or the data file is not what was searched")
	}
	everything.absent(t, "the data file", data)
}
