package main

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wxidp/wxidp/config"
)

// keyCustody forgets WeChat's session_keys once no client may use one.
type keyCustody struct {
	store interface {
		ForgetSessionKeys(ctx context.Context, limit int) (forgotten int, more bool, err error)
	}
	log    *slog.Logger
	inUse  atomic.Bool
	unused chan struct{} // holds one signal while there is something to forget
}

// configured looks whether some client uses session_keys.
func (k *keyCustody) configured(c *config.Config) {
	used := slices.ContainsFunc(c.Clients, func(client config.Client) bool {
		return slices.Contains(client.Scopes, config.ScopeWeChatData)
	})
	k.inUse.Store(used)
	if used {
		return
	}
	select {
	case k.unused <- struct{}{}:
	default: // one is under way
	}
}

// afterRequests is longer than a sign-in that began before a reload can last:
// it may bring another session_key.
const afterRequests = time.Minute

// run forgets whenever configured finds no use, until ctx ends.
func (k *keyCustody) run(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-again:
			again = nil
		case <-k.unused:
			again = time.After(afterRequests)
		}
		k.forget(ctx)
	}
}

// forget deletes them all. What cannot be deleted expires within three days.
func (k *keyCustody) forget(ctx context.Context) {
	for more := true; more && !k.inUse.Load(); {
		var err error
		if _, more, err = k.store.ForgetSessionKeys(ctx, 500); err != nil {
			if ctx.Err() == nil {
				k.log.Warn("session_keys that nobody uses were not forgotten", "event", "session_keys.kept", "detail", err.Error())
			}
			return
		}
	}
}
