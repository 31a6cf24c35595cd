package bolt

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
)

// signInRequest is a sign-in of one person.
func signInRequest(openID string) storage.SignIn {
	return storage.SignIn{
		AppID:        "wx0123456789abcdef",
		WeChatOpenID: openID,
		NewProfile:   storage.Profile{Nickname: "微信用户", Picture: "https://example.com/default.png"},
		Family: storage.Family{
			ID:       storage.NewFamilyID(),
			ClientID: "shop-mini",
			Scope:    []string{"openid", "profile"},
			Audience: []string{"https://api.shop.example"},
			AuthTime: time.Now(),
			AMR:      []string{"wechat"},
		},
		Idle:     720 * time.Hour,
		Absolute: 4320 * time.Hour,
	}
}

func newKeyring(t testing.TB) *seal.Keyring {
	t.Helper()
	ring, err := seal.ParseKeyring([]byte(seal.GenerateKey()))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "data", "wxidp.db") }

// openStore opens a store that is closed with the test.
func openStore(t testing.TB, opts Options) *Store {
	t.Helper()
	if opts.Path == "" {
		opts.Path = newPath(t)
	}
	if opts.Keyring == nil {
		opts.Keyring = newKeyring(t)
	}
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
