package runq

import (
	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/internal/trial"
)

// publish tells the handlers until when the lease holds. It comes behind the store
// of the heartbeat that the lease is from: others wait from that one on.
func (w *worker) publish() { w.held.Store(int64(w.node.Held())) }

// mayBegin reports whether a handler may begin: the lease holds. A process that
// was stopped for longer has most likely lost its logs, and the loop, which looks
// first, finds out. One that is stopped between this look and the handler's first
// line begins all the same, for nobody can look at that very moment.
func (w *worker) mayBegin() bool {
	return w.now() < clock.Instant(w.held.Load()) || trial.Hooks.Late
}

// sortLate takes those out of runs that came back from the handlers because the
// lease was over.
func (w *worker) sortLate(runs []*run) []*run {
	kept := runs[:0]
	for _, r := range runs {
		if r.late {
			r.late = false
			w.late = append(w.late, r)
			w.running--
			continue
		}
		kept = append(kept, r)
	}
	clear(runs[len(kept):])
	return kept
}

// beginAgain has the handlers try again with what came too late, once the lease
// holds: then a look at the control page has shown that the logs are still ours.
func (w *worker) beginAgain() {
	if len(w.late) == 0 || !w.mayBegin() {
		return
	}
	w.begun = append(w.begun, w.late...)
	w.running += len(w.late)
	clear(w.late)
	w.late = w.late[:0]
}
