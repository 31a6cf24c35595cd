package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

func discovery(s *testServer, path string) (answer, map[string]any) {
	s.t.Helper()
	out := s.Do(http.MethodGet, s.Issuer+path, nil)
	if out.Status != 200 || out.Header.Get("Content-Type") != "application/json" || !strings.HasPrefix(out.Header.Get("Cache-Control"), "public, max-age=") {
		s.t.Fatalf("%s: %v %v", path, out, out.Header)
	}
	return out, out.JSON
}

func list(value any) (out []string) {
	values, _ := value.([]any)
	for _, v := range values {
		s, _ := v.(string)
		out = append(out, s)
	}
	return out
}

// TestDiscovery: OpenID Connect Discovery and RFC 8414 say the same, and what
// they say is true.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	openID, doc := discovery(s, "/.well-known/openid-configuration")
	oauth, _ := discovery(s, "/.well-known/oauth-authorization-server")
	if !bytes.Equal(openID.Body, oauth.Body) {
		t.Errorf("two documents:\n%s\n%s", openID.Body, oauth.Body)
	}
	if doc["issuer"] != s.Issuer {
		t.Errorf("issuer %v", doc["issuer"])
	}
	for name, value := range doc {
		endpoint, ok := value.(string)
		if !ok || name == "issuer" {
			continue
		}
		if !strings.HasSuffix(name, "_endpoint") && name != "jwks_uri" || !strings.HasPrefix(endpoint, s.Issuer+"/") {
			t.Errorf("%s: %s", name, endpoint)
		}
		method := http.MethodPost
		switch name {
		case "jwks_uri":
			method = http.MethodGet
		case "account_endpoint":
			method = http.MethodPatch
		case "authorization_endpoint", "end_session_endpoint":
			method = http.MethodGet
		}
		if out := s.Do(method, endpoint, nil, phone()); out.Status == 404 || out.Status == 405 || out.Status >= 500 {
			t.Errorf("%s: %v", name, out)
		}
	}
	if doc["registration_endpoint"] != nil {
		t.Error("registration_endpoint is announced")
	}
	for name, want := range map[string][]string{
		"grant_types_supported":                         {"authorization_code", "client_credentials", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code", "wechat_jscode", "wechat_phone"},
		"response_types_supported":                      {"code"},
		"response_modes_supported":                      {"query", "form_post"},
		"code_challenge_methods_supported":              {"S256"},
		"subject_types_supported":                       {"public", "pairwise"},
		"id_token_signing_alg_values_supported":         {"ES256", "RS256"},
		"token_endpoint_auth_methods_supported":         {"none", "client_secret_basic", "client_secret_post", "private_key_jwt"},
		"introspection_endpoint_auth_methods_supported": {"client_secret_basic", "client_secret_post", "private_key_jwt"},
		"scopes_supported":                              {"openid", "profile", "phone", "wechat", "roles", "external_id", "offline_access", "wechat.data", "device.approve"},
		"ui_locales_supported":                          {"zh-CN", "en"},
	} {
		if got := list(doc[name]); !slices.Equal(got, want) || doc[name] == nil {
			t.Errorf("%s is %v, want %v", name, doc[name], want)
		}
	}
	if algs := list(doc["token_endpoint_auth_signing_alg_values_supported"]); slices.Contains(algs, "none") || slices.Contains(algs, "HS256") || !slices.Contains(algs, "ES256") {
		t.Errorf("assertion algs %v", algs)
	}
	// Every claim that is announced exists, and the other way round.
	out := signIn(s, "alice", "scope", "openid profile phone wechat", "nonce", "n", "phone_code", phoneCode(s, testAppID, "alice"))
	info := s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(out.str("access_token")), phone())
	announced := list(doc["claims_supported"])
	for _, set := range []map[string]any{claims(t, out.str("id_token")), info.JSON} {
		for name := range set {
			if !slices.Contains(announced, name) {
				t.Errorf("claim %s is not announced", name)
			}
			announced = slices.DeleteFunc(announced, func(a string) bool { return a == name && a != "sub" })
		}
	}
	// What a browser's sign-in, an account or the product's own system adds.
	elsewhere := []string{"sub", "picture", "roles", "external_id", "acr", "preferred_username", "given_name", "family_name", "middle_name",
		"profile", "website", "gender", "birthdate", "zoneinfo", "locale"}
	if rest := slices.DeleteFunc(announced, func(a string) bool { return slices.Contains(elsewhere, a) }); len(rest) != 0 {
		t.Errorf("claims that nobody gets: %v", rest)
	}
	if head := s.Do(http.MethodHead, s.Issuer+"/.well-known/openid-configuration", nil); head.Status != 200 || len(head.Body) != 0 {
		t.Errorf("HEAD: %v", head)
	}
}

