package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestFaultsOfBrowserKeys(t *testing.T) {
	salt := []string{"SALT=" + strong, "SECRET=s"}
	runFaults(t, []faultRow{
		{name: "salt too short", yaml: issuerLine + "tokens: {pairwise_salt: short} #!\n", path: "tokens.pairwise_salt", text: "openssl rand"},
		{name: "salt twice", env: salt, yaml: issuerLine + "tokens: {pairwise_salt: \"${SALT}\", pairwise_salt_file: config.yaml} #!\n", path: "tokens.pairwise_salt_file", text: "keep one"},
		{name: "salt not there", yaml: issuerLine + "tokens: {pairwise_salt: \"${SALT}\"} #!\n", path: "tokens.pairwise_salt", text: "SALT is missing"},
		{name: "login idle", yaml: issuerLine + "login_sessions: {idle_lifetime: 59s} #!\n", path: "login_sessions.idle_lifetime", text: "1m to 8784h"},
		{name: "login idle beyond absolute", yaml: issuerLine + "login_sessions: {idle_lifetime: 337h} #!\n", path: "login_sessions.idle_lifetime", text: "longer than absolute"},
		{name: "login absolute", yaml: issuerLine + "login_sessions: {absolute_lifetime: 8785h} #!\n", path: "login_sessions.absolute_lifetime", text: "1m to 8784h"},
		{name: "Threat57 scanned beyond absolute", yaml: issuerLine + "login_sessions: {scanned_lifetime: 400h} #!\n", path: "login_sessions.scanned_lifetime", text: "longer than absolute"},
		{name: "login scanned", yaml: issuerLine + "login_sessions: {scanned_lifetime: 0} #!\n", path: "login_sessions.scanned_lifetime", text: "1m to 8784h"},
		{name: "scan appid", yaml: issuerLine + "scan: {appid: wx1} #!\n", path: "scan.appid", text: "wechat.apps"},
		{name: "scan code", yaml: issuerLine + "scan: {code: barcode} #!\n", path: "scan.code", text: "link, wechat"},
		{name: "scan link over http", yaml: issuerLine + "scan: {link: 'http://127.0.0.1/scan'} #!\n", path: "scan.link", text: "must be https"},
		{name: "scan link with query", yaml: issuerLine + "scan: {link: 'https://x.example/scan?t='} #!\n", path: "scan.link", text: "no query"},
		{name: "scan link with slash", yaml: issuerLine + "scan: {link: 'https://x.example/scan/'} #!\n", path: "scan.link", text: "slash"},
		{name: "scan page missing", yaml: issuerLine + "scan: {code: wechat} #!\n", path: "scan.page", text: "is missing"},
		{name: "scan page with slash", yaml: issuerLine + "scan: {page: /pages/scan} #!\n", path: "scan.page", text: "slash in front"},
		{name: "scan page with query", yaml: issuerLine + "scan: {page: 'pages/scan?a=b'} #!\n", path: "scan.page", text: "query"},
		{name: "scan page too long", yaml: issuerLine + "scan: {page: " + strings.Repeat("a", 129) + "} #!\n", path: "scan.page", text: "128 bytes"},
		{name: "scan version", yaml: issuerLine + "scan: {env_version: beta} #!\n", path: "scan.env_version", text: "release, trial, develop"},
		{name: "Threat82 place from anybody", yaml: issuerLine + "scan: {place_header: X-City} #!\n", path: "scan.place_header", text: "trusted_proxies"},
		{name: "place header form", yaml: issuerLine + "trusted_proxies: [10.0.0.0/8]\nscan: {place_header: 'X City'} #!\n", path: "scan.place_header", text: "letters, digits"},
		{name: "place header with a credential", yaml: issuerLine + "trusted_proxies: [10.0.0.0/8]\nscan: {place_header: COOKIE} #!\n", path: "scan.place_header", text: "not the name of a header for places"},
		{name: "brand name", yaml: issuerLine + "brand: {name: " + strings.Repeat("店", 65) + "} #!\n", path: "brand.name", text: "64 characters"},
		{name: "brand color", yaml: issuerLine + "brand: {color: green} #!\n", path: "brand.color", text: "in quotes"},
		{name: "Threat13 brand color closes the rule", yaml: issuerLine + "brand: {color: '#07c160;}a{'} #!\n", path: "brand.color", text: "six hex digits"},
		{name: "privacy", yaml: issuerLine + "brand: {privacy_uri: 'http://x.example/'} #!\n", path: "brand.privacy_uri", text: "https"},
		{name: "Threat13 terms", yaml: issuerLine + "brand: {terms_uri: 'javascript:alert(1)'} #!\n", path: "brand.terms_uri", text: "https"},
		{name: "logout to everybody", yaml: issuerLine + "backchannel_logout: {allowed_networks: [0.0.0.0/0]} #!\n", path: "backchannel_logout.allowed_networks[0]", text: "so wide"},
		{name: "logout to mapped addresses", yaml: issuerLine + "backchannel_logout: {allowed_networks: ['::ffff:10.0.0.0/104']} #!\n", path: "backchannel_logout.allowed_networks[0]", text: "write it as IPv4"},
		{name: "logout timeout", yaml: issuerLine + "backchannel_logout: {timeout: 31s} #!\n", path: "backchannel_logout.timeout", text: "100ms to 30s"},
		{name: "scan limit", yaml: issuerLine + "rate_limits: {scan_codes_per_ip_per_minute: 0} #!\n", path: "rate_limits.scan_codes_per_ip_per_minute", text: "1 to 10000000"},
		{name: "ticket limit", yaml: issuerLine + "rate_limits: {ticket_misses_per_ip_per_minute: -1} #!\n", path: "rate_limits.ticket_misses_per_ip_per_minute", text: "1 to 10000000"},
	})
}

