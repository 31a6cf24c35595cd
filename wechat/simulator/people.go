package simulator

import (
	"errors"
	"fmt"
)

// Login does what wx.login does in the WeChat app: it returns a js_code of user
// for the app. An unknown user comes to be.
func (s *Simulator) Login(appid, user string) (jsCode string, err error) {
	fresh := newJSCode()
	now := s.now().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.member(appid, user)
	if err != nil {
		return "", err
	}
	if m.sessionKey == "" || now >= m.expires ||
		s.rotateAfter >= 0 && now-m.rotated > int64(s.rotateAfter) {
		m.rotate(now)
	}
	s.codes.add(fresh, code{member: m, created: now})
	return fresh, nil
}

// member returns the user within the app and makes both where needed. The
// caller holds mu.
func (s *Simulator) member(appid, name string) (*member, error) {
	a := s.apps[appid]
	if a == nil {
		return nil, fmt.Errorf("there is no app %q", cut(appid))
	}
	if m := a.members[name]; m != nil {
		return m, nil
	}
	u, err := s.user(name)
	if err != nil {
		return nil, err
	}
	m := &member{user: u, app: a, openID: s.openID(appid, name)}
	a.members[name], a.openIDs[m.openID] = m, m
	return m, nil
}

func (s *Simulator) user(name string) (*user, error) {
	if u := s.users[name]; u != nil {
		return u, nil
	}
	if err := checkName("user", name); err != nil {
		return nil, err
	}
	if len(s.users) >= MaxUsers {
		return nil, fmt.Errorf("there are %d users already, the most there may be", MaxUsers)
	}
	u := &user{name: name, risk: RiskOK}
	s.users[name] = u
	return u, nil
}

// known returns a member that is there already. The caller holds mu.
func (s *Simulator) known(appid, name string) (*member, error) {
	a := s.apps[appid]
	if a == nil {
		return nil, fmt.Errorf("there is no app %q", cut(appid))
	}
	m := a.members[name]
	if m == nil {
		return nil, fmt.Errorf("user %q never signed in to app %s", cut(name), appid)
	}
	return m, nil
}

func (m *member) rotate(now int64) {
	m.sessionKey = newSessionKey()
	m.rotated, m.expires = now, now+int64(sessionKeyLife)
}

// SetRisk says what WeChat thinks of a user from now on.
func (s *Simulator) SetRisk(user string, risk Risk) error {
	if risk != RiskOK && risk != RiskBlocked && risk != RiskFrozen {
		return errors.New("risk is ok, blocked or frozen")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.user(user)
	if err != nil {
		return err
	}
	u.risk = risk
	return nil
}

// RotateSessionKey replaces the session_key of a user who has signed in.
func (s *Simulator) RotateSessionKey(appid, user string) (sessionKey string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.known(appid, user)
	if err != nil {
		return "", err
	}
	m.rotate(s.now().UnixNano())
	return m.sessionKey, nil
}

// ExpireSessionKey ends a user's session_key: the next Login makes another.
func (s *Simulator) ExpireSessionKey(appid, user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.known(appid, user)
	if err != nil {
		return err
	}
	m.expires = 0
	return nil
}

// ExpireCodes makes every outstanding js_code and phone code of a user in the
// app too old, and returns how many there were.
func (s *Simulator) ExpireCodes(appid, user string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.known(appid, user)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, table := range []codeTable{s.codes, s.phones} {
		for text, c := range table.items {
			if c.member == m && !c.used {
				c.created -= int64(codeLife) + 1
				table.items[text] = c
				n++
			}
		}
	}
	return n, nil
}
