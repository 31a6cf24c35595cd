package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"
)

const (
	keepKeys       = 10 * time.Minute
	betweenFetches = 5 * time.Second
	patience       = 3 * time.Second
)

var (
	errUnknownKey      = errors.New("no key of that kid")
	errKeysUnavailable = errors.New("the issuer's keys are unavailable")
)

// keySet is the issuer's JWK Set. It is fetched when it is first needed, then
// every keepKeys, and earlier for a key it does not have, but at most once in
// betweenFetches, whatever tokens come.
type keySet struct {
	url     string
	current atomic.Pointer[fetched]

	fetching sync.Mutex // also guards what follows
	tried    time.Time
	failed   error // of the last try
}

type fetched struct {
	keys jwk.Set
	at   time.Time
}

// find returns the key of that id, errUnknownKey, or errKeysUnavailable.
func (s *keySet) find(kid string) (jwk.Key, error) {
	if key, ok := s.known(kid); ok {
		return key, nil
	}
	s.fetching.Lock()
	defer s.fetching.Unlock()
	if key, ok := s.known(kid); ok {
		return key, nil // somebody else has fetched it meanwhile
	}
	if time.Since(s.tried) >= betweenFetches {
		s.failed = s.fetch()
		s.tried = time.Now()
	}
	if s.failed != nil {
		return nil, fmt.Errorf("%w: %w", errKeysUnavailable, s.failed)
	}
	if key, ok := s.known(kid); ok {
		return key, nil
	}
	return nil, errUnknownKey
}

func (s *keySet) known(kid string) (jwk.Key, bool) {
	current := s.current.Load()
	if current == nil || time.Since(current.at) >= keepKeys {
		return nil, false
	}
	return current.keys.LookupKeyID(kid)
}

// fetch is no part of the request that needs it, which may be given up.
func (s *keySet) fetch() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	keys, err := jwk.Fetch(ctx, s.url)
	if err != nil {
		return err
	}
	s.current.Store(&fetched{keys: keys, at: time.Now()})
	return nil
}
