package provider

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// encode is the one spelling of a parsed refresh token.
func (t parsedRefreshToken) encode() string {
	raw := append([]byte{refreshTokenVersion}, t.familyID[:]...)
	raw = binary.BigEndian.AppendUint32(raw, t.generation)
	raw = binary.BigEndian.AppendUint32(raw, t.macKeyID)
	return refreshTokenPrefix + base64.RawURLEncoding.EncodeToString(append(raw, t.mac[:]...))
}

// FuzzParseRefreshToken: what parses is the only spelling of its bytes.
func FuzzParseRefreshToken(f *testing.F) {
	valid := parsedRefreshToken{generation: 7, macKeyID: 1}.encode()
	for _, seed := range []string{
		valid, valid[:len(valid)-1], valid + "A", valid + "=", valid[:30] + "\n" + valid[31:], valid[:30] + "\r\n" + valid[32:], "wxrt_", "", "WXRT_" + valid[5:],
		refreshTokenPrefix + strings.Repeat("A", 76), refreshTokenPrefix + strings.Repeat("_", 76), strings.Repeat("é", 40),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		parsed, ok := parseRefreshToken(token)
		if ok && parsed.encode() != token {
			t.Errorf("%q is a second spelling of %q", token, parsed.encode())
		}
		if !ok && parsed != (parsedRefreshToken{}) {
			t.Errorf("%q was refused and left %+v", token, parsed)
		}
		if round, ok := parseRefreshToken(parsed.encode()); !ok || round != parsed {
			t.Errorf("%q does not survive encoding", token)
		}
	})
}

// FuzzAccessToken: only what was issued is a token.
func FuzzAccessToken(f *testing.F) {
	b := newBench(f)
	issued := b.signIn("alice:1")
	parts := strings.Split(issued.AccessToken, ".")
	for _, seed := range []string{
		issued.AccessToken, issued.IDToken, issued.RefreshToken, "", ".", "..", "...", "e30.e30.e30", issued.AccessToken + ".", parts[0] + "." + parts[1] + ".",
		base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := b.parseAccessToken(context.Background(), token, time.Now()); err == nil && token != issued.AccessToken {
			t.Errorf("accepted %q", token)
		}
	})
}

// FuzzTokenRequest: no form makes the token endpoint fail by its own fault, and
// none that was refused gets anything.
func FuzzTokenRequest(f *testing.F) {
	b := newBench(f, func(s *Settings) { s.FailedClientAuthPerMinute = 0 })
	signedIn := b.signIn("alice:1")
	for _, seed := range []string{
		"grant_type=wechat_jscode&client_id=shop-mini&js_code=alice:2", "grant_type=wechat_jscode&client_id=shop-mini&js_code=junk&scope=openid+profile&nonce=n",
		"grant_type=refresh_token&client_id=shop-mini&refresh_token=" + signedIn.RefreshToken, "grant_type=client_credentials&client_id=api&client_secret=api-secret",
		"grant_type=refresh_token&client_id=shop-mini&refresh_token=wxrt_AAAA&scope=openid&resource=api&resource=api&audience=api",
		"grant_type=wechat_jscode&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=e30.e30.e30",
		"grant_type=&grant_type=x", "", "&&&", "=", "client_id=%00", "grant_type=wechat_jscode&client_id=shop-mini&js_code=alice:3&ui_locales=zh",
	} {
		f.Add(seed, "", "")
		f.Add(seed, "Basic YXBpOmFwaS1zZWNyZXQ=", "key-1")
	}
	f.Fuzz(func(t *testing.T, body, authorization, key string) {
		values, err := url.ParseQuery(body)
		if err != nil || !utf8.ValidString(body) {
			return // the front refuses these
		}
		r := httptest.NewRequest(http.MethodPost, PathToken, nil)
		r.Form, r.PostForm = values, values
		if authorization != "" {
			r.Header["Authorization"] = []string{authorization}
		}
		if key != "" {
			r.Header["Idempotency-Key"] = []string{key}
		}
		out, err := b.Token(context.Background(), Request{HTTP: r, RemoteIP: netip.MustParseAddr("192.0.2.1")})
		if err == nil {
			if out.AccessToken == "" || out.Scope == "" && out.GrantType != GrantClientCredentials {
				t.Errorf("%q: %+v", body, out)
			}
			return
		}
		refusal := AsError(err)
		if refusal.Status >= http.StatusInternalServerError || refusal.Status < 400 || refusal.Message.EN == "" || refusal.Message.ZH == "" || refusal.LogReason == "" {
			t.Errorf("%q: %+v", body, refusal)
		}
		if out == nil || out.AccessToken != "" || out.RefreshToken != "" || out.IDToken != "" {
			t.Errorf("%q was refused with %+v", body, out)
		}
	})
}
