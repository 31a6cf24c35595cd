package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// TestThreat33TokenForms: an access token is what RFC 9068 says and nothing
// more, an ID Token what OIDC Core §2 says.
func TestThreat33TokenForms(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	before := time.Now().Unix()
	out := signIn(s, "alice", "nonce", "n1")
	access, id := out.str("access_token"), out.str("id_token")
	names := func(set map[string]any) string { return strings.Join(slices.Sorted(maps.Keys(set)), " ") }

	if h := jwtPart(t, access, 0); h["typ"] != "at+jwt" || h["alg"] != "ES256" || names(h) != "alg kid typ" {
		t.Errorf("access token header %v", h)
	}
	c := claims(t, access)
	if names(c) != "aud auth_time client_id exp iat iss jti scope sid sub" {
		t.Errorf("access token claims %v", c)
	}
	iat, exp := int64(c["iat"].(float64)), int64(c["exp"].(float64))
	if c["iss"] != s.Issuer || c["aud"] != testAudience || c["client_id"] != testClient || c["scope"] != testDefaultScope ||
		iat < before || exp-iat != 900 || c["auth_time"] == nil || len(c["jti"].(string)) < 22 {
		t.Errorf("access token claims %v", c)
	}
	if out.JSON["expires_in"] != float64(900) || out.str("token_type") != "Bearer" || names(out.JSON) != "access_token expires_in id_token refresh_token scope token_type" {
		t.Errorf("answer %v", out)
	}
	if out.Header.Get("Cache-Control") != "no-store" || out.Header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", out.Header)
	}

	if h := jwtPart(t, id, 0); h["typ"] != "JWT" || h["alg"] != "ES256" {
		t.Errorf("ID Token header %v", h)
	}
	d := claims(t, id)
	if names(d) != "amr at_hash aud auth_time exp iat iss nonce sid sub" || d["aud"] != testClient || d["sub"] != c["sub"] || d["sid"] != c["sid"] ||
		int64(d["exp"].(float64))-int64(d["iat"].(float64)) != 3600 {
		t.Errorf("ID Token claims %v", d)
	}
	// A client that names no alg gets OIDC's default.
	if h := jwtPart(t, signInSecondApp(s, "alice").str("id_token"), 0); h["alg"] != "RS256" {
		t.Errorf("ID Token header %v", h)
	}
	// sub is nothing that WeChat knows, and no WeChat value is in any token.
	for _, secret := range []string{s.Sim.OpenID(testAppID, "alice"), s.Sim.UnionID("main", "alice"), "session_key"} {
		for _, part := range []map[string]any{c, d} {
			if strings.Contains(fmt.Sprint(part), secret) {
				t.Errorf("a token holds %q", secret)
			}
		}
	}
	if other := claims(t, signIn(s, "alice").str("access_token")); other["jti"] == c["jti"] || other["sid"] == c["sid"] || other["sub"] != c["sub"] {
		t.Errorf("two sign-ins: %v and %v", c, other)
	}
}

// acceptedAnywhere reports whether introspection or UserInfo takes a token.
func acceptedAnywhere(s *testServer, token string) bool {
	s.t.Helper()
	if out := introspect(s, token, basic(testBackend, testBackendKey)); out.Status != 200 && out.Status != 413 || out.JSON["active"] == true {
		s.t.Errorf("introspection of %.80q: %v", token, out)
		return true
	}
	if strings.ContainsAny(token, "\r\n") || len(token) > 15_000 {
		return false // such a header cannot be sent
	}
	out := s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(token), phone())
	if out.Status != 401 || out.str("error") != "invalid_token" {
		s.t.Errorf("UserInfo with %.80q: %v", token, out)
		return true
	}
	return false
}

func segment(raw string) string { return base64.RawURLEncoding.EncodeToString([]byte(raw)) }

