package config

// RateLimits are wxidp's own limits, 1 to 10000000 unless said otherwise.
// Many phones share one address behind a carrier, so limits by IP are wide.
type RateLimits struct {
	// Disabled lifts all limits; for load tests. Default false.
	Disabled bool `mapstructure:"disabled"`
	// RequestsPerIPPerMinute limits token, revocation, UserInfo and account
	// requests and WeChat's pushes, and of backends those introspections and
	// uses of WeChat data that fail. What is served from memory (discovery,
	// JWK Set, health) is not limited. Default 3000.
	RequestsPerIPPerMinute int `mapstructure:"requests_per_ip_per_minute"`
	// SignInsPerIPPerMinute limits sign-ins by IP address (IPv6: by /64).
	// Default 120.
	SignInsPerIPPerMinute int `mapstructure:"sign_ins_per_ip_per_minute"`
	// SignInsPerNetworkPerMinute limits sign-ins by /24 (IPv6: /48).
	// Default 1200.
	SignInsPerNetworkPerMinute int `mapstructure:"sign_ins_per_network_per_minute"`
	// SignInsPerClientPerMinute limits sign-ins by client; addresses that
	// signed somebody in within the last hour are exempt. Default 30000.
	SignInsPerClientPerMinute int `mapstructure:"sign_ins_per_client_per_minute"`
	// SignInsPerUserPerMinute limits sign-ins by WeChat user, after a burst of
	// an hour's worth: each leaves a record for as long as it may be
	// refreshed. Apps refresh instead of signing in anew. Default 2.
	SignInsPerUserPerMinute int `mapstructure:"sign_ins_per_user_per_minute"`
	// WeChatCallsPerAppPerMinute keeps below WeChat's quota for one AppID.
	// Default 30000.
	WeChatCallsPerAppPerMinute int `mapstructure:"wechat_calls_per_app_per_minute"`
	// WeChatReservePercent of those calls is kept for addresses that signed
	// in before, so that a flood of strangers cannot use up the quota:
	// 0 to 90. Default 20.
	WeChatReservePercent int `mapstructure:"wechat_reserve_percent"`
	// FailedClientAuthPerMinute limits wrong client secrets by IP address
	// and client. Default 10.
	FailedClientAuthPerMinute int `mapstructure:"failed_client_auth_per_minute"`
	// IntrospectionMissesPerMinute limits, by client, introspections of what
	// is no token of ours. Default 600.
	IntrospectionMissesPerMinute int `mapstructure:"introspection_misses_per_minute"`
	// WrongPasswordsPerAccountAndIP limits wrong passwords for one account
	// from one IP address (IPv6: /64) in 15 minutes. At most 65535, as the two
	// below. Default 10.
	WrongPasswordsPerAccountAndIP int `mapstructure:"wrong_passwords_per_account_and_ip"`
	// WrongPasswordsPerAccount limits them for one account from everywhere;
	// addresses from which the account was opened within the last day are
	// exempt. Default 100.
	WrongPasswordsPerAccount int `mapstructure:"wrong_passwords_per_account"`
	// WrongPasswordsPerIP limits them from one IP address for all accounts.
	// Default 300.
	WrongPasswordsPerIP int `mapstructure:"wrong_passwords_per_ip"`
	// WeChatDataPerUserPerMinute limits, by user, what backends have
	// decrypted, verified, checked and reset with WeChat's session_key.
	// Default 10.
	WeChatDataPerUserPerMinute int `mapstructure:"wechat_data_per_user_per_minute"`
	// AuthorizationsPerIPPerMinute limits, by IP address (IPv6: /64),
	// authorization requests that wait for a person, and pushed ones: each is
	// kept for some time. Default 300.
	AuthorizationsPerIPPerMinute int `mapstructure:"authorizations_per_ip_per_minute"`
	// ScanCodesPerIPPerMinute limits, by IP address (IPv6: /64), the codes
	// that are shown to be scanned. Default 20.
	ScanCodesPerIPPerMinute int `mapstructure:"scan_codes_per_ip_per_minute"`
	// TicketMissesPerIPPerMinute limits, by IP address (IPv6: /64), tickets
	// and user codes that are wrong or unknown. Default 20.
	TicketMissesPerIPPerMinute int `mapstructure:"ticket_misses_per_ip_per_minute"`
}
