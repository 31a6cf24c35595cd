package provider

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/storage"
)

func TestEndSession(t *testing.T) {
	b := newBench(t, logoutClientsOf)
	state := strings.Repeat(`a&<>"'%\+ ~`, 11) + "中文!~."
	for name, c := range map[string]struct {
		params   []string
		redirect string
	}{
		"no target":       {nil, ""},
		"target":          {[]string{"post_logout_redirect_uri", webReturn}, webReturn},
		"client_id, too":  {[]string{"post_logout_redirect_uri", webReturn, "client_id", webClient}, webReturn},
		"state":           {[]string{"post_logout_redirect_uri", webReturn, "state", "x-1"}, webReturn + "?state=x-1"},
		"empty state":     {[]string{"post_logout_redirect_uri", webReturn, "state", ""}, webReturn},
		"state, no URI":   {[]string{"state", "x"}, ""},
		"query":           {[]string{"post_logout_redirect_uri", "https://shop.example/bye?from=idp"}, "https://shop.example/bye?from=idp"},
		"query and state": {[]string{"post_logout_redirect_uri", "https://shop.example/bye?from=idp", "state", "x y"}, "https://shop.example/bye?from=idp&state=x%20y"},
		"empty query":     {[]string{"post_logout_redirect_uri", "https://shop.example/q?", "state", "x"}, "https://shop.example/q?state=x"},
		"odd state":       {[]string{"post_logout_redirect_uri", webReturn, "state", state}, "*"},
		"other params":    {[]string{"post_logout_redirect_uri", webReturn, "logout_hint", "somebody", "ui_locales", "zh-CN", "foo", "bar"}, webReturn},
	} {
		t.Run(name, func(t *testing.T) {
			browser := b.browser("alice")
			family := browser.join(webClient)
			params := form(append(c.params, "id_token_hint", b.hint(family, nil))...)
			out, err := browser.end(params)
			if err != nil || out.Confirm != nil || out.ClientName != "Shop" || out.ReturnURI != "" {
				t.Fatalf("outcome %+v, error %v", out, err)
			}
			if c.redirect == "*" {
				u, err := url.Parse(out.RedirectURI)
				if err != nil || !strings.HasPrefix(out.RedirectURI, webReturn+"?state=") || u.Query().Get("state") != state || len(u.Query()) != 1 {
					t.Errorf("redirect %q, error %v", out.RedirectURI, err)
				}
				if raw, err := url.PathUnescape(strings.TrimPrefix(out.RedirectURI, webReturn+"?state=")); err != nil || raw != state {
					t.Errorf("state %q by percent-decoding alone, error %v", raw, err)
				}
			} else if out.RedirectURI != c.redirect {
				t.Errorf("redirect %q, want %q", out.RedirectURI, c.redirect)
			}
			if browser.alive() {
				t.Error("the login session goes on")
			}
			if access, err := b.store.CheckAccess(t.Context(), storage.AccessCheck{FamilyID: family.ID}); err != nil || access.Verdict != storage.AccessFamilyRevoked {
				t.Errorf("the sign-in at the client: %d, %v", access.Verdict, err)
			}
		})
	}
}

