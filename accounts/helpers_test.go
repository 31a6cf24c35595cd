package accounts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// What must never be seen in an error or log line.
const (
	canaryPassword = "canarypassword-7Q"
	canaryUsername = "canaryuser"
	canarySecret   = "canarysecret0123456789abcdef0123456789"
	canaryAnswer   = "canary words of the product"
)

// Quick costs: what is tested is not how long a hash takes.
var quickParams = argon2Params{memory: 64, passes: 1, lanes: 1}

func quickPasswords(o PasswordOptions) *Passwords {
	p := NewPasswords(o)
	p.setParams(quickParams)
	return p
}

func mustHash(t testing.TB, p *Passwords, password string) string {
	t.Helper()
	encoded, err := p.Hash(context.Background(), secret.New(password))
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// asError returns the *Error in err and checks that it shows no canary.
func asError(t testing.TB, err error, kind Kind) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %T (%v), want an *Error of kind %v", err, err, kind)
	}
	noCanary(t, fmt.Sprintf("%v %+v %#v %q", e, *e, *e, e))
	if e.Kind != kind {
		t.Fatalf("got %v, want kind %v", e, kind)
	}
	return e
}

func noCanary(t testing.TB, shown string) {
	t.Helper()
	for _, canary := range []string{canaryPassword, canaryUsername, canarySecret, canaryAnswer, "$argon2", "http://", "https://"} {
		if strings.Contains(shown, canary) {
			t.Errorf("%q shows in: %s", canary, shown)
		}
	}
}

// syncBuffer takes log lines of several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newLog() (*slog.Logger, *syncBuffer) {
	b := &syncBuffer{}
	return slog.New(slog.NewJSONHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})), b
}

// accountTable is the part of a store that is needed here, kept in memory.
type accountTable struct {
	mu       sync.Mutex
	accounts map[string]storage.Account
	lookups  int
	swaps    int
	fault    error // of everything
	swapErr  error
}

func (s *accountTable) AccountByUsername(_ context.Context, username string) (storage.Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups++
	if s.fault != nil {
		return storage.Account{}, s.fault
	}
	account, ok := s.accounts[username]
	if !ok {
		return storage.Account{}, storage.ErrNotFound
	}
	return account, nil
}

func (s *accountTable) SetPassword(_ context.Context, userID, oldHash, newHash string, endFamilies bool) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.swapErr != nil {
		return false, s.swapErr
	}
	for name, account := range s.accounts {
		if account.UserID == userID && account.PasswordHash == oldHash && !endFamilies {
			account.PasswordHash = newHash
			s.accounts[name] = account
			s.swaps++
			return true, nil
		}
	}
	return false, nil
}

func (s *accountTable) get(username string) storage.Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accounts[username]
}

var homeIP = netip.MustParseAddr("203.0.113.7")

func credentials(username, password string) Credentials {
	return Credentials{Username: username, Password: secret.New(password), IP: homeIP, ClientID: "shop-mini", RequestID: "r1"}
}

// elapsed runs f and returns how long it took by the bubble's clock.
func elapsed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}
