package accounts_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/internal/secret"
)

// checkPassword stands for the product's own look-up in its own database.
func checkPassword(username, password string) (id string, ok bool) {
	return "42", username == "ann" && password == "correct horse"
}

// verifierHandler is all that a product has to serve.
func verifierHandler(key string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16<<10))
		t, signature, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Wxidp-Signature"), "t="), ",v1=")
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write([]byte(t + "." + string(body)))
		sent, _ := strconv.ParseInt(t, 10, 64)
		age := time.Since(time.Unix(sent, 0)).Abs()
		if err != nil || !hmac.Equal([]byte(signature), []byte(hex.EncodeToString(mac.Sum(nil)))) || age > 5*time.Minute {
			http.Error(w, "bad signature", http.StatusUnauthorized)
			return
		}
		var q struct{ Username, Password string }
		if json.Unmarshal(body, &q) != nil {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		answer := map[string]any{"ok": false}
		if id, ok := checkPassword(q.Username, q.Password); ok {
			answer = map[string]any{"ok": true, "external_id": id, "nickname": "Ann",
				"roles": []string{"buyer"}, "claims": map[string]any{"tier": "gold"}}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}
}

// A product's own account system answers whether a password is right.
func ExampleVerifier() {
	const key = "a random secret of 32 bytes or more"
	product := httptest.NewServer(verifierHandler(key))
	defer product.Close()

	verifier, err := accounts.NewVerifier(accounts.VerifierOptions{URL: product.URL + "/verify", Secret: secret.New(key)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer verifier.Close()
	for _, password := range []string{"correct horse", "wrong"} {
		answer, err := verifier.Verify(context.Background(), accounts.Question{
			Username: "ann", Password: secret.New(password), ClientID: "shop-mini", RequestID: "r1",
		})
		fmt.Println(answer.ExternalID, answer.Attributes.Roles, answer.Attributes.Claims, err)
	}

	// Output:
	// 42 [buyer] map[tier:"gold"] <nil>
	//  [] map[] accounts: wrong_credentials: refused
}
