package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// manyPhones makes this machine a trusted proxy, so that a test can play many
// phones, each by its own address, while the production limits stay on.
func manyPhones() serverOption {
	return withConfig(func(yaml string) string { return "trusted_proxies: [127.0.0.1/32]\n" + yaml })
}

var phones atomic.Uint32

// phone makes a request come from an address that nobody used before.
func phone() func(*http.Request) {
	n := phones.Add(1)
	return from(netip.AddrFrom4([4]byte{11, byte(n >> 8), byte(n), 7}))
}

// from makes a request come from an address, at a server with manyPhones.
func from(address netip.Addr) func(*http.Request) {
	return header("X-Forwarded-For", address.String())
}

func signInForm(code string, more ...string) url.Values {
	return pairs(append([]string{"grant_type", "wechat_jscode", "client_id", testClient, "js_code", code}, more...)...)
}

func refreshForm(token string, more ...string) url.Values {
	return pairs(append([]string{"grant_type", "refresh_token", "client_id", testClient, "refresh_token", token}, more...)...)
}

// signIn signs a user in to the default client from an address of their own.
func signIn(s *testServer, user string, more ...string) answer {
	s.t.Helper()
	out := s.Token(signInForm(s.Code(testAppID, user), more...), phone())
	if out.Status != http.StatusOK {
		s.t.Fatalf("sign-in of %s: %v", user, out)
	}
	return out
}

// refresh redeems a refresh token at the default client.
func refresh(s *testServer, token string, more ...string) answer {
	s.t.Helper()
	return s.Token(refreshForm(token, more...), phone())
}

// revoke revokes a token as the default client.
func revoke(s *testServer, token string) answer {
	s.t.Helper()
	return s.Do(http.MethodPost, s.Issuer+"/oauth2/revoke", pairs("client_id", testClient, "token", token), phone())
}

// introspect asks as any client.
func introspect(s *testServer, token string, edits ...func(*http.Request)) answer {
	s.t.Helper()
	return s.Do(http.MethodPost, s.Issuer+"/oauth2/introspect", pairs("token", token), append(edits, phone())...)
}

// userInfoOK reports whether UserInfo accepts the token. It is the check to
// use where many refusals are expected: introspection limits those.
func userInfoOK(s *testServer, token string) bool {
	s.t.Helper()
	out := s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(token), phone())
	if out.Status != http.StatusOK && out.Status != http.StatusUnauthorized {
		s.t.Errorf("UserInfo: %v", out)
	}
	return out.Status == http.StatusOK
}

// refused checks an error answer: its status and code, and what all of them
// have in common.
func refused(t testing.TB, out answer, status int, code string) {
	t.Helper()
	if out.Status != status || out.str("error") != code {
		t.Errorf("got %v, want %d %s", out, status, code)
		return
	}
	if out.Header.Get("Cache-Control") != "no-store" || out.Header.Get("Content-Type") != "application/json" {
		t.Errorf("headers of %v: %v", out, out.Header)
	}
	if out.str("error_description") == "" || out.Header.Get("X-Request-Id") == "" {
		t.Errorf("%v does not explain itself", out)
	}
}

// parallel runs do n times at once and waits for all.
func parallel(n int, do func(i int)) {
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			do(i)
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
}

// distinct counts different values.
func distinct(values []string) int {
	set := map[string]bool{}
	for _, value := range values {
		set[value] = true
	}
	return len(set)
}

// jwtPart decodes one part of a compact JWS: 0 the header, 1 the claims.
func jwtPart(t testing.TB, token string, part int) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("not a compact JWS: %q", token)
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[part])
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// claims decodes the claims of a token without verifying it.
func claims(t testing.TB, token string) map[string]any { t.Helper(); return jwtPart(t, token, 1) }

// countUsers counts the users in the store.
func countUsers(s *testServer) int {
	s.t.Helper()
	n, cursor := 0, ""
	for {
		users, next, err := s.parts.store.PageUsers(context.Background(), cursor, 1000)
		if err != nil {
			s.t.Fatal(err)
		}
		if n += len(users); next == "" {
			return n
		}
		cursor = next
	}
}

// families are all refresh-token families in the store.
func families(s *testServer) (all []storage.Family) {
	s.t.Helper()
	for cursor := ""; ; {
		page, next, err := s.parts.store.PageFamilies(context.Background(), "", cursor, 1000)
		if err != nil {
			s.t.Fatal(err)
		}
		if all = append(all, page...); next == "" {
			return all
		}
		cursor = next
	}
}

// settled waits until the server's own start-up writes are over.
func settled(s *testServer) {
	s.t.Helper()
	last, since := s.parts.store.Stats().Commits, time.Now()
	eventually(s.t, "no more commits after the start", func() bool {
		if now := s.parts.store.Stats().Commits; now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 250*time.Millisecond
	})
}

// eventOf returns the log line with this event of the request that was
// answered with out.
func eventOf(s *testServer, out answer, event string) map[string]any {
	s.t.Helper()
	for _, line := range s.Logs.Events(event) {
		if line["request_id"] == out.Header.Get("X-Request-Id") {
			return line
		}
	}
	s.t.Errorf("no %s in the log for %v", event, out)
	return map[string]any{}
}

// reload replaces parts of config.yaml and waits until that is in force.
func reload(s *testServer, oldnew ...string) {
	s.t.Helper()
	before := len(s.Logs.Events("config.applied"))
	next := strings.NewReplacer(oldnew...).Replace(s.Config())
	if next == s.Config() {
		s.t.Fatalf("nothing of the configuration is replaced by %q", oldnew)
	}
	s.WriteConfig(next)
	eventually(s.t, "reload", func() bool { return len(s.Logs.Events("config.applied")) > before })
}
