package provider

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// record signs a user in as the store sees it, with a family as the
// authorization endpoint would have asked for, and mints.
func (b *bench) record(clientID string, family storage.Family) (storage.Family, *TokenResponse) {
	b.t.Helper()
	family.ClientID, family.MACKeyID = clientID, b.ring.MACKey().ID
	sess := &session{snapshot: b.settings(), client: b.settings().client(clientID), scope: family.Scope, audience: []string{"api"}}
	idle, absolute := sess.familyLifetimes()
	result, err := b.store.SignIn(context.Background(), storage.SignIn{
		AppID: testAppID, WeChatOpenID: "alice", Family: family, Idle: idle, Absolute: absolute,
		NewProfile: storage.Profile{Nickname: "小明", Picture: "https://img.example/a.png"},
		Phone:      &storage.PhoneProof{E164: "+8613800138000", VerifiedAt: time.Now()},
	})
	if err != nil || result.Verdict != storage.SignInOK {
		b.t.Fatalf("%+v %v", result, err)
	}
	out, err := b.mint(context.Background(), sess, result.Family, true)
	if err != nil {
		b.t.Fatal(err)
	}
	return result.Family, out
}

// says are the claims of a token of ours.
func (b *bench) says(token string) map[string]any {
	b.t.Helper()
	verified, err := b.ring.Verify(token, typIDToken, typAccessToken)
	if err != nil {
		b.t.Fatal(err)
	}
	return object(b.t, verified.Payload)
}

