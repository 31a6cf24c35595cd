package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/wxidp/wxidp/provider"
)

// TestDPoPConfidentialClient: its refresh tokens are bound to the client, its
// access tokens to whatever key it proves (RFC 9449 §5).
func TestDPoPConfidentialClient(t *testing.T) {
	t.Parallel()
	const id, secret = "kiosk", "canary-kiosk-5d1c9b7a3f2e4d6c8b0a"
	s := startServer(t, manyPhones(), appending(`  - client_id: `+id+`
    type: confidential
    client_secret: `+secret+`
    wechat_appid: `+testAppID+`
    grant_types: [wechat_jscode, refresh_token]
    scopes: [openid]
    default_scopes: [openid]
    audience: [`+testAudience+`]
`))
	ask := func(form func() []string, edits ...func(*http.Request)) answer {
		return s.Token(pairs(form()...), append(edits, basic(id, secret), phone())...)
	}
	signIn := func() []string { return []string{"grant_type", "wechat_jscode", "js_code", s.Code(testAppID, "alice")} }
	first, second := newHolder(t), newHolder(t)
	out := ask(signIn, first.at(s))
	first.bound(out)
	again := func() []string {
		return []string{"grant_type", "refresh_token", "refresh_token", out.str("refresh_token")}
	}
	if out = ask(again); out.Status != 200 || out.str("token_type") != "Bearer" || claims(t, out.str("access_token"))["cnf"] != nil {
		t.Fatalf("%v", out)
	}
	out = ask(again, second.at(s))
	second.bound(out)
	for _, family := range families(s) {
		if family.DPoPThumbprint != first.thumbprint() {
			t.Errorf("the family is bound to %q", family.DPoPThumbprint)
		}
	}

	// From now on the client wants bound tokens only.
	resettle(s, func(settings *provider.Settings) {
		clientOf(settings, id).DPoPBound = true
		clientOf(settings, testBackend).DPoPBound = true
		clientOf(settings, testClient).DPoPBound = true
	})
	refused(t, ask(again), 400, "invalid_dpop_proof")
	refused(t, ask(signIn), 400, "invalid_dpop_proof")
	second.bound(ask(again, second.at(s)))
	machine := pairs("grant_type", "client_credentials")
	refused(t, s.Token(machine, basic(testBackend, testBackendKey), phone()), 400, "invalid_dpop_proof")
	own := s.Token(machine, basic(testBackend, testBackendKey), first.at(s), phone())
	first.bound(own)
	if about := s.Introspect(own.str("access_token")); about.str("token_type") != "DPoP" {
		t.Errorf("introspection: %v", about)
	}
	refused(t, s.Token(signInForm(s.Code(testAppID, "alice")), phone()), 400, "invalid_dpop_proof")
	first.signIn(s, "alice")
}

// TestDPoPIdempotency: a repetition comes with a proof of its own by the same
// key. One by another key gets nothing and spoils nothing.
func TestDPoPIdempotency(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	key, other := newHolder(t), newHolder(t)
	form, again := signInForm(s.Code(testAppID, "alice")), header("Idempotency-Key", "k1")
	first := s.Token(form, key.at(s), again, phone())
	key.bound(first)
	refused(t, s.Token(form, other.at(s), again, phone()), 400, "invalid_grant")
	refused(t, s.Token(form, again, phone()), 400, "invalid_grant")
	second := s.Token(form, key.at(s), again, phone())
	key.bound(second)
	if second.str("refresh_token") != first.str("refresh_token") {
		t.Error("another refresh token")
	}

	// All at once, the first included.
	form = signInForm(s.Code(testAppID, "alice"))
	var tokens [10]string
	parallel(len(tokens), func(i int) {
		out, err := s.try("POST", s.Issuer+"/oauth2/token", form, key.at(s), header("Idempotency-Key", "k2"), phone())
		if err != nil || out.Status != 200 {
			t.Errorf("%v %v", out, err)
			return
		}
		tokens[i] = out.str("refresh_token")
	})
	if distinct(tokens[:]) != 1 {
		t.Error("more than one sign-in")
	}
}

// TestDPoPNonce: where nonces are on, every proof needs one of ours (RFC 9449
// §8, §9).
func TestDPoPNonce(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	resettle(s, func(settings *provider.Settings) { settings.DPoPNonce = true })
	key := newHolder(t)
	code := s.Code(testAppID, "alice")
	out := s.Token(signInForm(code), key.at(s), phone())
	refused(t, out, 400, "use_dpop_nonce")
	nonce := out.Header.Get("DPoP-Nonce")
	if nonce == "" {
		t.Fatal("no DPoP-Nonce")
	}
	for _, wrong := range []any{"", "x", nonce + "x", strings.ToUpper(nonce), 7} {
		if out := s.Token(signInForm(code), key.at(s, claim("nonce", wrong)), phone()); out.Status != 400 || out.str("access_token") != "" {
			t.Errorf("nonce %v: %v", wrong, out)
		}
	}
	out = s.Token(signInForm(code), key.at(s, claim("nonce", nonce)), phone())
	key.bound(out)
	if out.Header.Get("DPoP-Nonce") == "" {
		t.Error("no DPoP-Nonce with success")
	}
	token := out.str("access_token")
	out = s.Do("GET", s.Issuer+"/oauth2/userinfo", nil, key.show(token), phone())
	refused(t, out, 401, "use_dpop_nonce")
	if challenge := out.Header.Get("WWW-Authenticate"); !strings.HasPrefix(challenge, `DPoP realm="wxidp", error="use_dpop_nonce"`) || out.Header.Get("DPoP-Nonce") == "" {
		t.Errorf("%v", out.Header)
	}
	if out = s.Do("GET", s.Issuer+"/oauth2/userinfo", nil, key.show(token, claim("nonce", nonce)), phone()); out.Status != 200 || out.Header.Get("DPoP-Nonce") == "" {
		t.Errorf("%v %v", out, out.Header)
	}
	if out := s.SignIn("bob"); out.Header.Get("DPoP-Nonce") != "" {
		t.Error("a nonce for who proves nothing")
	}
}
