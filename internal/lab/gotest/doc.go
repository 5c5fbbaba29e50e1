// Package gotest runs the tests and benchmarks of Go packages inside guests.
//
// A package says in one of its test files what its guests must have:
//
//	//coreplica:guest kernel=6.1,6.12 topology=2x2 modules="loop;brd rd_nr=3" tools=mkfs.btrfs run=TestGuest
//
// Each such line is a run, on each of its kernels. [Parse] tells the keys. The
// tests are compiled on this machine, without cgo, and packed together with the
// package's folder. What they print passes through the go command's own
// test2json, so that any tool for `go test -json` reads it.
package gotest
