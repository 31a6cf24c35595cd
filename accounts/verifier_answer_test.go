package accounts

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestParseVerified(t *testing.T) {
	v, e := parseVerified([]byte(`
		{ "ok" : true , "external_id" : "42", "nickname": " Ann ", "picture": "https://cdn.example/a.png",
		  "roles": ["buyer", "员工", "buyer"], "hint": {"ignored": [1]},
		  "claims": {"tier": "gold", "points": 12345678901234567890, "shop.example/x": {"a": [1, 2.50, null], "a": true},
		    "email": "a@shop.example", "none": null, "html": "<&>" } } `))
	if e != nil {
		t.Fatal(e)
	}
	if v.ExternalID != "42" || v.Profile.Nickname != "Ann" || v.Profile.Picture != "https://cdn.example/a.png" {
		t.Errorf("%+v", v)
	}
	if !slices.Equal(v.Attributes.Roles, []string{"buyer", "员工"}) {
		t.Errorf("roles %q", v.Attributes.Roles)
	}
	want := map[string]string{
		"tier": `"gold"`, "points": `12345678901234567890`, "shop.example/x": `{"a":true}`,
		"email": `"a@shop.example"`, "html": `"<&>"`,
	}
	if !maps.Equal(v.Attributes.Claims, want) {
		t.Errorf("claims %q", v.Attributes.Claims)
	}

	v, e = parseVerified([]byte(`{"ok":true,"external_id":"x","nickname":"a\u202eb","picture":"http://x/","roles":[],"claims":{}}`))
	if e != nil || v.ExternalID != "x" || v.Profile.Nickname != "" || v.Profile.Picture != "" ||
		v.Attributes.Roles != nil || v.Attributes.Claims != nil {
		t.Errorf("a nickname and picture that break the rules: %+v, %v", v, e)
	}
	v, e = parseVerified([]byte(`{"ok":true,"external_id":"x","nickname":null,"roles":null,"claims":null}`))
	if e != nil || v.ExternalID != "x" {
		t.Errorf("nulls: %+v, %v", v, e)
	}
}

func TestParseRefused(t *testing.T) {
	for _, body := range []string{`{"ok":false}`, `{"ok":false,"external_id":7,"roles":"x"}`} {
		v, e := parseVerified([]byte(body))
		if e == nil || e.Kind != WrongCredentials || e.Reason != "refused" || e.RetryAfter != 0 || v.ExternalID != "" {
			t.Errorf("%s: %+v, %v", body, v, e)
		}
	}
}

