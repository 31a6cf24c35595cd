package main

import (
	"net/http"
	"testing"
	"time"

	"github.com/wxidp/wxidp/wechat/simulator"
)

// A sign-in that is repeated at another node while the first is under way is
// one sign-in, as it is after the first has ended.
func TestIdempotentAcrossNodes(t *testing.T) {
	t.Parallel()
	a, b := startTwoNodes(t, manyPhones())
	inject(t, a, simulator.Fault{Kind: simulator.FaultDelay, Delay: 700 * time.Millisecond, Count: 1})
	form := signInForm(a.Code(testAppID, "alice"))
	send := func(s *testServer, key string) answer {
		out, err := s.try(http.MethodPost, s.Issuer+"/oauth2/token", form, header("Idempotency-Key", key), phone())
		if err != nil {
			t.Error(err)
		}
		return out
	}
	first := make(chan answer, 1)
	go func() { first <- send(a, "tap") }()
	eventually(t, "the first is at WeChat", func() bool { return a.Sim.RequestCount() == 1 })
	tokens, access := make([]string, 10), make([]string, 10)
	parallel(10, func(i int) {
		out := send(b, "tap")
		if out.Status != http.StatusOK {
			t.Errorf("%v", out)
		}
		tokens[i], access[i] = out.str("refresh_token"), out.str("access_token")
	})
	out := <-first
	tokens = append(tokens, out.str("refresh_token"), send(b, "tap").str("refresh_token"), send(a, "tap").str("refresh_token"))
	if out.Status != http.StatusOK || distinct(tokens) != 1 || distinct(access) != 10 {
		t.Errorf("%v: %d refresh tokens, %d access tokens", out, distinct(tokens), distinct(access))
	}
	if len(families(b)) != 1 || b.Sim.RequestCount() != 0 {
		t.Errorf("%d families, %d calls to the second node's WeChat", len(families(b)), b.Sim.RequestCount())
	}
	// The same code under another key is a replay.
	start := time.Now()
	refused(t, send(b, "other"), 400, "invalid_grant")
	if waited := time.Since(start); waited < 2*time.Second {
		t.Errorf("a replay was refused after %v, before another node could have ended", waited)
	}
}
