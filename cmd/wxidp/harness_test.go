package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat/simulator"
)

// runMainEnv makes the test binary be the program, for tests that need a
// process of their own.
const runMainEnv = "TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMainEnv) == "1" {
		os.Unsetenv(runMainEnv)
		endWithParent()
		main()
	}
	os.Exit(runTests(m))
}

// Identifiers and secrets of the test configuration. The secrets are canaries:
// no test may ever find them outside of the configuration.
const (
	testAppID        = "wx0123456789abcdef"
	testAppSecret    = "canary-app-secret-7d1f0a9b"
	testApp2         = "wxfedcba9876543210"
	testApp2Secret   = "canary-app-secret-two-55aa"
	testClient       = "shop-mini"
	testBackend      = "orders-api"
	testBackendKey   = "canary-Zk3vQ8pL1xW6tR9uY2sD5fG7hJ0aB4cE"
	testAudience     = "https://api.shop.example"
	testAdminToken   = "canary-adm-Qx81mVt5Wd0Kz7Rb2Lc9Pn4Hs6"
	testDefaultScope = "openid profile orders.read"
)

// defaultTestConfig uses the production defaults wherever a test does not need
// anything else. ISSUER, LISTEN, ADMIN, STORAGE and WECHAT are filled
// in.
const defaultTestConfig = `
issuer: ISSUER
listen: LISTEN
admin: { listen: ADMIN, socket: data/admin.sock, token_file: secrets/admin }
STORAGE
master_key_file: data/master.key
wechat:
  base_url: WECHAT
  apps:
    - { appid: ` + testAppID + `, secret: ` + testAppSecret + `, open_platform: main }
    - { appid: ` + testApp2 + `, secret: ` + testApp2Secret + `, open_platform: main }
clients:
  - client_id: ` + testClient + `
    type: public
    wechat_appid: ` + testAppID + `
    grant_types: [wechat_jscode, wechat_phone, refresh_token]
    id_token_signed_response_alg: ES256
    scopes: [openid, profile, phone, wechat, roles, external_id, orders.read]
    default_scopes: [openid, profile, orders.read]
    audience: [` + testAudience + `]
  - client_id: shop-mini-2
    type: public
    wechat_appid: ` + testApp2 + `
    grant_types: [wechat_jscode, wechat_phone, refresh_token]
    scopes: [openid, profile, phone, wechat]
    default_scopes: [openid]
    audience: [` + testAudience + `]
  - client_id: ` + testBackend + `
    type: confidential
    client_secret: ` + testBackendKey + `
    grant_types: [client_credentials]
    scopes: [orders.read, orders.write]
    default_scopes: [orders.read]
    audience: [` + testAudience + `]
    introspection: true
`

// testServer is a whole server in this process, with WeChat simulated behind
// real sockets.
type testServer struct {
	t      testing.TB
	Issuer string
	Admin  string // base URL of the admin listener
	Dir    string
	Sim    *simulator.Simulator
	WeChat *httptest.Server
	Logs   *logBuffer
	parts  *parts
	stop   func()

	afterRestore storage.RestoreChoice // of the next start
}

// serverOption changes a test server before it starts.
type serverOption struct {
	config func(string) string // edits the YAML
	weChat http.Handler        // in place of the simulator
	dir    string              // of an earlier server, to start it again
}

func withConfig(edit func(string) string) serverOption { return serverOption{config: edit} }

// replacing edits the YAML by replacing strings, pairwise.
func replacing(oldnew ...string) serverOption {
	return withConfig(strings.NewReplacer(oldnew...).Replace)
}

// appending adds YAML at the end, which is inside the list of clients.
func appending(text string) serverOption {
	return withConfig(func(yaml string) string { return yaml + text })
}

// withWeChat lets handler answer as WeChat.
func withWeChat(handler http.Handler) serverOption { return serverOption{weChat: handler} }

// startServer starts a server and ends it with the test.
func startServer(t testing.TB, options ...serverOption) *testServer {
	t.Helper()
	s := prepareServer(t, options...)
	s.start()
	return s
}

// prepareServer makes all that a server needs and does not start it.
func prepareServer(t testing.TB, options ...serverOption) *testServer {
	t.Helper()
	s := &testServer{t: t, Logs: new(logBuffer), Dir: t.TempDir()}
	s.Sim = simulator.New(simulator.Options{Seed: t.Name(), Apps: []simulator.App{
		{AppID: testAppID, Secret: testAppSecret, OpenPlatform: "main"},
		{AppID: testApp2, Secret: testApp2Secret, OpenPlatform: "main"},
	}})
	var weChat http.Handler = s.Sim.Handler()
	yaml := defaultTestConfig
	for _, option := range options {
		if option.config != nil {
			yaml = option.config(yaml)
		}
		if option.weChat != nil {
			weChat = option.weChat
		}
		if option.dir != "" {
			s.Dir = option.dir
		}
	}
	s.WeChat = httptest.NewServer(weChat)
	t.Cleanup(s.WeChat.Close)

	listen, admin := freeAddress(t), freeAddress(t)
	s.Issuer, s.Admin = "http://"+listen, "http://"+admin
	s.WriteConfig(strings.NewReplacer("ISSUER", s.Issuer, "LISTEN", listen, "ADMIN", admin, "STORAGE", storageConfig(t, s.Dir), "WECHAT", s.WeChat.URL).Replace(yaml))
	s.writeFile("secrets/admin", testAdminToken+"\n")
	if _, err := os.Stat(filepath.Join(s.Dir, "data", "master.key")); err != nil {
		s.writeFile("data/master.key", seal.GenerateKey()+"\n")
	}
	return s
}

