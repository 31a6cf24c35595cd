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
		uri    string
		native string // "" is accepted, else a part of the problem
		web    string
	}{
		{"https://shop.example/cb", "", ""},
		{"https://shop.example", "", ""},
		{"https://shop.example/cb?a=b", "", ""},
		{"https://shop.example/cb/", "", ""},
		{"http://127.0.0.1/cb", "", "public clients"},
		{"http://127.0.0.1:3000/cb", "", "public clients"},
		{"http://[::1]/cb", "", "public clients"},
		{"http://localhost/cb", "127.0.0.1", "127.0.0.1"},
		{"http://127.0.0.2/cb", "must be https", "must be https"},
		{"http://0.0.0.0/cb", "must be https", "must be https"},
		{"http://shop.example/cb", "must be https", "must be https"},
		{"com.example.app:/cb", "", "public clients"},
		{"com.example.app://cb", "one slash", "public clients"},
		{"com.example.app:///cb", "one slash", "public clients"},
		{"com.example.app:cb", "one slash", "public clients"},
		{"myapp:/cb", "no dot", "public clients"},
		{"javascript:alert(1)", "no dot", "public clients"},
		{"data:text/html,x", "no dot", "public clients"},
		{"https://shop.example/*", "wildcards", "wildcards"},
		{"https://*.shop.example/", "wildcards", "wildcards"},
		{"https://shop.example/cb#x", "fragment", "fragment"},
		{"https://u@shop.example/cb", "user", "user"},
		{"https://shop.example@evil.example/", "user", "user"},
		{"https://shop.example/x/../cb", ". or ..", ". or .."},
		{"https://shop.example/%2e%2e/cb", "encoded", "encoded"},
		{"https://shop.example/a%5Cb", "encoded", "encoded"},
		{"https://shop.example\\cb", "character", "character"},
		{"https://shop.example/a\tb", "character", "character"},
		{"https://shop.example/\n", "character", "character"},
		{"https://Shop.example/cb", "lower case", "lower case"},
		{"https://shop.example./cb", "lower case", "lower case"},
		{"//shop.example/cb", "absolute URL", "absolute URL"},
		{"/cb", "absolute URL", "absolute URL"},
		{"", "absolute URL", "absolute URL"},
		{"https://shop.example/" + strings.Repeat("a", 2000), "2000", "2000"},
	} {
		for native, want := range map[bool]string{true: row.native, false: row.web} {
			problem, _ := checkRedirectURI(row.uri, native)
			if want == "" && problem != "" || !strings.Contains(problem, want) {
				t.Errorf("%q, native %v: %q, want %q", row.uri, native, problem, want)
			}
		}
	}
}
