package bolt

import (
	"bytes"
	"context"
	"fmt"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
)

// signIn is one SignIn on its way: what was computed before the transaction,
// and its outcome.
type signIn struct {
	storage.SignIn
	vault    *storage.Vault
	identity storage.Digest
	union    storage.Digest // zero: no unionid that counts
	newUser  *newUser       // nil: not needed so far
	result   storage.SignInResult
}

// newUser is a user who does not exist yet.
type newUser struct {
	id      string
	key     []byte // sealed
	box     *seal.Box
	profile []byte // sealed
}

// SignIn finds or creates the user of a WeChat identity and creates a family.
func (s *Store) SignIn(ctx context.Context, in storage.SignIn) (storage.SignInResult, error) {
	if err := ctx.Err(); err != nil {
		return storage.SignInResult{}, err
	}
	op := &signIn{SignIn: in, vault: s.vault, identity: s.vault.OpenIDIndex(in.AppID, in.WeChatOpenID)}
	if in.UnionID != "" && in.OpenPlatform != "" {
		op.union = s.vault.UnionIDIndex(in.OpenPlatform, in.UnionID)
	}
	if op.Family.ID.IsZero() {
		op.Family.ID = storage.NewFamilyID()
	}
	if op.Family.Secret == (storage.FamilySecret{}) {
		op.Family.Secret = storage.NewFamilySecret()
	}
	if err := s.write(ctx, op.apply); err != nil {
		return storage.SignInResult{}, err
	}
	return op.result, nil
}

func (op *signIn) makeUser() (*newUser, error) {
	u := &newUser{id: storage.NewUserID()}
	u.key, u.box = op.vault.NewUserKey(u.id)
	var err error
	u.profile, err = storage.SealProfile(u.box, u.id, op.NewProfile)
	return u, err
}

func (op *signIn) apply(tx txn) (bool, error) {
	op.result = storage.SignInResult{}
	if op.Idempotency != nil {
		row, err := getIdempotency(tx, op.Idempotency.Key)
		if err != nil {
			return false, err
		}
		if row != nil && tx.now.Before(row.expires) {
			op.result.Verdict = storage.SignInIdempotencyTaken
			return false, nil
		}
	}
	if tx.Bucket(bucketFamilies).Get(op.Family.ID[:]) != nil {
		return false, fmt.Errorf("%w: the family id exists already", storage.ErrUnavailable)
	}
	plan, err := op.decide(tx)
	if err != nil || op.result.Verdict != 0 {
		return false, err
	}
	family := op.Family
	family.WeChatAppID = op.AppID
	family.Start(plan.userID, op.identity, plan.epoch, tx.now, op.Idle, op.Absolute)
	row := storage.EncodeFamily(&family)
	if len(row) > storage.MaxValueSize {
		return false, storage.ErrTooLarge
	}
	return true, op.carryOut(tx, plan, &family, row)
}

// plan is what a sign-in is going to write.
type plan struct {
	userID   string
	epoch    uint32
	user     *storage.UserRecord     // to be created
	identity *storage.IdentityRecord // to be created or upgraded
	claim    bool                    // the unionid becomes the user's
}

// decide judges the sign-in without writing. A verdict in the result ends it.
func (op *signIn) decide(tx txn) (plan, error) {
	data := tx.Bucket(bucketIdentities).Get(op.identity[:])
	if data == nil {
		return op.decideNew(tx, op.unionOwner(tx))
	}
	identity, err := storage.DecodeIdentity(data)
	if err != nil {
		return plan{}, fmt.Errorf("identity: %w", err)
	}
	user, ok, err := op.activeUser(tx, identity.UserID)
	if err != nil || !ok {
		return plan{}, err
	}
	p := plan{userID: identity.UserID, epoch: user.Epoch}
	// A recorded unionid of another open platform is no unionid of this one:
	// the operator moved the app.
	recorded := !identity.Union.IsZero() && identity.OpenPlatform == op.OpenPlatform
	if op.union.IsZero() || recorded && identity.Union == op.union {
		return p, nil
	}
	switch owner := op.unionOwner(tx); {
	case recorded, owner != "" && owner != identity.UserID:
		op.result.Conflict = true
		if owner != identity.UserID {
			op.result.ConflictUserID = owner
		}
	default:
		box, err := op.vault.OpenUserKey(identity.UserID, user.Key)
		if err != nil {
			return plan{}, fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
		}
		identity.OpenPlatform, identity.Union = op.OpenPlatform, op.union
		identity.UnionID = storage.SealUnionID(box, op.identity, op.UnionID)
		identity.OpenID = bytes.Clone(identity.OpenID)
		p.identity, p.claim = &identity, owner == ""
	}
	return p, nil
}

