package bolt

import (
	"bytes"
	"fmt"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// peopleRows are the rows about people that a transaction sees.
type peopleRows struct{ txn }

func (r peopleRows) UserRow(id string) ([]byte, error) {
	return r.Bucket(bucketUsers).Get([]byte(id)), nil
}

func (r peopleRows) IdentityRow(index storage.Digest) ([]byte, error) {
	return r.Bucket(bucketIdentities).Get(index[:]), nil
}

func (r peopleRows) Owner(kind storage.IndexKind, index storage.Digest) (string, error) {
	return getOwner(r.txn, kind, index), nil
}

func (r peopleRows) SessionKeysRow(identity storage.Digest) ([]byte, error) {
	return r.Bucket(bucketSessionKeys).Get(identity[:]), nil
}

// Families looks at no more than maxScan rows.
func (r peopleRows) Families(userID string, limit int) ([]storage.Family, bool, error) {
	page, next, err := scanFamilies(r.txn, userID, "", storage.FamilyID{}, limit)
	return page, next == "", err
}

// ownerBuckets have the index keys of each kind.
var ownerBuckets = map[storage.IndexKind][]byte{
	storage.IndexUnionID:    bucketUnionIDs,
	storage.IndexUsername:   bucketUsernames,
	storage.IndexPhone:      bucketPhones,
	storage.IndexExternalID: bucketExternalIDs,
}

func getOwner(tx txn, kind storage.IndexKind, index storage.Digest) (userID string) {
	return string(tx.Bucket(ownerBuckets[kind]).Get(index[:]))
}

// getLinked returns a copy of the user whom a row points to, who cannot be
// missing.
func getLinked(tx txn, id string) (storage.UserRecord, error) {
	user, found, err := getUser(tx, id)
	if err == nil && (!found || user.Retired) {
		err = fmt.Errorf("%w: a link points to no user", storage.ErrCorrupt)
	}
	return user.Clone(), err
}

// getIdentity returns a copy of an identity.
func getIdentity(tx txn, index storage.Digest) (identity storage.IdentityRecord, found bool, err error) {
	data := tx.Bucket(bucketIdentities).Get(index[:])
	if data == nil {
		return identity, false, nil
	}
	identity, err = storage.DecodeIdentity(bytes.Clone(data))
	return identity, err == nil, err
}

// getClient returns the state of a client, which is zero where nothing ever
// happened to it.
func getClient(tx txn, id string) (storage.ClientState, error) {
	data := tx.Bucket(bucketClients).Get([]byte(id))
	if data == nil {
		return storage.ClientState{}, nil
	}
	return storage.DecodeClient(data)
}

// getParties returns what a judgement needs to know of whom a family belongs to.
func getParties(tx txn, f *storage.Family) (p storage.Parties, err error) {
	if p.User, err = getUserState(tx, f.UserID); err != nil {
		return p, err
	}
	if p.Client, err = getClient(tx, f.ClientID); err != nil {
		return p, err
	}
	p.Login, err = getLoginState(tx, f)
	return p, err
}

// apply writes what a draft changes.
func (w *writes) apply(tx txn, c *storage.Changes) {
	for _, user := range c.Users {
		w.put(tx, bucketUsers, []byte(user.ID), user.Data)
	}
	for _, identity := range c.Identities {
		w.change(tx, bucketIdentities, identity.Index, identity.Data)
	}
	for _, owner := range c.Owners {
		var id []byte
		if owner.UserID != "" {
			id = []byte(owner.UserID)
		}
		w.change(tx, ownerBuckets[owner.Kind], owner.Index, id)
	}
	for i := range c.SessionKeys {
		w.changeSessionKeys(tx, &c.SessionKeys[i])
	}
	for i := range c.Families {
		w.put(tx, bucketFamilies, c.Families[i].ID[:], storage.EncodeFamily(&c.Families[i]))
	}
	for i := range c.Gone {
		w.deleteFamily(tx, &c.Gone[i])
	}
	for i := range c.Logins {
		w.changeLogin(tx, &c.Logins[i])
	}
	for i := range c.GoneLogins {
		w.deleteLogin(tx, &c.GoneLogins[i])
	}
	for _, consents := range c.Consents {
		if consents.Data == nil {
			w.delete(tx, bucketConsents, []byte(consents.UserID))
		} else {
			w.put(tx, bucketConsents, []byte(consents.UserID), consents.Data)
		}
	}
	for i := range c.Logouts {
		w.putLogout(tx, &c.Logouts[i])
	}
}

// createFamily writes a new family, whose stored form is row, with the rows
// that lead to it.
func (w *writes) createFamily(tx txn, f *storage.Family, row []byte) {
	w.put(tx, bucketFamilies, f.ID[:], row)
	byUser, mark := byUserRow(f.UserID, f.ID)
	w.put(tx, bucketByUser, byUser, mark)
	w.expire(tx, familyExpiry(f), kindFamily, f.ID[:])
}

// changeSessionKeys also moves the row's entry in the expiry bucket: it bears
// the identity's index, which must not outlast an erasure.
func (w *writes) changeSessionKeys(tx txn, c *storage.SessionKeysChange) {
	if data := tx.Bucket(bucketSessionKeys).Get(c.Identity[:]); data != nil {
		if old, err := storage.DecodeSessionKeys(data); err == nil {
			_, next := storage.ExpireSessionKeys(old, time.Time{}) // all of them
			w.delete(tx, bucketExpiry, expiryKey(next, kindSessionKeys, c.Identity[:]))
		}
	}
	w.change(tx, bucketSessionKeys, c.Identity, c.Data)
	if c.Data != nil {
		w.expire(tx, c.Next, kindSessionKeys, c.Identity[:])
	}
}

// change puts a row, or deletes it where value is nil.
func (w *writes) change(tx txn, bucket []byte, key storage.Digest, value []byte) {
	if value == nil {
		w.delete(tx, bucket, key[:])
	} else {
		w.put(tx, bucket, key[:], value)
	}
}

// deleteFamily deletes a family but for its entry in the expiry bucket, which
// the collector drops in its time.
func (w *writes) deleteFamily(tx txn, f *storage.Family) {
	w.delete(tx, bucketFamilies, f.ID[:])
	byUser, _ := byUserRow(f.UserID, f.ID)
	w.delete(tx, bucketByUser, byUser)
}