// TestIssuerWithPath: an issuer below a path, by a foreign library.
func TestIssuerWithPath(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), replacing("issuer: ISSUER", "issuer: ISSUER/id/v1"))
	root := s.Issuer
	s.Issuer += "/id/v1"
	provider, err := oidc.NewProvider(context.Background(), s.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	out := signIn(s, "alice")
	if _, err := provider.Verifier(&oidc.Config{ClientID: testClient, SupportedSigningAlgs: []string{"ES256"}}).Verify(context.Background(), out.str("id_token")); err != nil {
		t.Error(err)
	}
	if !userInfoOK(s, out.str("access_token")) || !s.Active(out.str("access_token")) {
		t.Error("the access token is inactive")
	}
	if again := refresh(s, out.str("refresh_token")); again.Status != 200 {
		t.Error(again)
	}
	// RFC 8414 §3.1 inserts the well-known part before the path.
	inserted := s.Do(http.MethodGet, root+"/.well-known/oauth-authorization-server/id/v1", nil)
	appended := s.Do(http.MethodGet, s.Issuer+"/.well-known/openid-configuration", nil)
	if inserted.Status != 200 || !bytes.Equal(inserted.Body, appended.Body) {
		t.Errorf("%v", inserted)
	}
	for _, path := range []string{"/oauth2/token", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server", "/id/v1x/oauth2/token"} {
		if out := s.Do(http.MethodPost, root+path, signInForm("x"), phone()); out.Status != 404 && out.Status != 405 {
			t.Errorf("%s outside of the issuer: %v", path, out)
		}
	}
	if out := s.Do(http.MethodGet, root+"/healthz", nil); out.Status != 200 {
		t.Errorf("health: %v", out)
	}
}