func TestThreat45LogoutRedirect(t *testing.T) {
	b := newBench(t, logoutClientsOf)
	removed := b.settings().client(webClient).PostLogoutRedirectURIs[0]
	for name, c := range map[string]struct {
		hint     map[string]any // of the ID Token; "none": none is sent
		params   []string
		after    string // redirect after the confirmation
		bareLink string // link of the page where nobody is signed in
	}{
		"unregistered":           {nil, []string{"post_logout_redirect_uri", "https://evil.example/"}, "", ""},
		"another path":           {nil, []string{"post_logout_redirect_uri", webReturn + "x"}, "", ""},
		"added query":            {nil, []string{"post_logout_redirect_uri", webReturn + "?foo=bar"}, "", ""},
		"added to query":         {nil, []string{"post_logout_redirect_uri", "https://shop.example/bye?from=idp&x=y"}, "", ""},
		"fragment":               {nil, []string{"post_logout_redirect_uri", webReturn + "#x"}, "", ""},
		"no slash":               {nil, []string{"post_logout_redirect_uri", "https://shop.example"}, "", ""},
		"upper case":             {nil, []string{"post_logout_redirect_uri", "https://SHOP.example/"}, "", ""},
		"port":                   {nil, []string{"post_logout_redirect_uri", "https://shop.example:443/"}, "", ""},
		"http":                   {nil, []string{"post_logout_redirect_uri", "http://shop.example/"}, "", ""},
		"user":                   {nil, []string{"post_logout_redirect_uri", "https://shop.example@evil.example/"}, "", ""},
		"backslash":              {nil, []string{"post_logout_redirect_uri", `https://shop.example\@evil.example/`}, "", ""},
		"space":                  {nil, []string{"post_logout_redirect_uri", webReturn + " "}, "", ""},
		"script":                 {nil, []string{"post_logout_redirect_uri", "javascript:alert(1)"}, "", ""},
		"relative":               {nil, []string{"post_logout_redirect_uri", "/"}, "", ""},
		"redirect_uri":           {nil, []string{"post_logout_redirect_uri", "https://shop.example/cb"}, "", ""},
		"another client's":       {nil, []string{"post_logout_redirect_uri", "https://news.example/"}, "", ""},
		"no hint":                {map[string]any{"none": true}, []string{"post_logout_redirect_uri", webReturn, "state", "x"}, "", ""},
		"no hint, client_id":     {map[string]any{"none": true}, []string{"post_logout_redirect_uri", webReturn, "state", "x", "client_id", webClient}, webReturn + "?state=x", webReturn + "?state=x"},
		"no hint, other client":  {map[string]any{"none": true}, []string{"post_logout_redirect_uri", webReturn, "client_id", otherClient}, "", ""},
		"no hint, no client":     {map[string]any{"none": true}, []string{"post_logout_redirect_uri", webReturn, "client_id", "nobody"}, "", ""},
		"no hint, only state":    {map[string]any{"none": true}, []string{"state", "x"}, "", ""},
		"no hint, only client":   {map[string]any{"none": true}, []string{"client_id", webClient}, "", ""},
		"no parameters":          {map[string]any{"none": true}, nil, "", ""},
		"client of hint removed": {map[string]any{"aud": "gone"}, []string{"post_logout_redirect_uri", removed}, "", ""},
		"hint of another issuer": {map[string]any{"iss": "https://evil.example"}, []string{"post_logout_redirect_uri", webReturn}, "", ""},
		"hint without sid":       {map[string]any{"sid": nil}, []string{"post_logout_redirect_uri", webReturn}, "", ""},
		"hint without sub":       {map[string]any{"sub": nil}, []string{"post_logout_redirect_uri", webReturn}, "", ""},
		"hint without aud":       {map[string]any{"aud": nil}, []string{"post_logout_redirect_uri", webReturn}, "", ""},
		"hint for two clients":   {map[string]any{"aud": []string{webClient, otherClient}}, []string{"post_logout_redirect_uri", webReturn}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			browser := b.browser("alice")
			params := form(c.params...)
			if c.hint["none"] == nil {
				params.Set("id_token_hint", b.hint(browser.join(webClient), c.hint))
			}
			out, err := browser.end(params)
			if err != nil || out.Confirm == nil || out.RedirectURI != "" || out.ReturnURI != "" {
				t.Fatalf("outcome %+v, error %v; want a question", out, err)
			}
			if !browser.alive() {
				t.Fatal("the login session has ended without a confirmation")
			}
			if out = browser.confirm(out.Confirm); out.Confirm != nil || out.RedirectURI != c.after || out.ReturnURI != "" {
				t.Errorf("after the confirmation: %+v, want a redirect to %q", out, c.after)
			}
			if browser.alive() {
				t.Error("the login session goes on after the confirmation")
			}
			out, err = browser.end(params)
			if err != nil || out.Confirm != nil || out.RedirectURI != "" || out.ReturnURI != c.bareLink {
				t.Errorf("where nobody is signed in: %+v, error %v; want a page with the link %q", out, err, c.bareLink)
			}
		})
	}
}

// TestThreat45NobodySignedIn: an ID Token of ours is enough to be sent on where
// there is nothing to end.
func TestThreat45NobodySignedIn(t *testing.T) {
	b := newBench(t, logoutClientsOf)
	browser := b.browser("alice")
	params := form("id_token_hint", b.hint(browser.join(webClient), nil), "post_logout_redirect_uri", webReturn)
	for _, cookie := range []string{"", "garbage", storage.NewToken()} {
		stranger := *browser
		stranger.cookie = cookie
		out, err := stranger.end(params)
		if err != nil || out.Confirm != nil || out.RedirectURI != webReturn {
			t.Errorf("cookie %q: outcome %+v, error %v", cookie, out, err)
		}
	}
	if !browser.alive() {
		t.Error("a request without the browser's cookie has ended its login session")
	}
}

