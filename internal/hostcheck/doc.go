// Package hostcheck says whether a request to a local HTTP server named that
// server.
//
// A page elsewhere can make its own name resolve to this machine (DNS rebinding),
// and a browser then sends that page's requests here. It cannot make the browser
// leave the name out of the Host header, so a server that answers only to its own
// address, to localhost and to loopback addresses is closed to such pages. The
// same check stands in the debug servers of Jupyter and webpack.
//
// It does not help against other programs and users of this machine, which may
// write any header: it is no authentication.
package hostcheck
