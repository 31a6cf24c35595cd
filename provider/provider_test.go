package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ory/fosite"

	"github.com/wxidp/wxidp/grants"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat"
)

// TestNarrow: a part of what was granted, each value once, in the order asked.
func TestNarrow(t *testing.T) {
	refusal := fail(InvalidScope, msgScopeWider)
	for _, row := range []struct {
		granted, requested, want string
		refused                  bool
	}{
		{"a b c", "", "a b c", false},
		{"a b c", "c a", "c a", false},
		{"a b c", "b b b", "b", false},
		{"a b c", "a d", "", true},
		{"a b c", "A", "", true},
		{"", "a", "", true},
		{"", "", "", false},
	} {
		got, err := narrow(strings.Fields(row.granted), strings.Fields(row.requested), refusal)
		if (err != nil) != row.refused || strings.Join(got, " ") != row.want {
			t.Errorf("narrow(%q, %q) = %v, %v", row.granted, row.requested, got, err)
		}
	}
	granted := []string{"a", "b", "c"}
	if got := intersect(granted, []string{"c", "a"}); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("intersect = %v", got)
	}
	if !slices.Equal(granted, []string{"a", "b", "c"}) {
		t.Error("intersect changed what was granted")
	}
}

// TestCompactJWS: three parts of base64url and nothing around them.
func TestCompactJWS(t *testing.T) {
	for token, want := range map[string]bool{
		"a.b.c": true, "..": true, "a.b.": true, "a-_9.Z.z": true,
		"": false, "a.b": false, "a.b.c.d": false, "a.b.c ": false, "\na.b.c": false, "a.b.c=": false, "a+.b.c": false, `{"payload":"a.b.c"}`: false, "é.b.c": false,
	} {
		if got := oneSpelling(token); got != want {
			t.Errorf("compactJWS(%q) = %v", token, got)
		}
	}
}

// TestDigest: no two lists of values read the same.
func TestDigest(t *testing.T) {
	seen := map[storage.Digest]string{}
	for _, list := range [][]string{{"p"}, {"p", ""}, {"p", "", ""}, {"p", "a"}, {"p", "ab"}, {"p", "a", "b"}, {"pa", "b"}, {"p", "a\x00b"}, {"", "p"}} {
		key := digest(list[0], list[1:]...)
		if other, there := seen[key]; there {
			t.Errorf("%q and %s have one digest", list, other)
		}
		seen[key] = fmt.Sprintf("%q", list)
	}
}

// TestFormDigest: all parameters count but the client's credentials.
func TestFormDigest(t *testing.T) {
	base := formDigest(form("a", "1", "b", "2"))
	for name, other := range map[string]storage.Digest{
		"order":      formDigest(form("b", "2", "a", "1")),
		"secret":     formDigest(form("a", "1", "b", "2", "client_secret", "x")),
		"assertions": formDigest(form("a", "1", "b", "2", "client_assertion", "x", "client_assertion_type", "y")),
	} {
		if other != base {
			t.Errorf("%s makes a difference", name)
		}
	}
	for name, other := range map[string]storage.Digest{
		"value": formDigest(form("a", "1", "b", "3")), "name": formDigest(form("a", "1", "c", "2")), "less": formDigest(form("a", "1")),
		"more": formDigest(form("a", "1", "b", "2", "c", "")), "joined": formDigest(form("a", "1&b=2")), "glued": formDigest(form("a", "1\nb=2")),
		"twice": formDigest(form("a", "1", "b", "2", "b", "2")),
	} {
		if other == base {
			t.Errorf("%s makes no difference", name)
		}
	}
}

