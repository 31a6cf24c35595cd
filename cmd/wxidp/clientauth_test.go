package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	specialSecret = `canary:_+%&=/?"~and more of 32 characters;{}`
	postSecret    = "canary-post-Zk3vQ8pL1xW6tR9uY2sD5fG7hJ"
	newSecret     = "canary-new-0Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr"
)

// assertionKeys are the keys of the clients that authenticate by assertion.
type assertionKeys struct {
	es *ecdsa.PrivateKey
	rs *rsa.PrivateKey
}

// startWithClients starts a server with one client for each way to
// authenticate.
func startWithClients(t *testing.T) (*testServer, assertionKeys) {
	t.Helper()
	var keys assertionKeys
	var err error
	if keys.es, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if keys.rs, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, set := range map[string]jose.JSONWebKeySet{
		"es.json": {Keys: []jose.JSONWebKey{{Key: keys.es.Public(), KeyID: "es-1", Algorithm: "ES256", Use: "sig"}}},
		"rs.json": {Keys: []jose.JSONWebKey{{Key: keys.rs.Public(), KeyID: "rs-1", Algorithm: "RS256", Use: "sig"}}},
	} {
		raw, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	machine := func(id, more string) string {
		return "  - { client_id: " + id + ", type: confidential, grant_types: [client_credentials], scopes: [orders.read], " +
			"default_scopes: [orders.read], audience: [" + testAudience + "], " + more + " }\n"
	}
	special, _ := json.Marshal(specialSecret) // JSON is YAML
	s := startServer(t, manyPhones(), serverOption{dir: dir}, appending(
		machine("basic.client~1", "client_secret: "+string(special))+
			machine("post-client", "client_secrets: ["+postSecret+", "+newSecret+"], token_endpoint_auth_method: client_secret_post, introspection: true")+
			machine("es-client", "token_endpoint_auth_method: private_key_jwt, token_endpoint_auth_signing_alg: ES256, jwks_file: es.json, introspection: true")+
			machine("es-twin", "token_endpoint_auth_method: private_key_jwt, token_endpoint_auth_signing_alg: ES256, jwks_file: es.json")+
			machine("rs-client", "token_endpoint_auth_method: private_key_jwt, jwks_file: rs.json")))
	return s, keys
}

// machineToken asks for a client's own token.
func machineToken(s *testServer, form url.Values, edits ...func(*http.Request)) answer {
	s.t.Helper()
	form.Set("grant_type", "client_credentials")
	return s.Token(form, append(edits, phone())...)
}

// assertion signs a client assertion whose claims are changed by edit.
func assertion(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, s *testServer, client string, edit map[string]any) string {
	t.Helper()
	set := map[string]any{
		"iss": client, "sub": client, "aud": s.Issuer, "jti": rand.Text(),
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}
	maps.Copy(set, edit)
	maps.DeleteFunc(set, func(_ string, value any) bool { return value == nil })
	payload, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, alg, key, kid, payload)
}

func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, payload []byte) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func withAssertion(token string, more ...string) url.Values {
	return pairs(append([]string{"client_assertion_type", assertionType, "client_assertion", token}, more...)...)
}

