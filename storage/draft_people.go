package storage

import (
	"fmt"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

// UpdateProfile drafts a change of a user's profile and returns the user's
// record as it will be, or ErrNotFound.
func (d *Draft) UpdateProfile(userID string, change ProfileChange) (UserRecord, error) {
	user, err := d.living(userID)
	if err != nil {
		return UserRecord{}, err
	}
	box, err := d.boxOf(user)
	if err != nil {
		return UserRecord{}, err
	}
	profile, err := openProfile(box, userID, user.Profile)
	if err != nil {
		return UserRecord{}, err
	}
	old := profile
	if change.Nickname != nil {
		profile.Nickname = *change.Nickname
	}
	if change.Picture != nil {
		profile.Picture = *change.Picture
	}
	if profile == old {
		return user.UserRecord, nil
	}
	if user.UserRecord.Profile, err = sealProfile(box, userID, profile); err != nil {
		return UserRecord{}, err
	}
	user.UpdatedAt, user.changed = d.now, true
	return user.UserRecord, nil
}

// AccountCase is a NewAccount with what could be computed before its
// transaction.
type AccountCase struct {
	NewAccount
	username, external Digest
	user               *newUser
}

// PrepareAccount computes what creating an account needs besides its
// transaction.
func (v *Vault) PrepareAccount(in NewAccount) (*AccountCase, error) {
	if in.Username == "" && in.ExternalID == "" {
		return nil, fmt.Errorf("%w: an account has a username or an external id", ErrUnavailable)
	}
	c := &AccountCase{NewAccount: in}
	if in.Username != "" {
		c.username = v.UsernameIndex(in.Username)
	}
	if in.ExternalID != "" {
		c.external = v.ExternalIDIndex(in.ExternalID)
	}
	var err error
	c.user, err = v.makeUser(in.Profile)
	return c, err
}

// Judge decides whether the account can be, and drafts it.
func (c *AccountCase) Judge(d *Draft) (AccountResult, error) {
	byName, err := d.owner(IndexUsername, c.username)
	if err != nil {
		return AccountResult{}, err
	}
	byExternal, err := d.found(IndexExternalID, c.external)
	if err != nil {
		return AccountResult{}, err
	}
	switch {
	case byExternal != nil && byExternal.Username.Index == c.username:
		return AccountResult{Verdict: AccountExists, UserID: byExternal.id}, nil
	case byName != "":
		return AccountResult{Verdict: AccountUsernameTaken}, nil
	case byExternal != nil:
		return AccountResult{Verdict: AccountExternalIDTaken}, nil
	}
	user := d.create(c.user)
	if c.Username != "" {
		if err := d.setHandle(user, IndexUsername, c.username, c.Username); err != nil {
			return AccountResult{}, err
		}
	}
	if c.ExternalID != "" {
		if err := d.setHandle(user, IndexExternalID, c.external, c.ExternalID); err != nil {
			return AccountResult{}, err
		}
	}
	return AccountResult{Verdict: AccountCreated, UserID: user.id}, d.setPassword(user, c.PasswordHash)
}

// SetPassword drafts another password hash where the user's is still oldHash,
// or returns ErrNotFound.
func (d *Draft) SetPassword(userID, oldHash, newHash string, endFamilies bool) (swapped bool, err error) {
	user, err := d.living(userID)
	if err != nil {
		return false, err
	}
	account, err := d.vault.OpenAccount(userID, &user.UserRecord)
	if err != nil || account.PasswordHash != oldHash {
		return false, err
	}
	if err := d.setPassword(user, newHash); err != nil {
		return false, err
	}
	if endFamilies {
		return true, user.EndFamilies(d.now, RevokedForPassword)
	}
	return true, nil
}

// Unbind drafts the removal of identities from a user, and the end of all that
// the user is signed in to: what an identity has let in says so only where it
// began in a mini-program.
func (d *Draft) Unbind(in Unbinding) (UnbindVerdict, error) {
	user, err := d.user(in.UserID)
	if err != nil {
		return 0, err
	}
	if user == nil || user.Retired {
		return UnbindMissing, nil
	}
	indexes := in.Identities
	if in.All {
		indexes = make([]Digest, user.Identities.Len())
		for i := range indexes {
			indexes[i] = user.Identities.At(i)
		}
	}
	list := make([]*draftIdentity, len(indexes))
	for i, index := range indexes {
		if list[i], err = d.identity(index); err != nil {
			return 0, err
		}
		if list[i] == nil || list[i].UserID != user.id {
			return UnbindMissing, nil
		}
	}
	if len(list) == 0 {
		return UnbindMissing, nil
	}
	if !user.opensWithout(indexes, in.WaysIn) {
		return UnbindLastWayIn, nil
	}
	for _, identity := range list {
		if err := d.unlink(identity, user); err != nil {
			return 0, err
		}
	}
	return UnbindOK, d.endSignIns(user, RevokedForUnbind, in.Notify)
}

// opensWithout reports whether the user could sign in without the identities.
func (u *UserRecord) opensWithout(identities []Digest, ways WaysIn) bool {
	rest := u.Identities
	for _, index := range identities {
		rest = rest.Remove(index)
	}
	return rest.Len() > 0 ||
		ways.Password && !u.Username.IsZero() && len(u.Password) > 0 ||
		ways.ExternalID && !u.ExternalID.IsZero() ||
		ways.Phone && !u.Phone.IsZero() && u.Username.IsZero() && u.ExternalID.IsZero()
}

// Erase drafts the end of a user: nothing leads to them any more, and nothing
// can open what they had. Families beyond those that an operation looks at
// stay until they expire; they say nothing personal and have ended.
func (d *Draft) Erase(userID string) (found bool, err error) {
	user, err := d.user(userID)
	if err != nil || user == nil || user.Retired {
		return false, err
	}
	list, err := d.identitiesOf(user)
	if err != nil {
		return false, err
	}
	for _, identity := range list {
		if err := d.unlink(identity, user); err != nil {
			return false, err
		}
	}
	for _, kind := range handleKinds {
		if handle, _ := user.handle(kind); !handle.IsZero() {
			d.setOwner(kind, handle.Index, "")
		}
	}
	if d.gone, _, err = d.rows.Families(userID, maxUserFamilies); err != nil {
		return false, err
	}
	if d.goneLogins, err = d.rows.Logins(userID, maxUserLogins); err != nil {
		return false, err
	}
	for i := range d.goneLogins {
		delete(d.logins, d.goneLogins[i].ID)
	}
	if err := d.dropConsents(user); err != nil {
		return false, err
	}
	d.retire(user, RevokedForErasure)
	return true, nil
}

// PutSessionKey drafts another session_key in an identity's custody, or
// returns ErrNotFound.
func (d *Draft) PutSessionKey(index Digest, key secret.String, lifetime time.Duration) error {
	identity, err := d.identity(index)
	if err != nil {
		return err
	}
	if identity == nil {
		return ErrNotFound
	}
	user, err := d.linked(identity.UserID)
	if err != nil {
		return err
	}
	return d.putSessionKey(user, index, key, lifetime)
}

// Merge judges whether everything of one user can move to another, and drafts
// that.
func (d *Draft) Merge(fromID, intoID string) (MergeResult, error) {
	if fromID == intoID {
		return MergeResult{Verdict: MergeSame}, nil
	}
	from, err := d.user(fromID)
	if err != nil {
		return MergeResult{}, err
	}
	into, err := d.user(intoID)
	if err != nil {
		return MergeResult{}, err
	}
	if from == nil || into == nil || from.Retired || into.Retired {
		return MergeResult{Verdict: MergeMissing}, nil
	}
	list, err := d.identitiesOf(from)
	if err != nil {
		return MergeResult{}, err
	}
	for _, identity := range list {
		if clash, err := d.hasApp(into, identity.AppID); err != nil || clash {
			return MergeResult{Verdict: MergeSameApp}, err
		}
	}
	switch {
	case from.Disabled || into.Disabled: // it would lift a ban, or spread one
		return MergeResult{Verdict: MergeDisabled}, nil
	case !from.Username.IsZero() && !into.Username.IsZero():
		return MergeResult{Verdict: MergeBothUsernames}, nil
	case !from.Phone.IsZero() && !into.Phone.IsZero():
		return MergeResult{Verdict: MergeBothPhones}, nil
	case !from.ExternalID.IsZero() && !into.ExternalID.IsZero():
		return MergeResult{Verdict: MergeBothExternalIDs}, nil
	}
	live, _, err := d.liveFamilies(fromID)
	if err != nil {
		return MergeResult{}, err
	}
	return MergeResult{
		Verdict:    MergeOK,
		Identities: len(list),
		Username:   !from.Username.IsZero(),
		Phone:      !from.Phone.IsZero(),
		ExternalID: !from.ExternalID.IsZero(),
		Families:   len(live),
	}, d.moveAll(list, from, into)
}

// moveAll moves what leads to one user to another, with what belongs to it,
// and retires the first.
func (d *Draft) moveAll(list []*draftIdentity, from, into *draftUser) error {
	for _, identity := range list {
		if err := d.move(identity, from, into); err != nil {
			return err
		}
	}
	old, err := d.vault.OpenUser(from.id, &from.UserRecord)
	if err != nil {
		return err
	}
	for kind, value := range map[IndexKind]string{IndexUsername: old.Username, IndexPhone: old.Phone, IndexExternalID: old.ExternalID} {
		if handle, _ := from.handle(kind); !handle.IsZero() {
			if err := d.setHandle(into, kind, handle.Index, value); err != nil {
				return err
			}
		}
	}
	if old.Phone != "" {
		into.PhoneVerifiedAt = from.PhoneVerifiedAt
	}
	if old.ExternalID != "" {
		if err := d.setAttributes(into, old.Attributes); err != nil {
			return err
		}
	}
	if old.Username != "" {
		account, err := d.vault.OpenAccount(from.id, &from.UserRecord)
		if err != nil {
			return err
		}
		if err := d.setPassword(into, account.PasswordHash); err != nil {
			return err
		}
	}
	if err := d.moveConsents(from, into); err != nil {
		return err
	}
	d.retire(from, RevokedForMerge)
	return nil
}
