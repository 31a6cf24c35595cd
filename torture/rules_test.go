package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// script builds histories by hand: each operation takes a second and begins
// when the one before has ended, unless it is moved.
type script struct {
	h   *History
	now time.Duration
}

func newScript() *script {
	return &script{h: &History{begin: time.Now()}}
}

func (s *script) add(op Op) *Op {
	op.Node = "a"
	if op.End == 0 {
		op.Start, op.End = s.now+time.Millisecond, s.now+time.Second
	}
	s.now = max(s.now, op.End)
	switch {
	case op.Status != 0:
	case op.Outcome == OK:
		op.Status = 200
	case op.Outcome == Denied:
		op.Status = 400
	}
	s.h.Add(&op)
	return &op
}

// signIn is an acknowledged sign-in of user u to the family.
func (s *script) signIn(family string) *Op {
	return s.add(Op{Kind: SignIn, User: "u", Client: "c", Token: "js-" + family, Key: "k-" + family, Family: family, Outcome: OK,
		Sub: "sub-u", AnswerClient: "c", Audience: "api", Access: "at0-" + family, Issued: "rt0-" + family})
}

func (s *script) refresh(family, given, issued string) *Op {
	op := Op{Kind: Refresh, User: "u", Client: "c", Token: given, Family: family, Outcome: Denied, Error: "invalid_grant"}
	if issued != "" {
		op.Outcome, op.Error, op.Sub, op.AnswerClient, op.Audience = OK, "", "sub-u", "c", "api"
		op.Issued, op.Access = issued, "at-of-"+issued
	}
	return s.add(op)
}

func (s *script) introspect(family, access string, active bool) *Op {
	op := Op{Kind: Introspect, User: "u", Client: "c", Token: access, Family: family, Outcome: Denied, Status: 200}
	if active {
		op.Outcome, op.Sub, op.AnswerClient = OK, "sub-u", "c"
	}
	return s.add(op)
}

func (s *script) act(kind Kind, outcome Outcome, token, family string) *Op {
	op := Op{Kind: kind, User: "u", Client: "c", Token: token, Family: family, Outcome: outcome}
	if outcome == Unknown {
		op.Cut = true
	}
	return s.add(op)
}

var testRules = Rules{Grace: 60 * time.Second, Audience: map[string]string{"c": "api"}}