// TestClientAuthentication: each method works for the client that is
// configured for it, and for no other.
func TestClientAuthentication(t *testing.T) {
	t.Parallel()
	s, keys := startWithClients(t)
	es := func(edit map[string]any) string {
		return assertion(t, jose.ES256, keys.es, "es-1", s, "es-client", edit)
	}
	rs := func() string { return assertion(t, jose.RS256, keys.rs, "rs-1", s, "rs-client", nil) }

	good := map[string]answer{
		"basic":                machineToken(s, pairs(), basic("basic.client~1", specialSecret)),
		"basic and client_id":  machineToken(s, pairs("client_id", "basic.client~1"), basic("basic.client~1", specialSecret)),
		"lower-case scheme":    machineToken(s, pairs(), header("Authorization", "basic "+base64.StdEncoding.EncodeToString([]byte(testBackend+":"+testBackendKey)))),
		"post":                 machineToken(s, pairs("client_id", "post-client", "client_secret", postSecret)),
		"post, second secret":  machineToken(s, pairs("client_id", "post-client", "client_secret", newSecret)),
		"ES256":                machineToken(s, withAssertion(es(nil))),
		"ES256 and client_id":  machineToken(s, withAssertion(es(nil), "client_id", "es-client")),
		"aud token endpoint":   machineToken(s, withAssertion(es(map[string]any{"aud": s.Issuer + "/oauth2/token"}))),
		"aud list":             machineToken(s, withAssertion(es(map[string]any{"aud": []string{"https://x.example", s.Issuer}}))),
		"no iat":               machineToken(s, withAssertion(es(map[string]any{"iat": nil}))),
		"RS256":                machineToken(s, withAssertion(rs())),
		"none":                 s.Token(signInForm(s.Code(testAppID, "alice")), phone()),
		"none, by empty Basic": s.Token(pairs("grant_type", "wechat_jscode", "js_code", s.Code(testAppID, "alice")), phone(), basic(testClient, "")),
	}
	for name, out := range good {
		if out.Status != 200 || out.str("token_type") != "Bearer" {
			t.Errorf("%s: %v", name, out)
		}
	}
	out := good["ES256"]
	if c := claims(t, out.str("access_token")); c["sub"] != "es-client" || c["client_id"] != "es-client" || c["sid"] != nil || c["auth_time"] != nil {
		t.Errorf("claims %v", c)
	}
	if out.JSON["refresh_token"] != nil || out.JSON["id_token"] != nil {
		t.Errorf("a client's own answer has tokens of a user: %v", out)
	}

	bad := map[string]answer{
		"basic, wrong secret":       machineToken(s, pairs(), basic("basic.client~1", specialSecret+"x")),
		"basic, not encoded":        machineToken(s, pairs(), func(r *http.Request) { r.SetBasicAuth(testBackend, testBackendKey+"%20") }),
		"basic, no secret":          machineToken(s, pairs(), basic(testBackend, "")),
		"no secret at all":          machineToken(s, pairs("client_id", testBackend)),
		"post for basic":            machineToken(s, pairs("client_id", testBackend, "client_secret", testBackendKey)),
		"basic for post":            machineToken(s, pairs(), basic("post-client", postSecret)),
		"basic for assertion":       machineToken(s, pairs(), basic("es-client", "x")),
		"post for assertion":        machineToken(s, pairs("client_id", "es-client", "client_secret", "x")),
		"client_id for assertion":   machineToken(s, pairs("client_id", "es-client")),
		"hash as secret":            machineToken(s, pairs("client_id", "post-client", "client_secret", "sha256$00")),
		"unknown client":            machineToken(s, pairs("client_id", "nobody")),
		"unknown, basic":            machineToken(s, pairs(), basic("nobody", testBackendKey)),
		"no client":                 machineToken(s, pairs()),
		"case of the id":            machineToken(s, pairs(), basic("ORDERS-API", testBackendKey)),
		"public with secret":        s.Token(signInForm("x", "client_secret", "y"), phone()),
		"public with empty secret":  s.Token(signInForm("x", "client_secret", ""), phone()),
		"public with Basic secret":  s.Token(pairs("grant_type", "wechat_jscode", "js_code", "x"), phone(), basic(testClient, "y")),
		"Bearer":                    machineToken(s, pairs("client_id", testBackend), bearer(testBackendKey)),
		"broken Basic":              machineToken(s, pairs("client_id", testBackend), header("Authorization", "Basic !!!")),
		"assertion of public":       s.Token(signInForm("x", "client_assertion_type", assertionType, "client_assertion", assertion(t, jose.ES256, keys.es, "es-1", s, testClient, nil)), phone()),
		"wrong key":                 machineToken(s, withAssertion(assertion(t, jose.RS256, keys.rs, "rs-1", s, "es-client", nil))),
		"wrong alg":                 machineToken(s, withAssertion(assertion(t, jose.PS256, keys.rs, "rs-1", s, "rs-client", nil))),
		"unknown kid":               machineToken(s, withAssertion(assertion(t, jose.ES256, keys.es, "es-2", s, "es-client", nil))),
		"aud":                       machineToken(s, withAssertion(es(map[string]any{"aud": "https://other.example"}))),
		"no aud":                    machineToken(s, withAssertion(es(map[string]any{"aud": nil}))),
		"aud is a prefix":           machineToken(s, withAssertion(es(map[string]any{"aud": s.Issuer + "/"}))),
		"iss":                       machineToken(s, withAssertion(es(map[string]any{"iss": "rs-client"}))),
		"no iss":                    machineToken(s, withAssertion(es(map[string]any{"iss": nil}))),
		"sub":                       machineToken(s, withAssertion(es(map[string]any{"sub": "rs-client"}))),
		"no sub":                    machineToken(s, withAssertion(es(map[string]any{"sub": nil}))),
		"sub is a number":           machineToken(s, withAssertion(es(map[string]any{"sub": 1}))),
		"other client_id":           machineToken(s, withAssertion(es(nil), "client_id", "rs-client")),
		"expired":                   machineToken(s, withAssertion(es(map[string]any{"exp": time.Now().Add(-61 * time.Second).Unix()}))),
		"no exp":                    machineToken(s, withAssertion(es(map[string]any{"exp": nil}))),
		"exp 0":                     machineToken(s, withAssertion(es(map[string]any{"exp": 0}))),
		"exp 0.5":                   machineToken(s, withAssertion(es(map[string]any{"exp": 0.5}))),
		"exp is a string":           machineToken(s, withAssertion(es(map[string]any{"exp": strconv.FormatInt(time.Now().Unix()+60, 10)}))),
		"exp 1e300":                 machineToken(s, withAssertion(es(map[string]any{"exp": 1e300}))),
		"exp max":                   machineToken(s, withAssertion(es(map[string]any{"exp": int64(math.MaxInt64)}))),
		"exp in two hours":          machineToken(s, withAssertion(es(map[string]any{"exp": time.Now().Add(2 * time.Hour).Unix()}))),
		"nbf":                       machineToken(s, withAssertion(es(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}))),
		"iat in the future":         machineToken(s, withAssertion(es(map[string]any{"iat": time.Now().Add(time.Hour).Unix()}))),
		"no jti":                    machineToken(s, withAssertion(es(map[string]any{"jti": nil}))),
		"empty jti":                 machineToken(s, withAssertion(es(map[string]any{"jti": ""}))),
		"long jti":                  machineToken(s, withAssertion(es(map[string]any{"jti": strings.Repeat("j", 257)}))),
		"not a JWT":                 machineToken(s, withAssertion("x")),
		"empty assertion":           machineToken(s, withAssertion("")),
		"an access token":           machineToken(s, withAssertion(out.str("access_token"))),
		"signature cut":             machineToken(s, withAssertion(es(nil)[:60])),
		"JSON serialisation":        machineToken(s, withAssertion(asJSON(t, es(nil)))),
		"alg none":                  machineToken(s, withAssertion(unsigned(es(nil), `{"alg":"none"}`))),
		"alg none, kid":             machineToken(s, withAssertion(unsigned(es(nil), `{"alg":"none","kid":"es-1"}`))),
		"HS256 by public key":       machineToken(s, withAssertion(hs256(t, keys, s, "es-client"))),
		"HS256 by public RSA key":   machineToken(s, withAssertion(hs256(t, keys, s, "rs-client"))),
		"embedded key":              machineToken(s, withAssertion(embedded(t, s))),
		"assertion of another type": machineToken(s, pairs("client_id", "es-client", "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer", "client_assertion", "x")),
	}
	for name, out := range bad {
		if out.Status == 401 && out.str("error") == "invalid_client" {
			continue
		}
		if name == "assertion of another type" && out.str("error") == "invalid_request" {
			continue
		}
		t.Errorf("%s: %v", name, out)
	}
	for _, name := range []string{"basic, wrong secret", "basic, no secret", "unknown, basic", "public with Basic secret", "Bearer", "broken Basic"} {
		if got := bad[name].Header.Get("WWW-Authenticate"); got != `Basic realm="wxidp"` {
			t.Errorf("%s: WWW-Authenticate %q", name, got)
		}
	}
	if string(bad["unknown client"].Body) != string(bad["no secret at all"].Body) || string(bad["unknown, basic"].Body) != string(bad["basic, wrong secret"].Body) {
		t.Error("an unknown client is answered differently from a wrong secret")
	}
	for _, canary := range []string{"canary", url.QueryEscape(specialSecret)} {
		if strings.Contains(s.Logs.String(), canary) {
			t.Error("the log holds a client secret")
		}
	}
}

