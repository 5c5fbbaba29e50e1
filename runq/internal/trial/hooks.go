package trial

import (
	"syscall"

	"github.com/coreplica/coreplica/runq/protocol"
)

// Hooks are called by the queue's own code.
var Hooks struct {
	// Spare is asked by the opener before it kills a worker for a takeover. If
	// it says so, the kill does not happen: a victim that does not die.
	Spare func(worker int, incarnation uint32) bool

	// Late switches off that handlers begin only while the lease holds, as a
	// control.
	Late bool

	// The others are called by workers, in the scheduling loop.

	// Prepare is called with each node before it lives.
	Prepare func(n *protocol.Node)
	// Before is called before each effect is performed. Punch takes the memory
	// of the worker's own failure domain away.
	Before func(n *protocol.Node, e *protocol.Effect, punch func() error)
	// Step is called with what a step took and returned, before it is
	// performed.
	Step func(cfg protocol.Config, core protocol.Core, evs []protocol.Event, effects []protocol.Effect)
	// Accepting is called before a result is handed to the protocol, Accepted
	// when every in-sync copy has it. The payload is the task's.
	Accepting, Accepted func(payload []byte, attempt uint16, token uint32)
	// Fenced is called when a publication was refused because the log has
	// another owner.
	Fenced func(log protocol.Core)
}

// The queue's package sets these. q is a *runq.Queue.
var (
	// Punch takes the memory of a worker's failure domain away.
	Punch func(q any, worker int) error
	// Signal sends a signal to a worker's process, and says to which life.
	Signal func(q any, worker int, sig syscall.Signal) (incarnation uint32, err error)
	// Whole reports whether every log is served by its own worker with all its
	// copies.
	Whole func(q any) bool
	// Logs returns the arbiter word of every log, and Lives the incarnation of
	// every worker that is up, or 0.
	Logs  func(q any) []protocol.ArbiterWord
	Lives func(q any) []uint32
	// Redeliver submits a task once more under the ID that it has, as a
	// submitter does that was not answered.
	Redeliver func(q any, id protocol.TaskID, job any) error
)
