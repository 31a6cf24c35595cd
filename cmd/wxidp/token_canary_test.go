package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// TestThreat67Canaries: what WeChat tells about a person is found nowhere but
// where it was asked for, and the session_key nowhere at all.
func TestThreat67Canaries(t *testing.T) {
	t.Parallel()
	const sessionKey, openID, unionID = "canaryKey+/8t2xQ==", "canary-openid-5f1e", "canary-unionid-77c2"
	weChat := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("js_code") == "bad" {
			fmt.Fprintf(w, `{"errcode":40029,"errmsg":"canary-errmsg %s"}`, sessionKey)
			return
		}
		fmt.Fprintf(w, `{"session_key":%q,"openid":%q,"unionid":%q}`, sessionKey, openID, unionID)
	})
	s := startServer(t, manyPhones(), withWeChat(weChat), withConfig(func(yaml string) string { return "log: { level: debug }\n" + yaml }))
	out := s.Token(signInForm("canary-js-code-1", "scope", "openid profile"), phone())
	if out.Status != 200 {
		t.Fatal(out)
	}
	bad := s.Token(signInForm("bad"), phone())
	next := refresh(s, out.str("refresh_token"))
	access := next.str("access_token")
	answers := []answer{
		out, bad, next, s.Token(signInForm("canary-js-code-1"), phone()),
		s.Do(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(access), phone()),
		introspect(s, access, basic(testBackend, testBackendKey)),
		s.Do(http.MethodGet, s.Admin+"/metrics", nil),
		revoke(s, access),
	}
	s.stop() // so that everything is in the files
	places := map[string]string{"the log": s.Logs.String()}
	for i, out := range answers {
		places[fmt.Sprintf("answer %d", i)] = string(out.Body) + fmt.Sprint(out.Header)
	}
	for name, token := range map[string]string{"the access token": access, "the ID Token": next.str("id_token")} {
		places[name] = fmt.Sprint(jwtPart(t, token, 0), claims(t, token))
	}
	err := filepath.WalkDir(filepath.Join(s.Dir, "data"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		places[entry.Name()] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	places["the data"] = string(s.storedBytes())
	secrets := []string{
		sessionKey, openID, unionID, "canary-errmsg", testAppSecret, testBackendKey, "canary-js-code-1",
		out.str("refresh_token"), next.str("refresh_token"),
	}
	for place, content := range places {
		for _, secret := range secrets {
			if strings.HasPrefix(secret, "wxrt_") && strings.HasPrefix(place, "answer") {
				continue
			}
			for _, spelling := range []string{secret, url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret))} {
				if strings.Contains(content, spelling) {
					t.Errorf("%s holds %q", place, secret)
				}
			}
		}
	}
}

// TestThreat66ChangedUnionID: a mini-program that moved to another account
// brings other unionids; its users stay who they are.
func TestThreat66ChangedUnionID(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	weChat := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"session_key":"k","openid":"o1","unionid":"u%d"}`, calls.Add(1))
	})
	s := startServer(t, manyPhones(), withWeChat(weChat))
	first := s.Token(signInForm("c1"), phone())
	second := s.Token(signInForm("c2"), phone())
	if first.Status != 200 || second.Status != 200 || subject(t, first) != subject(t, second) || countUsers(s) != 1 {
		t.Fatalf("%v\n%v", first, second)
	}
	if line := eventOf(s, second, "identity.conflict"); line["sub"] != subject(t, first) || line["other_sub"] != "" {
		t.Errorf("log line %v", line)
	}
}

// TestThreat65SameOpenIDTwoApps: the same text is two people in two apps.
func TestThreat65SameOpenIDTwoApps(t *testing.T) {
	t.Parallel()
	weChat := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"session_key":"k","openid":"same"}`)
	})
	s := startServer(t, manyPhones(), withWeChat(weChat))
	first := s.Token(signInForm("c1"), phone())
	second := s.Token(pairs("grant_type", "wechat_jscode", "client_id", "shop-mini-2", "js_code", "c1"), phone())
	if first.Status != 200 || second.Status != 200 || subject(t, first) == subject(t, second) {
		t.Fatalf("%v\n%v", first, second)
	}
}
