package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/web"
)

// listKeys is what `wxidp keys list --json` prints.
func (s *testServer) listKeys() []keys.KeyInfo {
	s.t.Helper()
	code, out, errs := runCLI(s.t, "keys", "list", "--json", "--socket", s.Socket())
	var response web.KeysResponse
	if code != 0 || json.Unmarshal([]byte(out), &response) != nil {
		s.t.Fatalf("keys list: code %d, %s%s", code, out, errs)
	}
	return response.Keys
}

// currentKey is the id of the key that signs with alg.
func (s *testServer) currentKey(alg string) string {
	s.t.Helper()
	for _, key := range s.listKeys() {
		if key.Alg == alg && key.State == keys.StateCurrent {
			return key.ID
		}
	}
	s.t.Fatalf("no current key for %s", alg)
	return ""
}

// kid is the key id in a token's header.
func kid(t testing.TB, token string) string {
	t.Helper()
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	return jws.Signatures[0].Header.KeyID
}

func TestKeysList(t *testing.T) {
	s := startServer(t)
	found := map[string]int{}
	for _, key := range s.listKeys() {
		found[key.Alg+" "+key.State]++
		if key.ID == "" || key.Created.IsZero() {
			t.Errorf("incomplete: %+v", key)
		}
		if key.State == keys.StateCurrent && (key.SigningSince.IsZero() || !key.RetiresAt.After(time.Now())) {
			t.Errorf("a current key without its times: %+v", key)
		}
	}
	for _, want := range []string{"ES256 current", "ES256 next", "RS256 current", "RS256 next", "MAC current", "MAC next"} {
		if found[want] != 1 {
			t.Errorf("%d keys are %s, want 1 (%v)", found[want], want, found)
		}
	}
	// The table, with the socket found through the configuration.
	code, out, errs := runCLI(t, "keys", "list", "--config", s.ConfigPath())
	if code != 0 {
		t.Fatalf("keys list: code %d: %s", code, errs)
	}
	head, _, _ := strings.Cut(out, "\n")
	if got := strings.Fields(head); len(got) < 5 || got[0] != "ALG" || got[1] != "STATE" {
		t.Errorf("table begins with %q", head)
	}
	if !strings.Contains(out, s.currentKey(keys.ES256)) {
		t.Errorf("the table does not name the current key:\n%s", out)
	}
}

func TestKeysCommandWithoutServer(t *testing.T) {
	s := prepareServer(t)
	for _, args := range [][]string{{"list"}, {"rotate"}, {"revoke", "x"}, {"rewrap"}} {
		code, out, errs := runCLI(t, append(append([]string{"keys"}, args...), "--config", s.ConfigPath())...)
		if code != 1 || out != "" || !strings.Contains(errs, "is it running") || !strings.Contains(errs, "admin.sock") {
			t.Errorf("keys %v without a server: code %d, %q, %q", args, code, out, errs)
		}
	}
	code, _, errs := runCLI(t, "keys", "list", "--config", s.ConfigPath()+".none")
	if code != 1 || !strings.Contains(errs, "--socket") {
		t.Errorf("without a configuration: code %d, %q", code, errs)
	}
}

func TestKeysRotate(t *testing.T) {
	s := startServer(t)
	before := s.currentKey(keys.ES256)

	// The next key was published a moment ago, and validators may cache for an
	// hour: it has to wait.
	code, out, errs := runCLI(t, "keys", "rotate", "--alg", "ES256", "--socket", s.Socket())
	if code != 0 || !strings.Contains(out, "takes over at") {
		t.Fatalf("keys rotate: code %d, %s%s", code, out, errs)
	}
	code, out, _ = runCLI(t, "keys", "rotate", "--json", "--socket", s.Socket())
	var response web.KeysResponse
	if err := json.Unmarshal([]byte(out), &response); code != 0 || err != nil {
		t.Fatalf("keys rotate --json: code %d, %v, %s", code, err, out)
	}
	if wait := time.Until(response.Scheduled); wait < 23*time.Hour || wait > 25*time.Hour {
		t.Errorf("scheduled in %v; publish_ahead is 24h", wait)
	}
	if s.currentKey(keys.ES256) != before {
		t.Error("the key changed before its successor was published long enough")
	}

	code, _, errs = runCLI(t, "keys", "rotate", "--alg", "HS256", "--socket", s.Socket())
	if code != 1 || !strings.Contains(errs, "ES256") {
		t.Errorf("unknown alg: code %d, %q", code, errs)
	}
	if len(s.Logs.Events("admin.keys.rotate")) != 2 {
		t.Errorf("audit: %v", s.Logs.Events("admin.keys.rotate"))
	}
}