// TestThreat31JWTConfusion tries the known ways to make a verifier take a token
// that its issuer never signed.
func TestThreat31JWTConfusion(t *testing.T) {
	t.Parallel()
	var fetched atomic.Int32
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
	defer evil.Close()
	s := startServer(t, manyPhones(), withConfig(func(yaml string) string {
		return "rate_limits: { introspection_misses_per_minute: 100000 }\n" + yaml
	}))
	access := signIn(s, "alice").str("access_token")
	parts := strings.Split(access, ".")
	kid := jwtPart(t, access, 0)["kid"].(string)
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(s.Do(http.MethodGet, s.Issuer+"/.well-known/jwks.json", nil).Body, &set); err != nil {
		t.Fatal(err)
	}
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])

	var forged []string
	// Algorithms other than the key's, with the signature, without, and empty.
	for _, alg := range []string{"none", "None", "nOnE", "NONE", "", "HS256", "HS384", "RS256", "PS256", "ES384", "ES512", "EdDSA", "es256", "ES256K", "A256KW", "dir"} {
		for _, header := range []string{
			`{"alg":"` + alg + `","kid":"` + kid + `","typ":"at+jwt"}`, `{"alg":"` + alg + `","typ":"at+jwt"}`, `{"alg":"` + alg + `"}`,
		} {
			head := segment(header) + "." + parts[1] + "."
			forged = append(forged, head+parts[2], head, head+"AA")
		}
	}
	// MACs keyed with what everybody knows.
	for _, key := range set.Keys {
		asJWK, _ := json.Marshal(key)
		for _, secret := range [][]byte{asJWK, []byte(key.KeyID + strings.Repeat("\x00", 32)), make([]byte, 64)} {
			forged = append(forged, sign(t, jose.HS256, secret, key.KeyID, payload))
		}
	}
	// Other keys, under our kid, under theirs, and brought along.
	ownEC, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ownRSA, _ := rsa.GenerateKey(rand.Reader, 2048)
	for _, key := range set.Keys {
		forged = append(forged, sign(t, jose.ES256, ownEC, key.KeyID, payload), sign(t, jose.RS256, ownRSA, key.KeyID, payload), sign(t, jose.PS256, ownRSA, key.KeyID, payload))
	}
	forged = append(forged, sign(t, jose.ES256, ownEC, "", payload), sign(t, jose.ES256, ownEC, "evil", payload))
	ownJWK, _ := json.Marshal(jose.JSONWebKey{Key: ownEC.Public(), KeyID: "evil", Algorithm: "ES256", Use: "sig"})
	// Headers that want to be trusted (Threat 32). The signature is the real one.
	base := `"alg":"ES256","typ":"at+jwt","kid":"` + kid + `"`
	for _, more := range []string{
		`"jwk":` + string(ownJWK), `"jku":"` + evil.URL + `"`, `"x5u":"` + evil.URL + `"`, `"x5c":["MIIB"]`, `"x5t":"x"`, `"crit":["b64"],"b64":false`, `"crit":[]`,
		`"b64":false`, `"zip":"DEF"`, `"cty":"JWT"`, `"kid":"evil"`, `"alg":"none"`, `"typ":"JWT"`, `"x":1`, `"nested":` + strings.Repeat("[", 400) + strings.Repeat("]", 400),
	} {
		for _, header := range []string{"{" + base + "," + more + "}", "{" + more + "," + base + "}"} {
			forged = append(forged, segment(header)+"."+parts[1]+"."+parts[2])
		}
	}
	for _, id := range []string{"../../dev/null", "/dev/null", "' OR 1=1 --", strings.Repeat("k", 40_000), "a\r\nb", "", kid + " ", strings.ToUpper(kid), evil.URL} {
		raw, _ := json.Marshal(map[string]string{"alg": "ES256", "typ": "at+jwt", "kid": id})
		if id != kid {
			forged = append(forged, segment(string(raw))+"."+parts[1]+"."+parts[2])
		}
	}
	// Other spellings of the same bytes, and the real parts changed.
	forged = append(forged, access+"=", parts[0]+"=."+parts[1]+"."+parts[2], parts[0]+"."+parts[1]+"=."+parts[2], lastBit(access), parts[0]+"."+lastBit(parts[1])+"."+parts[2],
		parts[0]+"."+segment(strings.Replace(string(payload), testDefaultScope, "openid admin", 1))+"."+parts[2],
		segment(" "+string(mustDecode(t, parts[0])))+"."+parts[1]+"."+parts[2], parts[0]+"."+parts[1], parts[0], parts[1]+"."+parts[0]+"."+parts[2],
		strings.NewReplacer("-", "+", "_", "/").Replace(access)+"=", asJSON(t, access), derSignature(t, access))
	for _, token := range forged {
		if token != access && acceptedAnywhere(s, token) {
			t.Errorf("accepted: %.120q", token)
		}
	}
	if len(forged) < 150 {
		t.Errorf("only %d forgeries", len(forged))
	}
	if fetched.Load() != 0 {
		t.Error("the server fetched a URL from a token")
	}
	if !userInfoOK(s, access) {
		t.Error("the real token is inactive")
	}
}

