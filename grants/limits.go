package grants

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/wxidp/wxidp/internal/limit"
)

// Sizes of the limiter tables.
const (
	maxAddresses = 1 << 17
	maxClients   = 1 << 12
	maxUsers     = 1 << 18
	knownFor     = time.Hour // how long a success speaks for an address
)

// SignInRates are limits per minute. Zero means no limit.
type SignInRates struct {
	PerIP      int // IPv6: per /64
	PerNetwork int // /24 of IPv4, /48 of IPv6
	PerClient  int
	PerUser    int // of one WeChat user, after a burst of an hour's worth
	PerApp     int // calls to WeChat for one appid: stay below its quota
	// ReservePercent of PerApp is kept for addresses that have signed somebody
	// in within the last hour, so that junk codes cannot use up the quota of
	// honest users.
	ReservePercent int
}

// SignInLimits bounds how fast js_codes are tried. A nil *SignInLimits sets no
// limit.
type SignInLimits struct {
	perIP, perNetwork, perClient, perUser *limit.Limiter
	general, reserve                      *limit.Limiter // per appid
	known                                 *limit.Recent  // addresses with a recent success
	hasReserve                            atomic.Bool
}

// NewSignInLimits returns limits with the given rates.
func NewSignInLimits(rates SignInRates) *SignInLimits {
	l := &SignInLimits{
		perIP:      limit.New(limit.Rate{}, maxAddresses),
		perNetwork: limit.New(limit.Rate{}, maxAddresses),
		perClient:  limit.New(limit.Rate{}, maxClients),
		perUser:    limit.New(limit.Rate{}, maxUsers),
		general:    limit.New(limit.Rate{}, maxClients),
		reserve:    limit.New(limit.Rate{}, maxClients),
		known:      limit.NewRecent(knownFor, maxAddresses),
	}
	l.SetRates(rates)
	return l
}

// Share makes the limits hold for all nodes of an exchange together.
func (l *SignInLimits) Share(x *limit.Exchange) {
	x.Register("sign_ins_ip", l.perIP)
	x.Register("sign_ins_network", l.perNetwork)
	x.Register("sign_ins_client", l.perClient)
	x.Register("sign_ins_user", l.perUser)
	x.Register("wechat_calls", l.general)
	x.Register("wechat_reserve", l.reserve)
	x.Register("known_addresses", l.known)
}

// SetRates changes the rates from now on.
func (l *SignInLimits) SetRates(rates SignInRates) {
	l.perIP.SetRate(perMinute(rates.PerIP))
	l.perNetwork.SetRate(perMinute(rates.PerNetwork))
	l.perClient.SetRate(perMinute(rates.PerClient))
	l.perUser.SetRate(limit.Rate{PerMinute: rates.PerUser, Burst: 60 * rates.PerUser})
	reserved := rates.PerApp * rates.ReservePercent / 100
	l.hasReserve.Store(reserved > 0)
	l.general.SetRate(perMinute(rates.PerApp - reserved))
	l.reserve.SetRate(perMinute(reserved))
}

// perMinute allows a quarter of a minute's events at once.
func perMinute(n int) limit.Rate { return limit.Rate{PerMinute: n, Burst: max(1, n/4)} }

// caller counts one attempt against the address, its network and the client.
// What strangers use up of the client's share is not missing to addresses that
// have signed somebody in.
func (l *SignInLimits) caller(ip netip.Addr, clientID string) error {
	if l == nil {
		return nil
	}
	if err := within("ip", l.perIP, subscriber(ip)); err != nil {
		return err
	}
	if err := within("network", l.perNetwork, network(ip)); err != nil {
		return err
	}
	if l.known.Has(subscriber(ip)) {
		return nil
	}
	return within("client", l.perClient, clientID)
}

func within(scope string, limiter *limit.Limiter, key string) error {
	if ok, wait := limiter.Allow(key); !ok {
		return &Refusal{Kind: Limited, Scope: scope, RetryAfter: wait}
	}
	return nil
}

// user counts one sign-in of a WeChat user, each of which leaves a record for
// as long as it may be refreshed.
func (l *SignInLimits) user(appid, weChatOpenID string) error {
	if l == nil {
		return nil
	}
	return within("user", l.perUser, appid+"|"+weChatOpenID)
}

// upstream counts one call to WeChat against the app's budget.
func (l *SignInLimits) upstream(ip netip.Addr, appid string) error {
	if l == nil {
		return nil
	}
	ok, wait := l.general.Allow(appid)
	if ok {
		return nil
	}
	if l.hasReserve.Load() && l.known.Has(subscriber(ip)) {
		if ok, wait = l.reserve.Allow(appid); ok {
			return nil
		}
	}
	return &Refusal{Kind: Limited, Scope: "app", RetryAfter: wait}
}

func (l *SignInLimits) succeeded(ip netip.Addr) {
	if l != nil {
		l.known.Add(subscriber(ip))
	}
}

func subscriber(ip netip.Addr) string { return limit.Subscriber(ip).String() }

// network is the address's neighbourhood, which usually has one owner.
func network(ip netip.Addr) string {
	bits := 48
	if ip = ip.Unmap(); ip.Is4() {
		bits = 24
	}
	prefix, err := ip.Prefix(bits)
	if err != nil { // the zero address
		return "unknown"
	}
	return prefix.String()
}
