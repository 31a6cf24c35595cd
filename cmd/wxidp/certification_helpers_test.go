package main

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// certification is one browser at one client with one response_mode.
type certification struct {
	*testing.T
	s    *testServer
	b    *browser
	p    party
	mode string // "" or form_post
}

// certified runs a test in both profiles, each with a fresh browser.
func certified(t *testing.T, s *testServer, name string, do func(c *certification)) {
	for profile, mode := range map[string]string{"basic": "", "form post": "form_post"} {
		t.Run(name+"/"+profile, func(t *testing.T) {
			do(&certification{T: t, s: s, b: newBrowser(s), p: shopOld, mode: mode})
		})
	}
}

// request is an authorization request as the suite's: without PKCE.
func (c *certification) request(more ...string) url.Values {
	return c.p.request(append([]string{"code_challenge", "", "code_challenge_method", "", "response_mode", c.mode}, more...)...)
}

// response are the parameters of the response, which must come back the way
// that the request asked for.
func (c *certification) response(v visit, params url.Values) url.Values {
	c.Helper()
	got := v.callback()
	location := v.leaves()
	switch {
	case c.mode == "" && (location == nil || !strings.HasPrefix(location.String(), c.p.redirect+"?") || location.Fragment != ""):
		c.Fatalf("no redirect: %v", v)
	case c.mode != "":
		form, ok := v.form("")
		if v.page() != "formpost" || !ok || form.action != c.p.redirect {
			c.Fatalf("no form for %s: %v", c.p.redirect, v)
		}
	}
	if got.Get("state") != params.Get("state") || got.Get("iss") != c.s.Issuer {
		c.Errorf("response %v to %v", got, params)
	}
	for name := range got {
		if !slices.Contains([]string{"code", "error", "error_description", "state", "iss"}, name) {
			c.Errorf("response parameter %s", name)
		}
	}
	if text := got.Get("error_description"); strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		c.Errorf("error_description %q", text)
	}
	return got
}

// refusedWith checks an error response.
func (c *certification) refusedWith(params url.Values, codes ...string) {
	c.Helper()
	got := c.response(c.b.authorize(params), params)
	if !slices.Contains(codes, got.Get("error")) || got.Has("code") {
		c.Errorf("response %v, want one of %v", got, codes)
	}
}

// result is what a client has after a sign-in.
type result struct {
	code     string
	tokens   answer
	id, info map[string]any // claims of the ID Token, UserInfo
}

// signIn goes through a whole sign-in and checks what every one has.
func (c *certification) signIn(params url.Values) result {
	c.Helper()
	return c.redeem(c.b.through(c.b.authorize(params), "alice"), params)
}

// silent is signIn where nobody may be asked anything.
func (c *certification) silent(params url.Values) result {
	c.Helper()
	return c.redeem(c.b.authorize(params), params)
}

func (c *certification) redeem(v visit, params url.Values) result {
	c.Helper()
	code := c.response(v, params).Get("code")
	out := c.p.redeem(c.s, code, "code_verifier", "")
	if out.Status != http.StatusOK || out.Header.Get("Cache-Control") != "no-store" || out.Header.Get("Content-Type") != "application/json" {
		c.Fatalf("tokens: %v", out)
	}
	if seconds, ok := out.JSON["expires_in"].(float64); !ok || seconds < 1 || !strings.EqualFold(out.str("token_type"), "bearer") {
		c.Errorf("tokens: %v", out)
	}
	r := result{code: code, tokens: out, id: verified(c.s, c.p, out.str("id_token"))}
	c.checkIDToken(r.id, params)
	info := c.s.Do(http.MethodGet, c.s.Issuer+"/oauth2/userinfo", nil, bearer(out.str("access_token")), phone())
	if r.info = info.JSON; info.Status != http.StatusOK || info.Header.Get("Content-Type") != "application/json" || r.info["sub"] != r.id["sub"] {
		c.Errorf("UserInfo: %v", info)
	}
	for name, value := range r.info {
		if value == nil || value == "" || value == "null" {
			c.Errorf("UserInfo has a blank %s", name)
		}
	}
	return r
}

func (c *certification) checkIDToken(id map[string]any, params url.Values) {
	c.Helper()
	for name := range id {
		if !slices.Contains([]string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "at_hash", "sid"}, name) {
			c.Errorf("claim %s, which nobody has asked for", name)
		}
	}
	if nonce, ok := id["nonce"]; ok != params.Has("nonce") || ok && nonce != params.Get("nonce") {
		c.Errorf("nonce %v, want %q", nonce, params.Get("nonce"))
	}
	now := time.Now().Unix()
	for _, name := range []string{"iat", "auth_time"} {
		if at, ok := id[name].(float64); !ok || int64(at) > now+1 || int64(at) < now-300 {
			c.Errorf("%s is %v at %d", name, id[name], now)
		}
	}
	if id["aud"] != c.p.id || id["iss"] != c.s.Issuer {
		c.Errorf("ID Token %v", id)
	}
}

// later waits until another second has begun since a time claim.
func (c *certification) later(claim any) {
	c.Helper()
	eventually(c, "another second", func() bool { return time.Now().Unix() > int64(claim.(float64)) })
}
