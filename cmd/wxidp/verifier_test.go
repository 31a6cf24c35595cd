package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const testVerifierSecret = "canary-vf-8Kd0sLq3Zx7Wn5Tb1Rm9Yh2Gc4"

// productAccounts is a product's own account system: ann with "right" is 42,
// and her roles grow with each call.
type productAccounts struct {
	*httptest.Server
	calls  atomic.Int32
	status atomic.Int32 // other than 0: the answer to everything
	hang   chan struct{}
}

func startProductAccounts(t *testing.T) *productAccounts {
	p := &productAccounts{hang: make(chan struct{})}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		stamp, signature, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Wxidp-Signature"), "t="), ",v1=")
		mac := hmac.New(sha256.New, []byte(testVerifierSecret))
		mac.Write([]byte(stamp + "." + string(body)))
		if hex.EncodeToString(mac.Sum(nil)) != signature {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		p.calls.Add(1)
		switch status := p.status.Load(); status {
		case 0:
		case -1:
			select {
			case <-p.hang:
			case <-r.Context().Done():
			}
			return
		default:
			w.WriteHeader(int(status))
			return
		}
		var q struct{ Username, Password string }
		if err := json.Unmarshal(body, &q); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if q.Username != "ann" || q.Password != testPassword {
			_, _ = w.Write([]byte(`{"ok":false}`))
			return
		}
		_, _ = w.Write([]byte(`{"ok":true,"external_id":"42","nickname":"Ann","roles":["buyer","vip"],"claims":{"tier":"gold","tenant":{"id":7}}}`))
	}))
	t.Cleanup(func() { close(p.hang); p.Close() })
	return p
}

// withVerifier has the server ask p for passwords.
func (p *productAccounts) withVerifier() serverOption {
	return withConfig(func(yaml string) string {
		yaml = strings.Replace(yaml, "roles, external_id, orders.read]", "roles, external_id, tier, tenant, orders.read]", 1)
		return "accounts: {verifier: {url: \"" + p.URL + "/verify\", secret: " + testVerifierSecret + ", timeout: 500ms}}\n" + yaml
	})
}

// TestVerifier: the product's own account system names the account, and its
// roles and claims are in the tokens of those who may ask for them.
func TestVerifier(t *testing.T) {
	t.Parallel()
	product := startProductAccounts(t)
	s := startServer(t, manyPhones(), product.withVerifier())
	bare := sub(t, signIn(s, "ann"))

	out := tryBind(s, "ann", "ann", testPassword, "scope", "openid profile roles tier external_id orders.read")
	id := sub(t, out)
	if id == bare {
		t.Error("the bare user became the account: a sub must not change its meaning")
	}
	info := s.UserInfo(out.str("access_token"))
	for name, set := range map[string]map[string]any{
		"access token": claims(t, out.str("access_token")), "ID Token": claims(t, out.str("id_token")),
		"UserInfo": info.JSON, "introspection": s.Introspect(out.str("access_token")).JSON,
	} {
		if roles := list(set["roles"]); len(roles) != 2 || roles[1] != "vip" || set["tier"] != "gold" || set["external_id"] != "42" || set["tenant"] != nil {
			t.Errorf("%s: %v", name, set)
		}
	}
	if info.str("nickname") != "Ann" {
		t.Errorf("profile of a new account: %v", info)
	}
	// A silent sign-in asks nobody; what its scopes do not name is not told.
	calls := product.calls.Load()
	silent := signIn(s, "ann")
	if sub(t, silent) != id || product.calls.Load() != calls {
		t.Errorf("silent sign-in: %v, %d calls", silent, product.calls.Load()-calls)
	}
	if set := claims(t, silent.str("access_token")); set["roles"] != nil || set["tier"] != nil || set["external_id"] != nil {
		t.Errorf("claims that nobody asked for: %v", set)
	}
	tenant := refresh(s, signIn(s, "ann", "scope", "openid tenant roles").str("refresh_token"))
	if set, _ := claims(t, tenant.str("access_token"))["tenant"].(map[string]any); set["id"] != 7.0 {
		t.Errorf("after a refresh: %v", claims(t, tenant.str("access_token")))
	}
	narrowed := refresh(s, tenant.str("refresh_token"), "scope", "openid")
	if set := claims(t, narrowed.str("access_token")); set["tenant"] != nil || set["roles"] != nil {
		t.Errorf("a narrowed refresh: %v", set)
	}
	// The same account on a second device is refused, to nobody's knowledge whose it is.
	refused(t, tryBind(s, "eve", "ann", testPassword), http.StatusConflict, "already_bound")
	refused(t, tryBind(s, "eve", "ann", "wrong"), http.StatusBadRequest, "invalid_grant")
	refused(t, tryBind(s, "eve", "nobody", "wrong"), http.StatusBadRequest, "invalid_grant")
	// The product's password is a way in, so the WeChat user may go, and come
	// back.
	if out := unbind(s, silent.str("access_token"), "username", "ann", "password", testPassword); out.Status != http.StatusOK {
		t.Errorf("unbinding by the product's password: %v", out)
	}
	if userInfoOK(s, silent.str("access_token")) || sub(t, tryBind(s, "eve", "ann", testPassword)) != id {
		t.Error("the account is not free for another WeChat user")
	}
	// Without the verifier, accounts are those kept here.
	tenant = signIn(s, "eve", "scope", "openid tenant roles")
	if list(claims(t, tenant.str("access_token"))["roles"]) == nil {
		t.Errorf("%v", tenant)
	}
	reload(s, "url: \""+product.URL+"/verify\", secret: "+testVerifierSecret+", ", "")
	if set := claims(t, refresh(s, tenant.str("refresh_token")).str("access_token")); set["roles"] != nil || set["tenant"] != nil {
		t.Errorf("claims of an account system that is no more: %v", set)
	}
	calls = product.calls.Load()
	refused(t, tryBind(s, "carol", "ann", testPassword), http.StatusBadRequest, "invalid_grant")
	if product.calls.Load() != calls {
		t.Error("the product was asked after its verifier had been removed")
	}
}

// TestThreat52VerifierDown: an account system that is out of order says nothing
// about the password, to nobody.
func TestThreat52VerifierDown(t *testing.T) {
	t.Parallel()
	product := startProductAccounts(t)
	s := startServer(t, manyPhones(), product.withVerifier())
	for name, status := range map[string]int32{"5xx": 500, "401": 401, "404": 404, "hang": -1} {
		product.status.Store(status)
		calls := product.calls.Load()
		start := time.Now()
		out := tryBind(s, "ann", "ann", testPassword)
		refused(t, out, http.StatusServiceUnavailable, "temporarily_unavailable")
		if out.Header.Get("Retry-After") == "" || product.calls.Load() != calls+1 {
			t.Errorf("%s: %v, %d calls", name, out.Header, product.calls.Load()-calls)
		}
		if elapsed := time.Since(start); elapsed > 5*time.Second {
			t.Errorf("%s took %s", name, elapsed)
		}
	}
	if n := len(s.Logs.Events("verifier.error")); n != 4 {
		t.Errorf("%d verifier.error", n)
	}
	product.status.Store(0)
	for range 12 { // from other addresses: what failed here counts nowhere but there
		if out := tryBind(s, "ann", "ann", testPassword); out.Status != http.StatusOK {
			t.Fatalf("afterwards: %v", out)
		}
	}
	for _, canary := range []string{testPassword, testVerifierSecret, product.URL} {
		if strings.Contains(s.Logs.String(), canary) {
			t.Errorf("the log holds %s", canary)
		}
	}
}
