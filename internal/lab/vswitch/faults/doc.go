// Package faults decides what a bad network does to each frame: lose it, send
// it twice, hold it back, let others overtake it, or keep two halves of a
// cluster apart.
//
// [Rules] say what goes wrong between which nodes. [Parse] reads them from a
// text such as
//
//	drop 20% from a; delay 10ms±3ms; reorder 5% gap 2 to b; partition a,b|c
//
// and [Rules.For] gives the [Faults] of one [Link], an ordered pair of nodes. A
// link numbers its frames, and every random decision is a pure function of
// (seed, from, to, number of the frame on that link, kind of fault). So one seed
// drops the same frames of the same traffic, whatever happens on other links and
// in whatever order. [Queue] holds the frames that wait.
//
// The vocabulary is that of tc-netem(8), with one difference: jitter does not
// reorder. Reordering is a fault of its own, so that a failing test names its
// cause.
//
// The package is pure: no clock, no goroutine, no I/O. Time is an argument.
//
// It does not help with a medium that is short: there is no bandwidth, no
// corruption of bits, and losses come one by one instead of in bursts.
package faults
