package provider

import (
	"cmp"
	"time"
)

// The lifetimes of a session are its client's own, or those of the settings.

func (s *session) accessTokenLifetime() time.Duration {
	return cmp.Or(s.client.AccessTokenLifetime, s.snapshot.AccessTokenLifetime)
}

func (s *session) idTokenLifetime() time.Duration {
	return cmp.Or(s.client.IDTokenLifetime, s.snapshot.IDTokenLifetime)
}

func (s *session) refreshIdleLifetime() time.Duration {
	return cmp.Or(s.client.RefreshTokenIdleLifetime, s.snapshot.RefreshTokenIdleLifetime)
}

// familyLifetimes are those of a new sign-in. One that nothing can prolong ends
// with its access token.
func (s *session) familyLifetimes() (idle, absolute time.Duration) {
	if !s.client.may(GrantRefreshToken) {
		return s.accessTokenLifetime(), s.accessTokenLifetime()
	}
	return s.refreshIdleLifetime(), cmp.Or(s.client.RefreshTokenAbsoluteLifetime, s.snapshot.RefreshTokenAbsoluteLifetime)
}
