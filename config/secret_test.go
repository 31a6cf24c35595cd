package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// canary passes for a random secret and can be found again. It ends up in
// every place a secret can be put into, rightly or by mistake.
const canary = "cAnArY7-q9Zx2Lr4Tw6bE8uHc1mGfJp3a5oR"

func TestThreat84NoFaultRepeatsTheFile(t *testing.T) {
	f := newFolder(t)
	f.write("open", canary, 0o644)
	f.write("weak", canary[:20], 0o600)
	f.write("keys.json", `{"keys":[{"kty":"`+canary+`","kid":"`+canary+`","use":"`+canary+`"}]}`, 0o600)
	f.write("json", canary, 0o600)
	f.write("cert.pem", canary, 0o600)
	jwt := func(file string) string {
		return confidentialClient("token_endpoint_auth_method: private_key_jwt", "jwks_file: "+file)
	}
	texts := []string{
		canary, "- " + canary, "&" + canary + " a: *b", "a: *" + canary, "a: !" + canary + " b", "%" + canary, "\"" + canary, "'" + canary,
		"{" + canary + ": [", "{secret:" + canary + "}", "? [" + canary + "]", canary + ": x", "x: {" + canary + "}", "\t" + canary,
		"issuer: " + canary, "issuer: https://" + canary + ":x@h", "issuer: ['" + canary + "']", "issuer: {" + canary + ": 1}",
		"log: {level: " + canary + "}", "log: " + canary, "tokens: {refresh_grace: " + canary + "}", "keys: {eddsa: " + canary + "}",
		"rate_limits: {requests_per_ip_per_minute: " + canary + "}", "trusted_proxies: [" + canary + "]", "trusted_proxies: " + canary,
		"listen: " + canary, "admin: {token_file: " + canary + "}", "admin: {listen: '0.0.0.0:1', token_file: open}", "admin: {token_file: weak}",
		"tls: {cert_file: " + canary + ", key_file: " + canary + "}", "tls: {cert_file: cert.pem, key_file: cert.pem}",
		"storage: {driver: " + canary + ", postgres: {dsn: 'x${" + canary + "}'}}", "storage: {driver: postgres, postgres: {dsn: " + canary + "}}",
		"wechat: {apps: [{appid: '" + canary + " ', secret: '" + canary + " '}]}", "wechat: {apps: [{appid: a, secret_file: " + canary + "}]}",
		"wechat: {apps: [{appid: a, secret: " + canary + "}, {appid: a, secret: " + canary + "}]}", "wechat: {base_url: 'http://" + canary + "'}",
		"wechat: {apps: [{appid: a, secret: '${" + canary + "}'}]}", "wechat: {apps: [{appid: a, secret: {" + canary + ": " + canary + "}}]}",
		"tokens: {pairwise_salt: '" + canary[:20] + "'}", "tokens: {pairwise_salt_file: open}", "scan: {appid: " + canary + "}", "scan: {link: 'http://" + canary + "'}",
		"scan: {page: '/" + canary + "'}", "scan: {verification_file: " + canary + ".txt}", "scan: {verification_file: " + canary + "}", "scan: {place_header: '" + canary + " '}",
		"brand: {color: " + canary + "}", "brand: {logo_file: json}", "brand: {privacy_uri: " + canary + "}", "backchannel_logout: {allowed_networks: [" + canary + "]}",
		webClient("cors_origins: [" + canary + "]"), webClient("subject_type: pairwise", "sector_identifier: '"+canary+"'"), webClient("consent: " + canary), webClient("default_max_age: " + canary),
		publicClient("client_secret: " + canary), publicClient("client_secrets: [" + canary + "]"), publicClient("client_secrets: " + canary),
		confidentialClient("client_secret: "+canary, "client_secret_file: "+canary), confidentialClient("client_secret_hash: " + canary),
		confidentialClient("client_secret: " + canary[:20]), confidentialClient("client_secret_file: open"), confidentialClient("client_secret:\n      " + canary + ": x"),
		jwt("keys.json"), jwt("json"), jwt(canary), confidentialClient("scopes: ['"+canary+"\\ ']", "default_scopes: ["+canary+"]", "redirect_uris: ['"+canary+"']"),
		client("client_id: '"+canary+" '", "type: "+canary, "grant_types: ["+canary+"]", "token_endpoint_auth_method: "+canary, "id_token_signed_response_alg: "+canary, "audience: ['"+canary+" ']"),
	}
	for _, text := range texts {
		for _, prefix := range []string{"", issuerLine} {
			_, err := f.load(prefix+text+"\n", "WXIDP_LOG_LEVEL="+canary, "WXIDP_TOKENS_REFRESH_GRACE="+canary, "WXIDP_NOPE="+canary, "WXIDP_TRUSTED_PROXIES="+canary)
			if err == nil {
				t.Errorf("accepted:\n%s", text)
				continue
			}
			if holdsCanary(printed(err)) {
				t.Errorf("the fault repeats the value of\n%s\n%v", text, err)
			}
		}
	}
}

func TestThreat84NoPrintedConfigShowsASecret(t *testing.T) {
	f := newFolder(t)
	f.write("secret", canary, 0o600)
	loaded, err := f.load(issuerLine+`
admin: {token_file: secret}
storage: {postgres: {dsn: `+canary+`}}
tokens: {pairwise_salt: `+canary+`}
wechat: {apps: [{appid: a, secret: `+canary+`}, {appid: b, secret_file: secret}]}
clients:
  - {client_id: a, type: confidential, grant_types: [client_credentials], client_secret: `+canary+`}
  - {client_id: b, type: confidential, grant_types: [client_credentials], client_secrets: [`+canary+`, "${CANARY}"]}
  - {client_id: c, type: confidential, grant_types: [client_credentials], client_secret_file: secret}
`, "CANARY="+canary, "WXIDP_MASTER_KEY="+canary)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Config.Tokens.PairwiseSalt.Reveal() != canary || loaded.Config.WeChat.Apps[0].Secret.Reveal() != canary || loaded.Config.Admin.Token.Reveal() != canary {
		t.Fatal("the secrets did not arrive")
	}
	keys, err := loaded.MasterKeys()
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []any{loaded.Config, *loaded.Config, loaded.Config.Clients, loaded.Config.WeChat, keys} {
		if holdsCanary(printed(value)) {
			t.Errorf("a printed form of %T shows a secret", value)
		}
	}
	// Not every verb: for a pointer within a struct, %s prints what is behind
	// it without asking its methods.
	if text := fmt.Sprintf("%v %+v %#v %+v", loaded, loaded, loaded, *loaded); holdsCanary(text) {
		t.Error("a printed form of Loaded shows a secret")
	}
}

func holdsCanary(text string) bool {
	return strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) ||
		strings.Contains(text, canary[:20]) // what a shortened secret leaves
}

// printed is a value in every form that logs and error pages use.
func printed(value any) string {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v\n%+v\n%#v\n%s\n%q\n%x\n", value, value, value, value, value, value)
	raw, _ := json.Marshal(value)
	out.Write(raw)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "value", value)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "value", value)
	return out.String()
}
