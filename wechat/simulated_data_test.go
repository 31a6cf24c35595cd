package wechat_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/wechat"
	"github.com/wxidp/wxidp/wechat/simulator"
)

func signIn(t *testing.T, sim *simulator.Simulator, c *wechat.Client, user string) wechat.CodeResult {
	t.Helper()
	code, err := sim.Login(simApp, user)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Code2Session(context.Background(), simApp, code)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// hidden checks that no secret shows in a log or error.
func hidden(t *testing.T, shown string, secrets ...string) {
	t.Helper()
	for _, s := range append(secrets, simSecret, "access_token=", "signature=") {
		if strings.Contains(shown, s) {
			t.Errorf("%q shows in %s", s, shown)
		}
	}
}

func TestThreat69PhoneAgainstSimulator(t *testing.T) {
	sim, c, logged := simulated(t)
	ctx := context.Background()
	ann, bob := signIn(t, sim, c, "ann"), signIn(t, sim, c, "bob")
	number := func(user string) string {
		country, n := sim.PhoneNumber(user)
		return "+" + country + n
	}
	code, err := sim.PhoneCode(simApp, "ann")
	if err != nil {
		t.Fatal(err)
	}
	var e *wechat.Error
	// The victim's code with the attacker's sign-in.
	_, err = c.PhoneNumber(ctx, simApp, code, bob.WeChatOpenID)
	if !errors.As(err, &e) || e.Kind != wechat.InvalidCode || e.Code != 40029 || e.RID == "" {
		t.Errorf("a swapped code: %v", err)
	}
	p, err := c.PhoneNumber(ctx, simApp, code, ann.WeChatOpenID)
	if err != nil || p.E164 != number("ann") || p.AppID != simApp {
		t.Errorf("%s, %v", p.E164, err)
	}
	_, err = c.PhoneNumber(ctx, simApp, code, ann.WeChatOpenID)
	if !errors.As(err, &e) || e.Kind != wechat.InvalidCode || e.Code != 40029 {
		t.Errorf("the same code again: %v", err)
	}
	// Of an app on the same simulator.
	if err := sim.AddApp(simulator.App{AppID: "wxother", Secret: "s"}); err != nil {
		t.Fatal(err)
	}
	foreign, err := sim.PhoneCode("wxother", "ann")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.PhoneNumber(ctx, simApp, foreign, ann.WeChatOpenID)
	if !errors.As(err, &e) || e.Kind != wechat.InvalidCode || e.Code != 40013 {
		t.Errorf("a code of another app: %v", err)
	}
	// A clock that was moved matters to codes, not to the time of a fresh one.
	if err := sim.Advance(time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := sim.SetPhone("ann", "852", "91234567"); err != nil {
		t.Fatal(err)
	}
	code, _ = sim.PhoneCode(simApp, "ann")
	if p, err = c.PhoneNumber(ctx, simApp, code, ann.WeChatOpenID); err != nil || p.E164 != "+85291234567" {
		t.Errorf("%s, %v", p.E164, err)
	}
	hidden(t, logged.String(), code, foreign, "91234567", number("ann")[3:], ann.WeChatOpenID)
}

func TestThreat76ExpiredTokenAgainstSimulator(t *testing.T) {
	sim, c, logged := simulated(t)
	ann := signIn(t, sim, c, "ann")
	if _, err := c.AccessToken(t.Context(), simApp); err != nil {
		t.Fatal(err)
	}
	sim.ExpireTokens(simApp)
	code, _ := sim.PhoneCode(simApp, "ann")
	sim.ClearRequests()
	if _, err := c.PhoneNumber(t.Context(), simApp, code, ann.WeChatOpenID); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, r := range sim.Requests() {
		paths = append(paths, fmt.Sprint(r.Path, " ", r.Errcode))
	}
	want := []string{simulator.PathPhoneNumber + " 42001", simulator.PathStableToken + " 0", simulator.PathPhoneNumber + " 0"}
	if strings.Join(paths, "\n") != strings.Join(want, "\n") {
		t.Errorf("requests %q, want %q", paths, want)
	}
	hidden(t, logged.String(), code)
}

// TestPhoneFaultsOfSimulator: after each fault the code was sent once, but
// for errcode -1.
func TestPhoneFaultsOfSimulator(t *testing.T) {
	for _, row := range []struct {
		fault    simulator.Fault
		kind     wechat.Kind
		reason   string
		requests string
	}{
		{simulator.Fault{Kind: simulator.FaultErrcode, Errcode: -1}, wechat.Unavailable, "errcode", "2"},
		{simulator.Fault{Kind: simulator.FaultErrcode, Errcode: 45011}, wechat.Quota, "errcode", "1"},
		{simulator.Fault{Kind: simulator.FaultErrcode, Errcode: 48001}, wechat.Unknown, "errcode", "1"},
		{simulator.Fault{Kind: simulator.FaultTruncate}, wechat.Unavailable, "reset", "1"},
		{simulator.Fault{Kind: simulator.FaultReset}, wechat.Unavailable, "reset", "1"},
		{simulator.Fault{Kind: simulator.FaultDrop}, wechat.Unavailable, "reset", "1"},
		{simulator.Fault{Kind: simulator.FaultStatus}, wechat.Unavailable, "http_5xx", "1"},
		{simulator.Fault{Kind: simulator.FaultRedirect, Location: "http://127.0.0.1:1/"}, wechat.Unavailable, "redirect", "1"},
		{simulator.Fault{Kind: simulator.FaultHuge}, wechat.Unavailable, "too_large", "1"},
		{simulator.Fault{Kind: simulator.FaultBody, Body: `{"errcode":0,"errmsg":"ok"}`}, wechat.Unavailable, "no_phone", "1"},
	} {
		t.Run(fmt.Sprint(row.fault.Kind, row.fault.Errcode), func(t *testing.T) {
			t.Parallel()
			sim, c, logged := simulated(t)
			ann := signIn(t, sim, c, "ann")
			for range 3 { // warm connections, which is where a request may be sent twice
				code, _ := sim.PhoneCode(simApp, "ann")
				if _, err := c.PhoneNumber(context.Background(), simApp, code, ann.WeChatOpenID); err != nil {
					t.Fatal(err)
				}
			}
			row.fault.Endpoint = simulator.PathPhoneNumber
			if err := sim.Inject(row.fault); err != nil {
				t.Fatal(err)
			}
			code, _ := sim.PhoneCode(simApp, "ann")
			sim.ClearRequests()
			_, err := c.PhoneNumber(context.Background(), simApp, code, ann.WeChatOpenID)
			var e *wechat.Error
			if !errors.As(err, &e) || e.Kind != row.kind || e.Reason != row.reason || !e.Sent || e.API != "getuserphonenumber" {
				t.Errorf("error %#v", err)
			}
			if got := fmt.Sprint(sim.RequestCount()); got != row.requests {
				t.Errorf("%s requests, want %s", got, row.requests)
			}
			_, number := sim.PhoneNumber("ann")
			hidden(t, fmt.Sprintf("%v %+v %#v %s", err, err, err, logged), code, number)
		})
	}
}

func TestParallelPhoneExchangesAgainstSimulator(t *testing.T) {
	sim, c, _ := simulated(t)
	ann := signIn(t, sim, c, "ann")
	var won atomic.Int32
	var calls sync.WaitGroup
	for range 20 {
		code, err := sim.PhoneCode(simApp, "ann")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			calls.Go(func() {
				_, err := c.PhoneNumber(context.Background(), simApp, code, ann.WeChatOpenID)
				var e *wechat.Error
				switch {
				case err == nil:
					won.Add(1)
				case errors.As(err, &e) && e.Code == 40029:
				default:
					t.Error(err)
				}
			})
		}
	}
	calls.Wait()
	if won.Load() != 20 {
		t.Errorf("%d numbers, want 20", won.Load())
	}
}

func TestSessionsAgainstSimulator(t *testing.T) {
	sim, c, logged := simulated(t)
	ctx := t.Context()
	s := signIn(t, sim, c, "ann")
	check := func(key secret.String, want bool) {
		t.Helper()
		if valid, err := c.CheckSession(ctx, simApp, s.WeChatOpenID, key); err != nil || valid != want {
			t.Errorf("%v, %v; want %v", valid, err, want)
		}
	}
	check(s.SessionKey, true)
	check(secret.New("AAECAwQFBgcICQoLDA0ODw=="), false)
	fresh, err := c.ResetSession(ctx, simApp, s.WeChatOpenID, s.SessionKey)
	if err != nil || fresh.Equal(s.SessionKey) || fresh.IsZero() {
		t.Fatal(err)
	}
	check(s.SessionKey, false)
	check(fresh, true)
	var e *wechat.Error
	if _, err := c.ResetSession(ctx, simApp, s.WeChatOpenID, s.SessionKey); !errors.As(err, &e) || e.Kind != wechat.SessionExpired || e.Code != 87009 {
		t.Errorf("with the old key: %v", err)
	}
	if err := sim.ExpireSessionKey(simApp, "ann"); err != nil {
		t.Fatal(err)
	}
	check(fresh, false)
	if _, err := c.ResetSession(ctx, simApp, s.WeChatOpenID, fresh); !errors.As(err, &e) || e.Kind != wechat.SessionExpired || e.Code != 87007 {
		t.Errorf("with an expired key: %v", err)
	}
	hidden(t, logged.String(), s.SessionKey.Reveal(), fresh.Reveal())
}

func TestOpenDataOfSimulator(t *testing.T) {
	sim, c, _ := simulated(t)
	s := signIn(t, sim, c, "ann")
	_, number := sim.PhoneNumber("ann")
	for kind, inside := range map[simulator.OpenDataKind]string{
		simulator.OpenDataUserInfo: `"openId":"` + s.WeChatOpenID + `"`,
		simulator.OpenDataPhone:    `"purePhoneNumber":"` + number + `"`,
	} {
		d, err := sim.OpenData(simApp, "ann", kind, 5*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := wechat.Decrypt(s.SessionKey, d.EncryptedData, d.IV, simApp, 10*time.Minute, time.Now())
		if err != nil || !strings.Contains(string(plain), inside) {
			t.Errorf("%s: %s, %v", kind, plain, err)
		}
		if _, err := wechat.Decrypt(s.SessionKey, d.EncryptedData, d.IV, simApp, 4*time.Minute, time.Now()); err != wechat.ErrOpenData {
			t.Errorf("%s that is stale: %v", kind, err)
		}
		if _, err := wechat.Decrypt(s.SessionKey, d.EncryptedData, d.IV, "wxother", 10*time.Minute, time.Now()); err != wechat.ErrOpenData {
			t.Errorf("%s of another app: %v", kind, err)
		}
		if kind == simulator.OpenDataUserInfo && !wechat.VerifyRawData(s.SessionKey, d.RawData, d.Signature) {
			t.Errorf("the signature %s is refused", d.Signature)
		}
	}
	// A login may change the key between the tap and the decryption.
	d, err := sim.OpenData(simApp, "ann", simulator.OpenDataPhone, 0)
	if err != nil {
		t.Fatal(err)
	}
	next, err := sim.RotateSessionKey(simApp, "ann")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wechat.Decrypt(secret.New(next), d.EncryptedData, d.IV, simApp, time.Minute, time.Now()); err != wechat.ErrOpenData {
		t.Errorf("with the next key: %v", err)
	}
	if _, err := wechat.Decrypt(s.SessionKey, d.EncryptedData, d.IV, simApp, time.Minute, time.Now()); err != nil {
		t.Errorf("with its own key: %v", err)
	}
}

func TestEventsOfSimulator(t *testing.T) {
	const token, aesKey = "tokenA1", "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	sim, _, _ := simulated(t)
	if err := sim.AddApp(simulator.App{AppID: "wxother", Secret: "s"}); err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]string{"plain": "", "encrypted": aesKey} {
		for _, asXML := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " xml ", asXML), func(t *testing.T) {
				r, err := wechat.NewEventReceiver(simApp, secret.New(token), secret.New(key))
				if err != nil {
					t.Fatal(err)
				}
				var got wechat.Event
				var failure error
				server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
					body, err := io.ReadAll(req.Body)
					if err != nil {
						t.Error(err)
					}
					q := req.URL.Query()
					got, failure = r.Open(wechat.PushQuery{
						Timestamp: q.Get("timestamp"), Nonce: q.Get("nonce"), Signature: q.Get("signature"), MsgSignature: q.Get("msg_signature"),
					}, body)
				}))
				defer server.Close()
				send := func(change func(*simulator.Event)) error {
					t.Helper()
					e := simulator.Event{
						URL: server.URL, AppID: simApp, User: "ann", Type: "user_authorization_revoke", RevokeInfo: wechat.RevokedPhone,
						Token: token, EncodingAESKey: key, XML: asXML,
					}
					change(&e)
					got, failure = wechat.Event{}, nil
					if _, err := sim.SendEvent(t.Context(), e); err != nil {
						t.Fatal(err)
					}
					return failure
				}
				err = send(func(*simulator.Event) {})
				if err != nil || got.Type != wechat.EventAuthorizationRevoked || got.WeChatOpenID != sim.OpenID(simApp, "ann") ||
					got.Revoked != wechat.RevokedPhone || got.AppID != simApp || time.Since(got.CreateTime) > time.Minute {
					t.Errorf("%+v, %v", got, err)
				}
				if err := send(func(e *simulator.Event) { e.Token = "tokenB2" }); err != wechat.ErrEventSignature {
					t.Errorf("another token: %v", err)
				}
				if err := send(func(e *simulator.Event) { e.Age = 6 * time.Minute }); err != wechat.ErrEventSignature {
					t.Errorf("an old push: %v", err)
				}
				if err := send(func(e *simulator.Event) { e.AppID = "wxother" }); err != wechat.ErrEventBody {
					t.Errorf("of another app: %v", err)
				}
				if key == "" {
					return
				}
				if err := send(func(e *simulator.Event) { e.EncodingAESKey = "" }); err != wechat.ErrEventBody {
					t.Errorf("a plain push: %v", err)
				}
				if err := send(func(e *simulator.Event) { e.EncodingAESKey = "B" + aesKey[1:] }); err != wechat.ErrEventBody {
					t.Errorf("another key: %v", err)
				}
			})
		}
	}
}

func TestQRCodeOfSimulator(t *testing.T) {
	sim, c, _ := simulated(t)
	for range 2 { // with a fresh and with the kept access token
		code, err := c.UnlimitedQRCode(t.Context(), simApp, wechat.QRCodeRequest{Scene: "AbCdEfGhIjKlMnOpQrStUv", Page: "pages/scan/scan"})
		if err != nil || code.MediaType != "image/jpeg" || !bytes.Contains(code.Image, []byte("pages/scan/scan?scene=AbCdEfGhIjKlMnOpQrStUv")) {
			t.Fatalf("%d bytes of %s, %v", len(code.Image), code.MediaType, err)
		}
		sim.ExpireTokens(simApp)
	}
}
