package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestThreat22RefreshScope: a refresh may narrow and never widen.
func TestThreat22RefreshScope(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	out := signIn(s, "alice", "scope", "openid profile orders.read")
	token := out.str("refresh_token")
	for _, row := range []struct{ ask, got string }{
		{"openid", "openid"},
		{"orders.read openid", "orders.read openid"},
		{"openid openid", "openid"},
		{"  openid   profile ", "openid profile"},
		{"", "openid profile orders.read"},
		{"orders.read", "orders.read"},
		{"openid profile orders.read", "openid profile orders.read"},
	} {
		out := refresh(s, token, "scope", row.ask)
		if out.Status != 200 || out.str("scope") != row.got || claims(t, out.str("access_token"))["scope"] != row.got {
			t.Fatalf("scope %q: %v", row.ask, out)
		}
		if hasID := out.str("id_token") != ""; hasID != strings.Contains(row.got, "openid") {
			t.Errorf("scope %q: ID Token %v", row.ask, hasID)
		}
		token = out.str("refresh_token")
	}
	for _, ask := range []string{"wechat", "openid wechat", "admin", "OPENID", "openid\tprofile", "openid,profile", "*", "orders.*", "openid admin"} {
		refused(t, refresh(s, token, "scope", ask), 400, "invalid_scope")
	}
	// What was refused was not spent, and what was narrowed can be had again.
	if out := refresh(s, token); out.Status != 200 || out.str("scope") != "openid profile orders.read" {
		t.Errorf("%v", out)
	}
}

// TestThreat22ScopeWithdrawn: what the operator takes from a client is gone
// with the next refresh.
func TestThreat22ScopeWithdrawn(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	token := signIn(s, "alice").str("refresh_token")
	only := signIn(s, "bob", "scope", "orders.read").str("refresh_token")
	reload(s, "scopes: [openid, profile, phone, wechat, roles, external_id, orders.read]", "scopes: [openid, profile, phone, wechat, roles, external_id]",
		"default_scopes: [openid, profile, orders.read]", "default_scopes: [openid]")
	out := refresh(s, token)
	if out.Status != 200 || out.str("scope") != "openid profile" || claims(t, out.str("access_token"))["scope"] != "openid profile" {
		t.Errorf("%v", out)
	}
	refused(t, refresh(s, only), 400, "invalid_grant") // only a new sign-in helps
	refused(t, refresh(s, only, "scope", "orders.read"), 400, "invalid_scope")
	if out := refresh(s, out.str("refresh_token"), "scope", "openid orders.read"); out.Status != 200 || out.str("scope") != "openid" {
		t.Errorf("a withdrawn scope asked for: %v", out)
	}
	reload(s, "scopes: [openid, profile, phone, wechat, roles, external_id]\n    default_scopes: [openid]\n    audience: ["+testAudience+"]\n  - client_id: shop-mini-2",
		"scopes: [openid, profile, phone, wechat, roles, external_id, orders.read]\n    default_scopes: [openid]\n    audience: ["+testAudience+"]\n  - client_id: shop-mini-2")
	if out := refresh(s, only); out.Status != 200 || out.str("scope") != "orders.read" {
		t.Errorf("the scope is back: %v", out)
	}
}

// TestAudienceNarrowing: resource and audience name a part of the client's
// audience (RFC 8707).
func TestAudienceNarrowing(t *testing.T) {
	t.Parallel()
	const a, b, c = "https://a.example", "https://b.example", "https://c.example"
	s := startServer(t, manyPhones(), withConfig(func(yaml string) string {
		return strings.Replace(yaml, "audience: ["+testAudience+"]", fmt.Sprintf("audience: [%s, %s, %s]", a, b, c), 1)
	}))
	aud := func(out answer) string {
		if out.Status != 200 {
			return out.String()
		}
		return strings.Trim(fmt.Sprint(claims(t, out.str("access_token"))["aud"]), "[]")
	}
	all := signIn(s, "alice")
	if got := aud(all); got != a+" "+b+" "+c {
		t.Errorf("aud %s", got)
	}
	two := signIn(s, "alice", "resource", a, "resource", b)
	if got := aud(two); got != a+" "+b {
		t.Errorf("aud %s", got)
	}
	if got := aud(signIn(s, "alice", "audience", b)); got != b {
		t.Errorf("aud %s", got)
	}
	if got := aud(signIn(s, "alice", "resource", b, "resource", b, "audience", b)); got != b {
		t.Errorf("a resource named three times: aud %s", got)
	}
	next := refresh(s, two.str("refresh_token"), "resource", b)
	if got := aud(next); got != b {
		t.Errorf("aud %s", got)
	}
	back := refresh(s, next.str("refresh_token"))
	if got := aud(back); got != a+" "+b {
		t.Errorf("narrowing once narrowed for good: aud %s", got)
	}
	for _, more := range [][]string{{"resource", c}, {"resource", a, "resource", c}, {"audience", c}, {"resource", "https://evil.example"}, {"resource", a + "/"}} {
		refused(t, refresh(s, back.str("refresh_token"), more...), 400, "invalid_target")
	}
	refused(t, s.Token(signInForm(s.Code(testAppID, "alice"), "resource", "https://evil.example"), phone()), 400, "invalid_target")
	refused(t, s.Token(signInForm(s.Code(testAppID, "alice"), "audience", a, "audience", b), phone()), 400, "invalid_request")
	many := signInForm(s.Code(testAppID, "alice"))
	for range 1500 {
		many.Add("resource", a)
	}
	if out := s.Token(many, phone()); out.Status != 200 && out.Status != 400 || out.Status == 200 && aud(out) != a {
		t.Errorf("a resource named 1500 times: %d", out.Status)
	}
	if out := refresh(s, back.str("refresh_token")); out.Status != 200 {
		t.Errorf("refusals spent the token: %v", out)
	}
}

// TestRefreshedIDToken: OIDC Core §12.2, and the nonce of §3.1.2.1.
func TestRefreshedIDToken(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	nonce := "n-0S6_WzA2Mj \"quoted\" \u00e9\u4e2d"
	first := signIn(s, "alice", "nonce", nonce)
	was := claims(t, first.str("id_token"))
	if was["nonce"] != nonce {
		t.Errorf("nonce %q", was["nonce"])
	}
	time.Sleep(time.Until(time.Unix(int64(was["iat"].(float64))+1, 0))) // so that iat differs
	again := refresh(s, first.str("refresh_token"), "nonce", "another")
	is := claims(t, again.str("id_token"))
	for _, name := range []string{"iss", "sub", "aud", "auth_time", "sid"} {
		if was[name] == nil || was[name] != is[name] {
			t.Errorf("%s was %v and is %v", name, was[name], is[name])
		}
	}
	if fmt.Sprint(was["amr"]) != "[wechat]" || fmt.Sprint(is["amr"]) != "[wechat]" {
		t.Errorf("amr %v and %v", was["amr"], is["amr"])
	}
	if _, there := is["nonce"]; there {
		t.Errorf("a refreshed ID Token has a nonce: %v", is)
	}
	if is["iat"].(float64) <= was["iat"].(float64) || is["auth_time"].(float64) > was["iat"].(float64) {
		t.Errorf("iat %v after %v, auth_time %v", is["iat"], was["iat"], is["auth_time"])
	}
	refused(t, s.Token(signInForm(s.Code(testAppID, "alice"), "nonce", strings.Repeat("n", 513)), phone()), 400, "invalid_request")
}
