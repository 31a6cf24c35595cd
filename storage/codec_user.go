package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"
)

const (
	userVersion     = 1
	identityVersion = 1
)

// UserRecord is a user as it is stored. Key opens only under a master key, and
// every personal value of the user only under Key. A retired user's record is
// a tombstone: it has no key and no values any more.
type UserRecord struct {
	CreatedAt   time.Time
	UpdatedAt   time.Time
	Disabled    bool
	Retired     bool
	Epoch       uint32
	EndedAt     time.Time // when Epoch was last raised
	EndedReason string
	Key         []byte     // sealed under a master key
	Profile     []byte     // sealed under Key
	Identities  DigestList // indexes of the user's identities in order of linking

	Username        Handle
	Password        []byte // the hash, sealed under Key; empty: none
	Phone           Handle
	PhoneVerifiedAt time.Time
	ExternalID      Handle
	Attributes      []byte // sealed under Key; empty: none
}

// Handle is a personal value that a user is found by. The zero Handle means
// that the user has none.
type Handle struct {
	Index  Digest
	Sealed []byte // under the user's key
}

// IsZero reports whether there is no value.
func (h Handle) IsZero() bool { return h.Index.IsZero() }

// DigestList is a list of digests as it is stored, one after another.
type DigestList []byte

// Len returns the number of digests.
func (l DigestList) Len() int { return len(l) / len(Digest{}) }

// At returns the digest at i.
func (l DigestList) At(i int) Digest { return Digest(l[i*len(Digest{}):]) }

// Add returns a new list with d at the end.
func (l DigestList) Add(d Digest) DigestList {
	return append(append(make(DigestList, 0, len(l)+len(d)), l...), d[:]...)
}

// Remove returns a new list without d.
func (l DigestList) Remove(d Digest) DigestList {
	out := make(DigestList, 0, len(l))
	for i := range l.Len() {
		if at := l.At(i); at != d {
			out = append(out, at[:]...)
		}
	}
	return out
}

// Bare reports whether one WeChat identity is all that leads to the user.
func (u *UserRecord) Bare() bool {
	return u.Identities.Len() == 1 && u.Username.IsZero() && len(u.Password) == 0 && u.Phone.IsZero() && u.ExternalID.IsZero()
}

// Clone returns a copy that borrows nothing from where u was decoded from.
func (u UserRecord) Clone() UserRecord {
	for _, b := range []*[]byte{
		&u.Key, &u.Profile, (*[]byte)(&u.Identities), &u.Username.Sealed, &u.Password, &u.Phone.Sealed, &u.ExternalID.Sealed, &u.Attributes,
	} {
		*b = bytes.Clone(*b)
	}
	return u
}

// EncodeUser returns the stored form of a user record.
func EncodeUser(u *UserRecord) []byte {
	b := make([]byte, 0, 96+len(u.EndedReason)+len(u.Key)+len(u.Profile)+len(u.Identities)+
		len(u.Username.Sealed)+len(u.Password)+len(u.Phone.Sealed)+len(u.ExternalID.Sealed)+len(u.Attributes))
	b = append(b, userVersion)
	b = appendBool(b, u.Disabled)
	b = appendBool(b, u.Retired)
	b = binary.BigEndian.AppendUint32(b, u.Epoch)
	b = appendTime(b, u.CreatedAt)
	b = appendTime(b, u.UpdatedAt)
	b = appendTime(b, u.EndedAt)
	b = appendString(b, u.EndedReason)
	b = appendBytes(b, u.Key)
	b = appendBytes(b, u.Profile)
	b = appendBytes(b, u.Identities)
	b = appendHandle(b, u.Username)
	b = appendBytes(b, u.Password)
	if b = appendHandle(b, u.Phone); !u.Phone.IsZero() {
		b = appendTime(b, u.PhoneVerifiedAt)
	}
	b = appendHandle(b, u.ExternalID)
	return appendBytes(b, u.Attributes)
}

// DecodeUser reads what EncodeUser wrote, or returns ErrCorrupt. The byte
// slices of the result are parts of data.
func DecodeUser(data []byte) (UserRecord, error) {
	r := reader{data: data}
	r.bad = r.byte() != userVersion
	u := UserRecord{
		Disabled:  r.bool(),
		Retired:   r.bool(),
		Epoch:     r.uint32(),
		CreatedAt: r.time(),
		UpdatedAt: r.time(),
		EndedAt:   r.time(),
	}
	u.EndedReason = string(r.bytes())
	u.Key = r.bytes()
	u.Profile = r.bytes()
	u.Identities = DigestList(r.bytes())
	r.bad = r.bad || len(u.Identities)%len(Digest{}) != 0
	u.Username = r.handle()
	u.Password = r.bytes()
	if u.Phone = r.handle(); !u.Phone.IsZero() {
		u.PhoneVerifiedAt = r.time()
	}
	u.ExternalID = r.handle()
	u.Attributes = r.bytes()
	if err := r.end(); err != nil {
		return UserRecord{}, err
	}
	return u, nil
}

func appendHandle(b []byte, h Handle) []byte {
	if b = appendDigest(b, h.Index); !h.IsZero() {
		b = appendBytes(b, h.Sealed)
	}
	return b
}

func (r *reader) handle() (h Handle) {
	if h.Index = r.digest(); !h.IsZero() {
		h.Sealed = r.bytes()
	}
	return h
}

// EndFamilies raises the epoch, which ends all families that the user has.
func (u *UserRecord) EndFamilies(now time.Time, reason string) error {
	if u.Epoch+1 == 0 {
		return fmt.Errorf("%w: the user's epoch cannot be raised further", ErrUnavailable)
	}
	u.Epoch++
	u.EndedAt, u.EndedReason = RoundTime(now), reason
	return nil
}

// IdentityRecord is a WeChat identity as it is stored, under the digest of
// appid and openid.
type IdentityRecord struct {
	UserID       string
	AppID        string
	OpenPlatform string
	Union        Digest // index of the unionid; zero: none known
	LinkedAt     time.Time
	OpenID       []byte // sealed under the user's key
	UnionID      []byte // sealed under the user's key; empty: none known
}

// EncodeIdentity returns the stored form of an identity record.
func EncodeIdentity(i *IdentityRecord) []byte {
	b := make([]byte, 0, 96+len(i.UserID)+len(i.AppID)+len(i.OpenPlatform)+len(i.OpenID)+len(i.UnionID))
	b = append(b, identityVersion)
	b = appendString(b, i.UserID)
	b = appendString(b, i.AppID)
	b = appendString(b, i.OpenPlatform)
	b = appendDigest(b, i.Union)
	b = appendTime(b, i.LinkedAt)
	b = appendBytes(b, i.OpenID)
	return appendBytes(b, i.UnionID)
}

// DecodeIdentity reads what EncodeIdentity wrote, or returns ErrCorrupt.
// OpenID and UnionID of the result are parts of data.
func DecodeIdentity(data []byte) (IdentityRecord, error) {
	r := reader{data: data, text: string(data)}
	r.bad = r.byte() != identityVersion
	i := IdentityRecord{
		UserID:       r.string(),
		AppID:        r.string(),
		OpenPlatform: r.string(),
		Union:        r.digest(),
		LinkedAt:     r.time(),
		OpenID:       r.bytes(),
		UnionID:      r.bytes(),
	}
	if err := r.end(); err != nil {
		return IdentityRecord{}, err
	}
	return i, nil
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}
