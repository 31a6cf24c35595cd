package postgres

import (
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/wxidp/wxidp/storage"
)

// familyColumns are a family's own, in the order of familyRow.columns.
const familyColumns = `f.id, f.user_id, f.client_id, f.identity, f.user_epoch, f.client_epoch, f.generation, f.mac_key_id,
	f.created_at, f.rotated_at, f.idle_expires_at, f.expires_at, f.revoked_at, f.revoked_for, f.login_id, f.offline, f.fixed`

// partyColumns are what a judgement needs to know beside the family, in the
// order of familyRow.parties.
const partyColumns = `clock_timestamp(),
	u.id IS NOT NULL, coalesce(u.disabled, false), coalesce(u.retired, false), coalesce(u.epoch, 0), u.ended_at, coalesce(u.ended_reason, ''),
	coalesce(c.epoch, 0), c.ended_at, coalesce(c.ended_reason, ''),
	l.id IS NOT NULL, l.ended_at, l.idle_expires_at, l.expires_at`

// familyTables join a family with its parties.
const (
	familyTables  = ` FROM families f` + familyParties
	familyParties = `
	LEFT JOIN users u ON u.id = f.user_id
	LEFT JOIN clients c ON c.id = f.client_id
	LEFT JOIN logins l ON l.id = f.login_id AND NOT f.offline`
)

const familySelect = `SELECT ` + familyColumns + `, ` + partyColumns + familyTables

// familyRow is a family as a statement returns it.
type familyRow struct {
	id                                     [16]byte
	userID, clientID                       string
	identity                               []byte
	userEpoch, clientEpoch                 int64
	generation, macKeyID                   int64
	createdAt, rotatedAt, idleEnd, expires time.Time
	revokedAt                              *time.Time
	revokedFor                             string
	loginID                                pgtype.UUID
	offline                                bool
	fixed                                  []byte

	now            time.Time
	user           storage.UserState
	userStateEpoch int64
	userEndedAt    *time.Time
	client         storage.ClientState
	clientState    int64
	clientEndedAt  *time.Time
	loginFound     bool
	loginEndedAt   *time.Time
	loginIdleEnd   *time.Time
	loginExpires   *time.Time
}

func (r *familyRow) columns() []any {
	return []any{
		&r.id, &r.userID, &r.clientID, &r.identity, &r.userEpoch, &r.clientEpoch, &r.generation, &r.macKeyID,
		&r.createdAt, &r.rotatedAt, &r.idleEnd, &r.expires, &r.revokedAt, &r.revokedFor, &r.loginID, &r.offline, &r.fixed,
	}
}

func (r *familyRow) parties() []any {
	return []any{
		&r.now,
		&r.user.Found, &r.user.Disabled, &r.user.Retired, &r.userStateEpoch, &r.userEndedAt, &r.user.EndedReason,
		&r.clientState, &r.clientEndedAt, &r.client.EndedReason,
		&r.loginFound, &r.loginEndedAt, &r.loginIdleEnd, &r.loginExpires,
	}
}

// family returns the family as it is stored.
func (r *familyRow) family() (storage.Family, error) {
	f, err := storage.DecodeFamily(storage.FamilyID(r.id), r.fixed)
	if err != nil {
		return storage.Family{}, err
	}
	f.UserID, f.ClientID = r.userID, r.clientID
	if len(r.identity) > 0 {
		if len(r.identity) != len(f.Identity) {
			return storage.Family{}, storage.ErrCorrupt
		}
		f.Identity = storage.Digest(r.identity)
	}
	f.UserEpoch, f.ClientEpoch = uint32(r.userEpoch), uint32(r.clientEpoch)
	f.Generation, f.MACKeyID = uint32(r.generation), uint32(r.macKeyID)
	f.CreatedAt, f.RotatedAt, f.IdleExpiresAt, f.ExpiresAt = r.createdAt.UTC(), r.rotatedAt.UTC(), r.idleEnd.UTC(), r.expires.UTC()
	f.RevokedAt, f.RevokedFor = moment(r.revokedAt), r.revokedFor
	f.LoginID, f.Offline = storage.LoginID(r.loginID.Bytes), r.offline
	return f, nil
}

// judged returns the family with what a judgement needs beside it.
func (r *familyRow) judged() (f storage.Family, p storage.Parties, now time.Time, err error) {
	if f, err = r.family(); err != nil {
		return f, p, now, err
	}
	now = r.now.UTC()
	p.User, p.Client = r.user, r.client
	p.User.Epoch, p.User.EndedAt = uint32(r.userStateEpoch), moment(r.userEndedAt)
	p.Client.Epoch, p.Client.EndedAt = uint32(r.clientState), moment(r.clientEndedAt)
	if r.loginFound {
		login := storage.LoginRecord{EndedAt: moment(r.loginEndedAt)}
		login.IdleExpiresAt, login.ExpiresAt = moment(r.loginIdleEnd), moment(r.loginExpires)
		p.Login = login.StateAt(now)
	}
	return f, p, now, nil
}

func scanFamily(row pgx.Row, before ...any) (storage.Family, storage.Parties, time.Time, error) {
	var r familyRow
	if err := row.Scan(append(append(before, r.columns()...), r.parties()...)...); err != nil {
		return storage.Family{}, storage.Parties{}, time.Time{}, err
	}
	return r.judged()
}

// scanFamilies returns families as callers should see them.
func scanFamilies(rows pgx.Rows) (families []storage.Family, err error) {
	defer rows.Close()
	for rows.Next() {
		f, parties, _, err := scanFamily(rows)
		if err != nil {
			return nil, err
		}
		families = append(families, parties.Overlay(f))
	}
	return families, rows.Err()
}

// fixedPart returns the stored form of what never changes of a family, or
// storage.ErrTooLarge.
func fixedPart(f *storage.Family) ([]byte, error) {
	fixed := storage.Family{
		Secret: f.Secret, WeChatAppID: f.WeChatAppID, AuthTime: f.AuthTime, Scope: f.Scope, Audience: f.Audience, AMR: f.AMR,
		DPoPThumbprint: f.DPoPThumbprint, ACR: f.ACR, IDTokenClaims: f.IDTokenClaims, UserInfoClaims: f.UserInfoClaims,
	}
	data := storage.EncodeFamily(&fixed)
	if len(data) > storage.MaxValueSize {
		return nil, storage.ErrTooLarge
	}
	return data, nil
}

const insertFamily = `INSERT INTO families (id, user_id, client_id, identity, user_epoch, client_epoch, generation, mac_key_id,
	created_at, rotated_at, idle_expires_at, expires_at, login_id, offline, fixed, look_at)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $11)`

// create returns the statement that stores a new family.
func create(f *storage.Family) (statement, error) {
	fixed, err := fixedPart(f)
	if err != nil {
		return statement{}, err
	}
	return statement{insertFamily, []any{
		[16]byte(f.ID), f.UserID, text(f.ClientID), optionalDigest(f.Identity), int64(f.UserEpoch), int64(f.ClientEpoch),
		int64(f.Generation), int64(f.MACKeyID), f.CreatedAt, f.RotatedAt, f.IdleExpiresAt, f.ExpiresAt,
		optionalID(f.LoginID), f.Offline, fixed,
	}}, nil
}

// endFamily ends a family that has not been revoked.
const endFamily = `UPDATE families f SET revoked_at = $2, revoked_for = $3 WHERE f.id = $1 AND f.revoked_at IS NULL`

func optionalDigest(d storage.Digest) []byte {
	if d.IsZero() {
		return nil
	}
	return d[:]
}

func optionalID(id storage.LoginID) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: !id.IsZero()} }
