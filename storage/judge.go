package storage

import (
	"math"
	"time"
)

// UserState is what a judgement needs to know of a family's user.
type UserState struct {
	Found       bool
	Disabled    bool
	Retired     bool
	Epoch       uint32
	EndedAt     time.Time
	EndedReason string
}

// State returns what judgements need to know of the user.
func (u *UserRecord) State() UserState {
	return UserState{Found: true, Disabled: u.Disabled, Retired: u.Retired, Epoch: u.Epoch, EndedAt: u.EndedAt, EndedReason: u.EndedReason}
}

// Parties are a family's user and client, and the login session of one that
// ends with it.
type Parties struct {
	User   UserState
	Client ClientState
	Login  LoginState // read only where Family.EndsWithLogin
}

// EndsWithLogin reports whether the family ends with its login session.
func (f *Family) EndsWithLogin() bool { return !f.LoginID.IsZero() && !f.Offline }

func (p *Parties) userEnded(f *Family) bool {
	return !p.User.Found || p.User.Retired || p.User.Epoch != f.UserEpoch
}

func (p *Parties) clientEnded(f *Family) bool { return p.Client.Epoch != f.ClientEpoch }

func (p *Parties) loginEnded(f *Family) bool {
	return f.EndsWithLogin() && (!p.Login.Found || !p.Login.EndedAt.IsZero())
}

// ended reports whether the family ended because of what happened to its user,
// its client or its login session.
func (p *Parties) ended(f *Family) bool {
	return p.userEnded(f) || p.clientEnded(f) || p.loginEnded(f)
}

// Overlay returns the family as a caller should see it: one that ended with
// all others of its user, its client or its login session reads as revoked.
func (p *Parties) Overlay(f Family) Family {
	switch {
	case !f.RevokedAt.IsZero() || !p.ended(&f):
		return f
	case p.userEnded(&f):
		f.RevokedAt, f.RevokedFor = p.User.EndedAt, p.User.EndedReason
	case p.loginEnded(&f):
		f.RevokedAt, f.RevokedFor = p.Login.EndedAt, RevokedForLogout
		if !p.Login.Found {
			f.RevokedAt = f.RotatedAt // the last that is known of it
		}
	default:
		f.RevokedAt, f.RevokedFor = p.Client.EndedAt, p.Client.EndedReason
	}
	if f.RevokedAt.IsZero() {
		f.RevokedAt = f.CreatedAt // the user is gone
	}
	return f
}

// ExpiredAt reports whether the family's idle or absolute lifetime is over.
func (f *Family) ExpiredAt(now time.Time) bool {
	return !now.Before(f.IdleExpiresAt) || !now.Before(f.ExpiresAt)
}

// Start gives a new family its user, its times and its first generation.
// idle of 0 or less means that only the absolute lifetime counts. One that ends
// with its login session expires no later than that.
func (f *Family) Start(userID string, identity Digest, parties Parties, now time.Time, idle, absolute time.Duration) {
	now = RoundTime(now)
	f.UserID, f.Identity = userID, identity
	f.UserEpoch, f.ClientEpoch = parties.User.Epoch, parties.Client.Epoch
	f.AuthTime = RoundTime(f.AuthTime)
	f.CreatedAt, f.RotatedAt = now, now
	f.ExpiresAt = now.Add(absolute)
	if f.EndsWithLogin() && parties.Login.Found {
		f.ExpiresAt = earlier(f.ExpiresAt, parties.Login.ExpiresAt)
	}
	f.IdleExpiresAt = idleExpiry(f, now, idle)
	f.RevokedAt, f.RevokedFor = time.Time{}, ""
}

func idleExpiry(f *Family, now time.Time, idle time.Duration) time.Time {
	if at := now.Add(idle); idle > 0 && at.Before(f.ExpiresAt) {
		return at
	}
	return f.ExpiresAt
}

// JudgeRotate decides a rotation of f at now, the engine's own time. Where
// write is true the engine must store the result's family in the same
// transaction that read f and its parties.
func JudgeRotate(in Rotation, f Family, parties Parties, now time.Time) (res RotateResult, write bool) {
	now = RoundTime(now)
	verdict := func(v RotateVerdict) (RotateResult, bool) {
		return RotateResult{Verdict: v, Family: parties.Overlay(f)}, false
	}
	switch {
	case f.ClientID != in.ClientID:
		return verdict(RotateWrongClient)
	case !f.RevokedAt.IsZero():
		return verdict(RotateRevoked)
	case f.ExpiredAt(now):
		return verdict(RotateExpired)
	case parties.User.Disabled:
		return verdict(RotateUserDisabled)
	case parties.ended(&f):
		return verdict(RotateRevoked)
	case in.Generation > f.Generation:
		return verdict(RotateInvalid)
	case in.Generation == f.Generation && f.Generation == math.MaxUint32:
		return verdict(RotateExpired) // no generation is left to follow
	case in.Generation == f.Generation:
		f.Generation++
		f.MACKeyID = in.MACKeyID
		f.RotatedAt = now
		f.IdleExpiresAt = idleExpiry(&f, now, in.Idle)
		return RotateResult{Verdict: RotateOK, Family: f}, true
	}
	successorUsed := in.Generation+1 < f.Generation
	if age := max(now.Sub(f.RotatedAt), 0); !successorUsed && age < in.Grace {
		return verdict(RotateRepeated)
	}
	f.RevokedAt, f.RevokedFor = now, RevokedForReuse
	return RotateResult{Verdict: RotateReused, Family: f, SuccessorUsed: successorUsed}, true
}

// The reasons of families that the store itself ended.
const (
	RevokedForReuse     = "reuse"            // Rotate found it
	RevokedForCodeReuse = "code_reuse"       // Redeem found it
	RevokedForLogout    = "logged_out"       // EndLogin, or the login session expired
	RevokedForConsent   = "consent_revoked"  // RevokeConsent
	RevokedForDisabled  = "user_disabled"    // SetUserDisabled
	RevokedForPassword  = "password_changed" // SetPassword with endFamilies
	RevokedForUnbind    = "unbound"          // Unbind of an identity of the user
	RevokedForMerge     = "merged"           // the user was merged into another, or bound to another account
	RevokedForPhone     = "phone_sign_in"    // a phone number joined another identity to the user
	RevokedForErasure   = "erased"           // Erase
	RevokedForWeChat    = "withdrawn"        // Withdraw
)

// JudgeAccess decides what CheckAccess answers for a family that exists.
func JudgeAccess(f Family, parties Parties, now time.Time) AccessResult {
	switch {
	case !f.RevokedAt.IsZero():
		return AccessResult{Verdict: AccessFamilyRevoked}
	case f.ExpiredAt(RoundTime(now)):
		return AccessResult{Verdict: AccessFamilyExpired}
	case parties.User.Disabled:
		return AccessResult{Verdict: AccessUserDisabled}
	case parties.ended(&f):
		return AccessResult{Verdict: AccessFamilyRevoked}
	}
	return AccessResult{Verdict: AccessActive, Family: f}
}
