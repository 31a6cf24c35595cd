package config

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad feeds any bytes as a config file. Whatever they are, Load answers
// with a configuration that was checked or with faults, and no fault repeats
// the secret that the bytes were given.
func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile("../config.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add(InitFile(InitParams{}))
	for _, text := range []string{
		"", "a: b", "issuer: https://CANARY", "issuer: *CANARY\n", "x: &a [*a]", "? {CANARY: CANARY}\n", "--- a\n--- b\n", "\xff\xfe", "%YAML 1.1\n---\n",
		"issuer: https://id.example.com\nwechat: {apps: [{appid: a, secret: CANARY}]}\n",
		"issuer: https://id.example.com\nclients: [{client_id: a, type: confidential, client_secrets: [CANARY, '${CANARY}', '${A}']}]\n",
		"issuer: https://id.example.com\nclients: [{client_id: a, redirect_uris: [CANARY], scopes: [CANARY]}]\n",
		"issuer: https://id.example.com\ntls: {cert_file: CANARY, key_file: .}\ntokens: {refresh_grace: CANARY}\ntrusted_proxies: [CANARY]\n",
		"issuer: https://id.example.com\nbrand: {logo_file: config.yaml, color: CANARY}\nscan: {verification_file: CANARY.txt, link: CANARY, place_header: CANARY}\n",
		"issuer: https://id.example.com\ntokens: {pairwise_salt: CANARY}\nclients: [{client_id: a, subject_type: pairwise, sector_identifier: CANARY, cors_origins: [CANARY]}]\n",
		"clients:\n  - client_secret_file: /CANARY\n    jwks_file: ../CANARY\n  -\n",
	} {
		f.Add([]byte(text))
	}
	path := filepath.Join(f.TempDir(), "config.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		text := strings.ReplaceAll(string(data), "CANARY", canary)
		if strings.Contains(text, "/dev/") || strings.Contains(text, "/proc/") {
			t.Skip("files of the machine")
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, err := Load(path, append([]string{"A=" + canary}, exampleEnv...))
		if err != nil {
			var faults Faults
			if !errors.As(err, &faults) || len(faults) == 0 {
				t.Fatalf("the error is %T", err)
			}
			if holdsCanary(err.Error()) {
				t.Fatalf("a fault repeats a value:\n%v", err)
			}
			for _, fault := range faults {
				if strings.ContainsAny(fault.String(), "\r\n\x1b\x00") {
					t.Fatalf("a fault holds control characters: %q", fault)
				}
			}
			return
		}
		if loaded.Config.Issuer == "" || loaded.Config.Tokens.AccessTokenLifetime <= 0 {
			t.Fatalf("an unchecked configuration came out: %+v", loaded.Config)
		}
		for _, c := range loaded.Config.Clients {
			if c.Type == ClientConfidential && len(c.SecretHashes) == 0 && c.JWKS == nil {
				t.Fatalf("a confidential client without a credential: %+v", c)
			}
			if c.Type == ClientPublic && len(c.SecretHashes) > 0 {
				t.Fatalf("a public client with a secret: %+v", c)
			}
		}
	})
}

func FuzzRedirectURI(f *testing.F) {
	for _, uri := range []string{"https://a.example/cb", "http://127.0.0.1/cb", "com.example.app:/cb", "https://u@a.example", "https://a.example\\@b", "http://[::1]:1/%2e"} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		web, _ := checkRedirectURI(uri, redirectRules{})
		native, _ := checkRedirectURI(uri, redirectRules{native: true})
		development, _ := checkRedirectURI(uri, redirectRules{development: true})
		if web == "" && (native != "" || !strings.HasPrefix(uri, "https://")) {
			t.Fatalf("%q: for a web client %q, for a native one %q", uri, web, native)
		}
		if web == "" && development != "" {
			t.Fatalf("%q: for a web client %q, for one in development %q", uri, web, development)
		}
		if u, err := url.Parse(uri); development == "" && (err != nil || u.Scheme != "https" && !loopbackHost(u.Hostname())) {
			t.Fatalf("%q is accepted in development", uri)
		}
		if problem, _ := checkOrigin(uri); problem == "" {
			if u, err := url.Parse(uri); err != nil || u.String() != uri || u.Path != "" || web != "" && development != "" {
				t.Fatalf("%q is accepted as an origin", uri)
			}
		}
		if native == "" && strings.ContainsAny(uri, "*#\\ \t\r\n\"<>") {
			t.Fatalf("%q is accepted", uri)
		}
		if problem, _ := checkIssuer(uri, false); problem == "" && (strings.HasSuffix(uri, "/") || strings.ContainsAny(uri, "?#@%")) {
			t.Fatalf("%q is accepted as an issuer", uri)
		}
	})
}

// FuzzSVG holds the judgement of logos against what would run in a browser,
// by looking for it in ways that a parser does not.
func FuzzSVG(f *testing.F) {
	for _, svg := range append(passiveSVGs, activeSVGs...) {
		f.Add([]byte(svg))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		mediaType, problem, _ := checkLogo(data)
		if problem != "" || mediaType != typeSVG {
			return
		}
		text := strings.ToLower(string(data))
		for _, bad := range []string{"<script", "<foreignobject", "<iframe", "<!entity", "<?xml-stylesheet"} {
			if i := strings.Index(text, bad); i >= 0 && !strings.Contains(text[:i], "<!") {
				t.Fatalf("an SVG with %s is accepted: %q", bad, data)
			}
		}
	})
}
