package runq

import (
	"time"

	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/runq/internal/proc"
	"github.com/coreplica/coreplica/runq/protocol"
)

// home is the CPU of a scheduling loop. When a CPU goes offline, the kernel lets
// threads that were bound to it run anywhere, and leaves them there when it is
// back.
type home struct {
	cpu  int
	away bool
	// whole is a process that lives there with all its threads.
	whole bool
}

// settle brings the other threads to where the loop is. What the loop writes its
// handler reads: on two CPUs that costs more than most handlers do. Where it fails
// they are slower, and nothing worse.
func (h *home) settle() {
	switch {
	case !h.whole:
	case h.away:
		_ = proc.Unbind() // One that sleeps would stay bound to a CPU that has left.
	default:
		_ = proc.Bind(h.cpu)
	}
}

// look binds the loop's thread again if it is not where it belongs, and reports
// whether it has been displaced or is back since the last look.
func (h *home) look() (changed bool) {
	if !h.away && numa.CurrentCPU() == h.cpu {
		return false
	}
	away := numa.Rebind(numa.ListOf(h.cpu)) != nil
	changed, h.away = away != h.away, away
	return changed
}

// stay looks after the loop's CPU. A loop that lost it runs on another, until its
// queue is handed over and after: nothing has failed, and memory stays where it is.
func (w *worker) stay() {
	if w.home == nil || !w.home.look() {
		return
	}
	w.home.settle()
	step := WorkerBound
	if w.home.away {
		step = WorkerMoved
	}
	w.note(notice{kind: noteStep, step: step, core: w.core, log: w.core, incarnation: w.node.Incarnation()})
}

// gatherPoll is how often a worker looks whether the others live.
const gatherPoll = time.Millisecond

// gather waits for all workers to come to life once, when a queue is opened. The
// copies of a log go to its nearest neighbours of those that live, so whoever
// began at once would take whom it happens to see. The wait costs nothing: a
// queue is open when all serve.
func (w *worker) gather() {
	for end := w.now().Add(birthPatience); !w.doomed.Load() && w.now() < end; w.in.alarm.sleep(gatherPoll) {
		all := true
		for i := range w.cfg.Cores {
			all = all && w.mem.Heartbeat(protocol.Core(i)).Incarnation > 0
		}
		if all {
			return
		}
	}
}
