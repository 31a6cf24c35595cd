package provider

import (
	"context"
	"testing"
	"time"

	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/storage"
)

// otherNode returns the ring of another node, which does not look at the store
// by itself.
func (b *bench) otherNode() *keys.Ring {
	b.t.Helper()
	ring, err := keys.Open(context.Background(), keys.Options{Store: b.store, Keyring: b.keyring, Settings: benchKeys})
	if err != nil {
		b.t.Fatal(err)
	}
	return ring
}

// dropCurrent revokes the current key of each ring, and whatever follows it at
// once: no other node has seen what is current then.
func (b *bench) dropCurrent(ring *keys.Ring) {
	b.t.Helper()
	for range 2 {
		for _, info := range ring.List() {
			if info.State != keys.StateCurrent {
				continue
			}
			if err := ring.Revoke(context.Background(), info.ID); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

// Threat 44: a revocation is never acknowledged and left undone because the
// node does not know the key yet that another one made the token with.
func TestThreat44RevokeByAnotherNodesKey(t *testing.T) {
	b := newBench(t)
	here, there := b.ring, b.otherNode()
	for _, kind := range []string{"refresh token", "access token"} {
		b.dropCurrent(there)
		b.keys = there
		out := b.signIn("alice:" + kind[:6])
		b.keys = here
		token := out.RefreshToken
		if kind == "access token" {
			token = out.AccessToken
		}
		if err := b.Revoke(t.Context(), request(PathRevocation, form("client_id", testClient, "token", token))); err != nil {
			t.Fatal(err)
		}
		b.keys = there
		if b.active(out.AccessToken) {
			t.Errorf("%s: revoked on one node, the sign-in is alive on another", kind)
		}
		b.keys = here
		if b.active(out.AccessToken) {
			t.Errorf("%s: the sign-in is alive", kind)
		}
	}
}

// Threat 20: a token that another node has made a moment ago is not taken for
// forged, and what it is refreshed to lasts.
func TestThreat20RefreshByAnotherNodesKey(t *testing.T) {
	b := newBench(t)
	here, there := b.ring, b.otherNode()
	for name, drop := range map[string]func(){
		"unknown": func() { b.dropCurrent(there) },
		"next": func() {
			for _, info := range there.List() {
				if info.State == keys.StateCurrent && info.Alg == keys.MAC {
					if err := there.Revoke(t.Context(), info.ID); err != nil {
						t.Fatal(err)
					}
				}
			}
		},
	} {
		drop()
		b.keys = there
		token := b.signIn("alice:" + name).RefreshToken
		for i := range 4 {
			b.keys = []*keys.Ring{here, there}[i%2]
			out, err := b.refreshToken(token)
			if err != nil {
				t.Fatalf("%s: refresh %d: %v", name, i, err)
			}
			if !b.active(out.AccessToken) {
				t.Errorf("%s: the access token of refresh %d is not active", name, i)
			}
			token = out.RefreshToken
		}
	}
}

// Threat 44: an access token that is revoked stays so for as long as a node
// whose clock is behind the store's takes it for valid, and can be revoked at a
// node whose clock is ahead.
func TestThreat44RevokedBesideClocks(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBench(t)
		for name, revokedAt := range map[string]time.Duration{"while it is valid": time.Minute, "by a clock that is ahead": 16 * time.Minute} {
			token := b.signIn("alice:" + name[:2]).AccessToken
			claims, err := b.parseAccessToken(t.Context(), token, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(revokedAt)
			if err := b.Revoke(t.Context(), request(PathRevocation, form("client_id", testClient, "token", token))); err != nil {
				t.Fatal(err)
			}
			time.Sleep(16*time.Minute - revokedAt)
			for more := true; more; {
				if _, more, err = b.store.DeleteExpired(t.Context(), 100); err != nil {
					t.Fatal(err)
				}
			}
			// Another node's clock says that the token lives for some time yet.
			access, err := b.store.CheckAccess(t.Context(), storage.AccessCheck{JTI: claims.JTI})
			if err != nil || access.Verdict != storage.AccessDenied {
				t.Errorf("revoked %s: a minute after exp the verdict is %v, %v", name, access.Verdict, err)
			}
		}
	})
}
