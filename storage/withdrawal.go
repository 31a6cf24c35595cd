package storage

import (
	"slices"
	"time"
)

// Withdrawal is what WeChat says a user took back from one mini-program.
// Whatever it is, the families that were signed in with the identity end and
// its session_keys are forgotten.
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
	res := WithdrawResult{Verdict: WithdrawOK, UserID: user.id}
	switch {
	case in.Account && !user.opensWithout([]Digest{index}, WaysIn{Password: true, ExternalID: true}):
		res.Verdict = WithdrawErased
		_, err := d.Erase(user.id)
		return res, err
	case in.Account:
		res.Verdict = WithdrawUnbound
		d.dropPhone(user)
		err = d.unlink(identity, user)
	default:
		err = d.withdrawValues(user, index, in)
	}
	if err != nil {
		return WithdrawResult{}, err
	}
	return res, d.endFamiliesOf(user, []Digest{index}, RevokedForWeChat)
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

// endFamiliesOf drafts the end of the families that were signed in with one of
// the identities; of all that the user has, where these are more than an
// operation looks at.
func (d *Draft) endFamiliesOf(user *draftUser, identities []Digest, reason string) error {
	live, complete, err := d.liveFamilies(user.id)
	if err != nil {
		return err
	}
	if !complete {
		user.changed = true
		return user.EndFamilies(d.now, reason)
	}
	for _, f := range live {
		if slices.Contains(identities, f.Identity) {
			f.RevokedAt, f.RevokedFor = d.now, reason
			d.families = append(d.families, f)
		}
	}
	return nil
}
