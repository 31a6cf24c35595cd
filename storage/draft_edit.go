package storage

import (
	"time"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/internal/secret"
)

// newUser is a user who does not exist yet. One is made before the judgement
// or at most once in it: sealing takes longer than all else there.
type newUser struct {
	id      string
	key     []byte // sealed
	box     *seal.Box
	profile []byte // sealed
}

func (v *Vault) makeUser(profile Profile) (*newUser, error) {
	u := &newUser{id: NewUserID()}
	u.key, u.box = v.NewUserKey(u.id)
	var err error
	u.profile, err = sealProfile(u.box, u.id, profile)
	return u, err
}

// create adds a user.
func (d *Draft) create(fresh *newUser) *draftUser {
	user := &draftUser{id: fresh.id, box: fresh.box, changed: true}
	user.UserRecord = UserRecord{CreatedAt: d.now, UpdatedAt: d.now, Key: fresh.key, Profile: fresh.profile}
	d.keepUser(user)
	return user
}

// proof is a WeChat identity as it was proven.
type proof struct {
	index        Digest
	appID        string
	weChatOpenID string
	unionID      string
	openPlatform string
	union        Digest // zero: no unionid that counts
}

// proof returns the identity with its index keys.
func (v *Vault) proof(appID, weChatOpenID, openPlatform, unionID string) proof {
	p := proof{index: v.OpenIDIndex(appID, weChatOpenID), appID: appID, weChatOpenID: weChatOpenID, openPlatform: openPlatform}
	if unionID != "" && openPlatform != "" {
		p.unionID, p.union = unionID, v.UnionIDIndex(openPlatform, unionID)
	}
	return p
}

// link adds an identity to a user. A unionid that leads to nobody becomes the
// user's; it must not be another's.
func (d *Draft) link(user *draftUser, p proof) error {
	box, err := d.boxOf(user)
	if err != nil {
		return err
	}
	identity := &draftIdentity{index: p.index, changed: true, IdentityRecord: IdentityRecord{
		UserID:       user.id,
		AppID:        p.appID,
		OpenPlatform: p.openPlatform,
		Union:        p.union,
		LinkedAt:     d.now,
		OpenID:       sealText(box, purposeOpenID, p.index[:], p.weChatOpenID),
		UnionID:      sealText(box, purposeUnionID, p.index[:], p.unionID),
	}}
	d.keepIdentity(identity)
	user.Identities, user.changed = user.Identities.Add(p.index), true
	return d.claimUnion(user, p.union)
}

func (d *Draft) claimUnion(user *draftUser, union Digest) error {
	owner, err := d.owner(IndexUnionID, union)
	if err == nil && owner == "" && !union.IsZero() {
		d.setOwner(IndexUnionID, union, user.id)
	}
	return err
}

// upgrade records a unionid that became known, or new because the app was
// moved to another open platform. The unionid must not be another's.
func (d *Draft) upgrade(user *draftUser, identity *draftIdentity, p proof) error {
	box, err := d.boxOf(user)
	if err != nil {
		return err
	}
	old := identity.Union
	identity.OpenPlatform, identity.Union, identity.changed = p.openPlatform, p.union, true
	identity.UnionID = sealText(box, purposeUnionID, p.index[:], p.unionID)
	if err := d.claimUnion(user, p.union); err != nil {
		return err
	}
	return d.dropUnion(user, old)
}

// dropUnion forgets that a unionid leads to the user, where no identity of the
// user bears it any more.
func (d *Draft) dropUnion(user *draftUser, union Digest) error {
	owner, err := d.owner(IndexUnionID, union)
	if err != nil || owner != user.id {
		return err
	}
	list, err := d.identitiesOf(user)
	if err != nil {
		return err
	}
	for _, identity := range list {
		if identity.Union == union {
			return nil
		}
	}
	d.setOwner(IndexUnionID, union, "")
	return nil
}

// move gives an identity, with its unionid, to another user. Its session_keys
// are dropped: the next sign-in brings a new one.
func (d *Draft) move(identity *draftIdentity, from, to *draftUser) error {
	oldBox, err := d.boxOf(from)
	if err != nil {
		return err
	}
	newBox, err := d.boxOf(to)
	if err != nil {
		return err
	}
	weChatOpenID, unionID, err := openIdentity(oldBox, identity.index, &identity.IdentityRecord)
	if err != nil {
		return err
	}
	identity.UserID, identity.LinkedAt, identity.changed = to.id, d.now, true
	identity.OpenID = sealText(newBox, purposeOpenID, identity.index[:], weChatOpenID)
	identity.UnionID = sealText(newBox, purposeUnionID, identity.index[:], unionID)
	from.Identities, from.changed = from.Identities.Remove(identity.index), true
	to.Identities, to.changed = to.Identities.Add(identity.index), true
	owner, err := d.owner(IndexUnionID, identity.Union)
	if err != nil {
		return err
	}
	if owner == from.id {
		d.setOwner(IndexUnionID, identity.Union, to.id)
	}
	return d.dropSessionKeys(identity.index)
}

