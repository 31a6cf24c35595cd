package provider

import (
	"context"
	"time"

	"github.com/wxidp/wxidp/storage"
)

func claimNames() []string       { return []string{"name"} }
func (p *Provider) wakeLogouts() {}
func (p *Provider) describeScan(context.Context, Request, *openInteraction, *InteractionView) error {
	return nil
}
func (p *Provider) describeDevice(context.Context, Request, *openInteraction, *storage.LoginSession, *InteractionView) error {
	return nil
}
func (p *Provider) allowDevice(context.Context, Request, *acting) (Next, error) { return Next{}, nil }
func (p *Provider) denyDevice(context.Context, Request, *acting) (Next, error)  { return Next{}, nil }

func (p *Provider) pushedKey(context.Context, Request, string) (string, error) { return "", nil }

func (s *session) familyLifetimes() (idle, absolute time.Duration) {
	idle, absolute = s.snapshot.RefreshTokenIdleLifetime, s.snapshot.RefreshTokenAbsoluteLifetime
	if !s.client.may(GrantRefreshToken) {
		// Nothing can prolong this sign-in, so it ends with its access token.
		idle, absolute = s.snapshot.AccessTokenLifetime, s.snapshot.AccessTokenLifetime
	}
	return idle, absolute
}
