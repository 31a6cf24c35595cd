package postgres

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
)

// Idempotency returns what an earlier sign-in with this key recorded.
func (s *Store) Idempotency(ctx context.Context, key storage.Digest) (rec storage.IdempotencyRecord, ok bool, err error) {
	var form []byte
	var family [16]byte
	err = s.readRow(ctx, `SELECT form, family_id FROM idempotency WHERE id = $1 AND expires_at > clock_timestamp()`, []any{key[:]}, &form, &family)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return rec, false, nil
	case err != nil:
		return rec, false, err
	case len(form) != len(rec.Form):
		return rec, false, storage.ErrCorrupt
	}
	return storage.IdempotencyRecord{Form: storage.Digest(form), FamilyID: storage.FamilyID(family)}, true, nil
}

// rotateUsual rotates a live family whose live generation was presented. What
// it does not take goes to storage.JudgeRotate.
const rotateUsual = `WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now)
UPDATE families f SET generation = f.generation + 1, mac_key_id = $4, rotated_at = t.now,
	idle_expires_at = CASE WHEN $5::interval > interval '0' THEN least(t.now + $5::interval, f.expires_at) ELSE f.expires_at END
FROM t, users u
WHERE f.id = $1 AND f.client_id = $2 AND f.generation = $3 AND ` + mayRotate + `
RETURNING ` + familyColumns

// mayRotate is what must hold beside of a family f at a time t.now and of its
// user u.
const mayRotate = `f.generation < 4294967295
	AND f.revoked_at IS NULL AND f.idle_expires_at > t.now AND f.expires_at > t.now
	AND u.id = f.user_id AND NOT u.disabled AND NOT u.retired AND u.epoch = f.user_epoch
	AND f.client_epoch = coalesce((SELECT c.epoch FROM clients c WHERE c.id = f.client_id), 0)
	AND (f.login_id IS NULL OR f.offline OR EXISTS (SELECT FROM logins l
		WHERE l.id = f.login_id AND l.ended_at IS NULL AND l.idle_expires_at > t.now AND l.expires_at > t.now))`

// Rotate redeems one generation of a family's refresh token: of a live one in
// one statement.
func (s *Store) Rotate(ctx context.Context, in storage.Rotation) (storage.RotateResult, error) {
	if err := s.usable(ctx); err != nil {
		return storage.RotateResult{}, err
	}
	return s.rotations.do(ctx, in, func() (storage.RotateResult, error) { return s.rotate(ctx, in) })
}

func (s *Store) rotate(ctx context.Context, in storage.Rotation) (res storage.RotateResult, err error) {
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		var row familyRow
		err := c.QueryRow(ctx, s.sql(rotateUsual), [16]byte(in.FamilyID), text(in.ClientID), int64(in.Generation), int64(in.MACKeyID), in.Idle).
			Scan(row.columns()...)
		if err == nil {
			s.wrote(ctx, 1)
			res.Verdict = storage.RotateOK
			res.Family, err = row.family()
			return err
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		res, err = s.judgeRotate(ctx, c, in)
		return err
	})
	if err != nil {
		return storage.RotateResult{}, err
	}
	return res, nil
}

// judgeRotate answers what rotateUsual did not take. The family that it judges
// is as one statement saw it.
func (s *Store) judgeRotate(ctx context.Context, c *pgx.Conn, in storage.Rotation) (storage.RotateResult, error) {
	family, parties, now, err := scanFamily(c.QueryRow(ctx, s.sql(familySelect+` WHERE f.id = $1`), [16]byte(in.FamilyID)))
	if errors.Is(err, pgx.ErrNoRows) {
		return storage.RotateResult{Verdict: storage.RotateMissing}, nil
	}
	if err != nil {
		return storage.RotateResult{}, err
	}
	res, write := storage.JudgeRotate(in, family, parties, now)
	switch {
	case !write:
		return res, nil
	case res.Verdict != storage.RotateReused:
		return storage.RotateResult{}, errAgain // it has become live since
	}
	// A later generation that has become live since makes it no less of a reuse.
	var row familyRow
	err = c.QueryRow(ctx, endFamily+` RETURNING `+familyColumns, [16]byte(in.FamilyID), res.Family.RevokedAt, res.Family.RevokedFor).Scan(row.columns()...)
	if errors.Is(err, pgx.ErrNoRows) {
		return storage.RotateResult{}, errAgain // revoked since
	}
	if err != nil {
		return storage.RotateResult{}, err
	}
	s.wrote(ctx, 1)
	res.Family, err = row.family()
	res.SuccessorUsed = in.Generation+1 < res.Family.Generation
	return res, err
}

// Family returns a family whatever its state.
func (s *Store) Family(ctx context.Context, id storage.FamilyID) (storage.Family, error) {
	if err := s.usable(ctx); err != nil {
		return storage.Family{}, err
	}
	return s.families.do(ctx, id, func() (storage.Family, error) { return s.family(ctx, id) })
}

func (s *Store) family(ctx context.Context, id storage.FamilyID) (family storage.Family, err error) {
	err = s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		f, parties, _, err := scanFamily(c.QueryRow(ctx, s.sql(familySelect+` WHERE f.id = $1`), [16]byte(id)))
		if errors.Is(err, pgx.ErrNoRows) {
			return storage.ErrNotFound
		}
		family = parties.Overlay(f)
		return err
	})
	if err != nil {
		return storage.Family{}, err
	}
	return family, nil
}

