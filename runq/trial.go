package runq

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/coreplica/coreplica/runq/internal/trial"
	"github.com/coreplica/coreplica/runq/protocol"
)

func init() {
	trial.Punch = func(q any, worker int) error { return q.(*Queue).mem.Punch(protocol.Core(worker)) }
	trial.Signal = func(q any, worker int, sig syscall.Signal) (uint32, error) { return q.(*Queue).signal(worker, sig) }
	trial.Whole = func(q any) bool { return q.(*Queue).unserved() < 0 }
	trial.Logs = func(q any) []protocol.ArbiterWord { return q.(*Queue).arbiters() }
	trial.Lives = func(q any) []uint32 { return q.(*Queue).lives() }
	trial.Redeliver = func(q any, id protocol.TaskID, job any) error { return q.(*Queue).redeliver(id, job.(Job)) }
}

// errNoProcess says that there is nobody to signal.
var errNoProcess = errors.New("worker has no process now")

// signal sends a signal to a worker's process.
func (q *Queue) signal(worker int, sig syscall.Signal) (incarnation uint32, err error) {
	s := q.slots[worker]
	s.mu.Lock()
	incarnation, up := s.life, s.up
	s.mu.Unlock()
	f, ok := q.fleet.(interface {
		signal(core protocol.Core, sig syscall.Signal) error
	})
	if !up || !ok {
		return 0, errNoProcess
	}
	return incarnation, f.signal(protocol.Core(worker), sig)
}

// unserved returns a worker whose queue is not served by it with all copies, or
// -1.
func (q *Queue) unserved() int {
	for i := range q.opts.Workers {
		w := q.mem.Arbiter(protocol.Core(i))
		if w.Phase != protocol.Active || w.Owner != protocol.Core(i) || w.InSync(q.opts.Workers).Len() < q.opts.K {
			return i
		}
	}
	return -1
}

func (q *Queue) arbiters() (words []protocol.ArbiterWord) {
	for i := range q.opts.Workers {
		words = append(words, q.mem.Arbiter(protocol.Core(i)))
	}
	return words
}

func (q *Queue) lives() (lives []uint32) {
	for _, s := range q.slots {
		s.mu.Lock()
		life := s.life
		if !s.up || s.dead >= life {
			life = 0
		}
		s.mu.Unlock()
		lives = append(lives, life)
	}
	return lives
}

// redeliver sends a submission that was sent before.
func (q *Queue) redeliver(id ID, j Job) error {
	if err := q.check(&j, false); err != nil {
		return fmt.Errorf("submit %s again: %w", j.Name, err)
	}
	b := &batch{}
	q.route(id.Core, []protocol.Event{q.event(b, &j, id, q.now(), id.Core)})
	return nil
}

// prepare puts a trial's hooks into a worker.
func (w *worker) prepare() {
	h := &trial.Hooks
	if h.Prepare != nil {
		h.Prepare(w.node)
	}
	if before := h.Before; before != nil {
		w.exec.Before = func(e *protocol.Effect) { before(w.node, e, func() error { return w.mem.Punch(w.core) }) }
	}
	if step := h.Step; step != nil {
		w.recorder = func(evs []protocol.Event, effects []protocol.Effect) { step(w.cfg, w.core, evs, effects) }
	}
}
