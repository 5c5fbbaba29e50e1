// Package runq is a replicated run queue inside one machine: workers, one for
// each CPU, that execute tasks by handlers which the program registered, and
// whose queues outlive them.
//
// Each worker has a queue. Every task, with its payload, stands in k failure
// domains before its submission is acknowledged, and so do its claim and its
// result when they count. When a worker stops, a neighbour seals what it wrote,
// reads it from any copy that is left, and goes on; a worker that was only slow
// finds its next write refused. The protocol is package protocol, which a
// simulator and an explorer execute too; this package is the loop around it, the
// handlers, and what a submitter needs.
//
// [Open] starts the workers, [Queue.Submit] hands a task over and [Queue.Wait]
// returns its result. [Main] comes first in main: workers are processes of the
// same program. With [Options.Threads] they are goroutines, which is faster and
// survives nothing: a core failure stops the whole process.
//
// The shape is CSR's (Shalev et al., Core Surprise Removal in Commodity Operating
// Systems, ASPLOS 2016) with replicas in place of coherent memory, and the
// backups are those of fault-tolerant task pools (Fohry et al., lifeline GLB).
//
// It does not help against the end of the machine: nothing is written to a disk.
// It does not make what a handler does to the world happen once; [Mode] says what
// is promised. And it costs more than a channel, for every task is written k
// times.
package runq
