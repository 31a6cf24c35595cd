package provider

import (
	"context"
	"errors"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// EndLogins ends all login sessions of a user and tells their clients. Whoever
// ends a user's sign-ins in another way (disabling, erasing) calls it first:
// afterwards nobody knows any more who is to be told.
func (p *Provider) EndLogins(ctx context.Context, userID string) error {
	notify := p.settings().notified()
	defer p.wakeLogouts()
	return p.eachLogin(ctx, userID, func(login storage.LoginSession) error {
		_, err := p.store.EndLogin(ctx, login.ID, notify)
		return err
	})
}

// EndFamily ends one sign-in and tells its client. found is false where there
// is none.
func (p *Provider) EndFamily(ctx context.Context, id storage.FamilyID, reason string) (found bool, err error) {
	family, err := p.store.Family(ctx, id)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return p.endFamily(ctx, family, reason)
}

// endFamily is EndFamily for a family as it was read.
func (p *Provider) endFamily(ctx context.Context, family storage.Family, reason string) (found bool, err error) {
	if found, err = p.store.RevokeFamily(ctx, family.ID, reason); err != nil || !found || !family.RevokedAt.IsZero() {
		return found, err
	}
	return true, p.tellOfEnd(ctx, family)
}

// tellOfEnd tells the client of a family that has ended, where the family began
// in a browser and the client wants to know.
func (p *Provider) tellOfEnd(ctx context.Context, family storage.Family) error {
	client := p.settings().client(family.ClientID)
	if client == nil || client.BackchannelLogoutURI == "" || family.LoginID.IsZero() {
		return nil
	}
	defer p.wakeLogouts()
	return p.store.QueueLogouts(ctx, []storage.LogoutNotice{{
		ID: storage.NewLogoutID(), ClientID: client.ID, UserID: family.UserID, FamilyID: family.ID, EndedAt: time.Now(),
	}})
}
