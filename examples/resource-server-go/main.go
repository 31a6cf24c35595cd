// The orders API. What a good access token is stands in tokens.go.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	issuer, audience, port := os.Getenv("ISSUER"), os.Getenv("AUDIENCE"), os.Getenv("PORT")
	if issuer == "" || audience == "" {
		return errors.New("ISSUER and AUDIENCE must be set")
	}
	if port == "" {
		port = "3000"
	}
	api := api{tokens: newAccessTokens(issuer, audience)}
	server := &http.Server{
		Addr:              "127.0.0.1:" + port,
		Handler:           api.routes(),
		ReadHeaderTimeout: 5 * time.Second,
	}
	return server.ListenAndServe()
}

type api struct {
	tokens *accessTokens
}

func (a api) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders", a.require("orders.read", func(c claims) any {
		return map[string]any{"sub": c.Subject, "orders": []map[string]string{{"id": "1001", "item": "tea"}}}
	}))
	mux.HandleFunc("GET /me", a.require("", func(c claims) any {
		return map[string]string{"sub": c.Subject, "client_id": c.ClientID}
	}))
	return mux
}

// require answers requests whose access token carries the scope; an empty one
// asks for no scope.
func (a api) require(scope string, answer func(claims) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token := bearer(r)
		if token == "" {
			refuse(w, http.StatusUnauthorized, "")
			return
		}
		c, err := a.tokens.verify(token)
		switch {
		case errors.Is(err, errKeysUnavailable):
			log.Print(err)
			w.Header().Set("Retry-After", "5")
			write(w, http.StatusServiceUnavailable, map[string]string{"error": "temporarily_unavailable"})
		case err != nil:
			refuse(w, http.StatusUnauthorized, "invalid_token")
		case scope != "" && !slices.Contains(strings.Fields(c.Scope), scope):
			refuse(w, http.StatusForbidden, "insufficient_scope", "scope", scope)
		default:
			write(w, http.StatusOK, answer(c))
		}
	}
}

// bearer returns the token of the header. A token in the URL or the body counts
// as none: RFC 6750 §2.2 and §2.3 are optional.
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// refuse answers with the challenge of RFC 6750 §3; more are further parameters
// of it, names and values in turn. No code means that there was no token.
func refuse(w http.ResponseWriter, status int, code string, more ...string) {
	challenge := `Bearer realm="orders"`
	if code != "" {
		challenge += fmt.Sprintf(", error=%q", code)
	}
	for i := 0; i+1 < len(more); i += 2 {
		challenge += fmt.Sprintf(", %s=%q", more[i], more[i+1])
	}
	w.Header().Set("WWW-Authenticate", challenge)
	body := map[string]string{}
	if code != "" {
		body["error"] = code
	}
	write(w, status, body)
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Printf("answering: %v", err)
	}
}
