package limit

import "net/netip"

// Subscriber returns the address under which limits count a caller: its own,
// or for IPv6 the first of its /64, which is what one subscriber is given and
// may number as they like.
func Subscriber(ip netip.Addr) netip.Addr {
	if ip = ip.Unmap(); !ip.Is6() {
		return ip
	}
	prefix, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return ip
	}
	return prefix.Addr()
}
