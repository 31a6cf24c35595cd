package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// These tests ask of the server what the OpenID Provider certification asks of
// it in the profiles Basic and Form Post, with responses by query and by form.

func TestConformanceDiscovery(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	out := s.Do(http.MethodGet, s.Issuer+"/.well-known/openid-configuration", nil)
	if out.Status != http.StatusOK || out.Header.Get("Content-Type") != "application/json" || out.str("issuer") != s.Issuer {
		t.Fatal(out)
	}
	for name, wants := range map[string][]string{
		"response_types_supported": {"code"}, "response_modes_supported": {"query", "form_post"}, "subject_types_supported": {"public"},
		"id_token_signing_alg_values_supported": {"RS256"}, "scopes_supported": {"openid", "offline_access"},
		"token_endpoint_auth_methods_supported": {"client_secret_basic", "client_secret_post"}, "grant_types_supported": {"authorization_code", "refresh_token"},
		"claims_supported": {"sub", "auth_time"}, "code_challenge_methods_supported": {"S256"}, "request_object_signing_alg_values_supported": {"RS256"},
		"acr_values_supported": {"urn:wxidp:acr:password"}, "ui_locales_supported": {"en"}, "display_values_supported": {"page"},
		"prompt_values_supported": {"none", "login", "consent", "select_account"},
	} {
		have, _ := out.JSON[name].([]any)
		for _, want := range wants {
			if !slices.Contains(have, any(want)) {
				t.Errorf("%s is %v, without %s", name, have, want)
			}
		}
	}
	if slices.Contains(out.JSON["request_object_signing_alg_values_supported"].([]any), any("none")) {
		t.Error("unsigned request objects are announced")
	}
	for name, want := range map[string]bool{"request_parameter_supported": false, "request_uri_parameter_supported": false, "claims_parameter_supported": true} {
		if have, ok := out.JSON[name]; !ok || have != want {
			t.Errorf("%s is %v", name, have)
		}
	}
	for name, value := range out.JSON {
		if strings.HasSuffix(name, "_endpoint") && !strings.HasPrefix(value.(string), s.Issuer+"/") {
			t.Errorf("%s is %v", name, value)
		}
	}
	keys := s.Do(http.MethodGet, out.str("jwks_uri"), nil)
	kids := map[any]bool{}
	for _, raw := range keys.JSON["keys"].([]any) {
		key := raw.(map[string]any)
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
			if _, ok := key[private]; ok {
				t.Errorf("key %v has %s", key["kid"], private)
			}
		}
		if kid := key["kid"]; kid == nil || kids[kid] {
			t.Errorf("kid %v", kid)
		}
		kids[key["kid"]] = true
	}
}

// TestConformanceSignIn are the modules with one sign-in each.
func TestConformanceSignIn(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	for _, test := range []struct {
		name string
		more []string
	}{
		{"server", nil},
		{"without nonce", []string{"nonce", ""}},
		{"without state", []string{"state", ""}},
		{"a state of 128 characters", []string{"state", strings.Repeat("aZ09", 31) + "-._~"}},
		{"a nonce of 43 characters", []string{"nonce", strings.Repeat("n", 39) + "-._~"}},
		{"display page", []string{"display", "page"}},
		{"display popup", []string{"display", "popup"}},
		{"unknown parameter", []string{"extra", "foobar"}},
		{"ui_locales", []string{"ui_locales", "se"}},
		{"claims_locales", []string{"claims_locales", "se"}},
		{"login_hint", []string{"login_hint", "buffy@id.example.com"}},
		{"acr_values", []string{"acr_values", "urn:wxidp:acr:password urn:wxidp:acr:scan"}},
		{"foreign acr_values", []string{"acr_values", "1 2"}},
		{"PKCE", []string{"code_challenge", challengeFor(testVerifier), "code_challenge_method", "S256"}},
		{"scope order", []string{"scope", "profile openid"}},
	} {
		certified(t, s, test.name, func(c *certification) {
			params := c.request(test.more...)
			if test.name == "PKCE" {
				v := c.b.through(c.b.authorize(params), "alice")
				if out := c.p.redeem(s, c.response(v, params).Get("code")); out.Status != http.StatusOK {
					c.Error(out)
				}
				return
			}
			r := c.signIn(params)
			if len(r.code) < 22 {
				c.Errorf("code %q", r.code)
			}
			if r.id["acr"] != "urn:wxidp:acr:password" {
				c.Errorf("acr is %v", r.id["acr"])
			}
			if params.Get("scope") == "openid" && len(r.info) != 1 {
				c.Errorf("UserInfo for openid: %v", r.info)
			}
		})
	}
	certified(t, s, "client_secret_post", func(c *certification) {
		c.p = otherWeb
		params := c.p.request("response_mode", c.mode)
		v := c.b.through(c.b.authorize(params), "alice")
		if out := c.p.redeem(s, c.response(v, params).Get("code")); out.Status != http.StatusOK {
			c.Error(out)
		}
	})
	certified(t, s, "UserInfo by POST", func(c *certification) {
		r := c.signIn(c.request())
		token := r.tokens.str("access_token")
		for name, out := range map[string]answer{
			"header": s.Do(http.MethodPost, s.Issuer+"/oauth2/userinfo", url.Values{}, bearer(token), phone()),
			"body":   s.Do(http.MethodPost, s.Issuer+"/oauth2/userinfo", pairs("access_token", token), phone()),
		} {
			if out.Status != http.StatusOK || out.str("sub") != r.id["sub"] {
				c.Errorf("token in the %s: %v", name, out)
			}
		}
	})
	certified(t, s, "scope profile", func(c *certification) {
		r := c.signIn(c.request("scope", "openid profile"))
		if r.info["name"] != "account alice" || r.info["nickname"] != "account alice" || r.info["updated_at"] == nil {
			c.Errorf("UserInfo: %v", r.info)
		}
		if _, ok := r.info["updated_at"].(float64); !ok {
			c.Errorf("updated_at is %v", r.info["updated_at"])
		}
	})
}

