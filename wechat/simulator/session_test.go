package simulator

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func sessionCall(s *Simulator, path, token, openid, key string) string {
	return get(s, path+"?"+url.Values{
		"access_token": {token}, "openid": {openid}, "signature": {signature(key)}, "sig_method": {"hmac_sha256"},
	}.Encode()).Body.String()
}

func TestSignatureVector(t *testing.T) {
	if got := signature("AAECAwQFBgcICQoLDA0ODw=="); got != "75c022993d64e3ac224c1c9d6f2b4c6eb53f22f6c7aa6be94428577d11d12fd5" {
		t.Error(got)
	}
}

func TestCheckAndResetSession(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.RotateAfter = -1 })
	token, _ := stable(t, s, "")
	openid, key := s.OpenID(testApp, "ann"), sessionKey(t, s, testApp, "ann")
	const ok = `{"errcode":0,"errmsg":"ok"}`
	if got := sessionCall(s, PathCheckSession, token, openid, key); got != ok {
		t.Error(got)
	}
	_ = s.Advance(time.Hour)
	got := sessionCall(s, PathResetSession, token, openid, key)
	fresh := s.apps[testApp].members["ann"].sessionKey
	if want := fmt.Sprintf(`{"errcode":0,"errmsg":"ok","openid":"%s","session_key":"%s"}`, openid, fresh); got != want || fresh == key {
		t.Errorf("%s, want %s", got, want)
	}
	if got := blank(sessionCall(s, PathCheckSession, token, openid, key)); got != `{"errcode":87009,"errmsg":"invalid signature rid: RID"}` {
		t.Errorf("the old key: %s", got)
	}
	if got := sessionCall(s, PathCheckSession, token, openid, fresh); got != ok {
		t.Errorf("the new key: %s", got)
	}
	// The new key ends when the old one would have.
	_ = s.Advance(sessionKeyLife - time.Hour + time.Second)
	token, _ = stable(t, s, "")
	for path, want := range map[string]string{
		PathCheckSession: `{"errcode":87009,"errmsg":"invalid signature rid: RID"}`,
		PathResetSession: `{"errcode":87007,"errmsg":"session_key is not existd or expired rid: RID"}`,
	} {
		if got := blank(sessionCall(s, path, token, openid, fresh)); got != want {
			t.Errorf("%s of an expired key: %s", path, got)
		}
	}
}

func TestSessionErrors(t *testing.T) {
	s := newSimulator(t)
	token, _ := stable(t, s, "")
	openid, key := s.OpenID(testApp, "ann"), sessionKey(t, s, testApp, "ann")
	sessionKey(t, s, otherApp, "eve")
	for _, path := range []string{PathCheckSession, PathResetSession} {
		q := func(change ...string) string {
			v := url.Values{"access_token": {token}, "openid": {openid}, "signature": {signature(key)}, "sig_method": {"hmac_sha256"}}
			for i := 0; i < len(change); i += 2 {
				v.Set(change[i], change[i+1])
			}
			return path + "?" + v.Encode()
		}
		for target, want := range map[string]int{
			q("access_token", ""):                      41001,
			q("access_token", "x"):                     40014,
			q("access_token", newToken()):              40001,
			q("openid", ""):                            41009,
			q("openid", "onobody"):                     40003,
			q("openid", s.OpenID(otherApp, "eve")):     40003, // of another app
			q("sig_method", ""):                        87008,
			q("sig_method", "sha1"):                    87008,
			q("signature", ""):                         87009,
			q("signature", signature("another")):       87009,
			q("signature", strings.Repeat("0", 64)):    87009,
			q("signature", "X"+signature(key)[1:]):     87009,
			q("sig_method", "x", "access_token", "  "): 40014,
		} {
			w := get(s, target)
			if got := errcodeOf(t, w.Body.String()); got != want || w.Code != 200 {
				t.Errorf("%s: %s, want %d", target, w.Body, want)
			}
			if ct := w.Header().Get("Content-Type"); ct != "application/json; encoding=utf-8" {
				t.Errorf("Content-Type %q", ct)
			}
		}
		if got := errcodeOf(t, do(s, httptest.NewRequest("POST", q(), nil)).Body.String()); got != 43001 {
			t.Errorf("POST %s: %d", path, got)
		}
		if err := s.Inject(Fault{Kind: FaultErrcode, Errcode: 45011, Count: 1, Endpoint: path}); err != nil {
			t.Fatal(err)
		}
		if got := errcodeOf(t, get(s, q()).Body.String()); got != 45011 {
			t.Errorf("the fault: %d", got)
		}
	}
	// None of them touched the key.
	if got := errcodeOf(t, sessionCall(s, PathCheckSession, token, openid, key)); got != 0 {
		t.Errorf("the right key: %d", got)
	}
	log := s.Requests()
	if last := log[len(log)-1]; last.AppID != testApp || last.Path != PathCheckSession {
		t.Errorf("entry %+v", last)
	}
}

func TestResetSessionEscapesSlashes(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Apps[0].EscapeSlashes = true })
	token, _ := stable(t, s, "")
	key := sessionKey(t, s, testApp, "ann")
	for range 200 { // until a key has a slash
		body := sessionCall(s, PathResetSession, token, s.OpenID(testApp, "ann"), key)
		key = s.apps[testApp].members["ann"].sessionKey
		if strings.Contains(key, "/") {
			if !strings.Contains(body, `\/`) || errcodeOf(t, body) != 0 {
				t.Errorf("slashes are not escaped: %s", body)
			}
			return
		}
	}
	t.Error("no key of 200 had a slash")
}
