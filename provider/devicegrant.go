package provider

import (
	"context"
	"errors"
	"time"

	"github.com/ory/fosite"

	"github.com/wxidp/wxidp/storage"
)

// GrantDeviceCode is the grant_type that redeems a device code (RFC 8628 §3.4).
const GrantDeviceCode = "urn:ietf:params:oauth:grant-type:device_code"

// deviceGrant redeems device codes. A ticket that was approved is marked as
// done before its code is redeemed, so that nobody can turn it down any more;
// what keeps the code from serving twice is the store's redemption alone.
type deviceGrant struct{ p *Provider }

var _ grantHandler = (*deviceGrant)(nil)

func (h *deviceGrant) grantTypes() []string { return []string{GrantDeviceCode} }

func (h *deviceGrant) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool { return false }

func (h *deviceGrant) CanHandleTokenEndpointRequest(_ context.Context, requester fosite.AccessRequester) bool {
	return isFor(requester, GrantDeviceCode)
}

// HandleTokenEndpointRequest answers a device that has to wait, or may not.
func (h *deviceGrant) HandleTokenEndpointRequest(ctx context.Context, requester fosite.AccessRequester) error {
	if !isFor(requester, GrantDeviceCode) {
		return fosite.ErrUnknownRequest
	}
	sess, err := h.p.enter(ctx, requester, GrantDeviceCode)
	if err != nil {
		return err
	}
	code := requester.GetRequestForm().Get("device_code")
	if code == "" {
		return fail(InvalidRequest, msgParamMissing.with("device_code")).reason("missing_device_code")
	}
	key := deviceKey(code)
	t, err := h.p.ticket(ctx, key)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return fail(InvalidGrant, msgDeviceInvalid).reason("device_code_unknown")
	case err != nil:
		return err
	case t.ClientID != sess.client.ID:
		return fail(InvalidGrant, msgDeviceInvalid).reason("other_client")
	}
	return h.p.deviceWaits(key, t, time.Now())
}

// deviceWaits says why a device gets no tokens yet; nil: it gets them.
func (p *Provider) deviceWaits(key storage.Digest, t *ticket, now time.Time) error {
	switch state := t.at(now); {
	case state == ticketExpired:
		return fail(ExpiredToken, msgDeviceExpired).reason("device_code_expired")
	case state == ticketDenied || state == ticketDead:
		return fail(AccessDenied, msgDeviceDenied).reason("ticket_" + string(state))
	case p.tickets.tooSoon(key):
		return fail(SlowDown, msgDeviceSlowDown).reason("device_polls_too_fast")
	case state == ticketApproved:
		return nil
	case state == ticketDone && now.Sub(time.UnixMilli(t.Changed)) < deviceInterval:
		// Another request of the same device is redeeming. A second redemption
		// would end what the first one gets.
		return fail(SlowDown, msgDeviceSlowDown).reason("device_redeems")
	case state == ticketDone:
		return nil // the store knows whether it was redeemed
	}
	return fail(AuthorizationPending, msgDevicePending).reason("device_pending")
}

// PopulateTokenEndpointResponse redeems the code in one commit and mints.
func (h *deviceGrant) PopulateTokenEndpointResponse(ctx context.Context, requester fosite.AccessRequester, responder fosite.AccessResponder) error {
	if !isFor(requester, GrantDeviceCode) {
		return fosite.ErrUnknownRequest
	}
	sess := requester.GetSession().(*session)
	key := deviceKey(requester.GetRequestForm().Get("device_code"))
	t, err := h.p.changeTicket(ctx, key, func(t *ticket, now time.Time) error {
		if t.finish(now) || t.State == ticketDone && now.Sub(time.UnixMilli(t.Changed)) >= deviceInterval {
			return nil
		}
		// It has changed since the first look: turned down, or taken by another request.
		return fail(SlowDown, msgDeviceSlowDown).reason("device_redeems")
	})
	if err != nil {
		return err
	}
	out, err := h.p.redeem(ctx, sess, storage.Redemption{
		Code: key,
		Grant: &storage.Grant{
			UserID: t.User.ID, UserEpoch: t.User.Epoch, IssuedAt: t.User.approvedAt(), ClientID: t.ClientID,
			Scope: t.Scope, Audience: t.Audience, AuthTime: t.User.authTime(), AMR: t.User.AMR,
		},
		Remember: max(usedCodeMemory, deviceLifetime+2*ticketLinger), // longer than the ticket
	}, requestedAudience(requester))
	if err != nil {
		return err
	}
	respond(sess, responder, out)
	return nil
}
