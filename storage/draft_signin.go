package storage

import (
	"fmt"
	"time"
)

// SignInCase is a SignIn with what could be computed before its transaction.
type SignInCase struct {
	SignIn
	vault    *Vault
	proof    proof
	phone    Digest   // zero: none
	external Digest   // zero: none
	newUser  *newUser // nil: not needed so far
}

// PrepareSignIn computes what a sign-in needs besides its transaction.
func (v *Vault) PrepareSignIn(in SignIn) (*SignInCase, error) {
	c := &SignInCase{SignIn: in, vault: v, proof: v.proof(in.AppID, in.WeChatOpenID, in.OpenPlatform, in.UnionID)}
	if err := c.prepareBinding(); err != nil {
		return nil, err
	}
	if in.Phone != nil {
		if in.Phone.E164 == "" {
			return nil, fmt.Errorf("%w: a phone proof has a number", ErrUnavailable)
		}
		c.phone = v.PhoneIndex(in.Phone.E164)
	}
	if c.Family.ID.IsZero() {
		c.Family.ID = NewFamilyID()
	}
	if c.Family.Secret == (FamilySecret{}) {
		c.Family.Secret = NewFamilySecret()
	}
	return c, nil
}

func (c *SignInCase) prepareBinding() error {
	switch {
	case c.Bind == nil:
	case (c.Bind.UserID == "") == (c.Bind.ExternalID == ""):
		return fmt.Errorf("%w: a binding names one account", ErrUnavailable)
	case c.Bind.ExternalID != "":
		c.external = c.vault.ExternalIDIndex(c.Bind.ExternalID)
	}
	return nil
}

func (c *SignInCase) keepsSessionKey() bool {
	return c.SessionKeyLifetime > 0 && !c.SessionKey.IsZero()
}

// Identity is the index of the identity that signs in.
func (c *SignInCase) Identity() Digest { return c.proof.index }

// Judge decides a sign-in. For SignInOK the draft has what is to be written
// beside the family, and user is whose family it is; for any other verdict the
// draft must be dropped.
func (c *SignInCase) Judge(d *Draft) (res SignInResult, user UserState, err error) {
	if res, user, ok, err := c.silent(d.rows); ok || err != nil {
		return res, user, err
	}
	j := &signInJudge{SignInCase: c, d: d}
	for _, step := range signInSteps {
		verdict, err := step(j)
		if err != nil {
			return SignInResult{}, UserState{}, err
		}
		if verdict != SignInOK {
			return SignInResult{Verdict: verdict, UserID: j.disabled}, UserState{}, nil
		}
	}
	j.res.Verdict, j.res.UserID = SignInOK, j.target.id
	return j.res, j.target.State(), nil
}

// silent decides the sign-in that is by far the most frequent, of a known
// identity about which nothing is new, at less cost than the steps would. ok is
// false for all others.
func (c *SignInCase) silent(rows PeopleRows) (res SignInResult, user UserState, ok bool, err error) {
	if c.Bind != nil || c.Phone != nil || c.keepsSessionKey() {
		return res, user, false, nil
	}
	data, err := rows.IdentityRow(c.proof.index)
	if err != nil || data == nil {
		return res, user, false, err
	}
	identity, err := DecodeIdentity(data)
	if err != nil {
		return res, user, false, fmt.Errorf("identity: %w", err)
	}
	if !identity.settled(&c.proof) {
		return res, user, false, nil
	}
	data, err = rows.UserRow(identity.UserID)
	if err != nil || data == nil {
		return res, user, false, err
	}
	record, err := DecodeUser(data)
	if err != nil || record.Disabled || record.Retired {
		return res, user, false, err
	}
	return SignInResult{Verdict: SignInOK, UserID: identity.UserID}, record.State(), true, nil
}

// recorded reports whether the identity has a unionid of the open platform
// that its app is in. One of another open platform is no unionid of this one:
// the operator moved the app.
func (i *IdentityRecord) recorded(p *proof) bool {
	return !i.Union.IsZero() && i.OpenPlatform == p.openPlatform
}

// settled reports whether nothing is new about a known identity.
func (i *IdentityRecord) settled(p *proof) bool {
	return p.union.IsZero() || i.recorded(p) && i.Union == p.union
}

