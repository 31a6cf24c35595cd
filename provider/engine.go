package provider

import (
	"context"
	"net/http"
	"net/url"
	"time"

	josev3 "github.com/go-jose/go-jose/v3"
	"github.com/ory/fosite"

	"github.com/wxidp/wxidp/storage"
)

// maxAssertionLifetime bounds how far ahead a client assertion may expire, and
// so how long its jti is kept.
const maxAssertionLifetime = time.Hour

// engineConfig is fosite's configuration with the token endpoint's names.
type engineConfig struct {
	*fosite.Config
	audiences []string
}

// GetTokenURLs returns what a client assertion may name as its audience: the
// issuer (RFC 7523bis) or the endpoint it is presented at.
func (c *engineConfig) GetTokenURLs(context.Context) []string { return c.audiences }

// newEngine wires fosite. Every getter that would fill a default lazily,
// without a lock, is set here.
func newEngine(p *Provider) *fosite.Fosite {
	config := &fosite.Config{
		TokenURL:                 p.issuer + PathToken,
		ClientSecretsHasher:      secretHasher{},
		ScopeStrategy:            fosite.ExactScopeStrategy,
		AudienceMatchingStrategy: fosite.ExactAudienceMatchingStrategy,
		JWKSFetcherStrategy:      noFetch{},
	}
	for _, handler := range p.handlers {
		config.TokenEndpointHandlers = append(config.TokenEndpointHandlers, handler)
	}
	engine := fosite.NewOAuth2Provider(&engineStore{p}, &engineConfig{
		Config:    config,
		audiences: []string{p.issuer, p.issuer + PathToken, p.issuer + PathRevocation, p.issuer + PathIntrospection},
	})
	config.ClientAuthenticationStrategy = func(ctx context.Context, r *http.Request, form url.Values) (fosite.Client, error) {
		return p.authenticate(ctx, engine, r, form)
	}
	return engine
}

// engineStore is what fosite may ask: who a client is, and whether an
// assertion was seen.
type engineStore struct{ p *Provider }

var _ fosite.Storage = (*engineStore)(nil)

// authentication accompanies one client authentication through fosite, whose
// store methods do not say which client they are about.
type authentication struct {
	snapshot *snapshot
	clientID string
}

type authenticationKey struct{}

func (s *engineStore) GetClient(ctx context.Context, id string) (fosite.Client, error) {
	auth, ok := ctx.Value(authenticationKey{}).(*authentication)
	if !ok {
		return nil, fosite.ErrServerError.WithDebug("client looked up outside of an authentication")
	}
	auth.clientID = id
	client := auth.snapshot.client(id)
	if client == nil {
		return nil, fosite.ErrNotFound
	}
	return fositeClient{client}, nil
}

// ClientAssertionJWTValid leaves the judgement to SetClientAssertionJWT, where
// it is one atomic operation.
func (s *engineStore) ClientAssertionJWTValid(context.Context, string) error { return nil }

// SetClientAssertionJWT takes the jti of a client assertion, once.
func (s *engineStore) SetClientAssertionJWT(ctx context.Context, jti string, expires time.Time) error {
	auth := ctx.Value(authenticationKey{}).(*authentication)
	lifetime := time.Until(expires)
	// fosite takes an exp of 0 for none and lets one beyond time.Time overflow;
	// it accepts an assertion in the very second it expires.
	if lifetime < -time.Second {
		return fail(InvalidClient, msgClientAuth).reason("assertion_expired")
	}
	if lifetime > maxAssertionLifetime {
		return fail(InvalidClient, msgAssertionTooLong).reason("assertion_lifetime")
	}
	if len(jti) > 256 {
		return fail(InvalidClient, msgClientAuth).reason("assertion_jti_too_long")
	}
	key := storage.Digest(digest("client assertion", auth.clientID, jti))
	stored, err := s.p.store.PutIfAbsent(ctx, storage.ItemClientAssertion, key[:], nil, max(lifetime, 0)+2*time.Second)
	if err != nil {
		return err
	}
	if !stored {
		return fail(InvalidClient, msgAssertionReplayed).reason("assertion_replayed")
	}
	return nil
}

// noFetch refuses to fetch keys: clients' keys come from the configuration,
// so that no request can make the server connect anywhere.
type noFetch struct{}

func (noFetch) Resolve(context.Context, string, bool) (*josev3.JSONWebKeySet, error) {
	return nil, fosite.ErrInvalidClient.WithDebug("keys are never fetched")
}