// TestConformanceSecondRequest are the modules in which a browser comes back.
func TestConformanceSecondRequest(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	certified(t, s, "prompt none", func(c *certification) {
		params := c.request("prompt", "none", "state", strings.Repeat("aZ09", 31)+"-._~")
		c.refusedWith(params, "login_required")
		first := c.signIn(c.request())
		c.later(first.id["auth_time"])
		second := c.silent(c.request("prompt", "none"))
		if second.id["sub"] != first.id["sub"] || second.id["auth_time"] != first.id["auth_time"] {
			c.Errorf("first %v, second %v", first.id, second.id)
		}
		hinted := c.silent(c.request("prompt", "none", "id_token_hint", first.tokens.str("id_token")))
		if hinted.id["sub"] != first.id["sub"] || hinted.id["auth_time"] != first.id["auth_time"] {
			c.Errorf("first %v, with a hint %v", first.id, hinted.id)
		}
		if first.id["sid"] == second.id["sid"] {
			c.Error("two sign-ins have one sid")
		}
	})
	certified(t, s, "prompt login", func(c *certification) {
		first := c.signIn(c.request())
		c.later(first.id["auth_time"])
		params := c.request("prompt", "login")
		v := c.b.authorize(params)
		asksFor(c, "prompt=login", v, "signin")
		second := c.redeem(c.b.through(v, "alice"), params)
		if second.id["auth_time"].(float64) <= first.id["auth_time"].(float64) || second.id["sub"] != first.id["sub"] {
			c.Errorf("first %v, second %v", first.id, second.id)
		}
	})
	certified(t, s, "max_age 1", func(c *certification) {
		first := c.signIn(c.request())
		eventually(c, "the sign-in is older than a second", func() bool { return time.Now().Unix() > int64(first.id["auth_time"].(float64))+1 })
		params := c.request("max_age", "1")
		v := c.b.authorize(params)
		asksFor(c, "max_age=1", v, "signin")
		second := c.redeem(c.b.through(v, "alice"), params)
		if second.id["auth_time"].(float64) <= first.id["auth_time"].(float64) || second.id["sub"] != first.id["sub"] {
			c.Errorf("first %v, second %v", first.id, second.id)
		}
	})
	certified(t, s, "max_age 10000", func(c *certification) {
		first := c.signIn(c.request("max_age", "15000"))
		c.later(first.id["auth_time"])
		second := c.silent(c.request("max_age", "10000"))
		if second.id["auth_time"] != first.id["auth_time"] || second.id["sub"] != first.id["sub"] {
			c.Errorf("first %v, second %v", first.id, second.id)
		}
	})
	certified(t, s, "code reuse", func(c *certification) {
		first := c.signIn(c.request())
		again := c.p.redeem(s, first.code, "code_verifier", "")
		refused(c, again, http.StatusBadRequest, "invalid_grant")
		if userInfoOK(s, first.tokens.str("access_token")) {
			c.Error("the first access token is alive")
		}
	})
	certified(t, s, "refresh", func(c *certification) {
		params := c.request("scope", "openid offline_access", "prompt", "consent")
		first := c.signIn(params)
		c.later(first.id["iat"])
		for _, more := range [][]string{{"scope", "openid offline_access"}, nil} {
			out := c.p.refresh(s, first.tokens.str("refresh_token"), more...)
			if out.Status != http.StatusOK || out.Header.Get("Cache-Control") != "no-store" {
				c.Fatal(out)
			}
			next := verified(s, c.p, out.str("id_token"))
			for _, same := range []string{"iss", "sub", "aud", "auth_time", "azp", "sid", "acr"} {
				if next[same] != first.id[same] {
					c.Errorf("%s was %v and is %v", same, first.id[same], next[same])
				}
			}
			if next["iat"] == first.id["iat"] {
				c.Error("iat stays")
			}
			first.tokens = out
		}
		refused(c, otherWeb.refresh(s, first.tokens.str("refresh_token")), http.StatusBadRequest, "invalid_grant")
		if out := c.p.refresh(s, first.tokens.str("refresh_token")); out.Status != http.StatusOK {
			c.Errorf("after another client tried: %v", out)
		}
	})
}