// TestThreat35JWKS: public members only, and the validators of RFC 9110.
func TestThreat35JWKS(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withConfig(func(yaml string) string { return "keys: { publish_ahead: 1h, eddsa: true }\n" + yaml }))
	path := s.Issuer + "/.well-known/jwks.json"
	out := s.Do(http.MethodGet, path, nil)
	etag := out.Header.Get("ETag")
	if out.Status != 200 || etag == "" || out.Header.Get("Cache-Control") != "public, max-age=1800" {
		t.Fatalf("%v %v", out, out.Header)
	}
	var raw struct{ Keys []map[string]any }
	if err := json.Unmarshal(out.Body, &raw); err != nil || len(raw.Keys) < 4 {
		t.Fatalf("%d keys, %v", len(raw.Keys), err)
	}
	kids, algs := []string{}, map[any]int{}
	allowed := map[any][]string{"EC": {"crv", "x", "y"}, "RSA": {"n", "e"}, "OKP": {"crv", "x"}}
	for _, key := range raw.Keys {
		kid, _ := key["kid"].(string)
		kids = append(kids, kid)
		algs[key["alg"]]++
		if kid == "" || key["use"] != "sig" {
			t.Errorf("key %v", key)
		}
		for member := range key {
			if !slices.Contains(append([]string{"kty", "kid", "use", "alg"}, allowed[key["kty"]]...), member) {
				t.Errorf("a %v key has the member %s", key["kty"], member)
			}
		}
		if n, ok := key["n"].(string); ok {
			if modulus, err := base64.RawURLEncoding.DecodeString(n); err != nil || len(modulus) < 256 {
				t.Errorf("an RSA key of %d bits", 8*len(modulus))
			}
		}
	}
	if distinct(kids) != len(kids) || algs["ES256"] == 0 || algs["RS256"] == 0 || algs["EdDSA"] == 0 || len(algs) != 3 {
		t.Errorf("kids %v, algs %v", kids, algs)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(out.Body, &set); err != nil {
		t.Error(err)
	}
	for _, token := range []string{signIn(s, "alice").str("access_token"), signIn(s, "alice").str("id_token")} {
		if kid, _ := jwtPart(t, token, 0)["kid"].(string); len(set.Key(kid)) != 1 {
			t.Errorf("kid %q is not in the set", kid)
		}
	}
	for value, status := range map[string]int{
		etag: 304, "W/" + etag: 304, "*": 304, `"x", ` + etag: 304, `"x"`: 200, "": 200, strings.Trim(etag, `"`): 200,
	} {
		again := s.Do(http.MethodGet, path, nil, header("If-None-Match", value))
		if again.Status != status || again.Header.Get("ETag") != etag || again.Header.Get("Cache-Control") == "" || status == 304 && len(again.Body) != 0 {
			t.Errorf("If-None-Match %s: %d %v", value, again.Status, again.Header)
		}
	}
}

// TestCommits: what is written durably, and that nothing else is.
func TestCommits(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	store := s.parts.store
	settled(s)
	count := func(do func()) uint64 {
		before := store.Stats().Commits
		do()
		return store.Stats().Commits - before
	}
	code := s.Code(testAppID, "alice")
	var out, again answer
	for _, step := range []struct {
		name string
		want uint64
		do   func()
	}{
		{"sign-in", 1, func() { out = s.Token(signInForm(code), phone(), header("Idempotency-Key", "k")) }},
		{"repeated sign-in", 0, func() { s.Token(signInForm(code), phone(), header("Idempotency-Key", "k")) }},
		{"replayed code", 0, func() { s.Token(signInForm(code), phone()) }},
		{"refresh", 1, func() { again = refresh(s, out.str("refresh_token")) }},
		{"grace repeat", 0, func() { refresh(s, out.str("refresh_token")) }},
		{"forged refresh", 0, func() { refresh(s, out.str("refresh_token")[:70]) }},
		{"refused scope", 0, func() { refresh(s, again.str("refresh_token"), "scope", "admin") }},
		{"introspection", 0, func() { s.Active(again.str("access_token")); s.Active("junk") }},
		{"UserInfo", 0, func() { userInfoOK(s, again.str("access_token")); userInfoOK(s, "junk") }},
		{"JWKS", 0, func() { s.Do(http.MethodGet, s.Issuer+"/.well-known/jwks.json", nil) }},
		{"discovery", 0, func() { s.Do(http.MethodGet, s.Issuer+"/.well-known/openid-configuration", nil) }},
		{"client credentials", 0, func() { machineToken(s, pairs(), basic(testBackend, testBackendKey)) }},
		{"wrong secret", 0, func() { machineToken(s, pairs(), basic(testBackend, "x")) }},
		{"unknown token revoked", 0, func() { revoke(s, "junk") }},
		{"access token revoked", 1, func() { revoke(s, again.str("access_token")) }},
		{"refresh token revoked", 1, func() { revoke(s, again.str("refresh_token")) }},
	} {
		if got := count(step.do); got != step.want {
			t.Errorf("%s: %d commits, want %d", step.name, got, step.want)
		}
	}
}
