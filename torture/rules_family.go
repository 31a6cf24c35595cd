package main

import (
	"time"
)

// ends are the moments at which a family ended or may have ended, whatever it
// was that ended it.
func (c *checker) ends(f *family) []span {
	var out []span
	for _, op := range f.ops {
		switch op.Kind {
		case Revoke:
			if op.Outcome != Denied {
				out = append(out, c.effect(op))
			}
		case Refresh:
			if end, ok := c.endedByReuse(op); ok {
				out = append(out, end)
			}
		}
	}
	for _, birth := range f.births {
		if birth.Kind == Redeem {
			out = append(out, c.replays(birth)...)
		}
	}
	for _, op := range c.userChanges[f.user] {
		if op.Kind == Enable || op.Outcome == Denied {
			continue
		}
		end := c.effect(op)
		if !c.bornBefore(f, op.Start) {
			end.sure = false // the family may be the younger one
		}
		if len(f.births) == 0 || end.to > f.births[0].Start {
			out = append(out, end)
		}
	}
	return out
}

// bornBefore reports whether the family surely existed at a time.
func (c *checker) bornBefore(f *family, t time.Duration) bool {
	for _, birth := range f.births {
		if birth.End < t {
			return true
		}
	}
	return false
}

// replays are the other redemptions of a code that was exchanged for a family:
// each of them that was denied has ended it (RFC 6749 §4.1.2).
func (c *checker) replays(birth *Op) (out []span) {
	for _, op := range c.byToken[birth.Token] {
		if op == birth || op.Outcome == OK {
			continue
		}
		end := c.effect(op)
		end.sure = op.Outcome == Denied && op.Client == birth.Client
		if end.sure {
			// It may have come before the redemption whose answer is known, if
			// that one's effect is an earlier, unanswered one.
			end.sure = op.End > birth.Start
		}
		out = append(out, end)
	}
	return out
}

// standing is what a refresh token was worth when it was presented.
type standing int

const (
	good     standing = iota // current, or the one before within the grace
	doubtful                 // may be either
	spent                    // its successor was used, or the grace is over
)

// standingOf judges the refresh token of an operation by what was known of it
// when the server may have looked at it. A request that was left unanswered may
// be looked at late: its own repetition may have overtaken it, and then the
// next rotation.
func (c *checker) standingOf(op *Op) standing {
	worth, end := good, c.latest(op)
	for _, other := range c.byToken[op.Token] {
		if other == op || other.Outcome == Denied {
			continue
		}
		// The first rotation lies between the earliest start and the earliest
		// answer.
		if other.Start < end-c.rules.Grace+c.rules.Skew {
			worth = max(worth, doubtful)
		}
		if other.Outcome == OK && other.End < op.Start-c.rules.Grace-c.rules.Skew {
			worth = max(worth, spent)
		}
		if other.Issued == "" {
			continue
		}
		for _, next := range c.byToken[other.Issued] {
			if next.Outcome != Denied && next.Start < end {
				worth = max(worth, doubtful)
			}
			if next.Outcome == OK && next.End < op.Start {
				worth = max(worth, spent)
			}
		}
	}
	return worth
}

// endedByReuse reports that a refresh ended its family, or may have.
func (c *checker) endedByReuse(op *Op) (span, bool) {
	if op.Outcome == OK {
		return span{}, false
	}
	worth := c.standingOf(op)
	if worth == good {
		return span{}, false
	}
	end := c.effect(op)
	end.sure = op.Outcome == Denied && worth == spent
	return end, true
}

// sighting is an answer that tells whether a family lives.
type sighting struct {
	op    *Op
	alive bool
}

// seen are the sightings of a family. A denied access token tells nothing of
// the family where the token itself had ended or expired.
func (c *checker) seen(f *family) (out []sighting) {
	for _, op := range f.ops {
		switch op.Kind {
		case SignIn, Redeem:
			if op.Outcome == OK {
				out = append(out, sighting{op, true})
			}
		case Refresh:
			switch {
			case op.Outcome == OK:
				out = append(out, sighting{op, true})
			case op.Outcome == Denied && c.standingOf(op) == good:
				out = append(out, sighting{op, false})
			}
		case Introspect, UserInfo:
			switch {
			case op.Outcome == OK:
				out = append(out, sighting{op, true})
			case op.Outcome == Denied && !c.tokenMayBeOver(op) && !c.clocksDisagree(f, op):
				out = append(out, sighting{op, false})
			}
		}
	}
	return out
}

