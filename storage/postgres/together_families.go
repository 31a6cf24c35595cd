package postgres

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
)

type (
	familyCall = call[storage.FamilyID, storage.Family]
	accessCall = call[storage.AccessCheck, storage.AccessResult]
	rotateCall = call[storage.Rotation, storage.RotateResult]
	claimCall  = call[claim, bool]
)

// familiesTogether reads families for many.
func (s *Store) familiesTogether(ctx context.Context, batch []*familyCall) error {
	ids := make([][16]byte, len(batch))
	for i, c := range batch {
		ids[i] = c.in
	}
	return s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, s.sql(familySelect+` JOIN unnest((SELECT $1::uuid[])) AS q(id) ON q.id = f.id`), ids)
		if err != nil {
			return err
		}
		var row familyRow
		_, err = pgx.ForEachRow(rows, append(row.columns(), row.parties()...), func() error {
			f, parties, _, err := row.judged()
			for _, c := range batch {
				if c.in == storage.FamilyID(row.id) {
					c.settle(parties.Overlay(f), err)
				}
			}
			return nil
		})
		return err
	})
}

// accessTogether judges for many whether what was issued under a family is
// still good. It settles what has a family that is there.
func (s *Store) accessTogether(ctx context.Context, batch []*accessCall) error {
	ids, jtis := make([][16]byte, len(batch)), make([][]byte, len(batch))
	for i, c := range batch {
		ids[i] = c.in.FamilyID
		jtis[i] = deniedKey(c.in.JTI)
	}
	return s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, s.sql(accessManyQuery), ids, jtis)
		if err != nil {
			return err
		}
		var row familyRow
		var n int
		var denied bool
		_, err = pgx.ForEachRow(rows, append([]any{&n, &denied}, append(row.columns(), row.parties()...)...), func() error {
			if denied {
				batch[n-1].settle(storage.AccessResult{Verdict: storage.AccessDenied}, nil)
				return nil
			}
			f, parties, now, err := row.judged()
			batch[n-1].settle(storage.JudgeAccess(f, parties, now), err)
			return nil
		})
		return err
	})
}

const accessManyQuery = `SELECT q.n, EXISTS (SELECT FROM denied_jtis d WHERE d.jti = q.jti AND d.expires_at > clock_timestamp()), ` +
	familyColumns + `, ` + partyColumns + ` FROM unnest((SELECT $1::uuid[]), $2::bytea[]) WITH ORDINALITY AS q(id, jti, n)
	JOIN families f ON f.id = q.id` + familyParties

// rotateMany rotates what rotateUsual does, and nothing that anybody else holds
// a lock of: nobody waits for another one's trouble, and there are no circles.
const rotateMany = `WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
q AS MATERIALIZED (
	SELECT f.id, q.generation, q.mac_key_id, q.idle
	FROM unnest((SELECT $1::uuid[]), $2::text[], $3::bigint[], $4::bigint[], $5::interval[]) AS q(id, client_id, generation, mac_key_id, idle)
	JOIN families f ON f.id = q.id AND f.client_id = q.client_id AND f.generation = q.generation
	FOR NO KEY UPDATE OF f SKIP LOCKED
)
UPDATE families f SET generation = f.generation + 1, mac_key_id = q.mac_key_id, rotated_at = t.now,
	idle_expires_at = CASE WHEN q.idle > interval '0' THEN least(t.now + q.idle, f.expires_at) ELSE f.expires_at END
FROM t, q, users u
WHERE f.id = q.id AND f.generation = q.generation AND ` + mayRotate + `
RETURNING ` + familyColumns

func (s *Store) rotateTogether(ctx context.Context, batch []*rotateCall) error {
	first := make(map[storage.FamilyID]*rotateCall, len(batch)) // the same one twice: the second runs alone
	var ids [][16]byte
	var clients []string
	var generations, macKeys []int64
	var idle []time.Duration
	for _, c := range batch {
		if first[c.in.FamilyID] != nil {
			continue
		}
		first[c.in.FamilyID] = c
		ids, clients = append(ids, c.in.FamilyID), append(clients, text(c.in.ClientID))
		generations, macKeys = append(generations, int64(c.in.Generation)), append(macKeys, int64(c.in.MACKeyID))
		idle = append(idle, c.in.Idle)
	}
	return writeTogether(ctx, s, batch, func(ctx context.Context, conn *pgx.Conn) (n int, err error) {
		rows, err := conn.Query(ctx, s.sql(rotateMany), ids, clients, generations, macKeys, idle)
		if err != nil {
			return 0, err
		}
		var row familyRow
		tag, err := pgx.ForEachRow(rows, row.columns(), func() error {
			f, err := row.family()
			if c := first[storage.FamilyID(row.id)]; c != nil {
				c.settle(storage.RotateResult{Verdict: storage.RotateOK, Family: f}, err)
			}
			return nil
		})
		return int(tag.RowsAffected()), err
	})
}

// claim is what Claim is asked for.
type claim struct {
	key      storage.Digest
	lifetime time.Duration
}

const claimMany = `INSERT INTO claims AS old (id, expires_at)
	SELECT q.id, clock_timestamp() + q.lifetime FROM unnest((SELECT $1::bytea[]), $2::interval[]) AS q(id, lifetime)
	ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at WHERE old.expires_at <= clock_timestamp()
	RETURNING id`

// claimTogether takes claims for many, in the order of their keys, so that
// nobody waits for anybody in a circle.
func (s *Store) claimTogether(ctx context.Context, batch []*claimCall) error {
	sorted := slices.SortedFunc(slices.Values(batch), func(a, b *claimCall) int { return bytes.Compare(a.in.key[:], b.in.key[:]) })
	sorted = slices.CompactFunc(sorted, func(a, b *claimCall) bool { return a.in.key == b.in.key }) // the second runs alone
	keys, lifetimes := make([][]byte, len(sorted)), make([]time.Duration, len(sorted))
	for i, c := range sorted {
		keys[i], lifetimes[i] = c.in.key[:], c.in.lifetime
	}
	return writeTogether(ctx, s, batch, func(ctx context.Context, conn *pgx.Conn) (int, error) {
		rows, err := conn.Query(ctx, s.sql(claimMany), keys, lifetimes)
		if err != nil {
			return 0, err
		}
		taken := make(map[storage.Digest]bool, len(sorted))
		var key []byte
		_, err = pgx.ForEachRow(rows, []any{&key}, func() error {
			if len(key) != len(storage.Digest{}) {
				return storage.ErrCorrupt
			}
			taken[storage.Digest(key)] = true
			return nil
		})
		if err != nil {
			return 0, err
		}
		for _, c := range sorted {
			c.settle(taken[c.in.key], nil)
		}
		return 0, nil
	})
}
