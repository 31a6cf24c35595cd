package provider

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// inBubble runs a test on a clock of its own, which jumps while all sleep.
func inBubble(t *testing.T, do func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, do)
}

// TestIdempotencyLifetime: an outcome is found for a minute.
func TestIdempotencyLifetime(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBench(t)
		ask := func(code string) (*TokenResponse, error) {
			return b.post(form("grant_type", "wechat_jscode", "client_id", testClient, "js_code", code), "Idempotency-Key", "k"+code)
		}
		first, err := ask("alice:1")
		b.code(err, "")
		_, err = ask("refused")
		b.code(err, InvalidGrant)
		time.Sleep(59 * time.Second)
		again, err := ask("alice:1")
		b.code(err, "")
		if again == nil || again.RefreshToken != first.RefreshToken || !again.Repeated {
			t.Fatalf("%+v", again)
		}
		_, err = ask("refused")
		b.code(err, InvalidGrant)
		if reason := AsError(err).LogReason; reason != "wechat_errcode_40029" || b.weChat.calls != 2 {
			t.Errorf("reason %s, %d calls to WeChat", reason, b.weChat.calls)
		}
		time.Sleep(2 * time.Second)
		// Now they are requests like any other, whose codes were used.
		for _, code := range []string{"alice:1", "refused"} {
			_, err = ask(code)
			b.code(err, InvalidGrant)
			if reason := AsError(err).LogReason; reason != "js_code_replayed" {
				t.Errorf("%s: reason %s", code, reason)
			}
		}
		if b.weChat.calls != 2 {
			t.Errorf("%d calls to WeChat", b.weChat.calls)
		}
	})
}

// TestThreat62ClaimLifetime: a code is remembered for longer than it lives.
func TestThreat62ClaimLifetime(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBench(t)
		b.signIn("alice:1")
		time.Sleep(10*time.Minute - time.Second)
		_, err := b.post(form("grant_type", "wechat_jscode", "client_id", testClient, "js_code", "alice:1"))
		b.code(err, InvalidGrant)
		if b.weChat.calls != 1 {
			t.Errorf("%d calls to WeChat", b.weChat.calls)
		}
	})
}

// TestThreat17GraceBoundary: the default grace is 20 s, to the second.
func TestThreat17GraceBoundary(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBench(t)
		r0 := b.signIn("alice:1")
		r1, err := b.refreshToken(r0.RefreshToken)
		b.code(err, "")
		time.Sleep(19 * time.Second)
		again, err := b.refreshToken(r0.RefreshToken)
		b.code(err, "")
		if again.RefreshToken != r1.RefreshToken || !again.Repeated {
			t.Fatal("another successor within the grace")
		}
		// The repeat does not prolong the grace.
		time.Sleep(time.Second)
		_, err = b.refreshToken(r0.RefreshToken)
		b.code(err, InvalidGrant)
		_, err = b.refreshToken(r1.RefreshToken)
		b.code(err, InvalidGrant)
		if b.active(r1.AccessToken) || b.active(again.AccessToken) {
			t.Error("an access token outlives the reuse")
		}
	})
}

// TestThreat30IdleAndAbsolute: thirty days without a refresh end a sign-in, and
// 180 days end any.
func TestThreat30IdleAndAbsolute(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBench(t)
		const day = 24 * time.Hour
		idle := b.signIn("idle:1")
		token := b.signIn("busy:1").RefreshToken
		start := time.Now()
		for range 8 { // to day 176
			time.Sleep(22 * day)
			out, err := b.refreshToken(token)
			b.code(err, "")
			token = out.RefreshToken
		}
		_, err := b.refreshToken(idle.RefreshToken)
		b.code(err, InvalidGrant)
		time.Sleep(time.Until(start.Add(180*day - 5*time.Minute)))
		last, err := b.refreshToken(token)
		b.code(err, "")
		if last.ExpiresIn > 5*time.Minute || last.ExpiresIn < 4*time.Minute {
			t.Errorf("the last access token lives %s, its family 5 min", last.ExpiresIn)
		}
		if !b.active(last.AccessToken) {
			t.Error("the last access token is inactive")
		}
		time.Sleep(5 * time.Minute)
		_, err = b.refreshToken(last.RefreshToken)
		b.code(err, InvalidGrant)
		if b.active(last.AccessToken) {
			t.Error("an access token outlives its family")
		}
	})
}

// TestIdleBoundary: the idle lifetime counts from the last refresh.
func TestIdleBoundary(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBench(t)
		const idle = 30 * 24 * time.Hour
		early, late := b.signIn("alice:1"), b.signIn("bob:1")
		time.Sleep(idle - time.Second)
		next, err := b.refreshToken(early.RefreshToken)
		b.code(err, "")
		time.Sleep(time.Second)
		_, err = b.refreshToken(late.RefreshToken)
		b.code(err, InvalidGrant)
		time.Sleep(idle - 2*time.Second)
		_, err = b.refreshToken(next.RefreshToken)
		b.code(err, "")
	})
}

// TestAccessTokenExpiry: active until exp and not a second longer, also for a
// revoked one whose denial has expired with it.
func TestAccessTokenExpiry(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBench(t)
		out := b.signIn("alice:1")
		revoked := b.signIn("alice:2")
		err := b.Revoke(context.Background(), request(PathRevocation, form("client_id", testClient, "token", revoked.AccessToken)))
		b.code(err, "")
		time.Sleep(15*time.Minute - time.Second)
		if !b.active(out.AccessToken) || b.active(revoked.AccessToken) {
			t.Error("a second before exp")
		}
		time.Sleep(time.Second)
		if b.active(out.AccessToken) || b.active(revoked.AccessToken) {
			t.Error("at exp")
		}
		// The record of the denial goes, the token stays dead.
		time.Sleep(time.Hour)
		for more := true; more; {
			if _, more, err = b.store.DeleteExpired(context.Background(), 100); err != nil {
				t.Fatal(err)
			}
		}
		if b.active(revoked.AccessToken) {
			t.Error("a revoked token is active again")
		}
		if _, err := b.refreshToken(out.RefreshToken); err != nil {
			t.Errorf("refresh: %v", err)
		}
	})
}

// TestWithoutRefreshGrant: a sign-in that nothing can prolong ends with its
// access token.
func TestWithoutRefreshGrant(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBench(t)
		out, err := b.post(form("grant_type", "wechat_jscode", "client_id", "once", "js_code", "alice:1"))
		b.code(err, "")
		if out.RefreshToken != "" || !b.active(out.AccessToken) {
			t.Errorf("%+v", out)
		}
		time.Sleep(15 * time.Minute)
		if b.active(out.AccessToken) {
			t.Error("active after its time")
		}
	})
}

// TestSlowGuessing: one guess in six seconds stays within ten a minute, and
// guessing in a client's name never shuts the client itself out.
func TestSlowGuessing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBench(t)
		guess := func(secret string) Code {
			_, err := b.Introspect(context.Background(), request(PathIntrospection, form("client_id", "api", "client_secret", secret, "token", "x")))
			if err == nil {
				return ""
			}
			return AsError(err).Code
		}
		for i := range 10 {
			if got := guess("wrong"); got != InvalidClient {
				t.Fatalf("guess %d: %s", i, got)
			}
		}
		if got := guess("wrong"); got != TemporarilyUnavailable {
			t.Errorf("guess 11: %q", got)
		}
		if got := guess("api-secret"); got != "" {
			t.Errorf("the right secret meanwhile: %s", got)
		}
		time.Sleep(7 * time.Second)
		if got := guess("wrong"); got != InvalidClient {
			t.Errorf("after a pause: %s", got)
		}
	})
}
