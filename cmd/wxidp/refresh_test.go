package main

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestThreat20ParallelRefresh: fifty refreshes of one token at once all
// succeed, with one successor.
func TestThreat20ParallelRefresh(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	token := signIn(s, "alice").str("refresh_token")
	for range 3 {
		settled(s)
		commits := s.parts.store.Stats().Operations
		successors, access := make([]string, 50), make([]string, 50)
		parallel(50, func(i int) {
			out, err := s.try(http.MethodPost, s.Issuer+"/oauth2/token", refreshForm(token), phone())
			if err != nil || out.Status != 200 {
				t.Errorf("refresh: %v %v", out, err)
			}
			successors[i], access[i] = out.str("refresh_token"), out.str("access_token")
		})
		if distinct(successors) != 1 || distinct(access) != 50 || successors[0] == token {
			t.Fatalf("%d successors and %d access tokens", distinct(successors), distinct(access))
		}
		if got := s.parts.store.Stats().Operations - commits; got != 1 {
			t.Errorf("%d writes for one rotation", got)
		}
		for _, accessToken := range access {
			if !userInfoOK(s, accessToken) {
				t.Fatal("an access token of a parallel refresh is inactive")
			}
		}
		token = successors[0]
	}
	if len(s.Logs.Events("token.reuse_detected")) != 0 {
		t.Error("an honest client was taken for a thief")
	}
}

// TestThreat18Grace: a lost answer costs nothing.
func TestThreat18Grace(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	first := signIn(s, "alice")
	answered := refresh(s, first.str("refresh_token"))
	for range 3 {
		again := refresh(s, first.str("refresh_token"))
		if again.Status != 200 || again.str("refresh_token") != answered.str("refresh_token") || again.str("access_token") == answered.str("access_token") {
			t.Fatalf("repeat: %v\nfirst: %v", again, answered)
		}
		if !userInfoOK(s, again.str("access_token")) {
			t.Error("the repeat's access token is inactive")
		}
	}
	if results := s.Logs.Events("token.issued"); len(results) != 5 || results[4]["result"] != "repeated" || results[1]["result"] != "ok" {
		t.Errorf("log: %v", results)
	}
	if family := families(s)[0]; family.Generation != 1 {
		t.Errorf("generation %d after one rotation", family.Generation)
	}
}

// died checks that a family is over: its tokens, old and new, and that exactly
// one event told of it.
func died(t *testing.T, s *testServer, successorUsed bool, refreshTokens, accessTokens []string) {
	t.Helper()
	for i, token := range accessTokens {
		if userInfoOK(s, token) || s.Active(token) {
			t.Errorf("access token %d of a revoked family is active", i)
		}
	}
	for _, token := range refreshTokens {
		refused(t, refresh(s, token), 400, "invalid_grant")
	}
	events := s.Logs.Events("token.reuse_detected")
	if len(events) != 1 {
		t.Fatalf("%d token.reuse_detected events", len(events))
	}
	e := events[0]
	if e["successor_used"] != successorUsed || e["client_id"] != testClient || e["sub"] == "" || e["sid"] == "" || e["ip"] == "" || e["request_id"] == "" {
		t.Errorf("event %v", e)
	}
}

// TestThreat19GraceDepth: within the grace, but its successor was used.
func TestThreat19GraceDepth(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	other := signIn(s, "alice")
	r0 := signIn(s, "alice")
	r1 := refresh(s, r0.str("refresh_token"))
	r2 := refresh(s, r1.str("refresh_token"))
	out := refresh(s, r0.str("refresh_token"))
	refused(t, out, 400, "invalid_grant")
	died(t, s, true, []string{r0.str("refresh_token"), r1.str("refresh_token"), r2.str("refresh_token")},
		[]string{r0.str("access_token"), r1.str("access_token"), r2.str("access_token")})
	if !userInfoOK(s, other.str("access_token")) || refresh(s, other.str("refresh_token")).Status != 200 {
		t.Error("another sign-in of the user died too")
	}
	if line := eventOf(s, out, "token.denied"); line["reason"] != "reuse" {
		t.Errorf("log line %v", line)
	}
}

