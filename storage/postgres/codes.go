package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
)

// IssueCode records an authorization code with what it stands for.
func (s *Store) IssueCode(ctx context.Context, in storage.CodeIssue) (verdict storage.CodeVerdict, err error) {
	err = s.decide(ctx, func(d *storage.Draft, r *rows) (bool, error) {
		if _, found, err := r.code(in.Code); err != nil || found {
			return false, cmpErr(err, "the code exists already")
		}
		var code storage.CodeRecord
		var err error
		verdict, code, err = d.IssueCode(in)
		if err != nil || verdict != storage.CodeOK {
			return false, err
		}
		return true, r.putCode(in.Code, false, &code)
	})
	if err != nil {
		return 0, err
	}
	return verdict, nil
}

// Redeem exchanges a code for a family. The lock of the code's user is held
// meanwhile.
func (s *Store) Redeem(ctx context.Context, in storage.Redemption) (res storage.RedeemResult, err error) {
	if err := s.usable(ctx); err != nil {
		return storage.RedeemResult{}, err
	}
	if in.Family.ID.IsZero() { // one for all attempts
		in.Family.ID = storage.NewFamilyID()
	}
	if in.Family.Secret == (storage.FamilySecret{}) {
		in.Family.Secret = storage.NewFamilySecret()
	}
	err = s.decide(ctx, func(_ *storage.Draft, r *rows) (bool, error) {
		res = storage.RedeemResult{Verdict: storage.RedeemMissing}
		code, stored, err := r.code(in.Code)
		if err != nil || !stored && in.Grant == nil {
			return false, err
		}
		if !stored {
			code.Grant = *in.Grant
		}
		parties, err := r.redeemParties(&code)
		if err != nil {
			return false, err
		}
		var changes storage.RedeemChanges
		res, changes = storage.JudgeRedeem(in, code, parties, r.now)
		return true, r.writeRedeem(in.Code, stored, &changes)
	})
	if err != nil {
		return storage.RedeemResult{}, err
	}
	return res, nil
}

func (r *rows) redeemParties(code *storage.CodeRecord) (p storage.RedeemParties, err error) {
	g := &code.Grant
	if code.Used {
		family, parties, _, err := scanFamily(r.conn.QueryRow(r.ctx, r.store.sql(familySelect+` WHERE f.id = $1`), [16]byte(code.FamilyID)))
		if errors.Is(err, pgx.ErrNoRows) {
			return p, nil
		}
		family = parties.Overlay(family)
		p.Family = &family
		return p, err
	}
	if p.User, err = r.userState(g.UserID); err != nil {
		return p, err
	}
	if p.Client, err = r.client(g.ClientID); err != nil {
		return p, err
	}
	consents, err := r.ConsentsRow(g.UserID)
	if err != nil {
		return p, err
	}
	if p.ConsentRevokedAt, err = storage.ConsentRevokedAt(consents, g.ClientID); err != nil || g.LoginID.IsZero() {
		return p, err
	}
	data, err := r.LoginRow(g.LoginID)
	if err != nil || data == nil {
		return p, err
	}
	login, err := storage.DecodeLogin(g.LoginID, data)
	if err != nil {
		return p, err
	}
	if login.UserID != g.UserID { // whose lock is not held; it is refused as that of another
		return p, nil
	}
	p.Login, p.Parties.Login = &login, login.StateAt(r.now)
	return p, nil
}

// writeRedeem adds what follows from a redemption.
func (r *rows) writeRedeem(key storage.Digest, stored bool, c *storage.RedeemChanges) error {
	if c.Ended != nil {
		r.add(endFamily, [16]byte(c.Ended.ID), c.Ended.RevokedAt, c.Ended.RevokedFor)
		return nil
	}
	if c.Code == nil {
		return nil
	}
	if err := r.putCode(key, stored, c.Code); err != nil {
		return err
	}
	if c.Created != nil {
		exists, err := r.exists(`SELECT FROM families WHERE id = $1`, [16]byte(c.Created.ID))
		if err != nil || exists {
			return cmpErr(err, "the family id exists already")
		}
		st, err := create(c.Created)
		if err != nil {
			return err
		}
		r.extra = append(r.extra, st)
	}
	if c.Login != nil {
		data := storage.EncodeLogin(c.Login)
		if len(data) > storage.MaxValueSize {
			return storage.ErrTooLarge
		}
		r.add(`UPDATE logins SET record = $2 WHERE id = $1`, [16]byte(c.Login.ID), data)
	}
	return nil
}

// code returns what a code stands for and when to forget it.
func (r *rows) code(key storage.Digest) (code storage.CodeRecord, found bool, err error) {
	var data []byte
	var keepUntil time.Time
	err = r.conn.QueryRow(r.ctx, `SELECT record, look_at FROM codes WHERE id = $1`, key[:]).Scan(&data, &keepUntil)
	if errors.Is(err, pgx.ErrNoRows) {
		return code, false, nil
	}
	if err == nil {
		code, err = storage.DecodeCode(data)
	}
	if err != nil {
		return storage.CodeRecord{}, false, err
	}
	code.KeepUntil = keepUntil.UTC()
	return code, true, nil
}

func (r *rows) putCode(key storage.Digest, stored bool, code *storage.CodeRecord) error {
	data := storage.EncodeCode(code)
	if len(data) > storage.MaxValueSize {
		return storage.ErrTooLarge
	}
	sql := `INSERT INTO codes (id, record, look_at) VALUES ($1, $2, $3)`
	if stored {
		sql = `UPDATE codes SET record = $2, look_at = $3 WHERE id = $1`
	}
	r.add(sql, key[:], data, code.KeepUntil)
	return nil
}
