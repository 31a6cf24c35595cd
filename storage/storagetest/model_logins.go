package storagetest

import (
	"fmt"
	"time"

	"github.com/wxidp/wxidp/storage"
)

const (
	modelLoginIdle     = time.Hour
	modelLoginAbsolute = 5 * time.Hour
)

// modelLogin is a browser's sign-in in the model.
type modelLogin struct {
	id      storage.LoginID
	user    *modelUser
	userID  string
	idleEnd time.Time
	end     time.Time
	ended   bool
	endings int // of the user at the last sign-in
}

func (l *modelLogin) over() bool {
	now := time.Now()
	return l != nil && (l.ended || !now.Before(l.idleEnd) || !now.Before(l.end))
}

func (l *modelLogin) live() bool {
	return l != nil && !l.over() && !l.user.disabled && l.endings == l.user.endings
}

func (m *model) pickLogin() *modelLogin {
	if len(m.logins) == 0 {
		return nil
	}
	return m.logins[max(0, len(m.logins)-10)+m.rand.IntN(min(len(m.logins), 10))]
}

// browse uses a login session or begins one, and exchanges a code of it for a
// family.
func (m *model) browse() {
	n := m.rand.IntN(modelPeople)
	if m.people[n] == "" {
		return
	}
	login := m.pickLogin()
	switch {
	case login == nil, m.rand.IntN(3) == 0:
		login = m.startLogin(m.people[n], login)
	case m.rand.IntN(2) == 0:
		m.must(m.store.TouchLogin(m.Context(), login.id, modelLoginIdle))
		if login.live() {
			login.idleEnd = storage.RoundTime(time.Now()).Add(modelLoginIdle)
		}
	}
	if login != nil {
		m.authorize(login)
	}
}

// startLogin signs a user in, in the place of another login session perhaps.
func (m *model) startLogin(userID string, old *modelLogin) *modelLogin {
	user := m.users[userID]
	in := storage.LoginStart{
		Account: storage.Binding{UserID: userID, Epoch: uint32(user.endings)},
		Session: storage.LoginSession{Token: digest(m.step)}, Idle: modelLoginIdle, Absolute: modelLoginAbsolute,
	}
	if old != nil && m.rand.IntN(2) == 0 {
		in.Replaces = old.id
	}
	res, err := m.store.StartLogin(m.Context(), in)
	m.must(err)
	if user.disabled != (res.Verdict == storage.LoginUserDisabled) || !user.disabled && res.Verdict != storage.LoginOK {
		m.Fatalf("StartLogin = %+v of a user who is disabled: %v", res, user.disabled)
	}
	if user.disabled {
		return nil
	}
	now := storage.RoundTime(time.Now())
	login := &modelLogin{id: res.Session.ID, user: user, userID: userID}
	if goesOn := !in.Replaces.IsZero() && old.live() && old.user == user; goesOn != (old != nil && res.Session.ID == old.id) {
		m.Fatalf("the login session goes on: %v", !goesOn)
	} else if goesOn {
		login = old
	} else {
		if !in.Replaces.IsZero() && old.live() {
			old.ended = true
		}
		m.logins = append(m.logins, login)
	}
	login.idleEnd, login.end, login.endings = now.Add(modelLoginIdle), now.Add(modelLoginAbsolute), user.endings
	return login
}

func (m *model) authorize(login *modelLogin) {
	code := fmt.Sprint("code", m.step)
	grant := storage.Grant{
		UserID: login.userID, UserEpoch: uint32(login.user.endings), ClientID: clientID, LoginID: login.id, Offline: m.rand.IntN(3) == 0,
	}
	verdict, err := m.store.IssueCode(m.Context(), storage.CodeIssue{Code: digest(code), Grant: grant, Lifetime: time.Minute})
	m.must(err)
	if login.live() != (verdict == storage.CodeOK) {
		m.Fatalf("IssueCode = %d in a login session that is live: %v", verdict, login.live())
	}
	if m.rand.IntN(8) == 0 {
		m.endLogin()
	}
	issued, issuedAt := verdict == storage.CodeOK, storage.RoundTime(time.Now())
	res, err := m.store.Redeem(m.Context(), storage.Redemption{
		Code: digest(code), ClientID: clientID, Idle: modelIdle, Absolute: modelAbsolute, Remember: time.Hour,
	})
	m.must(err)
	want := storage.RedeemOK
	switch {
	case !issued:
		want = storage.RedeemMissing
	case !login.live(), m.clientEndings > 0 && !issuedAt.After(m.clientEndedAt):
		want = storage.RedeemEnded
	}
	if res.Verdict != want {
		m.Fatalf("Redeem = %+v, want %d", res, want)
	}
	if want != storage.RedeemOK {
		return
	}
	now := storage.RoundTime(time.Now())
	f := &modelFamily{
		id: res.Family.ID, user: login.user, userID: login.userID, rotated: now,
		idleEnd: now.Add(modelIdle), end: now.Add(modelAbsolute), endings: login.user.endings, clientEndings: m.clientEndings,
	}
	m.codes = append(m.codes, modelCode{digest(code), now.Add(time.Hour), f})
	if !grant.Offline {
		f.login = login
		if login.end.Before(f.end) {
			f.end = login.end
		}
		if f.end.Before(f.idleEnd) {
			f.idleEnd = f.end
		}
	}
	m.families = append(m.families, f)
}

func (m *model) endLogin() {
	login := m.pickLogin()
	if login == nil || m.rand.IntN(3) > 0 {
		return
	}
	found, err := m.store.EndLogin(m.Context(), login.id, nil)
	m.must(err)
	if found != login.live() {
		m.Fatalf("EndLogin found %v of one that is live: %v", found, login.live())
	}
	if found {
		login.ended = true
	}
}
