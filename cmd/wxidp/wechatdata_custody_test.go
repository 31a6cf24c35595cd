package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wxidp/wxidp/wechat/simulator"
)

// TestThreat67NotKept: where no backend may use a session_key, none is kept;
// one for another audience may not.
func TestThreat67NotKept(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), appending("  - { client_id: data-stock, type: confidential, client_secret: "+dataClientKey+
		", scopes: [wechat.data], audience: [https://stock.example] }\n"))
	signIn(s, "alice")
	if keys, _ := custody(s, "alice"); len(keys) != 0 {
		t.Errorf("%d session_keys are kept for nobody", len(keys))
	}
	token := signIn(s, "bob").str("access_token")
	config := s.Config()
	s.WriteConfig(config + "  - { client_id: data-api, type: confidential, client_secret: " + dataClientKey + ", scopes: [wechat.data], audience: [" + testAudience + "] }\n")
	eventually(t, "reload", func() bool { return len(s.Logs.Events("config.applied")) > 0 })
	data := openData(s, "bob", simulator.OpenDataUserInfo, 0)
	for _, out := range []answer{decrypt(s, token, data), useData(s, "check-session", token), useData(s, "reset-session", token)} {
		refused(t, out, 409, "session_key_expired")
		if line := eventOf(s, out, "wechat_data.used"); line["result"] != "no_session_key" {
			t.Errorf("log line %v", line)
		}
	}
	if n := calls(s, simulator.PathCheckSession); n != 0 {
		t.Errorf("WeChat was asked %d times about no key", n)
	}
	again := signIn(s, "bob").str("access_token")
	if out := decrypt(s, again, data); out.Status != 200 {
		t.Errorf("after a new sign-in: %v", out)
	}
	// With the last client that may use them, the keys go.
	s.WriteConfig(strings.Replace(config, "scopes: [wechat.data]", "scopes: [other], grant_types: [client_credentials]", 1))
	eventually(t, "the keys are forgotten", func() bool { keys, _ := custody(s, "bob"); return len(keys) == 0 })
	s.WriteConfig(config + "  - { client_id: data-api, type: confidential, client_secret: " + dataClientKey + ", scopes: [wechat.data], audience: [" + testAudience + "] }\n")
	eventually(t, "reload", func() bool { return len(s.Logs.Events("config.applied")) > 2 })
	refused(t, useData(s, "check-session", again), 409, "session_key_expired")
}

// TestThreat67Canary: a session_key is nowhere but sealed in the data file.
func TestThreat67Canary(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withDataClients(), withDataLimit(1000), withConfig(func(yaml string) string { return "log: { level: debug }\n" + yaml }))
	var answers bytes.Buffer
	keep := func(out answer) answer {
		fmt.Fprintf(&answers, "%d %v\n%s\n", out.Status, out.Header, out.Body)
		return out
	}
	user := keep(signIn(s, "alice", "scope", "openid profile wechat"))
	token := user.str("access_token")
	for range 3 {
		keep(useData(s, "reset-session", token))
		data := openData(s, "alice", simulator.OpenDataUserInfo, 0)
		if out := keep(decrypt(s, token, data)); out.Status != 200 {
			t.Fatal(out)
		}
		keep(useData(s, "verify-signature", token, "rawData", data.RawData, "signature", data.Signature))
		keep(useData(s, "check-session", token))
	}
	keys, _ := custody(s, "alice")
	for _, data := range badOpenData(t, s, "alice", keys[0]) {
		keep(decrypt(s, token, data))
	}
	for _, kind := range []simulator.FaultKind{simulator.FaultErrcode, simulator.FaultReset, simulator.FaultHTML, simulator.FaultTruncate} {
		if err := s.Sim.Inject(simulator.Fault{Kind: kind, Errcode: 40003, Endpoint: simulator.PathResetSession, Count: 1}); err != nil {
			t.Fatal(err)
		}
		if out := keep(useData(s, "reset-session", token)); out.Status < 500 {
			t.Errorf("%s: %v", kind, out)
		}
		token = keep(signIn(s, "alice")).str("access_token")
	}
	keep(s.UserInfo(token))
	keep(introspect(s, token, basic(testBackend, testBackendKey)))
	if _, err := s.Sim.RotateSessionKey(testAppID, "alice"); err != nil {
		t.Fatal(err)
	}
	keep(useData(s, "check-session", token))
	keep(decrypt(s, token, simulator.OpenData{EncryptedData: "?", IV: "?"}))
	metrics := keep(s.Do(http.MethodGet, s.Admin+"/metrics", nil))
	keys, identity := custody(s, "alice")
	if len(keys) != 2 {
		t.Fatalf("%d keys in custody", len(keys))
	}
	s.stop()
	secrets := canaries{"newest": keys[0], "older": keys[1]}
	secrets.absent(t, "the answers", answers.Bytes())
	secrets.absent(t, "the metrics", metrics.Body)
	secrets.absent(t, "the log", []byte(s.Logs.String()))
	if checkLogLines(t, s.Logs.String()) < 20 || len(s.Logs.Events("wechat_data.used")) < 20 {
		t.Error("the log is not what was searched")
	}
	file := s.storedBytes()
	if !bytes.Contains(file, identity[:]) {
		t.Error("the data file is not what was searched")
	}
	secrets.absent(t, "the data file", file)
}

