package numa

// Status is how a worker's thread really is.
type Status struct {
	Binding Binding
	// ThreadID is the kernel's number of the thread.
	ThreadID int
	// Affinity is where the kernel lets the thread run now. It is not the
	// binding's CPUs when some of them went offline, a cpuset changed, or
	// somebody used taskset.
	Affinity List
	// Moves counts how often the worker found that its thread may run
	// elsewhere, and Rebounds how often it could bind itself again.
	Moves, Rebounds uint64
	// Handled counts requests whose handler returned, Waiting those in the
	// ring.
	Handled uint64
	Waiting int
}

// Displaced reports whether the thread may run elsewhere than it should.
func (s Status) Displaced() bool { return displaced(s.Affinity, s.Binding.CPUs) }

func displaced(affinity, cpus List) bool { return len(affinity.Minus(cpus)) > 0 }

// Status asks the kernel about the worker's thread. After Close it is an error.
func (w *Worker[T]) Status() (Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return Status{}, ErrWorkerClosed // Its number may be another thread's by now.
	}
	affinity, err := Affinity(w.tid)
	if err != nil {
		return Status{}, err
	}
	return Status{
		Binding: w.at, ThreadID: w.tid, Affinity: affinity,
		Moves: w.moves.Load(), Rebounds: w.rebounds.Load(), Handled: w.handled.Load(), Waiting: w.ring.Len(),
	}, nil
}

// watch notices that the kernel moved the thread. When a CPU goes offline, the
// kernel lets threads that were bound to it run anywhere and says nothing
// (select_fallback_rq in kernel/sched/core.c); when the CPU comes back, they
// stay where they are. So the worker looks at its CPU before each batch, which
// costs some 20 ns, and at its affinity now and then, and binds itself
// again as soon as that is possible.
func (w *Worker[T]) watch(thorough bool) {
	if !thorough && w.at.CPUs.Has(CurrentCPU()) {
		return
	}
	affinity, err := Affinity(0)
	if err == nil && !displaced(affinity, w.at.CPUs) {
		return
	}
	moves := w.moves.Add(1)
	if _, err = rebindThread(w.at.CPUs); err == nil {
		w.rebounds.Add(1)
	}
	if moves&(moves-1) == 0 { // The first, second, fourth, …: a log that stays short.
		w.options.Logger.Warn("the kernel moved a bound thread", "cpus", w.at.CPUs.String(), "node", w.at.Node,
			"affinity", affinity.String(), "times", moves, "bound_again", err == nil)
	}
}