// signInJudge is one run of Judge. Its steps return SignInOK to go on.
type signInJudge struct {
	*SignInCase
	d        *Draft
	identity *draftIdentity // nil: unknown so far
	current  *draftUser     // whom the identity, or else its unionid, leads to; nil: nobody
	target   *draftUser     // who signs in; nil: somebody new
	disabled string         // the user because of whom the sign-in is refused
	res      SignInResult
}

var signInSteps = [...]func(*signInJudge) (SignInVerdict, error){
	(*signInJudge).findCurrent, (*signInJudge).findTarget, (*signInJudge).join,
	(*signInJudge).link, (*signInJudge).recordPhone, (*signInJudge).keepSessionKey,
}

// findCurrent finds out whom the identity belongs to at present.
func (j *signInJudge) findCurrent() (SignInVerdict, error) {
	var err error
	if j.identity, err = j.d.identity(j.proof.index); err != nil {
		return 0, err
	}
	if j.identity != nil {
		j.current, err = j.d.linked(j.identity.UserID)
	} else {
		j.current, err = j.byUnionID()
	}
	if err != nil {
		return 0, err
	}
	if j.current != nil && j.current.Disabled {
		j.disabled = j.current.id
		return SignInUserDisabled, nil
	}
	j.target = j.current
	return SignInOK, nil
}

// byUnionID returns the user whom the unionid of an unknown identity leads to.
// One who has an identity of the same app is somebody else's: WeChat has one
// openid for a person and an app.
func (j *signInJudge) byUnionID() (*draftUser, error) {
	user, err := j.d.found(IndexUnionID, j.proof.union)
	if err != nil || user == nil || user.Disabled { // a ban holds whoever it is
		return user, err
	}
	clash, err := j.d.hasApp(user, j.AppID)
	if err != nil {
		return nil, err
	}
	if clash {
		j.res.Conflict, j.res.ConflictUserID = true, user.id
		return nil, nil
	}
	return user, nil
}

// findTarget finds or makes the user who signs in.
func (j *signInJudge) findTarget() (SignInVerdict, error) {
	switch {
	case j.Bind != nil:
		return j.findAccount()
	case j.Phone != nil && j.Phone.SignIn:
		if verdict, err := j.findPhoneOwner(); verdict != SignInOK || err != nil {
			return verdict, err
		}
	}
	switch {
	case j.target != nil:
		return SignInOK, nil
	case j.RequireKnown:
		return SignInAccountRequired, nil
	}
	return SignInOK, j.create(j.NewProfile)
}

// findAccount finds the account to bind to, or makes that of an external id.
func (j *signInJudge) findAccount() (SignInVerdict, error) {
	var account *draftUser
	var err error
	if j.Bind.UserID != "" {
		account, err = j.d.user(j.Bind.UserID)
		if err == nil && (account == nil || account.Retired || account.Epoch != j.Bind.Epoch && !account.Disabled) {
			return SignInAccountMissing, nil
		}
	} else {
		account, err = j.d.found(IndexExternalID, j.external)
	}
	switch {
	case err != nil:
		return 0, err
	case account == nil:
		if err := j.create(j.Bind.Profile); err != nil {
			return 0, err
		}
		if err := j.d.setHandle(j.target, IndexExternalID, j.external, j.Bind.ExternalID); err != nil {
			return 0, err
		}
	case account.Disabled:
		j.disabled = account.id
		return SignInUserDisabled, nil
	default:
		j.target = account
	}
	if j.Bind.ExternalID != "" {
		return SignInOK, j.d.setAttributes(j.target, j.Bind.Attributes)
	}
	return SignInOK, nil
}

// findPhoneOwner lets a number open its user's account to an identity that has
// none of its own to lose. A number is weak proof, since carriers give it to
// others: it opens nothing that has another way in, which an identity is,
// whatever its app, or that is in use.
func (j *signInJudge) findPhoneOwner() (SignInVerdict, error) {
	owner, err := j.d.found(IndexPhone, j.phone)
	if err != nil || owner == nil || owner == j.current {
		return SignInOK, err
	}
	if j.current != nil && !j.current.Bare() || owner.Disabled || owner.Identities.Len() > 0 ||
		!owner.Username.IsZero() || len(owner.Password) > 0 || !owner.ExternalID.IsZero() {
		return SignInPhoneTaken, nil
	}
	live, complete, err := j.d.liveFamilies(owner.id)
	if err != nil {
		return 0, err
	}
	if len(live) > 0 || !complete {
		return SignInPhoneTaken, nil
	}
	owner.changed, j.target = true, owner
	return SignInOK, owner.EndFamilies(j.d.now, RevokedForPhone)
}

