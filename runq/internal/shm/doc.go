// Package shm is the memory of a run queue and the one executor that performs
// the protocol's effects on it.
//
// A [Memory] is a control page and one memory for each core, in which regions of
// logs lie; it is on the heap of one process, or in files of memory (memfd) that
// several processes map. An [Executor] performs a program of package protocol,
// one store or one compare-and-swap at a time. Nothing else may compare and swap
// a word of the queue: so what the simulator and the explorer have seen is all
// that happens to the words, and a test of this repository keeps it so.
//
// Stores of slots and payloads are plain, and become visible with the
// compare-and-swap that publishes them. Whoever reads them trusts nothing that
// stands there: another process can write at any time, and a former owner that
// was fenced still does. What is read is copied first and then checked.
//
// Files have the size of the queue's shape and are sealed before anyone else has them,
// so the kernel lets nobody cut them short: [Attach] refuses a file of another size,
// and one that is not sealed, with [ErrShape]. What may go at any time is what lies in
// them, by a hole that is punched: it reads as zeros, which is a region that is not
// there.
//
// The package does not help against a process that writes where it should not:
// all processes map all of the memory for writing. A checksum tells such damage
// afterwards, and nothing here prevents it.
package shm
