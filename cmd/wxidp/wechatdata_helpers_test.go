package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat/simulator"
)

const dataClientKey = "canary-data-Zk3vQ8pL1xW6tR9uY2sD5fG7hJ"

// withDataClients adds a backend that may use WeChat data, one that may for
// another audience, and one for both.
func withDataClients() serverOption {
	backend := func(id, audience string) string {
		return "  - { client_id: " + id + ", type: confidential, client_secret: " + dataClientKey + ", scopes: [wechat.data], audience: [" + audience + "] }\n"
	}
	return appending(backend("data-api", testAudience) + backend("data-stock", "https://stock.example") +
		backend("data-both", "https://stock.example, "+testAudience))
}

// withDataLimit changes how often one user's session_key may be used.
func withDataLimit(perMinute int) serverOption {
	return withConfig(func(yaml string) string {
		return fmt.Sprintf("rate_limits: { wechat_data_per_user_per_minute: %d }\n", perMinute) + yaml
	})
}

// useData asks as data-api.
func useData(s *testServer, operation, accessToken string, more ...string) answer {
	s.t.Helper()
	return useDataAs(s, operation, basic("data-api", dataClientKey), append([]string{"access_token", accessToken}, more...)...)
}

func useDataAs(s *testServer, operation string, as func(*http.Request), more ...string) answer {
	s.t.Helper()
	return s.Do(http.MethodPost, s.Issuer+"/wechat/"+operation, pairs(more...), as, phone())
}

func decrypt(s *testServer, accessToken string, data simulator.OpenData) answer {
	s.t.Helper()
	return useData(s, "decrypt", accessToken, "encryptedData", data.EncryptedData, "iv", data.IV)
}

// openData is what WeChat gives to a mini-program.
func openData(s *testServer, user string, kind simulator.OpenDataKind, age time.Duration) simulator.OpenData {
	s.t.Helper()
	data, err := s.Sim.OpenData(testAppID, user, kind, age)
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

// custody returns the session_keys of a user in the store, newest first.
func custody(s *testServer, user string) (keys []string, identity storage.Digest) {
	s.t.Helper()
	_, identity, err := s.parts.store.IdentityUser(context.Background(), testAppID, s.Sim.OpenID(testAppID, user))
	if err != nil {
		s.t.Fatal(err)
	}
	kept, err := s.parts.store.SessionKeys(context.Background(), identity)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, key := range kept {
		keys = append(keys, key.Value.Reveal())
	}
	return keys, identity
}

const craftedIV = "EBESExQVFhcYGRobHB0eHw=="

// craft encrypts a plaintext as WeChat would, with a padding of one's choice.
func craft(t testing.TB, sessionKey, plain string, padding []byte) simulator.OpenData {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(sessionKey)
	if err != nil {
		t.Fatal(err)
	}
	iv, err := base64.StdEncoding.DecodeString(craftedIV)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	b := []byte(plain)
	if padding == nil {
		n := 16 - len(b)%16
		padding = bytes.Repeat([]byte{byte(n)}, n)
	}
	if b = append(b, padding...); len(b)%16 != 0 {
		t.Fatalf("%d bytes are no whole blocks", len(b))
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(b, b)
	return simulator.OpenData{EncryptedData: base64.StdEncoding.EncodeToString(b), IV: craftedIV}
}

// calls counts the requests that WeChat saw on a path.
func calls(s *testServer, path string) (n int) {
	for _, r := range s.Sim.Requests() {
		if r.Path == path {
			n++
		}
	}
	return n
}