func TestFaultsOfBrowserClients(t *testing.T) {
	var many []string
	for i := range 33 {
		many = append(many, fmt.Sprintf("https://shop.example/%d", i))
	}
	list := strings.Join(many, ", ")
	env := []string{"SALT=" + strong}
	salted := issuerLine + "tokens: {pairwise_salt: \"${SALT}\"}\n"
	native := func(lines ...string) string {
		return client(append([]string{"client_id: app #!", "type: public", "grant_types: [authorization_code]"}, lines...)...)
	}
	runFaults(t, []faultRow{
		{name: "Threat1 no redirect_uris", yaml: issuerLine + client("client_id: a #!", "type: public", "grant_types: [authorization_code]"), path: "clients[0].redirect_uris", text: "authorization_code needs it"},
		{name: "redirect_uris for nothing", yaml: issuerLine + publicClient("redirect_uris: ['https://x.example/cb'] #!"), path: "clients[0].redirect_uris", text: "of no use"},
		{name: "Threat1 many redirect_uris", yaml: issuerLine + client("client_id: app", "type: public", "grant_types: [authorization_code]", "redirect_uris: ["+list+"] #!"), path: "clients[0].redirect_uris", text: "more than 32"},
		{name: "Threat45 many post_logout_redirect_uris", yaml: issuerLine + webClient("post_logout_redirect_uris: ["+list+"] #!"), path: "clients[0].post_logout_redirect_uris", text: "more than 32"},
		{name: "Threat1 http on loopback for a server", yaml: issuerLine + webClient("post_logout_redirect_uris: ['http://127.0.0.1:3000/'] #!"), path: "clients[0].post_logout_redirect_uris[0]", text: "public clients"},
		{name: "Threat1 http off loopback in development", yaml: "issuer: http://localhost:8080\n" + webClient("post_logout_redirect_uris: ['http://192.0.2.1:3000/'] #!"), path: "clients[0].post_logout_redirect_uris[0]", text: "must be https"},
		{name: "back-channel on loopback", yaml: issuerLine + webClient("backchannel_logout_uri: 'http://127.0.0.1:3000/out' #!"), path: "clients[0].backchannel_logout_uri", text: "must be https"},
		{name: "back-channel off loopback in development", yaml: "issuer: http://[::1]:8080\n" + webClient("backchannel_logout_uri: 'http://192.0.2.1/out' #!"), path: "clients[0].backchannel_logout_uri", text: "must be https"},
		{name: "loopback does not count with insecure switches", yaml: "issuer: http://id.example.com\ninsecure: {allow_http_issuer: true}\n" + webClient("backchannel_logout_uri: 'http://127.0.0.1/out' #!"), path: "clients[0].backchannel_logout_uri", text: "must be https"},
		{name: "pushed requests of nobody", yaml: issuerLine + publicClient("require_pushed_authorization_requests: true #!"), path: "clients[0].require_pushed_authorization_requests", text: "of no use"},
		{name: "consent", yaml: issuerLine + webClient("consent: never #!"), path: "clients[0].consent", text: "ask, skip"},
		{name: "max age with fractions", yaml: issuerLine + webClient("default_max_age: 1500ms #!"), path: "clients[0].default_max_age", text: "whole seconds"},
		{name: "max age negative", yaml: issuerLine + webClient("default_max_age: -1s #!"), path: "clients[0].default_max_age", text: "whole seconds"},
		{name: "origin with a path", yaml: issuerLine + webClient("cors_origins: ['https://x.example/'] #!"), path: "clients[0].cors_origins[0]", text: "more than an origin"},
		{name: "any origin", yaml: issuerLine + webClient("cors_origins: ['*'] #!"), path: "clients[0].cors_origins[0]", text: "wildcards"},
		{name: "origin twice", yaml: issuerLine + webClient("cors_origins: ['https://x.example', 'https://x.example'] #!"), path: "clients[0].cors_origins[1]", text: "same as entry 0"},
		{name: "access token", yaml: issuerLine + webClient("access_token_lifetime: 25h #!"), path: "clients[0].access_token_lifetime", text: "1s to 24h"},
		{name: "ID Token", yaml: issuerLine + webClient("id_token_lifetime: 1ms #!"), path: "clients[0].id_token_lifetime", text: "1s to 24h"},
		{name: "absolute", yaml: issuerLine + webClient("refresh_token_absolute_lifetime: 50000h #!"), path: "clients[0].refresh_token_absolute_lifetime", text: "1s to 43800h"},
		{name: "idle beyond that of tokens", yaml: issuerLine + webClient("refresh_token_idle_lifetime: 5000h #!"), path: "clients[0].refresh_token_idle_lifetime", text: "longer than refresh_token_absolute_lifetime"},
		{name: "idle beyond its own", yaml: issuerLine + webClient("refresh_token_absolute_lifetime: 1h", "refresh_token_idle_lifetime: 2h #!"), path: "clients[0].refresh_token_idle_lifetime", text: "longer than refresh_token_absolute_lifetime"},
		{name: "idle within the grace", yaml: issuerLine + webClient("refresh_token_idle_lifetime: 20s #!"), path: "clients[0].refresh_token_idle_lifetime", text: "refresh_grace"},
		{name: "subject type", yaml: issuerLine + webClient("subject_type: secret #!"), path: "clients[0].subject_type", text: "public, pairwise"},
		{name: "no salt", yaml: issuerLine + webClient("subject_type: pairwise #!"), path: "clients[0].subject_type", text: "tokens.pairwise_salt"},
		{name: "sector of a public subject", yaml: issuerLine + webClient("sector_identifier: shop.example #!"), path: "clients[0].sector_identifier", text: "of no use"},
		{name: "sector form", env: env, yaml: salted + webClient("subject_type: pairwise", "sector_identifier: 'https://shop.example/' #!"), path: "clients[0].sector_identifier", text: "host name"},
		{name: "sector with port", env: env, yaml: salted + webClient("subject_type: pairwise", "sector_identifier: 'shop.example:443' #!"), path: "clients[0].sector_identifier", text: "host name"},
		{name: "sector in capitals", env: env, yaml: salted + webClient("subject_type: pairwise", "sector_identifier: Shop.example #!"), path: "clients[0].sector_identifier", text: "lower case"},
		{name: "several hosts", env: env, yaml: salted + "clients:\n  - {client_id: a, type: public, grant_types: [authorization_code], subject_type: pairwise, redirect_uris: ['https://a.example/', 'https://b.example/']} #!\n", path: "clients[0].sector_identifier", text: "not one host"},
		{name: "loopback is everybody's", env: env, yaml: salted + native("subject_type: pairwise", "redirect_uris: ['http://127.0.0.1/cb']"), path: "clients[0].sector_identifier", text: "not one host"},
		{name: "no host", env: env, yaml: salted + native("subject_type: pairwise", "redirect_uris: ['com.example.app:/cb']"), path: "clients[0].sector_identifier", text: "not one host"},
		{name: "Threat57 approving without an app", yaml: issuerLine + webClient("scopes: [device.approve] #!"), path: "clients[0].scopes", text: "wechat_appid only"},
	})
}