func object(t testing.TB, raw []byte) (out map[string]any) {
	t.Helper()
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func (b *bench) info(token string) map[string]any {
	b.t.Helper()
	r := request(PathUserInfo, nil, "Authorization", "Bearer "+token)
	r.HTTP.Method = http.MethodGet
	body, err := b.UserInfo(context.Background(), r)
	if err != nil {
		b.t.Fatal(err)
	}
	return object(b.t, body)
}

// names are the members of an object among those that can be asked for.
func names(claims map[string]any) string {
	var out []string
	for _, name := range append(claimNames(), "wechat_openid", "wechat_unionid", "wechat_appid") {
		if value, there := claims[name]; there {
			if value == nil || value == "" {
				out = append(out, name+" is empty")
				continue
			}
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestClaimsParameter: what is asked for by name comes where it was asked for,
// as far as the client may have it and the user has it.
func TestClaimsParameter(t *testing.T) {
	b := newBench(t, func(s *Settings) {
		s.Clients[0].Scopes = []string{"openid", "profile", "phone", "wechat", "external_id", "roles"}
		s.Clients = append(s.Clients, Client{ID: "narrow", Public: true, AuthMethod: AuthNone, GrantTypes: []string{"refresh_token"},
			Scopes: []string{"openid", "profile"}, Audience: []string{"api"}, WeChatAppID: testAppID, IDTokenAlg: "ES256"})
	})
	const always = "amr auth_time"
	everything := append(claimNames(), "wechat_openid", "sub", "iss", "password", "cnf", "")
	for _, row := range []struct {
		name, client      string
		scope             []string
		idToken, userInfo []string
		acr               string
		inIDToken, inInfo string
	}{
		{"nothing", testClient, []string{"openid"}, nil, nil, "", always, ""},
		{"scopes only", testClient, []string{"openid", "profile", "phone"}, nil, nil, "", always,
			"name nickname phone_number phone_number_verified picture updated_at"},
		{"ID Token", testClient, []string{"openid"}, []string{"name", "picture"}, nil, "", "amr auth_time name picture", ""},
		{"UserInfo", testClient, []string{"openid"}, nil, []string{"nickname", "phone_number"}, "", always, "nickname phone_number"},
		{"both", testClient, []string{"openid"}, []string{"phone_number_verified"}, []string{"auth_time", "amr"}, "",
			"amr auth_time phone_number_verified", "amr auth_time"},
		{"with a scope", testClient, []string{"openid", "profile"}, []string{"name"}, []string{"name", "phone_number"}, "",
			"amr auth_time name", "name nickname phone_number picture updated_at"},
		{"acr", testClient, []string{"openid"}, []string{"acr"}, []string{"acr"}, "urn:x", "acr amr auth_time", "acr"},
		{"acr unasked", testClient, []string{"openid"}, nil, nil, "urn:x", "acr amr auth_time", ""},
		{"everything", testClient, []string{"openid"}, everything, everything, "",
			"amr auth_time name nickname phone_number phone_number_verified picture updated_at",
			"amr auth_time name nickname phone_number phone_number_verified picture updated_at"},
		{"more than the client may", "narrow", []string{"openid"}, everything, everything, "",
			"amr auth_time name nickname picture updated_at", "amr auth_time name nickname picture updated_at"},
	} {
		family, out := b.record(row.client, storage.Family{
			Scope: row.scope, Audience: []string{"api"}, AuthTime: time.Now(), AMR: []string{"pwd"}, ACR: row.acr,
			IDTokenClaims: row.idToken, UserInfoClaims: row.userInfo,
		})
		idToken, info, access := b.says(out.IDToken), b.info(out.AccessToken), b.says(out.AccessToken)
		if got := names(idToken); got != row.inIDToken {
			t.Errorf("%s: the ID Token has %s", row.name, got)
		}
		if got := names(info); got != row.inInfo {
			t.Errorf("%s: UserInfo has %s", row.name, got)
		}
		if got := names(access); got != "auth_time" {
			t.Errorf("%s: the access token has %s", row.name, got)
		}
		for _, claims := range []map[string]any{idToken, info} {
			if claims["sub"] != family.UserID || claims["password"] != nil || claims["cnf"] != nil {
				t.Errorf("%s: %v", row.name, claims)
			}
		}
		// A refresh repeats them.
		again, err := b.post(form("grant_type", "refresh_token", "client_id", row.client, "refresh_token", out.RefreshToken))
		if err != nil {
			t.Fatal(err)
		}
		if got := names(b.says(again.IDToken)); got != row.inIDToken {
			t.Errorf("%s: the refreshed ID Token has %s", row.name, got)
		}
	}
}

// TestSubject: one sub for each sector, never like a user's id.
func TestSubject(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.PairwiseSalt = secret.New(strings.Repeat("s", 32)) })
	snap := b.settings()
	const user = "zFreK0UnPj2JJea_UkZOVA"
	seen := map[string]string{user: "public"}
	for _, sector := range []string{"a.example", "b.example", "a.exampl"} {
		for _, id := range []string{user, "e" + user[1:]} {
			sub := b.subject(snap, &Client{Sector: sector}, id)
			if len(sub) != 43 || seen[sub] != "" {
				t.Errorf("%s: %s is %q", sector, sub, seen[sub])
			}
			seen[sub] = sector
			if again := b.subject(snap, &Client{ID: "other", Sector: sector}, id); again != sub {
				t.Errorf("%s: %s, then %s", sector, sub, again)
			}
		}
	}
	if b.subject(snap, &Client{}, user) != user {
		t.Error("a public client's sub is not the user's id")
	}
	salted := *snap
	salted.PairwiseSalt = secret.New(strings.Repeat("t", 32))
	if seen[b.subject(&salted, &Client{Sector: "a.example"}, user)] != "" {
		t.Error("the salt makes no difference")
	}
}

// TestClientLifetimes: a client's own lifetimes count, each by itself.
func TestClientLifetimes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBench(t, func(s *Settings) {
			s.Clients[0].AccessTokenLifetime, s.Clients[0].IDTokenLifetime = 2*time.Minute, 3*time.Minute
			s.Clients[0].RefreshTokenIdleLifetime, s.Clients[0].RefreshTokenAbsoluteLifetime = time.Hour, 90*time.Minute
			s.Clients[1].AccessTokenLifetime = 5 * time.Minute
		})
		first := b.signIn("alice:1")
		access, idToken := b.says(first.AccessToken), b.says(first.IDToken)
		if first.ExpiresIn != 2*time.Minute || access["exp"].(float64)-access["iat"].(float64) != 120 || idToken["exp"].(float64)-idToken["iat"].(float64) != 180 {
			t.Errorf("%s %v %v", first.ExpiresIn, access, idToken)
		}
		once, err := b.post(form("grant_type", "wechat_jscode", "client_id", "once", "js_code", "alice:2"))
		b.code(err, "")
		if claims := b.says(once.IDToken); once.ExpiresIn != 5*time.Minute || claims["exp"].(float64)-claims["iat"].(float64) != 3600 {
			t.Errorf("%s %v", once.ExpiresIn, claims)
		}
		idle := b.signIn("bob:1")
		time.Sleep(time.Hour - time.Second)
		second, err := b.refreshToken(first.RefreshToken)
		b.code(err, "")
		if second.ExpiresIn != 2*time.Minute {
			t.Errorf("%s", second.ExpiresIn)
		}
		time.Sleep(time.Second)
		_, err = b.refreshToken(idle.RefreshToken)
		b.code(err, InvalidGrant)
		time.Sleep(30*time.Minute - 10*time.Second)
		third, err := b.refreshToken(second.RefreshToken)
		b.code(err, "")
		if third.ExpiresIn > 10*time.Second {
			t.Errorf("%s", third.ExpiresIn)
		}
		time.Sleep(10 * time.Second)
		_, err = b.refreshToken(third.RefreshToken)
		b.code(err, InvalidGrant)
	})
}
