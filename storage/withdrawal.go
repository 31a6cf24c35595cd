package storage

import "time"

// Withdrawal is what WeChat says a user took back from one mini-program.
// Whatever it is, the families that were signed in with the identity end and
// its session_keys are forgotten; with Account all of the user's families end,
// and the login sessions.
type Withdrawal struct {
	AppID        string
	WeChatOpenID string

	// Account: the WeChat account itself is gone. The identity is removed with
	// the phone number, which that account had confirmed, and with them the
	// user, where no other identity, password or external id would let the user
	// in. Phone and Profile then do not count.
	Account bool
	Phone   bool          // the user's phone number is forgotten
	Profile ProfileChange // what takes the place of profile values

	Notify []string // clients to tell where login sessions end
}

// WithdrawResult is the outcome of Withdraw.
type WithdrawResult struct {
	Verdict WithdrawVerdict
	UserID  string // whose identity it was; "" for WithdrawMissing
}

// WithdrawVerdict is the judgement of Withdraw.
type WithdrawVerdict int

// The judgements of Withdraw.
const (
	WithdrawOK      WithdrawVerdict = iota + 1
	WithdrawMissing                 // no such identity; nothing was written
	WithdrawUnbound                 // the identity is removed, the user goes on
	WithdrawErased                  // the user is erased
)

// Withdraw drafts what follows from a withdrawal about the identity with this
// index.
func (d *Draft) Withdraw(index Digest, in Withdrawal) (WithdrawResult, error) {
	identity, err := d.identity(index)
	if err != nil {
		return WithdrawResult{}, err
	}
	if identity == nil {
		return WithdrawResult{Verdict: WithdrawMissing}, nil
	}
	user, err := d.linked(identity.UserID)
	if err != nil {
		return WithdrawResult{}, err
	}
	if in.Account {
		return d.withdrawAccount(identity, user, in.Notify)
	}
	if err := d.withdrawValues(user, index, in); err != nil {
		return WithdrawResult{}, err
	}
	return WithdrawResult{Verdict: WithdrawOK, UserID: user.id}, d.endFamiliesOf(user, index, in.Notify)
}

// withdrawAccount drafts what follows from a WeChat account that is gone.
func (d *Draft) withdrawAccount(identity *draftIdentity, user *draftUser, notify []string) (WithdrawResult, error) {
	res := WithdrawResult{Verdict: WithdrawUnbound, UserID: user.id}
	if !user.opensWithout([]Digest{identity.index}, WaysIn{Password: true, ExternalID: true}) {
		res.Verdict = WithdrawErased
	}
	if err := d.endSignIns(user, RevokedForWeChat, notify); err != nil {
		return WithdrawResult{}, err
	}
	if res.Verdict == WithdrawErased {
		_, err := d.Erase(user.id)
		return res, err
	}
	d.dropPhone(user)
	return res, d.unlink(identity, user)
}

func (d *Draft) withdrawValues(user *draftUser, index Digest, in Withdrawal) error {
	if err := d.dropSessionKeys(index); err != nil {
		return err
	}
	if in.Phone {
		d.dropPhone(user)
	}
	if in.Profile == (ProfileChange{}) {
		return nil
	}
	_, err := d.UpdateProfile(user.id, in.Profile)
	return err
}

func (d *Draft) dropPhone(user *draftUser) {
	if user.Phone.IsZero() {
		return
	}
	d.setOwner(IndexPhone, user.Phone.Index, "")
	user.Phone, user.PhoneVerifiedAt, user.changed = Handle{}, time.Time{}, true
}

// endFamiliesOf drafts the end of the families that were signed in with an
// identity; of all that the user has, where these are more than an operation
// looks at.
func (d *Draft) endFamiliesOf(user *draftUser, identity Digest, notify []string) error {
	live, complete, err := d.liveFamilies(user.id)
	if err != nil {
		return err
	}
	if !complete {
		return d.endSignIns(user, RevokedForWeChat, notify)
	}
	for _, f := range live {
		if f.Identity == identity {
			f.RevokedAt, f.RevokedFor = d.now, RevokedForWeChat
			d.families = append(d.families, f)
		}
	}
	return nil
}
