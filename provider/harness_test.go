package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/grants"
	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/bolt"
	"github.com/wxidp/wxidp/wechat"
)

const (
	testIssuer = "https://id.example.com"
	testClient = "shop-mini"
	testAppID  = "wx0123456789abcdef"
)

// fakeWeChat knows every code: "user:anything" is a code of that user, and
// what does not look so is refused as WeChat does.
type fakeWeChat struct {
	mu    sync.Mutex
	calls int
}

func (*fakeWeChat) App(appid string) (wechat.App, bool) {
	return wechat.App{AppID: appid}, appid == testAppID
}

func (f *fakeWeChat) Code2Session(_ context.Context, _, jsCode string) (wechat.CodeResult, error) {
	f.mu.Lock()
	f.calls++
	f.mu.Unlock()
	user, _, ok := strings.Cut(jsCode, ":")
	if !ok {
		return wechat.CodeResult{}, &wechat.Error{Kind: wechat.InvalidCode, Code: 40029, Sent: true, Reason: "errcode"}
	}
	return wechat.CodeResult{WeChatOpenID: user}, nil
}

// bench is a Provider on a real store and key ring, without any socket, so
// that it also runs inside a synctest bubble.
type bench struct {
	*Provider
	t      testing.TB
	store  *bolt.Store
	ring   *keys.Ring
	weChat *fakeWeChat

	keyring *seal.Keyring
}

var benchKeys = keys.Settings{
	RotateEvery: 400 * 24 * time.Hour, PublishAhead: 24 * time.Hour, TokenLifetime: time.Hour, RefreshLifetime: 400 * 24 * time.Hour,
}

func newBench(t testing.TB, edits ...func(*Settings)) *bench {
	t.Helper()
	keyring, err := seal.ParseKeyring([]byte(seal.GenerateKey()))
	if err != nil {
		t.Fatal(err)
	}
	settings := Settings{
		AccessTokenLifetime:          15 * time.Minute,
		IDTokenLifetime:              time.Hour,
		RefreshTokenIdleLifetime:     30 * 24 * time.Hour,
		RefreshTokenAbsoluteLifetime: 180 * 24 * time.Hour,
		RefreshGrace:                 20 * time.Second,
		FailedClientAuthPerMinute:    10,
		IntrospectionMissesPerMinute: 600,
		Clients: []Client{
			{ID: testClient, Public: true, AuthMethod: AuthNone, GrantTypes: []string{"wechat_jscode", "refresh_token"},
				Scopes: []string{"openid", "profile"}, DefaultScopes: []string{"openid"}, Audience: []string{"api"}, WeChatAppID: testAppID, IDTokenAlg: "ES256"},
			{ID: "once", Public: true, AuthMethod: AuthNone, GrantTypes: []string{"wechat_jscode"},
				Scopes: []string{"openid"}, DefaultScopes: []string{"openid"}, WeChatAppID: testAppID, IDTokenAlg: "ES256"},
			{ID: "api", AuthMethod: AuthClientSecretPost, SecretHashes: []string{HashSecret("api-secret")}, Audience: []string{"api", testIssuer}, Introspection: true},
		},
	}
	for _, edit := range edits {
		edit(&settings)
	}
	b := &bench{t: t, weChat: new(fakeWeChat), keyring: keyring}
	ctx := context.Background()
	if b.store, err = bolt.Open(ctx, bolt.Options{Path: filepath.Join(t.TempDir(), "data", "wxidp.db"), Keyring: keyring}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.store.Close(); err != nil {
			t.Error(err)
		}
	})
	b.ring, err = keys.Open(ctx, keys.Options{Store: b.store, Keyring: keyring, Settings: benchKeys})
	if err != nil {
		t.Fatal(err)
	}
	b.Provider, err = New(Options{
		Issuer: testIssuer, Store: b.store, Keys: b.ring, Settings: settings, Logger: slog.New(slog.DiscardHandler),
		Grants: []grants.Grant{&grants.WeChatJSCode{Codes: &grants.JSCodes{WeChat: b.weChat, Claims: b.store}, Defaults: accounts.NewDefaults(storage.Profile{})}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// request is a form post as the front hands it on.
func request(path string, form url.Values, headers ...string) Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	_ = r.ParseForm() // what is wrong with a form is the test's to judge
	return Request{HTTP: r, RemoteIP: netip.MustParseAddr("192.0.2.1"), ID: "test"}
}

func form(nameValue ...string) url.Values {
	out := url.Values{}
	for i := 0; i < len(nameValue); i += 2 {
		out.Add(nameValue[i], nameValue[i+1])
	}
	return out
}

func (b *bench) post(values url.Values, headers ...string) (*TokenResponse, error) {
	return b.Token(context.Background(), request(PathToken, values, headers...))
}

func (b *bench) signIn(code string, headers ...string) *TokenResponse {
	b.t.Helper()
	out, err := b.post(form("grant_type", "wechat_jscode", "client_id", testClient, "js_code", code), headers...)
	if err != nil {
		b.t.Fatalf("sign-in: %v", err)
	}
	return out
}

func (b *bench) refreshToken(token string) (*TokenResponse, error) {
	return b.post(form("grant_type", "refresh_token", "client_id", testClient, "refresh_token", token))
}

func (b *bench) active(token string) bool {
	b.t.Helper()
	body, err := b.Introspect(context.Background(), request(PathIntrospection, form("client_id", "api", "client_secret", "api-secret", "token", token)))
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.HasPrefix(string(body), `{"active":true`)
}

// code checks the OAuth code of an error, "" for none.
func (b *bench) code(err error, want Code) {
	b.t.Helper()
	got := Code("")
	if err != nil {
		got = AsError(err).Code
	}
	if got != want {
		b.t.Errorf("error %v, want %q", err, want)
	}
}

// lines takes log lines of several goroutines.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// events returns the log lines of an event.
func (l *lines) events(name string) (out []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		var event map[string]any
		if json.Unmarshal([]byte(line), &event) == nil && event["event"] == name {
			out = append(out, event)
		}
	}
	return out
}
