package grants

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat"
)

const appID = "wx0123456789abcdef"

// claims is the volatile table of one node.
type claims struct {
	*storage.Claims
	fail error
}

func (c claims) Claim(_ context.Context, key storage.Digest, lifetime time.Duration) (bool, error) {
	if c.fail != nil {
		return false, c.fail
	}
	return c.Take(key, lifetime), nil
}

func (c claims) Release(_ context.Context, key storage.Digest) error {
	c.Claims.Release(key)
	return c.fail
}

// exchange answers for WeChat and counts.
type exchange struct {
	calls   int
	session wechat.CodeResult
	err     error

	phones   int // calls of PhoneNumber
	phone    wechat.Phone
	phoneErr error
	known    map[string]storage.User // by openid
}

func (e *exchange) PhoneNumber(_ context.Context, _, _, weChatOpenID string) (wechat.Phone, error) {
	e.phones++
	if weChatOpenID != e.session.WeChatOpenID {
		return wechat.Phone{}, &wechat.Error{Kind: wechat.InvalidCode, Code: 40029, Sent: true}
	}
	return e.phone, e.phoneErr
}

func (e *exchange) User(context.Context, string) (storage.User, error) {
	return storage.User{}, storage.ErrNotFound
}

func (e *exchange) UserBy(context.Context, storage.IndexKind, string) (storage.User, error) {
	return storage.User{}, storage.ErrNotFound
}

func (e *exchange) SignInUser(_ context.Context, identity storage.Identity) (storage.User, error) {
	user, ok := e.known[identity.WeChatOpenID]
	if !ok {
		return user, storage.ErrNotFound
	}
	return user, nil
}

func (e *exchange) App(id string) (wechat.App, bool) {
	return wechat.App{AppID: id, OpenPlatform: "main"}, id == appID
}

func (e *exchange) Code2Session(context.Context, string, string) (wechat.CodeResult, error) {
	e.calls++
	return e.session, e.err
}

func newGrant() (*WeChatJSCode, *exchange) {
	e := &exchange{session: wechat.CodeResult{WeChatOpenID: "o1", UnionID: "u1", SessionKey: secret.New("canary")}}
	memory := claims{Claims: storage.NewClaims(0)}
	return &WeChatJSCode{
		Codes:    &JSCodes{WeChat: e, Claims: memory},
		Phones:   &PhoneCodes{WeChat: e, Claims: memory, Users: e},
		Defaults: accounts.NewDefaults(storage.Profile{Nickname: "n"}),
	}, e
}

func request(code string) Request {
	return Request{
		Param:       func(name string) string { return map[string]string{"js_code": code}[name] },
		ClientID:    "shop-mini",
		WeChatAppID: appID,
		RemoteIP:    netip.MustParseAddr("192.0.2.1"),
	}
}

func refusal(err error) RefusalKind {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Kind
	}
	return 0
}

// TestProve: WeChat's answer becomes a Subject, without the session_key.
func TestProve(t *testing.T) {
	grant, e := newGrant()
	before := time.Now()
	subject, err := grant.Prove(context.Background(), request("code"))
	if err != nil {
		t.Fatal(err)
	}
	want := storage.Identity{AppID: appID, WeChatOpenID: "o1", UnionID: "u1", OpenPlatform: "main"}
	if subject.Identity != want || subject.NewProfile.Nickname != "n" || subject.AuthTime.Before(before) || len(subject.AMR) != 1 || subject.AMR[0] != "wechat" {
		t.Errorf("%+v", subject)
	}
	if _, err := grant.Prove(context.Background(), request("code")); refusal(err) != Replayed || e.calls != 1 {
		t.Errorf("replay: %v, %d calls", err, e.calls)
	}
}

// TestThreat63CodeForm: 1 to 256 visible ASCII characters.
func TestThreat63CodeForm(t *testing.T) {
	grant, e := newGrant()
	for code, want := range map[string]RefusalKind{
		"": MissingParameter, mockCode: MockCode, " ": MalformedParameter, "a b": MalformedParameter, "a\x00": MalformedParameter, "\x7f": MalformedParameter,
		"é": MalformedParameter, "a\n": MalformedParameter, strings.Repeat("a", 257): MalformedParameter,
	} {
		if _, err := grant.Prove(context.Background(), request(code)); refusal(err) != want || !errorNames(err, "js_code") && want != MockCode {
			t.Errorf("code %q: %v", code, err)
		}
	}
	if e.calls != 0 {
		t.Errorf("%d calls", e.calls)
	}
	for _, code := range []string{"a", "!", "~", "a&b=c", strings.Repeat("a", 256)} {
		if _, err := grant.Prove(context.Background(), request(code)); err != nil {
			t.Errorf("code %q: %v", code, err)
		}
	}
}

func errorNames(err error, param string) bool {
	return err != nil && strings.Contains(err.Error(), param)
}

