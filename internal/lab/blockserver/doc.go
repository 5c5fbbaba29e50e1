// Package blockserver is a disk for guests that can lose its power: an NBD server
// over a unix socket, backed by a sparse file, with a volatile write cache.
//
// A guest, or qemu-io, connects to [Server.URI]. Writes go to the cache of package
// writecache, and a flush, or forced unit access, makes them durable in the file.
// [Server.PowerCut] drops all connections and lets each sector that is not
// durable survive or vanish, by the seed. Then the file is what a guest finds
// that starts again.
//
// The protocol is that of the NBD project (doc/proto.md there): the fixed newstyle
// handshake with the options EXPORT_NAME, ABORT, LIST, INFO and GO, and the
// commands READ, WRITE, FLUSH, TRIM, WRITE_ZEROES and DISC with simple replies.
// All connections share one cache and one lock, so a flush on one covers what was
// answered on the others, which is what CAN_MULTI_CONN promises. The server is
// written here because no Go library for it was found that flushes, forces unit
// access and trims.
//
// Durable means safe from PowerCut. The file is not synced: a loss of power of the
// machine that runs the server is not what this is about.
//
// It does not help to measure speed, it knows no TLS and no structured replies,
// and it is for one machine: whoever may open the socket may write.
package blockserver
