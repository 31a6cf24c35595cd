package postgres

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/wxidp/wxidp/storage"
)

// apply returns what writes a draft's changes. Rows that were not there are
// inserted, so that their unique keys tell who came first; all are in a fixed
// order, so that nobody waits for anybody in a circle.
func (r *rows) apply(c *storage.Changes) (list []statement, err error) {
	slices.SortFunc(c.Users, func(a, b storage.UserChange) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(c.Identities, func(a, b storage.IdentityChange) int { return bytes.Compare(a.Index[:], b.Index[:]) })
	slices.SortFunc(c.Owners, func(a, b storage.OwnerChange) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), bytes.Compare(a.Index[:], b.Index[:]))
	})
	slices.SortFunc(c.SessionKeys, func(a, b storage.SessionKeysChange) int { return bytes.Compare(a.Identity[:], b.Identity[:]) })
	for _, user := range c.Users {
		st, err := putUser(user.ID, user.Data)
		if err != nil {
			return nil, err
		}
		list = append(list, st)
	}
	for _, identity := range c.Identities {
		st, err := r.changeIdentity(identity)
		if err != nil {
			return nil, err
		}
		list = append(list, st)
	}
	for _, owner := range c.Owners {
		list = append(list, r.changeOwner(owner))
	}
	for _, keys := range c.SessionKeys {
		list = append(list, changeSessionKeys(keys))
	}
	families, err := applyFamilies(c)
	if err != nil {
		return nil, err
	}
	return append(append(list, families...), applyLogins(c)...), nil
}

func putUser(id string, data []byte) (statement, error) {
	user, err := storage.DecodeUser(data)
	if err != nil {
		return statement{}, err
	}
	return statement{`INSERT INTO users (id, disabled, retired, epoch, ended_at, ended_reason, record) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (id) DO UPDATE SET disabled = $2, retired = $3, epoch = $4, ended_at = $5, ended_reason = $6, record = $7`,
		[]any{id, user.Disabled, user.Retired, int64(user.Epoch), optional(user.EndedAt), text(user.EndedReason), data}}, nil
}

func (r *rows) changeIdentity(c storage.IdentityChange) (statement, error) {
	if c.Data == nil {
		return statement{`DELETE FROM identities WHERE id = $1`, []any{c.Index[:]}}, nil
	}
	record, err := storage.DecodeIdentity(c.Data)
	if err != nil {
		return statement{}, err
	}
	args := []any{c.Index[:], record.UserID, text(record.OpenPlatform), optionalDigest(record.Union), c.Data}
	if r.identities[c.Index] == nil {
		return statement{`INSERT INTO identities (id, user_id, open_platform, unionid, record) VALUES ($1, $2, $3, $4, $5)`, args}, nil
	}
	return statement{`UPDATE identities SET user_id = $2, open_platform = $3, unionid = $4, record = $5 WHERE id = $1`, args}, nil
}

func (r *rows) changeOwner(c storage.OwnerChange) statement {
	kind := int16(c.Kind)
	if c.UserID == "" {
		return statement{`DELETE FROM owners WHERE kind = $1 AND id = $2`, []any{kind, c.Index[:]}}
	}
	args := []any{kind, c.Index[:], c.UserID}
	if owner, read := r.owners[ownerKey{c.Kind, c.Index}]; read && owner == "" {
		return statement{`INSERT INTO owners (kind, id, user_id) VALUES ($1, $2, $3)`, args}
	}
	return statement{`INSERT INTO owners (kind, id, user_id) VALUES ($1, $2, $3) ON CONFLICT (kind, id) DO UPDATE SET user_id = $3`, args}
}

func changeSessionKeys(c storage.SessionKeysChange) statement {
	if c.Data == nil {
		return statement{`DELETE FROM session_keys WHERE identity = $1`, []any{c.Identity[:]}}
	}
	return statement{`INSERT INTO session_keys (identity, look_at, record) VALUES ($1, $2, $3)
		ON CONFLICT (identity) DO UPDATE SET look_at = $2, record = $3`, []any{c.Identity[:], c.Next, c.Data}}
}

func applyFamilies(c *storage.Changes) (list []statement, err error) {
	for i := range c.Families {
		f := &c.Families[i]
		fixed, err := fixedPart(f)
		if err != nil {
			return nil, err
		}
		list = append(list, statement{`UPDATE families SET user_id = $2, user_epoch = $3, client_epoch = $4, generation = $5, mac_key_id = $6,
			rotated_at = $7, idle_expires_at = $8, expires_at = $9, revoked_at = $10, revoked_for = $11, fixed = $12 WHERE id = $1`,
			[]any{[16]byte(f.ID), f.UserID, int64(f.UserEpoch), int64(f.ClientEpoch), int64(f.Generation), int64(f.MACKeyID),
				f.RotatedAt, f.IdleExpiresAt, f.ExpiresAt, optional(f.RevokedAt), text(f.RevokedFor), fixed}})
	}
	if len(c.Gone) > 0 {
		ids := make([][16]byte, len(c.Gone))
		for i := range ids {
			ids[i] = c.Gone[i].ID
		}
		list = append(list, statement{`DELETE FROM families WHERE id = ANY($1)`, []any{ids}})
	}
	return list, nil
}

func applyLogins(c *storage.Changes) (list []statement) {
	slices.SortFunc(c.Logins, func(a, b storage.LoginChange) int { // a token leaves its holder before another one gets it
		return cmp.Or(cmp.Compare(newRow(a.Was), newRow(b.Was)), bytes.Compare(a.Is.ID[:], b.Is.ID[:]))
	})
	for i := range c.Logins {
		list = append(list, changeLogin(&c.Logins[i]))
	}
	if len(c.GoneLogins) > 0 {
		ids := make([][16]byte, len(c.GoneLogins))
		for i := range ids {
			ids[i] = c.GoneLogins[i].ID
		}
		list = append(list, statement{`DELETE FROM logins WHERE id = ANY($1)`, []any{ids}})
	}
	for _, consents := range c.Consents {
		id := text(consents.UserID)
		if consents.Data == nil {
			list = append(list, statement{`DELETE FROM consents WHERE user_id = $1`, []any{id}})
			continue
		}
		list = append(list, statement{`INSERT INTO consents (user_id, record) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET record = $2`,
			[]any{id, consents.Data}})
	}
	for i := range c.Logouts {
		list = append(list, putLogout(&c.Logouts[i]))
	}
	return list
}

func newRow(was *storage.LoginRecord) int {
	if was == nil {
		return 1
	}
	return 0
}

func changeLogin(c *storage.LoginChange) statement {
	login := &c.Is
	args := []any{[16]byte(login.ID), login.UserID, optionalDigest(login.Token), login.IdleExpiresAt, login.ExpiresAt, optional(login.EndedAt), c.Data, int64(login.UserEpoch)}
	if c.Was == nil {
		return statement{`INSERT INTO logins (id, user_id, token, idle_expires_at, expires_at, ended_at, record, user_epoch, look_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, least($4::timestamptz, $5::timestamptz))`, args}
	}
	return statement{`UPDATE logins SET user_id = $2, token = $3, idle_expires_at = $4, expires_at = $5, ended_at = $6, record = $7, user_epoch = $8 WHERE id = $1`, args}
}

func putLogout(n *storage.LogoutNotice) statement {
	return statement{`INSERT INTO logouts (id, client_id, user_id, family_id, ended_at, attempts, next_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (id) DO NOTHING`,
		[]any{[16]byte(n.ID), text(n.ClientID), text(n.UserID), [16]byte(n.FamilyID), n.EndedAt, int64(n.Attempts), n.Next}}
}
