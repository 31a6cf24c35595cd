package storage

import (
	"context"
	"time"
)

// Edits are the operations of People and Logins that a Draft judges whole, so
// that engines differ only in how they run a judgement. An engine embeds them;
// what they do and return is said at the contract.
type Edits struct {
	vault          *Vault
	edit, rehearse func(ctx context.Context, judge func(d *Draft) error) error
}

// NewEdits returns the operations of an engine. edit runs a judgement in one
// transaction and writes what it drafted, rehearse runs one on what is durable
// and writes nothing. Both may run it more than once.
func NewEdits(vault *Vault, edit, rehearse func(ctx context.Context, judge func(d *Draft) error) error) Edits {
	return Edits{vault: vault, edit: edit, rehearse: rehearse}
}

// judged returns what a judgement returns, and nothing but its error where
// running it fails.
func judged[R any](
	ctx context.Context, run func(context.Context, func(*Draft) error) error, judge func(d *Draft) (R, error),
) (R, error) {
	var res, none R
	err := run(ctx, func(d *Draft) (err error) {
		res, err = judge(d)
		return err
	})
	if err != nil {
		return none, err
	}
	return res, nil
}

// UpdateProfile replaces what change names of a user's profile.
func (e Edits) UpdateProfile(ctx context.Context, userID string, change ProfileChange) (User, error) {
	user, err := judged(ctx, e.edit, func(d *Draft) (UserRecord, error) {
		user, err := d.UpdateProfile(userID, change)
		return user.Clone(), err // it may be borrowed from the transaction
	})
	if err != nil {
		return User{}, err
	}
	return e.vault.OpenUser(userID, &user)
}

// CreateAccount makes a user with a username.
func (e Edits) CreateAccount(ctx context.Context, in NewAccount) (AccountResult, error) {
	c, err := e.vault.PrepareAccount(in)
	if err != nil {
		return AccountResult{}, err
	}
	return judged(ctx, e.edit, c.Judge)
}

// SetPassword replaces a password hash if it still is the old one.
func (e Edits) SetPassword(ctx context.Context, userID, oldHash, newHash string, endFamilies bool) (swapped bool, err error) {
	return judged(ctx, e.edit, func(d *Draft) (bool, error) { return d.SetPassword(userID, oldHash, newHash, endFamilies) })
}

// Unbind removes identities from a user, unless they are the last way in.
func (e Edits) Unbind(ctx context.Context, in Unbinding) (UnbindVerdict, error) {
	return judged(ctx, e.edit, func(d *Draft) (UnbindVerdict, error) { return d.Unbind(in) })
}

// Merge moves everything of one user to another and retires the first.
func (e Edits) Merge(ctx context.Context, from, into string, dryRun bool) (MergeResult, error) {
	run := e.edit
	if dryRun {
		run = e.rehearse
	}
	return judged(ctx, run, func(d *Draft) (MergeResult, error) { return d.Merge(from, into) })
}

// Erase destroys a user's key and removes all that points to the user. What
// was removed lies in free pages of a data file until it is compacted, and in
// dead row versions, logs and backups of a database.
func (e Edits) Erase(ctx context.Context, userID string) (found bool, err error) {
	return judged(ctx, e.edit, func(d *Draft) (bool, error) { return d.Erase(userID) })
}

// Withdraw records what WeChat says a user took back from an app.
func (e Edits) Withdraw(ctx context.Context, in Withdrawal) (WithdrawResult, error) {
	index := e.vault.OpenIDIndex(in.AppID, in.WeChatOpenID)
	return judged(ctx, e.edit, func(d *Draft) (WithdrawResult, error) { return d.Withdraw(index, in) })
}

// TouchLogin puts the idle expiry of a live login session to idle from now on.
func (e Edits) TouchLogin(ctx context.Context, id LoginID, idle time.Duration) error {
	return e.edit(ctx, func(d *Draft) error { return d.TouchLogin(id, idle) })
}

// EndLogin ends a login session.
func (e Edits) EndLogin(ctx context.Context, id LoginID, notify []string) (found bool, err error) {
	return judged(ctx, e.edit, func(d *Draft) (bool, error) { return d.EndLogin(id, notify) })
}

// Consents returns what a user has agreed to, by client.
func (e Edits) Consents(ctx context.Context, userID string) ([]Consent, error) {
	return judged(ctx, e.rehearse, func(d *Draft) ([]Consent, error) { return d.Consents(userID) })
}

// RevokeConsent forgets what a user has agreed to for a client and ends the
// user's families there.
func (e Edits) RevokeConsent(ctx context.Context, userID, clientID string, notify []string) (found bool, err error) {
	return judged(ctx, e.edit, func(d *Draft) (bool, error) { return d.RevokeConsent(userID, clientID, notify) })
}
