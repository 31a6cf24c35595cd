package provider

import (
	"context"
	"net/http"

	"github.com/wxidp/wxidp/storage"
)

// describeScan shows the code of an interaction, or a new one where it has
// none that is still good for anything. Where too many were asked for, or the
// store has no room, the page has none: a password is another way in.
func (p *Provider) describeScan(ctx context.Context, req Request, ix *openInteraction, view *InteractionView) error {
	snap := p.settings()
	if view.CanScan = snap.Scan.AppID != ""; !view.CanScan {
		return nil
	}
	if ix.Scan != "" {
		shown, err := p.showScan(ctx, req, ix.Scan)
		if err != nil && AsError(err).Code != NotFound {
			return err
		}
		if err == nil {
			view.Scan = &shown
			return nil
		}
	}
	scan, err := p.newCode(ctx, req, snap, ix, view)
	if err != nil && AsError(err).Status != http.StatusTooManyRequests {
		return err
	}
	view.Scan = scan
	return nil
}

// newCode makes a code for an interaction. The one it had before can no longer
// finish it.
func (p *Provider) newCode(ctx context.Context, req Request, snap *snapshot, ix *openInteraction, view *InteractionView) (*ScanView, error) {
	client := snap.client(ix.Params.Get("client_id"))
	if client == nil {
		client = &Client{} // the account page
	}
	code, err := p.newScan(ctx, req, client, view.Scope)
	if err != nil {
		return nil, err
	}
	if err := p.save(ctx, req, ix, func(i *interaction) { i.Scan = code.ID }); err != nil {
		return nil, err
	}
	return &code, nil
}

// RenewScan gives an interaction another code for scanning.
func (p *Provider) RenewScan(ctx context.Context, req Request, id string) error {
	ix, err := p.interaction(ctx, req, id)
	if err != nil {
		return err
	}
	view := new(InteractionView)
	if snap := p.settings(); ix.Purpose == purposeAuthorize {
		a, err := p.parseAuthRequest(ctx, snap, ix.Params)
		if err != nil {
			return AsError(err)
		}
		view.Scope = a.scope
	}
	_, err = p.newCode(ctx, req, p.settings(), ix, view)
	return err
}

// ScanState says how the code of an interaction stands. Where last is a state,
// it returns once that has changed, or after 15 s.
func (p *Provider) ScanState(ctx context.Context, req Request, id, last string) (string, error) {
	ix, err := p.interaction(ctx, req, id)
	if err != nil {
		return "", absent(err)
	}
	if ix.Scan == "" {
		return string(ticketExpired), nil
	}
	var state ScanView
	if last == "" {
		state, err = p.scanState(ctx, req, ix.Scan)
	} else {
		state, err = p.waitScan(ctx, req, ix.Scan, ticketState(last))
	}
	if err != nil && AsError(err).Code == NotFound {
		return string(ticketExpired), nil
	}
	return string(state.State), err
}

// FinishScan signs in who has approved the interaction's code on a phone. Where
// nobody has yet, the browser stays at its page.
func (p *Provider) FinishScan(ctx context.Context, req Request, id string) (Next, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	ix, err := p.interaction(ctx, req, id)
	if err != nil {
		return Next{}, absent(err)
	}
	if ix.Scan == "" {
		return Next{Interaction: id}, nil
	}
	state, err := p.scanState(ctx, req, ix.Scan)
	if err != nil && AsError(err).Code != NotFound {
		return Next{}, err
	}
	if err != nil || state.State != ticketApproved {
		return Next{Interaction: id}, nil
	}
	by, err := p.finishScan(ctx, req, ix.Scan)
	if err != nil {
		return Next{}, err
	}
	account := storage.Binding{UserID: by.ID, Epoch: by.Epoch}
	return p.signedIn(ctx, req, ix, account, by.AMR, p.settings().LoginScannedLifetime)
}

// BeginDevice starts an interaction about the device whose user code somebody
// has typed (RFC 8628 §3.3).
func (p *Provider) BeginDevice(ctx context.Context, req Request, userCode, locales string) (Next, error) {
	device, err := p.deviceByUserCode(ctx, req, userCode)
	if err != nil {
		return Next{}, err
	}
	id, err := p.beginInteraction(ctx, req, interaction{Purpose: purposeDevice, UserCode: device.UserCode, Locales: locales})
	return Next{Interaction: id}, err
}

// describeDevice fills in what a person is asked about a device.
func (p *Provider) describeDevice(ctx context.Context, req Request, ix *openInteraction, login *storage.LoginSession, view *InteractionView) error {
	device, err := p.deviceByUserCode(ctx, req, ix.UserCode)
	if err != nil {
		return err
	}
	view.Device, view.ClientID, view.Client = true, device.Client.ID, device.Client.title()
	view.Scope, view.Agent, view.Place = device.Scope, device.Agent, device.Place
	view.UserCode, view.Since = device.UserCode, device.StartedAt
	if login != nil && !ix.Switch {
		view.Step = StepConsent
	}
	return nil
}

// answerDevice lets a device in, or turns it away.
func (p *Provider) answerDevice(ctx context.Context, req Request, at *acting, approve bool) (Next, error) {
	if at.login == nil || at.ix.Switch {
		return Next{Interaction: at.ix.id}, nil
	}
	device, err := p.deviceByUserCode(ctx, req, at.ix.UserCode)
	if err != nil {
		return Next{}, err
	}
	if !approve {
		return Next{Device: device.Client.title()}, p.refuseDevice(ctx, req, device.Key, at.login.UserID)
	}
	if err := p.mayGrant(at.login.UserID); err != nil {
		return Next{}, err
	}
	by := approver{ID: at.login.UserID, Epoch: at.login.UserEpoch, AuthTime: at.login.AuthTime.Unix(), AMR: at.login.AMR}
	if err := p.approveDevice(ctx, req, device.Key, by); err != nil {
		return Next{}, err
	}
	return Next{Device: device.Client.title(), Approved: true}, nil
}
