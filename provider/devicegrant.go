package provider

import (
	"context"

	"github.com/ory/fosite"
)

// GrantDeviceCode is the grant_type that redeems a device code (RFC 8628 §3.4).
const GrantDeviceCode = "urn:ietf:params:oauth:grant-type:device_code"

// deviceGrant redeems device codes.
type deviceGrant struct{ p *Provider }

var _ grantHandler = (*deviceGrant)(nil)

func (h *deviceGrant) grantTypes() []string { return []string{GrantDeviceCode} }

func (h *deviceGrant) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool { return false }

func (h *deviceGrant) CanHandleTokenEndpointRequest(_ context.Context, requester fosite.AccessRequester) bool {
	return isFor(requester, GrantDeviceCode)
}

func (h *deviceGrant) HandleTokenEndpointRequest(ctx context.Context, requester fosite.AccessRequester) error {
	return fosite.ErrUnknownRequest
}

func (h *deviceGrant) PopulateTokenEndpointResponse(ctx context.Context, requester fosite.AccessRequester, responder fosite.AccessResponder) error {
	return fosite.ErrUnknownRequest
}
