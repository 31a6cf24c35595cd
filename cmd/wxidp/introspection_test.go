package main

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const secondBackendKey = "canary-second-Zk3vQ8pL1xW6tR9uY2sD5fG7"

// withBackends adds a backend for another audience, one without the right to
// introspect, and one for both audiences.
func withBackends() serverOption {
	backend := func(id, audience, more string) string {
		return "  - { client_id: " + id + ", type: confidential, client_secret: " + secondBackendKey + ", grant_types: [client_credentials], scopes: [orders.read], " +
			"default_scopes: [orders.read], audience: [" + audience + "]" + more + " }\n"
	}
	return appending(backend("stock-api", "https://stock.example", ", introspection: true") +
		backend("no-right", testAudience, "") +
		backend("gateway", "https://stock.example, "+testAudience, ", introspection: true"))
}

// TestIntrospection: the form of the active answer (RFC 7662 §2.2).
func TestIntrospection(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withBackends())
	out := signIn(s, "alice")
	access := claims(t, out.str("access_token"))
	got := introspect(s, out.str("access_token"), basic(testBackend, testBackendKey))
	if got.Status != 200 || got.JSON["active"] != true || got.JSON["token_type"] != "Bearer" ||
		got.Header.Get("Content-Type") != "application/json" || got.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%v %v", got, got.Header)
	}
	for _, name := range []string{"iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti", "sid", "auth_time"} {
		if got.JSON[name] == nil || got.JSON[name] != access[name] {
			t.Errorf("%s is %v, in the token %v", name, got.JSON[name], access[name])
		}
	}
	names := slices.Sorted(maps.Keys(got.JSON))
	if want := []string{"active", "aud", "auth_time", "client_id", "exp", "iat", "iss", "jti", "scope", "sid", "sub", "token_type"}; !slices.Equal(names, want) {
		t.Errorf("members %v", names)
	}

	machine := machineToken(s, pairs("scope", "orders.write orders.read"), basic(testBackend, testBackendKey))
	got = introspect(s, machine.str("access_token"), basic(testBackend, testBackendKey))
	if got.JSON["active"] != true || got.str("sub") != testBackend || got.str("client_id") != testBackend || got.str("scope") != "orders.write orders.read" ||
		got.JSON["sid"] != nil || got.JSON["auth_time"] != nil {
		t.Errorf("a client's own token: %v", got)
	}
	// The hint is only a hint, and a client of both audiences sees both.
	for _, hint := range []string{"access_token", "refresh_token", "nonsense"} {
		out := s.Do(http.MethodPost, s.Issuer+"/oauth2/introspect", pairs("token", out.str("access_token"), "token_type_hint", hint), basic("gateway", secondBackendKey), phone())
		if out.JSON["active"] != true {
			t.Errorf("hint %s: %v", hint, out)
		}
	}
}

// TestThreat38Unauthorised: who may not ask learns nothing.
func TestThreat38Unauthorised(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withBackends())
	token := signIn(s, "alice").str("access_token")
	ask := func(more ...string) answer {
		return s.Do(http.MethodPost, s.Issuer+"/oauth2/introspect", pairs(append([]string{"token", token}, more...)...), phone())
	}
	for name, out := range map[string]answer{
		"nobody":           ask(),
		"public client":    ask("client_id", testClient),
		"same bearer":      introspect(s, token, bearer(token)),
		"other bearer":     introspect(s, token, bearer(signIn(s, "bob").str("access_token"))),
		"machine's bearer": introspect(s, token, bearer(machineToken(s, pairs(), basic(testBackend, testBackendKey)).str("access_token"))),
		"wrong secret":     introspect(s, token, basic(testBackend, "wrong")),
		"unknown client":   introspect(s, token, basic("nobody", "wrong")),
		"secret in body":   ask("client_id", testBackend, "client_secret", testBackendKey),
	} {
		if out.Status != 401 || out.str("error") != "invalid_client" || out.JSON["active"] != nil {
			t.Errorf("%s: %v", name, out)
		}
		eventOf(s, out, "introspect.denied")
	}
	denied := introspect(s, token, basic("no-right", secondBackendKey))
	refused(t, denied, 403, "access_denied")
	if line := eventOf(s, denied, "introspect.denied"); line["client_id"] != "no-right" || line["reason"] != "no_right" {
		t.Errorf("log line %v", line)
	}
	for _, form := range []map[string][]string{{}, {"token": {""}}, {"token": {token, token}}} {
		refused(t, s.Do(http.MethodPost, s.Issuer+"/oauth2/introspect", form, basic(testBackend, testBackendKey), phone()), 400, "invalid_request")
	}
	refused(t, s.Do(http.MethodPost, s.Issuer+"/oauth2/introspect?token="+token, pairs("token", token), basic(testBackend, testBackendKey), phone()), 400, "invalid_request")
	if strings.Contains(s.Logs.String(), strings.Split(token, ".")[2]) {
		t.Error("the log holds an access token")
	}
}

const inactive = `{"active":false}` + "\n"

