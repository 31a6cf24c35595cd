package storage

import (
	"fmt"
	"time"
)

// maxLoginText is the longest description of a browser or a network, in bytes.
const maxLoginText = 128

// draftLogin is a login session while an operation is being judged.
type draftLogin struct {
	LoginRecord
	was     *LoginRecord // as it is stored; nil: new
	changed bool
}

// login returns a login session as the draft has it, nil where there is none.
func (d *Draft) login(id LoginID) (*draftLogin, error) {
	if id.IsZero() {
		return nil, nil
	}
	if login, ok := d.logins[id]; ok {
		return login, nil
	}
	data, err := d.rows.LoginRow(id)
	if err != nil || data == nil {
		return nil, err
	}
	record, err := DecodeLogin(id, data)
	if err != nil {
		return nil, fmt.Errorf("login session: %w", err)
	}
	was := record
	login := &draftLogin{LoginRecord: record, was: &was}
	d.keepLogin(login)
	return login, nil
}

func (d *Draft) keepLogin(login *draftLogin) {
	if d.logins == nil {
		d.logins = make(map[LoginID]*draftLogin, 2)
	}
	d.logins[login.ID] = login
}

// liveLogin returns a login session that is live with its user, nil where
// there is none.
func (d *Draft) liveLogin(id LoginID) (*draftLogin, *draftUser, error) {
	login, err := d.login(id)
	if err != nil || login == nil {
		return nil, nil, err
	}
	user, err := d.user(login.UserID)
	if err != nil || user == nil || !login.LiveAt(user.State(), d.now) {
		return nil, nil, err
	}
	return login, user, nil
}

// EndLogin drafts the end of a login session, with the notices for its clients
// that are named by notify.
func (d *Draft) EndLogin(id LoginID, notify []string) (found bool, err error) {
	login, _, err := d.liveLogin(id)
	if err != nil || login == nil {
		return false, err
	}
	d.notices = append(d.notices, login.End(d.now, notify)...)
	login.changed = true
	return true, nil
}

// endSignIns drafts the end of all that a user is signed in to, with the
// notices for the clients of login sessions that are named by notify. Of the
// login sessions beyond those that an operation looks at nobody is told.
func (d *Draft) endSignIns(user *draftUser, reason string, notify []string) error {
	logins, err := d.rows.Logins(user.id, maxUserLogins)
	if err != nil {
		return err
	}
	for i := range logins {
		if _, err := d.EndLogin(logins[i].ID, notify); err != nil {
			return err
		}
	}
	user.changed = true
	return user.EndFamilies(d.now, reason)
}

// Told drafts that a login session forgets a family whose client is told of its
// end by a notice of its own.
func (d *Draft) Told(id LoginID, family FamilyID) error {
	login, _, err := d.liveLogin(id)
	if err != nil || login == nil {
		return err
	}
	if login.Leave(family) {
		login.changed = true
	}
	return nil
}

// TouchLogin drafts another idle expiry of a login session.
func (d *Draft) TouchLogin(id LoginID, idle time.Duration) error {
	login, _, err := d.liveLogin(id)
	if err != nil || login == nil {
		return err
	}
	login.changed = login.Touch(d.now, idle)
	return nil
}

// LoginCase is a LoginStart with what could be computed before its transaction.
type LoginCase struct {
	LoginStart
	account *SignInCase // that binds, and signs nobody in
}

// PrepareLogin computes what a browser's sign-in needs besides its transaction.
func (v *Vault) PrepareLogin(in LoginStart) (*LoginCase, error) {
	switch {
	case in.Session.Token.IsZero():
		return nil, fmt.Errorf("%w: a login session has a token", ErrUnavailable)
	case len(in.Session.Browser) > maxLoginText || len(in.Session.Network) > maxLoginText:
		return nil, ErrTooLarge
	}
	c := &LoginCase{LoginStart: in, account: &SignInCase{SignIn: SignIn{Bind: &in.Account}, vault: v}}
	if err := c.account.prepareBinding(); err != nil {
		return nil, err
	}
	if c.Session.ID.IsZero() {
		c.Session.ID = NewLoginID()
	}
	return c, nil
}

