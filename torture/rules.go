package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Rules are what the checker must know of the server's configuration.
type Rules struct {
	Audience map[string]string // of access tokens, by client

	// What the server is configured with; 0 for a lifetime: nothing expires
	// while the history lasts.
	Grace          time.Duration // refresh_grace
	AccessLifetime time.Duration
	FamilyLifetime time.Duration // absolute
	IdleLifetime   time.Duration

	// Skew is how far the clocks that judge may be from ours, and Settle how
	// long after its end an operation may still take effect whose client got no
	// answer; 0 stands for two and 35 seconds.
	Skew   time.Duration
	Settle time.Duration
	// Lingers: the store is no part of the nodes, and may finish up to Settle
	// later what a node asked for that was killed, or that answered 503.
	Lingers bool

	// Refusals allows 429 with Retry-After: the scenario runs into limits.
	Refusals bool
}

// Violation is a broken promise.
type Violation struct {
	Rule string // R1 to R8
	Op   *Op    // nil: not of one operation
	Text string
}

func (v Violation) String() string {
	if v.Op == nil {
		return v.Rule + ": " + v.Text
	}
	return fmt.Sprintf("%s: %s: %s", v.Rule, v.Text, v.Op)
}

// Check holds a history to the rules:
//
//	R1  what was acknowledged is there
//	R2  what was ended stays ended for every request that starts later
//	R3  what may be used once has one effect; repeats within the grace are answered alike
//	R4  what may or may not have happened has happened or has not, for good
//	R5  what was once seen ended never lives again
//	R6  answers are about whom and what the request was about
//	R7  there is no 5xx but 503 with Retry-After within a fault, and no broken connection outside of one
//
// R8, the census, is CheckCensus. The order of the violations is that of time.
func Check(h *History, rules Rules) []Violation {
	c := newChecker(h, rules)
	for _, op := range c.ops {
		c.checkAnswer(op)
		c.checkParties(op)
	}
	c.checkSingleUse()
	for _, f := range c.families {
		c.checkFamily(f)
	}
	c.checkBeginnings()
	slices.SortStableFunc(c.found, func(a, b Violation) int { return cmp.Compare(at(a), at(b)) })
	return c.found
}

func at(v Violation) time.Duration {
	if v.Op == nil {
		return 0
	}
	return v.Op.Start
}

// span is a time within which something took effect; an event that may not
// have happened at all is not sure.
type span struct {
	from, to time.Duration
	sure     bool
	by       *Op
}

// family is all that is known of a refresh-token family.
type family struct {
	id     string
	births []*Op
	user   string
	ops    []*Op
}

type checker struct {
	rules  Rules
	ops    []*Op // by start
	faults []*Fault
	deaths map[string][]time.Duration // by node, in order
	found  []Violation

	families    map[string]*family
	byToken     map[string][]*Op // presented: refresh tokens, codes, js_codes
	issuedBy    map[string]*Op   // the first answer that had this refresh token or code
	accessFrom  map[string]*Op   // the answer that had this access token
	subs        map[string]*Op   // by user
	users       map[string]*Op   // by sub
	userChanges map[string][]*Op // Disable, Enable, EndUser by user
	tokenEnds   map[string][]*Op // RevokeAccess by access token
}

func newChecker(h *History, rules Rules) *checker {
	rules.Skew = cmp.Or(rules.Skew, 2*time.Second)
	rules.Settle = cmp.Or(rules.Settle, 35*time.Second)
	c := &checker{
		rules: rules, ops: h.snapshot(), deaths: map[string][]time.Duration{},
		families: map[string]*family{}, byToken: map[string][]*Op{}, issuedBy: map[string]*Op{}, accessFrom: map[string]*Op{},
		subs: map[string]*Op{}, users: map[string]*Op{}, userChanges: map[string][]*Op{}, tokenEnds: map[string][]*Op{},
	}
	h.mu.Lock()
	c.faults = slices.Clone(h.faults)
	for _, d := range h.deaths {
		c.deaths[d.Node] = append(c.deaths[d.Node], d.At)
	}
	h.mu.Unlock()
	slices.SortStableFunc(c.ops, func(a, b *Op) int { return cmp.Compare(a.Start, b.Start) })
	for _, op := range c.ops {
		c.index(op)
	}
	return c
}

