package bolt

import (
	"context"
	"fmt"

	"github.com/wxidp/wxidp/storage"
)

// IssueCode records an authorization code with what it stands for.
func (s *Store) IssueCode(ctx context.Context, in storage.CodeIssue) (verdict storage.CodeVerdict, err error) {
	err = s.write(ctx, func(tx txn) (bool, error) {
		if tx.Bucket(bucketCodes).Get(in.Code[:]) != nil {
			return false, fmt.Errorf("%w: the code exists already", storage.ErrUnavailable)
		}
		var code storage.CodeRecord
		draft := storage.NewDraft(peopleRows{tx}, s.vault, tx.now)
		verdict, code, err = draft.IssueCode(in)
		if err != nil || verdict != storage.CodeOK {
			return false, err
		}
		changes, err := draft.Changes()
		if err != nil {
			return false, err
		}
		row, err := encodeCode(&code)
		if err != nil {
			return false, err
		}
		var w writes
		w.apply(tx, &changes)
		w.put(tx, bucketCodes, in.Code[:], row)
		w.expire(tx, code.KeepUntil, kindCode, in.Code[:])
		return true, w.err
	})
	if err != nil {
		return 0, err
	}
	return verdict, nil
}

// Redeem exchanges a code for a family.
func (s *Store) Redeem(ctx context.Context, in storage.Redemption) (res storage.RedeemResult, err error) {
	err = s.write(ctx, func(tx txn) (bool, error) {
		res = storage.RedeemResult{Verdict: storage.RedeemMissing}
		code, stored, err := getCode(tx, in.Code)
		if err != nil || !stored && in.Grant == nil {
			return false, err
		}
		if !stored {
			code.Grant = *in.Grant
		}
		parties, err := getRedeemParties(tx, &code)
		if err != nil {
			return false, err
		}
		var changes storage.RedeemChanges
		res, changes = storage.JudgeRedeem(in, code, parties, tx.now)
		return writeRedeem(tx, in.Code, stored, &changes)
	})
	if err != nil {
		return storage.RedeemResult{}, err
	}
	return res, nil
}

func getRedeemParties(tx txn, code *storage.CodeRecord) (p storage.RedeemParties, err error) {
	g := &code.Grant
	if code.Used {
		family, found, err := getFamily(tx, code.FamilyID)
		if err != nil || !found {
			return p, err
		}
		parties, err := getParties(tx, &family)
		family = parties.Overlay(family)
		p.Family = &family
		return p, err
	}
	if p.User, err = getUserState(tx, g.UserID); err != nil {
		return p, err
	}
	if p.Client, err = getClient(tx, g.ClientID); err != nil {
		return p, err
	}
	if p.ConsentRevokedAt, err = storage.ConsentRevokedAt(tx.Bucket(bucketConsents).Get([]byte(g.UserID)), g.ClientID); err != nil || g.LoginID.IsZero() {
		return p, err
	}
	login, found, err := getLogin(tx, g.LoginID)
	if err != nil || !found {
		return p, err
	}
	p.Login, p.Parties.Login = &login, login.StateAt(tx.now)
	return p, nil
}

// writeRedeem writes what follows from a redemption. Everything that can be
// refused is looked at before the first write.
func writeRedeem(tx txn, key storage.Digest, stored bool, c *storage.RedeemChanges) (wrote bool, err error) {
	if c.Ended != nil {
		return true, putFamily(tx, c.Ended)
	}
	if c.Code == nil {
		return false, nil
	}
	row, err := encodeCode(c.Code)
	if err != nil {
		return false, err
	}
	var family []byte
	if c.Created != nil {
		if tx.Bucket(bucketFamilies).Get(c.Created.ID[:]) != nil {
			return false, fmt.Errorf("%w: the family id exists already", storage.ErrUnavailable)
		}
		if family = storage.EncodeFamily(c.Created); len(family) > storage.MaxValueSize {
			return false, storage.ErrTooLarge
		}
	}
	var w writes
	w.put(tx, bucketCodes, key[:], row)
	if !stored {
		w.expire(tx, c.Code.KeepUntil, kindCode, key[:])
	}
	if c.Created != nil {
		w.createFamily(tx, c.Created, family)
	}
	if c.Login != nil {
		w.put(tx, bucketLogins, c.Login.ID[:], storage.EncodeLogin(c.Login))
	}
	return true, w.err
}

// getCode returns what a code stands for and when to forget it.
func getCode(tx txn, key storage.Digest) (code storage.CodeRecord, found bool, err error) {
	return decoded(tx, bucketCodes, key[:], storage.DecodeKeptCode)
}

func encodeCode(code *storage.CodeRecord) ([]byte, error) {
	data := storage.EncodeKeptCode(code)
	if len(data) > storage.MaxValueSize {
		return nil, storage.ErrTooLarge
	}
	return data, nil
}