// Judge decides a browser's sign-in and drafts its login session. For any
// verdict but LoginOK the draft must be dropped.
func (c *LoginCase) Judge(d *Draft) (LoginResult, error) {
	j := &signInJudge{SignInCase: c.account, d: d}
	verdict, err := j.findAccount()
	if err != nil {
		return LoginResult{}, err
	}
	switch verdict {
	case SignInUserDisabled:
		return LoginResult{Verdict: LoginUserDisabled}, nil
	case SignInAccountMissing:
		return LoginResult{Verdict: LoginUserMissing}, nil
	}
	login, err := c.place(d, j.target)
	if err != nil {
		return LoginResult{}, err
	}
	login.UserID, login.UserEpoch, login.changed = j.target.id, j.target.Epoch, true
	login.Token, login.AMR, login.Browser, login.Network = c.Session.Token, c.Session.AMR, c.Session.Browser, c.Session.Network
	login.AuthTime = d.now.Truncate(time.Second)
	login.ExpiresAt = RoundTime(d.now.Add(c.Absolute))
	login.Touch(d.now, c.Idle)
	return LoginResult{Verdict: LoginOK, Session: login.LoginSession, Created: j.res.Created}, nil
}

// place returns the browser's login session so far where it goes on, or a new
// one; in that case the other has ended.
func (c *LoginCase) place(d *Draft, user *draftUser) (*draftLogin, error) {
	old, _, err := d.liveLogin(c.Replaces)
	if err != nil {
		return nil, err
	}
	if old != nil && old.UserID == user.id {
		return old, nil
	}
	if old != nil {
		d.notices = append(d.notices, old.End(d.now, c.Notify)...)
		old.changed = true
	}
	taken, err := d.login(c.Session.ID)
	if err != nil {
		return nil, err
	}
	if taken != nil {
		return nil, fmt.Errorf("%w: the login session's id exists already", ErrUnavailable)
	}
	login := &draftLogin{LoginRecord: LoginRecord{LoginSession: LoginSession{ID: c.Session.ID, CreatedAt: d.now}}}
	d.keepLogin(login)
	return login, nil
}

// IssueCode judges the issue of a code and drafts the consent that is to be
// remembered. For CodeOK the engine stores the code.
func (d *Draft) IssueCode(in CodeIssue) (CodeVerdict, CodeRecord, error) {
	user, err := d.user(in.Grant.UserID)
	if err != nil {
		return 0, CodeRecord{}, err
	}
	switch {
	case user == nil || user.Retired:
		return CodeLoginEnded, CodeRecord{}, nil
	case user.Disabled:
		return CodeUserDisabled, CodeRecord{}, nil
	case user.Epoch != in.Grant.UserEpoch:
		return CodeLoginEnded, CodeRecord{}, nil
	}
	if !in.Grant.LoginID.IsZero() {
		login, _, err := d.liveLogin(in.Grant.LoginID)
		if err != nil {
			return 0, CodeRecord{}, err
		}
		if login == nil || login.UserID != user.id {
			return CodeLoginEnded, CodeRecord{}, nil
		}
	}
	if in.Agreed {
		list, err := d.consentsOf(user.id)
		if err != nil {
			return 0, CodeRecord{}, err
		}
		if !agreesTo(list, &in.Grant) {
			return CodeConsentGone, CodeRecord{}, nil
		}
	}
	if in.Remember {
		if err := d.remember(user, &in.Grant); err != nil {
			return 0, CodeRecord{}, err
		}
	}
	in.Grant.IssuedAt = d.now
	expires := RoundTime(d.now.Add(in.Lifetime))
	return CodeOK, CodeRecord{Grant: in.Grant, ExpiresAt: expires, KeepUntil: expires}, nil
}
