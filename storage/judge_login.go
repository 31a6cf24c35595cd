package storage

import (
	"slices"
	"time"
)

// LoginRecord is a login session as it is stored. One that ended keeps its row
// until it would have expired, without a token and without participants.
type LoginRecord struct {
	LoginSession
	EndedAt time.Time // zero: not ended by anybody
}

// LoginState is what a judgement at one moment needs to know of a login
// session. The zero state is that of one that does not exist.
type LoginState struct {
	Found     bool
	EndedAt   time.Time // when it ended or expired; zero: neither
	ExpiresAt time.Time
}

// Expiry is when the session expires, by idling or for good.
func (l *LoginRecord) Expiry() time.Time { return earlier(l.IdleExpiresAt, l.ExpiresAt) }

// StateAt returns what judgements at now need to know of the session.
func (l *LoginRecord) StateAt(now time.Time) LoginState {
	s := LoginState{Found: true, EndedAt: l.EndedAt, ExpiresAt: l.ExpiresAt}
	if expiry := l.Expiry(); s.EndedAt.IsZero() && !RoundTime(now).Before(expiry) {
		s.EndedAt = expiry
	}
	return s
}

// LiveAt reports whether the session, which is the given user's, is live.
func (l *LoginRecord) LiveAt(user UserState, now time.Time) bool {
	return l.StateAt(now).EndedAt.IsZero() && user.Found && !user.Retired && !user.Disabled && user.Epoch == l.UserEpoch
}

// Touch puts the idle expiry to idle from now on, never beyond the absolute
// one, which alone counts for an idle of 0 or less. It reports a change.
func (l *LoginRecord) Touch(now time.Time, idle time.Duration) bool {
	at := l.ExpiresAt
	if idle > 0 {
		at = earlier(at, RoundTime(now).Add(idle))
	}
	changed := !at.Equal(l.IdleExpiresAt)
	l.IdleExpiresAt = at
	return changed
}

// End ends the session and returns the notices for its clients that are named
// by notify, one for each family.
func (l *LoginRecord) End(now time.Time, notify []string) []LogoutNotice {
	now = RoundTime(now)
	var notices []LogoutNotice
	for _, p := range l.Participants {
		if slices.Contains(notify, p.ClientID) {
			notices = append(notices, newNotice(p.ClientID, l.UserID, p.FamilyID, now))
		}
	}
	l.EndedAt, l.Token, l.Participants = now, Digest{}, nil
	return notices
}

// newNotice returns a notice that is due at once.
func newNotice(clientID, userID string, family FamilyID, now time.Time) LogoutNotice {
	return LogoutNotice{ID: NewLogoutID(), ClientID: clientID, UserID: userID, FamilyID: family, EndedAt: now, Next: now}
}

// Leave forgets a family that was signed in through the session, and reports
// whether it was remembered.
func (l *LoginRecord) Leave(family FamilyID) bool {
	before := len(l.Participants)
	l.Participants = slices.DeleteFunc(slices.Clone(l.Participants), func(p Participant) bool { return p.FamilyID == family })
	return len(l.Participants) < before
}

// join remembers a family that was signed in through the session. Where there
// are too many, the oldest of the same client is forgotten, or else the oldest.
func (l *LoginRecord) join(clientID string, family FamilyID) {
	list := slices.Clone(l.Participants)
	if len(list) >= MaxParticipants {
		oldest := slices.IndexFunc(list, func(p Participant) bool { return p.ClientID == clientID })
		list = slices.Delete(list, max(oldest, 0), max(oldest, 0)+1)
	}
	l.Participants = append(list, Participant{ClientID: clientID, FamilyID: family})
}