// decideNew judges the first sign-in of an identity. It joins the user to whom
// the unionid belongs, if there is one.
func (op *signIn) decideNew(tx txn, owner string) (plan, error) {
	var p plan
	var box *seal.Box
	if owner != "" {
		user, ok, err := op.activeUser(tx, owner)
		if err != nil || !ok {
			return plan{}, err
		}
		if box, err = op.vault.OpenUserKey(owner, user.Key); err != nil {
			return plan{}, fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
		}
		p = plan{userID: owner, epoch: user.Epoch}
	} else {
		if op.newUser == nil {
			var err error
			if op.newUser, err = op.makeUser(); err != nil {
				return plan{}, err
			}
		}
		box = op.newUser.box
		p = plan{userID: op.newUser.id, claim: !op.union.IsZero()}
		p.user = &storage.UserRecord{CreatedAt: tx.now, UpdatedAt: tx.now, Key: op.newUser.key, Profile: op.newUser.profile}
		op.result.Created = true
	}
	p.identity = &storage.IdentityRecord{
		UserID:       p.userID,
		AppID:        op.AppID,
		OpenPlatform: op.OpenPlatform,
		LinkedAt:     tx.now,
		OpenID:       storage.SealOpenID(box, op.identity, op.WeChatOpenID),
	}
	if !op.union.IsZero() {
		p.identity.Union = op.union
		p.identity.UnionID = storage.SealUnionID(box, op.identity, op.UnionID)
	}
	return p, nil
}

// unionOwner returns the user whom the unionid belongs to, or "".
func (op *signIn) unionOwner(tx txn) string {
	if op.union.IsZero() {
		return ""
	}
	return string(tx.Bucket(bucketUnionIDs).Get(op.union[:]))
}

// activeUser returns a user who may sign in. ok is false, and the verdict set,
// where they may not.
func (op *signIn) activeUser(tx txn, id string) (user storage.UserRecord, ok bool, err error) {
	user, found, err := getUser(tx, id)
	switch {
	case err != nil:
		return user, false, err
	case !found:
		return user, false, fmt.Errorf("%w: a link points to no user", storage.ErrCorrupt)
	case user.Disabled:
		op.result = storage.SignInResult{Verdict: storage.SignInUserDisabled, UserID: id}
		return user, false, nil
	}
	return user, true, nil
}

func (op *signIn) carryOut(tx txn, p plan, family *storage.Family, row []byte) error {
	var w writes
	if p.user != nil {
		w.put(tx, bucketUsers, []byte(p.userID), storage.EncodeUser(p.user))
	}
	if p.identity != nil {
		w.put(tx, bucketIdentities, op.identity[:], storage.EncodeIdentity(p.identity))
	}
	if p.claim {
		w.put(tx, bucketUnionIDs, op.union[:], []byte(p.userID))
	}
	w.put(tx, bucketFamilies, family.ID[:], row)
	byUser, mark := byUserRow(p.userID, family.ID)
	w.put(tx, bucketByUser, byUser, mark)
	w.expire(tx, familyExpiry(family), kindFamily, family.ID[:])
	if op.Idempotency != nil {
		row := idempotencyRow{
			IdempotencyRecord: storage.IdempotencyRecord{Form: op.Idempotency.Form, FamilyID: family.ID},
			expires:           storage.RoundTime(tx.now.Add(op.Idempotency.Lifetime)),
		}
		w.put(tx, bucketIdempotency, op.Idempotency.Key[:], row.encode())
		w.expire(tx, row.expires, kindIdempotency, op.Idempotency.Key[:])
	}
	op.result.Verdict = storage.SignInOK
	op.result.UserID = p.userID
	op.result.Family = *family
	return w.err
}
