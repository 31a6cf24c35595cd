package main

import (
	"fmt"
	"slices"
)

// Census is what the server itself says it keeps.
type Census struct {
	Users    []string // subs
	Families []Listed
}

// Listed is a family in a listing.
type Listed struct {
	ID    string
	Sub   string
	Ended bool // revoked, or ended with its user or client
}

// CheckCensus is R8: the rows are those of the history. What the history does
// not know must be the outcome of a request whose answer was lost, and of what
// expires nothing may be missing before its time.
func CheckCensus(h *History, rules Rules, census Census) []Violation {
	c := newChecker(h, rules)
	now := h.Now()
	listed := map[string]Listed{}
	strangers := 0
	for _, l := range census.Families {
		if _, twice := listed[l.ID]; twice {
			c.report("R8", nil, "family %s is listed twice", l.ID)
		}
		listed[l.ID] = l
		if f := c.families[l.ID]; f == nil || len(f.births) == 0 {
			strangers++
		}
	}
	if lost := c.lostBeginnings(); strangers > lost {
		c.report("R8", nil, "%d families are kept that nobody was told of, and only %d requests for one were left unanswered", strangers, lost)
	}
	for _, f := range c.families {
		if len(f.births) == 0 {
			continue
		}
		last := &Op{Kind: Other, Start: now, End: now}
		row, there := listed[f.id]
		switch {
		case c.maybeExpired(f, last):
			if there && rules.FamilyLifetime > 0 && now > f.births[len(f.births)-1].End+rules.FamilyLifetime+collectWithin {
				c.report("R8", f.births[0], "family %s is kept long after it expired", f.id)
			}
		case !there:
			c.report("R8", f.births[0], "family %s is not kept", f.id)
		default:
			c.checkRow(f, row)
		}
	}
	c.checkUsers(census.Users)
	return c.found
}

// collectWithin is how long an expired row may stay.
const collectWithin = 60e9

func (c *checker) checkRow(f *family, row Listed) {
	if birth := f.births[0]; birth.Sub != "" && birth.Sub != row.Sub {
		c.report("R8", birth, "family %s is kept as one of %s", f.id, row.Sub)
	}
	ends, sightings := c.ends(f), c.seen(f)
	last := &Op{Kind: Other, Start: 1 << 62, End: 1 << 62}
	surely, possibly := false, false
	for _, end := range ends {
		surely = surely || end.sure
		possibly = possibly || !refuted(end, last, sightings)
	}
	for _, s := range sightings {
		possibly = possibly || !s.alive // reported elsewhere where it was wrong
	}
	if surely && !row.Ended {
		c.report("R8", f.births[0], "family %s was ended and is kept as a live one", f.id)
	}
	if row.Ended && !possibly {
		c.report("R8", f.births[0], "family %s is kept as one that has ended, and nothing ended it", f.id)
	}
}

// lostBeginnings counts the requests for a family that may have made one
// nobody was told of.
func (c *checker) lostBeginnings() int {
	n := 0
	for _, ops := range c.byToken {
		lost, told := false, false
		for _, op := range ops {
			if op.Kind == SignIn || op.Kind == Redeem {
				lost = lost || op.Outcome == Unknown
				told = told || op.Outcome == OK
			}
		}
		if lost && !told {
			n++
		}
	}
	return n
}

// checkUsers: everybody who was told a sub is kept, and nobody else but those
// whose first sign-in was left unanswered.
func (c *checker) checkUsers(kept []string) {
	told := map[string]bool{}  // subs
	named := map[string]bool{} // users of told
	maybe := map[string]bool{} // users who may be there
	for _, op := range c.ops {
		if op.Sub != "" && op.Outcome == OK {
			told[op.Sub], named[op.User] = true, true
		} else if op.Kind == SignIn && op.Outcome == Unknown {
			maybe[op.User] = true
		}
	}
	strangers := 0
	for _, sub := range kept {
		if !told[sub] {
			strangers++
		}
	}
	unnamed := 0
	for user := range maybe {
		if !named[user] {
			unnamed++
		}
	}
	if strangers > unnamed {
		c.report("R8", nil, "%d users are kept whom nobody was told of, and only %d first sign-ins were left unanswered", strangers, unnamed)
	}
	for sub := range told {
		if !slices.Contains(kept, sub) {
			c.report("R8", nil, "user %s is not kept", sub)
		}
	}
}

// String sums the census up.
func (c Census) String() string {
	ended := 0
	for _, f := range c.Families {
		if f.Ended {
			ended++
		}
	}
	return fmt.Sprintf("%d users, %d families, %d of them ended", len(c.Users), len(c.Families), ended)
}
