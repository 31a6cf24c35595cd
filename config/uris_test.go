package config

import (
	"strings"
	"testing"
)

func TestIssuer(t *testing.T) {
	for _, good := range []string{
		"https://id.example.com", "https://id.example.com:8443", "https://id.example.com/tenant", "https://xn--fiq228c.example",
		"http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080", "https://192.0.2.1", "http://127.0.0.2",
	} {
		if problem, _ := checkIssuer(good, false); problem != "" {
			t.Errorf("%s: %s", good, problem)
		}
	}
	for bad, want := range map[string]string{
		"":                                "absolute URL",
		"id.example.com":                  "absolute URL",
		"ftp://id.example.com":            "https",
		"http://id.example.com":           "loopback only",
		"http://127.0.0.1.evil.example":   "loopback only",
		"http://localhost.evil.example":   "loopback only",
		"http://127.1":                    "IP address",
		"http://2130706433":               "IP address",
		"http://0x7f000001":               "IP address",
		"https://id.example.com/":         "slash",
		"https://id.example.com/a/":       "slash",
		"https://id.example.com?":         "query",
		"https://id.example.com?a=b":      "query",
		"https://id.example.com#":         "fragment",
		"https://id.example.com#x":        "fragment",
		"https://u:p@id.example.com":      "user",
		"https://@id.example.com":         "user",
		"https://id.example.com/../a":     ". or ..",
		"https://id.example.com/a/./b":    ". or ..",
		"https://id.example.com/%2e%2e/a": "encoded",
		"https://id.example.com/a%2Fb":    "encoded",
		"https://id.example.com/a%20b":    "encoded",
		"https://id.example.com//a":       "empty segment",
		"https://ID.example.com":          "lower case",
		"HTTPS://id.example.com":          "absolute URL",
		"https://id.example.com.":         "lower case",
		"https://id.example.com:":         "port",
		"https://id.example.com:0":        "port",
		"https://id.example.com:070":      "port",
		"https://id.example.com:65536":    "port",
		"https://":                        "no host",
		"https:id.example.com":            "no host",
		"https://id.example.com\\@evil":   "character",
		"https://身份.example":              "character",
		"https://id.example.com/a b":      "character",
		"https://*.example.com":           "wildcards",
		"https://[fe80::1%25eth0]":        "IP address",
		"https://" + strings.Repeat("a", 64) + ".example/" + strings.Repeat("b", 200): "255",
	} {
		if problem, _ := checkIssuer(bad, false); !strings.Contains(problem, want) {
			t.Errorf("%s: %q, want %q", bad, problem, want)
		}
	}
	if problem, _ := checkIssuer("http://id.example.com", true); problem != "" {
		t.Errorf("with the switch: %s", problem)
	}
}