func (j *signInJudge) create(profile Profile) error {
	if j.newUser == nil {
		var err error
		if j.newUser, err = j.vault.makeUser(profile); err != nil {
			return err
		}
	}
	j.target, j.res.Created = j.d.create(j.newUser), true
	return nil
}

// join gives the target what the current user of the identity has, where they
// are two. Only a bare user may end that way.
func (j *signInJudge) join() (SignInVerdict, error) {
	if j.Bind == nil && j.target == j.current {
		return SignInOK, nil
	}
	var moving []*draftIdentity
	if j.current != nil && j.current != j.target {
		if !j.current.Bare() {
			return SignInIdentityBound, nil
		}
		var err error
		if moving, err = j.d.identitiesOf(j.current); err != nil {
			return 0, err
		}
	}
	if clash, err := j.sameApp(moving); err != nil || clash {
		if j.Bind != nil {
			return SignInAccountBound, err
		}
		return SignInPhoneTaken, err
	}
	for _, identity := range moving {
		if err := j.d.move(identity, j.current, j.target); err != nil {
			return 0, err
		}
	}
	if len(moving) > 0 {
		if err := j.d.moveConsents(j.current, j.target); err != nil {
			return 0, err
		}
		j.d.retire(j.current, RevokedForMerge)
	}
	return SignInOK, nil
}

// sameApp reports whether the target would come to two identities of one app.
func (j *signInJudge) sameApp(moving []*draftIdentity) (bool, error) {
	if j.identity == nil {
		for _, identity := range moving {
			if identity.AppID == j.AppID {
				return true, nil
			}
		}
		if clash, err := j.d.hasApp(j.target, j.AppID); clash || err != nil {
			return clash, err
		}
	}
	for _, identity := range moving {
		if clash, err := j.d.hasApp(j.target, identity.AppID); clash || err != nil {
			return clash, err
		}
	}
	return false, nil
}

// link records an identity that is new, or what is new about a known one.
func (j *signInJudge) link() (SignInVerdict, error) {
	p := &j.proof
	if j.identity == nil {
		fresh := *p
		if j.res.Conflict { // the unionid stays the other's
			fresh.union, fresh.unionID = Digest{}, ""
		}
		return SignInOK, j.d.link(j.target, fresh)
	}
	if j.identity.settled(p) {
		return SignInOK, nil
	}
	owner, err := j.d.owner(IndexUnionID, p.union)
	if err != nil {
		return 0, err
	}
	if j.identity.recorded(p) || owner != "" && owner != j.target.id {
		j.res.Conflict = true
		if owner != j.target.id {
			j.res.ConflictUserID = owner
		}
		return SignInOK, nil
	}
	return SignInOK, j.d.upgrade(j.target, j.identity, *p)
}

// recordPhone gives the number to the user who signs in, in the place of
// another one only if that was asked for.
func (j *signInJudge) recordPhone() (SignInVerdict, error) {
	if j.Phone == nil || !j.Phone.Change && !j.target.Phone.IsZero() && j.target.Phone.Index != j.phone {
		return SignInOK, nil
	}
	owner, err := j.d.owner(IndexPhone, j.phone)
	if err != nil {
		return 0, err
	}
	if owner != "" && owner != j.target.id {
		return SignInPhoneTaken, nil
	}
	return SignInOK, j.d.setPhone(j.target, j.phone, j.Phone.E164, orNow(j.Phone.VerifiedAt, j.d.now))
}

func (j *signInJudge) keepSessionKey() (SignInVerdict, error) {
	if !j.keepsSessionKey() {
		return SignInOK, nil
	}
	return SignInOK, j.d.putSessionKey(j.target, j.proof.index, j.SessionKey, j.SessionKeyLifetime)
}

func orNow(t, now time.Time) time.Time {
	if t.IsZero() {
		return now
	}
	return t
}
