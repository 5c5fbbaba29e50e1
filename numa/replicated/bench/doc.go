// Package bench measures replicated structures beside the same structures under a
// lock, without any third party's: the command coreplica and the benchmarks module
// share it, and the latter adds peers.
//
// A comparison runs its candidates in short blocks, one after the other and then
// again, so that a machine that grows slower half way slows all of them. What
// counts is the ratio of two blocks that were run next to each other; its median
// comes with the interval that holds the middle of the distribution.
//
// The figures say what replication costs on the machine at hand. On one socket
// they cannot say what it gains on several: simulated nodes share one cache.
package bench
