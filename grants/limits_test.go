package grants

import (
	"errors"
	"net/netip"
	"testing"
)

// TestReserveIsNotUsedUpByStrangers: what strangers try, however many and from
// wherever, leaves an address that has signed somebody in before its share.
func TestReserveIsNotUsedUpByStrangers(t *testing.T) {
	l := NewSignInLimits(SignInRates{PerIP: 120, PerNetwork: 1200, PerClient: 30000, PerApp: 30000, ReservePercent: 20})
	honest := netip.MustParseAddr("198.51.100.7")
	l.succeeded(honest)
	attempt := func(ip netip.Addr) error {
		if err := l.caller(ip, "client"); err != nil {
			return err
		}
		return l.upstream(ip, "app")
	}
	refused := make(map[string]int)
	for i := range 40_000 {
		ip := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})
		var refusal *Refusal
		if err := attempt(ip); errors.As(err, &refusal) {
			refused[refusal.Scope]++
		}
	}
	if refused["client"] == 0 || refused["app"] == 0 {
		t.Fatalf("the flood met too few limits: %v", refused)
	}
	if err := attempt(honest); err != nil {
		t.Errorf("an address with a recent success: %v", err)
	}
	if err := attempt(netip.MustParseAddr("198.51.100.8")); err == nil {
		t.Error("a stranger got through although the budget is used up")
	}
}
