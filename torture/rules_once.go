package main

import "time"

// checkSingleUse is R3 for js_codes, authorization codes and refresh tokens.
func (c *checker) checkSingleUse() {
	for _, ops := range c.byToken {
		var first *Op
		for _, op := range ops {
			if op.Outcome != OK {
				continue
			}
			if first == nil {
				first = op
				continue
			}
			switch op.Kind {
			case Redeem:
				c.report("R3", op, "a code was redeemed twice, first by %s", first)
			case SignIn:
				if op.Key == "" || op.Key != first.Key {
					c.report("R3", op, "a js_code was taken twice, first by %s", first)
				} else if op.Issued != first.Issued || op.Family != first.Family {
					c.report("R3", op, "a repeated sign-in was answered otherwise than by %s", first)
				}
			case Refresh:
				if op.Issued != first.Issued {
					c.report("R3", op, "a refresh token has two successors, the other from %s", first)
				}
			}
		}
	}
}

// checkBeginnings judges what was denied or granted at the beginning of a
// family: R1 where there is no reason to deny it, R2 where there is.
func (c *checker) checkBeginnings() {
	for _, op := range c.ops {
		switch {
		case op.Kind != SignIn && op.Kind != Redeem:
		case op.Outcome == OK:
			c.checkShutOut(op)
		case op.Outcome == Denied && op.Kind == SignIn:
			if !c.presentedBefore(op) && !c.maybeDisabled(op) {
				c.report("R1", op, "a fresh js_code was refused without a reason")
			}
		case op.Outcome == Denied && op.Kind == Redeem:
			issue := c.issuedBy[op.Token]
			if issue != nil && !c.presentedBefore(op) && !c.mayHaveEndedSince(op, issue) && op.End < issue.Start+codeLifetime-c.rules.Skew {
				c.report("R1", op, "the code of #%d was refused without a reason", issue.ID)
			}
		}
	}
}

// codeLifetime is how long an authorization code may be redeemed.
const codeLifetime = 60 * time.Second

// presentedBefore reports whether a single-use credential may have been used
// up by another request.
func (c *checker) presentedBefore(op *Op) bool {
	for _, other := range c.byToken[op.Token] {
		if other != op && other.Start < op.End {
			return true
		}
	}
	return false
}

// mayHaveEndedSince reports whether all sign-ins of the user may have been
// ended between the issue of a code and its redemption.
func (c *checker) mayHaveEndedSince(op, issue *Op) bool {
	for _, change := range c.userChanges[op.User] {
		if change.Kind != Enable && change.Outcome != Denied && change.Start < op.End && c.latest(change) > issue.Start {
			return true
		}
	}
	return false
}

// checkShutOut: a user who was surely disabled does not get in.
func (c *checker) checkShutOut(op *Op) {
	changes := c.userChanges[op.User]
	for _, disable := range changes {
		if disable.Kind != Disable || disable.Outcome != OK || disable.End >= op.Start {
			continue
		}
		enabled := false
		for _, enable := range changes {
			if enable.Kind == Enable && enable.Outcome != Denied && c.latest(enable) > disable.Start && enable.Start < op.End {
				enabled = true
			}
		}
		if !enabled && !c.repeatsEarlier(op, disable.End) {
			c.report("R2", op, "user %s got in after %s", op.User, disable)
			return
		}
	}
}

// repeatsEarlier reports whether a sign-in only repeats the outcome of one that
// may have happened before a time. Its family is judged by itself.
func (c *checker) repeatsEarlier(op *Op, t time.Duration) bool {
	for _, other := range c.byToken[op.Token] {
		if other != op && other.Start < t {
			return true
		}
	}
	return false
}

// maybeDisabled reports whether the user may have been disabled at some time of
// the operation.
func (c *checker) maybeDisabled(op *Op) bool {
	changes := c.userChanges[op.User]
	for _, disable := range changes {
		if disable.Kind != Disable || disable.Outcome == Denied || disable.Start >= op.End {
			continue
		}
		undone := false
		for _, enable := range changes {
			if enable.Kind == Enable && enable.Outcome == OK && enable.Start > c.latest(disable) && enable.End < op.Start {
				undone = true
			}
		}
		if !undone {
			return true
		}
	}
	return false
}
