package provider

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// TestDPoPCodes: a code that is bound to a key is redeemed by that key alone,
// and what comes of any code is bound to the key of its redemption.
func TestDPoPCodes(t *testing.T) {
	b := newBench(t, func(s *Settings) {
		s.Clients = append(s.Clients, Client{ID: "spa", Public: true, AuthMethod: AuthNone, GrantTypes: []string{"authorization_code", "refresh_token"},
			Scopes: []string{"openid"}, Audience: []string{"api"}, IDTokenAlg: "ES256", RedirectURIs: []string{"https://spa.example/cb"}, RequirePKCE: true})
	})
	ctx := context.Background()
	user := b.says(b.signIn("alice:1").IDToken)["sub"].(string)
	login, err := b.store.StartLogin(ctx, storage.LoginStart{
		Account: storage.Binding{UserID: user}, Session: storage.LoginSession{Token: tokenDigest("cookie"), AMR: []string{"pwd"}}, Idle: time.Hour, Absolute: time.Hour,
	})
	if err != nil || login.Verdict != storage.LoginOK {
		t.Fatalf("%+v %v", login, err)
	}
	const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	redeem := func(jkt, proof string) (*TokenResponse, error) {
		t.Helper()
		code := storage.NewToken()
		verdict, err := b.store.IssueCode(ctx, storage.CodeIssue{Code: tokenDigest(code), Lifetime: time.Minute, Grant: storage.Grant{
			UserID: user, ClientID: "spa", LoginID: login.Session.ID, Scope: []string{"openid"}, Audience: []string{"api"}, AuthTime: time.Now(), AMR: []string{"pwd"},
			RedirectURI: "https://spa.example/cb", Challenge: challengeOf(verifier), DPoPThumbprint: jkt,
		}})
		if err != nil || verdict != storage.CodeOK {
			t.Fatalf("%v %v", verdict, err)
		}
		headers := []string{}
		if proof != "" {
			headers = []string{"DPoP", proof}
		}
		return b.post(form("grant_type", "authorization_code", "client_id", "spa", "code", code, "redirect_uri", "https://spa.example/cb", "code_verifier", verifier), headers...)
	}
	mine, other := prover(t), prover(t)
	key, err := parseProof(mine())
	if err != nil {
		t.Fatal(err)
	}
	bound := func(out *TokenResponse, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		cnf, _ := b.says(out.AccessToken)["cnf"].(map[string]any)
		if !out.Bound || cnf["jkt"] != key.jkt || !strings.Contains(string(out.JSON()), `"token_type":"DPoP"`) {
			t.Errorf("%s", out.JSON())
		}
	}
	out, err := redeem(key.jkt, mine())
	bound(out, err)
	_, err = b.refreshWith("spa", out.RefreshToken, "")
	b.reason(err, "dpop_missing")
	_, err = b.refreshWith("spa", out.RefreshToken, other())
	b.reason(err, "dpop_other_key")
	bound(b.refreshWith("spa", out.RefreshToken, mine()))

	bound(redeem("", mine())) // bound by its redemption
	_, err = redeem(key.jkt, other())
	b.reason(err, "other_dpop_key")
	_, err = redeem(key.jkt, "")
	b.reason(err, "other_dpop_key")
	_, err = redeem("", "junk")
	b.reason(err, "dpop_form")
	if out, err := redeem("", ""); err != nil || out.Bound || b.says(out.AccessToken)["cnf"] != nil {
		t.Errorf("%+v %v", out, err)
	}
}

func (b *bench) refreshWith(client, token, proof string) (*TokenResponse, error) {
	values := form("grant_type", "refresh_token", "client_id", client, "refresh_token", token)
	if proof == "" {
		return b.post(values)
	}
	return b.post(values, "DPoP", proof)
}

// TestDPoPPushedKey: the proof of a pushed authorization request binds its
// code, and must not contradict dpop_jkt.
func TestDPoPPushedKey(t *testing.T) {
	b, make := newBench(t), prover(t)
	atPAR := put("htu", testIssuer+PathPushed)
	key, err := parseProof(make())
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct{ named, proof, want, reason string }{
		"neither":            {"", "", "", ""},
		"named":              {"abc", "", "abc", ""},
		"proven":             {"", make(atPAR), key.jkt, ""},
		"both":               {key.jkt, make(atPAR), key.jkt, ""},
		"another":            {"abc", make(atPAR), "", "dpop_other_key"},
		"the token endpoint": {"", make(), "", "dpop_htu"},
	} {
		headers := []string{}
		if row.proof != "" {
			headers = []string{"DPoP", row.proof}
		}
		got, err := b.pushedKey(context.Background(), request(PathPushed, nil, headers...), row.named)
		if got != row.want {
			t.Errorf("%s: %q", name, got)
		}
		b.reason(err, row.reason)
	}
}

// TestDPoPEveryGrant: no grant answers a client that must prove a key and does
// not, and none does anything for a bad proof.
func TestDPoPEveryGrant(t *testing.T) {
	b := newBench(t, func(s *Settings) {
		s.Clients = append(s.Clients, Client{ID: "all", DPoPBound: true, AuthMethod: AuthClientSecretPost, SecretHashes: []string{HashSecret("s")},
			Scopes: []string{"openid"}, DefaultScopes: []string{"openid"}, Audience: []string{"api"}, IDTokenAlg: "ES256", WeChatAppID: testAppID,
			GrantTypes: []string{"wechat_jscode", "refresh_token", "authorization_code", "client_credentials", GrantDeviceCode}})
	})
	ask := func(grantType string, headers ...string) error {
		_, err := b.post(form("grant_type", grantType, "client_id", "all", "client_secret", "s", "js_code", "alice:1",
			"refresh_token", "x", "code", "x", "device_code", "x"), headers...)
		return err
	}
	for _, grantType := range b.GrantTypes() {
		b.reason(ask(grantType), "dpop_missing")
		b.reason(ask(grantType, "DPoP", "junk"), "dpop_form")
	}
	if b.weChat.calls != 0 {
		t.Errorf("%d calls to WeChat", b.weChat.calls)
	}
}
