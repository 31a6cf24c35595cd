package provider

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// party is a client's server on loopback.
type party struct {
	*httptest.Server
	connections atomic.Int32
}

// newParty serves https with handler, and counts connections.
func newParty(t *testing.T, handler http.HandlerFunc) *party {
	t.Helper()
	p := &party{Server: httptest.NewUnstartedServer(handler)}
	p.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			p.connections.Add(1)
		}
	}
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

// trust makes the bench send logout tokens to a party by the real transport.
func (b *bench) trust(p *party) (outcomes chan string) {
	pool := x509.NewCertPool()
	pool.AddCert(p.Certificate())
	outcomes = make(chan string, 16)
	b.logouts = b.newLogouts(Options{LogoutRootCAs: pool, ObserveLogout: func(outcome string, _ time.Duration) { outcomes <- outcome }})
	return outcomes
}

var loopbackNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func toldAt(uri, alg string, networks []netip.Prefix) func(*Settings) {
	return func(settings *Settings) {
		logoutClientsOf(settings)
		settings.Logout = Logout{AllowedNetworks: networks, Timeout: 5 * time.Second}
		for i := range settings.Clients {
			if settings.Clients[i].ID == webClient {
				settings.Clients[i].BackchannelLogoutURI, settings.Clients[i].IDTokenAlg = uri, alg
			}
		}
	}
}

func receive[T any](t *testing.T, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
	}
	return value
}

// TestBackchannelLogout follows a logout from the browser to the client, which
// verifies the token with another library.
func TestBackchannelLogout(t *testing.T) {
	for _, alg := range []string{"ES256", "RS256"} {
		t.Run(alg, func(t *testing.T) {
			type post struct {
				request *http.Request
				form    url.Values
			}
			posts := make(chan post, 4)
			rp := newParty(t, func(_ http.ResponseWriter, r *http.Request) {
				err := r.ParseForm()
				if err != nil {
					t.Error(err)
				}
				posts <- post{r, r.PostForm}
			})
			b := newBench(t, toldAt(rp.URL+"/backchannel?tenant=1", alg, loopbackNetworks))
			outcomes := b.trust(rp)
			lb := &logoutBench{bench: b}
			defer lb.run()()
			alice := b.browser("alice")
			family := alice.join(webClient)
			if _, err := alice.end(form("id_token_hint", b.hint(family, nil))); err != nil {
				t.Fatal(err)
			}
			got := receive(t, posts)
			if outcome := receive(t, outcomes); outcome != logoutOK {
				t.Errorf("outcome %s", outcome)
			}
			if got.request.Method != http.MethodPost || got.request.URL.RequestURI() != "/backchannel?tenant=1" || len(got.form) != 1 ||
				len(got.form["logout_token"]) != 1 || got.request.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
				t.Errorf("request %s %s %v %v", got.request.Method, got.request.URL, got.request.Header, got.form)
			}
			checkLogoutToken(t, b, got.form.Get("logout_token"), alg, family)
		})
	}
}

