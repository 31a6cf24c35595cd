package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
)

// signInUsual signs in a known identity about which nothing is new. What it
// does not take goes to storage.SignInCase.
const signInUsual = `WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
who AS MATERIALIZED (
	SELECT i.user_id, u.epoch AS user_epoch, coalesce(c.epoch, 0) AS client_epoch
	FROM identities i JOIN users u ON u.id = i.user_id LEFT JOIN clients c ON c.id = $3
	WHERE i.id = $2 AND NOT u.disabled AND NOT u.retired
		AND ($4::bytea IS NULL OR i.unionid = $4 AND i.open_platform = $5)
),
once AS (
	INSERT INTO idempotency AS old (id, form, family_id, expires_at)
	SELECT $11::bytea, $12::bytea, $1, t.now + $13::interval FROM who, t WHERE $11::bytea IS NOT NULL
	ON CONFLICT (id) DO UPDATE SET form = excluded.form, family_id = excluded.family_id, expires_at = excluded.expires_at
		WHERE old.expires_at <= clock_timestamp()
	RETURNING id
)
INSERT INTO families (id, user_id, client_id, identity, user_epoch, client_epoch, generation, mac_key_id,
	created_at, rotated_at, idle_expires_at, expires_at, login_id, offline, fixed, look_at)
SELECT $1, who.user_id, $3, $2, who.user_epoch, who.client_epoch, $6, $7, t.now, t.now, e.idle, t.now + $9::interval, NULL, false, $10, e.idle
FROM who, t, LATERAL (SELECT CASE WHEN $8::interval > interval '0' THEN least(t.now + $8::interval, t.now + $9::interval)
	ELSE t.now + $9::interval END AS idle) e
WHERE $11::bytea IS NULL OR EXISTS (SELECT FROM once)
RETURNING user_id, user_epoch, client_epoch, created_at, idle_expires_at, expires_at`

// SignIn finds or creates the user of a WeChat identity and creates a family:
// in one statement where nothing about the identity is new.
func (s *Store) SignIn(ctx context.Context, in storage.SignIn) (res storage.SignInResult, err error) {
	if err := s.usable(ctx); err != nil {
		return storage.SignInResult{}, err
	}
	c, err := s.vault.PrepareSignIn(in)
	if err != nil {
		return storage.SignInResult{}, err
	}
	if len(storage.EncodeFamily(&c.Family)) > storage.MaxValueSize {
		return storage.SignInResult{}, storage.ErrTooLarge
	}
	if usual(c) {
		done := false
		if res, done, err = s.signInUsual(ctx, c); done || err != nil {
			return res, err
		}
	}
	err = s.decide(ctx, func(d *storage.Draft, r *rows) (keep bool, err error) {
		res, keep, err = judgeSignIn(c, d, r)
		return keep, err
	})
	if err != nil {
		return storage.SignInResult{}, err
	}
	return res, nil
}

// usual reports whether a sign-in brings nothing but an identity. A family of
// a browser is none of these.
func usual(c *storage.SignInCase) bool {
	return c.Bind == nil && c.Phone == nil && (c.SessionKeyLifetime <= 0 || c.SessionKey.IsZero()) && c.Family.LoginID.IsZero() && !c.Family.Offline
}

func (s *Store) signInUsual(ctx context.Context, c *storage.SignInCase) (res storage.SignInResult, done bool, err error) {
	family := c.Family
	family.WeChatAppID, family.AuthTime = c.AppID, storage.RoundTime(family.AuthTime)
	fixed, err := fixedPart(&family)
	if err != nil {
		return res, false, err
	}
	identity := c.Identity()
	var union, key, form []byte
	if c.UnionID != "" && c.OpenPlatform != "" {
		index := s.vault.UnionIDIndex(c.OpenPlatform, c.UnionID)
		union = index[:]
	}
	var remember time.Duration
	if c.Idempotency != nil {
		key, form, remember = c.Idempotency.Key[:], c.Idempotency.Form[:], c.Idempotency.Lifetime
	}
	err = s.write(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var userEpoch, clientEpoch int64
		var createdAt, idleEnd, expires time.Time
		err := conn.QueryRow(ctx, s.sql(signInUsual), [16]byte(family.ID), identity[:], text(family.ClientID), union, text(c.OpenPlatform),
			int64(family.Generation), int64(family.MACKeyID), c.Idle, c.Absolute, fixed, key, form, remember).
			Scan(&family.UserID, &userEpoch, &clientEpoch, &createdAt, &idleEnd, &expires)
		if errors.Is(err, pgx.ErrNoRows) || sqlState(err) == stateUnique {
			done = false
			return nil
		}
		if err != nil {
			return err
		}
		s.wrote()
		done = true
		family.Identity, family.UserEpoch, family.ClientEpoch = identity, uint32(userEpoch), uint32(clientEpoch)
		family.CreatedAt, family.RotatedAt, family.IdleExpiresAt, family.ExpiresAt = createdAt.UTC(), createdAt.UTC(), idleEnd.UTC(), expires.UTC()
		family.RevokedAt, family.RevokedFor = time.Time{}, ""
		return nil
	})
	if err != nil || !done {
		return storage.SignInResult{}, false, err
	}
	return storage.SignInResult{Verdict: storage.SignInOK, UserID: family.UserID, Family: family}, true, nil
}

func judgeSignIn(c *storage.SignInCase, d *storage.Draft, r *rows) (res storage.SignInResult, keep bool, err error) {
	if c.Idempotency != nil {
		taken, err := r.exists(`SELECT FROM idempotency WHERE id = $1 AND expires_at > clock_timestamp()`, c.Idempotency.Key[:])
		if err != nil {
			return res, false, err
		}
		if taken {
			return storage.SignInResult{Verdict: storage.SignInIdempotencyTaken}, false, nil
		}
	}
	if exists, err := r.exists(`SELECT FROM families WHERE id = $1`, [16]byte(c.Family.ID)); err != nil || exists {
		return res, false, cmpErr(err, "the family id exists already")
	}
	res, user, err := c.Judge(d)
	if err != nil || res.Verdict != storage.SignInOK {
		return res, false, err
	}
	client, err := r.client(c.Family.ClientID)
	if err != nil {
		return res, false, err
	}
	family := c.Family
	family.WeChatAppID = c.AppID
	family.Start(res.UserID, c.Identity(), storage.Parties{User: user, Client: client}, r.now, c.Idle, c.Absolute)
	st, err := create(&family)
	if err != nil {
		return res, false, err
	}
	r.extra = append(r.extra, st)
	if c.Idempotency != nil {
		r.add(`DELETE FROM idempotency WHERE id = $1 AND expires_at <= $2`, c.Idempotency.Key[:], r.now)
		r.add(`INSERT INTO idempotency (id, form, family_id, expires_at) VALUES ($1, $2, $3, $4)`,
			c.Idempotency.Key[:], c.Idempotency.Form[:], [16]byte(family.ID), r.now.Add(c.Idempotency.Lifetime))
	}
	res.Family = family
	return res, true, nil
}

// cmpErr returns err, or where there is none what else is wrong.
func cmpErr(err error, otherwise string) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", storage.ErrUnavailable, otherwise)
}