// unlink removes an identity.
func (d *Draft) unlink(identity *draftIdentity, user *draftUser) error {
	identity.deleted = true
	user.Identities, user.changed = user.Identities.Remove(identity.index), true
	if err := d.dropUnion(user, identity.Union); err != nil {
		return err
	}
	return d.dropSessionKeys(identity.index)
}

// retire leaves nothing of a user but a tombstone, which destroys the key. All
// that leads to the user must be gone already.
func (d *Draft) retire(user *draftUser, reason string) {
	user.UserRecord = UserRecord{Retired: true, Epoch: user.Epoch, EndedAt: d.now, EndedReason: reason}
	user.box, user.changed = nil, true
}

// setHandle gives a user a value to be found by, in the place of the one that
// the user had.
func (d *Draft) setHandle(user *draftUser, kind IndexKind, index Digest, value string) error {
	box, err := d.boxOf(user)
	if err != nil {
		return err
	}
	handle, purpose := user.handle(kind)
	if !handle.IsZero() && handle.Index != index {
		d.setOwner(kind, handle.Index, "")
	}
	*handle = Handle{Index: index, Sealed: sealText(box, purpose, []byte(user.id), value)}
	d.setOwner(kind, index, user.id)
	user.changed = true
	return nil
}

// handle returns where a user's record has a kind of handle.
func (u *draftUser) handle(kind IndexKind) (handle *Handle, purpose string) {
	switch kind {
	case IndexUsername:
		return &u.Username, purposeUsername
	case IndexPhone:
		return &u.Phone, purposePhone
	case IndexExternalID:
		return &u.ExternalID, purposeExternalID
	}
	panic("storage: no handle of this kind")
}

// handleKinds are the kinds of values that a user has at most one of.
var handleKinds = [...]IndexKind{IndexUsername, IndexPhone, IndexExternalID}

func (d *Draft) setPhone(user *draftUser, index Digest, e164 string, verifiedAt time.Time) error {
	user.PhoneVerifiedAt, user.changed = RoundTime(verifiedAt), true
	if user.Phone.Index == index {
		return nil
	}
	return d.setHandle(user, IndexPhone, index, e164)
}

func (d *Draft) setAttributes(user *draftUser, a Attributes) error {
	user.Attributes, user.changed = nil, true
	if len(a.Roles) == 0 && len(a.Claims) == 0 {
		return nil
	}
	box, err := d.boxOf(user)
	if err != nil {
		return err
	}
	user.Attributes, err = sealJSON(box, purposeAttributes, user.id, a)
	return err
}

func (d *Draft) setPassword(user *draftUser, hash string) error {
	box, err := d.boxOf(user)
	if err != nil {
		return err
	}
	user.Password, user.changed = sealText(box, purposePassword, []byte(user.id), hash), true
	return nil
}

// putSessionKey takes a session_key into custody beside the one before it.
func (d *Draft) putSessionKey(user *draftUser, identity Digest, key secret.String, lifetime time.Duration) error {
	box, err := d.boxOf(user)
	if err != nil {
		return err
	}
	data, err := d.rows.SessionKeysRow(identity)
	if err != nil {
		return err
	}
	keys := make([]SessionKeyRecord, 1, maxSessionKeys)
	keys[0] = SessionKeyRecord{
		At:        d.now,
		ExpiresAt: RoundTime(d.now.Add(lifetime)),
		Sealed:    sealText(box, purposeSessionKey, identity[:], key.Reveal()),
	}
	if pending, ok := d.sessionKeys[identity]; data != nil && (!ok || len(pending) > 0) {
		old, err := DecodeSessionKeys(data)
		if err != nil {
			return err
		}
		old, _ = ExpireSessionKeys(old, d.now)
		for _, k := range old {
			// WeChat may give the same one again.
			value, err := openText(box, purposeSessionKey, identity[:], k.Sealed)
			if err == nil && !key.Equal(secret.New(value)) && len(keys) < maxSessionKeys {
				keys = append(keys, k)
			}
		}
	}
	d.keepSessionKeys(identity, keys)
	return nil
}

func (d *Draft) dropSessionKeys(identity Digest) error {
	data, err := d.rows.SessionKeysRow(identity)
	if err == nil && data != nil {
		d.keepSessionKeys(identity, nil)
	}
	return err
}

func (d *Draft) keepSessionKeys(identity Digest, keys []SessionKeyRecord) {
	if d.sessionKeys == nil {
		d.sessionKeys = make(map[Digest][]SessionKeyRecord, 1)
	}
	d.sessionKeys[identity] = keys
}

// OpenSessionKeys returns the session_keys of an identity that have not
// expired, newest first.
func (v *Vault) OpenSessionKeys(identity Digest, userID string, userKey []byte, keys []SessionKeyRecord, now time.Time) ([]SessionKey, error) {
	left, _ := ExpireSessionKeys(keys, RoundTime(now))
	if len(left) == 0 {
		return nil, nil
	}
	box, err := v.OpenUserKey(userID, userKey)
	if err != nil {
		return nil, unreadable(err)
	}
	out := make([]SessionKey, len(left))
	for i, k := range left {
		value, err := openText(box, purposeSessionKey, identity[:], k.Sealed)
		if err != nil {
			return nil, err
		}
		out[i] = SessionKey{Value: secret.New(value), At: k.At}
	}
	return out, nil
}
