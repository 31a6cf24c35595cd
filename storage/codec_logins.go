package storage

import (
	"encoding/binary"
	"slices"
	"time"
)

// The later versions have what the first ones have, and then when a grant was
// made and when consents were revoked.
const (
	loginVersion          = 1
	codeVersion           = 1
	datedCodeVersion      = 2
	consentVersion        = 1
	revokedConsentVersion = 2
	noticeVersion         = 1
)

// EncodeLogin returns the stored form of a login session without its id, which
// is the key it is stored under.
func EncodeLogin(l *LoginRecord) []byte {
	b := make([]byte, 0, 160+len(l.UserID)+len(l.Browser)+len(l.Network)+len(l.Participants)*32)
	b = append(b, loginVersion)
	b = appendString(b, l.UserID)
	b = binary.BigEndian.AppendUint32(b, l.UserEpoch)
	b = appendDigest(b, l.Token)
	b = appendTime(b, l.CreatedAt)
	b = appendTime(b, l.AuthTime)
	b = appendTime(b, l.IdleExpiresAt)
	b = appendTime(b, l.ExpiresAt)
	b = appendTime(b, l.EndedAt)
	b = appendStrings(b, l.AMR)
	b = appendString(b, l.Browser)
	b = appendString(b, l.Network)
	b = binary.AppendUvarint(b, uint64(len(l.Participants)))
	for _, p := range l.Participants {
		b = appendString(b, p.ClientID)
		b = append(b, p.FamilyID[:]...)
	}
	return b
}

// DecodeLogin reads what EncodeLogin wrote and keeps nothing of data. It
// returns ErrCorrupt for anything else.
func DecodeLogin(id LoginID, data []byte) (LoginRecord, error) {
	r := reader{data: data, text: string(data)}
	r.bad = r.byte() != loginVersion
	var l LoginRecord
	l.ID = id
	l.UserID = r.string()
	l.UserEpoch = r.uint32()
	l.Token = r.digest()
	l.CreatedAt = r.time()
	l.AuthTime = r.time()
	l.IdleExpiresAt = r.time()
	l.ExpiresAt = r.time()
	l.EndedAt = r.time()
	l.AMR = r.strings()
	l.Browser = r.string()
	l.Network = r.string()
	n := r.length()
	if n > MaxParticipants {
		return LoginRecord{}, ErrCorrupt
	}
	for range n {
		p := Participant{ClientID: r.string()}
		copy(p.FamilyID[:], r.take(len(p.FamilyID)))
		l.Participants = append(l.Participants, p)
	}
	if err := r.end(); err != nil {
		return LoginRecord{}, err
	}
	return l, nil
}

// EncodeCode returns the stored form of a code but for KeepUntil, which an
// engine stores where it finds it without decoding.
func EncodeCode(c *CodeRecord) []byte {
	b := make([]byte, 0, 384)
	version := byte(codeVersion)
	if !c.Grant.IssuedAt.IsZero() {
		version = datedCodeVersion
	}
	b = append(b, version)
	b = appendTime(b, c.ExpiresAt)
	b = appendBool(b, c.Used)
	if c.Used {
		b = append(b, c.FamilyID[:]...)
	}
	g := &c.Grant
	b = appendString(b, g.UserID)
	b = binary.BigEndian.AppendUint32(b, g.UserEpoch)
	b = appendString(b, g.ClientID)
	b = append(b, g.LoginID[:]...)
	b = appendBool(b, g.Offline)
	b = appendStrings(b, g.Scope)
	b = appendStrings(b, g.Audience)
	b = appendTime(b, g.AuthTime)
	b = appendStrings(b, g.AMR)
	b = appendString(b, g.ACR)
	b = appendString(b, g.Nonce)
	b = appendString(b, g.RedirectURI)
	b = appendString(b, g.Challenge)
	b = appendString(b, g.DPoPThumbprint)
	b = appendStrings(b, g.IDTokenClaims)
	b = appendStrings(b, g.UserInfoClaims)
	if version == datedCodeVersion {
		b = appendTime(b, g.IssuedAt)
	}
	return b
}

