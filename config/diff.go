package config

import (
	"fmt"
	"strings"
)

// RestartDiff returns the keys whose change from c to next only a restart can
// apply, in the order of the file.
func (c *Config) RestartDiff(next *Config) []string {
	was, will := c.Tokens.PairwiseSalt, next.Tokens.PairwiseSalt
	if was.IsZero() { // no `sub` was made with it yet
		was = will
	}
	var changed []string
	for _, fixed := range []struct {
		key       string
		was, will any // comparable
	}{
		{"issuer", c.Issuer, next.Issuer},
		{"listen", c.Listen, next.Listen},
		{"tls.cert_file", c.TLS.CertFile, next.TLS.CertFile},
		{"tls.key_file", c.TLS.KeyFile, next.TLS.KeyFile},
		{"trusted_proxies", fmt.Sprint(c.TrustedProxies), fmt.Sprint(next.TrustedProxies)},
		{"admin.listen", c.Admin.Listen, next.Admin.Listen},
		{"admin.socket", c.Admin.Socket, next.Admin.Socket},
		{"admin.token_file", c.Admin.TokenFile, next.Admin.TokenFile},
		{"storage.driver", c.Storage.Driver, next.Storage.Driver},
		{"storage.bolt.path", c.Storage.Bolt.Path, next.Storage.Bolt.Path},
		{"storage.postgres.dsn", c.Storage.Postgres.DSN.Reveal(), next.Storage.Postgres.DSN.Reveal()},
		{"master_key_file", c.MasterKeyFile, next.MasterKeyFile},
		{"tokens.pairwise_salt", was.Reveal(), will.Reveal()},
		{"wechat.base_url", c.WeChat.BaseURL, next.WeChat.BaseURL},
		{"wechat.timeout", c.WeChat.Timeout, next.WeChat.Timeout},
	} {
		if fixed.was != fixed.will {
			changed = append(changed, fixed.key)
		}
	}
	return changed
}

// RestartError refuses a reload that changes what only a restart can change.
// Nothing of the new configuration was applied.
type RestartError struct {
	Keys []string // as in [Config.RestartDiff]
}

// Error names the keys.
func (e *RestartError) Error() string {
	return "needs a restart: " + strings.Join(e.Keys, ", ") + " changed; nothing was applied"
}