// TestConformanceRequests are the modules about odd requests.
func TestConformanceRequests(t *testing.T) {
	t.Parallel()
	s := startWeb(t)
	certified(t, s, "response_type missing", func(c *certification) {
		c.refusedWith(c.request("response_type", ""), "invalid_request", "unsupported_response_type")
	})
	object := func(claims map[string]string) string {
		raw, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		encode := base64.RawURLEncoding.EncodeToString
		return encode([]byte(`{"alg":"none"}`)) + "." + encode(raw) + "."
	}
	certified(t, s, "unsigned request object", func(c *certification) {
		inner := map[string]string{"state": "inner", "nonce": "inner", "client_id": c.p.id, "response_type": "code", "scope": "openid", "redirect_uri": c.p.redirect}
		c.refusedWith(c.request("state", "", "nonce", "", "request", object(inner)), "request_not_supported")
		params := c.request("request", object(inner), "redirect_uri", c.p.redirect+"_invalid")
		errorPage(c, "an unregistered redirect_uri outside of the object", c.b.authorize(params), http.StatusBadRequest)
	})
	certified(t, s, "unregistered redirect_uri", func(c *certification) {
		errorPage(c, "a longer path", c.b.authorize(c.request("redirect_uri", c.p.redirect+"/x")), http.StatusBadRequest)
	})
	certified(t, s, "authorization by POST", func(c *certification) {
		params := c.request()
		post := func() visit {
			return c.b.send(http.MethodPost, s.Issuer+"/oauth2/authorize", params, header("Origin", "https://old.example"), header("Sec-Fetch-Site", "cross-site"))
		}
		c.redeem(c.b.through(post(), "alice"), params)
		c.redeem(post(), params) // the login session is found, too
	})
	certified(t, s, "essential claims", func(c *certification) {
		r := c.signIn(c.request("claims", `{"userinfo":{"name":{"essential":true}}}`))
		if r.info["name"] != "account alice" || r.id["name"] != nil {
			c.Errorf("UserInfo %v, ID Token %v", r.info, r.id)
		}
	})
	certified(t, s, "parameters in another order", func(c *certification) {
		params := c.request("scope", "profile openid")
		names := slices.Sorted(maps.Keys(params))
		slices.Reverse(names)
		var query []string
		for _, name := range names {
			query = append(query, fmt.Sprintf("%s=%s", name, url.QueryEscape(params.Get(name))))
		}
		c.redeem(c.b.through(c.b.open("/oauth2/authorize?"+strings.Join(query, "&")), "alice"), params)
	})
	certified(t, s, "denied", func(c *certification) {
		params := c.request()
		v := c.b.submit(c.b.authorize(params), "/cancel")
		if got := c.response(v, params); got.Get("error") != "access_denied" || got.Has("code") {
			c.Errorf("cancelled: %v", got)
		}
		params = c.request("prompt", "consent")
		v = c.b.submit(c.b.password(c.b.authorize(params), "alice", testPassword), "/deny")
		if got := c.response(v, params); got.Get("error") != "access_denied" || got.Has("code") {
			c.Errorf("denied: %v", got)
		}
	})
}