// start runs the server of s.Dir until s.stop or the end of the test.
func (s *testServer) start() {
	s.t.Helper()
	loaded, err := config.Load(s.ConfigPath(), nil)
	if err != nil {
		s.t.Fatalf("configuration: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan *parts, 1), make(chan error, 1)
	level := new(slog.LevelVar)
	go func() {
		done <- serve(ctx, loaded, serveOptions{
			logger: slog.New(slog.NewJSONHandler(s.Logs, &slog.HandlerOptions{Level: level})),
			level:  level,
			ready:  func(p *parts) { ready <- p },

			afterRestore: s.afterRestore,
		})
	}()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("serve: %v", err)
		}
		testHTTP.CloseIdleConnections() // a POST on one that the server has closed would not be repeated
	})
	select {
	case s.parts = <-ready:
		s.t.Cleanup(s.stop)
	case err := <-done:
		cancel()
		s.t.Fatalf("serve: %v", err)
	}
}

// ConfigPath is the path of config.yaml.
func (s *testServer) ConfigPath() string { return filepath.Join(s.Dir, "config.yaml") }

// WriteConfig replaces config.yaml.
func (s *testServer) WriteConfig(yaml string) { s.writeFile("config.yaml", yaml) }

// Config returns the text of config.yaml.
func (s *testServer) Config() string {
	raw, err := os.ReadFile(s.ConfigPath())
	if err != nil {
		s.t.Fatal(err)
	}
	return string(raw)
}

func (s *testServer) writeFile(name, content string) {
	path := filepath.Join(s.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// Code is a fresh js_code of a user in an app.
func (s *testServer) Code(appid, user string) string {
	s.t.Helper()
	code, err := s.Sim.Login(appid, user)
	if err != nil {
		s.t.Fatal(err)
	}
	return code
}

// answer is an HTTP answer, read whole.
type answer struct {
	Status int
	Header http.Header
	Body   []byte
	JSON   map[string]any // nil where the body is no JSON object
}

// str returns a string member of the body.
func (a answer) str(name string) string { s, _ := a.JSON[name].(string); return s }

func (a answer) String() string { return fmt.Sprintf("%d %s", a.Status, a.Body) }

// testHTTP follows no redirects and keeps connections, like real clients.
var testHTTP = &http.Client{
	Timeout:       20 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport:     &http.Transport{MaxIdleConnsPerHost: 128},
}

// Do sends a request; edits may change it before.
func (s *testServer) Do(method, target string, form url.Values, edits ...func(*http.Request)) answer {
	s.t.Helper()
	out, err := s.try(method, target, form, edits...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, target, err)
	}
	return out
}

// try is Do for goroutines other than the test's and for servers that may be
// gone.
func (s *testServer) try(method, target string, form url.Values, edits ...func(*http.Request)) (answer, error) {
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
	for _, edit := range edits {
		edit(req)
	}
	resp, err := testHTTP.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	out := answer{Status: resp.StatusCode, Header: resp.Header, Body: raw}
	if json.Unmarshal(raw, &out.JSON) != nil {
		out.JSON = nil
	}
	return out, nil
}

// pairs makes a form of names and values.
func pairs(nameValue ...string) url.Values {
	form := url.Values{}
	for i := 0; i < len(nameValue); i += 2 {
		form.Add(nameValue[i], nameValue[i+1])
	}
	return form
}

// Token posts to the token endpoint.
func (s *testServer) Token(form url.Values, edits ...func(*http.Request)) answer {
	s.t.Helper()
	return s.Do(http.MethodPost, s.Issuer+"/oauth2/token", form, edits...)
}

// SignIn signs a user in to the default client.
func (s *testServer) SignIn(user string) answer {
	s.t.Helper()
	out := s.Token(pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", s.Code(testAppID, user)))
	if out.Status != http.StatusOK {
		s.t.Fatalf("sign-in: %v", out)
	}
	return out
}

// Refresh redeems a refresh token at the default client.
func (s *testServer) Refresh(token string) answer {
	s.t.Helper()
	return s.Token(pairs("grant_type", "refresh_token", "client_id", testClient, "refresh_token", token))
}

// Introspect asks as the default backend.
func (s *testServer) Introspect(token string) answer {
	s.t.Helper()
	return s.Do(http.MethodPost, s.Issuer+"/oauth2/introspect", pairs("token", token), basic(testBackend, testBackendKey))
}

// Active reports whether introspection calls the token active.
func (s *testServer) Active(token string) bool {
	s.t.Helper()
	return s.Introspect(token).JSON["active"] == true
}

// UserInfo asks the UserInfo endpoint.
func (s *testServer) UserInfo(token string) answer {
	s.t.Helper()
	return s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(token))
}

func basic(id, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(password)) }
}

func bearer(token string) func(*http.Request) { return header("Authorization", "Bearer "+token) }

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// eventually waits until ok, for as long as a slow machine may need.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// given are the addresses that freeAddress has returned: one is free until its
// server listens, and must not be given away twice meanwhile.
var given sync.Map

func freeAddress(t testing.TB) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		l.Close()
		if _, taken := given.LoadOrStore(address, true); !taken {
			return address
		}
	}
}

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns all that was logged.
func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Events returns the log lines with this event, parsed.
func (b *logBuffer) Events(name string) []map[string]any {
	var out []map[string]any
	for line := range strings.Lines(b.String()) {
		var event map[string]any
		if json.Unmarshal([]byte(line), &event) == nil && event["event"] == name {
			out = append(out, event)
		}
	}
	return out
}