// histories are the ways in which a server can be wrong, each with the rule
// that must catch it, and ways in which it is right, which none may call wrong.
var histories = map[string]struct {
	rule  string // "": nothing is wrong
	rules func(*Rules)
	play  func(s *script)
}{
	"a plain life": {"", nil, func(s *script) {
		s.signIn("f")
		s.introspect("f", "at0-f", true)
		s.refresh("f", "rt0-f", "rt1-f")
		s.act(Revoke, OK, "rt1-f", "f")
		s.introspect("f", "at0-f", false)
		s.refresh("f", "rt1-f", "")
	}},
	"a revocation answered 503 takes effect later": {"R4", nil, func(s *script) {
		s.h.BeginFault("", "the database is slow", false)
		s.signIn("f")
		s.add(Op{Kind: Revoke, User: "u", Client: "c", Token: "rt0-f", Family: "f", Outcome: Unknown, Status: 503, RetryAfter: true})
		s.introspect("f", "at0-f", true)
		s.introspect("f", "at0-f", false)
	}},
	"a revocation answered 503 takes effect later, in a database": {"", func(r *Rules) { r.Lingers = true }, func(s *script) {
		s.h.BeginFault("", "the database is slow", false)
		s.signIn("f")
		s.add(Op{Kind: Revoke, User: "u", Client: "c", Token: "rt0-f", Family: "f", Outcome: Unknown, Status: 503, RetryAfter: true})
		s.introspect("f", "at0-f", true)
		s.introspect("f", "at0-f", false)
	}},
	"an access token ends with its family by a clock that is ahead": {"", func(r *Rules) {
		r.FamilyLifetime, r.AccessLifetime, r.Skew = 10*time.Second, time.Hour, 5*time.Second
	}, func(s *script) {
		s.signIn("f")
		s.now = 7 * time.Second
		s.introspect("f", "at0-f", false)
		s.refresh("f", "rt0-f", "rt1-f")
	}},
	"an acknowledged sign-in is lost": {"R1", nil, func(s *script) {
		s.signIn("f")
		s.refresh("f", "rt0-f", "")
	}},
	"an acknowledged rotation is lost": {"R1", nil, func(s *script) {
		s.signIn("f")
		s.refresh("f", "rt0-f", "rt1-f")
		s.refresh("f", "rt1-f", "")
	}},
	"an acknowledged code is lost": {"R1", nil, func(s *script) {
		s.add(Op{Kind: Authorize, User: "u", Client: "c", Outcome: OK, Issued: "code"})
		s.add(Op{Kind: Redeem, User: "u", Client: "c", Token: "code", Outcome: Denied})
	}},
	"a fresh js_code is refused": {"R1", nil, func(s *script) {
		s.add(Op{Kind: SignIn, User: "u", Client: "c", Token: "js", Outcome: Denied})
	}},
	"a fresh js_code of a disabled user is refused": {"", nil, func(s *script) {
		s.act(Disable, OK, "", "")
		s.add(Op{Kind: SignIn, User: "u", Client: "c", Token: "js", Outcome: Denied})
	}},
	"a user stays shut out after being enabled": {"R1", nil, func(s *script) {
		s.act(Disable, OK, "", "")
		s.act(Enable, OK, "", "")
		s.add(Op{Kind: SignIn, User: "u", Client: "c", Token: "js", Outcome: Denied})
	}},
	"a revocation is undone": {"R2", nil, func(s *script) {
		s.signIn("f")
		s.act(Revoke, OK, "rt0-f", "f")
		s.introspect("f", "at0-f", true)
	}},
	"a refresh after a revocation": {"R2", nil, func(s *script) {
		s.signIn("f")
		s.act(Revoke, OK, "rt0-f", "f")
		s.refresh("f", "rt0-f", "rt1-f")
	}},
	"an access token lives after its revocation": {"R2", nil, func(s *script) {
		s.signIn("f")
		s.act(RevokeAccess, OK, "at0-f", "f")
		s.introspect("f", "at0-f", true)
	}},
	"a revoked access token says nothing of its family": {"", nil, func(s *script) {
		s.signIn("f")
		s.act(RevokeAccess, OK, "at0-f", "f")
		s.introspect("f", "at0-f", false)
		s.refresh("f", "rt0-f", "rt1-f")
	}},
	"a disabled user gets in": {"R2", nil, func(s *script) {
		s.act(Disable, OK, "", "")
		s.signIn("f")
	}},
	"a family of a disabled user lives": {"R2", nil, func(s *script) {
		s.signIn("f")
		s.act(Disable, OK, "", "")
		s.introspect("f", "at0-f", true)
	}},
	"a family lives after its user was disabled and enabled": {"R2", nil, func(s *script) {
		s.signIn("f")
		s.act(Disable, OK, "", "")
		s.act(Enable, OK, "", "")
		s.refresh("f", "rt0-f", "rt1-f")
	}},
	"a sign-in beside the end of all is either": {"", nil, func(s *script) {
		in := s.signIn("f")
		s.add(Op{Kind: EndUser, User: "u", Outcome: OK, Start: in.Start, End: in.End})
		s.introspect("f", "at0-f", true)
		s.refresh("f", "rt0-f", "rt1-f")
	}},
	"but not first the one and then the other": {"R4", nil, func(s *script) {
		in := s.signIn("f")
		s.add(Op{Kind: EndUser, User: "u", Outcome: OK, Start: in.Start, End: in.End})
		s.introspect("f", "at0-f", true)
		s.refresh("f", "rt0-f", "")
	}},
	"a family outlives its lifetime": {"R2", func(r *Rules) { r.FamilyLifetime = 5 * time.Second }, func(s *script) {
		s.signIn("f")
		s.now += 20 * time.Second
		s.introspect("f", "at0-f", true)
	}},
	"an access token outlives its lifetime": {"R2", func(r *Rules) { r.AccessLifetime = 5 * time.Second }, func(s *script) {
		s.signIn("f")
		s.now += 20 * time.Second
		s.introspect("f", "at0-f", true)
	}},
	"a code makes two families": {"R3", nil, func(s *script) {
		s.add(Op{Kind: Authorize, User: "u", Client: "c", Outcome: OK, Issued: "code"})
		for _, f := range []string{"f", "g"} {
			s.add(Op{Kind: Redeem, User: "u", Client: "c", Token: "code", Family: f, Outcome: OK, Access: "at-" + f})
		}
	}},
	"a replayed code leaves the family alive": {"R2", nil, func(s *script) {
		s.add(Op{Kind: Redeem, User: "u", Client: "c", Token: "code", Family: "f", Outcome: OK, Access: "at"})
		s.add(Op{Kind: Redeem, User: "u", Client: "c", Token: "code", Outcome: Denied})
		s.introspect("f", "at", true)
	}},
	"a js_code makes two families": {"R3", nil, func(s *script) {
		s.signIn("f").Key = ""
		again := s.signIn("g")
		again.Token, again.Key = "js-f", ""
	}},
	"a repeated sign-in is answered otherwise": {"R3", nil, func(s *script) {
		s.signIn("f")
		again := s.signIn("f")
		again.Issued = "rt-another"
	}},
	"a refresh token has two successors": {"R3", nil, func(s *script) {
		s.signIn("f")
		s.refresh("f", "rt0-f", "rt1-f")
		s.refresh("f", "rt0-f", "rt1-fork")
	}},
	"a refresh token is taken after its successor": {"R3", nil, func(s *script) {
		s.signIn("f")
		s.refresh("f", "rt0-f", "rt1-f")
		s.refresh("f", "rt1-f", "rt2-f")
		s.refresh("f", "rt0-f", "rt1-f")
	}},
	"a refresh token is taken after the grace": {"R3", nil, func(s *script) {
		s.signIn("f")
		s.refresh("f", "rt0-f", "rt1-f")
		s.now += 90 * time.Second
		s.refresh("f", "rt0-f", "rt1-f")
	}},
	"a family lives after a reuse": {"R2", nil, func(s *script) {
		s.signIn("f")
		s.refresh("f", "rt0-f", "rt1-f")
		s.refresh("f", "rt1-f", "rt2-f")
		s.refresh("f", "rt0-f", "")
		s.introspect("f", "at0-f", true)
	}},
	"a reuse ends the family": {"", nil, func(s *script) {
		s.signIn("f")
		s.refresh("f", "rt0-f", "rt1-f")
		s.refresh("f", "rt1-f", "rt2-f")
		s.refresh("f", "rt0-f", "")
		s.introspect("f", "at0-f", false)
		s.refresh("f", "rt2-f", "")
	}},
	"a lost rotation is repeated within the grace": {"", nil, func(s *script) {
		s.signIn("f")
		s.act(Refresh, Unknown, "rt0-f", "f")
		s.refresh("f", "rt0-f", "rt1-f")
		s.refresh("f", "rt0-f", "rt1-f")
	}},
	"a lost rotation costs the sign-in": {"R1", nil, func(s *script) {
		s.signIn("f")
		s.act(Refresh, Unknown, "rt0-f", "f")
		s.refresh("f", "rt0-f", "")
	}},
	"a lost rotation is overtaken by its repetition and the next one": {"", nil, func(s *script) {
		s.signIn("f")
		s.act(Refresh, Unknown, "rt0-f", "f")
		s.refresh("f", "rt0-f", "rt1-f")
		s.refresh("f", "rt1-f", "rt2-f")
		s.introspect("f", "at0-f", false)
	}},
	"but not after the process is gone": {"R1", nil, func(s *script) {
		s.signIn("f")
		s.act(Refresh, Unknown, "rt0-f", "f")
		s.h.deaths = append(s.h.deaths, Death{"a", s.now})
		s.refresh("f", "rt0-f", "rt1-f")
		s.refresh("f", "rt1-f", "rt2-f")
		s.introspect("f", "at0-f", false)
	}},
	"a lost revocation is done": {"", nil, func(s *script) {
		s.signIn("f")
		s.act(Revoke, Unknown, "rt0-f", "f")
		s.introspect("f", "at0-f", false)
		s.refresh("f", "rt0-f", "")
	}},
	"a lost revocation is done, and undone": {"R5", nil, func(s *script) {
		s.signIn("f")
		s.act(Revoke, Unknown, "rt0-f", "f")
		s.introspect("f", "at0-f", false)
		s.introspect("f", "at0-f", true)
	}},
	"a lost revocation takes effect after the process is gone": {"R4", nil, func(s *script) {
		s.signIn("f")
		s.act(Revoke, Unknown, "rt0-f", "f")
		s.h.deaths = append(s.h.deaths, Death{"a", s.now})
		s.introspect("f", "at0-f", true)
		s.introspect("f", "at0-f", false)
	}},
	"a refused revocation takes effect later": {"R4", nil, func(s *script) {
		s.h.faults = append(s.h.faults, &Fault{Node: "a", What: "test", Start: 0})
		s.signIn("f")
		s.add(Op{Kind: Revoke, User: "u", Client: "c", Token: "rt0-f", Family: "f", Outcome: Unknown, Status: 503, RetryAfter: true})
		s.introspect("f", "at0-f", true)
		s.introspect("f", "at0-f", false)
	}},
	"a user has two subs": {"R6", nil, func(s *script) {
		s.signIn("f")
		s.signIn("g").Sub = "sub-another"
	}},
	"two users have one sub": {"R6", nil, func(s *script) {
		s.signIn("f")
		s.signIn("g").User = "v"
	}},
	"an answer for another client":   {"R6", nil, func(s *script) { s.signIn("f").AnswerClient = "d" }},
	"an answer for another audience": {"R6", nil, func(s *script) { s.signIn("f").Audience = "bank" }},
	"a refresh leads to another family": {"R6", nil, func(s *script) {
		s.signIn("f")
		s.signIn("g")
		s.refresh("g", "rt0-f", "rt1-f")
	}},
	"an internal error": {"R7", nil, func(s *script) {
		s.add(Op{Kind: Other, Outcome: Unknown, Status: 500})
	}},
	"an internal error within a fault": {"R7", nil, func(s *script) {
		s.h.faults = append(s.h.faults, &Fault{What: "test"})
		s.add(Op{Kind: Other, Outcome: Unknown, Status: 500})
	}},
	"503 without a fault": {"R7", nil, func(s *script) {
		s.add(Op{Kind: Other, Outcome: Unknown, Status: 503, RetryAfter: true})
	}},
	"503 without Retry-After": {"R7", nil, func(s *script) {
		s.h.faults = append(s.h.faults, &Fault{What: "test"})
		s.add(Op{Kind: Other, Outcome: Unknown, Status: 503})
	}},
	"503 of another node than the one at fault": {"R7", nil, func(s *script) {
		s.h.faults = append(s.h.faults, &Fault{Node: "b", What: "test"})
		s.add(Op{Kind: Other, Outcome: Unknown, Status: 503, RetryAfter: true})
	}},
	"503 within a fault": {"", nil, func(s *script) {
		s.h.faults = append(s.h.faults, &Fault{Node: "a", What: "test"})
		s.add(Op{Kind: Other, Outcome: Unknown, Status: 503, RetryAfter: true})
	}},
	"a broken connection without a fault": {"R7", nil, func(s *script) {
		s.add(Op{Kind: Other, Outcome: Unknown, Error: "EOF"})
	}},
	"a broken connection where only storage is at fault": {"R7", nil, func(s *script) {
		s.h.faults = append(s.h.faults, &Fault{What: "the disk is full"})
		s.add(Op{Kind: Other, Outcome: Unknown, Error: "EOF"})
	}},
	"a limit where there is none": {"R7", nil, func(s *script) {
		s.add(Op{Kind: Other, Outcome: Unknown, Status: 429, RetryAfter: true})
	}},
}

