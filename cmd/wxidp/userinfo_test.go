package main

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestUserInfo: the claims by scope (OIDC Core §5.3, §5.4), and the ways to
// present the token.
func TestUserInfo(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	path := s.Issuer + "/oauth2/userinfo"
	for scope, want := range map[string][]string{
		"openid":                {"sub"},
		"openid orders.read":    {"sub"},
		"openid profile":        {"name", "nickname", "sub", "updated_at"},
		"openid wechat":         {"sub", "wechat_appid", "wechat_openid", "wechat_unionid"},
		"openid profile wechat": {"name", "nickname", "sub", "updated_at", "wechat_appid", "wechat_openid", "wechat_unionid"},
	} {
		out := signIn(s, "alice", "scope", scope)
		token := out.str("access_token")
		answers := map[string]answer{
			"GET":                s.Do(http.MethodGet, path, nil, bearer(token), phone()),
			"POST, header":       s.Do(http.MethodPost, path, nil, bearer(token), phone()),
			"POST, body":         s.Do(http.MethodPost, path, pairs("access_token", token), phone()),
			"lower-case scheme":  s.Do(http.MethodGet, path, nil, header("Authorization", "bearer "+token), phone()),
			"POST, header, form": s.Do(http.MethodPost, path, pairs("x", "y"), bearer(token), phone()),
		}
		for name, info := range answers {
			if info.Status != 200 || info.str("sub") != subject(t, out) || info.Header.Get("Content-Type") != "application/json" || info.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s, scope %q: %v %v", name, scope, info, info.Header)
			}
			if got := slices.Sorted(maps.Keys(info.JSON)); !slices.Equal(got, want) {
				t.Errorf("%s, scope %q: claims %v, want %v", name, scope, got, want)
			}
		}
		info := answers["GET"]
		if strings.Contains(scope, "wechat") && (info.str("wechat_appid") != testAppID ||
			info.str("wechat_openid") != s.Sim.OpenID(testAppID, "alice") || info.str("wechat_unionid") != s.Sim.UnionID("main", "alice")) {
			t.Errorf("WeChat's ids: %v", info)
		}
	}
}

// TestThreat65OwnAppOnly: a client gets the openid of its own mini-program,
// also where the user is the same.
func TestThreat65OwnAppOnly(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	first, second := signIn(s, "alice", "scope", "openid wechat"), signInSecondApp(s, "alice")
	if subject(t, first) != subject(t, second) {
		t.Fatal("two users")
	}
	for _, row := range []struct {
		out   answer
		appid string
	}{{first, testAppID}, {second, testApp2}} {
		info := s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(row.out.str("access_token")), phone())
		if info.str("wechat_appid") != row.appid || info.str("wechat_openid") != s.Sim.OpenID(row.appid, "alice") {
			t.Errorf("%s: %v", row.appid, info)
		}
	}
	for _, token := range []string{first.str("access_token"), first.str("id_token")} {
		if sub := claims(t, token)["sub"].(string); strings.Contains(sub, s.Sim.OpenID(testAppID, "alice")) || strings.Contains(token, "openid\"") {
			t.Errorf("sub %q", sub)
		}
	}
}

// TestThreat47UserInfoRefusals: RFC 6750 §3, and no token in a URL.
func TestThreat47UserInfoRefusals(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	path := s.Issuer + "/oauth2/userinfo"
	out := signIn(s, "alice")
	token := out.str("access_token")
	noOpenID := signIn(s, "alice", "scope", "orders.read").str("access_token")
	machine := machineToken(s, pairs(), basic(testBackend, testBackendKey)).str("access_token")
	both := func(r *http.Request) { r.Header.Add("Authorization", "Bearer "+token) }
	const challenge = `Bearer realm="wxidp"`

	for _, row := range []struct {
		name      string
		out       answer
		status    int
		code      string
		challenge string
	}{
		{"nothing", s.Do("GET", path, nil, phone()), 401, "invalid_token", challenge},
		{"empty body", s.Do("POST", path, pairs(), phone()), 401, "invalid_token", challenge},
		{"query", s.Do("GET", path+"?access_token="+token, nil, phone()), 400, "invalid_request", ""},
		{"query and header", s.Do("GET", path+"?access_token="+token, nil, bearer(token), phone()), 400, "invalid_request", ""},
		{"any query", s.Do("GET", path+"?x=1", nil, bearer(token), phone()), 400, "invalid_request", ""},
		{"header and body", s.Do("POST", path, pairs("access_token", token), bearer(token), phone()), 400, "invalid_request", ""},
		{"two headers", s.Do("GET", path, nil, both, both, phone()), 400, "invalid_request", ""},
		{"twice in the body", s.Do("POST", path, pairs("access_token", token, "access_token", token), phone()), 400, "invalid_request", ""},
		{"Basic", s.Do("GET", path, nil, basic(testBackend, testBackendKey), phone()), 401, "invalid_token", ""},
		{"token alone", s.Do("GET", path, nil, header("Authorization", token), phone()), 401, "invalid_token", ""},
		{"Bearer alone", s.Do("GET", path, nil, header("Authorization", "Bearer"), phone()), 401, "invalid_token", ""},
		{"ID Token", s.Do("GET", path, nil, bearer(out.str("id_token")), phone()), 401, "invalid_token", ""},
		{"refresh token", s.Do("GET", path, nil, bearer(out.str("refresh_token")), phone()), 401, "invalid_token", ""},
		{"junk", s.Do("GET", path, nil, bearer("x"), phone()), 401, "invalid_token", ""},
		{"two spaces", s.Do("GET", path, nil, header("Authorization", "Bearer  "+token), phone()), 401, "invalid_token", ""},
		{"no openid", s.Do("GET", path, nil, bearer(noOpenID), phone()), 403, "insufficient_scope", ""},
		{"client's own", s.Do("GET", path, nil, bearer(machine), phone()), 403, "insufficient_scope", ""},
	} {
		refused(t, row.out, row.status, row.code)
		got := row.out.Header.Get("WWW-Authenticate")
		if row.challenge != "" && got != row.challenge || !strings.HasPrefix(got, challenge) {
			t.Errorf("%s: WWW-Authenticate %q", row.name, got)
		}
		if row.challenge == "" && !strings.Contains(got, `error="`+row.code+`"`) {
			t.Errorf("%s: WWW-Authenticate %q", row.name, got)
		}
		if row.status == 403 && !strings.Contains(got, `scope="openid"`) {
			t.Errorf("%s: WWW-Authenticate %q", row.name, got)
		}
	}
	if out.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("CORS headers nobody configured")
	}
	for _, secret := range []string{token, out.str("refresh_token"), out.str("id_token")} {
		if strings.Contains(s.Logs.String(), secret[len(secret)-40:]) {
			t.Error("the log holds a token")
		}
	}
}

// TestExpiredAccessToken: exp is honoured everywhere.
func TestExpiredAccessToken(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withConfig(func(yaml string) string { return "tokens: { access_token_lifetime: 1s }\n" + yaml }))
	out := signIn(s, "alice")
	if out.JSON["expires_in"] != float64(1) {
		t.Errorf("expires_in %v", out.JSON["expires_in"])
	}
	exp := int64(claims(t, out.str("access_token"))["exp"].(float64))
	time.Sleep(time.Until(time.Unix(exp, 0).Add(20 * time.Millisecond)))
	refused(t, s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(out.str("access_token")), phone()), 401, "invalid_token")
	if s.Active(out.str("access_token")) {
		t.Error("an expired access token is active")
	}
	if again := refresh(s, out.str("refresh_token")); again.Status != 200 {
		t.Errorf("refresh: %v", again)
	}
}