// TestThreat17ReuseAfterGrace: a token that comes again too late ends its family.
func TestThreat17ReuseAfterGrace(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withConfig(func(yaml string) string { return "tokens: { refresh_grace: 1s }\n" + yaml }))
	r0 := signIn(s, "alice")
	r1 := refresh(s, r0.str("refresh_token"))
	time.Sleep(1100 * time.Millisecond)
	if !userInfoOK(s, r1.str("access_token")) {
		t.Fatal("inactive before the reuse")
	}
	refused(t, refresh(s, r0.str("refresh_token")), 400, "invalid_grant")
	died(t, s, false, []string{r0.str("refresh_token"), r1.str("refresh_token")}, []string{r0.str("access_token"), r1.str("access_token")})
}

// TestStrictRotation: refresh_grace: 0 forgives nothing.
func TestStrictRotation(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withConfig(func(yaml string) string { return "tokens: { refresh_grace: 0s }\n" + yaml }))
	r0 := signIn(s, "alice")
	r1 := refresh(s, r0.str("refresh_token"))
	if r1.Status != 200 {
		t.Fatal(r1)
	}
	refused(t, refresh(s, r0.str("refresh_token")), 400, "invalid_grant")
	died(t, s, false, []string{r1.str("refresh_token")}, []string{r0.str("access_token"), r1.str("access_token")})
}

// TestThreat27ForgedRefreshToken: every other spelling is refused and the real
// token does not notice.
func TestThreat27ForgedRefreshToken(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	token := signIn(s, "alice").str("refresh_token")
	used := token
	token = refresh(s, used).str("refresh_token")

	var forged []string
	for i := range token {
		for _, c := range []byte{'A', '_', '=', '~', ' ', token[i] ^ 1, token[i] ^ 0x20} {
			if c == token[i] || c < ' ' || c > '~' {
				continue
			}
			forged = append(forged, token[:i]+string(c)+token[i+1:])
			if c != 'A' && i%5 != 0 { // all positions, some more than once
				break
			}
		}
	}
	body := strings.TrimPrefix(token, "wxrt_")
	forged = append(forged, token[:len(token)-1], token+"A", token+"=", token+"==", token+" ", " "+token, token+"\r\n", token+"\n",
		token[:20]+"\n"+token[20:], token[:20]+"\r\n"+token[20:], token[:20]+" "+token[20:], body, "WXRT_"+body, "wxrt_"+token, "wxrt_", "wxrt__"+body,
		token+"."+token, strings.Repeat(token, 100), "wxrt_"+strings.Repeat("A", 76), "wxrt_"+strings.Repeat("_", 76), "refresh", "null",
		strings.Replace(token, "_", "%5F", 1), used[:len(used)-1])
	if len(forged) < 100 {
		t.Fatalf("only %d forgeries", len(forged))
	}
	for _, f := range forged {
		if out := refresh(s, f); out.Status != 400 || out.str("error") != "invalid_grant" {
			t.Errorf("%q: %v", f, out)
		}
		revoke(s, f)
	}
	if empty := refresh(s, ""); empty.Status != 400 || empty.str("error") != "invalid_request" {
		t.Errorf("empty token: %v", empty)
	}
	if len(s.Logs.Events("token.reuse_detected"))+len(s.Logs.Events("token.revoked")) != 0 {
		t.Error("a forgery was taken for a token of the family")
	}
	if out := refresh(s, token); out.Status != 200 {
		t.Errorf("the real token after %d forgeries: %v", len(forged), out)
	}
	if strings.Contains(s.Logs.String(), body) {
		t.Error("the log holds a refresh token")
	}
}

// TestThreat16WrongClient: another client's refresh token is refused and lives.
func TestThreat16WrongClient(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	r0 := signIn(s, "alice")
	r1 := refresh(s, r0.str("refresh_token"))
	for _, token := range []string{r0.str("refresh_token"), r1.str("refresh_token")} {
		out := s.Token(pairs("grant_type", "refresh_token", "client_id", "shop-mini-2", "refresh_token", token), phone())
		refused(t, out, 400, "invalid_grant")
		if line := eventOf(s, out, "token.misuse"); line["client_id"] != "shop-mini-2" || line["owner"] != testClient {
			t.Errorf("log line %v", line)
		}
	}
	if out := refresh(s, r1.str("refresh_token")); out.Status != 200 {
		t.Errorf("the owner's refresh: %v", out)
	}
	if len(s.Logs.Events("token.reuse_detected")) != 0 {
		t.Error("reuse was seen before the client was checked")
	}
}
