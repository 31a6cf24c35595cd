package storage

import (
	"fmt"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
)

// IndexKind says what kind of personal value an index key was made of.
type IndexKind byte

// The kinds of index keys that lead to a user.
const (
	IndexUnionID IndexKind = iota + 1
	IndexUsername
	IndexPhone
	IndexExternalID
)

// PeopleRows are the rows about people as one transaction of an engine sees
// them. What they return may be borrowed from the transaction.
type PeopleRows interface {
	// UserRow returns the stored form of a user, nil where there is none.
	UserRow(id string) ([]byte, error)
	// IdentityRow returns the stored form of an identity, nil where there is none.
	IdentityRow(index Digest) ([]byte, error)
	// Owner returns the user whom an index key leads to, "" where there is none.
	Owner(kind IndexKind, index Digest) (userID string, err error)
	// SessionKeysRow returns the stored form of an identity's session_keys, nil
	// where there are none.
	SessionKeysRow(identity Digest) ([]byte, error)
	// Families returns up to limit families of a user, as a caller should see
	// them. complete is false where there may be more: an engine need not look
	// through everything for them.
	Families(userID string, limit int) (families []Family, complete bool, err error)
	// LoginRow returns the stored form of a login session, nil where there is none.
	LoginRow(id LoginID) ([]byte, error)
	// Logins returns up to limit login sessions of a user, newest first, ended
	// ones included. As for Families an engine need not look through everything.
	Logins(userID string, limit int) ([]LoginRecord, error)
	// ConsentsRow returns the stored form of a user's consents, nil where there
	// are none.
	ConsentsRow(userID string) ([]byte, error)
}

// Changes are the rows that a draft puts and deletes.
type Changes struct {
	Users       []UserChange
	Identities  []IdentityChange
	Owners      []OwnerChange
	SessionKeys []SessionKeysChange
	Families    []Family // to be stored
	Gone        []Family // to be deleted
	Logins      []LoginChange
	GoneLogins  []LoginRecord // to be deleted
	Consents    []ConsentsChange
	Logouts     []LogoutNotice // that are new
}

// UserChange puts a user. No user is ever deleted.
type UserChange struct {
	ID   string
	Data []byte
}

// IdentityChange puts an identity, or deletes it where Data is nil.
type IdentityChange struct {
	Index Digest
	Data  []byte
}

// OwnerChange points an index key to a user, or deletes it where UserID is "".
type OwnerChange struct {
	Kind   IndexKind
	Index  Digest
	UserID string
}

// SessionKeysChange puts an identity's session_keys, or deletes them where
// Data is nil. Next is when to look for expired ones.
type SessionKeysChange struct {
	Identity Digest
	Data     []byte
	Next     time.Time
}

// LoginChange puts a login session in the place of what it was; nil: it is new.
type LoginChange struct {
	Was  *LoginRecord
	Is   LoginRecord
	Data []byte // the stored form
}

// ConsentsChange puts a user's consents, or deletes them where Data is nil.
type ConsentsChange struct {
	UserID string
	Data   []byte
}

// Draft is one operation about people while it is being judged: it reads
// through an engine's transaction and collects what will change. Nothing is
// written before all is decided, and a draft that is dropped changes nothing.
// What drafts decide is the same for every engine.
type Draft struct {
	rows  PeopleRows
	vault *Vault
	now   time.Time

	users       map[string]*draftUser
	identities  map[Digest]*draftIdentity
	owners      map[ownerKey]string
	sessionKeys map[Digest][]SessionKeyRecord
	families    []Family
	gone        []Family
	logins      map[LoginID]*draftLogin
	goneLogins  []LoginRecord
	consents    map[string][]Consent
	notices     []LogoutNotice
}

type draftUser struct {
	UserRecord
	id      string
	box     *seal.Box // nil: not opened so far
	changed bool
}

type draftIdentity struct {
	IdentityRecord
	index   Digest
	changed bool
	deleted bool
}

type ownerKey struct {
	kind  IndexKind
	index Digest
}

// NewDraft returns an empty draft over the rows of one transaction. now is the
// engine's own time.
func NewDraft(rows PeopleRows, vault *Vault, now time.Time) *Draft {
	return &Draft{rows: rows, vault: vault, now: RoundTime(now)}
}

// Changes returns what is to be written, or ErrTooLarge. It may be called
// once, after everything was decided and before the first write.
func (d *Draft) Changes() (Changes, error) {
	var c Changes
	for id, user := range d.users {
		if !user.changed {
			continue
		}
		data := EncodeUser(&user.UserRecord)
		if len(data) > MaxValueSize {
			return Changes{}, ErrTooLarge
		}
		c.Users = append(c.Users, UserChange{id, data})
	}
	for index, identity := range d.identities {
		switch {
		case identity.deleted:
			c.Identities = append(c.Identities, IdentityChange{index, nil})
		case identity.changed:
			data := EncodeIdentity(&identity.IdentityRecord)
			if len(data) > MaxValueSize {
				return Changes{}, ErrTooLarge
			}
			c.Identities = append(c.Identities, IdentityChange{index, data})
		}
	}
	for key, userID := range d.owners {
		c.Owners = append(c.Owners, OwnerChange{key.kind, key.index, userID})
	}
	for index, keys := range d.sessionKeys {
		change := SessionKeysChange{Identity: index}
		if len(keys) > 0 {
			change.Data = EncodeSessionKeys(keys)
			if len(change.Data) > MaxValueSize {
				return Changes{}, ErrTooLarge
			}
			_, change.Next = ExpireSessionKeys(keys, d.now)
		}
		c.SessionKeys = append(c.SessionKeys, change)
	}
	c.Families, c.Gone = d.families, d.gone
	c.GoneLogins, c.Logouts = d.goneLogins, d.notices
	return c, d.browserChanges(&c)
}

