// Package mirrorcost measures what a mirrored write costs in CPU, on the
// running kernel, against the same write without the mirror.
//
// [Run] brings up both legs, writes to them in blocks ordered ABBA or BAAB by
// seed, and divides the CPU time that the ledger (package bpf) charges to the
// write path by the writes that were acknowledged. The quad of four blocks is
// the statistical unit: blocks next to each other resemble each other, and an
// interval over blocks would be too narrow.
//
// What is charged: the load's own time, the work functions and kernel threads
// of the mirror and the device below it, softirqs and hardirqs, each less its
// rate while nothing was written. Each block ends with syncfs and drained
// queues, so that work put off is charged to the writes that caused it.
//
// It says nothing about latency under contention, about energy, or about
// machines other than the one it ran on; and it does not help where the tax is
// smaller than the noise between quads: then it reports that no difference was
// shown.
package mirrorcost