// TestThreat62Claim: a claim is given back where no byte of the code was sent,
// and only there.
func TestThreat62Claim(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		kept bool
	}{
		"refused":          {&wechat.Error{Kind: wechat.InvalidCode, Code: 40029, Sent: true}, true},
		"lost":             {&wechat.Error{Kind: wechat.Unavailable, Reason: "timeout", Sent: true}, true},
		"dial":             {&wechat.Error{Kind: wechat.Unavailable, Reason: "dial"}, false},
		"breaker":          {&wechat.Error{Kind: wechat.Unavailable, Reason: "breaker_open"}, false},
		"own limit":        {&Refusal{Kind: Limited, Scope: "app"}, false},
		"who knows":        {errors.New("unexpected"), true},
		"wrapped, unsent":  {errors.Join(&wechat.Error{Kind: wechat.Unavailable}), false},
		"canceled, unsent": {&wechat.Error{Kind: wechat.Unavailable, Reason: "canceled"}, false},
	} {
		grant, e := newGrant()
		e.err = row.err
		if _, err := grant.Prove(context.Background(), request("code")); !errors.Is(err, row.err) {
			t.Errorf("%s: %v", name, err)
		}
		e.err = nil
		_, err := grant.Prove(context.Background(), request("code"))
		if kept := refusal(err) == Replayed; kept != row.kept {
			t.Errorf("%s: the second time: %v", name, err)
		}
	}
}

// TestProveFaults: what is the server's own fault is no refusal.
func TestProveFaults(t *testing.T) {
	grant, e := newGrant()
	other := request("code")
	other.WeChatAppID = "wxother"
	if _, err := grant.Prove(context.Background(), other); err == nil || refusal(err) != 0 {
		t.Errorf("unknown app: %v", err)
	}
	down := errors.New("store is down")
	grant.Codes.Claims = claims{Claims: storage.NewClaims(0), fail: down}
	if _, err := grant.Prove(context.Background(), request("code")); !errors.Is(err, down) || e.calls != 0 {
		t.Errorf("claims fail: %v, %d calls", err, e.calls)
	}
}

// TestThreat64Limits: each limit counts by its own key, and comes back.
func TestThreat64Limits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		grant, _ := newGrant()
		n := 0
		ask := func(ip, client string) error {
			n++
			in := request(fmt.Sprintf("code-%d", n))
			in.RemoteIP, in.ClientID = netip.MustParseAddr(ip), client
			_, err := grant.Prove(context.Background(), in)
			return err
		}
		scope := func(err error) string {
			r, ok := errors.AsType[*Refusal](err)
			if !ok || r.Kind != Limited || r.RetryAfter <= 0 {
				return ""
			}
			return r.Scope
		}
		grant.Codes.Limits = NewSignInLimits(SignInRates{PerIP: 4}) // one at once
		if err := ask("192.0.2.1", "a"); err != nil {
			t.Fatal(err)
		}
		if got := scope(ask("192.0.2.1", "b")); got != "ip" {
			t.Errorf("second from one address: %q", got)
		}
		if err := ask("192.0.2.2", "a"); err != nil {
			t.Errorf("another address: %v", err)
		}
		time.Sleep(15 * time.Second)
		if err := ask("192.0.2.1", "a"); err != nil {
			t.Errorf("later: %v", err)
		}
		grant.Codes.Limits = NewSignInLimits(SignInRates{PerNetwork: 4})
		if err := ask("192.0.2.1", "a"); err != nil {
			t.Fatal(err)
		}
		if got := scope(ask("192.0.2.200", "a")); got != "network" {
			t.Errorf("a neighbour: %q", got)
		}
		if got := scope(ask("::ffff:192.0.2.7", "a")); got != "network" {
			t.Errorf("a neighbour in IPv6 spelling: %q", got)
		}
		if err := ask("192.0.3.1", "a"); err != nil {
			t.Errorf("another network: %v", err)
		}
		grant.Codes.Limits = NewSignInLimits(SignInRates{PerClient: 4})
		if err := ask("192.0.2.1", "a"); err != nil {
			t.Fatal(err)
		}
		if got := scope(ask("198.51.100.1", "a")); got != "client" {
			t.Errorf("second of one client: %q", got)
		}
		if err := ask("192.0.2.1", "b"); err != nil {
			t.Errorf("another client: %v", err)
		}

		// Half of an app's budget is for those who signed in before.
		grant.Codes.Limits = NewSignInLimits(SignInRates{PerApp: 8, ReservePercent: 50})
		if err := ask("192.0.2.1", "a"); err != nil {
			t.Fatal(err)
		}
		if got := scope(ask("198.51.100.1", "a")); got != "app" {
			t.Errorf("a stranger beyond the general budget: %q", got)
		}
		if err := ask("192.0.2.1", "a"); err != nil {
			t.Errorf("a known address: %v", err)
		}
		if got := scope(ask("192.0.2.1", "a")); got != "app" {
			t.Errorf("a known address beyond the reserve: %q", got)
		}
		grant.Codes.Limits.SetRates(SignInRates{})
		for range 100 {
			if err := ask("198.51.100.1", "a"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzJSCode: what is refused never reaches WeChat, and what is not is visible
// ASCII.
func FuzzJSCode(f *testing.F) {
	for _, seed := range []string{"", "a", mockCode, "a&appid=evil", strings.Repeat("a", 256), strings.Repeat("a", 257), "a\n", "é", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, code string) {
		grant, e := newGrant()
		_, err := grant.Prove(context.Background(), request(code))
		visible := code != "" && len(code) <= 256
		for _, c := range []byte(code) {
			visible = visible && c > ' ' && c < 0x7f
		}
		if visible != (err == nil) || visible != (e.calls == 1) {
			t.Errorf("code %q: %v, %d calls", code, err, e.calls)
		}
	})
}
