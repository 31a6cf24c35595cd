package storage

import (
	"crypto/subtle"
	"time"
)

// CodeRecord is a code as it is stored.
type CodeRecord struct {
	Grant     Grant
	ExpiresAt time.Time // of the code; zero: a device code, which its ticket expires
	KeepUntil time.Time // when to forget it
	Used      bool      // or burnt
	FamilyID  FamilyID  // what it was exchanged for; zero: nothing
}

// RedeemParties are what a judgement needs to know beside the code. For a used
// one that is Family alone.
type RedeemParties struct {
	Parties              // the grant's user, client and login session
	Login   *LoginRecord // nil: none
	// ConsentRevokedAt is when the user's consent for the client was last
	// revoked, which ConsentRevokedAt says; zero: never.
	ConsentRevokedAt time.Time
	Family           *Family // what a used code was exchanged for, as callers see it; nil: none
}

// RedeemChanges are what an engine must store in the same transaction; nil
// means no change.
type RedeemChanges struct {
	Code    *CodeRecord
	Login   *LoginRecord
	Created *Family // new
	Ended   *Family
}

// JudgeRedeem decides a redemption at now, the engine's own time. code is what
// is stored or, for a device code that is not, has the Redemption's grant and
// nothing else.
func JudgeRedeem(in Redemption, code CodeRecord, p RedeemParties, now time.Time) (RedeemResult, RedeemChanges) {
	now = RoundTime(now)
	res := RedeemResult{Verdict: judgeCode(&in, &code, &p, now), Grant: code.Grant}
	if code.Used {
		if f := p.Family; res.Verdict == RedeemUsed && f != nil && f.RevokedAt.IsZero() && !f.ExpiredAt(now) {
			res.Family = *f
			res.Family.RevokedAt, res.Family.RevokedFor = now, RevokedForCodeReuse
			return res, RedeemChanges{Ended: &res.Family}
		}
		return res, RedeemChanges{}
	}
	changes := RedeemChanges{Code: &code}
	code.Used = true
	if at := now.Add(in.Remember); at.After(code.KeepUntil) {
		code.KeepUntil = at
	}
	if res.Verdict != RedeemOK {
		return res, changes
	}
	res.Family = code.Grant.start(&in, p.Parties, now)
	code.FamilyID = res.Family.ID
	changes.Created = &res.Family
	if p.Login != nil {
		p.Login.join(code.Grant.ClientID, res.Family.ID)
		changes.Login = p.Login
	}
	return res, changes
}

func judgeCode(in *Redemption, code *CodeRecord, p *RedeemParties, now time.Time) RedeemVerdict {
	g := &code.Grant
	switch {
	case g.ClientID != in.ClientID:
		return RedeemWrongClient
	case code.Used:
		return RedeemUsed
	case !code.ExpiresAt.IsZero() && !now.Before(code.ExpiresAt):
		return RedeemExpired
	case g.RedirectURI != in.RedirectURI:
		return RedeemWrongRedirect
	case subtle.ConstantTimeCompare([]byte(g.Challenge), []byte(in.Challenge)) != 1:
		return RedeemWrongVerifier
	case g.DPoPThumbprint != "" && g.DPoPThumbprint != in.DPoPThumbprint:
		return RedeemWrongKey
	case p.User.Found && p.User.Disabled:
		return RedeemUserDisabled
	case !p.User.Found || p.User.Retired || p.User.Epoch != g.UserEpoch:
		return RedeemEnded
	case !g.LoginID.IsZero() && (p.Login == nil || p.Login.UserID != g.UserID || !p.Login.LiveAt(p.User, now)):
		return RedeemEnded
	case voided(g, p.ConsentRevokedAt), voided(g, p.Client.EndedAt):
		return RedeemEnded
	}
	return RedeemOK
}

// voided reports whether a revocation, at a time which is zero where there was
// none, came no earlier than the grant.
func voided(g *Grant, revokedAt time.Time) bool {
	return !revokedAt.IsZero() && !g.IssuedAt.After(revokedAt)
}

// start returns the family that the grant is exchanged for.
func (g *Grant) start(in *Redemption, parties Parties, now time.Time) Family {
	f := in.Family
	if f.ID.IsZero() {
		f.ID = NewFamilyID()
	}
	if f.Secret == (FamilySecret{}) {
		f.Secret = NewFamilySecret()
	}
	f.ClientID, f.WeChatAppID = g.ClientID, ""
	f.Scope, f.Audience = g.Scope, g.Audience
	f.AuthTime, f.AMR, f.ACR = g.AuthTime, g.AMR, g.ACR
	f.LoginID, f.Offline = g.LoginID, g.Offline
	f.IDTokenClaims, f.UserInfoClaims = g.IDTokenClaims, g.UserInfoClaims
	f.Start(g.UserID, Digest{}, parties, now, in.Idle, in.Absolute)
	return f
}
