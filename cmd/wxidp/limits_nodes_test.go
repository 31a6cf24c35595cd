package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/wxidp/wxidp/web"
)

// startTwoNodes starts two servers on one PostgreSQL, whichever engine the
// other tests are about.
func startTwoNodes(t *testing.T, options ...serverOption) (a, b *testServer) {
	t.Helper()
	storage := replacing("STORAGE", fmt.Sprintf("storage: { driver: postgres, postgres: { dsn: %q } }", newDatabase(t)))
	a = startServer(t, append(options, storage)...)
	b = prepareServer(t, append(options, storage)...)
	masterKey, err := os.ReadFile(filepath.Join(a.Dir, "data", "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	b.writeFile("data/master.key", string(masterKey))
	b.start()
	return a, b
}

// What is used up at one node is used up at the other.
func TestLimitsHoldForTwoNodes(t *testing.T) {
	t.Parallel()
	a, b := startTwoNodes(t, behindProxy())
	const guesser = "203.0.113.9"
	guess := func(s *testServer, ip string) int {
		return s.Token(pairs("grant_type", "client_credentials"), basic(testBackend, "wrong"), forwardedFor(ip)).Status
	}
	for i := range 10 {
		if status := guess(a, guesser); status != http.StatusUnauthorized {
			t.Fatalf("guess %d at the first node: %d", i, status)
		}
	}
	if status := guess(a, guesser); status != http.StatusTooManyRequests {
		t.Fatalf("guess 11 at the first node: %d", status)
	}
	// Whoever has failed too often at the admin API is refused with the right
	// token, too: that shows, without using anything up, that b has heard of a.
	for range 10 {
		a.Do(http.MethodGet, a.Admin+web.AdminKeys, nil, bearer("wrong"))
	}
	eventually(t, "the second node has heard of the first", func() bool {
		return b.Do(http.MethodGet, b.Admin+web.AdminKeys, nil, bearer(testAdminToken)).Status == http.StatusTooManyRequests
	})
	if status := guess(b, guesser); status != http.StatusTooManyRequests {
		t.Errorf("guess 11 at the second node: %d", status)
	}
	if status := guess(b, "203.0.113.10"); status != http.StatusUnauthorized {
		t.Errorf("a guess from another address: %d", status)
	}
	if out := b.Token(pairs("grant_type", "client_credentials"), basic(testBackend, testBackendKey), forwardedFor(guesser)); out.Status != http.StatusOK {
		t.Errorf("the right secret: %v", out)
	}
	for _, s := range []*testServer{a, b} {
		for _, event := range []string{"limits.alone", "limits.unreadable"} {
			if lines := s.Logs.Events(event); len(lines) > 0 {
				t.Errorf("logged %v", lines)
			}
		}
	}
}
