package accounts

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat/simulator"
)

const (
	pushApp   = "wx0123456789abcdef"
	pushToken = "pushtoken"
	pushKey   = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

// eventStore remembers what it was asked for.
type eventStore struct {
	user        storage.User
	err         error
	withdrawals []storage.Withdrawal
	changes     []storage.ProfileChange
}

func (s *eventStore) IdentityUser(context.Context, string, string) (storage.User, storage.Digest, error) {
	return s.user, storage.Digest{1}, s.err
}

func (s *eventStore) Withdraw(_ context.Context, in storage.Withdrawal) (storage.WithdrawResult, error) {
	s.withdrawals = append(s.withdrawals, in)
	return storage.WithdrawResult{Verdict: storage.WithdrawOK, UserID: s.user.ID}, s.err
}

func (s *eventStore) UpdateProfile(_ context.Context, _ string, change storage.ProfileChange) (storage.User, error) {
	s.changes = append(s.changes, change)
	return s.user, s.err
}

// eventBench receives what a simulator pushes.
type eventBench struct {
	*Events
	t     *testing.T
	store *eventStore
	sim   *simulator.Simulator
	log   strings.Builder
	url   string
	last  Push
	err   error // of the last Receive
}

func noClients() []string { return nil }

func newEventBench(t *testing.T) *eventBench {
	t.Helper()
	b := &eventBench{t: t, store: &eventStore{user: storage.User{ID: "u1"}}}
	b.sim = simulator.New(simulator.Options{Apps: []simulator.App{{AppID: pushApp, Secret: "s"}}})
	b.Events = NewEvents(b.store, NewDefaults(storage.Profile{Nickname: "user{n}"}), noClients, slog.New(slog.NewTextHandler(&b.log, nil)))
	apply, err := b.Prepare([]MessagePush{{pushApp, secret.New(pushToken), secret.New(pushKey)}})
	if err != nil {
		t.Fatal(err)
	}
	apply()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		b.last = Push{Timestamp: q.Get("timestamp"), Nonce: q.Get("nonce"), Signature: q.Get("signature"), MsgSignature: q.Get("msg_signature")}
		b.last.Body, _ = io.ReadAll(r.Body)
		b.err = b.Receive(r.Context(), pushApp, b.last)
	}))
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

func (b *eventBench) push(kind, revoked string, edits ...func(*simulator.Event)) {
	b.t.Helper()
	e := simulator.Event{URL: b.url, AppID: pushApp, User: "ann", Type: kind, RevokeInfo: revoked, Token: pushToken, EncodingAESKey: pushKey}
	for _, edit := range edits {
		edit(&e)
	}
	if _, err := b.sim.SendEvent(b.t.Context(), e); err != nil {
		b.t.Fatal(err)
	}
}

// TestEventFailsAndComesAgain: what could not be done is no replay.
func TestEventFailsAndComesAgain(t *testing.T) {
	for _, kind := range []string{"user_authorization_cancellation", "user_authorization_revoke", "user_info_modified"} {
		b := newEventBench(t)
		b.store.err = storage.ErrUnavailable
		b.push(kind, "6")
		if !errors.Is(b.err, storage.ErrUnavailable) {
			t.Errorf("%s: %v", kind, b.err)
		}
		b.store.err = nil
		for range 2 {
			if err := b.Receive(t.Context(), pushApp, b.last); err != nil {
				t.Errorf("%s again: %v", kind, err)
			}
		}
		done := len(b.store.withdrawals) + len(b.store.changes)
		if kind != "user_authorization_cancellation" {
			done++ // the first failed before
		}
		if done != 2 {
			t.Errorf("%s: done %d times, want the failure and the second", kind, done)
		}
		if n := strings.Count(b.log.String(), "event=wechat.event "); n != 2 || strings.Contains(b.log.String(), b.sim.OpenID(pushApp, "ann")) {
			t.Errorf("%s: log %s", kind, &b.log)
		}
	}
}

