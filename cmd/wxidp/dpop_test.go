package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/wechat/simulator"
)

// bound checks that an answer's access token is bound to the key.
func (h *holder) bound(out answer) {
	h.t.Helper()
	if out.Status != http.StatusOK || out.str("token_type") != "DPoP" {
		h.t.Fatalf("%v", out)
	}
	cnf, _ := claims(h.t, out.str("access_token"))["cnf"].(map[string]any)
	if len(cnf) != 1 || cnf["jkt"] != h.thumbprint() {
		h.t.Errorf("cnf %v, want jkt %s", cnf, h.thumbprint())
	}
}

// TestDPoPSignInAndRefresh is the life of a sign-in at a public client whose
// tokens are bound to a key.
func TestDPoPSignInAndRefresh(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	key, other := newHolder(t), newHolder(t)
	out := key.signIn(s, "alice")
	key.bound(out)

	about := s.Introspect(out.str("access_token"))
	cnf, _ := about.JSON["cnf"].(map[string]any)
	if about.JSON["active"] != true || about.str("token_type") != "DPoP" || cnf["jkt"] != key.thumbprint() {
		t.Errorf("introspection: %v", about)
	}

	token := out.str("refresh_token")
	refused(t, s.Token(refreshForm(token), phone()), 400, "invalid_dpop_proof")
	refused(t, s.Token(refreshForm(token), other.at(s), phone()), 400, "invalid_grant")
	next := s.Token(refreshForm(token), key.at(s), phone())
	key.bound(next)
	again := s.Token(refreshForm(token), key.at(s), phone()) // within the grace
	key.bound(again)
	if again.str("refresh_token") != next.str("refresh_token") || again.str("access_token") == next.str("access_token") {
		t.Error("the repeated refresh is not the first one's with a new access token")
	}
	if last := s.Token(refreshForm(next.str("refresh_token")), key.at(s), phone()); last.Status != 200 {
		t.Errorf("what was refused touched the family: %v", last)
	}
	if strings.Contains(s.Logs.String(), "eyJ") {
		t.Error("the log holds a JWT")
	}
}