func TestSectors(t *testing.T) {
	f := newFolder(t)
	f.write("salt", strong, 0o600)
	c := f.mustLoad(issuerLine + `tokens: {pairwise_salt_file: salt}
clients:
  - {client_id: a, type: public, grant_types: [authorization_code], redirect_uris: ["https://a.example/"]}
  - {client_id: b, type: public, grant_types: [authorization_code], subject_type: pairwise, redirect_uris: ["https://b.example/1", "https://b.example:8443/2"]}
  - {client_id: c, type: public, grant_types: [authorization_code], subject_type: pairwise, sector_identifier: a.example, redirect_uris: ["https://c.example/"]}
  - {client_id: d, type: public, grant_types: ["urn:ietf:params:oauth:grant-type:device_code"], subject_type: pairwise, sector_identifier: b.example}
`)
	for i, want := range []string{"", "b.example", "a.example", "b.example"} {
		if got := c.Clients[i].Sector(); got != want {
			t.Errorf("clients[%d]: sector %q, want %q", i, got, want)
		}
	}
}

func TestFaultsOfImagesAndVerificationFiles(t *testing.T) {
	f := newFolder(t)
	f.write("large", strings.Repeat("a", 256<<10+1), 0o644)
	f.write("largest.svg", svgStart+strings.Repeat(" ", 256<<10-len(svgStart+"</svg>"))+"</svg>", 0o644)
	f.write("active.svg", activeSVGs[0], 0o644)
	f.write("text", "text", 0o644)
	f.write("large.txt", strings.Repeat("a", 1<<10+1), 0o644)
	f.write("blank.txt", " \n", 0o644)
	f.write("binary.txt", "a\x00b", 0o644)
	f.write("secret.key", "secret", 0o600)
	for file, want := range map[string]string{
		"nowhere": "no such file", "large": "too large", "active.svg": "could run", "text": "neither SVG", ".": "is a directory",
	} {
		t.Run("logo "+file, func(t *testing.T) {
			faultRow{yaml: issuerLine + "brand: {logo_file: " + file + "} #!\n", path: "brand.logo_file", text: want}.run(t, f)
		})
	}
	for file, want := range map[string]string{
		"nowhere.txt": "no such file", "large.txt": "too large", "blank.txt": "is empty", "binary.txt": "plain text",
		"secret.key": "name that WeChat", ".txt": "name that WeChat", "a.b.txt": "name that WeChat", "a b.txt": "name that WeChat",
	} {
		t.Run("verification "+file, func(t *testing.T) {
			faultRow{yaml: issuerLine + "scan: {verification_file: " + file + "} #!\n", path: "scan.verification_file", text: want}.run(t, f)
		})
	}
	if c := f.mustLoad(issuerLine + "brand: {logo_file: largest.svg}\n"); len(c.Brand.Logo) != 256<<10 {
		t.Errorf("a logo of the largest size has %d bytes", len(c.Brand.Logo))
	}
}
