package bolt

import (
	"context"
	"fmt"

	"github.com/wxidp/wxidp/storage"
)

// SignIn finds or creates the user of a WeChat identity and creates a family.
func (s *Store) SignIn(ctx context.Context, in storage.SignIn) (storage.SignInResult, error) {
	if err := ctx.Err(); err != nil {
		return storage.SignInResult{}, err
	}
	c, err := s.vault.PrepareSignIn(in)
	if err != nil {
		return storage.SignInResult{}, err
	}
	var res storage.SignInResult
	err = s.write(ctx, func(tx txn) (wrote bool, err error) {
		res, wrote, err = s.signIn(tx, c)
		return wrote, err
	})
	if err != nil {
		return storage.SignInResult{}, err
	}
	return res, nil
}

func (s *Store) signIn(tx txn, c *storage.SignInCase) (res storage.SignInResult, wrote bool, err error) {
	if c.Idempotency != nil {
		kept, found, err := getIdempotency(tx, c.Idempotency.Key)
		if err != nil {
			return res, false, err
		}
		if found && tx.now.Before(kept.ExpiresAt) {
			return storage.SignInResult{Verdict: storage.SignInIdempotencyTaken}, false, nil
		}
	}
	if tx.Bucket(bucketFamilies).Get(c.Family.ID[:]) != nil {
		return res, false, fmt.Errorf("%w: the family id exists already", storage.ErrUnavailable)
	}
	draft := storage.NewDraft(peopleRows{tx}, s.vault, tx.now)
	res, user, err := c.Judge(draft)
	if err != nil || res.Verdict != storage.SignInOK {
		return res, false, err
	}
	changes, err := draft.Changes()
	if err != nil {
		return res, false, err
	}
	client, err := getClient(tx, c.Family.ClientID)
	if err != nil {
		return res, false, err
	}
	family := c.Family
	family.WeChatAppID = c.AppID
	family.Start(res.UserID, c.Identity(), storage.Parties{User: user, Client: client}, tx.now, c.Idle, c.Absolute)
	row := storage.EncodeFamily(&family)
	if len(row) > storage.MaxValueSize {
		return res, false, storage.ErrTooLarge
	}
	res.Family = family
	return res, true, writeSignIn(tx, c, &changes, &family, row)
}

func writeSignIn(tx txn, c *storage.SignInCase, changes *storage.Changes, family *storage.Family, row []byte) error {
	var w writes
	w.apply(tx, changes)
	w.createFamily(tx, family, row)
	if c.Idempotency != nil {
		kept := storage.KeptIdempotency{
			IdempotencyRecord: storage.IdempotencyRecord{Form: c.Idempotency.Form, FamilyID: family.ID},
			ExpiresAt:         storage.RoundTime(tx.now.Add(c.Idempotency.Lifetime)),
		}
		w.put(tx, bucketIdempotency, c.Idempotency.Key[:], storage.EncodeIdempotency(&kept))
		w.expire(tx, kept.ExpiresAt, kindIdempotency, c.Idempotency.Key[:])
	}
	return w.err
}
