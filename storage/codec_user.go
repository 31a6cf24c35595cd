package storage

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
)

const (
	userVersion     = 1
	identityVersion = 1
)

// Purposes of values sealed under a user's own key.
const (
	purposeProfile = "profile"
	purposeOpenID  = "wechat openid"
	purposeUnionID = "wechat unionid"
)

// UserRecord is a user as it is stored. Key opens only under a master key, and
// every personal value of the user only under Key.
type UserRecord struct {
	CreatedAt   time.Time
	UpdatedAt   time.Time
	Disabled    bool
	Epoch       uint32
	EndedAt     time.Time // when Epoch was last raised
	EndedReason string
	Key         []byte // sealed under a master key
	Profile     []byte // sealed under Key
}

// EncodeUser returns the stored form of a user record.
func EncodeUser(u *UserRecord) []byte {
	b := make([]byte, 0, 64+len(u.EndedReason)+len(u.Key)+len(u.Profile))
	b = append(b, userVersion)
	b = appendBool(b, u.Disabled)
	b = binary.BigEndian.AppendUint32(b, u.Epoch)
	b = appendTime(b, u.CreatedAt)
	b = appendTime(b, u.UpdatedAt)
	b = appendTime(b, u.EndedAt)
	b = appendString(b, u.EndedReason)
	b = appendBytes(b, u.Key)
	return appendBytes(b, u.Profile)
}

// DecodeUser reads what EncodeUser wrote, or returns ErrCorrupt. Key and
// Profile of the result are parts of data.
func DecodeUser(data []byte) (UserRecord, error) {
	r := reader{data: data}
	r.bad = r.byte() != userVersion
	u := UserRecord{
		Disabled:  r.bool(),
		Epoch:     r.uint32(),
		CreatedAt: r.time(),
		UpdatedAt: r.time(),
		EndedAt:   r.time(),
	}
	u.EndedReason = string(r.bytes())
	u.Key = r.bytes()
	u.Profile = r.bytes()
	if err := r.end(); err != nil {
		return UserRecord{}, err
	}
	return u, nil
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

// SealProfile returns the stored form of a user's profile.
func SealProfile(box *seal.Box, userID string, p Profile) ([]byte, error) {
	plain, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode profile: %w", err)
	}
	return box.Seal(purposeProfile, []byte(userID), plain), nil
}

// OpenUser returns the user that a record describes, with the profile opened.
func (v *Vault) OpenUser(userID string, u *UserRecord) (User, error) {
	box, err := v.OpenUserKey(userID, u.Key)
	if err != nil {
		return User{}, unreadable(err)
	}
	plain, err := box.Open(purposeProfile, []byte(userID), u.Profile)
	if err != nil {
		return User{}, unreadable(err)
	}
	user := User{ID: userID, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, Disabled: u.Disabled, Epoch: u.Epoch}
	if err := json.Unmarshal(plain, &user.Profile); err != nil {
		return User{}, ErrCorrupt // the decoder's error would quote the profile
	}
	return user, nil
}

// SealOpenID seals a WeChat openid for the identity with this index.
func SealOpenID(box *seal.Box, index Digest, weChatOpenID string) []byte {
	return box.Seal(purposeOpenID, index[:], []byte(weChatOpenID))
}

// SealUnionID seals a unionid for the identity with this index.
func SealUnionID(box *seal.Box, index Digest, unionID string) []byte {
	return box.Seal(purposeUnionID, index[:], []byte(unionID))
}

// OpenIdentity returns the identity that a record describes with its values
// opened under the user's sealed key.
func (v *Vault) OpenIdentity(index Digest, i *IdentityRecord, userKey []byte) (Identity, error) {
	box, err := v.OpenUserKey(i.UserID, userKey)
	if err != nil {
		return Identity{}, unreadable(err)
	}
	openID, err := box.Open(purposeOpenID, index[:], i.OpenID)
	if err != nil {
		return Identity{}, unreadable(err)
	}
	id := Identity{AppID: i.AppID, WeChatOpenID: string(openID), OpenPlatform: i.OpenPlatform, UserID: i.UserID, LinkedAt: i.LinkedAt}
	if len(i.UnionID) > 0 {
		unionID, err := box.Open(purposeUnionID, index[:], i.UnionID)
		if err != nil {
			return Identity{}, unreadable(err)
		}
		id.UnionID = string(unionID)
	}
	return id, nil
}

func unreadable(err error) error { return fmt.Errorf("%w: %w", ErrCorrupt, err) }

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}
