package hostcheck

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Bound is the host that a server was told to listen on. The zero Bound is any.
type Bound struct{ host string }

// Of returns the host of an address to listen on, as host:port.
func Of(addr string) Bound {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return Bound{}
	}
	return Bound{normal(host)}
}

// Allows checks the Host header: it must name the host that the server was told
// to listen on, localhost or a loopback address, and where it was told none, the
// address that the request came in on. The port is not looked at: a forwarded one
// is another.
func (b Bound) Allows(req *http.Request) bool {
	host := req.Host
	if only, _, err := net.SplitHostPort(host); err == nil {
		host = only
	}
	host = normal(host)
	if host == "" {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if host == "localhost" || err == nil && ip.Unmap().IsLoopback() {
		return true
	}
	unspecified := b.host == ""
	if bound, err := netip.ParseAddr(b.host); err == nil && bound.IsUnspecified() {
		unspecified = true
	}
	if !unspecified {
		return host == b.host
	}
	// An address, unlike a name, cannot be rebound.
	local, ok := req.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && err == nil && ip.Unmap() == local.AddrPort().Addr().Unmap()
}

// normal is a host in the form in which hosts are compared.
func normal(host string) string {
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}