// lastBit flips the last bit of a base64url text, which may be a spare one.
func lastBit(text string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return text[:len(text)-1] + string(alphabet[strings.IndexByte(alphabet, text[len(text)-1])^1])
}

func mustDecode(t testing.TB, part string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// derSignature spells the ECDSA signature as other software does.
func derSignature(t testing.TB, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	raw := mustDecode(t, parts[2])
	der := append([]byte{0x30, 0x44, 0x02, 0x20}, raw[:32]...)
	der = append(append(der, 0x02, 0x20), raw[32:]...)
	return parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(der)
}

// TestThreat34MissingClaims: tokens that the server's own keys signed, and that
// are not what it issues.
func TestThreat34MissingClaims(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	access := signIn(s, "alice").str("access_token")
	signed := func(typ string, edit func(map[string]any)) string {
		set := claims(t, access)
		edit(set)
		raw, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		token, err := s.parts.keys.Sign("ES256", typ, raw)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	if !userInfoOK(s, signed("at+jwt", func(map[string]any) {})) {
		t.Fatal("the unchanged claims are not accepted, so this test shows nothing")
	}
	for _, typ := range []string{"JWT", "at+JWT", "AT+JWT", "application/at+jwt", "", "logout+jwt", "dpop+jwt"} {
		if acceptedAnywhere(s, signed(typ, func(map[string]any) {})) {
			t.Errorf("typ %q", typ)
		}
	}
	for _, name := range []string{"iss", "sub", "aud", "client_id", "iat", "exp", "jti"} {
		if acceptedAnywhere(s, signed("at+jwt", func(c map[string]any) { delete(c, name) })) {
			t.Errorf("without %s", name)
		}
		for _, value := range []any{nil, "", []string{}, map[string]any{}, true, -1} {
			if acceptedAnywhere(s, signed("at+jwt", func(c map[string]any) { c[name] = value })) {
				t.Errorf("%s is %v", name, value)
			}
		}
	}
	now := time.Now().Unix()
	for name, values := range map[string][]any{
		"exp":       {fmt.Sprint(now + 60), float64(now) + 60.5, 1e300, now, now - 1, 0},
		"iat":       {fmt.Sprint(now), 0},
		"iss":       {"https://other.example", s.Issuer + "/", strings.ToUpper(s.Issuer)},
		"aud":       {[]any{1}, []any{nil}, [][]string{{testAudience}}},
		"client_id": {"nobody", "shop-mini-2", testBackend, strings.ToUpper(testClient)},
		"sub":       {"somebody", testClient, 42},
		"sid":       {"x", strings.Repeat("A", 22), strings.Repeat("_", 22), 1},
		"scope":     {[]string{"openid"}, 1},
		"extra":     {1},
	} {
		for _, value := range values {
			if acceptedAnywhere(s, signed("at+jwt", func(c map[string]any) { c[name] = value })) {
				t.Errorf("%s is %v", name, value)
			}
		}
	}
	// Without a family it is the token of a client, which has no user to show.
	orphan := signed("at+jwt", func(c map[string]any) { delete(c, "sid") })
	if userInfo := s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(orphan), phone()); userInfo.Status == 200 {
		t.Errorf("UserInfo: %v", userInfo)
	}
	for _, raw := range []string{"", "null", "[]", `"x"`, "{}", "{", string(mustDecode(t, strings.Split(access, ".")[1])) + "{}", string(mustDecode(t, strings.Split(access, ".")[1])) + " x", strings.Repeat("[", 8000)} {
		token, err := s.parts.keys.Sign("ES256", "at+jwt", []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		if acceptedAnywhere(s, token) {
			t.Errorf("claims %.40q", raw)
		}
	}
}

// TestThreat37JOSEBombs: what is dear to parse is not parsed.
func TestThreat37JOSEBombs(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	access := signIn(s, "alice").str("access_token")
	parts := strings.Split(access, ".")
	pbes := segment(`{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":1000000000,"p2s":"AAAA"}`)
	zipped := segment(`{"alg":"dir","enc":"A128GCM","zip":"DEF"}`)
	for name, token := range map[string]string{
		"dots":         strings.Repeat(".", 65_000),
		"dots after":   access + strings.Repeat(".", 60_000),
		"JWE, PBES2":   pbes + ".AAAA.AAAA.AAAA.AAAA",
		"JWE, zip":     zipped + "..AAAA." + strings.Repeat("A", 50_000) + ".AAAA",
		"deep header":  segment(strings.Repeat(`{"a":`, 8000)+"1"+strings.Repeat("}", 8000)) + "." + parts[1] + "." + parts[2],
		"deep payload": parts[0] + "." + segment(strings.Repeat("[", 40_000)) + "." + parts[2],
		"long kid":     segment(`{"alg":"ES256","typ":"at+jwt","kid":"`+strings.Repeat("k", 45_000)+`"}`) + "." + parts[1] + "." + parts[2],
		"twice":        segment(`{"alg":"none","alg":"ES256","typ":"at+jwt"}`) + "." + parts[1] + "." + parts[2],
	} {
		if acceptedAnywhere(s, token) {
			t.Errorf("%s", name)
		}
	}
}

// TestThreat28CrossType presents every credential in the place of every other:
// it is refused there and still good where it belongs.
func TestThreat28CrossType(t *testing.T) {
	t.Parallel()
	s, keys := startWithClients(t)
	user := signIn(s, "alice", "scope", "openid profile")
	machine := machineToken(s, pairs(), basic(testBackend, testBackendKey)).str("access_token")
	credentials := map[string]string{
		"js_code":       s.Code(testAppID, "bob"),
		"access token":  user.str("access_token"),
		"refresh token": user.str("refresh_token"),
		"ID Token":      user.str("id_token"),
		"machine token": machine,
		"assertion":     assertion(t, jose.ES256, keys.es, "es-1", s, "es-client", nil),
		"client secret": postSecret,
		"sid":           claims(t, user.str("access_token"))["sid"].(string),
		"sub":           subject(t, user),
	}
	for name, credential := range credentials {
		type slot struct {
			name string
			out  answer
			ok   bool // answered as success without effect
		}
		slots := []slot{
			{"js_code", s.Token(signInForm(credential), phone()), false},
			{"refresh_token", refresh(s, credential), false},
			{"bearer", s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(credential), phone()), false},
			{"client_assertion", machineToken(s, withAssertion(credential)), false},
			{"client_secret", machineToken(s, pairs("client_id", "post-client", "client_secret", credential)), false},
			{"Basic password", machineToken(s, pairs(), basic(testBackend, credential)), false},
			{"introspected", introspect(s, credential, basic(testBackend, testBackendKey)), true},
			{"revoked by another", s.Do(http.MethodPost, s.Issuer+"/oauth2/revoke", pairs("client_id", "shop-mini-2", "token", credential), phone()), true},
		}
		own := map[string]string{"js_code": "js_code", "access token": "bearer", "refresh token": "refresh_token", "assertion": "client_assertion", "client secret": "client_secret"}
		for _, slot := range slots {
			switch {
			case own[name] == slot.name:
				if slot.out.Status != 200 {
					t.Errorf("%s as %s: %v", name, slot.name, slot.out)
				}
			case slot.name == "introspected" && (name == "access token" || name == "machine token"):
				if slot.out.JSON["active"] != true {
					t.Errorf("%s is inactive", name)
				}
			case slot.ok:
				if slot.out.Status != 200 || slot.out.JSON["active"] == true {
					t.Errorf("%s %s: %v", name, slot.name, slot.out)
				}
			case slot.out.Status < 400 || slot.out.Status >= 500:
				t.Errorf("%s as %s: %v", name, slot.name, slot.out)
			}
		}
	}
	if !userInfoOK(s, user.str("access_token")) || !s.Active(machine) || refresh(s, user.str("refresh_token")).Status != 200 {
		t.Error("a credential was harmed in a foreign place")
	}
}
