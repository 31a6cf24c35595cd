package provider

import (
	"context"
	"time"
)

func claimNames() []string                                                     { return []string{"name"} }
func (p *Provider) pushedKey(context.Context, Request, string) (string, error) { return "", nil }

func (s *session) familyLifetimes() (idle, absolute time.Duration) {
	idle, absolute = s.snapshot.RefreshTokenIdleLifetime, s.snapshot.RefreshTokenAbsoluteLifetime
	if !s.client.may(GrantRefreshToken) {
		// Nothing can prolong this sign-in, so it ends with its access token.
		idle, absolute = s.snapshot.AccessTokenLifetime, s.snapshot.AccessTokenLifetime
	}
	return idle, absolute
}
