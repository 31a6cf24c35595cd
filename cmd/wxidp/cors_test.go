package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/wxidp/wxidp/provider"
)

// TestThreat47CORS: scripts of configured origins may call what their apps
// call, those of others nothing; what holds no secret is for all. Nobody's
// cookies count.
func TestThreat47CORS(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	const app, other = "https://app.shop.example", "http://localhost:5173"
	resettle(s, func(settings *provider.Settings) {
		clientOf(settings, testClient).CORSOrigins = []string{app}
		clientOf(settings, testBackend).CORSOrigins = []string{other}
	})
	origin := func(value string) func(*http.Request) { return header("Origin", value) }
	asks := func(method string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Access-Control-Request-Method", method)
			r.Header.Set("Access-Control-Request-Headers", "authorization,content-type,dpop,idempotency-key")
		}
	}
	cors := func(out answer) (found []string) {
		for name := range out.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				found = append(found, name)
			}
		}
		return found
	}

	for path, methods := range map[string]string{
		"/oauth2/token": "POST", "/oauth2/revoke": "POST", "/oauth2/userinfo": "GET, POST", "/oauth2/par": "POST",
	} {
		for _, allowed := range []string{app, other} {
			out := s.Do("OPTIONS", s.Issuer+path, nil, origin(allowed), asks("POST"), phone())
			h := out.Header
			if out.Status != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != allowed || h.Get("Access-Control-Allow-Methods") != methods ||
				h.Get("Access-Control-Allow-Headers") != "Authorization, Content-Type, DPoP, Idempotency-Key" ||
				h.Get("Access-Control-Max-Age") != "600" || h.Get("Vary") != "Origin" || h.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("preflight of %s from %s: %v %v", path, allowed, out, h)
			}
		}
		for _, strange := range []string{
			"https://evil.example", app + ".evil.example", "https://evil-app.shop.example", "http://app.shop.example", app + ":444", app + "/", "https://APP.shop.example", "null", "*",
			app + " " + other,
		} {
			out := s.Do("OPTIONS", s.Issuer+path, nil, origin(strange), asks("POST"), phone())
			if out.Status != http.StatusNoContent || len(cors(out)) > 0 || out.Header.Get("Vary") != "Origin" {
				t.Errorf("preflight of %s from %s: %v %v", path, strange, out, out.Header)
			}
			out = s.Do("POST", s.Issuer+path, pairs(), origin(strange), phone())
			if len(cors(out)) > 0 || out.Header.Get("Vary") != "Origin" {
				t.Errorf("POST %s from %s: %v", path, strange, out.Header)
			}
		}
		two := func(r *http.Request) { r.Header["Origin"] = []string{app, app} }
		if out := s.Do("POST", s.Issuer+path, pairs(), two, phone()); len(cors(out)) > 0 {
			t.Errorf("POST %s with two origins: %v", path, out.Header)
		}
		// The answer, an error too, is for the app to read.
		out := s.Do("POST", s.Issuer+path, pairs(), origin(app), phone())
		exposed := out.Header.Get("Access-Control-Expose-Headers")
		if out.Status < 400 || out.Header.Get("Access-Control-Allow-Origin") != app || out.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("POST %s: %v %v", path, out, out.Header)
		}
		for _, name := range []string{"WWW-Authenticate", "DPoP-Nonce", "Retry-After"} {
			if !strings.Contains(exposed, name) {
				t.Errorf("POST %s exposes %q", path, exposed)
			}
		}
		if out := s.Do("POST", s.Issuer+path, pairs(), phone()); len(cors(out)) > 0 || out.Header.Get("Vary") != "Origin" {
			t.Errorf("POST %s without an origin: %v", path, out.Header)
		}
	}
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server", "/.well-known/jwks.json"} {
		for _, edits := range [][]func(*http.Request){{origin("https://anybody.example")}, {}} {
			if out := s.Do("GET", s.Issuer+path, nil, edits...); out.Status != 200 || out.Header.Get("Access-Control-Allow-Origin") != "*" || out.Header.Get("Vary") != "" {
				t.Errorf("%s: %v", path, out.Header)
			}
		}
		if out := s.Do("OPTIONS", s.Issuer+path, nil, origin("https://anybody.example"), asks("GET")); out.Status != 204 || out.Header.Get("Access-Control-Allow-Methods") != "GET" {
			t.Errorf("preflight of %s: %v %v", path, out, out.Header)
		}
	}
	for _, path := range []string{"/oauth2/introspect", "/account", "/account/unbind", "/wechat/decrypt", "/healthz", "/nothing"} {
		for _, method := range []string{"OPTIONS", "POST"} {
			if out := s.Do(method, s.Issuer+path, pairs(), origin(app), asks("POST"), phone()); len(cors(out)) > 0 {
				t.Errorf("%s %s: %v", method, path, out.Header)
			}
		}
	}

	// A client that is gone takes its origins with it.
	resettle(s, func(settings *provider.Settings) { clientOf(settings, testBackend).CORSOrigins = []string{other} })
	if out := s.Do("POST", s.Issuer+"/oauth2/token", pairs(), origin(app), phone()); len(cors(out)) > 0 {
		t.Errorf("after a reload: %v", out.Header)
	}
}