// browserChanges adds what is to be written about login sessions and consents.
func (d *Draft) browserChanges(c *Changes) error {
	for _, login := range d.logins {
		if !login.changed {
			continue
		}
		data := EncodeLogin(&login.LoginRecord)
		if len(data) > MaxValueSize {
			return ErrTooLarge
		}
		c.Logins = append(c.Logins, LoginChange{login.was, login.LoginRecord, data})
	}
	for userID, list := range d.consents {
		change := ConsentsChange{UserID: userID}
		if len(list) > 0 {
			change.Data = EncodeConsents(list)
			if len(change.Data) > MaxValueSize {
				return ErrTooLarge
			}
		}
		c.Consents = append(c.Consents, change)
	}
	return nil
}

// Empty reports whether there is nothing to write.
func (c *Changes) Empty() bool {
	return len(c.Users) == 0 && len(c.Identities) == 0 && len(c.Owners) == 0 && len(c.SessionKeys) == 0 &&
		len(c.Families) == 0 && len(c.Gone) == 0 && len(c.Logins) == 0 && len(c.GoneLogins) == 0 && len(c.Consents) == 0 &&
		len(c.Logouts) == 0
}

// user returns a user as the draft has it, nil where there is none.
func (d *Draft) user(id string) (*draftUser, error) {
	if user, ok := d.users[id]; ok {
		return user, nil
	}
	data, err := d.rows.UserRow(id)
	if err != nil || data == nil {
		return nil, err
	}
	record, err := DecodeUser(data)
	if err != nil {
		return nil, err
	}
	user := &draftUser{UserRecord: record, id: id}
	d.keepUser(user)
	return user, nil
}

func (d *Draft) keepUser(user *draftUser) {
	if d.users == nil {
		d.users = make(map[string]*draftUser, 2)
	}
	d.users[user.id] = user
}

// living returns a user who is not retired, or ErrNotFound.
func (d *Draft) living(id string) (*draftUser, error) {
	user, err := d.user(id)
	if err == nil && (user == nil || user.Retired) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return user, nil
}

// linked returns the user whom a row points to, who cannot be missing.
func (d *Draft) linked(id string) (*draftUser, error) {
	user, err := d.user(id)
	if err == nil && (user == nil || user.Retired) {
		err = fmt.Errorf("%w: a link points to no user", ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	return user, nil
}

// found returns the user whom an index key leads to, nil where there is none.
func (d *Draft) found(kind IndexKind, index Digest) (*draftUser, error) {
	id, err := d.owner(kind, index)
	if err != nil || id == "" {
		return nil, err
	}
	return d.linked(id)
}

func (d *Draft) owner(kind IndexKind, index Digest) (string, error) {
	if index.IsZero() {
		return "", nil
	}
	if id, ok := d.owners[ownerKey{kind, index}]; ok {
		return id, nil
	}
	return d.rows.Owner(kind, index)
}

func (d *Draft) setOwner(kind IndexKind, index Digest, userID string) {
	if d.owners == nil {
		d.owners = make(map[ownerKey]string)
	}
	d.owners[ownerKey{kind, index}] = userID
}

// identity returns an identity as the draft has it, nil where there is none.
func (d *Draft) identity(index Digest) (*draftIdentity, error) {
	if identity, ok := d.identities[index]; ok {
		if identity.deleted {
			return nil, nil
		}
		return identity, nil
	}
	data, err := d.rows.IdentityRow(index)
	if err != nil || data == nil {
		return nil, err
	}
	record, err := DecodeIdentity(data)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	identity := &draftIdentity{IdentityRecord: record, index: index}
	d.keepIdentity(identity)
	return identity, nil
}

func (d *Draft) keepIdentity(identity *draftIdentity) {
	if d.identities == nil {
		d.identities = make(map[Digest]*draftIdentity, 1)
	}
	d.identities[identity.index] = identity
}

// identitiesOf returns a user's identities in order of linking.
func (d *Draft) identitiesOf(user *draftUser) ([]*draftIdentity, error) {
	list := make([]*draftIdentity, 0, user.Identities.Len())
	for i := range user.Identities.Len() {
		identity, err := d.identity(user.Identities.At(i))
		if err == nil && (identity == nil || identity.UserID != user.id) {
			err = fmt.Errorf("%w: a user's identity is not the user's", ErrCorrupt)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, identity)
	}
	return list, nil
}

// hasApp reports whether a user has an identity of an app.
func (d *Draft) hasApp(user *draftUser, appID string) (bool, error) {
	list, err := d.identitiesOf(user)
	for _, identity := range list {
		if identity.AppID == appID {
			return true, err
		}
	}
	return false, err
}

// boxOf returns what opens and seals a user's values.
func (d *Draft) boxOf(user *draftUser) (*seal.Box, error) {
	if user.box == nil {
		box, err := d.vault.OpenUserKey(user.id, user.Key)
		if err != nil {
			return nil, unreadable(err)
		}
		user.box = box
	}
	return user.box, nil
}

// How many families and login sessions of one user an operation looks at.
const (
	maxUserFamilies = 1000
	maxUserLogins   = 1000
)

// liveFamilies returns the families of a user that have not ended. complete is
// false where the user may have more.
func (d *Draft) liveFamilies(userID string) (live []Family, complete bool, err error) {
	all, complete, err := d.rows.Families(userID, maxUserFamilies)
	for i := range all {
		if f := &all[i]; f.RevokedAt.IsZero() && !f.ExpiredAt(d.now) {
			live = append(live, *f)
		}
	}
	return live, complete, err
}
