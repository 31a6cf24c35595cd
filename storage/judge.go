package storage

import (
	"math"
	"time"
)

// UserState is what a judgement needs to know of a family's user.
type UserState struct {
	Found       bool
	Disabled    bool
	Epoch       uint32
	EndedAt     time.Time
	EndedReason string
}

// State returns what judgements need to know of the user.
func (u *UserRecord) State() UserState {
	return UserState{Found: true, Disabled: u.Disabled, Epoch: u.Epoch, EndedAt: u.EndedAt, EndedReason: u.EndedReason}
}

// ended reports whether the family ended because of what happened to its user.
func (u UserState) ended(f *Family) bool { return !u.Found || u.Epoch != f.UserEpoch }

// Overlay returns the family as a caller should see it: one that ended with
// all others of its user reads as revoked.
func (u UserState) Overlay(f Family) Family {
	if f.RevokedAt.IsZero() && u.ended(&f) {
		f.RevokedAt, f.RevokedFor = u.EndedAt, u.EndedReason
		if f.RevokedAt.IsZero() {
			f.RevokedAt = f.CreatedAt // the user is gone
		}
	}
	return f
}

// ExpiredAt reports whether the family's idle or absolute lifetime is over.
func (f *Family) ExpiredAt(now time.Time) bool {
	return !now.Before(f.IdleExpiresAt) || !now.Before(f.ExpiresAt)
}

// Start gives a new family its user, its times and its first generation.
// idle of 0 or less means that only the absolute lifetime counts.
func (f *Family) Start(userID string, identity Digest, epoch uint32, now time.Time, idle, absolute time.Duration) {
	now = RoundTime(now)
	f.UserID, f.Identity, f.UserEpoch = userID, identity, epoch
	f.AuthTime = RoundTime(f.AuthTime)
	f.CreatedAt, f.RotatedAt = now, now
	f.ExpiresAt = now.Add(absolute)
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
// transaction that read f and the user.
func JudgeRotate(in Rotation, f Family, user UserState, now time.Time) (res RotateResult, write bool) {
	now = RoundTime(now)
	verdict := func(v RotateVerdict) (RotateResult, bool) {
		return RotateResult{Verdict: v, Family: user.Overlay(f)}, false
	}
	switch {
	case f.ClientID != in.ClientID:
		return verdict(RotateWrongClient)
	case !f.RevokedAt.IsZero():
		return verdict(RotateRevoked)
	case f.ExpiredAt(now):
		return verdict(RotateExpired)
	case user.Disabled:
		return verdict(RotateUserDisabled)
	case user.ended(&f):
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

// RevokedForReuse is the reason of a family that Rotate revoked.
const RevokedForReuse = "reuse"

// RevokedForDisabled is the reason of families that ended because their user
// was disabled.
const RevokedForDisabled = "user_disabled"

// JudgeAccess decides what CheckAccess answers for a family that exists.
func JudgeAccess(f Family, user UserState, now time.Time) AccessResult {
	switch {
	case !f.RevokedAt.IsZero():
		return AccessResult{Verdict: AccessFamilyRevoked}
	case f.ExpiredAt(RoundTime(now)):
		return AccessResult{Verdict: AccessFamilyExpired}
	case user.Disabled:
		return AccessResult{Verdict: AccessUserDisabled}
	case user.ended(&f):
		return AccessResult{Verdict: AccessFamilyRevoked}
	}
	return AccessResult{Verdict: AccessActive, Family: f}
}