// TestAsError: what a client may know of any error.
func TestAsError(t *testing.T) {
	const canary = "canary-detail"
	for _, row := range []struct {
		err    error
		code   Code
		status int
		retry  bool
	}{
		{errors.New(canary), ServerError, 500, false},
		{fmt.Errorf("wrapped: %w", fail(InvalidGrant, msgCodeUsed)), InvalidGrant, 400, false},
		{fmt.Errorf("%w: "+canary, storage.ErrUnavailable), TemporarilyUnavailable, 503, true},
		{fmt.Errorf("%w: "+canary, storage.ErrClosed), TemporarilyUnavailable, 503, true},
		{fmt.Errorf("%w: "+canary, storage.ErrTooLarge), ServerError, 500, false},
		{fmt.Errorf("%w: "+canary, context.DeadlineExceeded), TemporarilyUnavailable, 503, true},
		{&grants.Refusal{Kind: grants.MissingParameter, Param: "p"}, InvalidRequest, 400, false},
		{&grants.Refusal{Kind: grants.MalformedParameter, Param: "p"}, InvalidRequest, 400, false},
		{&grants.Refusal{Kind: grants.MockCode}, InvalidGrant, 400, false},
		{&grants.Refusal{Kind: grants.Replayed}, InvalidGrant, 400, false},
		{&grants.Refusal{Kind: grants.Limited, Scope: "ip"}, TemporarilyUnavailable, 429, true},
		{&grants.Refusal{}, ServerError, 500, false},
		{&wechat.Error{Kind: wechat.InvalidCode, Code: 40029}, InvalidGrant, 400, false},
		{&wechat.Error{Kind: wechat.Denied, Code: 40226}, AccessDenied, 400, false},
		{&wechat.Error{Kind: wechat.Quota, Code: 45011}, TemporarilyUnavailable, 503, true},
		{&wechat.Error{Kind: wechat.Unavailable}, TemporarilyUnavailable, 503, true},
		{&wechat.Error{Kind: wechat.Misconfigured, Code: 40125}, ServerError, 500, false},
		{&wechat.Error{Kind: wechat.Unknown, Code: 1}, ServerError, 500, false},
		{fosite.ErrInvalidClient.WithHint(canary).WithDebug(canary), InvalidClient, 401, false},
		{fosite.ErrJTIKnown.WithHint(canary), InvalidClient, 401, false},
		{fosite.ErrInvalidRequest.WithHint(canary), InvalidRequest, 400, false},
		{fosite.ErrMisconfiguration.WithHint(canary), ServerError, 500, false},
	} {
		got := AsError(row.err)
		if got.Code != row.code || got.Status != row.status || (got.RetryAfter >= time.Second) != row.retry {
			t.Errorf("%v: %s %d, retry after %s", row.err, got.Code, got.Status, got.RetryAfter)
		}
		if got.LogReason == "" && got.Code != InvalidGrant || got.Message.EN == "" || got.Message.ZH == "" {
			t.Errorf("%v: reason %q, message %v", row.err, got.LogReason, got.Message)
		}
		if strings.Contains(got.Message.EN+got.Message.ZH+got.Detail, canary) {
			t.Errorf("%v reaches the client", row.err)
		}
	}
	if got := BadRequest(http.StatusRequestEntityTooLarge, "x"); got.Code != InvalidRequest || got.Status != 413 {
		t.Errorf("%+v", got)
	}
}

// TestThreat79ManyValues: lists that are dear to compare are not looked at.
func TestThreat79ManyValues(t *testing.T) {
	b := newBench(t)
	for name, reason := range map[string]string{"scope": "too_many_scopes", "audience": "too_many_audiences"} {
		_, err := b.post(form("grant_type", "wechat_jscode", "client_id", testClient, "js_code", "alice:1", name, strings.Repeat("x ", maxListed)))
		if err == nil || AsError(err).LogReason != reason {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReload: faulty settings change nothing.
func TestReload(t *testing.T) {
	b := newBench(t)
	good := *b.settings()
	for name, clients := range map[string][]Client{
		"twice":    {{ID: "a"}, {ID: "a"}},
		"bad hash": {{ID: "a", SecretHashes: []string{"sha256$zz"}}},
		"bad jwks": {{ID: "a", JWKS: []byte("{")}},
	} {
		settings := good.Settings
		settings.Clients = clients
		if err := b.Reload(settings); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if b.settings().client(testClient) == nil {
			t.Fatalf("%s: in force", name)
		}
	}
	_, err := New(Options{Grants: []grants.Grant{&grants.WeChatJSCode{}, &grants.WeChatJSCode{}}})
	if err == nil {
		t.Error("one grant type is wired twice")
	}
}

// TestThreat27SecretHash: only the form that HashSecret writes is a hash.
func TestThreat27SecretHash(t *testing.T) {
	hash := HashSecret("secret")
	hasher := secretHasher{}
	if err := hasher.Compare(context.Background(), []byte(hash), []byte("secret")); err != nil {
		t.Error(err)
	}
	for _, row := range [][2]string{{hash, "Secret"}, {hash, ""}, {hash, hash}, {"", ""}, {"", "secret"}, {"sha256$", ""}, {"secret", "secret"}, {hash[:70], "secret"}, {hash + "00", "secret"}} {
		if hasher.Compare(context.Background(), []byte(row[0]), []byte(row[1])) == nil {
			t.Errorf("hash %q takes %q", row[0], row[1])
		}
	}
}

// TestRepeatsStayBounded: refusals that are remembered evict the oldest.
func TestRepeatsStayBounded(t *testing.T) {
	table := newRepeats(false)
	for i := range maxRepeats + 100 {
		r := &repeat{table: table, key: digest("k", fmt.Sprint(i)), done: make(chan struct{})}
		if _, err := table.enter(r); err != nil {
			t.Fatal(err)
		}
		r.end(fail(InvalidGrant, msgCodeUsed))
	}
	if len(table.byKey) > maxRepeats || len(table.oldest) > maxRepeats {
		t.Errorf("%d by key, %d in order", len(table.byKey), len(table.oldest))
	}
	// Requests under way are never dropped: then there is no room.
	table = newRepeats(false)
	for i := range maxRepeats {
		if _, err := table.enter(&repeat{table: table, key: digest("k", fmt.Sprint(i)), done: make(chan struct{})}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := table.enter(&repeat{table: table, key: digest("one more"), done: make(chan struct{})}); err == nil || AsError(err).Status != 429 {
		t.Errorf("error %v", err)
	}
}
