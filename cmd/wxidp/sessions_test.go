package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/web"
)

func TestSessionsList(t *testing.T) {
	s := startServer(t, manyPhones())
	// Sign-ins are listed in order of their milliseconds.
	apart := func(tokens answer) answer { time.Sleep(2 * time.Millisecond); return tokens }
	first, second := apart(signIn(s, "alice")), apart(signIn(s, "alice"))
	other := apart(signIn(s, "bob"))
	mini2, err := s.signIn("shop-mini-2", testApp2, "carol", phone())
	if err != nil || mini2.Status != http.StatusOK {
		t.Fatal(mini2, err)
	}
	sid := func(tokens answer) string { return claims(t, tokens.str("access_token"))["sid"].(string) }
	if out := refresh(s, second.str("refresh_token")); out.Status != http.StatusOK {
		t.Fatal(out)
	}
	table := ctl(s, "sessions", "list")
	if head, _, _ := strings.Cut(table, "\n"); !strings.HasPrefix(head, "SID ") || strings.Count(table, "\n") != 5 {
		t.Errorf("%s", table)
	}
	if never, once := lineWith(table, sid(first)), lineWith(table, sid(second)); strings.Count(never, " - ") != 1 || strings.Count(once, " - ") != 0 {
		t.Errorf("last refresh:\n%s%s", never, once)
	}
	ctl(s, "sessions", "revoke", sid(first))
	for _, test := range []struct {
		args []string
		want []string
	}{
		{nil, []string{sid(second), sid(other), sid(mini2)}},
		{[]string{"--all"}, []string{sid(first) + " operator", sid(second), sid(other), sid(mini2)}},
		{[]string{"--user", sub(t, first)}, []string{sid(second)}},
		{[]string{"--user", sub(t, first), "--all"}, []string{sid(first), sid(second)}},
		{[]string{"--user", "wechat:" + testAppID + "/" + s.Sim.OpenID(testAppID, "bob")}, []string{sid(other)}},
		{[]string{"--client", "shop-mini-2"}, []string{sid(mini2)}},
		{[]string{"--client", "nobody"}, nil},
		{[]string{"--limit", "2"}, []string{sid(second), sid(other)}},
	} {
		out := ctl(s, append([]string{"sessions", "list", "--json"}, test.args...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if out == "" {
			lines = nil
		}
		if len(lines) != len(test.want) {
			t.Errorf("%v: %s", test.args, out)
			continue
		}
		for i, want := range test.want {
			for part := range strings.FieldsSeq(want) {
				if !strings.Contains(lines[i], `"`+part+`"`) {
					t.Errorf("%v: line %d is %s, want %s", test.args, i, lines[i], want)
				}
			}
		}
	}
	noneOf(t, "a listing", ctl(s, "sessions", "list", "--all", "--json"), first.str("refresh_token"), second.str("refresh_token"))
	for _, body := range []string{`{"after":"x"}`, `{"after":"` + strings.Repeat("A", 23) + `"}`, `{"x":1}`} {
		if out := s.overSocket(http.MethodPost, web.AdminSessions, body); out.Status != http.StatusBadRequest {
			t.Errorf("%s: %v", body, out)
		}
	}
}

func TestSessionsRevokeRefusals(t *testing.T) {
	s := startServer(t, manyPhones())
	tokens := signIn(s, "alice")
	for _, test := range []struct {
		want string
		args []string
	}{
		{"exactly one", nil},
		{"exactly one", []string{"x", "--client", "y"}},
		{"exactly one", []string{"--user", "x", "--client", "y"}},
		{"no sign-in with this sid", []string{"x"}},
		{"no sign-in with this sid", []string{"AAAAAAAAAAAAAAAAAAAAAA"}},
		{"too long", []string{"--client", strings.Repeat("x", 1000)}},
	} {
		ctlFails(s, test.want, append([]string{"sessions", "revoke"}, test.args...)...)
	}
	for _, body := range []string{`{}`, `{"sid":"x","who":"y"}`, `{"who":"x","client_id":"y"}`, `{"all":true}`} {
		if out := s.overSocket(http.MethodPost, web.AdminSessionsRevoke, body); out.Status != http.StatusBadRequest {
			t.Errorf("%s: %v", body, out)
		}
	}
	if out := ctl(s, "sessions", "revoke", "--client", "shop-mimi"); !strings.Contains(out, "check the spelling") {
		t.Errorf("%s", out)
	}
	signedIn(s, "all of that", tokens)
}

// TestRevokedClientStaysSo: a client that is taken out of the configuration
// would come back with its sign-ins, unless they were ended.
func TestRevokedClientStaysSo(t *testing.T) {
	s := startServer(t, manyPhones())
	tokens := signIn(s, "alice")
	reload(s, "client_id: "+testClient+"\n", "client_id: elsewhere\n")
	if out := ctl(s, "sessions", "revoke", "--client", testClient); !strings.Contains(out, "No client of that name is configured now") {
		t.Errorf("%s", out)
	}
	reload(s, "client_id: elsewhere\n", "client_id: "+testClient+"\n")
	dead(s, "a client that came back", tokens)
}
