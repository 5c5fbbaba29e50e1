// Package bench measures what a task costs in a queue, from its submission over its
// claim to its end, with nothing in the task: the replicated run queue with one,
// two and three copies beside a buffered channel. The command coreplica and the
// benchmarks module share it, and the latter adds peers.
//
// Contenders run in short blocks, in turn, and what counts is the ratio of two
// blocks of one round; see internal/paired.
//
// A channel keeps nothing of a task that its worker took and no copy of one that
// it holds, so the ratio to it is the price of being able to lose a core. What it
// does not show is the cost of the task itself: beside a body of 100 µs, all of
// these queues cost nothing.
package bench
