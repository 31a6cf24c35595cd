package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// patch sends a JSON body to the account endpoint.
func patch(s *testServer, token, body string, edits ...func(*http.Request)) answer {
	s.t.Helper()
	return s.Do(http.MethodPatch, s.Issuer+"/account", nil, append([]func(*http.Request){bearer(token), func(r *http.Request) {
		r.Header.Set("Content-Type", "application/json")
		r.Body = io.NopCloser(strings.NewReader(body))
		r.ContentLength = int64(len(body))
	}, phone()}, edits...)...)
}

// TestAccountProfile: a user changes nickname and picture, and the claims
// follow.
func TestAccountProfile(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	token := signIn(s, "alice").str("access_token")
	before := s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(token), phone())

	commits := s.parts.store.Stats().Commits
	out := patch(s, token, `{"nickname":"小明","picture":"https://img.example/a.png"}`)
	if out.Status != http.StatusOK || out.str("nickname") != "小明" || out.str("name") != "小明" ||
		out.str("picture") != "https://img.example/a.png" || out.str("sub") != before.str("sub") || out.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%v", out)
	}
	if n := s.parts.store.Stats().Commits - commits; n != 1 {
		t.Errorf("%d commits", n)
	}
	after := s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(token), phone())
	if after.str("nickname") != "小明" || after.JSON["updated_at"].(float64) < before.JSON["updated_at"].(float64) {
		t.Errorf("UserInfo: %v", after)
	}
	// wx.request knows no PATCH
	byPost := func(r *http.Request) { r.Method = http.MethodPost }
	if out := patch(s, token, `{"nickname":"小红"}`, byPost); out.Status != http.StatusOK || out.str("nickname") != "小红" {
		t.Errorf("by POST: %v", out)
	}
	if out := patch(s, token, `{"nickname":"小明"}`, byPost, func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as a page of another site could send it
	}); out.Status != http.StatusUnsupportedMediaType {
		t.Errorf("by POST as a form: %v", out)
	}
	if out := patch(s, token, `{"nickname":"小明"}`); out.Status != http.StatusOK {
		t.Errorf("back: %v", out)
	}
	if out := patch(s, token, `{"picture":""}`); out.Status != http.StatusOK || out.JSON["picture"] != nil || out.str("nickname") != "小明" {
		t.Errorf("removing the picture: %v", out)
	}
	if logs := s.Logs.String(); strings.Contains(logs, "小明") || strings.Contains(logs, "小红") || strings.Contains(logs, "img.example") {
		t.Error("the log holds the profile")
	}
	if events := s.Logs.Events("account.changed"); len(events) != 4 || events[0]["sub"] != before.str("sub") {
		t.Errorf("events: %v", events)
	}
}

// TestAccountRefusals: nothing but the two values can be written, by nobody but
// the user (mass assignment, foreign tokens, bad values).
func TestAccountRefusals(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	tokens := signIn(s, "alice")
	token := tokens.str("access_token")
	for _, body := range []string{
		``, `{}`, `null`, `[]`, `"x"`, `{"nickname":1}`, `{"nickname":null}`, `{"nickname":"a"} {"nickname":"b"}`,
		`{"sub":"x"}`, `{"nickname":"a","phone_number":"+8613800138000"}`, `{"nickname":"a","roles":["admin"]}`, `{"nickname":"a","updated_at":1}`,
		`{"nickname":""}`, `{"nickname":"` + strings.Repeat("长", 65) + `"}`, `{"nickname":"a\u0000b"}`, `{"nickname":"a\u202Eb"}`,
		`{"picture":"http://img.example/a.png"}`, `{"picture":"javascript:alert(1)"}`, `{"picture":"https://user@img.example/"}`,
		`{"picture":"https://img.example/` + strings.Repeat("a", 3000) + `"}`,
	} {
		out := patch(s, token, body)
		if out.Status != http.StatusBadRequest || out.str("error") != "invalid_request" {
			t.Errorf("%.60s: %v", body, out)
		}
	}
	if out := patch(s, token, `{"nickname":"a"}`, header("Content-Type", "application/x-www-form-urlencoded")); out.Status != http.StatusUnsupportedMediaType || !strings.Contains(out.str("error_description"), "JSON") {
		t.Errorf("a form: %v", out)
	}
	if out := patch(s, token, `{"nickname":"`+strings.Repeat("a", 70_000)+`"}`); out.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("a huge body: %d", out.Status)
	}
	for name, bad := range map[string]string{
		"ID Token": tokens.str("id_token"), "refresh token": tokens.str("refresh_token"), "junk": "x",
		"machine": machineToken(s, pairs(), basic(testBackend, testBackendKey)).str("access_token"),
		"narrow":  signIn(s, "alice", "scope", "openid").str("access_token"),
	} {
		out := patch(s, bad, `{"nickname":"a"}`)
		want := http.StatusUnauthorized
		if name == "machine" || name == "narrow" {
			want = http.StatusForbidden
			if !strings.Contains(out.Header.Get("WWW-Authenticate"), `scope="profile"`) {
				t.Errorf("%s: WWW-Authenticate %q", name, out.Header.Get("WWW-Authenticate"))
			}
		}
		if out.Status != want {
			t.Errorf("%s: %v", name, out)
		}
	}
	info := s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(token), phone())
	if info.str("nickname") != "微信用户" {
		t.Errorf("the profile was changed: %v", info)
	}
}