// TestWeChatDataConcurrentResets: each reset replaces the key that the one
// before it brought.
func TestWeChatDataConcurrentResets(t *testing.T) {
	t.Parallel()
	s := startServer(t, manyPhones(), withDataClients(), withDataLimit(1000))
	token := signIn(s, "alice").str("access_token")
	var failed failures
	parallel(8, func(int) {
		out, err := s.try(http.MethodPost, s.Issuer+"/wechat/reset-session", pairs("access_token", token), basic("data-api", dataClientKey))
		if err != nil || out.Status != 200 {
			failed.add(fmt.Sprint(out, err))
		}
	})
	failed.report(t, "resets")
	if out := decrypt(s, token, openData(s, "alice", simulator.OpenDataUserInfo, 0)); out.Status != 200 {
		t.Errorf("%v", out)
	}
	if n := calls(s, simulator.PathResetSession); n != 8 {
		t.Errorf("%d resets", n)
	}
}

// TestDocumentedWeChatData runs the backend of the documentation.
func TestDocumentedWeChatData(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	t.Parallel()
	s := startServer(t, manyPhones(), withDataLimit(1000), replacing("scopes: [orders.read, orders.write]", "scopes: [orders.read, orders.write, wechat.data]"))
	for _, doc := range []string{"wechat-data.md", "wechat-data.zh-CN.md"} {
		t.Run(doc, func(t *testing.T) {
			token := signIn(s, "alice").str("access_token")
			listen := freeAddress(t)
			program := buildSnippet(t, strings.NewReplacer("http://127.0.0.1:8080", s.Issuer, "127.0.0.1:3000", listen).
				Replace(codeBlock(t, filepath.Join("..", "..", "docs", doc), "go-decrypt")))
			ctx, cancel := context.WithCancel(context.Background())
			cmd := exec.CommandContext(ctx, program)
			cmd.Env = append(os.Environ(), "ORDERS_API_SECRET="+testBackendKey)
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { cancel(); _ = cmd.Wait() }() // killed: its status says nothing
			address := "http://" + listen + "/open-data"
			eventually(t, "the program listens", func() bool {
				_, err := s.try(http.MethodGet, address, nil)
				return err == nil
			})
			ask := func(token string, data simulator.OpenData) answer {
				return s.Do(http.MethodPost, address, pairs("encryptedData", data.EncryptedData, "iv", data.IV), bearer(token))
			}
			data := openData(s, "alice", simulator.OpenDataUserInfo, 0)
			if out := ask(token, data); out.Status != 200 || out.str("openId") != s.Sim.OpenID(testAppID, "alice") {
				t.Errorf("%v", out)
			}
			if out := ask(token+"x", data); out.Status != 409 {
				t.Errorf("another token: %v", out)
			}
			if out := ask(token, simulator.OpenData{EncryptedData: "?", IV: "?"}); out.Status != 502 {
				t.Errorf("bad data: %v", out)
			}
		})
	}
}