func TestThreat46LogoutCSRF(t *testing.T) {
	b := newBench(t, logoutClientsOf)
	alice, again, bob := b.browser("alice"), b.browser("alice"), b.browser("bob")
	own := alice.join(webClient)
	hints := map[string]string{
		"none":                                "",
		"another user's":                      b.hint(bob.join(webClient), nil),
		"of another browser of the same user": b.hint(again.join(webClient), nil),
		"of no login session":                 b.hint(storage.Family{ID: storage.NewFamilyID(), UserID: own.UserID, ClientID: webClient}, nil),
		"family of another client":            b.hint(own, map[string]any{"aud": otherClient}),
		"access token":                        b.signIn("alice:access").AccessToken,
		"of the mini-program":                 b.signIn("alice:mini").IDToken,
		"garbage":                             "a.b.c",
		"too long":                            strings.Repeat("x", 20<<10),
	}
	for name, hint := range hints {
		t.Run(name, func(t *testing.T) {
			out, err := alice.end(form("id_token_hint", hint))
			if err != nil || out.Confirm == nil || out.RedirectURI != "" {
				t.Errorf("outcome %+v, error %v; want a question", out, err)
			}
			if !alice.alive() || !bob.alive() || !again.alive() {
				t.Fatal("a login session has ended")
			}
		})
	}

	if out, err := alice.end(form("id_token_hint", b.hint(own, nil))); err != nil || out.Confirm != nil || alice.alive() {
		t.Fatalf("the browser's own hint: %+v, %v", out, err)
	}
	if !bob.alive() || !again.alive() {
		t.Error("another browser's login session has ended")
	}
}

// TestThreat31IDTokenHint: nothing but the untouched signature of one of our
// keys makes a hint.
func TestThreat31IDTokenHint(t *testing.T) {
	b := newBench(t, logoutClientsOf)
	alice := b.browser("alice")
	good := b.hint(alice.join(webClient), nil)
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	encode := func(header string) string { return base64.RawURLEncoding.EncodeToString([]byte(header)) }
	logoutToken, err := b.ring.Sign("ES256", typLogoutToken, decodePart(t, payload))
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"none":             encode(`{"alg":"none"}`) + "." + payload + ".",
		"None":             encode(`{"alg":"None"}`) + "." + payload + "." + signature,
		"HS256":            encode(`{"alg":"HS256","typ":"JWT"}`) + "." + payload + "." + signature,
		"no signature":     header + "." + payload + ".",
		"payload changed":  header + "." + encode(`{"iss":"`+testIssuer+`"}`) + "." + signature,
		"another spelling": header + "." + payload + "." + signature + "=",
		"logout token":     logoutToken,
	} {
		out, err := alice.end(form("id_token_hint", token, "post_logout_redirect_uri", webReturn))
		if err != nil || out.Confirm == nil || !alice.alive() {
			t.Errorf("%s: outcome %+v, error %v", name, out, err)
		}
	}
	if out, err := alice.end(form("id_token_hint", good, "post_logout_redirect_uri", webReturn)); err != nil || out.RedirectURI != webReturn {
		t.Errorf("the good one: %+v, %v", out, err)
	}
}

