// Package vswitch is an Ethernet switch for QEMU guests that can lose,
// duplicate, delay and reorder frames and keep guests apart.
//
// A port is a pair of unix datagram sockets, one bound by the switch and one by
// QEMU's dgram network device, so nothing needs root, a bridge or a network
// namespace. The switch learns which address is behind which port, floods what
// is for a group or unknown, and never sends a frame back to where it came from.
// What the network does wrong is said by the rules of package faults, one seed
// decides about every frame, and [Switch.Stats] accounts for each.
//
// The part that learns, floods and decides has no clock, goroutine or socket.
// The switch runs it, and [Recording.Replay] runs it again over the frames that
// [Options.Record] wrote down, with the same decisions.
//
// A guest whose receive queue is full makes frames wait and, past a bound, be
// lost as overflow. A guest that is not there yet loses frames, too; they are
// counted as absent.
//
// It does not help to measure throughput: each frame costs two system calls and
// a lock. It runs no spanning tree, so a guest that bridges two of its ports
// makes a loop. And what jitter and holds do in real time depends on the
// machine's scheduler; only the decisions are exact.
package vswitch
