package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
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
RETURNING ` + startedColumns

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
		if res, err = s.signInUsual(ctx, c); res.Verdict == storage.SignInOK || err != nil {
			return res, err
		}
	}
	err = s.decideOn(ctx, s.expected(c), func(d *storage.Draft, r *rows) (keep bool, err error) {
		res, keep, err = judgeSignIn(c, d, r)
		return keep, err
	})
	if err != nil {
		return storage.SignInResult{}, err
	}
	return res, nil
}

// expected are the rows that every sign-in looks at.
func (s *Store) expected(c *storage.SignInCase) *rows {
	r := &rows{
		identities: map[storage.Digest][]byte{c.Identity(): nil},
		clients:    map[string]storage.ClientState{text(c.Family.ClientID): {}},
	}
	if c.UnionID != "" && c.OpenPlatform != "" {
		r.owners = map[ownerKey]string{{storage.IndexUnionID, s.vault.UnionIDIndex(c.OpenPlatform, c.UnionID)}: ""}
	}
	return r
}

// usual reports whether a sign-in brings nothing but an identity. A family of
// a browser is none of these.
func usual(c *storage.SignInCase) bool {
	return c.Bind == nil && c.Phone == nil && (c.SessionKeyLifetime <= 0 || c.SessionKey.IsZero()) && c.Family.LoginID.IsZero() && !c.Family.Offline
}

// usualSignIn is a sign-in that brings nothing but an identity.
type usualSignIn struct {
	*storage.SignInCase
	family   storage.Family
	fixed    []byte // of the family
	identity storage.Digest
	union    []byte // nil: none
	refused  bool   // a statement for many did not take it
}

func (in *usualSignIn) key() []byte {
	key, _, _ := in.remembered()
	return key
}

// remembered is what the storage is to remember of the request; nil: nothing.
func (in *usualSignIn) remembered() (key, form []byte, lifetime time.Duration) {
	if in.Idempotency == nil {
		return nil, nil, 0
	}
	return in.Idempotency.Key[:], in.Idempotency.Form[:], in.Idempotency.Lifetime
}

func (s *Store) prepareUsual(c *storage.SignInCase) (in *usualSignIn, err error) {
	in = &usualSignIn{SignInCase: c, family: c.Family, identity: c.Identity()}
	in.family.WeChatAppID, in.family.AuthTime = c.AppID, storage.RoundTime(c.Family.AuthTime)
	in.family.Identity = in.identity
	in.family.RevokedAt, in.family.RevokedFor = time.Time{}, ""
	if c.UnionID != "" && c.OpenPlatform != "" {
		index := s.vault.UnionIDIndex(c.OpenPlatform, c.UnionID)
		in.union = index[:]
	}
	in.fixed, err = fixedPart(&in.family)
	return in, err
}

// signInUsual returns the zero result where there is more to do than one
// statement does.
func (s *Store) signInUsual(ctx context.Context, c *storage.SignInCase) (storage.SignInResult, error) {
	in, err := s.prepareUsual(c)
	if err != nil {
		return storage.SignInResult{}, err
	}
	return s.signIns.do(ctx, in, func() (storage.SignInResult, error) {
		if in.refused {
			return storage.SignInResult{}, nil
		}
		return s.signInAlone(ctx, in)
	})
}

func (s *Store) signInAlone(ctx context.Context, in *usualSignIn) (res storage.SignInResult, err error) {
	key, form, remember := in.remembered()
	err = s.write(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var started startedFamily
		err := conn.QueryRow(ctx, s.sql(signInUsual), [16]byte(in.family.ID), in.identity[:], text(in.family.ClientID), in.union, text(in.OpenPlatform),
			int64(in.family.Generation), int64(in.family.MACKeyID), in.Idle, in.Absolute, in.fixed, key, form, remember).
			Scan(started.columns()...)
		if errors.Is(err, pgx.ErrNoRows) || sqlState(err) == stateUnique {
			res = storage.SignInResult{}
			return nil
		}
		if err != nil {
			return err
		}
		s.wrote(ctx, 1)
		res = started.result(in)
		return nil
	})
	if err != nil {
		return storage.SignInResult{}, err
	}
	return res, nil
}

// startedFamily is what the database decides of a new family.
type startedFamily struct {
	id                          [16]byte
	userID                      string
	userEpoch, clientEpoch      int64
	createdAt, idleEnd, expires time.Time
}

const startedColumns = `id, user_id, user_epoch, client_epoch, created_at, idle_expires_at, expires_at`

func (f *startedFamily) columns() []any {
	return []any{&f.id, &f.userID, &f.userEpoch, &f.clientEpoch, &f.createdAt, &f.idleEnd, &f.expires}
}

func (f *startedFamily) result(in *usualSignIn) storage.SignInResult {
	family := in.family
	family.UserID, family.UserEpoch, family.ClientEpoch = f.userID, uint32(f.userEpoch), uint32(f.clientEpoch)
	family.CreatedAt, family.RotatedAt = f.createdAt.UTC(), f.createdAt.UTC()
	family.IdleExpiresAt, family.ExpiresAt = f.idleEnd.UTC(), f.expires.UTC()
	return storage.SignInResult{Verdict: storage.SignInOK, UserID: family.UserID, Family: family}
}

// signInMany is signInUsual for many.
const signInMany = `WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
who AS MATERIALIZED (
	SELECT q.*, i.user_id, u.epoch AS user_epoch, coalesce(c.epoch, 0) AS client_epoch
	FROM unnest((SELECT $1::uuid[]), $2::bytea[], $3::text[], $4::bytea[], $5::text[], $6::bigint[], $7::bigint[], $8::interval[], $9::interval[],
			$10::bytea[], $11::bytea[], $12::bytea[], $13::interval[])
			AS q(id, identity, client_id, unionid, open_platform, generation, mac_key_id, idle, absolute, fixed, key, form, remember)
		JOIN identities i ON i.id = q.identity JOIN users u ON u.id = i.user_id LEFT JOIN clients c ON c.id = q.client_id
	WHERE NOT u.disabled AND NOT u.retired AND (q.unionid IS NULL OR i.unionid = q.unionid AND i.open_platform = q.open_platform)
),
once AS (
	INSERT INTO idempotency AS old (id, form, family_id, expires_at)
	SELECT who.key, who.form, who.id, t.now + who.remember FROM who, t WHERE who.key IS NOT NULL
	ON CONFLICT (id) DO UPDATE SET form = excluded.form, family_id = excluded.family_id, expires_at = excluded.expires_at
		WHERE old.expires_at <= clock_timestamp()
	RETURNING id
)
INSERT INTO families (id, user_id, client_id, identity, user_epoch, client_epoch, generation, mac_key_id,
	created_at, rotated_at, idle_expires_at, expires_at, login_id, offline, fixed, look_at)