// TestDPoPRefusals: a proof that is not exactly one for this request, and a
// js_code that none of them spends.
func TestDPoPRefusals(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	key := newHolder(t)
	endpoint := s.Issuer + "/oauth2/token"
	proof := func(edits ...func(*proofParts)) string { return key.proof("POST", endpoint, edits...) }
	withKey := func(alg jose.SignatureAlgorithm, signer crypto.Signer) string {
		return (&holder{t, alg, signer}).proof("POST", endpoint)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	whole := proof()
	parts := strings.Split(whole, ".")
	now := time.Now().Unix()

	code := s.Code(testAppID, "alice")
	for _, row := range []struct{ name, reason, proof string }{
		{"empty", "dpop_form", ""},
		{"junk", "dpop_form", "junk"},
		{"bearer", "dpop_form", "Bearer " + whole},
		{"unsigned", "dpop_signature", parts[0] + "." + parts[1] + "."},
		{"of another", "dpop_signature", parts[0] + "." + parts[1] + "." + strings.Split(proof(), ".")[2]},
		{"line break", "dpop_form", parts[0] + ".\t" + parts[1] + "." + parts[2]},
		{"JSON", "dpop_form", `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`},
		{"none", "dpop_form", base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"dpop+jwt","alg":"none"}`)) + "." + parts[1] + "."},
		{"too long", "dpop_form", proof(claim("x", strings.Repeat("x", 8<<10)))},
		{"typ JWT", "dpop_header", proof(func(p *proofParts) { p.options.WithType("JWT") })},
		{"no typ", "dpop_header", proof(func(p *proofParts) { p.options = &jose.SignerOptions{EmbedJWK: true} })},
		{"no jwk", "dpop_key", proof(func(p *proofParts) { p.options.EmbedJWK = false })},
		{"kid", "dpop_key", proof(func(p *proofParts) { p.options.EmbedJWK = false; p.options.WithHeader("kid", "1") })},
		{"weak RSA", "dpop_key", withKey(jose.RS256, weak)},
		{"crit", "dpop_header", key.handmade(parts[1], func(h, _ map[string]any) { h["crit"] = []string{"x"}; h["x"] = 1 })},
		{"crit b64", "dpop_header", key.handmade(parts[1], func(h, _ map[string]any) { h["crit"] = []string{"b64"}; h["b64"] = true })},
		{"private d", "dpop_form", key.handmade(parts[1], func(_, k map[string]any) { k["d"] = "AQ" })},
		{"private p", "dpop_form", key.handmade(parts[1], func(_, k map[string]any) { k["p"] = "AQ" })},
		{"symmetric", "dpop_form", key.handmade(parts[1], func(h, _ map[string]any) { h["jwk"] = map[string]any{"kty": "oct", "k": "AQ"} })},
		{"another's key", "dpop_signature", key.handmade(parts[1], func(h, _ map[string]any) { h["jwk"] = newHolder(t).jwk() })},
		{"HS256", "dpop_form", key.handmade(parts[1], func(h, _ map[string]any) { h["alg"] = "HS256" })},
		{"ES384 by P-256", "dpop_key", key.handmade(parts[1], func(h, _ map[string]any) { h["alg"] = "ES384" })},
		{"jwks", "dpop_form", key.handmade(parts[1], func(h, _ map[string]any) { h["jwk"] = []any{key.jwk()} })},
		{"jku", "dpop_key", key.handmade(parts[1], func(h, _ map[string]any) { delete(h, "jwk"); h["jku"] = s.WeChat.URL })},
		{"off the curve", "dpop_form", key.handmade(parts[1], func(_, k map[string]any) { k["y"] = k["x"] })},
		{"htm GET", "dpop_htm", proof(claim("htm", "GET"))},
		{"htm post", "dpop_htm", proof(claim("htm", "post"))},
		{"no htm", "dpop_htm", proof(claim("htm", nil))},
		{"htu elsewhere", "dpop_htu", proof(claim("htu", "https://evil.example/oauth2/token"))},
		{"htu other path", "dpop_htu", proof(claim("htu", s.Issuer+"/oauth2/userinfo"))},
		{"htu path in upper", "dpop_htu", proof(claim("htu", s.Issuer+"/OAUTH2/token"))},
		{"htu other port", "dpop_htu", proof(claim("htu", "http://127.0.0.1:1/oauth2/token"))},
		{"htu userinfo", "dpop_htu", proof(claim("htu", strings.Replace(endpoint, "://", "://x@", 1)))},
		{"htu path alone", "dpop_htu", proof(claim("htu", "/oauth2/token"))},
		{"htu https", "dpop_htu", proof(claim("htu", strings.Replace(endpoint, "http:", "https:", 1)))},
		{"no htu", "dpop_htu", proof(claim("htu", nil))},
		{"htu a list", "dpop_claims", proof(claim("htu", []string{endpoint}))},
		{"old", "dpop_time", proof(claim("iat", now-120))},
		{"future", "dpop_time", proof(claim("iat", now+120))},
		{"no iat", "dpop_claims", proof(claim("iat", nil))},
		{"iat text", "dpop_claims", proof(claim("iat", "now"))},
		{"iat huge", "dpop_time", proof(claim("iat", 1e300))},
		{"IAT", "dpop_claims", proof(claim("iat", nil), claim("IAT", now))},
		{"expired", "dpop_time", proof(claim("exp", now-30))},
		{"not yet", "dpop_time", proof(claim("nbf", now+60))},
		{"no jti", "dpop_claims", proof(claim("jti", nil))},
		{"empty jti", "dpop_claims", proof(claim("jti", ""))},
		{"long jti", "dpop_claims", proof(claim("jti", strings.Repeat("j", 257)))},
		{"jti with a space", "dpop_claims", proof(claim("jti", "a b"))},
	} {
		out := s.Token(signInForm(code), header("DPoP", row.proof), phone())
		refused(t, out, 400, "invalid_dpop_proof")
		if got := eventOf(s, out, "token.denied")["reason"]; got != row.reason {
			t.Errorf("%s: reason %v, want %s", row.name, got, row.reason)
		}
		if out.Header.Get("WWW-Authenticate") != "" || out.Header.Get("DPoP-Nonce") != "" {
			t.Errorf("%s: headers %v", row.name, out.Header)
		}
	}
	handmade := key.handmade(parts[1], func(_, _ map[string]any) {})
	key.bound(s.Token(signInForm(s.Code(testAppID, "bob")), header("DPoP", handmade), phone()))
	whole = proof()
	twice := func(r *http.Request) { r.Header["Dpop"] = []string{proof(), proof()} }
	refused(t, s.Token(signInForm(code), twice, phone()), 400, "invalid_dpop_proof")

	key.bound(s.Token(signInForm(code), header("DPoP", whole), phone()))
	refused(t, s.Token(signInForm(s.Code(testAppID, "alice")), header("DPoP", whole), phone()), 400, "invalid_dpop_proof") // used
}

// TestDPoPAlgs: every algorithm announced is taken, in any spelling of our
// address that RFC 3986 calls equal.
func TestDPoPAlgs(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	p384, err384 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, err521 := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, ed, errEd := ed25519.GenerateKey(rand.Reader)
	rsaKey, errRSA := rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(err384, err521, errEd, errRSA); err != nil {
		t.Fatal(err)
	}
	keys := map[jose.SignatureAlgorithm]crypto.Signer{
		jose.ES256: newHolder(t).key, jose.ES384: p384, jose.ES512: p521, jose.EdDSA: ed, jose.RS256: rsaKey, jose.PS256: rsaKey,
	}
	for _, alg := range strings.Fields(provider.DPoPAlgs()) {
		h := &holder{t, jose.SignatureAlgorithm(alg), keys[jose.SignatureAlgorithm(alg)]}
		out := s.Token(signInForm(s.Code(testAppID, "alice")), h.at(s), phone())
		if out.Status != 200 || out.str("token_type") != "DPoP" {
			t.Errorf("%s: %v", alg, out)
			continue
		}
		// Foreign eyes: go-jose's thumbprint of the public key.
		thumbprint, err := (&jose.JSONWebKey{Key: h.key.Public()}).Thumbprint(crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		cnf, _ := claims(t, out.str("access_token"))["cnf"].(map[string]any)
		if cnf["jkt"] != base64.RawURLEncoding.EncodeToString(thumbprint) {
			t.Errorf("%s: cnf %v", alg, cnf)
		}
		if out := s.Do("GET", s.Issuer+"/oauth2/userinfo", nil, h.show(out.str("access_token")), phone()); out.Status != 200 {
			t.Errorf("%s: UserInfo %v", alg, out)
		}
	}
	key := newHolder(t)
	for _, target := range []string{
		s.Issuer + "/oauth2/token?x=1#y", s.Issuer + "/oauth2/%74oken", s.Issuer + "/x/../oauth2/./token", strings.Replace(s.Issuer, "http", "HTTP", 1) + "/oauth2/token",
	} {
		out := s.Token(signInForm(s.Code(testAppID, "alice")), header("DPoP", key.proof("POST", target)), phone())
		if out.Status != 200 {
			t.Errorf("%s: %v", target, out)
		}
	}
}

// TestDPoPResources: a bound token is of use to who holds its key and to nobody
// else, at every resource of ours.
func TestDPoPResources(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	key, other := newHolder(t), newHolder(t)
	path := s.Issuer + "/oauth2/userinfo"
	token := key.signIn(s, "alice", "scope", "openid profile").str("access_token")
	unbound := signIn(s, "bob").str("access_token")
	show := func(h *holder, edits ...func(*proofParts)) answer {
		return s.Do("GET", path, nil, h.show(token, edits...), phone())
	}
	used := key.show(token)
	var proof string
	keep := func(r *http.Request) { used(r); proof = r.Header.Get("DPoP") }
	if out := s.Do("GET", path, nil, keep, phone()); out.Status != 200 || out.str("sub") == "" || out.Header.Get("DPoP-Nonce") != "" {
		t.Fatalf("%v %v", out, out.Header)
	}
	dpop := header("Authorization", "DPoP "+token)
	for _, row := range []struct {
		name string
		out  answer
		code string
	}{
		{"as bearer", s.Do("GET", path, nil, bearer(token), phone()), "invalid_token"},
		{"as bearer with a proof", s.Do("GET", path, nil, key.show(token), bearer(token), phone()), "invalid_token"},
		{"in the body", s.Do("POST", path, pairs("access_token", token), phone()), "invalid_token"},
		{"unbound with DPoP", s.Do("GET", path, nil, key.show(unbound), phone()), "invalid_token"},
		{"another key", show(other), "invalid_token"},
		{"no such token", s.Do("GET", path, nil, key.show("junk"), phone()), "invalid_token"},
		{"no proof", s.Do("GET", path, nil, dpop, phone()), "invalid_dpop_proof"},
		{"used proof", s.Do("GET", path, nil, dpop, header("DPoP", proof), phone()), "invalid_dpop_proof"},
		{"another token's proof", show(key, claim("ath", "x")), "invalid_dpop_proof"},
		{"no ath", show(key, claim("ath", nil)), "invalid_dpop_proof"},
		{"another method", show(key, claim("htm", "POST")), "invalid_dpop_proof"},
		{"the token endpoint's", show(key, claim("htu", s.Issuer+"/oauth2/token")), "invalid_dpop_proof"},
		{"old", show(key, claim("iat", time.Now().Unix()-90)), "invalid_dpop_proof"},
	} {
		refused(t, row.out, 401, row.code)
		got := row.out.Header.Values("WWW-Authenticate")
		if len(got) != 1 || !strings.HasPrefix(got[0], `DPoP realm="wxidp", error="`+row.code+`"`) ||
			!strings.HasSuffix(got[0], `, algs="`+provider.DPoPAlgs()+`"`) {
			t.Errorf("%s: WWW-Authenticate %q", row.name, got)
		}
	}
	if got := s.Do("GET", path, nil, phone()).Header.Values("WWW-Authenticate"); len(got) != 2 || !strings.HasPrefix(got[1], `DPoP realm="wxidp", algs="ES256 `) {
		t.Errorf("without a token: WWW-Authenticate %q", got)
	}
	if out := s.Do("GET", path, nil, header("DPoP", "junk"), bearer(unbound), phone()); out.Status != 200 {
		t.Errorf("a bearer token with a proof that nobody asked for: %v", out)
	}

	body := jsonBody(`{"nickname":"x"}`)
	if out := s.Do("PATCH", s.Issuer+"/account", pairs(), body, key.show(token), phone()); out.Status != 200 {
		t.Errorf("PATCH /account: %v", out)
	}
	refused(t, s.Do("PATCH", s.Issuer+"/account", pairs(), body, bearer(token), phone()), 401, "invalid_token")
	unbind := pairs("js_code", s.Code(testAppID, "alice"))
	refused(t, s.Do("POST", s.Issuer+"/account/unbind", unbind, other.show(token), phone()), 401, "invalid_token")
	refused(t, s.Do("POST", s.Issuer+"/account/unbind", unbind, key.show(token), phone()), 409, "last_way_in")
	if out := revoke(s, token); out.Status != 200 || s.Active(token) {
		t.Errorf("revocation: %v", out)
	}
}

// TestDPoPParallelReplay: among many who present one proof, one is served.
func TestDPoPParallelReplay(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	proof := newHolder(t).proof("POST", s.Issuer+"/oauth2/token")
	var served atomic.Int32
	parallel(20, func(int) {
		out, err := s.try("POST", s.Issuer+"/oauth2/token", pairs("grant_type", "client_credentials"), basic(testBackend, testBackendKey), header("DPoP", proof))
		switch {
		case err != nil:
			t.Error(err)
		case out.Status == 200:
			served.Add(1)
		default:
			refused(t, out, 400, "invalid_dpop_proof")
		}
	})
	if served.Load() != 1 {
		t.Errorf("%d of 20 were served", served.Load())
	}
}

// TestDPoPWeChatData: a backend hands on a bound token of its user without a
// proof, and with a pairwise sub, too.
func TestDPoPWeChatData(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withDataClients())
	resettle(s, func(settings *provider.Settings) {
		settings.PairwiseSalt = secret.New(strings.Repeat("canary-salt", 3))
		clientOf(settings, testClient).Sector = "shop.example"
	})
	out := newHolder(t).signIn(s, "alice")
	used := decrypt(s, out.str("access_token"), openData(s, "alice", simulator.OpenDataUserInfo, 0))
	if used.Status != 200 {
		t.Fatalf("%v", used)
	}
	if line := eventOf(s, used, "wechat_data.used"); line["sub"] != families(s)[0].UserID {
		t.Errorf("log line %v", line)
	}
}
