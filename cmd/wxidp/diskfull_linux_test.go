package main

import (
	"fmt"
	"math"
	"net/http"
	"testing"

	"golang.org/x/sys/unix"
)

// limitFileSize lets a process write no file beyond this size, which its
// writes meet as they would meet a full disk.
func limitFileSize(t testing.TB, pid int, size uint64) {
	t.Helper()
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: math.MaxUint64}, nil); err != nil {
		t.Fatalf("prlimit: %v", err)
	}
}

// TestThreat43FullDisk lets no page be written any more.
func TestThreat43FullDisk(t *testing.T) {
	aboutDataFile(t)
	s := prepareServer(t, withoutLimits())
	c := serveChild(t, s)
	kept, leaving := s.SignIn("kept"), s.SignIn("leaving")
	backend := s.Token(pairs("grant_type", "client_credentials"), basic(testBackend, testBackendKey))
	limitFileSize(t, c.cmd.Process.Pid, 8192)

	unavailable := func(what string, out answer) {
		t.Helper()
		if out.Status != http.StatusServiceUnavailable || out.str("error") != "temporarily_unavailable" {
			t.Errorf("%s: %v", what, out)
			return
		}
		retryAfter(t, out)
	}
	for range 3 {
		out, err := s.signIn(testClient, testAppID, "stranger")
		if err != nil {
			t.Fatal(err)
		}
		unavailable("sign-in", out)
		unavailable("refresh", s.Refresh(kept.str("refresh_token")))
		unavailable("revocation of a refresh token", s.revoke(leaving.str("refresh_token")))
		unavailable("revocation of an access token", s.revoke(leaving.str("access_token")))
	}
	// Reading goes on as if nothing had happened.
	if !s.Active(kept.str("access_token")) || !s.Active(leaving.str("access_token")) || !s.Active(backend.str("access_token")) {
		t.Error("introspection: a token is not active")
	}
	if out := s.UserInfo(kept.str("access_token")); out.Status != http.StatusOK {
		t.Errorf("UserInfo: %v", out)
	}
	for _, path := range []string{"/.well-known/jwks.json", "/.well-known/openid-configuration", "/healthz"} {
		if out := s.Do(http.MethodGet, s.Issuer+path, nil); out.Status != http.StatusOK {
			t.Errorf("%s: %v", path, out)
		}
	}
	if out := s.Token(pairs("grant_type", "client_credentials"), basic(testBackend, testBackendKey)); out.Status != http.StatusOK {
		t.Errorf("client credentials: %v", out)
	}
	if n := len(c.Stdout.Events("storage.full")); n != 1 {
		t.Errorf("storage.full is logged %d times", n)
	}

	s.makeRoom(c)
	again := s.Refresh(kept.str("refresh_token"))
	if again.Status != http.StatusOK || !s.Active(again.str("access_token")) {
		t.Errorf("the refresh token that was refused: %v", again)
	}
	if out := s.revoke(leaving.str("refresh_token")); out.Status != http.StatusOK || s.Active(leaving.str("access_token")) {
		t.Errorf("the revocation that was refused: %v", out)
	}
	// What is on disk is whole: a killed and restarted server knows it all.
	c.Kill()
	c = serveChild(t, s)
	if !s.Active(again.str("access_token")) || s.Active(leaving.str("access_token")) {
		t.Error("after a restart the store is not what it was")
	}
	if out := s.Refresh(again.str("refresh_token")); out.Status != http.StatusOK {
		t.Errorf("refresh after a restart: %v", out)
	}
	checkLogLines(t, c.Stdout.String())
}

// makeRoom ends the limit and waits until writes work again by themselves.
func (s *testServer) makeRoom(c *child) {
	s.t.Helper()
	limitFileSize(s.t, c.cmd.Process.Pid, math.MaxUint64)
	eventually(s.t, "sign-ins work again without a restart", func() bool {
		out, err := s.signIn(testClient, testAppID, "stranger")
		return err == nil && out.Status == http.StatusOK
	})
	if c.Gone() {
		s.t.Fatal("the process ended")
	}
}

// TestThreat43NearlyFullDisk is at the edge: what needs a page more is refused
// and what finds one passes. Either way the answer must be the truth.
func TestThreat43NearlyFullDisk(t *testing.T) {
	aboutDataFile(t)
	s := prepareServer(t, withoutLimits())
	c := serveChild(t, s)
	type signedIn struct{ access, refresh string }
	var kept []signedIn
	limitFileSize(t, c.cmd.Process.Pid, 256<<10)
	refusals := 0
	for i := 0; refusals < 30; i++ {
		if i == 3000 {
			t.Fatalf("3000 sign-ins met a full disk %d times", refusals)
		}
		out, err := s.signIn(testClient, testAppID, fmt.Sprintf("user-%d", i))
		if err != nil {
			t.Fatal(err)
		}
		switch out.Status {
		case http.StatusOK:
			kept = append(kept, signedIn{out.str("access_token"), out.str("refresh_token")})
		case http.StatusServiceUnavailable:
			refusals++
		default:
			t.Fatalf("sign-in: %v", out)
		}
	}
	dead := map[string]bool{} // access tokens, by what was acknowledged
	for i, family := range kept[len(kept)-20:] {
		var out answer
		if i%2 == 0 {
			out = s.revoke(family.refresh)
			dead[family.access] = out.Status == http.StatusOK
		} else if out = s.Refresh(family.refresh); out.Status == http.StatusOK {
			family.access, family.refresh = out.str("access_token"), out.str("refresh_token")
			kept[len(kept)-20+i] = family
		}
		if out.Status != http.StatusOK && out.Status != http.StatusServiceUnavailable {
			t.Errorf("on a full disk: %v", out)
		}
	}
	check := func() {
		t.Helper()
		for _, family := range kept {
			if s.Active(family.access) == dead[family.access] {
				t.Errorf("revoked %v, and active %v", dead[family.access], !dead[family.access])
			}
		}
	}
	check()
	s.makeRoom(c)
	c.Kill()
	serveChild(t, s)
	check()
	for _, family := range kept[len(kept)-20:] {
		if out := s.Refresh(family.refresh); (out.Status == http.StatusOK) == dead[family.access] {
			t.Errorf("revoked %v, and the refresh says %v", dead[family.access], out)
		}
	}
}

// revoke revokes a token of the default client.
func (s *testServer) revoke(token string) answer {
	s.t.Helper()
	return s.Do(http.MethodPost, s.Issuer+"/oauth2/revoke", pairs("client_id", testClient, "token", token))
}
