package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/wxidp/wxidp/web"
)

// adminRoutes are the routes of the admin API about people and data, each with
// a body that it takes.
func adminRoutes(who string) []struct{ method, path, body string } {
	named := `{"who":"` + who + `"}`
	return []struct{ method, path, body string }{
		{http.MethodGet, web.AdminUsers, ""},
		{http.MethodPost, web.AdminUsersShow, named},
		{http.MethodPost, web.AdminUsersExport, named},
		{http.MethodPost, web.AdminUsersAdd, `{"external_id":"42"}`},
		{http.MethodPost, web.AdminUsersPassword, `{"who":"username:ming","password":"x"}`},
		{http.MethodPost, web.AdminUsersUnbind, `{"who":"username:ming","all":true}`},
		{http.MethodPost, web.AdminUsersDisable, named},
		{http.MethodPost, web.AdminUsersEnable, named},
		{http.MethodPost, web.AdminUsersMerge, `{"from":"external:42","into":"` + who + `","dry_run":true}`},
		{http.MethodPost, web.AdminUsersImport, `{"rows":[]}`},
		{http.MethodPost, web.AdminSessions, `{}`},
		{http.MethodPost, web.AdminSessionsRevoke, named},
		{http.MethodPost, web.AdminCompact, ""},
		{http.MethodGet, web.AdminBackup, ""},
		{http.MethodPost, web.AdminUsersErase, named},
	}
}

// TestThreat85PeopleAPI: the API about people is there on the socket and, with
// the token, on the admin listener; nowhere else and for nobody else.
func TestThreat85PeopleAPI(t *testing.T) {
	s := startServer(t, manyPhones())
	tokens := signIn(s, "alice")
	id := sub(t, tokens)
	ming := addAccount(s, "ming")
	if sub(t, tryBind(s, "ming", "ming", testPassword)) != ming {
		t.Fatal("not bound")
	}
	send := func(base, method, path, body string, edits ...func(*http.Request)) answer {
		t.Helper()
		return s.Do(method, base+path, nil, append(edits, func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		})...)
	}
	for _, route := range adminRoutes(id) {
		if out := send(s.Issuer, route.method, route.path, route.body, bearer(testAdminToken)); out.Status != http.StatusNotFound {
			t.Errorf("the public listener answers %s: %v", route.path, out.Status)
		}
	}
	// A few, since wrong tokens are limited.
	for _, route := range adminRoutes(id)[5:9] {
		if out := send(s.Admin, route.method, route.path, route.body); out.Status != http.StatusUnauthorized {
			t.Errorf("without the token %s answers %v", route.path, out.Status)
		}
	}
	if out := send(s.Admin, http.MethodGet, web.AdminBackup, "", bearer(testBackendKey)); out.Status != http.StatusUnauthorized {
		t.Errorf("with another secret the backup answers %v", out.Status)
	}
	if out := send(s.Admin, http.MethodGet, web.AdminUsers, "", bearer(tokens.str("access_token"))); out.Status != http.StatusUnauthorized {
		t.Errorf("with an access token the users answer %v", out.Status)
	}
	signedIn(s, "all of that", tokens)
	// A database is copied and vacuumed by its own means.
	elsewhere := func(path string) bool {
		return testsOnPostgres() && (path == web.AdminCompact || path == web.AdminBackup)
	}
	for _, route := range adminRoutes(id) {
		if elsewhere(route.path) {
			continue
		}
		if out := send(s.Admin, route.method, route.path, route.body, bearer(testAdminToken)); out.Status/100 != 2 {
			t.Errorf("with the token %s answers %v", route.path, out)
		} else if out.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be cached: %v", route.path, out.Header)
		}
	}
	for _, event := range []string{"users.export", "users.add", "users.password", "users.unbind", "users.disable", "users.enable", "users.erase", "sessions.revoke", "compact", "backup", "users.import"} {
		if elsewhere("/admin/" + event) {
			continue
		}
		if lines := s.Logs.Events("admin." + event); len(lines) != 1 || lines[0]["from"] != "127.0.0.1" {
			t.Errorf("audit of %s: %v", event, lines)
		}
	}
	dead(s, "an erased user", tokens)
	other := sub(t, signIn(s, "bob"))
	if sub(t, tryBind(s, "ming", "ming", "x")) != ming {
		t.Fatal("not bound again")
	}
	for _, route := range adminRoutes(other)[1:] {
		if elsewhere(route.path) {
			continue
		}
		if out := s.overSocket(route.method, route.path, strings.ReplaceAll(route.body, "42", "43")); out.Status/100 != 2 {
			t.Errorf("over the socket %s answers %v", route.path, out)
		}
	}
	checkLogLines(t, s.Logs.String())
}

