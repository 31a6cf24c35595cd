package main

import (
	"context"
	"log/slog"
	"slices"

	"github.com/wxidp/wxidp/config"
)

// keyCustody forgets WeChat's session_keys once no client may use one.
type keyCustody struct {
	store interface {
		ForgetSessionKeys(ctx context.Context, limit int) (forgotten int, more bool, err error)
	}
	log    *slog.Logger
	unused chan struct{} // holds one signal while there is something to forget
}

// configured looks whether some client uses session_keys.
func (k *keyCustody) configured(c *config.Config) {
	if slices.ContainsFunc(c.Clients, func(client config.Client) bool {
		return slices.Contains(client.Scopes, config.ScopeWeChatData)
	}) {
		return
	}
	select {
	case k.unused <- struct{}{}:
	default: // one is under way
	}
}

// run forgets whenever configured finds no use, until ctx ends. What could not
// be deleted expires within three days.
func (k *keyCustody) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.unused:
		}
		for more := true; more; {
			var err error
			if _, more, err = k.store.ForgetSessionKeys(ctx, 500); err != nil {
				if ctx.Err() == nil {
					k.log.Warn("session_keys that nobody uses were not forgotten", "event", "session_keys.kept", "detail", err.Error())
				}
				break
			}
		}
	}
}