// TestThreat36RevokedKey drops a compromised signing key.
func TestThreat36RevokedKey(t *testing.T) {
	s := startServer(t)
	victim := s.SignIn("alice")
	other, err := s.signIn("shop-mini-2", testApp2, "bob") // its ID Token is RS256
	if err != nil || other.Status != http.StatusOK {
		t.Fatalf("sign-in: %v, %v", other, err)
	}
	compromised := s.currentKey(keys.ES256)
	if got := kid(t, victim.str("access_token")); got != compromised {
		t.Fatalf("kid %q, current key %q", got, compromised)
	}

	code, out, errs := runCLI(t, "keys", "revoke", compromised, "--socket", s.Socket())
	if code != 0 || strings.Contains(out, compromised) {
		t.Fatalf("keys revoke: code %d, %s%s", code, out, errs)
	}
	if s.Active(victim.str("access_token")) || s.UserInfo(victim.str("access_token")).Status != http.StatusUnauthorized {
		t.Error("a token of the revoked key is alive")
	}
	if set := s.Do(http.MethodGet, s.Issuer+"/.well-known/jwks.json", nil); strings.Contains(string(set.Body), compromised) {
		t.Error("the revoked key is published")
	}
	// The sign-in itself goes on with another key.
	again := s.Refresh(victim.str("refresh_token"))
	if again.Status != http.StatusOK || !s.Active(again.str("access_token")) {
		t.Fatalf("refresh after the revocation: %v", again)
	}
	if got := kid(t, again.str("access_token")); got == compromised || got != s.currentKey(keys.ES256) {
		t.Errorf("kid %q after the revocation", got)
	}
	if got := kid(t, other.str("id_token")); got != s.currentKey(keys.RS256) {
		t.Error("the RS256 ring changed too")
	}
	s.SignIn("carol")

	code, _, errs = runCLI(t, "keys", "revoke", compromised, "--socket", s.Socket())
	if code != 1 || !strings.Contains(errs, "no such key") {
		t.Errorf("revoking twice: code %d, %q", code, errs)
	}
	if code, _, errs = runCLI(t, "keys", "revoke", "--socket", s.Socket()); code != 1 {
		t.Errorf("revoke without a key id: code %d, %q", code, errs)
	}
	if events := s.Logs.Events("admin.keys.revoke"); len(events) != 1 || events[0]["kid"] != compromised {
		t.Errorf("audit: %v", events)
	}
}

