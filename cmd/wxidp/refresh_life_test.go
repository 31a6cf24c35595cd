package main

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// TestThreat30Lifetimes: an idle sign-in ends, and so does a busy one.
func TestThreat30Lifetimes(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withConfig(func(yaml string) string {
		return "tokens: { refresh_token_idle_lifetime: 1s, refresh_token_absolute_lifetime: 2s, refresh_grace: 0s }\n" + yaml
	}))
	idle := signIn(s, "idle")
	start := time.Now()
	busy := signIn(s, "busy")
	if in, _ := idle.JSON["expires_in"].(float64); in > 1 {
		t.Errorf("the access token lives %v s, its family 1 s", in)
	}
	token := busy.str("refresh_token")
	for time.Since(start) < 2100*time.Millisecond {
		asked := time.Now()
		out := refresh(s, token)
		if out.Status == 200 {
			token = out.str("refresh_token")
		} else if asked.Sub(start) < 900*time.Millisecond {
			t.Fatalf("%s after the sign-in: %v", asked.Sub(start), out)
		}
		time.Sleep(50 * time.Millisecond)
	}
	refused(t, refresh(s, idle.str("refresh_token")), 400, "invalid_grant")
	out := refresh(s, token)
	refused(t, out, 400, "invalid_grant")
	if line := eventOf(s, out, "token.denied"); line["reason"] != "expired" && line["reason"] != "family_missing" {
		t.Errorf("log line %v", line)
	}
	if userInfoOK(s, busy.str("access_token")) || userInfoOK(s, idle.str("access_token")) {
		t.Error("an access token outlives its family")
	}
}

// TestThreat21RefreshRevokeRace: once a revocation is acknowledged, nothing of
// the family is active, minted before or after.
func TestThreat21RefreshRevokeRace(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	var workers sync.WaitGroup
	work := make(chan int)
	for range 4 {
		workers.Go(func() {
			for round := range work {
				raceOnce(t, s, round)
			}
		})
	}
	for round := range rounds {
		work <- round
	}
	close(work)
	workers.Wait()
}

func raceOnce(t *testing.T, s *testServer, round int) {
	try := func(path string, form map[string][]string) answer {
		out, err := s.try(http.MethodPost, s.Issuer+path, form, phone())
		if err != nil {
			t.Error(err)
		}
		return out
	}
	first := try("/oauth2/token", signInForm(s.Code(testAppID, fmt.Sprintf("user-%d", round))))
	if first.Status != 200 {
		t.Errorf("sign-in: %v", first)
		return
	}
	access := []string{first.str("access_token")}
	latest := first.str("refresh_token")
	started, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := range 1000 {
			out := try("/oauth2/token", refreshForm(latest))
			if i == round%3 {
				close(started)
			}
			if out.Status != 200 {
				if i < round%3 {
					t.Errorf("refresh before the revocation: %v", out)
					close(started)
				}
				return
			}
			latest = out.str("refresh_token")
			access = append(access, out.str("access_token"))
		}
		t.Error("a revoked family was refreshed 1000 times")
	}()
	<-started
	if out := try("/oauth2/revoke", pairs("client_id", testClient, "token", first.str("refresh_token"))); out.Status != 200 {
		t.Errorf("revoke: %v", out)
	}
	late := try("/oauth2/token", refreshForm(first.str("refresh_token")))
	<-done
	later := try("/oauth2/token", refreshForm(latest))
	if late.Status != 400 || later.Status != 400 {
		t.Errorf("refreshes after the revocation: %v, %v", late, later)
	}
	for i, token := range access {
		out, err := s.try(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(token), phone())
		if err != nil || out.Status != http.StatusUnauthorized {
			t.Errorf("round %d: access token %d of %d after the revocation: %v %v", round, i, len(access), out, err)
		}
	}
}