// What is not a clear answer is never "wrong password".
func TestParseGarbage(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strings.ReplaceAll(format, "#", strconv.Itoa(i)))
		}
		return b.String()
	}
	ok := func(members string) string { return `{"ok":true,"external_id":"x",` + members + `}` }
	cases := []struct{ body, reason string }{
		{"", "not_json"},
		{"<html>" + canaryAnswer, "not_json"},
		{`[]`, "not_json"}, {`"ok"`, "not_json"}, {`true`, "not_json"}, {`null`, "not_json"},
		{`{"ok":true`, "not_json"},
		{`{"ok":true,"external_id":"x"}{}`, "not_json"},
		{"{\"ok\":true,\"external_id\":\"\xff\"}", "not_json"},
		{"\ufeff" + `{"ok":true,"external_id":"x"}`, "not_json"},
		{`{}`, "bad_answer"},
		{`{"OK":true,"external_id":"x"}`, "bad_answer"},
		{`{"ok":"true","external_id":"x"}`, "bad_answer"},
		{`{"ok":1,"external_id":"x"}`, "bad_answer"},
		{`{"ok":null,"external_id":"x"}`, "bad_answer"},
		{`{"ok":false,"ok":true,"external_id":"x"}`, "bad_answer"},
		{`{"ok":true,"external_id":"x","external_id":"y"}`, "bad_answer"},
		{`{"ok":true,"external_id":"x","external_\u0069d":"y"}`, "bad_answer"},
		{`{"ok":true}`, "no_external_id"},
		{`{"ok":true,"external_id":""}`, "no_external_id"},
		{`{"ok":true,"external_id":null}`, "no_external_id"},
		{`{"ok":true,"External_ID":"x"}`, "no_external_id"},
		{`{"ok":true,"external_id":42}`, "bad_answer"},
		{`{"ok":true,"external_id":["x"]}`, "bad_answer"},
		{`{"ok":true,"external_id":"a\u0000b"}`, "bad_answer"},
		{`{"ok":true,"external_id":"` + strings.Repeat("x", 257) + `"}`, "bad_answer"},
		{ok(`"nickname":5`), "bad_answer"},
		{ok(`"picture":{}`), "bad_answer"},
		{ok(`"roles":"admin"`), "bad_answer"},
		{ok(`"roles":[1]`), "bad_answer"},
		{ok(`"roles":[null]`), "bad_answer"},
		{ok(`"roles":[""]`), "bad_answer"},
		{ok(`"roles":["a\nb"]`), "bad_answer"},
		{ok(`"roles":["` + strings.Repeat("x", 129) + `"]`), "bad_answer"},
		{ok(`"roles":[` + many(65, `"r#"`) + `]`), "bad_answer"},
		{ok(`"roles":[` + many(40, `"`+strings.Repeat("x", 60)+`#"`) + `]`), "bad_answer"},
		{ok(many(70, `"m#":1`)), "bad_answer"},
		{ok(`"claims":[]`), "bad_claims"},
		{ok(`"claims":"x"`), "bad_claims"},
		{ok(`"claims":{"tier":1,"tier":2}`), "bad_claims"},
		{ok(`"claims":{` + many(33, `"c#":1`) + `}`), "bad_claims"},
		{ok(`"claims":{"big":"` + strings.Repeat("x", 2<<10) + `"}`), "bad_claims"},
		{ok(`"claims":{` + many(30, `"c#":"`+strings.Repeat("x", 70)+`"`) + `}`), "bad_claims"},
		{ok(`"claims":{"deep":` + strings.Repeat("[", 10) + strings.Repeat("]", 10) + `}`), "bad_claims"},
		{ok(`"claims":{"":1}`), "bad_claims"},
		{ok(`"claims":{"a b":1}`), "bad_claims"},
		{ok(`"claims":{"` + strings.Repeat("x", 129) + `":1}`), "bad_claims"},
	}
	for _, name := range []string{"sub", "iss", "aud", "exp", "nbf", "iat", "jti", "sid", "scope", "client_id", "acr", "amr", "azp",
		"auth_time", "nonce", "at_hash", "c_hash", "cnf", "act", "active", "roles", "nickname", "picture", "updated_at",
		"phone_number", "phone_number_verified", "wechat_openid", "wechat_anything", "wxidp_x", "external_id",
		"Sub", "ISS", "WeChat_openid"} {
		cases = append(cases, struct{ body, reason string }{ok(`"claims":{"` + name + `":"x"}`), "bad_claims"})
	}
	for _, c := range cases {
		v, e := parseVerified([]byte(c.body))
		if e == nil || e.Kind != Unavailable || e.Reason != c.reason || e.RetryAfter <= 0 {
			t.Errorf("%.80s: %+v, %v; want %s", c.body, v, e, c.reason)
		} else {
			noCanary(t, e.Error())
		}
	}
	// The limits themselves are within.
	for _, body := range []string{
		ok(`"roles":[` + many(64, `"r#"`) + `]`),
		ok(`"claims":{` + many(32, `"c#":1`) + `}`),
		ok(`"claims":{"deep":` + strings.Repeat("[", 9) + strings.Repeat("]", 9) + `}`),
		ok(`"claims":{"quoted":"[[[[[[[[[[[[\"{{{{{{{{{{{{{"}`),
		`{"ok":true,"external_id":"` + strings.Repeat("x", 256) + `"}`,
	} {
		if _, e := parseVerified([]byte(body)); e != nil {
			t.Errorf("%.80s: %v", body, e)
		}
	}
}

func FuzzParseVerified(f *testing.F) {
	for _, seed := range []string{
		`{"ok":false}`, `{"ok":true,"external_id":"x"}`, `{}`, `[]`, `{"ok":true,"ok":false}`, ` {"ok":true,"external_id":"\ud800"}`,
		`{"ok":true,"external_id":"x","nickname":"n","picture":"https://x/","roles":["a"],"claims":{"tier":{"a":[1,"\"]"]},"n":1e999}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		v, e := parseVerified(body)
		if e != nil {
			if e.Kind != Unavailable && (e.Kind != WrongCredentials || !strings.Contains(string(body), "false")) {
				t.Fatalf("%q: %v", body, e)
			}
			return
		}
		if v.ExternalID == "" || len(v.ExternalID) > maxExternalID || len(v.Attributes.Roles) > maxRoles || len(v.Attributes.Claims) > maxClaims {
			t.Fatalf("%q became %+v", body, v)
		}
		size := 0
		for name, value := range v.Attributes.Claims {
			if size += len(name) + len(value); !claimAllowed(name) || !json.Valid([]byte(value)) || depth([]byte(value)) >= maxAnswerDepth {
				t.Fatalf("%q became claim %q: %q", body, name, value)
			}
		}
		if size > maxClaimsSize {
			t.Fatalf("%q has %d bytes of claims", body, size)
		}
	})
}