// DecodeCode reads what EncodeCode wrote and keeps nothing of data. It returns
// ErrCorrupt for anything else.
func DecodeCode(data []byte) (CodeRecord, error) {
	r := reader{data: data, text: string(data)}
	version := r.byte()
	r.bad = version != codeVersion && version != datedCodeVersion
	var c CodeRecord
	c.ExpiresAt = r.time()
	if c.Used = r.bool(); c.Used {
		copy(c.FamilyID[:], r.take(len(c.FamilyID)))
	}
	g := &c.Grant
	g.UserID = r.string()
	g.UserEpoch = r.uint32()
	g.ClientID = r.string()
	copy(g.LoginID[:], r.take(len(g.LoginID)))
	g.Offline = r.bool()
	g.Scope = r.strings()
	g.Audience = r.strings()
	g.AuthTime = r.time()
	g.AMR = r.strings()
	g.ACR = r.string()
	g.Nonce = r.string()
	g.RedirectURI = r.string()
	g.Challenge = r.string()
	g.DPoPThumbprint = r.string()
	g.IDTokenClaims = r.strings()
	g.UserInfoClaims = r.strings()
	if version == datedCodeVersion {
		g.IssuedAt = r.time()
		r.bad = r.bad || g.IssuedAt.IsZero()
	}
	if err := r.end(); err != nil {
		return CodeRecord{}, err
	}
	return c, nil
}

// EncodeConsents returns the stored form of what a user has agreed to, and of
// what was revoked since: that has neither scopes nor claims.
func EncodeConsents(list []Consent) []byte {
	b := make([]byte, 0, 2+len(list)*72)
	version := byte(consentVersion)
	if anyRevoked(list) {
		version = revokedConsentVersion
	}
	b = append(b, version)
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		b = appendString(b, list[i].ClientID)
		b = appendStrings(b, list[i].Scope)
		b = appendStrings(b, list[i].Claims)
		b = appendTime(b, list[i].GrantedAt)
		if version == revokedConsentVersion {
			b = appendTime(b, list[i].RevokedAt)
		}
	}
	return b
}

func anyRevoked(list []Consent) bool {
	return slices.ContainsFunc(list, func(c Consent) bool { return !c.RevokedAt.IsZero() })
}

// ConsentRevokedAt returns when the consent for a client was last revoked, by
// what EncodeConsents wrote or nil; zero: never.
func ConsentRevokedAt(data []byte, clientID string) (time.Time, error) {
	if len(data) == 0 || data[0] == consentVersion {
		return time.Time{}, nil
	}
	list, err := DecodeConsents(data)
	for _, c := range list {
		if c.ClientID == clientID {
			return c.RevokedAt, err
		}
	}
	return time.Time{}, err
}

// DecodeConsents reads what EncodeConsents wrote and keeps nothing of data. It
// returns ErrCorrupt for anything else.
func DecodeConsents(data []byte) ([]Consent, error) {
	r := reader{data: data, text: string(data)}
	version := r.byte()
	r.bad = version != consentVersion && version != revokedConsentVersion
	n := r.length()
	if n > MaxConsents {
		return nil, ErrCorrupt
	}
	list := make([]Consent, n)
	for i := range list {
		list[i] = Consent{ClientID: r.string(), Scope: r.strings(), Claims: r.strings(), GrantedAt: r.time()}
		if version == revokedConsentVersion {
			list[i].RevokedAt = r.time()
		}
	}
	r.bad = r.bad || version == revokedConsentVersion && !anyRevoked(list)
	if err := r.end(); err != nil {
		return nil, err
	}
	return list, nil
}

// EncodeLogout returns the stored form of a logout notice without its id,
// which is the key it is stored under.
func EncodeLogout(n *LogoutNotice) []byte {
	b := make([]byte, 0, 48+len(n.ClientID)+len(n.UserID))
	b = append(b, noticeVersion)
	b = appendTime(b, n.Next)
	b = binary.BigEndian.AppendUint32(b, n.Attempts)
	b = appendTime(b, n.EndedAt)
	b = append(b, n.FamilyID[:]...)
	b = appendString(b, n.ClientID)
	return appendString(b, n.UserID)
}

// DecodeLogout reads what EncodeLogout wrote and keeps nothing of data. It
// returns ErrCorrupt for anything else.
func DecodeLogout(id LogoutID, data []byte) (LogoutNotice, error) {
	r := reader{data: data, text: string(data)}
	r.bad = r.byte() != noticeVersion
	n := LogoutNotice{ID: id, Next: r.time(), Attempts: r.uint32(), EndedAt: r.time()}
	copy(n.FamilyID[:], r.take(len(n.FamilyID)))
	n.ClientID = r.string()
	n.UserID = r.string()
	if err := r.end(); err != nil {
		return LogoutNotice{}, err
	}
	return n, nil
}

// earlier returns the first of two times.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
