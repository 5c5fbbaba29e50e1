// Package chaos kills the worker processes of a real run queue while tasks run,
// takes their memory away, stops them for longer than their lease and lets them go
// on, and then says what became of each task.
//
// The verdict does not ask the queue. Whoever submits, and each handler, appends
// what it is about to do and what it was told to a journal of its own ([Writer]):
// a file that the kernel keeps when the process dies. [Judge] reads all journals,
// counts what was lost, came back or was accepted twice, and checks each task's
// history against a model by porcupine. A trial without any fault, or a queue that
// cannot lose anything, would prove nothing: the controls of [Config] switch one
// rule of the protocol off each, and their verdicts must be bad.
//
// All processes run on one machine and read one clock, CLOCK_MONOTONIC, so their
// records can be ordered. Power cuts are out of scope: neither queue nor journals
// promise anything beyond the machine.
package chaos
