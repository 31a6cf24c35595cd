package grants

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/limit/limittest"
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

// Nodes share what sign-ins use up, and who has signed somebody in.
func TestSignInLimitsOfTwoNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := new(limittest.Board)
		rates := SignInRates{PerIP: 120, PerNetwork: 1200, PerClient: 400, PerUser: 1, PerApp: 100, ReservePercent: 20}
		a, b := NewSignInLimits(rates), NewSignInLimits(rates)
		for _, l := range []*SignInLimits{a, b} {
			limittest.Node(t, board, nil, l.Share)
		}
		exchange := func() {
			time.Sleep(250 * time.Millisecond)
			synctest.Wait()
		}
		exchange()
		honest, stranger := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("203.0.113.9")
		a.succeeded(honest)
		for a.caller(stranger, "client") == nil {
		}
		for i := 0; a.caller(netip.AddrFrom4([4]byte{10, 1, byte(i), 1}), "client") == nil; i++ {
		}
		for a.user("app", "openid") == nil {
		}
		for a.upstream(stranger, "app") == nil {
		}
		exchange()
		scope := func(err error) string {
			var refusal *Refusal
			if errors.As(err, &refusal) {
				return refusal.Scope
			}
			return ""
		}
		for _, got := range [][2]string{
			{scope(b.caller(stranger, "other")), "ip"},
			{scope(b.caller(netip.MustParseAddr("10.2.0.1"), "client")), "client"},
			{scope(b.caller(honest, "client")), ""},
			{scope(b.user("app", "openid")), "user"},
			{scope(b.upstream(stranger, "app")), "app"},
			{scope(b.upstream(honest, "app")), ""}, // from the reserve
		} {
			if got[0] != got[1] {
				t.Errorf("refused for %q, want %q", got[0], got[1])
			}
		}
	})
}