// TestThreat39AudienceFilter: a backend learns only of tokens for itself; the
// answer about others is the answer about nothing.
func TestThreat39AudienceFilter(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withBackends())
	token := signIn(s, "alice").str("access_token")
	out := introspect(s, token, basic("stock-api", secondBackendKey))
	unknown := introspect(s, "unknown", basic("stock-api", secondBackendKey))
	if out.Status != 200 || string(out.Body) != inactive || string(unknown.Body) != inactive {
		t.Errorf("%v and %v", out, unknown)
	}
	for name := range out.Header {
		if name != "X-Request-Id" && name != "Date" && out.Header.Get(name) != unknown.Header.Get(name) {
			t.Errorf("header %s differs: %q and %q", name, out.Header.Get(name), unknown.Header.Get(name))
		}
	}
	if line := eventOf(s, out, "introspect.audience_mismatch"); line["client_id"] != "stock-api" {
		t.Errorf("log line %v", line)
	}
	if introspect(s, token, basic("gateway", secondBackendKey)).JSON["active"] != true {
		t.Error("a backend of both audiences does not see the token")
	}
}

// TestThreat40OtherTokens: nothing but an access token is ever active.
func TestThreat40OtherTokens(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	code := s.Code(testAppID, "bob")
	out := signIn(s, "alice")
	access := out.str("access_token")
	for _, token := range []string{
		out.str("refresh_token"), out.str("id_token"), code, "x", " ", ".", "..", "...", "e30.e30.e30", strings.Repeat(".", 60_000), strings.Repeat("a", 60_000),
		access + ".", "." + access, access + " ", " " + access, access + "=", access + "\n", access[:len(access)-1], access + "A", "Bearer " + access,
		strings.ToUpper(access), strings.Replace(access, ".", "\n.", 1), access[:10] + "\r\n" + access[10:], asJSON(t, access),
		unsigned(access, `{"alg":"none"}`), testBackendKey, claims(t, access)["sid"].(string), claims(t, access)["jti"].(string),
	} {
		for _, hint := range []string{"", "access_token", "refresh_token"} {
			got := s.Do(http.MethodPost, s.Issuer+"/oauth2/introspect", pairs("token", token, "token_type_hint", hint), basic(testBackend, testBackendKey), phone())
			if got.Status != 200 || string(got.Body) != inactive {
				t.Errorf("token %.40q: %v", token, got)
			}
		}
	}
	if introspect(s, access, basic(testBackend, testBackendKey)).JSON["active"] != true || refresh(s, out.str("refresh_token")).Status != 200 {
		t.Error("asking about a token harmed it")
	}
}

// TestThreat41TokenScanning: a backend that asks about junk is stopped, alone,
// and junk costs no write.
func TestThreat41TokenScanning(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withBackends(), withConfig(func(yaml string) string {
		return "rate_limits: { introspection_misses_per_minute: 60 }\n" + yaml
	}))
	settled(s)
	before := s.parts.store.Stats().Operations
	limited := 0
	for i := range 100 {
		out := introspect(s, "junk-"+strconv.Itoa(i), basic("gateway", secondBackendKey))
		switch {
		case out.Status == 429 && out.Header.Get("Retry-After") != "":
			limited++
		case out.Status != 200:
			t.Fatal(out)
		}
	}
	if limited < 20 || limited > 40 {
		t.Errorf("%d of 100 misses were limited, want about 40", limited)
	}
	if n := s.parts.store.Stats().Operations - before; n != 0 {
		t.Errorf("%d writes for junk", n)
	}
	// Whoever sends a backend junk does not shut out its honest users.
	token := signIn(s, "alice").str("access_token")
	for name, out := range map[string]answer{
		"another backend":  introspect(s, token, basic(testBackend, testBackendKey)),
		"the same backend": introspect(s, token, basic("gateway", secondBackendKey)),
	} {
		if out.JSON["active"] != true {
			t.Errorf("a good token at %s: %v", name, out)
		}
	}
}

// TestRemovedClient: a client that is taken out of the configuration is
// inactive with all its tokens, and comes back with them.
func TestRemovedClient(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	out := signIn(s, "alice")
	settled(s)
	before := s.parts.store.Stats().Operations
	reload(s, "client_id: "+testClient+"\n", "client_id: renamed\n")
	if userInfoOK(s, out.str("access_token")) || s.Active(out.str("access_token")) {
		t.Error("a token of a removed client is active")
	}
	refused(t, refresh(s, out.str("refresh_token")), 401, "invalid_client")
	refused(t, revoke(s, out.str("refresh_token")), 401, "invalid_client")
	renamed := s.Token(pairs("grant_type", "refresh_token", "client_id", "renamed", "refresh_token", out.str("refresh_token")), phone())
	refused(t, renamed, 400, "invalid_grant")
	if n := s.parts.store.Stats().Operations - before; n != 0 {
		t.Errorf("%d writes for a removed client", n)
	}
	reload(s, "client_id: renamed\n", "client_id: "+testClient+"\n")
	if !userInfoOK(s, out.str("access_token")) || !s.Active(out.str("access_token")) {
		t.Error("a token of a client that is back is inactive")
	}
	if again := refresh(s, out.str("refresh_token")); again.Status != 200 {
		t.Errorf("refresh: %v", again)
	}

	// Moved to another mini-program, it must not go on with the old one's users.
	out = signIn(s, "alice")
	reload(s, "wechat_appid: "+testAppID+"\n", "wechat_appid: "+testApp2+"\n")
	if userInfoOK(s, out.str("access_token")) {
		t.Error("a token from another mini-program is active")
	}
	refused(t, refresh(s, out.str("refresh_token")), 400, "invalid_grant")
}
