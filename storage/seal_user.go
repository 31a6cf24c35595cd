package storage

import (
	"encoding/json"
	"fmt"

	"github.com/wxidp/wxidp/internal/seal"
)

// Purposes of values sealed under a user's own key.
const (
	purposeProfile    = "profile"
	purposeUsername   = "username"
	purposePassword   = "password hash"
	purposePhone      = "phone"
	purposeExternalID = "external id"
	purposeAttributes = "attributes"
	purposeOpenID     = "wechat openid"
	purposeUnionID    = "wechat unionid"
	purposeSessionKey = "wechat session_key"
)

// OpenUser returns the user that a record describes with all values opened. Of
// a retired user nothing is left but that.
func (v *Vault) OpenUser(userID string, u *UserRecord) (User, error) {
	if u.Retired {
		return User{ID: userID, Retired: true}, nil
	}
	box, err := v.OpenUserKey(userID, u.Key)
	if err != nil {
		return User{}, unreadable(err)
	}
	user := User{
		ID: userID, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, Disabled: u.Disabled, Epoch: u.Epoch,
		Identities: u.Identities.Len(), HasPassword: len(u.Password) > 0, PhoneVerifiedAt: u.PhoneVerifiedAt,
	}
	if user.Profile, err = openProfile(box, userID, u.Profile); err != nil {
		return User{}, err
	}
	for _, value := range []struct {
		purpose string
		sealed  []byte
		to      *string
	}{
		{purposeUsername, u.Username.Sealed, &user.Username},
		{purposePhone, u.Phone.Sealed, &user.Phone},
		{purposeExternalID, u.ExternalID.Sealed, &user.ExternalID},
	} {
		if *value.to, err = openText(box, value.purpose, []byte(userID), value.sealed); err != nil {
			return User{}, err
		}
	}
	if len(u.Attributes) > 0 {
		if err := openJSON(box, purposeAttributes, userID, u.Attributes, &user.Attributes); err != nil {
			return User{}, err
		}
	}
	return user, nil
}

// OpenAccount returns what checking the password of a user needs.
func (v *Vault) OpenAccount(userID string, u *UserRecord) (Account, error) {
	box, err := v.OpenUserKey(userID, u.Key)
	if err != nil {
		return Account{}, unreadable(err)
	}
	hash, err := openText(box, purposePassword, []byte(userID), u.Password)
	return Account{UserID: userID, Epoch: u.Epoch, PasswordHash: hash, Disabled: u.Disabled}, err
}

// OpenIdentity returns the identity that a record describes with its values
// opened under the user's sealed key.
func (v *Vault) OpenIdentity(index Digest, i *IdentityRecord, userKey []byte) (Identity, error) {
	box, err := v.OpenUserKey(i.UserID, userKey)
	if err != nil {
		return Identity{}, unreadable(err)
	}
	id := Identity{Index: index, AppID: i.AppID, OpenPlatform: i.OpenPlatform, UserID: i.UserID, LinkedAt: i.LinkedAt}
	id.WeChatOpenID, id.UnionID, err = openIdentity(box, index, i)
	return id, err
}

func openIdentity(box *seal.Box, index Digest, i *IdentityRecord) (weChatOpenID, unionID string, err error) {
	if weChatOpenID, err = openText(box, purposeOpenID, index[:], i.OpenID); err != nil {
		return "", "", err
	}
	unionID, err = openText(box, purposeUnionID, index[:], i.UnionID)
	return weChatOpenID, unionID, err
}

func sealProfile(box *seal.Box, userID string, p Profile) ([]byte, error) {
	return sealJSON(box, purposeProfile, userID, p)
}

func openProfile(box *seal.Box, userID string, sealed []byte) (p Profile, err error) {
	return p, openJSON(box, purposeProfile, userID, sealed, &p)
}

func sealText(box *seal.Box, purpose string, aad []byte, value string) []byte {
	if value == "" {
		return nil
	}
	return box.Seal(purpose, aad, []byte(value))
}

func openText(box *seal.Box, purpose string, aad, sealed []byte) (string, error) {
	if len(sealed) == 0 {
		return "", nil
	}
	plain, err := box.Open(purpose, aad, sealed)
	if err != nil {
		return "", unreadable(err)
	}
	return string(plain), nil
}

func sealJSON(box *seal.Box, purpose, userID string, value any) ([]byte, error) {
	plain, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", purpose, err)
	}
	return box.Seal(purpose, []byte(userID), plain), nil
}

func openJSON(box *seal.Box, purpose, userID string, sealed []byte, to any) error {
	plain, err := box.Open(purpose, []byte(userID), sealed)
	if err != nil {
		return unreadable(err)
	}
	if json.Unmarshal(plain, to) != nil {
		return ErrCorrupt // the decoder's error would quote the value
	}
	return nil
}

func unreadable(err error) error { return fmt.Errorf("%w: %w", ErrCorrupt, err) }