func TestRules(t *testing.T) {
	for name, test := range histories {
		t.Run(name, func(t *testing.T) {
			s := newScript()
			test.play(s)
			rules := testRules
			if test.rules != nil {
				test.rules(&rules)
			}
			found := Check(s.h, rules)
			switch {
			case test.rule == "" && len(found) > 0:
				t.Errorf("nothing is wrong, and the checker says %v", found)
			case test.rule != "" && !slices.ContainsFunc(found, func(v Violation) bool { return v.Rule == test.rule }):
				t.Errorf("found %v, want a violation of %s", found, test.rule)
			}
		})
	}
}

func TestCensus(t *testing.T) {
	full := Census{Users: []string{"sub-u"}, Families: []Listed{{"f", "sub-u", false}, {"g", "sub-u", true}}}
	tests := map[string]struct {
		edit func(*Census)
		want string // "": nothing is wrong
	}{
		"as it is":            {func(*Census) {}, ""},
		"a family is missing": {func(c *Census) { c.Families = c.Families[1:] }, "family f is not kept"},
		"a user is missing":   {func(c *Census) { c.Users = nil }, "user sub-u is not kept"},
		"a stranger's family": {func(c *Census) {
			c.Families = append(c.Families, Listed{"h", "sub-u", false}, Listed{"i", "sub-u", false})
		}, "2 families are kept"},
		"a lost sign-in is one": {func(c *Census) { c.Families = append(c.Families, Listed{"h", "sub-u", false}) }, ""},
		"a stranger":            {func(c *Census) { c.Users = append(c.Users, "sub-x") }, "1 users are kept"},
		"a revocation is gone":  {func(c *Census) { c.Families[1].Ended = false }, "family g was ended"},
		"an end from nowhere":   {func(c *Census) { c.Families[0].Ended = true }, "family f is kept as one that has ended"},
		"of another user":       {func(c *Census) { c.Families[0].Sub = "sub-x" }, "family f is kept as one of sub-x"},
		"a row twice":           {func(c *Census) { c.Families = append(c.Families, c.Families[0]) }, "listed twice"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScript()
			s.signIn("f")
			s.signIn("g")
			s.act(Revoke, OK, "rt0-g", "g")
			s.add(Op{Kind: SignIn, User: "u", Token: "lost", Outcome: Unknown, Cut: true})
			census := Census{slices.Clone(full.Users), slices.Clone(full.Families)}
			test.edit(&census)
			found := CheckCensus(s.h, testRules, census)
			switch {
			case test.want == "" && len(found) > 0:
				t.Errorf("nothing is wrong, and the census says %v", found)
			case test.want != "" && !slices.ContainsFunc(found, func(v Violation) bool { return strings.Contains(v.Text, test.want) }):
				t.Errorf("found %v, want %q", found, test.want)
			}
		})
	}
}

func TestHistoryFile(t *testing.T) {
	path := t.TempDir() + "/history"
	h, err := NewHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	end := h.BeginFault("a", "test", true)
	h.Add(&Op{Kind: SignIn, Node: "a", User: "u", Outcome: OK, Issued: fingerprint("token"), Start: 1, End: 2})
	h.Died("a")
	end()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	read, err := ReadHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(read.ops) != 1 || *read.ops[0] != *h.ops[0] || len(read.faults) != 1 || *read.faults[0] != *h.faults[0] ||
		len(read.deaths) != 1 || read.deaths[0] != h.deaths[0] {
		t.Errorf("read %+v", read)
	}
	if fingerprint("a") == fingerprint("b") || fingerprint("") != "" {
		t.Error("fingerprints do not tell credentials apart")
	}
}