// TestThreat36RevokedMACKey drops the key that refresh tokens are made with,
// which ends the sign-ins made with it.
func TestThreat36RevokedMACKey(t *testing.T) {
	s := startServer(t)
	keyed := s.Token(pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", s.Code(testAppID, "alice")))
	code := s.Code(testAppID, "bob")
	repeated := func() answer {
		return s.Token(pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", code), header("Idempotency-Key", "once"))
	}
	first := repeated()
	if keyed.Status != http.StatusOK || first.Status != http.StatusOK {
		t.Fatalf("sign-ins: %v, %v", keyed, first)
	}
	if exit, _, errs := runCLI(t, "keys", "revoke", s.currentKey(keys.MAC), "--socket", s.Socket()); exit != 0 {
		t.Fatalf("keys revoke: %s", errs)
	}
	if out := s.Refresh(keyed.str("refresh_token")); out.Status != http.StatusBadRequest || out.str("error") != "invalid_grant" {
		t.Errorf("refresh with a token of the revoked key: %v", out)
	}
	if s.Active(keyed.str("access_token")) {
		t.Error("an access token of a sign-in that has ended is alive")
	}
	if out := repeated(); out.Status != http.StatusBadRequest || out.str("error") != "invalid_grant" {
		t.Errorf("repeating a sign-in that has ended: %v", out)
	}
	fresh := s.SignIn("alice")
	if out := s.Refresh(fresh.str("refresh_token")); out.Status != http.StatusOK {
		t.Errorf("refresh with the new key: %v", out)
	}
}

// TestRewrapAndRestart changes the master key as the manual says.
func TestRewrapAndRestart(t *testing.T) {
	s := startServer(t)
	before := s.Token(pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", s.Code(testAppID, "alice"), "scope", "openid profile wechat orders.read"))
	if before.Status != http.StatusOK {
		t.Fatal(before)
	}
	info := s.UserInfo(before.str("access_token"))
	old, err := os.ReadFile(s.Dir + "/data/master.key")
	if err != nil {
		t.Fatal(err)
	}
	fresh := seal.GenerateKey() + "\n"

	s.writeFile("data/master.key", fresh+string(old))
	s.stop()
	s.start()
	if !s.Active(before.str("access_token")) {
		t.Fatal("the token is dead after a restart with a second master key")
	}
	code, out, errs := runCLI(t, "keys", "rewrap", "--socket", s.Socket())
	if code != 0 || !strings.Contains(out, "Sealed anew") || strings.Contains(out, " 0 key(s)") || strings.Contains(out, " 0 value(s)") {
		t.Fatalf("keys rewrap: code %d, %s%s", code, out, errs)
	}
	code, out, _ = runCLI(t, "keys", "rewrap", "--json", "--socket", s.Socket())
	var again web.RewrapResponse
	if err := json.Unmarshal([]byte(out), &again); code != 0 || err != nil || again != (web.RewrapResponse{}) {
		t.Errorf("second rewrap: code %d, %v, %s", code, err, out)
	}

	s.writeFile("data/master.key", fresh)
	s.stop()
	s.start()
	if !s.Active(before.str("access_token")) {
		t.Error("the access token is dead")
	}
	if got := s.UserInfo(before.str("access_token")); string(got.Body) != string(info.Body) || info.str("wechat_openid") == "" {
		t.Errorf("UserInfo was %v and is %v", info, got)
	}
	if out := s.Refresh(before.str("refresh_token")); out.Status != http.StatusOK {
		t.Errorf("refresh: %v", out)
	}
	if a, b := s.UserInfo(s.SignIn("alice").str("access_token")).str("sub"), info.str("sub"); a != b {
		t.Errorf("the user is %q after the change and was %q", a, b)
	}
	s.stop()

	s.writeFile("data/master.key", string(old))
	if err := s.startErr(); err == nil || !strings.Contains(err.Error(), "master key") {
		t.Errorf("starting with the retired master key: %v", err)
	}
}

// TestThreat85AdminSurface asks the public listener for everything that
// belongs on the other ones, in spellings that a proxy or router could fold.
func TestThreat85AdminSurface(t *testing.T) {
	s := startServer(t)
	host := strings.TrimPrefix(s.Issuer, "http://")
	raw := func(line string) string {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", line, testAdminToken)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return fmt.Sprintf("%d %s", resp.StatusCode, body)
	}
	for _, path := range []string{
		"/admin/keys", "/admin", "/admin/", "//admin/keys", "///admin/keys", "/%61dmin/keys", "/%2561dmin/keys",
		"/admin;x/keys", "/admin%2fkeys", "/..;/admin/keys", "/x/../admin/keys", "/./admin/keys", "/oauth2/..%2fadmin/keys",
		"/oauth2/token/../../admin/keys", "/ADMIN/keys", "/admin/keys/", "/admin\\keys", "/metrics", "//metrics", "/%6detrics",
		"/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "http://127.0.0.1:8081/admin/keys",
	} {
		for _, method := range []string{"GET", "POST"} {
			if got := raw(method + " " + path); !strings.HasPrefix(got, "404 ") || strings.Contains(got, "kid") {
				t.Errorf("public %s %s: %s", method, path, got)
			}
		}
	}
	for _, path := range []string{web.AdminKeysRotate, web.AdminKeysRevoke, web.AdminKeysRewrap} {
		if got := raw("POST " + path); !strings.HasPrefix(got, "404 ") {
			t.Errorf("public POST %s: %s", path, got)
		}
	}
}

func TestThreat85AdminToken(t *testing.T) {
	s := startServer(t)
	routes := []struct{ method, path string }{
		{http.MethodGet, web.AdminKeys},
		{http.MethodPost, web.AdminKeysRotate},
		{http.MethodPost, web.AdminKeysRevoke},
		{http.MethodPost, web.AdminKeysRewrap},
	}
	if out := s.Do(http.MethodGet, s.Admin+web.AdminKeys, nil, bearer(testAdminToken)); out.Status != http.StatusOK || len(out.JSON) == 0 {
		t.Fatalf("with the token: %v", out)
	}
	kidBefore := s.currentKey(keys.ES256)
	wrong := []func(*http.Request){
		func(*http.Request) {},
		bearer(testAdminToken + "x"),
		bearer(strings.ToUpper(testAdminToken)),
		header("Authorization", "Basic "+testAdminToken),
		header("Authorization", testAdminToken),
		basic("admin", testAdminToken),
	}
	refusals, limited := 0, 0
	for i, edit := range wrong {
		for _, route := range routes[i%2:] {
			out := s.Do(route.method, s.Admin+route.path, nil, edit)
			switch out.Status {
			case http.StatusUnauthorized:
				refusals++
				if !strings.HasPrefix(out.Header.Get("WWW-Authenticate"), "Bearer") {
					t.Errorf("no challenge: %v", out.Header)
				}
			case http.StatusTooManyRequests:
				limited++
				if out.Header.Get("Retry-After") == "" {
					t.Errorf("no Retry-After: %v", out.Header)
				}
			default:
				t.Errorf("%s %s with a wrong token: %v", route.method, route.path, out)
			}
		}
	}
	if refusals < 8 || refusals > 11 || limited == 0 {
		t.Errorf("%d wrong tokens were looked at and %d refused unseen; the limit is 10 a minute", refusals, limited)
	}
	if out := s.Do(http.MethodGet, s.Admin+web.AdminKeys+"?access_token="+testAdminToken, nil); out.Status != http.StatusTooManyRequests {
		t.Errorf("token in the URL: %v", out)
	}
	// Another address is not locked out by that.
	req, err := http.NewRequest(http.MethodGet, s.Admin+web.AdminKeys, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testAdminToken)
	resp, err := clientAt("127.0.0.2").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("from another address: %d", resp.StatusCode)
	}
	if s.currentKey(keys.ES256) != kidBefore {
		t.Error("an unauthenticated request changed the keys")
	}
	if len(s.Logs.Events("admin.denied")) < refusals {
		t.Errorf("%d denials, %d in the log", refusals, len(s.Logs.Events("admin.denied")))
	}
}

func TestThreat85AdminListeners(t *testing.T) {
	s := startServer(t)
	for path, want := range map[string][3]int{ // public, TCP with token, socket
		"/healthz":          {200, 200, 200},
		"/readyz":           {200, 200, 200},
		"/metrics":          {404, 200, 200},
		"/admin/keys":       {404, 200, 200},
		"/debug/pprof/":     {404, 404, 200},
		"/debug/pprof/heap": {404, 404, 200},
		"/debug/vars":       {404, 404, 404},
		"/oauth2/token":     {405, 404, 404},
	} {
		got := [3]int{
			s.Do(http.MethodGet, s.Issuer+path, nil, bearer(testAdminToken)).Status,
			s.Do(http.MethodGet, s.Admin+path, nil, bearer(testAdminToken)).Status,
			s.overSocket(http.MethodGet, path, "").Status,
		}
		if got != want {
			t.Errorf("%s: public, admin, socket answer %v, want %v", path, got, want)
		}
	}
	for _, body := range []string{"{", `{"id":1}`, `{"id":"x","more":1}`, `[]`, `"x"`} {
		if out := s.overSocket(http.MethodPost, web.AdminKeysRevoke, body); out.Status != http.StatusBadRequest {
			t.Errorf("revoke %s: %v", body, out)
		}
	}
	if out := s.overSocket(http.MethodPost, web.AdminKeysRevoke, `{"id":"`+strings.Repeat("x", 1<<17)+`"}`); out.Status/100 != 4 {
		t.Errorf("huge body: %v", out)
	}
	info, err := os.Stat(s.Socket())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin socket: %v, %v", info.Mode(), err)
	}
}

func TestAdminAPIWithoutToken(t *testing.T) {
	s := startServer(t, replacing(", token_file: secrets/admin", ""))
	for _, edit := range []func(*http.Request){func(*http.Request) {}, bearer(""), bearer(testAdminToken)} {
		if out := s.Do(http.MethodGet, s.Admin+web.AdminKeys, nil, edit); out.Status != http.StatusNotFound {
			t.Errorf("admin API over TCP without a configured token: %v", out)
		}
	}
	if out := s.overSocket(http.MethodGet, web.AdminKeys, ""); out.Status != http.StatusOK {
		t.Errorf("over the socket: %v", out)
	}
}
