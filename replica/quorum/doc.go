// Package quorum answers one question for every replicated part of coreplica:
// are these nodes enough?
//
// A [System] is a predicate over sets of nodes. Write-all, majorities, joint
// majorities and Byzantine quorums differ in that predicate and in nothing
// else, so the runtime that counts votes and the tests that check intersection
// call the same [System.Reached].
//
// The package is pure: no clock, no goroutine, no I/O. Its values can be copied
// and shared between goroutines.
//
// It does not help with correlated failures: that two nodes share a switch or a
// socket is for whoever chooses the nodes to know.
package quorum
