package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/wechat/simulator"
)

// TestIdempotentSignIn: a repeated sign-in with its Idempotency-Key gets the
// first one's refresh token and a fresh access token, at no cost.
func TestIdempotentSignIn(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	key := header("Idempotency-Key", "tap-1")
	form := signInForm(s.Code(testAppID, "alice"), "nonce", "n1")
	first := s.Token(form, key, phone())
	if first.Status != 200 {
		t.Fatal(first)
	}
	settled(s)
	commits := s.parts.store.Stats().Commits
	again := s.Token(form, key, phone())
	if again.Status != 200 || again.str("refresh_token") != first.str("refresh_token") || again.str("access_token") == first.str("access_token") {
		t.Fatalf("repeat: %v\nfirst: %v", again, first)
	}
	if claims(t, again.str("id_token"))["nonce"] != "n1" {
		t.Error("the repeat's ID Token lost the nonce")
	}
	if s.Sim.RequestCount() != 1 || s.parts.store.Stats().Commits != commits || len(families(s)) != 1 {
		t.Errorf("%d calls to WeChat, %d commits for the repeat, %d families",
			s.Sim.RequestCount(), s.parts.store.Stats().Commits-commits, len(families(s)))
	}
	for _, token := range []string{first.str("access_token"), again.str("access_token")} {
		if !userInfoOK(s, token) {
			t.Error("an access token of the sign-in is inactive")
		}
	}

	// The same key is no key to another form, and another client's is another.
	for _, more := range [][]string{{"scope", "openid"}, {"nonce", "n2"}, {"nonce", "n1", "x", ""}, {}} {
		refused(t, s.Token(signInForm(form.Get("js_code"), more...), key, phone()), 400, "invalid_request")
	}
	other := pairs("grant_type", "wechat_jscode", "client_id", "shop-mini-2", "js_code", s.Code(testApp2, "bob"))
	if out := s.Token(other, key, phone()); out.Status != 200 {
		t.Errorf("the key of another client: %v", out)
	}

	if out := refresh(s, first.str("refresh_token")); out.Status != 200 {
		t.Fatal(out)
	}
	refused(t, s.Token(form, key, phone()), 400, "invalid_grant")
}

// TestIdempotentTogether: twenty repeats at once are one sign-in.
func TestIdempotentTogether(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	inject(t, s, simulator.Fault{Kind: simulator.FaultDelay, Delay: 100 * time.Millisecond, Count: 1})
	form := signInForm(s.Code(testAppID, "alice"))
	tokens, access := make([]string, 20), make([]string, 20)
	parallel(20, func(i int) {
		out, err := s.try(http.MethodPost, s.Issuer+"/oauth2/token", form, header("Idempotency-Key", "tap"), phone())
		if err != nil || out.Status != 200 {
			t.Errorf("%v %v", out, err)
		}
		tokens[i], access[i] = out.str("refresh_token"), out.str("access_token")
	})
	if distinct(tokens) != 1 || tokens[0] == "" || distinct(access) != 20 || s.Sim.RequestCount() != 1 || len(families(s)) != 1 {
		t.Errorf("%d refresh tokens, %d access tokens, %d calls to WeChat, %d families",
			distinct(tokens), distinct(access), s.Sim.RequestCount(), len(families(s)))
	}
}

// TestIdempotentRefusal: a refusal is remembered, trouble is not.
func TestIdempotentRefusal(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	inject(t, s, simulator.Fault{Kind: simulator.FaultErrcode, Errcode: 40226, Count: 1})
	form := signInForm(s.Code(testAppID, "alice"))
	first := s.Token(form, header("Idempotency-Key", "tap-1"), phone())
	refused(t, first, 400, "access_denied")
	again := s.Token(form, header("Idempotency-Key", "tap-1"), phone())
	if again.Status != first.Status || string(again.Body) != string(first.Body) || s.Sim.RequestCount() != 1 {
		t.Errorf("repeat: %v, first: %v, %d calls to WeChat", again, first, s.Sim.RequestCount())
	}
	refused(t, s.Token(signInForm("another"), header("Idempotency-Key", "tap-1"), phone()), 400, "invalid_request")
	// In the caller's language, also from memory.
	if zh := s.Token(form, header("Idempotency-Key", "tap-1"), header("Accept-Language", "zh-CN"), phone()); !strings.Contains(zh.str("error_description"), "微信") {
		t.Errorf("%v", zh)
	}

	// WeChat was down before it got the code: the same request is tried anew.
	down := freeAddress(t)
	s2 := startServer(t, manyPhones(), replacing("base_url: WECHAT", "base_url: http://"+down))
	form = signInForm(s2.Code(testAppID, "alice"))
	refused(t, s2.Token(form, header("Idempotency-Key", "tap-2"), phone()), 503, "temporarily_unavailable")
	weChat := &http.Server{Addr: down, Handler: s2.Sim.Handler()}
	go func() { _ = weChat.ListenAndServe() }()
	defer weChat.Close()
	eventually(t, "the same request succeeds", func() bool {
		return s2.Token(form, header("Idempotency-Key", "tap-2"), phone()).Status == 200
	})
}

// TestIdempotencyKeyForm: 1 to 255 visible ASCII characters, in one line.
func TestIdempotencyKeyForm(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones())
	for _, bad := range [][]string{{""}, {"a b"}, {"a\tb"}, {"ключ"}, {strings.Repeat("k", 256)}, {"a", "b"}, {"a", "a"}, {"a", ""}} {
		out := s.Token(signInForm(s.Code(testAppID, "alice")), phone(), func(r *http.Request) { r.Header["Idempotency-Key"] = bad })
		refused(t, out, 400, "invalid_request")
	}
	if n := s.Sim.RequestCount(); n != 0 {
		t.Errorf("%d calls to WeChat", n)
	}
	for _, good := range []string{"k", strings.Repeat("k", 255), `"8e03978e-40d5-43dd-bc93-6894a57f9324"`} {
		if out := s.Token(signInForm(s.Code(testAppID, "alice")), phone(), header("Idempotency-Key", good)); out.Status != 200 {
			t.Errorf("key %.40q: %v", good, out)
		}
	}
}