// asJSON is a compact JWS in the flattened JSON serialization.
func asJSON(t testing.TB, compact string) string {
	t.Helper()
	parts := strings.Split(compact, ".")
	raw, err := json.Marshal(map[string]string{"protected": parts[0], "payload": parts[1], "signature": parts[2]})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// unsigned puts another header on a JWS and takes its signature.
func unsigned(compact, header string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + strings.Split(compact, ".")[1] + "."
}

// hs256 is an assertion whose MAC key is the client's public key.
func hs256(t testing.TB, keys assertionKeys, s *testServer, client string) string {
	t.Helper()
	public, kid := any(keys.es.Public()), "es-1"
	if client == "rs-client" {
		public, kid = keys.rs.Public(), "rs-1"
	}
	raw, err := json.Marshal(jose.JSONWebKey{Key: public, KeyID: kid, Algorithm: "ES256", Use: "sig"})
	if err != nil {
		t.Fatal(err)
	}
	return assertion(t, jose.HS256, raw, kid, s, client, nil)
}

// embedded is an assertion that brings its own key.
func embedded(t testing.TB, s *testServer) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, &jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := json.Marshal(map[string]any{"iss": "es-client", "sub": "es-client", "aud": s.Issuer, "jti": "j", "exp": time.Now().Unix() + 60})
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// TestAssertionReplay: an assertion is good once, across endpoints and a
// restart; another client's jti is another.
func TestAssertionReplay(t *testing.T) {
	t.Parallel()
	s, keys := startWithClients(t)
	fixed := map[string]any{"jti": "fixed"}
	token := assertion(t, jose.ES256, keys.es, "es-1", s, "es-client", fixed)
	var ok, refused atomic.Int32
	parallel(20, func(int) {
		out, err := s.try(http.MethodPost, s.Issuer+"/oauth2/token", withAssertion(token, "grant_type", "client_credentials"), phone())
		switch {
		case err == nil && out.Status == 200:
			ok.Add(1)
		case err == nil && out.Status == 401 && out.str("error") == "invalid_client":
			refused.Add(1)
		default:
			t.Errorf("%v %v", out, err)
		}
	})
	if ok.Load() != 1 || refused.Load() != 19 {
		t.Errorf("one assertion 20 times at once: %d good, %d refused", ok.Load(), refused.Load())
	}
	if out := machineToken(s, withAssertion(assertion(t, jose.ES256, keys.es, "es-1", s, "es-twin", fixed))); out.Status != 200 {
		t.Errorf("another client with the same jti: %v", out)
	}
	again := machineToken(s, withAssertion(assertion(t, jose.ES256, keys.es, "es-1", s, "es-client", fixed)))
	if again.Status != 401 {
		t.Errorf("a new assertion with the old jti: %v", again)
	}
	form := withAssertion(token, "token", "x")
	if out := s.Do(http.MethodPost, s.Issuer+"/oauth2/introspect", form, phone()); out.Status != 401 {
		t.Errorf("replayed at another endpoint: %v", out)
	}
	s.stop()
	testHTTP.CloseIdleConnections() // a kept one may still look alive
	s.start()
	if out := machineToken(s, withAssertion(token)); out.Status != 401 {
		t.Errorf("replayed after a restart: %v", out)
	}
}

// TestThreat25TwoAuthentications: exactly one method, and never in the URL.
func TestThreat25TwoAuthentications(t *testing.T) {
	t.Parallel()
	s, keys := startWithClients(t)
	es := assertion(t, jose.ES256, keys.es, "es-1", s, "es-client", nil)
	byBasic := basic("basic.client~1", specialSecret)
	for name, out := range map[string]answer{
		"Basic of A, client_id of B":  machineToken(s, pairs("client_id", "post-client"), byBasic),
		"Basic and client_secret":     machineToken(s, pairs("client_id", "basic.client~1", "client_secret", specialSecret), byBasic),
		"Basic and empty secret":      machineToken(s, pairs("client_secret", ""), byBasic),
		"Basic and assertion":         machineToken(s, withAssertion(es), byBasic),
		"assertion and client_secret": machineToken(s, withAssertion(es, "client_id", "es-client", "client_secret", "x")),
		"assertion without its type":  machineToken(s, pairs("client_id", "es-client", "client_assertion", es)),
		"type without assertion":      machineToken(s, pairs("client_id", "post-client", "client_secret", postSecret, "client_assertion_type", assertionType)),
		"two client_ids":              machineToken(s, pairs("client_id", "post-client", "client_id", "post-client", "client_secret", postSecret)),
		"two secrets":                 machineToken(s, pairs("client_id", "post-client", "client_secret", "x", "client_secret", postSecret)),
		"Basic that is no encoding":   machineToken(s, pairs(), func(r *http.Request) { r.SetBasicAuth("%zz", "x") }),
		"two Authorization headers": machineToken(s, pairs(), byBasic, func(r *http.Request) {
			r.Header.Add("Authorization", r.Header.Get("Authorization"))
		}),
	} {
		if out.Status != 400 || out.str("error") != "invalid_request" {
			t.Errorf("%s: %v", name, out)
		}
	}
	for _, query := range []string{"?client_id=post-client&client_secret=" + postSecret, "?x=1", "?grant_type=client_credentials", "?client_secret=" + postSecret} {
		out := s.Do(http.MethodPost, s.Issuer+"/oauth2/token"+query, pairs("grant_type", "client_credentials"), byBasic, phone())
		refused(t, out, 400, "invalid_request")
	}
	if strings.Contains(s.Logs.String(), "canary") {
		t.Error("the log holds a client secret")
	}
}

// TestThreat26SecretGuessing: guesses are limited by client and address, and
// nobody else notices.
func TestThreat26SecretGuessing(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	attacker := from(netip.MustParseAddr("203.0.113.66"))
	guess := func(path string, i int) answer {
		return s.Do(http.MethodPost, s.Issuer+path, pairs("grant_type", "client_credentials", "token", "x"), attacker, basic(testBackend, "guess-"+strconv.Itoa(i)))
	}
	paths := []string{"/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"}
	refusals := 0
	for i := range 60 {
		out := guess(paths[i%3], i)
		switch out.Status {
		case 401:
			refusals++
		case 429:
			refused(t, out, 429, "temporarily_unavailable")
			if out.Header.Get("Retry-After") == "" {
				t.Fatal("429 without Retry-After")
			}
		default:
			t.Fatalf("guess: %v", out)
		}
	}
	if refusals < 10 || refusals > 20 {
		t.Errorf("%d guesses were judged, want about 10", refusals)
	}
	// Nobody shuts out a client by failing in its name, not even next door.
	right := s.Do(http.MethodPost, s.Issuer+"/oauth2/token", pairs("grant_type", "client_credentials"), attacker, basic(testBackend, testBackendKey))
	if right.Status != 200 {
		t.Errorf("the client from the attacker's address: %v", right)
	}
	if out := machineToken(s, pairs(), basic(testBackend, testBackendKey)); out.Status != 200 {
		t.Errorf("the client from its own address: %v", out)
	}
	out := s.Token(signInForm(s.Code(testAppID, "alice")), attacker)
	if out.Status != 200 {
		t.Errorf("another client from the same address: %v", out)
	}
}

// TestThreat26PublicClient: a public client has no secret to guess, so nobody
// can shut out the others behind the same address by guessing one.
func TestThreat26PublicClient(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	carrier := from(netip.MustParseAddr("203.0.113.66"))
	for i := range 30 {
		out := s.Token(signInForm("x", "client_secret", "guess-"+strconv.Itoa(i)), carrier)
		if out.Status != 401 {
			t.Fatalf("guess %d: %v", i, out)
		}
	}
	if out := s.Token(signInForm(s.Code(testAppID, "alice")), carrier); out.Status != 200 {
		t.Errorf("an honest user behind the same address: %v", out)
	}
}