// tokenMayBeOver reports whether the presented access token may have ended by
// itself, without its family.
func (c *checker) tokenMayBeOver(op *Op) bool {
	for _, end := range c.tokenEnds[op.Token] {
		if end.Outcome != Denied && end.Start < op.End {
			return true
		}
	}
	from := c.accessFrom[op.Token]
	return from != nil && c.rules.AccessLifetime > 0 && op.End+c.rules.Skew > from.Start+c.rules.AccessLifetime
}

// clocksDisagree reports whether an access token, which ends with its family,
// may have expired by a node's clock while the family lives by the store's.
func (c *checker) clocksDisagree(f *family, op *Op) bool {
	return c.rules.FamilyLifetime > 0 && len(f.births) > 0 && op.End+c.rules.Skew > f.births[0].Start+c.rules.FamilyLifetime
}

// checkFamily is R1, R2, R4 and R5 for one family.
func (c *checker) checkFamily(f *family) {
	ends, sightings := c.ends(f), c.seen(f)
	for _, s := range sightings {
		if s.alive {
			c.checkAlive(f, s.op, ends, sightings)
		} else {
			c.checkDead(f, s.op, ends, sightings)
		}
	}
	for _, op := range f.ops {
		if op.Outcome == OK && (op.Kind == Introspect || op.Kind == UserInfo) {
			c.checkToken(op)
		}
		if op.Kind == Refresh && op.Outcome == OK && c.standingOf(op) == spent {
			c.report("R3", op, "a refresh token that was used up was taken again")
		}
	}
}

// checkAlive: nothing had ended the family before the request was sent.
func (c *checker) checkAlive(f *family, op *Op, ends []span, sightings []sighting) {
	for _, end := range ends {
		if end.sure && end.to < op.Start {
			c.report("R2", op, "family %s lives after %s", f.id, end.by)
			return
		}
	}
	for _, s := range sightings {
		if !s.alive && s.op.End < op.Start {
			c.report("R5", op, "family %s lives after it was seen ended by %s", f.id, s.op)
			return
		}
	}
	if c.surelyExpired(f, op) {
		c.report("R2", op, "family %s lives beyond its lifetime", f.id)
	}
}

// checkDead: something had ended the family, or may have, and nobody has seen
// it alive since.
func (c *checker) checkDead(f *family, op *Op, ends []span, sightings []sighting) {
	if len(f.births) == 0 || c.maybeExpired(f, op) {
		return
	}
	for _, end := range ends {
		if end.from < op.End && !refuted(end, op, sightings) {
			return
		}
	}
	rule, text := "R1", "family %s was acknowledged, nothing ended it, and it is gone"
	for _, end := range ends {
		if end.from < op.End {
			rule, text = "R4", "family %s was seen alive after all that may have ended it, and is gone"
		}
	}
	c.report(rule, op, text, f.id)
}

// refuted reports that an end which may have been has not: the family was seen
// alive after the last moment at which it could take effect.
func refuted(end span, op *Op, sightings []sighting) bool {
	if end.sure {
		return false
	}
	for _, s := range sightings {
		if s.alive && s.op != op && s.op.Start > end.to && s.op.Start < op.Start {
			return true
		}
	}
	return false
}

func (c *checker) maybeExpired(f *family, op *Op) bool {
	if c.rules.FamilyLifetime > 0 && op.End+c.rules.Skew > f.births[0].Start+c.rules.FamilyLifetime {
		return true
	}
	if c.rules.IdleLifetime == 0 {
		return false
	}
	used := f.births[0].Start
	for _, other := range f.ops {
		if other.Kind == Refresh && other.Outcome == OK && other.End < op.Start {
			used = max(used, other.Start-c.rules.Grace) // a repeat does not prolong
		}
	}
	return op.End+c.rules.Skew > used+c.rules.IdleLifetime
}

func (c *checker) surelyExpired(f *family, op *Op) bool {
	if len(f.births) == 0 || c.rules.FamilyLifetime == 0 {
		return false
	}
	return op.Start-c.rules.Skew > f.births[0].End+c.rules.FamilyLifetime
}

// checkToken is R2 for an access token that was found good.
func (c *checker) checkToken(op *Op) {
	for _, end := range c.tokenEnds[op.Token] {
		if end.Outcome == OK && end.End < op.Start {
			c.report("R2", op, "the access token is good after %s", end)
		}
	}
	from := c.accessFrom[op.Token]
	if from != nil && c.rules.AccessLifetime > 0 && op.Start-c.rules.Skew > from.End+c.rules.AccessLifetime {
		c.report("R2", op, "the access token of #%d is good beyond its lifetime", from.ID)
	}
}