func checkLogoutToken(t *testing.T, b *bench, raw, alg string, family storage.Family) {
	t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(b.ring.JWKS().Body, &set); err != nil {
		t.Fatal(err)
	}
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		t.Fatal(err)
	}
	header := token.Headers[0]
	if header.ExtraHeaders[jose.HeaderType] != "logout+jwt" {
		t.Errorf("typ %v", header.ExtraHeaders[jose.HeaderType])
	}
	claims := map[string]any{}
	if err := token.Claims(set.Key(header.KeyID)[0], &claims); err != nil {
		t.Fatal(err)
	}
	issued, _ := claims["iat"].(float64)
	expires, _ := claims["exp"].(float64)
	if age := time.Since(time.Unix(int64(issued), 0)); age < 0 || age > time.Minute || expires-issued != 120 {
		t.Errorf("iat %v, exp %v", issued, expires)
	}
	if jti, _ := claims["jti"].(string); len(jti) != 22 {
		t.Errorf("jti %v", claims["jti"])
	}
	for _, name := range []string{"iat", "exp", "jti"} {
		delete(claims, name)
	}
	want := map[string]any{
		"iss": testIssuer, "sub": family.UserID, "aud": webClient, "sid": family.ID.String(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	if fmt.Sprint(claims) != fmt.Sprint(want) {
		t.Errorf("claims %v, want %v", claims, want)
	}
	if _, err := b.parseAccessToken(t.Context(), raw, time.Now()); err == nil {
		t.Error("it is good as an access token")
	}
	if _, ok := b.readHint(raw); ok {
		t.Error("it is good as an id_token_hint")
	}
}

// TestLogoutTokensDiffer: each delivery has a token of its own, so that a
// client that remembers them does not take a repetition for a replay.
func TestLogoutTokensDiffer(t *testing.T) {
	b := newBench(t, logoutClientsOf)
	notice := storage.LogoutNotice{ID: storage.NewLogoutID(), ClientID: webClient, UserID: "u", FamilyID: storage.NewFamilyID()}
	jtis := map[string]bool{}
	for range 20 {
		token, err := b.logoutToken(b.settings(), b.settings().client(webClient), notice, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		verified, err := b.ring.Verify(token, typLogoutToken)
		if err != nil {
			t.Fatal(err)
		}
		var claims struct{ JTI string }
		if err := json.Unmarshal(verified.Payload, &claims); err != nil {
			t.Fatal(err)
		}
		jtis[claims.JTI] = true
	}
	if len(jtis) != 20 {
		t.Errorf("%d different jtis", len(jtis))
	}
}

// TestLogoutTokenOfASector: a client hears of the user by the sub it knows.
func TestLogoutTokenOfASector(t *testing.T) {
	b := newBench(t, logoutClientsOf, func(settings *Settings) {
		settings.PairwiseSalt = secret.New(strings.Repeat("salt", 8))
		settings.Clients[len(settings.Clients)-2].Sector = "shop.example"
	})
	snap := b.settings()
	notice := storage.LogoutNotice{ClientID: webClient, UserID: "user", FamilyID: storage.NewFamilyID()}
	token, err := b.logoutToken(snap, snap.client(webClient), notice, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	verified, err := b.ring.Verify(token, typLogoutToken)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct{ Sub string }
	if err := json.Unmarshal(verified.Payload, &claims); err != nil || len(claims.Sub) != 43 || claims.Sub != b.subject(snap, snap.client(webClient), "user") {
		t.Errorf("sub %q, error %v", claims.Sub, err)
	}
}

// TestThreat12BackchannelSSRF: no client's URI makes the server connect into
// its own network, whatever the host is called.
func TestThreat12BackchannelSSRF(t *testing.T) {
	inside := newParty(t, func(http.ResponseWriter, *http.Request) {})
	port := strconv.Itoa(inside.Listener.Addr().(*net.TCPAddr).Port)
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "127.0.0.2"} {
		for _, scheme := range []string{"https", "http"} {
			b := newBench(t, toldAt(scheme+"://"+host+":"+port+"/", "ES256", nil))
			outcomes := b.trust(inside)
			lb := &logoutBench{bench: b}
			stop := lb.run()
			defer stop()
			lb.queue(webClient, 1)
			if outcome := receive(t, outcomes); outcome != logoutForbidden {
				t.Errorf("%s://%s: outcome %s", scheme, host, outcome)
			}
			stop()
		}
	}
	if n := inside.connections.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// TestThreat12BackchannelRedirect: a client that may be told cannot send the
// server on.
func TestThreat12BackchannelRedirect(t *testing.T) {
	inside := newParty(t, func(http.ResponseWriter, *http.Request) {})
	for _, code := range []int{301, 302, 303, 307, 308} {
		rp := newParty(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inside.URL, code) })
		b := newBench(t, toldAt(rp.URL, "ES256", loopbackNetworks))
		outcomes := b.trust(rp)
		lb := &logoutBench{bench: b}
		stop := lb.run()
		defer stop()
		lb.queue(webClient, 1)
		if outcome := receive(t, outcomes); outcome != logoutRedirect {
			t.Errorf("%d: outcome %s", code, outcome)
		}
		stop()
	}
	if n := inside.connections.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// TestBackchannelOutcomes: what a client's server does, and what is made of it.
func TestBackchannelOutcomes(t *testing.T) {
	drip := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		for r.Context().Err() == nil { // a body without an end
			if _, err := w.Write([]byte(strings.Repeat("x", 4096))); err != nil {
				return
			}
		}
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"200":          {func(http.ResponseWriter, *http.Request) {}, logoutOK},
		"204":          {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, logoutOK},
		"400":          {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }, logoutRefused},
		"404":          {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, logoutStatus},
		"500":          {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, logoutHTTP5xx},
		"endless body": {drip, logoutOK},
		"reset":        {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, logoutReset},
		"no answer":    {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, logoutTimedOut},
		"endless header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 1<<20))
		}, logoutReset},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rp := newParty(t, func(w http.ResponseWriter, r *http.Request) {
				// Only when the body was read does the server notice that the other side has gone.
				if err := r.ParseForm(); err != nil {
					t.Error(err)
				}
				c.handler(w, r)
			})
			b := newBench(t, toldAt(rp.URL, "ES256", loopbackNetworks), func(settings *Settings) {
				if c.want == logoutTimedOut {
					settings.Logout.Timeout = 200 * time.Millisecond
				}
			})
			b.trust(rp)
			notice := storage.LogoutNotice{ID: storage.NewLogoutID(), ClientID: webClient, UserID: "u", FamilyID: storage.NewFamilyID()}
			if got, _ := b.sendLogoutToken(t.Context(), b.settings(), notice); got != c.want {
				t.Errorf("outcome %s, want %s", got, c.want)
			}
		})
	}
	t.Run("certificate", func(t *testing.T) {
		rp := newParty(t, func(http.ResponseWriter, *http.Request) { t.Error("a token got through") })
		b := newBench(t, toldAt(rp.URL, "ES256", loopbackNetworks))
		notice := storage.LogoutNotice{ID: storage.NewLogoutID(), ClientID: webClient, UserID: "u", FamilyID: storage.NewFamilyID()}
		if got, _ := b.sendLogoutToken(t.Context(), b.settings(), notice); got != logoutTLS {
			t.Errorf("outcome %s", got)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		rp := newParty(t, nil)
		b := newBench(t, toldAt(rp.URL, "ES256", loopbackNetworks))
		rp.Close()
		notice := storage.LogoutNotice{ID: storage.NewLogoutID(), ClientID: webClient, UserID: "u", FamilyID: storage.NewFamilyID()}
		if got, _ := b.sendLogoutToken(t.Context(), b.settings(), notice); got != logoutDial {
			t.Errorf("outcome %s", got)
		}
	})
}