func TestThreat1RedirectURIs(t *testing.T) {
	for _, row := range []struct {
		uri         string
		native      string // "" is accepted, else a part of the problem
		web         string
		development string // of a web client where the issuer is on loopback
	}{
		{"https://shop.example/cb", "", "", ""},
		{"https://shop.example", "", "", ""},
		{"https://shop.example/cb?a=b", "", "", ""},
		{"https://shop.example/cb/", "", "", ""},
		{"http://127.0.0.1/cb", "", "public clients", ""},
		{"http://127.0.0.1:3000/cb", "", "public clients", ""},
		{"http://[::1]/cb", "", "public clients", ""},
		{"http://localhost/cb", "127.0.0.1", "127.0.0.1", ""},
		{"http://127.0.0.2/cb", "must be https", "must be https", "must be https"},
		{"http://0.0.0.0/cb", "must be https", "must be https", "must be https"},
		{"http://shop.example/cb", "must be https", "must be https", "must be https"},
		{"com.example.app:/cb", "", "public clients", "public clients"},
		{"com.example.app://cb", "one slash", "public clients", "public clients"},
		{"com.example.app:///cb", "one slash", "public clients", "public clients"},
		{"com.example.app:cb", "one slash", "public clients", "public clients"},
		{"myapp:/cb", "no dot", "public clients", "public clients"},
		{"javascript:alert(1)", "no dot", "public clients", "public clients"},
		{"data:text/html,x", "no dot", "public clients", "public clients"},
		{"https://shop.example/*", "wildcards", "wildcards", "wildcards"},
		{"https://*.shop.example/", "wildcards", "wildcards", "wildcards"},
		{"https://shop.example/cb#x", "fragment", "fragment", "fragment"},
		{"https://u@shop.example/cb", "user", "user", "user"},
		{"https://shop.example@evil.example/", "user", "user", "user"},
		{"https://shop.example/x/../cb", ". or ..", ". or ..", ". or .."},
		{"https://shop.example/%2e%2e/cb", "encoded", "encoded", "encoded"},
		{"https://shop.example/a%5Cb", "encoded", "encoded", "encoded"},
		{"https://shop.example\\cb", "character", "character", "character"},
		{"https://shop.example/a\tb", "character", "character", "character"},
		{"https://shop.example/\n", "character", "character", "character"},
		{"https://Shop.example/cb", "lower case", "lower case", "lower case"},
		{"https://shop.example./cb", "lower case", "lower case", "lower case"},
		{"http://localhost:3000/cb", "127.0.0.1", "127.0.0.1", ""},
		{"http://localhost.evil.example/cb", "must be https", "must be https", "must be https"},
		{"http://127.1/cb", "IP address", "IP address", "IP address"},
		{"http://127.0.0.1:80/cb", "default port", "default port", "default port"},
		{"http://[0:0:0:0:0:0:0:1]/cb", "IP address", "IP address", "IP address"},
		{"https://shop.example:443/cb", "default port", "default port", "default port"},
		{"https://shop.example:8443/cb", "", "", ""},
		{"https://shop.example:080/cb", "port", "port", "port"},
		{"https://shop.example/x/..;/cb", ". or ..", ". or ..", ". or .."},
		{"https://shop.example/.;a=b/cb", ". or ..", ". or ..", ". or .."},
		{"https://店.example/cb", "character", "character", "character"},
		{"https://xn--8xv.example/cb", "", "", ""},
		{"https://shop.example/\x7f", "character", "character", "character"},
		{"https://shop.example:@evil.example/cb", "user", "user", "user"},
		{"//shop.example/cb", "absolute URL", "absolute URL", "absolute URL"},
		{"/cb", "absolute URL", "absolute URL", "absolute URL"},
		{"", "absolute URL", "absolute URL", "absolute URL"},
		{"https://shop.example/" + strings.Repeat("a", 2048), "2048", "2048", "2048"},
	} {
		for rules, want := range map[redirectRules]string{{native: true}: row.native, {}: row.web, {development: true}: row.development} {
			problem, _ := checkRedirectURI(row.uri, rules)
			if want == "" && problem != "" || !strings.Contains(problem, want) {
				t.Errorf("%q, %+v: %q, want %q", row.uri, rules, problem, want)
			}
		}
	}
}

func TestOrigins(t *testing.T) {
	for origin, want := range map[string]string{
		"https://shop.example": "", "https://shop.example:8443": "", "http://127.0.0.1:3000": "", "http://localhost:3000": "", "http://[::1]": "",
		"https://xn--8xv.example": "", "https://192.0.2.1": "",
		"https://shop.example/": "more than an origin", "https://shop.example/a": "more than an origin", "https://shop.example?": "more than an origin",
		"http://shop.example": "must be https", "null": "absolute URL", "*": "wildcards", "https://*.shop.example": "wildcards", "shop.example": "absolute URL",
		"https://Shop.example": "lower case", "HTTPS://shop.example": "absolute URL", "https://shop.example:443": "default port", "http://localhost:80": "default port",
		"https://u@shop.example": "user", "https://shop.example#": "fragment", "https://shop.example:": "port", "chrome-extension://abcdef": "must be https",
	} {
		if problem, _ := checkOrigin(origin); want == "" && problem != "" || !strings.Contains(problem, want) {
			t.Errorf("%q: %q, want %q", origin, problem, want)
		}
	}
}
