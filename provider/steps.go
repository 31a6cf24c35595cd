package provider

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/wxidp/wxidp/storage"
)

// seat is an interaction and who sits in front of its browser.
func (p *Provider) seat(ctx context.Context, req Request, id string) (*openInteraction, *storage.LoginSession, error) {
	ix, err := p.interaction(ctx, req, id)
	if err != nil {
		return nil, nil, err
	}
	login, err := p.login(ctx, req)
	return ix, login, err
}

// Interaction returns what the page of an interaction shows, or where the
// browser goes where there is nothing left to ask.
func (p *Provider) Interaction(ctx context.Context, req Request, id string) (*InteractionView, Next, error) {
	ix, login, err := p.seat(ctx, req, id)
	if err != nil {
		return nil, Next{}, err
	}
	next, err := p.proceed(ctx, req, ix, login)
	if err != nil || next.Interaction == "" {
		return nil, next, err
	}
	view := &InteractionView{ID: id, Step: StepSignIn, LoginHint: ix.LoginHint, Locales: ix.Locales}
	if login != nil {
		if view.Account, err = p.accountName(ctx, login.UserID); err != nil {
			return nil, Next{}, err
		}
	}
	if err := p.describe(ctx, req, ix, login, view); err != nil {
		return nil, Next{}, err
	}
	if view.Step == StepSignIn {
		err = p.describeScan(ctx, req, ix, view)
	}
	return view, Next{}, err
}

// describe fills in what an interaction is about and at what step it is.
func (p *Provider) describe(ctx context.Context, req Request, ix *openInteraction, login *storage.LoginSession, view *InteractionView) error {
	switch ix.Purpose {
	case purposeDevice:
		return p.describeDevice(ctx, req, ix, login, view)
	case purposeAuthorize:
		snap := p.settings()
		a, err := p.parseAuthRequest(ctx, snap, ix.Params)
		if err != nil {
			return err
		}
		if view.Step, err = p.nextStep(ctx, snap, &ix.interaction, a, login); err != nil {
			return err
		}
		view.ClientID, view.Client = a.client.ID, a.client.title()
		view.Scope, view.Claims, view.Offline = a.scope, a.extraClaims(), a.offline()
		view.Terms = a.terms()
	}
	return nil
}

// title is what people read as the client's name.
func (c *Client) title() string {
	if c.Name != "" {
		return c.Name
	}
	return c.ID
}

// accountName is what a person recognises their account by.
func (p *Provider) accountName(ctx context.Context, userID string) (string, error) {
	user, err := p.store.User(ctx, userID)
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if user.Username != "" {
		return user.Username, nil
	}
	return user.Profile.Nickname, nil
}

// acting is an authorization request of an interaction at a step that asks the
// person who is signed in.
type acting struct {
	ix    *openInteraction
	snap  *snapshot
	a     *authRequest
	login *storage.LoginSession
}

// act reads an interaction for what the person has answered on its page. step
// is what it must be at; if it is somewhere else, the browser goes there.
func (p *Provider) act(ctx context.Context, req Request, id string, steps ...Step) (*acting, Next, error) {
	ix, login, err := p.seat(ctx, req, id)
	if err != nil {
		return nil, Next{}, err
	}
	if ix.Purpose != purposeAuthorize {
		return &acting{ix: ix, login: login}, Next{}, nil
	}
	at := &acting{ix: ix, snap: p.settings(), login: login}
	if at.a, err = p.parseAuthRequest(ctx, at.snap, ix.Params); err != nil {
		next, err := p.tell(ctx, req, err)
		return nil, next, err
	}
	step, err := p.nextStep(ctx, at.snap, &ix.interaction, at.a, login)
	if err != nil {
		next, err := p.tell(ctx, req, err)
		return nil, next, err
	}
	if slices.Contains(steps, step) {
		return at, Next{}, nil
	}
	next, err := p.advance(ctx, req, at.snap, ix, at.a, login)
	return nil, next, err
}

// terms names what a consent page asks for.
func (a *authRequest) terms() string {
	digest := tokenDigest(joinScope(a.scope) + "\x00" + joinScope(a.extraClaims()))
	return hex.EncodeToString(digest[:8])
}

// Allow records that the person agrees to what the consent page asked. terms
// are those of the page: where a reload has changed what is asked for since, it
// is asked anew. "": not known.
func (p *Provider) Allow(ctx context.Context, req Request, id, terms string) (Next, error) {
	at, next, err := p.act(ctx, req, id, StepConsent)
	if at == nil || err != nil {
		return next, err
	}
	if at.ix.Purpose == purposeDevice {
		return p.answerDevice(ctx, req, at, true)
	}
	if at.a == nil || terms != "" && terms != at.a.terms() {
		return Next{Interaction: id}, nil
	}
	return p.finish(ctx, req, at.snap, at.ix, at.a, at.login, true)
}

// Deny goes back to the client without anything: the person does not agree, or
// does not want to sign in.
func (p *Provider) Deny(ctx context.Context, req Request, id string) (Next, error) {
	// stepFinish: they agreed elsewhere meanwhile, and do not agree here.
	at, next, err := p.act(ctx, req, id, StepSignIn, StepSelect, StepConsent, stepFinish)
	if at == nil || err != nil {
		return next, err
	}
	switch {
	case at.ix.Purpose == purposeDevice && at.login == nil:
		return Next{Path: PathDeviceVerification}, nil // nobody knows who declines
	case at.ix.Purpose == purposeDevice:
		return p.answerDevice(ctx, req, at, false)
	case at.a == nil:
		return Next{Interaction: id}, nil
	}
	if err := p.finishInteraction(ctx, req, at.ix); err != nil {
		return Next{}, err
	}
	return p.tell(ctx, req, &redirectable{at.a, fail(AccessDenied, msgDenied).reason("declined")})
}

// Continue goes on as the user who is signed in (prompt=select_account).
func (p *Provider) Continue(ctx context.Context, req Request, id string) (Next, error) {
	at, next, err := p.act(ctx, req, id, StepSelect)
	if at == nil || err != nil || at.a == nil {
		return next, err
	}
	if err := p.save(ctx, req, at.ix, func(i *interaction) { i.Chosen = at.login.Token }); err != nil {
		return Next{}, err
	}
	return p.advance(ctx, req, at.snap, at.ix, at.a, at.login)
}

// Switch asks for another user than the one who is signed in, who stays so
// until somebody else is.
func (p *Provider) Switch(ctx context.Context, req Request, id string) (Next, error) {
	ix, err := p.interaction(ctx, req, id)
	if err != nil {
		return Next{}, err
	}
	err = p.save(ctx, req, ix, func(i *interaction) { i.Switch, i.LoginHint = true, "" })
	return Next{Interaction: id}, err
}
