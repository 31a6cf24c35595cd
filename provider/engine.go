package provider

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	josev3 "github.com/go-jose/go-jose/v3"
	"github.com/ory/fosite"
)

// newEngine wires fosite. Every getter that would fill a default lazily,
// without a lock, is set here.
func newEngine(p *Provider) *fosite.Fosite {
	config := &fosite.Config{
		TokenURL:                 p.issuer + PathToken,
		ClientSecretsHasher:      secretHasher{},
		ScopeStrategy:            fosite.ExactScopeStrategy,
		AudienceMatchingStrategy: fosite.ExactAudienceMatchingStrategy,
		JWKSFetcherStrategy:      noFetch{},
		MinParameterEntropy:      1, // how good a client's state and nonce are is the client's to judge
	}
	for _, handler := range p.handlers {
		config.TokenEndpointHandlers = append(config.TokenEndpointHandlers, handler)
	}
	engine := fosite.NewOAuth2Provider(engineStore{}, config)
	config.ClientAuthenticationStrategy = func(ctx context.Context, r *http.Request, form url.Values) (fosite.Client, error) {
		return p.authenticate(ctx, engine, r, form)
	}
	return engine
}

// engineStore is what fosite may ask: who a client is. Client assertions never
// reach it, because verifyAssertion judges them.
type engineStore struct{}

var _ fosite.Storage = engineStore{}

// snapshotKey is where the settings that a request began with travel through
// fosite.
type snapshotKey struct{}

func (engineStore) GetClient(ctx context.Context, id string) (fosite.Client, error) {
	snap, ok := ctx.Value(snapshotKey{}).(*snapshot)
	if !ok {
		return nil, errors.New("client looked up outside of an authentication")
	}
	client := snap.client(id)
	if client == nil {
		return nil, fosite.ErrNotFound
	}
	return fositeClient{client}, nil
}

var errNoAssertions = errors.New("client assertions are not judged by the engine")

func (engineStore) ClientAssertionJWTValid(context.Context, string) error { return errNoAssertions }

func (engineStore) SetClientAssertionJWT(context.Context, string, time.Time) error {
	return errNoAssertions
}

// noFetch refuses to fetch keys: clients' keys come from the configuration,
// so that no request can make the server connect anywhere.
type noFetch struct{}

func (noFetch) Resolve(context.Context, string, bool) (*josev3.JSONWebKeySet, error) {
	return nil, errors.New("keys are never fetched")
}