func TestPeopleAPIRefusals(t *testing.T) {
	s := startServer(t)
	for _, route := range adminRoutes("external:nobody") {
		if route.method == http.MethodGet || route.path == web.AdminCompact {
			continue
		}
		for _, body := range []string{"{", `{"unknown":1}`, `[]`, `"x"`, `{}{}`, `{"who":1}`, `{"who":"` + strings.Repeat("x", 1<<17) + `"}`} {
			if out := s.overSocket(route.method, route.path, body); out.Status/100 != 4 || out.str("error") == "" {
				t.Errorf("%s %.20s: %v", route.path, body, out)
			}
		}
		if out := s.overSocket(http.MethodGet, route.path, ""); out.Status != http.StatusMethodNotAllowed && out.Status != http.StatusNotFound {
			t.Errorf("GET %s: %v", route.path, out.Status)
		}
	}
	rows := make([]map[string]string, 1001)
	many, err := json.Marshal(map[string]any{"rows": rows})
	if err != nil {
		t.Fatal(err)
	}
	if out := s.overSocket(http.MethodPost, web.AdminUsersImport, string(many)); out.Status != http.StatusBadRequest || !strings.Contains(out.str("error_description"), "1000") {
		t.Errorf("1001 rows: %v", out)
	}
	if out := s.overSocket(http.MethodPost, web.AdminUsersImport, `{"rows":[{"nickname":"`+strings.Repeat("x", web.MaxImportBody)+`"}]}`); out.Status != http.StatusBadRequest {
		t.Errorf("a huge body: %v", out.Status)
	}
	if out := s.overSocket(http.MethodGet, web.AdminUsers+"?after=%00%ff&limit=x", ""); out.Status != http.StatusOK {
		t.Errorf("a strange cursor: %v", out)
	}
}

// TestPeopleCommandsWithoutServer: each command says that no server answers.
func TestPeopleCommandsWithoutServer(t *testing.T) {
	s := prepareServer(t)
	file := writeRows(t, "users.csv", "external_id,appid,openid", "1,"+testAppID+",o1")
	for _, line := range []string{
		"users list", "users show external:1", "users disable external:1", "users enable external:1", "users erase external:1 --yes",
		"users export external:1", "users merge external:1 external:2", "users import " + file, "users add --external-id 1 --no-password",
		"users set-password external:1", "users unbind external:1", "sessions list", "sessions revoke x", "compact", "backup " + file + ".db",
	} {
		code, _, errs := runCLIWith(t, "password", append(strings.Fields(line), "--config", s.ConfigPath())...)
		if code != 1 || !strings.Contains(errs, "is it running") {
			t.Errorf("%s: code %d, %s", line, code, errs)
		}
	}
	for _, line := range []string{"users", "sessions", "users import", "backup", "users merge", "users unbind", "users set-password"} {
		code, out, _ := runCLIWith(t, "", append(strings.Fields(line), "--help")...)
		if code != 0 || !strings.Contains(out, "Examples:") {
			t.Errorf("%s --help: code %d, %s", line, code, out)
		}
	}
	for _, line := range []string{"users lst", "sessions x", "users show", "users merge x", "users unbind", "users unbind x --all --appid y", "backup", "compact x"} {
		if code, _, errs := runCLIWith(t, "", strings.Fields(line)...); code != 1 || errs == "" {
			t.Errorf("%s: code %d, %s", line, code, errs)
		}
	}
}
