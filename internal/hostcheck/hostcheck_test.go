package hostcheck

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestHosts(t *testing.T) {
	for _, tt := range []struct {
		addr, host string
		allowed    bool
	}{
		{"127.0.0.1:9464", "127.0.0.1:9464", true},
		{"127.0.0.1:9464", "localhost:1", true},
		{"127.0.0.1:9464", "evil.example:9464", false},
		{"127.0.0.1:9464", "localhost.evil.example", false},
		{"127.0.0.1:9464", "", false},
		{"Lab.example:9464", "lab.example.", true},
		{"0.0.0.0:9464", "192.0.2.9:9464", true},
		{"0.0.0.0:9464", "192.0.2.8:9464", false},
		{"", "evil.example", false},
	} {
		req := httptest.NewRequest("GET", "/metrics", nil)
		req.Host = tt.host
		local := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 9464}
		req = req.WithContext(context.WithValue(req.Context(), http.LocalAddrContextKey, local))
		if got := Of(tt.addr).Allows(req); got != tt.allowed {
			t.Errorf("listening on %q, asked as %q: %v", tt.addr, tt.host, got)
		}
	}
}