const (
	isDenied    = `EXISTS (SELECT FROM denied_jtis d WHERE d.jti = $1 AND d.expires_at > clock_timestamp())`
	accessQuery = `SELECT ` + isDenied + `, ` + familyColumns + `, ` + partyColumns + familyTables + ` WHERE f.id = $2`
)

// CheckAccess judges whether what was issued under a family is still good.
func (s *Store) CheckAccess(ctx context.Context, in storage.AccessCheck) (storage.AccessResult, error) {
	if err := s.usable(ctx); err != nil {
		return storage.AccessResult{}, err
	}
	if in.FamilyID.IsZero() {
		return s.checkAccess(ctx, in)
	}
	return s.accesses.do(ctx, in, func() (storage.AccessResult, error) { return s.checkAccess(ctx, in) })
}

func (s *Store) checkAccess(ctx context.Context, in storage.AccessCheck) (res storage.AccessResult, err error) {
	jti := deniedKey(in.JTI)
	denied := false
	err = s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		res, denied = storage.AccessResult{Verdict: storage.AccessActive}, false
		if !in.FamilyID.IsZero() {
			family, parties, now, err := scanFamily(c.QueryRow(ctx, s.sql(accessQuery), jti, [16]byte(in.FamilyID)), &denied)
			if err == nil {
				res = storage.JudgeAccess(family, parties, now)
				return nil
			}
			if !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
			res.Verdict = storage.AccessFamilyMissing
		}
		if jti == nil {
			return nil
		}
		return c.QueryRow(ctx, s.sql(`SELECT `+isDenied), jti).Scan(&denied)
	})
	if err != nil {
		return storage.AccessResult{}, err
	}
	if denied {
		return storage.AccessResult{Verdict: storage.AccessDenied}, nil
	}
	return res, nil
}

// RevokeFamily ends a family.
func (s *Store) RevokeFamily(ctx context.Context, id storage.FamilyID, reason string) (found bool, err error) {
	if len(reason) > storage.MaxReason {
		return false, storage.ErrTooLarge
	}
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		family, parties, now, err := scanFamily(c.QueryRow(ctx, s.sql(familySelect+` WHERE f.id = $1`), [16]byte(id)))
		if errors.Is(err, pgx.ErrNoRows) {
			found = false
			return nil
		}
		if err != nil {
			return err
		}
		found = true
		if seen := parties.Overlay(family); !seen.RevokedAt.IsZero() {
			return nil
		}
		tag, err := c.Exec(ctx, endFamily, [16]byte(id), storage.RoundTime(now), text(reason))
		if err == nil && tag.RowsAffected() == 0 {
			return errAgain
		}
		if err == nil {
			s.wrote(ctx, 1)
		}
		return err
	})
	return found && err == nil, err
}

const (
	pageAll    = familySelect + ` WHERE f.id > $1 ORDER BY f.id LIMIT $2`
	pageOfUser = familySelect + ` WHERE f.id > $1 AND f.user_id = $3 ORDER BY f.id LIMIT $2`
)

// PageFamilies lists families in the order of their ids, which is that of
// their creation.
func (s *Store) PageFamilies(ctx context.Context, userID, after string, limit int) (page []storage.Family, next string, err error) {
	start, err := storage.FamilyCursor(after)
	if err != nil {
		return nil, "", err
	}
	limit = storage.PageSize(limit)
	query, args := pageAll, []any{[16]byte(start), limit + 1} // no family has the id zero
	if userID != "" {
		query, args = pageOfUser, append(args, text(userID))
	}
	err = s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, s.sql(query), args...)
		if err == nil {
			page, err = scanFamilies(rows)
		}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].ID.String()
	}
	return page, next, nil
}

// RecentFamilies lists the live families of a user, newest first.
func (s *Store) RecentFamilies(ctx context.Context, userID string, limit int) (recent []storage.Family, err error) {
	err = s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, s.sql(familySelect+` WHERE f.user_id = $1 AND f.revoked_at IS NULL
			AND f.idle_expires_at > clock_timestamp() AND f.expires_at > clock_timestamp()
			AND NOT u.retired AND u.epoch = f.user_epoch AND coalesce(c.epoch, 0) = f.client_epoch
			AND (f.login_id IS NULL OR f.offline
				OR l.ended_at IS NULL AND l.idle_expires_at > clock_timestamp() AND l.expires_at > clock_timestamp())
			ORDER BY f.id DESC LIMIT $2`), text(userID), storage.PageSize(limit))
		if err == nil {
			recent, err = scanFamilies(rows)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return recent, nil
}

// DenyJTI makes CheckAccess refuse the token with this jti until expires.
func (s *Store) DenyJTI(ctx context.Context, jti string, expires time.Time) error {
	key := jtiKey(jti)
	expires = storage.RoundTime(expires)
	return s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tag, err := c.Exec(ctx, s.sql(`INSERT INTO denied_jtis AS old (jti, expires_at) SELECT $1, $2::timestamptz WHERE $2 > clock_timestamp()
			ON CONFLICT (jti) DO UPDATE SET expires_at = excluded.expires_at WHERE old.expires_at < excluded.expires_at`), key[:], expires)
		if err == nil && tag.RowsAffected() == 1 {
			s.wrote(ctx, 1)
		}
		return err
	})
}

// deniedKey is the key of a jti, or nil, which is equal to none.
func deniedKey(jti string) []byte {
	if jti == "" {
		return nil
	}
	key := jtiKey(jti)
	return key[:]
}

// jtiKey gives ids of any length and content one form.
func jtiKey(jti string) storage.Digest { return sha256.Sum256([]byte(jti)) }