func decodePart(t *testing.T, part string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestEndSessionRefusals(t *testing.T) {
	b := newBench(t, logoutClientsOf)
	alice := b.browser("alice")
	hint := b.hint(alice.join(webClient), nil)
	for name, params := range map[string]url.Values{
		"twice":            form("id_token_hint", hint, "state", "a", "state", "b"),
		"two targets":      form("id_token_hint", hint, "post_logout_redirect_uri", webReturn, "post_logout_redirect_uri", webReturn),
		"other client":     form("id_token_hint", hint, "client_id", otherClient),
		"unknown client":   form("id_token_hint", hint, "client_id", "nobody"),
		"much state":       form("id_token_hint", hint, "state", strings.Repeat("x", 5000)),
		"unknown, twice":   form("id_token_hint", hint, "foo", "a", "foo", "b"),
		"hint twice":       form("id_token_hint", hint, "id_token_hint", hint),
		"client_id padded": form("id_token_hint", hint, "client_id", webClient+" "),
	} {
		t.Run(name, func(t *testing.T) {
			for _, answer := range []func(context.Context, Request, url.Values) (EndSessionOutcome, error){b.EndSession, b.ConfirmEndSession} {
				out, err := answer(context.Background(), alice.request(), params)
				b.code(err, InvalidRequest)
				if out.RedirectURI != "" || out.Confirm != nil {
					t.Errorf("outcome %+v", out)
				}
			}
			if !alice.alive() {
				t.Fatal("the login session has ended")
			}
		})
	}
}

// TestThreat46ConfirmationOfAnotherSession: the button ends what the page was
// about, and nothing that began since.
func TestThreat46ConfirmationOfAnotherSession(t *testing.T) {
	b := newBench(t, logoutClientsOf)
	alice, bob := b.browser("alice"), b.browser("bob")
	out, err := alice.end(nil)
	if err != nil || out.Confirm == nil {
		t.Fatalf("outcome %+v, error %v", out, err)
	}
	if out := bob.confirm(out.Confirm); out.Confirm == nil || !bob.alive() || !alice.alive() {
		t.Errorf("outcome %+v", out)
	}
	if out := bob.confirm(&EndSessionQuestion{}); out.Confirm == nil || !bob.alive() {
		t.Errorf("without the field: outcome %+v", out)
	}
	if out := alice.confirm(out.Confirm); out.Confirm != nil || alice.alive() {
		t.Errorf("outcome %+v", out)
	}
	if out := alice.confirm(out.Confirm); out.Confirm != nil || out.RedirectURI != "" {
		t.Errorf("pressed twice: outcome %+v", out)
	}
}

func TestEndSessionQuestion(t *testing.T) {
	b := newBench(t, logoutClientsOf)
	alice := b.browser("alice")
	params := form("client_id", webClient, "state", "x", "post_logout_redirect_uri", webReturn, "ui_locales", "en", "foo", "bar", "login", "forged")
	out, err := alice.end(params)
	if err != nil || out.Confirm == nil || out.ClientName != "Shop" {
		t.Fatalf("outcome %+v, error %v", out, err)
	}
	got := map[string]string{}
	for _, field := range out.Confirm.Fields {
		if _, twice := got[field.Name]; twice {
			t.Errorf("field %s twice", field.Name)
		}
		got[field.Name] = field.Value
	}
	want := map[string]string{"login": alice.login.ID.String(), "client_id": webClient, "state": "x", "post_logout_redirect_uri": webReturn, "ui_locales": "en"}
	if !maps.Equal(got, want) {
		t.Errorf("fields %v, want %v", got, want)
	}
}

// TestThreat36HintOfAnOldKey: a hint is good for as long as its key is
// published, however old it is itself.
func TestThreat36HintOfAnOldKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, logoutClientsOf)
		alice := b.browser("alice")
		hint := b.hint(alice.join(webClient), nil)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- b.ring.Run(ctx) }()
		defer func() { stop(); <-ended }()
		time.Sleep(25 * time.Hour) // the next key has been published for long enough; the sign-in has expired
		if err := b.ring.Rotate(t.Context(), "ES256"); err != nil {
			t.Fatal(err)
		}
		if fresh := b.hint(storage.Family{}, nil); strings.Split(fresh, ".")[0] == strings.Split(hint, ".")[0] {
			t.Fatal("the key has not changed")
		}
		out, err := alice.end(form("id_token_hint", hint, "post_logout_redirect_uri", webReturn))
		if err != nil || out.RedirectURI != webReturn {
			t.Errorf("outcome %+v, error %v", out, err)
		}
	})
}

// TestEndSessionOfAnExpiredSignIn: the login session remembers sign-ins that
// the store has forgotten.
func TestEndSessionOfAnExpiredSignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, logoutClientsOf)
		alice := b.browser("alice")
		family := alice.join(webClient)
		time.Sleep(12 * time.Hour)
		for more := true; more; {
			var err error
			if _, more, err = b.store.DeleteExpired(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.store.Family(t.Context(), family.ID); !errors.Is(err, storage.ErrNotFound) {
			t.Fatalf("the sign-in is still there: %v", err)
		}
		if out, err := alice.end(form("id_token_hint", b.hint(family, nil))); err != nil || out.Confirm != nil || alice.alive() {
			t.Errorf("outcome %+v, error %v", out, err)
		}
	})
}

// FuzzLogoutTarget: whatever the state is, it comes back as it was, and nothing
// but the state is added to a registered URI.
func FuzzLogoutTarget(f *testing.F) {
	client := &Client{PostLogoutRedirectURIs: []string{webReturn, "https://shop.example/bye?from=idp", "com.example.app:/bye"}}
	for _, uri := range append(client.PostLogoutRedirectURIs, "https://evil.example/", webReturn+"?", "") {
		f.Add(uri, "a&b=c#d%\r\n+ 中")
	}
	f.Fuzz(func(t *testing.T, uri, state string) {
		target := logoutTarget(client, form("post_logout_redirect_uri", uri, "state", state))
		registered := uri == webReturn || uri == "https://shop.example/bye?from=idp" || uri == "com.example.app:/bye"
		if !registered || state == "" {
			if registered && target != uri || !registered && target != "" {
				t.Errorf("%q with state %q: %q", uri, state, target)
			}
			return
		}
		before, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		after, err := url.Parse(target)
		if err != nil || !strings.HasPrefix(target, uri) || strings.ContainsAny(target, "\r\n #") {
			t.Fatalf("%q: %v", target, err)
		}
		query := after.Query()
		if got := query["state"]; len(got) != 1 || got[0] != state || len(query) != len(before.Query())+1 {
			t.Errorf("%q: query %v", target, query)
		}
	})
}
