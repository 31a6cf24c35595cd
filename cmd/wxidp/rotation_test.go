package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/wxidp/wxidp/keys"
)

// Lifetimes short enough to see the ends of everything.
const (
	shortIdle     = 2 * time.Second
	shortAbsolute = 6 * time.Second
)

func shortLives() serverOption {
	return withConfig(func(yaml string) string {
		return `keys: { rotate_every: 5s, publish_ahead: 4s }
tokens:
  access_token_lifetime: 2s
  id_token_lifetime: 2s
  refresh_token_idle_lifetime: 2s
  refresh_token_absolute_lifetime: 6s
  refresh_grace: 1s
rate_limits: { disabled: true }
` + yaml
	})
}

// validator is a resource server that keeps the JWK Set for exactly as long as
// max-age allows, and looks nowhere else when it meets an unknown kid.
type validator struct {
	s *testServer

	mu    sync.Mutex // guards the fields below
	set   jose.JSONWebKeySet
	until time.Time
	kids  map[string]bool // met in tokens
}

var maxAge = regexp.MustCompile(`\bmax-age=(\d+)\b`)

func (v *validator) refreshSet() error {
	if time.Now().Before(v.until) {
		return nil
	}
	out, err := v.s.try(http.MethodGet, v.s.Issuer+"/.well-known/jwks.json", nil)
	if err != nil {
		return err
	}
	match := maxAge.FindStringSubmatch(out.Header.Get("Cache-Control"))
	if match == nil {
		return fmt.Errorf("JWK Set without max-age: %v", out.Header)
	}
	seconds, err := strconv.Atoi(match[1])
	if err != nil {
		return err
	}
	v.until = time.Now().Add(time.Duration(seconds) * time.Second)
	v.set = jose.JSONWebKeySet{}
	return json.Unmarshal(out.Body, &v.set)
}

// verify checks a token as RFC 9068 §4 or OIDC Core §3.1.3.7 ask.
func (v *validator) verify(token, audience string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.refreshSet(); err != nil {
		return err
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return err
	}
	kid := parsed.Headers[0].KeyID
	found := v.set.Key(kid)
	if len(found) != 1 {
		return fmt.Errorf("unknown kid %s", kid)
	}
	if !found[0].IsPublic() || found[0].Use != "sig" || found[0].Algorithm != parsed.Headers[0].Algorithm {
		return fmt.Errorf("key %s is not what the token says", kid)
	}
	v.kids[found[0].Algorithm+" "+kid] = true
	var claims jwt.Claims
	if err := parsed.Claims(found[0].Key, &claims); err != nil {
		return err
	}
	return claims.ValidateWithLeeway(jwt.Expected{Issuer: v.s.Issuer, AnyAudience: jwt.Audience{audience}}, time.Second)
}

// shortLife is one sign-in that is refreshed until it ends by itself.
func (s *testServer) shortLife(client, appid, user string, pause time.Duration, verify func(out answer) error) error {
	asked := time.Now()
	out, err := s.signIn(client, appid, user)
	if err != nil || out.Status != http.StatusOK {
		return fmt.Errorf("sign-in: %v, %v", out, err)
	}
	answered, last := time.Now(), asked
	for {
		if err := verify(out); err != nil {
			return err
		}
		time.Sleep(pause)
		begin := time.Now()
		next, err := s.refresh(client, out.str("refresh_token"))
		if err != nil {
			return err
		}
		switch {
		case next.Status == http.StatusOK && begin.Sub(answered) > shortAbsolute:
			return fmt.Errorf("refreshed %v after the sign-in", begin.Sub(answered))
		case next.Status == http.StatusOK:
			out, last = next, begin
		case next.str("error") != "invalid_grant":
			return fmt.Errorf("refresh: %v", next)
		case time.Since(asked) < shortAbsolute && time.Since(last) < shortIdle:
			return fmt.Errorf("ended %v after the sign-in and %v after a refresh", time.Since(asked), time.Since(last))
		default:
			// The access token never outlives its family.
			if active, err := newFleet(s).active(out.str("access_token")); err != nil || active {
				return fmt.Errorf("access token of a family that has ended: active %v, %v", active, err)
			}
			return nil
		}
	}
}

// TestThreat36RotationInRealTime lets keys and tokens live for seconds, under
// steady sign-ins and refreshes, and holds them to what they promise.
func TestThreat36RotationInRealTime(t *testing.T) {
	t.Parallel()
	s := startServer(t, shortLives())
	var firstKeys []string
	for _, key := range s.parts.keys.List() {
		if key.State == keys.StateCurrent && key.Alg != keys.MAC {
			firstKeys = append(firstKeys, key.ID)
		}
	}
	validators := make([]*validator, 4)
	for i := range validators {
		validators[i] = &validator{s: s, kids: make(map[string]bool)}
	}
	var failed failures
	verifyFor := func(client string) func(answer) error {
		return func(out answer) error {
			for _, v := range validators {
				if err := v.verify(out.str("access_token"), testAudience); err != nil {
					return fmt.Errorf("access token: %w", err)
				}
				if err := v.verify(out.str("id_token"), client); err != nil {
					return fmt.Errorf("ID Token: %w", err)
				}
			}
			return nil
		}
	}
	// 2 × (publish_ahead, or the spread of a change to all nodes, and a round
	// of the ring) and some more.
	until := time.Now().Add(36 * time.Second)
	if testing.Short() {
		until = time.Now().Add(8 * time.Second)
	}
	var work sync.WaitGroup
	for i, client := range []struct{ id, appid string }{{testClient, testAppID}, {testClient, testAppID}, {"shop-mini-2", testApp2}} {
		work.Go(func() {
			time.Sleep(time.Duration(i) * 700 * time.Millisecond) // so that caches and families are of all ages
			for n := 0; time.Now().Before(until); n++ {
				if err := s.shortLife(client.id, client.appid, fmt.Sprintf("u%d-%d", i, n%10), 150*time.Millisecond, verifyFor(client.id)); err != nil {
					failed.add(err.Error())
				}
			}
		})
	}
	work.Go(func() { // one that is not refreshed in time
		if err := s.shortLife(testClient, testAppID, "idle", shortIdle+200*time.Millisecond, func(answer) error { return nil }); err != nil {
			failed.add("idle: " + err.Error())
		}
	})
	work.Wait()
	failed.report(t, "during rotation")

	eventually(t, "families that have ended are deleted", func() bool {
		page, _, err := s.parts.store.PageFamilies(t.Context(), "", "", 10)
		return err == nil && len(page) == 0
	})
	if testing.Short() {
		return
	}
	for _, alg := range []string{keys.ES256, keys.RS256} {
		met := 0
		for kid := range validators[0].kids {
			if strings.HasPrefix(kid, alg+" ") {
				met++
			}
		}
		if met < 2 {
			t.Errorf("%d keys signed with %s; nothing rotated", met, alg)
		}
	}

	// A minute for the clocks of others after its last token, the first keys
	// are gone.
	deadline := time.Now().Add(100 * time.Second)
	for {
		left := string(s.Do(http.MethodGet, s.Issuer+"/.well-known/jwks.json", nil).Body)
		if !strings.Contains(left, firstKeys[0]) && !strings.Contains(left, firstKeys[1]) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the first keys are published for ever: %v", s.parts.keys.List())
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, event := range s.Logs.Events("keys.changed") {
		if event["to"] == "removed" && event["from"] != keys.StatePrevious {
			t.Errorf("a key was removed that was %v", event["from"])
		}
	}
}