func (c *checker) index(op *Op) {
	switch op.Kind {
	case SignIn, Redeem, Refresh:
		c.byToken[op.Token] = append(c.byToken[op.Token], op)
	case Disable, Enable, EndUser:
		c.userChanges[op.User] = append(c.userChanges[op.User], op)
	case RevokeAccess:
		c.tokenEnds[op.Token] = append(c.tokenEnds[op.Token], op)
	}
	if op.Issued != "" && c.issuedBy[op.Issued] == nil {
		c.issuedBy[op.Issued] = op
	}
	if op.Access != "" && c.accessFrom[op.Access] == nil {
		c.accessFrom[op.Access] = op
	}
	if op.Family == "" {
		return
	}
	f := c.families[op.Family]
	if f == nil {
		f = &family{id: op.Family, user: op.User}
		c.families[op.Family] = f
	}
	f.ops = append(f.ops, op)
	if op.Outcome == OK && (op.Kind == SignIn || op.Kind == Redeem) {
		f.births = append(f.births, op)
	}
}

func (c *checker) report(rule string, op *Op, format string, args ...any) {
	c.found = append(c.found, Violation{rule, op, fmt.Sprintf(format, args...)})
}

// latest is the last moment at which an operation can take effect.
func (c *checker) latest(op *Op) time.Duration {
	switch {
	case op.Outcome == Unknown && c.rules.Lingers:
		return op.End + c.rules.Settle
	case op.Outcome != Unknown || op.Status != 0:
		return op.End // answered, if only to say that it did not work
	}
	for _, died := range c.deaths[op.Node] {
		if died >= op.Start {
			return min(max(died, op.End), op.End+c.rules.Settle)
		}
	}
	return op.End + c.rules.Settle
}

// effect is when an operation took effect, if it did.
func (c *checker) effect(op *Op) span {
	return span{from: op.Start, to: c.latest(op), sure: op.Outcome == OK, by: op}
}

// checkAnswer is R7.
func (c *checker) checkAnswer(op *Op) {
	during, unreachable := c.faultOf(op)
	switch {
	case op.Cut:
	case op.Status == 0:
		if !unreachable {
			c.report("R7", op, "no answer outside of a fault")
		}
	case op.Status == 503:
		if during == "" {
			c.report("R7", op, "503 outside of a fault")
		} else if !op.RetryAfter {
			c.report("R7", op, "503 without Retry-After during %s", during)
		}
	case op.Status >= 500:
		c.report("R7", op, "a server error")
	case op.Status == 429 && (!c.rules.Refusals || !op.RetryAfter):
		c.report("R7", op, "429 where no limit is, or without Retry-After")
	}
}

// faultOf returns the fault that the operation met, if any.
func (c *checker) faultOf(op *Op) (what string, unreachable bool) {
	for _, f := range c.faults {
		if (f.Node == "" || f.Node == op.Node) && op.End >= f.Start && (f.End == 0 || op.Start <= f.End) {
			what, unreachable = f.What, unreachable || f.Unreachable
		}
	}
	return what, unreachable
}

// checkParties is R6: one sub for a user, one user for a sub, and the client
// and audience that were asked for.
func (c *checker) checkParties(op *Op) {
	if op.Outcome != OK || op.Sub == "" {
		return
	}
	if known := c.subs[op.User]; known == nil {
		c.subs[op.User] = op
	} else if known.Sub != op.Sub {
		c.report("R6", op, "user %s is %s and was %s in #%d", op.User, op.Sub, known.Sub, known.ID)
	}
	if known := c.users[op.Sub]; known == nil {
		c.users[op.Sub] = op
	} else if known.User != op.User {
		c.report("R6", op, "sub %s is of user %s and was of %s in #%d", op.Sub, op.User, known.User, known.ID)
	}
	if op.AnswerClient != "" && op.AnswerClient != op.Client {
		c.report("R6", op, "client %s was answered for client %s", op.Client, op.AnswerClient)
	}
	if want := c.rules.Audience[op.Client]; want != "" && op.Audience != "" && op.Audience != want {
		c.report("R6", op, "audience %s in place of %s", op.Audience, want)
	}
	if op.Kind == Refresh {
		if before := c.issuedBy[op.Token]; before != nil && before.Family != op.Family {
			c.report("R6", op, "a refresh token of family %s was answered for family %s", before.Family, op.Family)
		}
	}
}