func TestEventsTakeNoPlainPush(t *testing.T) {
	b := newEventBench(t)
	b.push("user_authorization_cancellation", "", func(e *simulator.Event) { e.EncodingAESKey = "" })
	if !errors.Is(b.err, ErrPushBody) || len(b.store.withdrawals) != 0 {
		t.Errorf("%v", b.err)
	}
	for name, push := range map[string]MessagePush{
		"without a key":  {AppID: pushApp, Token: secret.New(pushToken)},
		"with a bad key": {pushApp, secret.New(pushToken), secret.New("short")},
		"bad token":      {pushApp, secret.New("x"), secret.New(pushKey)},
	} {
		if _, err := b.Prepare([]MessagePush{push}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestEventProfile: what goes from a profile, and what stays.
func TestEventProfile(t *testing.T) {
	changed := func(c storage.ProfileChange) (nick, pic bool) { return c.Nickname != nil, c.Picture != nil }
	for _, c := range []struct {
		revoked        string
		shown          storage.Profile
		nick, pic, tel bool
	}{
		{"6", storage.Profile{Nickname: "ming", Picture: "https://x.example"}, true, true, false},
		{"6", storage.Profile{Nickname: "user1234", Picture: ""}, false, false, false},
		{"6", storage.Profile{Nickname: "user12345", Picture: ""}, true, false, false},
		{"6", storage.Profile{Nickname: "user", Picture: ""}, true, false, false},
		{"6", storage.Profile{Nickname: "user12a4", Picture: ""}, true, false, false},
		{"19", storage.Profile{Nickname: "ming", Picture: "https://x.example"}, true, false, false},
		{"20", storage.Profile{Nickname: "ming", Picture: "https://x.example"}, false, true, false},
		{"8", storage.Profile{Nickname: "ming"}, false, false, true},
		{"16", storage.Profile{Nickname: "ming"}, false, false, false},
		{"", storage.Profile{Nickname: "ming"}, false, false, false},
	} {
		b := newEventBench(t)
		b.store.user.Profile = c.shown
		b.push("user_authorization_revoke", c.revoked)
		if b.err != nil || len(b.store.withdrawals) != 1 {
			t.Fatalf("%+v: %v", c, b.err)
		}
		in := b.store.withdrawals[0]
		nick, pic := changed(in.Profile)
		if nick != c.nick || pic != c.pic || in.Phone != c.tel || in.Account || in.AppID != pushApp || in.WeChatOpenID != b.sim.OpenID(pushApp, "ann") {
			t.Errorf("%+v: %+v", c, in)
		}
		if nick && !madeFrom("user{n}", *in.Profile.Nickname) {
			t.Errorf("nickname %q", *in.Profile.Nickname)
		}
	}
	for _, c := range []struct {
		template, nickname string
		want               bool
	}{
		{"微信用户", "微信用户", true}, {"微信用户", "微信用户1", false}, {"a{n}b", "a0001b", true}, {"a{n}b", "a0001c", false}, {"a{n}b", "ab", false},
		{"{n}{n}", "00010001", false}, {"", "", true}, {"{n}", "1234", true}, {"ab{n}b", "ab", false},
	} {
		if got := madeFrom(c.template, c.nickname); got != c.want {
			t.Errorf("madeFrom(%q, %q) = %v", c.template, c.nickname, got)
		}
	}
}

// FuzzPush: whoever has neither token nor key moves nothing.
func FuzzPush(f *testing.F) {
	f.Add("1714036504", "1514711492", "f464b24fc39322e44b38aa78f5edd27bd1441696", "", []byte(`{"Encrypt":"AAAA"}`))
	f.Add("", "", "", "", []byte(`<xml><Encrypt>x</Encrypt></xml>`))
	f.Fuzz(func(t *testing.T, timestamp, nonce, signature, msgSignature string, body []byte) {
		store := new(eventStore)
		e := NewEvents(store, NewDefaults(storage.Profile{}), noClients, slog.New(slog.DiscardHandler))
		apply, err := e.Prepare([]MessagePush{{pushApp, secret.New(pushToken), secret.New(pushKey)}})
		if err != nil {
			t.Fatal(err)
		}
		apply()
		p := Push{timestamp, nonce, signature, msgSignature, body}
		err = e.Receive(t.Context(), pushApp, p)
		if !errors.Is(err, ErrPushSignature) && !errors.Is(err, ErrPushBody) || len(store.withdrawals)+len(store.changes) != 0 {
			t.Errorf("%v", err)
		}
		if err := e.Verify(pushApp, p); !errors.Is(err, ErrPushSignature) {
			t.Errorf("Verify: %v", err)
		}
	})
}