SELECT who.id, who.user_id, who.client_id, who.identity, who.user_epoch, who.client_epoch, who.generation, who.mac_key_id,
	t.now, t.now, e.idle, t.now + who.absolute, NULL, false, who.fixed, e.idle
FROM t, who, LATERAL (SELECT CASE WHEN who.idle > interval '0' THEN least(t.now + who.idle, t.now + who.absolute)
	ELSE t.now + who.absolute END AS idle) e
WHERE who.key IS NULL OR who.key IN (SELECT once.id FROM once)
RETURNING ` + startedColumns

type signInCall = call[*usualSignIn, storage.SignInResult]

// signInTogether goes through the keys of idempotency in their order, so that
// nobody waits for anybody in a circle. Of two with the same key the second
// runs alone.
func (s *Store) signInTogether(ctx context.Context, batch []*signInCall) error {
	sorted := slices.SortedStableFunc(slices.Values(batch), func(a, b *signInCall) int { return bytes.Compare(a.in.key(), b.in.key()) })
	sorted = slices.CompactFunc(sorted, func(a, b *signInCall) bool { return a.in.Idempotency != nil && bytes.Equal(a.in.key(), b.in.key()) })
	n := len(sorted)
	ids, identities, unions, fixed := make([][16]byte, n), make([][]byte, n), make([][]byte, n), make([][]byte, n)
	clients, platforms := make([]string, n), make([]string, n)
	generations, macKeys := make([]int64, n), make([]int64, n)
	idle, absolute, remember := make([]time.Duration, n), make([]time.Duration, n), make([]time.Duration, n)
	keys, forms := make([][]byte, n), make([][]byte, n)
	for i, c := range sorted {
		in := c.in
		in.refused = true
		ids[i], identities[i], unions[i], fixed[i] = in.family.ID, in.identity[:], in.union, in.fixed
		clients[i], platforms[i] = text(in.family.ClientID), text(in.OpenPlatform)
		generations[i], macKeys[i] = int64(in.family.Generation), int64(in.family.MACKeyID)
		idle[i], absolute[i] = in.Idle, in.Absolute
		keys[i], forms[i], remember[i] = in.remembered()
	}
	return writeTogether(ctx, s, batch, func(ctx context.Context, conn *pgx.Conn) (int, error) {
		rows, err := conn.Query(ctx, s.sql(signInMany), ids, identities, clients, unions, platforms, generations, macKeys, idle, absolute, fixed,
			keys, forms, remember)
		if err != nil {
			return 0, err
		}
		var started startedFamily
		tag, err := pgx.ForEachRow(rows, started.columns(), func() error {
			for i, id := range ids {
				if id == started.id {
					sorted[i].settle(started.result(sorted[i].in), nil)
				}
			}
			return nil
		})
		return int(tag.RowsAffected()), err
	})
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
	if r.held == nil { // later its unique key tells
		if exists, err := r.exists(`SELECT FROM families WHERE id = $1`, [16]byte(c.Family.ID)); err != nil || exists {
			return res, false, cmpErr(err, "the family id exists already")
		}
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
