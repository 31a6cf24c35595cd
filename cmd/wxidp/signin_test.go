package main

import (
	"context"
	"net/http"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
)

// TestSignInVerifiedByGoOIDC is the main job: a js_code goes in, tokens that a
// library which knows nothing of wxidp verifies by discovery come out.
func TestSignInVerifiedByGoOIDC(t *testing.T) {
	s := startServer(t)
	out := s.SignIn("alice")

	ctx := context.Background()
	provider, err := oidc.NewProvider(ctx, s.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	idToken, err := provider.Verifier(&oidc.Config{ClientID: testClient, SupportedSigningAlgs: []string{"ES256"}}).Verify(ctx, out.str("id_token"))
	if err != nil {
		t.Fatalf("ID Token: %v", err)
	}
	if err := idToken.VerifyAccessToken(out.str("access_token")); err != nil {
		t.Errorf("at_hash: %v", err)
	}
	access, err := provider.Verifier(&oidc.Config{ClientID: testAudience, SupportedSigningAlgs: []string{"ES256"}}).Verify(ctx, out.str("access_token"))
	if err != nil {
		t.Fatalf("access token: %v", err)
	}
	if access.Subject != idToken.Subject || access.Subject == "" {
		t.Errorf("sub %q and %q", access.Subject, idToken.Subject)
	}
	if got := out.str("scope"); got != testDefaultScope {
		t.Errorf("scope %q", got)
	}
	if info := s.UserInfo(out.str("access_token")); info.Status != http.StatusOK || info.str("sub") != idToken.Subject || info.str("nickname") != "微信用户" {
		t.Errorf("UserInfo: %v", info)
	}
	if !s.Active(out.str("access_token")) {
		t.Error("the access token is inactive")
	}
	again := s.Refresh(out.str("refresh_token"))
	if again.Status != http.StatusOK || again.str("refresh_token") == out.str("refresh_token") {
		t.Fatalf("refresh: %v", again)
	}
}
