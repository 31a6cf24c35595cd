package storagetest

import (
	"fmt"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// modelCode is a code that was exchanged for a family.
type modelCode struct {
	code   storage.Digest
	until  time.Time // it is remembered at least until then
	family *modelFamily
}

// modelToken is an access token that was revoked by itself.
type modelToken struct {
	jti    string
	until  time.Time
	family *modelFamily
}

// modelKey is an Idempotency-Key that was used.
type modelKey struct {
	key   storage.Digest
	until time.Time
}

const modelKeyLife = time.Minute

// newest chooses one of the last ten; ok is false where there is none.
func newest[T any](m *model, all []T) (one T, ok bool) {
	if len(all) == 0 {
		return one, false
	}
	return all[max(0, len(all)-10)+m.rand.IntN(min(len(all), 10))], true
}

// replay presents a code that was redeemed, which ends its family.
func (m *model) replay() {
	c, ok := newest(m, m.codes)
	if !ok || m.rand.IntN(4) > 0 {
		return
	}
	res, err := m.store.Redeem(m.Context(), storage.Redemption{
		Code: c.code, ClientID: clientID, Idle: modelIdle, Absolute: modelAbsolute, Remember: time.Hour,
	})
	m.must(err)
	forgotten := res.Verdict == storage.RedeemMissing && !time.Now().Before(c.until)
	if res.Verdict != storage.RedeemUsed && !forgotten {
		m.Fatalf("Redeem of a used code = %+v", res)
	}
	if res.Verdict == storage.RedeemUsed && !c.family.expired() && m.lives(c.family) {
		c.family.revoked = true
	}
}

// lives reports whether nothing has ended the family but time.
func (m *model) lives(f *modelFamily) bool {
	return !f.revoked && f.endings == f.user.endings && f.clientEndings == m.clientEndings && !f.login.over()
}

// revokeClient ends all families of the client.
func (m *model) revokeClient() {
	if m.rand.IntN(12) > 0 {
		return
	}
	m.must(m.store.RevokeClient(m.Context(), clientID, "leaked"))
	m.clientEndings++
	m.clientEndedAt = storage.RoundTime(time.Now())
}

// denyJTI revokes one access token of a family and looks at it, and at earlier
// ones.
func (m *model) denyJTI() {
	f := m.pick()
	if f == nil {
		return
	}
	if m.rand.IntN(2) == 0 {
		token := modelToken{fmt.Sprint("jti", m.step), storage.RoundTime(time.Now().Add(time.Duration(m.rand.Int64N(int64(time.Hour))))), f}
		m.must(m.store.DenyJTI(m.Context(), token.jti, token.until))
		m.tokens = append(m.tokens, token)
	}
	token, ok := newest(m, m.tokens)
	if !ok {
		return
	}
	res, err := m.store.CheckAccess(m.Context(), storage.AccessCheck{FamilyID: token.family.id, JTI: token.jti})
	m.must(err)
	denied := time.Now().Before(token.until)
	if denied != (res.Verdict == storage.AccessDenied) {
		m.Fatalf("CheckAccess of a revoked access token = %d, and it is denied: %v", res.Verdict, denied)
	}
	if active := !denied && !token.family.expired() && !token.family.user.disabled && m.lives(token.family); active != (res.Verdict == storage.AccessActive) {
		m.Fatalf("CheckAccess of an access token = %d, want active %v", res.Verdict, active)
	}
}

// repeat signs in with an Idempotency-Key that was used before.
func (m *model) repeat() {
	key, ok := newest(m, m.keys)
	if !ok || !time.Now().Before(key.until) {
		return
	}
	in := request(fmt.Sprint("o", m.rand.IntN(modelPeople)))
	in.Idle, in.Absolute = modelIdle, modelAbsolute
	in.Idempotency = &storage.Idempotency{Key: key.key, Form: digest("form"), Lifetime: modelKeyLife}
	if res := m.suite.signIn(in); res.Verdict != storage.SignInIdempotencyTaken {
		m.Fatalf("sign-in with a used Idempotency-Key = %+v", res)
	}
	if _, err := m.store.Family(m.Context(), in.Family.ID); err != storage.ErrNotFound {
		m.Fatalf("the refused sign-in left a family: %v", err)
	}
}
